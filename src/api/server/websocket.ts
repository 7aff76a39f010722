/** A WebSocket (RFC 6455) between a client and a container's streams: the handshake, and the talk after it. */
import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { Socket } from 'node:net';
import type { Attachment } from '../../container/api.ts';
import { closeFrame, closing, FrameError, FrameReader, frame, opcode, TextFrames } from './frames.ts';
import { pump } from './pump.ts';

const protocolVersion = '13';
const keySalt = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

export type Handshake =
  | { readonly is: 'accepted'; readonly headers: Readonly<Record<string, string>> }
  | { readonly is: 'refused'; readonly why: string; readonly headers: Readonly<Record<string, string>> };

const refused = (why: string): Handshake => ({
  is: 'refused',
  why: `not a WebSocket handshake: ${why}`,
  headers: { 'Sec-WebSocket-Version': protocolVersion },
});

const names = (list: string | undefined) => (list ?? '').split(',').map((word) => word.trim());

/** What a client's headers ask for. The first subprotocol it offers is agreed to, since it would leave otherwise; extensions are not. */
export function handshake(headers: IncomingHttpHeaders): Handshake {
  const { connection, upgrade } = headers;
  if (!names(upgrade?.toLowerCase()).includes('websocket')) return refused('the header Upgrade does not say websocket');
  if (!names(connection?.toLowerCase()).includes('upgrade'))
    return refused('the header Connection does not say Upgrade');
  if (headers['sec-websocket-version'] !== protocolVersion) {
    return refused(`only version ${protocolVersion} is spoken (Sec-WebSocket-Version)`);
  }
  const key = headers['sec-websocket-key'];
  if (key === undefined || !/^[A-Za-z0-9+/]{22}==$/.test(key)) {
    return refused('the header Sec-WebSocket-Key is not 16 bytes in base64');
  }
  const [subprotocol] = names(headers['sec-websocket-protocol']);
  return {
    is: 'accepted',
    headers: {
      Upgrade: 'websocket',
      Connection: 'Upgrade',
      'Sec-WebSocket-Accept': createHash('sha1').update(`${key}${keySalt}`).digest('base64'),
      ...(subprotocol ? { 'Sec-WebSocket-Protocol': subprotocol } : {}),
    },
  };
}

export interface Line {
  readonly socket: Socket;
  /** What the client sends. */
  readonly bytes: AsyncIterable<Buffer>;
  /** The client wants no more output: it ends. */
  leave(): void;
  /** Everything is sent. What the client still sends is read. */
  finish(): void;
}

/**
 * Carries output to the client and what it sends to the input, until the output ends or the client closes. Both go at the pace
 * of the slower side. Whether a client sends text or binary is the same to a container. Resolves when the client's side is closed, too.
 */
export async function talk(
  { socket, bytes, leave, finish }: Line,
  { input, output }: Attachment,
  frames: 'text' | 'binary',
): Promise<void> {
  /** Of several pings, an answer to the last is enough (section 5.5.3): so a client that never reads gathers nothing here. */
  let ping: Buffer | null = null;
  let isClosed = false;
  const send = (data: Buffer): void => {
    if (!isClosed && socket.writable) socket.write(data);
  };
  const answerPing = (): void => {
    if (ping === null || socket.writableNeedDrain) return;
    send(frame(opcode.pong, ping));
    ping = null;
  };
  const close = (code: number, reason?: string): void => {
    send(closeFrame(code, reason));
    isClosed = true;
  };
  socket.on('drain', answerPing);

  async function listen(): Promise<void> {
    let taker = input;
    const reader = new FrameReader();
    for await (const chunk of bytes) {
      if (isClosed) continue;
      for (const piece of reader.feed(chunk)) {
        if (piece.is === 'close') {
          close(piece.code);
          leave();
          break;
        }
        if (piece.is === 'ping') {
          ping = piece.bytes;
          answerPing();
        }
        // A container that has ended takes no more; its output may still be on its way.
        if (piece.is === 'data')
          await taker?.write(piece.bytes).catch(() => {
            taker = null;
          });
      }
    }
  }

  const heard = listen()
    .catch((error: unknown) => {
      // Anything else is a broken connection.
      if (error instanceof FrameError) close(error.code, error.message);
    })
    .finally(() => {
      input?.end();
      leave();
    });

  const text = new TextFrames();
  const encode = (chunk: Uint8Array) => (frames === 'binary' ? frame(opcode.binary, chunk) : text.encode(chunk));
  try {
    await pump(filled(output, encode), socket, (data) => (isClosed ? Buffer.alloc(0) : data));
    const last = text.end();
    if (last !== null) send(last);
    close(closing.normal);
  } catch (error) {
    close(closing.internalError);
    throw error;
  } finally {
    finish();
  }
  await heard;
}

/** What there is to send, frame by frame. */
async function* filled(
  source: AsyncIterable<Uint8Array>,
  encode: (chunk: Uint8Array) => Buffer | null,
): AsyncIterable<Buffer> {
  for await (const chunk of source) {
    const data = chunk.length === 0 ? null : encode(chunk);
    if (data !== null) yield data;
  }
}
