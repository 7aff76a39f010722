/** One name server outside, asked from one network namespace: over UDP through one socket, over TCP through one connection per question. */

import { randomInt } from 'node:crypto';
import dgram from 'node:dgram';
import net from 'node:net';
import { bytesOf, parseAddress } from '../lib/ip.ts';
import { bindInNamespace, connectInNamespace } from '../platform/namespace-socket.ts';
import { answers, type Question } from './message.ts';

const port = 53;
/** Questions under way at one server; more are not asked. */
const pendingMax = 8192;
/** A socket is exchanged for one with another port after so many questions: an answer is hard to forge that way. */
const questionsPerSocket = 4096;
const streamsMax = 64;
const streamPatienceMs = 4000;

export interface Server {
  readonly address: string;
  /** Where it is asked from; empty: the host. */
  readonly namespacePath: string;
}

export interface Asked {
  readonly take: (answer: Buffer) => void;
  /** The server cannot be reached. */
  readonly failed: () => void;
}

interface Pending extends Asked {
  readonly question: Question;
}

/** A connected socket: the kernel lets nothing through that is not from the server's address and port. */
class Port {
  readonly pending = new Map<number, Pending>();
  readonly #socket: dgram.Socket;
  asked = 0;

  constructor({ address, namespacePath }: Server) {
    const bytes = bytesOf(parseAddress(address) ?? { family: 4, value: 0n });
    const family = bytes.length === 4 ? 4 : 6;
    // An address needs no lookup, and without one the socket is connected at once.
    this.#socket = dgram.createSocket({
      type: family === 4 ? 'udp4' : 'udp6',
      lookup: (host, _options, done) => done(null, host, family),
    });
    this.#socket.on('error', () => this.#fail()); // nobody listens there
    this.#socket.on('message', (answer) => {
      const id = answer.length >= 2 ? answer.readUInt16BE(0) : -1;
      const pending = this.pending.get(id);
      if (pending === undefined || !answers(answer, pending.question)) return;
      this.pending.delete(id);
      pending.take(answer);
      this.closeWhenSpent();
    });
    this.#socket.bind({
      fd: bindInNamespace(namespacePath, 'udp', new Uint8Array(bytes.length), 0).fd,
      exclusive: true,
    });
    this.#socket.connect(port, address);
    this.#socket.unref();
  }

  get isSpent(): boolean {
    return this.asked >= questionsPerSocket;
  }

  send(pending: Pending): number {
    let id = randomInt(0x10000);
    while (this.pending.has(id)) id = (id + 1) & 0xffff;
    const sent = Buffer.from(pending.question.message);
    sent.writeUInt16BE(id, 0);
    this.pending.set(id, pending);
    this.asked++;
    this.#socket.send(sent, (error) => {
      if (error && this.pending.delete(id)) pending.failed();
    });
    return id;
  }

  closeWhenSpent(): void {
    if (this.isSpent && this.pending.size === 0) this.close();
  }

  close(): void {
    try {
      this.#socket.close();
    } catch {
      // It has been.
    }
  }

  #fail(): void {
    const failed = [...this.pending.values()];
    this.pending.clear();
    for (const each of failed) each.failed();
  }
}

export class Channel {
  readonly #server: Server;
  #port: Port | null = null;
  /** Spent, with answers still to come. */
  readonly #draining = new Set<Port>();
  readonly #streams = new Set<net.Socket>();
  /** Until then it is asked last. */
  restsUntil = 0;
  answeredAt = 0;
  usedAt = 0;

  constructor(server: Server) {
    this.#server = server;
  }

  get isIdle(): boolean {
    return (this.#port?.pending.size ?? 0) === 0 && this.#draining.size === 0 && this.#streams.size === 0;
  }

  /** Answers what forgets the question. `asked.failed` may be called before it returns. */
  ask(question: Question, by: 'udp' | 'tcp', asked: Asked): () => void {
    try {
      return by === 'udp' ? this.#askByDatagram({ ...asked, question }) : this.#askByStream(question, asked);
    } catch {
      // No way there from this namespace, no descriptors left, or the namespace has gone.
      asked.failed();
      return () => undefined;
    }
  }

  close(): void {
    this.#port?.close();
    this.#port = null;
    for (const old of this.#draining) old.close();
    this.#draining.clear();
    for (const stream of this.#streams) stream.destroy();
  }

  #askByDatagram(pending: Pending): () => void {
    if (this.#port?.isSpent) {
      for (const old of this.#draining) if (old.pending.size === 0) this.#draining.delete(old);
      if (this.#port.pending.size > 0) this.#draining.add(this.#port);
      this.#port = null;
    }
    this.#port ??= new Port(this.#server);
    const used = this.#port;
    if (used.pending.size >= pendingMax || this.#draining.size > 8) {
      pending.failed();
      return () => undefined;
    }
    const id = used.send(pending);
    return () => {
      if (used.pending.get(id) === pending) used.pending.delete(id);
      used.closeWhenSpent();
      if (used.pending.size === 0) this.#draining.delete(used);
    };
  }

  #askByStream(question: Question, { take, failed }: Asked): () => void {
    const address = parseAddress(this.#server.address);
    if (address === undefined || this.#streams.size >= streamsMax) throw new Error('no more connections');
    const fd = connectInNamespace(this.#server.namespacePath, bytesOf(address), port);
    const socket = new net.Socket({ fd, readable: true, writable: true });
    this.#streams.add(socket);
    let held: Buffer = Buffer.alloc(0);
    let settled = false;
    const finish = (answer: Buffer | null): void => {
      if (settled) return;
      settled = true;
      socket.destroy();
      if (answer && answers(answer, question)) take(answer);
      else failed();
    };
    socket.setTimeout(streamPatienceMs, () => finish(null));
    socket.on('error', () => finish(null));
    socket.on('close', () => {
      this.#streams.delete(socket);
      finish(null);
    });
    socket.on('data', (chunk) => {
      held = Buffer.concat([held, chunk]);
      if (held.length >= 2 && held.length >= 2 + held.readUInt16BE(0))
        finish(held.subarray(2, 2 + held.readUInt16BE(0)));
    });
    const head = Buffer.alloc(2);
    head.writeUInt16BE(question.message.length);
    socket.write(Buffer.concat([head, question.message]));
    return () => {
      settled = true;
      socket.destroy();
    };
  }
}
