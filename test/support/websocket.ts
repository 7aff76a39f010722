/** A WebSocket client that does exactly what a test tells it, also what no client should do. */
import { randomBytes } from 'node:crypto';
import net from 'node:net';

export interface ServerFrame {
  readonly opcode: number;
  readonly payload: Buffer;
}

export const validHeaders = {
  Upgrade: 'websocket',
  Connection: 'Upgrade',
  'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
};

export interface FrameOptions {
  readonly isLast?: boolean;
  readonly masked?: boolean;
  readonly reserved?: number;
}

export function clientFrame(opcode: number, data: string | Uint8Array, options: FrameOptions = {}): Buffer {
  const payload = Buffer.from(data);
  const { length } = payload;
  const head = [(options.isLast === false ? 0 : 0x80) | (options.reserved ?? 0) | opcode];
  const masked = options.masked === false ? 0 : 0x80;
  if (length < 126) head.push(masked | length);
  else if (length < 65_536) head.push(masked | 126, length >> 8, length & 255);
  else
    head.push(masked | 127, 0, 0, 0, 0, (length >>> 24) & 255, (length >> 16) & 255, (length >> 8) & 255, length & 255);
  if (masked === 0) return Buffer.concat([Buffer.from(head), payload]);
  const mask = randomBytes(4);
  return Buffer.concat([Buffer.from(head), mask, payload.map((byte, i) => byte ^ (mask[i & 3] as number))]);
}

export class RawWebSocket {
  readonly status: number;
  readonly head: string;
  readonly socket: net.Socket;
  #bytes: Buffer;
  #ended = false;
  #wake: () => void = () => undefined;

  private constructor(socket: net.Socket, head: string, rest: Buffer) {
    this.socket = socket;
    this.head = head;
    this.status = Number(head.split(' ')[1]);
    this.#bytes = rest;
    socket.on('data', (data) => {
      this.#bytes = Buffer.concat([this.#bytes, data]);
      this.#wake();
    });
    const ended = () => {
      this.#ended = true;
      this.#wake();
    };
    socket.on('end', ended);
    socket.on('close', ended);
    socket.on('error', () => undefined);
  }

  /** Resolves when the answer's headers are there, whatever they say. `early` is sent right behind the question. */
  static open(
    socketPath: string,
    path: string,
    headers: Readonly<Record<string, string>> = validHeaders,
    early: Buffer = Buffer.alloc(0),
  ): Promise<RawWebSocket> {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ path: socketPath, allowHalfOpen: true });
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(Buffer.concat([Buffer.from(`GET ${path} HTTP/1.1\r\nHost: x\r\n${lines.join('')}\r\n`), early]));
      let seen = Buffer.alloc(0);
      const collect = (data: Buffer) => {
        seen = Buffer.concat([seen, data]);
        const end = seen.indexOf('\r\n\r\n');
        if (end < 0) return;
        socket.off('data', collect);
        resolve(new RawWebSocket(socket, seen.toString('latin1', 0, end), seen.subarray(end + 4)));
      };
      socket.on('data', collect);
      socket.once('error', reject);
      socket.once('close', () => reject(new Error(`closed before the answer: ${seen.toString()}`)));
    });
  }

  send(opcode: number, data: string | Uint8Array = '', options: FrameOptions = {}): void {
    this.socket.write(clientFrame(opcode, data, options));
  }

  /** The next frame, or null when the server has closed its side. */
  async next(): Promise<ServerFrame | null> {
    for (;;) {
      const found = this.#take();
      if (found !== null) return found;
      if (this.#ended) {
        if (this.#bytes.length > 0) throw new Error(`a torn frame: ${this.#bytes.toString('hex')}`);
        return null;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** The body of an answer that is no upgrade. */
  async rest(): Promise<string> {
    const length = Number(/^content-length: *(\d+)/im.exec(this.head)?.[1] ?? Infinity);
    while (!this.#ended && this.#bytes.length < length) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#bytes.toString();
  }

  /** Payload of text and binary frames up to the close frame, and the code of that. */
  async readToClose(): Promise<{ readonly data: Buffer; readonly code: number | null }> {
    const parts: Buffer[] = [];
    for (;;) {
      const frame = await this.next();
      if (frame === null) return { data: Buffer.concat(parts), code: null };
      if (frame.opcode === 8) return { data: Buffer.concat(parts), code: frame.payload.readUInt16BE(0) };
      if (frame.opcode === 1 || frame.opcode === 2) parts.push(frame.payload);
    }
  }

  #take(): ServerFrame | null {
    const bytes = this.#bytes;
    const second = bytes[1];
    if (second === undefined) return null;
    if ((second & 0x80) !== 0) throw new Error('a server must not mask');
    const long = second === 127 ? 8 : second === 126 ? 2 : 0;
    if (bytes.length < 2 + long) return null;
    const length = long === 0 ? second : long === 2 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
    if (bytes.length < 2 + long + length) return null;
    this.#bytes = bytes.subarray(2 + long + length);
    return { opcode: (bytes[0] as number) & 15, payload: bytes.subarray(2 + long, 2 + long + length) };
  }
}
