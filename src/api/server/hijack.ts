/**
 * Connections that become raw streams: attach and exec start (W-63, W-64, W-67).
 *
 * The HTTP parser lets go of such a connection right after the headers, whether the client asked for an upgrade or not, so
 * that bytes sent early are never taken for a second request. The declared body is read here; input begins after it.
 * Both directions end on their own: the client's end of input never ends the output.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Attachment } from '../../container/api.ts';
import { invalid } from '../../lib/errors.ts';
import { jsonBytesMax } from './decode.ts';
import { announcedLength } from './dispatch.ts';
import { ClientGone, HttpError } from './errors.ts';
import { pump } from './pump.ts';
import { talk } from './websocket.ts';

/** A client that keeps its side open after the output's end is left after this. */
const lingerMs = 10_000;

const rawStream = 'application/vnd.docker.raw-stream';

export class HijackedConnection {
  readonly #socket: Socket;
  readonly #body: DeclaredBody;
  readonly #wantsUpgrade: boolean;
  readonly #gone = new AbortController();
  #hasAnswered = false;
  #isFinished = false;

  /** `head`: what arrived behind the headers. */
  constructor(socket: Socket, headers: IncomingHttpHeaders, head: Buffer) {
    this.#socket = socket;
    this.#body = declaredBody(headers);
    const upgrade = headers.upgrade?.toLowerCase();
    // Ordinary clients offer HTTP/2 this way and expect a plain answer.
    this.#wantsUpgrade = upgrade !== undefined && upgrade !== 'h2c';
    socket.allowHalfOpen = true;
    socket.on('error', () => socket.destroy());
    socket.once('close', () => {
      if (!this.#isFinished) this.#gone.abort();
    });
    if (head.length > 0) socket.unshift(head);
  }

  get hasAnswered(): boolean {
    return this.#hasAnswered;
  }

  /** Aborts when the client leaves before it has its whole answer. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** The declared body; 413 above the limit for JSON, 400 for broken chunks. */
  async body(): Promise<Buffer> {
    const parts: Buffer[] = [];
    let size = 0;
    if (this.#body.isDone) return Buffer.alloc(0);
    for await (const chunk of this.#requestBytes()) {
      const { body, rest } = this.#body.feed(chunk);
      for (const part of body) {
        size += part.length;
        if (size > jsonBytesMax) {
          throw new HttpError(413, `request body too large: at most ${jsonBytesMax} bytes are accepted`);
        }
        parts.push(part);
      }
      if (this.#body.isBroken) throw invalid('malformed request: a chunk of the body has no valid size');
      if (this.#body.isDone) {
        if (rest.length > 0) this.#socket.unshift(rest);
        return Buffer.concat(parts);
      }
    }
    throw new ClientGone('the client left within its request');
  }

  /** Answers in the ordinary way and closes the connection. */
  answer(status: number, headers: Readonly<Record<string, string>>, body: string): void {
    const length = status === 204 || status === 304 ? {} : { 'Content-Length': String(Buffer.byteLength(body)) };
    this.#writeHead(status, STATUS_CODES[status] ?? '', { ...headers, ...length, Connection: 'close' });
    this.#socket.write(body);
    this.#finish();
    this.#socket.resume();
  }

  /** Resolves when the output has ended and was handed to the kernel, or the client has left. */
  async stream(attachment: Attachment, headers: Readonly<Record<string, string>>): Promise<void> {
    if (this.#wantsUpgrade) {
      const upgrade = { 'Content-Type': rawStream, Connection: 'Upgrade', Upgrade: 'tcp' };
      this.#writeHead(101, 'UPGRADED', { ...upgrade, ...headers });
    } else {
      this.#writeHead(200, 'OK', { 'Content-Type': rawStream, ...headers });
    }
    const fed = this.#feed(attachment.input);
    try {
      await pump(attachment.output, this.#socket, (chunk) => chunk);
    } finally {
      this.#finish();
    }
    await fed;
  }

  /** Resolves when the talk is over and the client has closed its side, or was left. `headers`: those of the handshake among them. */
  async speakWebSocket(
    attachment: Attachment,
    frames: 'text' | 'binary',
    headers: Readonly<Record<string, string>>,
  ): Promise<void> {
    this.#writeHead(101, 'Switching Protocols', headers);
    const [leave, finish] = [() => this.#gone.abort(), () => this.#finish()];
    await talk({ socket: this.#socket, bytes: this.#bytes(), leave, finish }, attachment, frames);
  }

  #writeHead(status: number, words: string, headers: Readonly<Record<string, string>>): void {
    this.#hasAnswered = true;
    let head = `HTTP/1.1 ${status} ${words}\r\n`;
    for (const [name, value] of Object.entries(headers)) head += `${name}: ${value}\r\n`;
    this.#socket.write(`${head}\r\n`);
  }

  /** Hands input on, one piece at a time. Without anybody to take it, it is read and dropped: the end must be seen. */
  async #feed(input: Attachment['input']): Promise<void> {
    let taker = input;
    try {
      for await (const chunk of this.#bytes()) {
        const { rest } = this.#body.feed(chunk);
        if (rest.length === 0 || taker === null) continue;
        // A container that has ended takes no more; its output may still be on its way.
        await taker.write(rest).catch(() => {
          taker = null;
        });
      }
    } catch {
      // The connection broke: `gone` says so.
    }
    input?.end();
  }

  /** Half-closes after all that was written. The rest of the input is still read, or the last output could be lost on TCP. */
  #finish(): void {
    const socket = this.#socket;
    if (socket.destroyed) return;
    this.#isFinished = true;
    socket.end(() => {
      const timer = setTimeout(() => socket.destroy(), lingerMs);
      timer.unref();
      socket.once('close', () => clearTimeout(timer));
    });
  }

  async *#requestBytes(): AsyncIterable<Buffer> {
    try {
      yield* this.#bytes();
    } catch (error) {
      throw new ClientGone('the client left within its request', { cause: error });
    }
  }

  #bytes(): AsyncIterable<Buffer> {
    return this.#socket.iterator({ destroyOnReturn: false });
  }
}

/** Finds the end of a declared body in a stream of bytes. */
interface DeclaredBody {
  readonly isDone: boolean;
  /** What should be a chunk is not: everything from there on is `rest`. */
  readonly isBroken: boolean;
  feed(chunk: Buffer): { readonly body: readonly Buffer[]; readonly rest: Buffer };
}

export function declaredBody(headers: IncomingHttpHeaders): DeclaredBody {
  const length = announcedLength(headers);
  return length === undefined ? new ChunkedBody() : new SizedBody(length);
}

class SizedBody implements DeclaredBody {
  readonly isBroken = false;
  #left: number;
  constructor(length: number) {
    this.#left = length;
  }
  get isDone() {
    return this.#left === 0;
  }
  feed(chunk: Buffer) {
    const taken = Math.min(this.#left, chunk.length);
    this.#left -= taken;
    return { body: taken === 0 ? [] : [chunk.subarray(0, taken)], rest: chunk.subarray(taken) };
  }
}

/** Longest line of a chunk's size with extensions, or of a trailer. */
const lineMax = 4096;
const nothing = Buffer.alloc(0);

class ChunkedBody implements DeclaredBody {
  isDone = false;
  isBroken = false;
  /** The beginning of a line whose end has not come. */
  #line: Buffer = nothing;
  #expects: 'size' | 'data' | 'end of data' | 'trailer' = 'size';
  #left = 0;

  feed(chunk: Buffer) {
    const body: Buffer[] = [];
    let bytes = this.#line.length === 0 ? chunk : Buffer.concat([this.#line, chunk]);
    this.#line = nothing;
    while (!this.isDone && bytes.length > 0) {
      if (this.#expects === 'data') {
        const taken = bytes.subarray(0, this.#left);
        body.push(taken);
        bytes = bytes.subarray(taken.length);
        this.#left -= taken.length;
        if (this.#left === 0) this.#expects = 'end of data';
        continue;
      }
      const end = bytes.indexOf('\r\n');
      if (end < 0 && bytes.length <= lineMax && this.#mayBecomeLine(bytes)) {
        this.#line = bytes;
        return { body, rest: nothing };
      }
      if (end < 0 || !this.#takeLine(bytes.toString('latin1', 0, end))) {
        this.isBroken = true;
        this.isDone = true;
        break;
      }
      bytes = bytes.subarray(end + 2);
    }
    return { body, rest: bytes };
  }

  /** Bytes that cannot begin a size are not held back: some clients declare chunks and send raw input. */
  #mayBecomeLine(bytes: Buffer): boolean {
    if (this.#expects === 'trailer') return true;
    return (this.#expects === 'size' ? /^[0-9a-f]+[ \t]*(;.*)?\r?$/is : /^\r?$/).test(bytes.toString('latin1'));
  }

  #takeLine(line: string): boolean {
    if (this.#expects === 'trailer') {
      if (line === '') this.isDone = true;
      return true;
    }
    if (this.#expects === 'end of data') {
      this.#expects = 'size';
      return line === '';
    }
    const size = /^([0-9a-f]{1,8})[ \t]*(;.*)?$/i.exec(line)?.[1];
    if (size === undefined) return false;
    this.#left = Number.parseInt(size, 16);
    this.#expects = this.#left === 0 ? 'trailer' : 'data';
    return true;
  }
}
