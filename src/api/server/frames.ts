/**
 * WebSocket frames as they lie on the wire (RFC 6455, section 5): pure, no sockets.
 *
 * Payload is handed on as it arrives and never gathered, so a message of any length costs no memory; only control frames,
 * which the protocol limits to 125 bytes, are kept until they are whole.
 */

import { isUtf8 } from 'node:buffer';

export const opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** Status codes of a close frame (section 7.4). */
export const closing = { normal: 1000, protocolError: 1002, internalError: 1011 } as const;

export type Piece =
  /** A part of a message, unmasked. Where messages and frames begin and end is of no meaning to a byte stream. */
  | { readonly is: 'data'; readonly bytes: Buffer }
  | { readonly is: 'ping' | 'pong'; readonly bytes: Buffer }
  /** `code` is what an answer should carry. */
  | { readonly is: 'close'; readonly code: number };

/** The other side does not speak the protocol: the connection fails with this code. */
export class FrameError extends Error {
  readonly code: number = closing.protocolError;
}

const controlMax = 125;
/** Two bytes, eight of extended length, four of mask. */
const headerMax = 14;

interface Frame {
  readonly opcode: number;
  readonly mask: Buffer;
  readonly length: number;
}

/** Reads what a client sends, however it is cut. */
export class FrameReader {
  /** The beginning of a header that has not come whole. */
  #header = Buffer.alloc(0);
  #frame: Frame | null = null;
  /** Payload bytes of the frame seen so far: where the mask goes on. */
  #seen = 0;
  #control: Buffer[] = [];
  /** A message whose last frame has not come. */
  #isWithinMessage = false;

  /** Throws `FrameError`; after that, and after a close, nothing more is to be fed. */
  *feed(chunk: Buffer): Generator<Piece> {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#frame === null) {
        const before = this.#header.length;
        const header = Buffer.concat([this.#header, rest.subarray(0, headerMax - before)]);
        const size = headerSize(header);
        if (header.length < size) {
          this.#header = header;
          return;
        }
        this.#header = Buffer.alloc(0);
        rest = rest.subarray(size - before);
        this.#frame = this.#accept(header.subarray(0, size));
        this.#seen = 0;
      }
      const frame = this.#frame;
      const payload = Buffer.from(rest.subarray(0, frame.length - this.#seen));
      rest = rest.subarray(payload.length);
      for (let i = 0; i < payload.length; i++) {
        payload[i] = (payload[i] as number) ^ (frame.mask[(this.#seen + i) & 3] as number);
      }
      this.#seen += payload.length;
      const isWhole = this.#seen === frame.length;
      if (isWhole) this.#frame = null;
      if (frame.opcode >= opcode.close) yield* this.#feedControl(frame.opcode, payload, isWhole);
      else if (payload.length > 0) yield { is: 'data', bytes: payload };
    }
  }

  *#feedControl(code: number, payload: Buffer, isWhole: boolean): Generator<Piece> {
    this.#control.push(payload);
    if (!isWhole) return;
    const bytes = Buffer.concat(this.#control);
    this.#control = [];
    if (code === opcode.close) yield { is: 'close', code: closeCodeOf(bytes) };
    else yield { is: code === opcode.ping ? 'ping' : 'pong', bytes };
  }

  #accept(header: Buffer): Frame {
    const [first = 0, second = 0] = header;
    const code = first & 0x0f;
    const isLast = (first & 0x80) !== 0;
    if ((first & 0x70) !== 0) throw new FrameError('reserved bits are set, but no extension was agreed on');
    if ((second & 0x80) === 0) throw new FrameError('a frame from a client must be masked');
    const long = lengthBytesOf(second);
    const length = long === 0 ? second & 0x7f : long === 2 ? header.readUInt16BE(2) : Number(header.readBigUInt64BE(2));
    if (!Number.isSafeInteger(length)) throw new FrameError('a frame is longer than anything can be');
    if (code >= opcode.close) {
      if (code > opcode.pong) throw new FrameError(`unknown opcode ${code}`);
      if (!isLast) throw new FrameError('a control frame cannot be fragmented');
      if (length > controlMax) throw new FrameError(`a control frame has at most ${controlMax} bytes`);
    } else {
      if (code > opcode.binary) throw new FrameError(`unknown opcode ${code}`);
      if ((code === opcode.continuation) !== this.#isWithinMessage) {
        throw new FrameError('a message begins within another, or goes on before it began');
      }
      this.#isWithinMessage = !isLast;
    }
    return { opcode: code, mask: header.subarray(2 + long), length };
  }
}

const lengthBytesOf = (second: number): number => ((second & 0x7f) === 127 ? 8 : (second & 0x7f) === 126 ? 2 : 0);

/** With a mask, which each valid frame has; a frame without is refused when its second byte is there. */
function headerSize(header: Buffer): number {
  const second = header[1];
  if (second === undefined) return 2;
  return 2 + lengthBytesOf(second) + ((second & 0x80) === 0 ? 0 : 4);
}

function closeCodeOf(payload: Buffer): number {
  if (payload.length === 0) return closing.normal;
  if (payload.length === 1) throw new FrameError('a close frame has a code of two bytes');
  const code = payload.readUInt16BE(0);
  const isKnown =
    (code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code)) || (code >= 3000 && code <= 4999);
  if (!isKnown) throw new FrameError(`a close frame cannot have code ${code}`);
  return code;
}

/** One unmasked, unfragmented frame, as servers send them. */
export function frame(code: number, payload: Uint8Array): Buffer {
  const { length } = payload;
  const long = length > 0xffff ? 8 : length > 125 ? 2 : 0;
  const whole = Buffer.alloc(2 + long + length);
  whole[0] = 0x80 | code;
  whole[1] = long === 8 ? 127 : long === 2 ? 126 : length;
  if (long === 2) whole.writeUInt16BE(length, 2);
  if (long === 8) whole.writeBigUInt64BE(BigInt(length), 2);
  whole.set(payload, 2 + long);
  return whole;
}

/** `reason` is cut where it would not fit. */
export function closeFrame(code: number, reason = ''): Buffer {
  const payload = Buffer.alloc(2 + Math.min(Buffer.byteLength(reason), controlMax - 2));
  payload.writeUInt16BE(code);
  payload.write(reason, 2);
  return frame(opcode.close, payload);
}

/**
 * Cuts a stream of bytes into text frames. A character that is not whole waits for its rest, since a client has to give up on a
 * text that is not UTF-8; bytes that are no UTF-8 at all go out as a binary frame.
 */
export class TextFrames {
  #waiting = Buffer.alloc(0);

  encode(chunk: Uint8Array): Buffer | null {
    const bytes = this.#waiting.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#waiting, chunk]);
    const end = bytes.length - unfinishedTail(bytes);
    this.#waiting = bytes.subarray(end);
    return end === 0 ? null : textOrBinary(bytes.subarray(0, end));
  }

  /** What never became a whole character. */
  end(): Buffer | null {
    return this.#waiting.length === 0 ? null : textOrBinary(this.#waiting);
  }
}

function textOrBinary(bytes: Buffer): Buffer {
  return frame(isUtf8(bytes) ? opcode.text : opcode.binary, bytes);
}

/** How many bytes at the end begin a character of which more must come. */
function unfinishedTail(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] as number;
    if (byte < 0x80) return 0;
    if (byte >= 0xc0) {
      if (byte > 0xf4) return 0;
      const size = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return back < size ? back : 0;
    }
  }
  return 0;
}
