/**
 * Questions to name servers outside. The answer is passed on as it came.
 *
 * Servers are asked in their order. One that does not answer is overtaken after a moment by the next, and asked last for a while:
 * a dead server costs the first of its questions some tenths of a second and later ones nothing.
 */
import dgram from 'node:dgram';
import net from 'node:net';

/** How long a server has before the next is asked as well. */
const hedgeMs = 150;
const patienceMs = 5000;
/** How long a server that did not answer is asked last. */
const restMs = 10_000;
/** Questions under way per socket; more are not asked. */
const pendingMax = 8192;
/** A socket is exchanged for one with another port after so many questions: an answer is hard to forge that way. */
const questionsPerSocket = 4096;

interface Pending {
  readonly server: string;
  readonly take: (answer: Buffer) => void;
}

/** One UDP socket with the questions asked through it, by id. */
class Asker {
  readonly #socket: dgram.Socket;
  readonly #pending = new Map<number, Pending>();
  #asked = 0;

  constructor(type: 'udp4' | 'udp6') {
    this.#socket = dgram.createSocket(type);
    this.#socket.unref();
    this.#socket.on('error', () => undefined); // a server that refuses: the question is overtaken
    this.#socket.on('message', (answer, from) => {
      const id = answer.length >= 12 ? answer.readUInt16BE(0) : -1;
      const pending = this.#pending.get(id);
      if (pending === undefined || pending.server !== from.address || from.port !== 53) return;
      this.#pending.delete(id);
      pending.take(answer);
      this.#closeWhenDone();
    });
  }

  get isSpent(): boolean {
    return this.#asked >= questionsPerSocket;
  }

  /** Returns what forgets the question. `failed`: it could not be sent. */
  ask(server: string, question: Buffer, take: (answer: Buffer) => void, failed: () => void): () => void {
    if (this.#pending.size >= pendingMax) {
      failed();
      return () => undefined;
    }
    let id = Math.floor(Math.random() * 0x10000);
    while (this.#pending.has(id)) id = (id + 1) & 0xffff;
    const sent = Buffer.from(question);
    sent.writeUInt16BE(id, 0);
    this.#pending.set(id, { server, take });
    this.#asked++;
    this.#socket.send(sent, 53, server, (error) => {
      if (error && this.#pending.delete(id)) failed();
    });
    return () => {
      this.#pending.delete(id);
      this.#closeWhenDone();
    };
  }

  #closeWhenDone(): void {
    if (this.isSpent && this.#pending.size === 0) this.close();
  }

  close(): void {
    try {
      this.#socket.close();
    } catch {
      // It has been.
    }
  }
}

export class Upstreams {
  readonly #askers = new Map<'udp4' | 'udp6', Asker>();
  /** Server → when it may be asked in its turn again. */
  readonly #resting = new Map<string, number>();

  /** The first answer of a server to a question as it came from a client; null: none came. Bounded in time. */
  async ask(servers: readonly string[], question: Buffer): Promise<Buffer | null> {
    const order = this.#inOrder(servers);
    if (order.length === 0) return null;
    const { promise, resolve } = Promise.withResolvers<Buffer | null>();
    const forgets: (() => void)[] = [];
    let next = 0;
    let worst: Buffer | null = null;
    let unsent = 0;
    const askNext = (): void => {
      const server = order[next++];
      if (server === undefined) return;
      const take = (answer: Buffer): void => {
        this.#resting.delete(server);
        // A server that cannot say may be overruled by one that can.
        const cannotSay = [2, 5].includes(answer.readUInt8(3) & 15);
        if (cannotSay && next < order.length) {
          worst = answer;
          askNext();
        } else resolve(answer);
      };
      const failed = (): void => {
        this.#rest(server);
        if (++unsent === order.length) resolve(worst);
        else askNext();
      };
      forgets.push(this.#asker(server).ask(server, question, take, failed));
    };
    askNext();
    const overtake = setInterval(() => {
      const late = order[next - 1];
      if (late !== undefined && next < order.length) this.#rest(late);
      askNext();
    }, hedgeMs);
    const deadline = setTimeout(() => {
      for (const server of order) this.#rest(server);
      resolve(worst);
    }, patienceMs);
    try {
      const answer = await promise;
      if (answer === null) return null;
      const own = Buffer.from(answer);
      own.writeUInt16BE(question.readUInt16BE(0), 0);
      return own;
    } finally {
      clearInterval(overtake);
      clearTimeout(deadline);
      for (const forget of forgets) forget();
    }
  }

  /** The same over TCP: the message with its length in front, both ways. */
  async askByStream(servers: readonly string[], question: Buffer): Promise<Buffer | null> {
    for (const server of this.#inOrder(servers)) {
      const answer = await askByTcp(server, question);
      if (answer !== null) return answer;
      this.#rest(server);
    }
    return null;
  }

  close(): void {
    for (const asker of this.#askers.values()) asker.close();
    this.#askers.clear();
  }

  #rest(server: string): void {
    if (this.#resting.size > 1000) this.#resting.clear();
    this.#resting.set(server, Date.now() + restMs);
  }

  #inOrder(servers: readonly string[]): readonly string[] {
    const now = Date.now();
    const rests = (server: string): boolean => (this.#resting.get(server) ?? 0) > now;
    return [...servers.filter((server) => !rests(server)), ...servers.filter(rests)];
  }

  #asker(server: string): Asker {
    const type = server.includes(':') ? 'udp6' : 'udp4';
    let asker = this.#askers.get(type);
    if (asker === undefined || asker.isSpent) {
      asker = new Asker(type);
      this.#askers.set(type, asker);
    }
    return asker;
  }
}

const tcpPatienceMs = 2000;

function askByTcp(server: string, question: Buffer): Promise<Buffer | null> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: server, port: 53 });
    const chunks: Buffer[] = [];
    let length = 0;
    const finish = (answer: Buffer | null): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(tcpPatienceMs, () => finish(null));
    socket.on('error', () => finish(null));
    socket.on('close', () => resolve(null));
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      length += chunk.length;
      const all = Buffer.concat(chunks, length);
      if (length >= 2 && length >= 2 + all.readUInt16BE(0)) finish(all.subarray(2, 2 + all.readUInt16BE(0)));
    });
    const head = Buffer.alloc(2);
    head.writeUInt16BE(question.length);
    socket.write(Buffer.concat([head, question]));
  });
}
