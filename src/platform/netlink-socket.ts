/**
 * netlink(7): requests to the kernel over a socket, in binary messages, answered at once.
 * The kernel does what a message asks before `send` returns, so reading the answer never waits.
 */
import { check, declare, declareSlow, isErrno, SystemError } from './libc.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
export const NLM_F = { REQUEST: 1, ACK: 4, EXCL: 0x200, CREATE: 0x400, DUMP: 0x300 } as const;
const NLMSG = { ERROR: 2, DONE: 3 } as const;
const MSG_DONTWAIT = 0x40;
const NLA_TYPE = 0x3fff;
export const NLA_F_NESTED = 0x8000;
const headerSize = 16;
/** The kernel's datagrams are smaller: it never fills more than a page or what the last read offered. */
const bufferSize = 64 * 1024;

const socket_ = declare<[number, number, number], number>('int socket(int domain, int type, int protocol)');
const close_ = declare<[number], number>('int close(int fd)');
const send_ = declare<[number, Uint8Array, number, number], number>(
  'long send(int fd, const void *buf, unsigned long len, int flags)',
);
const sendSlowly = declareSlow<[number, Uint8Array, number, number], number>(
  'long send(int fd, const void *buf, unsigned long len, int flags)',
);
const recv_ = declare<[number, Uint8Array, number, number], number>(
  'long recv(int fd, void *buf, unsigned long len, int flags)',
);

/** One socket, of the network namespace the calling thread is in when it is made. */
export class NetlinkSocket {
  #fd: number;
  #sequence = 0;
  readonly #buffer = Buffer.allocUnsafe(bufferSize);

  constructor(protocol: number) {
    this.#fd = check(socket_(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), 'socket', 'netlink');
  }

  close(): void {
    if (this.#fd >= 0) close_(this.#fd);
    this.#fd = -1;
  }

  /**
   * Sends one message: `header` is the fixed structure of its type. Answers the bodies of all messages that came back.
   * Throws the kernel's errno as a `SystemError`; `detail` says what was tried.
   */
  request(type: number, flags: number, header: Buffer, detail: string, attributes_: readonly Buffer[] = []): Buffer[] {
    this.#sequence++;
    const message = this.#message(type, flags | NLM_F.ACK, Buffer.concat([header, ...attributes_]));
    check(send_(this.#fd, message, message.length, 0), 'netlink', detail);
    return this.#answers(detail);
  }

  /** The same for what the kernel takes its time for: another thread waits. No other request until it has resolved. */
  async requestSlowly(
    type: number,
    flags: number,
    header: Buffer,
    detail: string,
    attributes_: readonly Buffer[] = [],
  ): Promise<Buffer[]> {
    this.#sequence++;
    const message = this.#message(type, flags | NLM_F.ACK, Buffer.concat([header, ...attributes_]));
    const sent = await sendSlowly(this.#fd, message, message.length, 0);
    if (sent !== message.length) throw new Error(`netlink ${detail}: the request could not be sent`);
    return this.#answers(detail);
  }

  #answers(detail: string): Buffer[] {
    const sequence = this.#sequence;
    const bodies: Buffer[] = [];
    for (;;) {
      const length = check(recv_(this.#fd, this.#buffer, bufferSize, 0), 'netlink', detail);
      for (let offset = 0; offset + headerSize <= length; ) {
        const size = this.#buffer.readUInt32LE(offset);
        const answerType = this.#buffer.readUInt16LE(offset + 4);
        // The rest of an answer whose reading failed half-way is still in the queue, and not ours.
        if (this.#buffer.readUInt32LE(offset + 8) === sequence) {
          const answer = this.#buffer.subarray(offset + headerSize, offset + size);
          if (answerType === NLMSG.ERROR || answerType === NLMSG.DONE) {
            const errno = answer.length >= 4 ? -answer.readInt32LE() : 0;
            if (errno > 0) throw new SystemError('netlink', errno, detail);
            return bodies;
          }
          bodies.push(Buffer.from(answer));
        }
        offset += (size + 3) & ~3;
      }
    }
  }

  /** Sends messages that the kernel takes all together or not at all. Throws the first errno. */
  batch(messages: readonly { type: number; flags: number; body: Buffer }[], detail: string): void {
    this.#sequence++;
    const bytes = Buffer.concat(messages.map(({ type, flags, body }) => this.#message(type, flags, body)));
    check(send_(this.#fd, bytes, bytes.length, 0), 'netlink', detail);
    // Only failures are answered, and are there by now.
    try {
      check(recv_(this.#fd, this.#buffer, bufferSize, MSG_DONTWAIT), 'netlink', detail);
    } catch (error) {
      if (isErrno(error, 'EAGAIN')) return;
      throw error;
    }
    throw new SystemError('netlink', -this.#buffer.readInt32LE(headerSize), detail);
  }

  #message(type: number, flags: number, body: Buffer): Buffer {
    const message = Buffer.alloc((headerSize + body.length + 3) & ~3);
    message.writeUInt32LE(headerSize + body.length, 0);
    message.writeUInt16LE(type, 4);
    message.writeUInt16LE(flags | NLM_F.REQUEST, 6);
    message.writeUInt32LE(this.#sequence, 8);
    body.copy(message, headerSize);
    return message;
  }
}

export function attribute(type: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc((4 + payload.length + 3) & ~3);
  bytes.writeUInt16LE(4 + payload.length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(payload, 4);
  return bytes;
}

export const nested = (type: number, inner: readonly Buffer[]): Buffer =>
  attribute(type | NLA_F_NESTED, Buffer.concat(inner));
export const text = (type: number, value: string): Buffer => attribute(type, Buffer.from(`${value}\0`));

export function uint32(type: number, value: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32LE(value);
  return attribute(type, payload);
}

/** The attributes after a message's fixed structure of `start` bytes, by type. */
export function attributes(body: Buffer, start: number): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let offset = start; offset + 4 <= body.length; ) {
    const size = body.readUInt16LE(offset);
    if (size < 4) break;
    found.set(body.readUInt16LE(offset + 2) & NLA_TYPE, body.subarray(offset + 4, offset + size));
    offset += (size + 3) & ~3;
  }
  return found;
}
