/** DNS over the wire: servers whose answers a test writes, and a client, both in any network namespace. */
import dgram from 'node:dgram';
import net from 'node:net';
import packet, { type Packet } from 'dns-packet';
import { bytesOf, parseAddress } from '../../src/lib/ip.ts';
import { bindInNamespace, connectInNamespace } from '../../src/platform/namespace-socket.ts';

export type By = 'udp' | 'tcp';

export interface Heard {
  readonly by: By;
  readonly message: Buffer;
  readonly name: string;
  readonly type: string;
  readonly from: string;
  readonly port: number;
}

/** What a server says to a question; several messages are sent one after the other; null: nothing. */
export type Says = (heard: Heard, asked: Packet) => Buffer | readonly Buffer[] | null | Promise<Buffer | null>;

const bytes = (address: string): Uint8Array => bytesOf(parseAddress(address) ?? { family: 4, value: 0n });

export class DnsServer {
  readonly heard: Heard[] = [];
  /** When off, questions are swallowed. */
  answering = true;
  says: Says;
  readonly udp: dgram.Socket;
  readonly #tcp: net.Server | null;
  readonly #connections = new Set<net.Socket>();

  constructor(namespacePath: string, address: string, says: Says, options: { tcp?: boolean; port?: number } = {}) {
    this.says = says;
    const family = address.includes(':') ? 6 : 4;
    this.udp = dgram.createSocket({ type: `udp${family}`, lookup: (host, _options, done) => done(null, host, family) });
    this.udp.on('message', (message, from) => {
      void this.#answer(message, 'udp', from, (answer) => this.udp.send(answer, from.port, from.address));
    });
    const port = options.port ?? 53;
    this.udp.bind({ fd: bindInNamespace(namespacePath, 'udp', bytes(address), port).fd, exclusive: true });
    this.#tcp = options.tcp === false ? null : net.createServer((socket) => this.#serve(socket));
    this.#tcp?.listen({ fd: bindInNamespace(namespacePath, 'tcp', bytes(address), port).fd, exclusive: true });
  }

  /** Questions for a name, of one way of asking. */
  asked(name: string, by?: By): Heard[] {
    return this.heard.filter((each) => each.name.toLowerCase() === name && (by === undefined || each.by === by));
  }

  close(): void {
    this.udp.close();
    this.#tcp?.close();
    for (const socket of this.#connections) socket.destroy();
  }

  #serve(socket: net.Socket): void {
    this.#connections.add(socket);
    socket.on('close', () => this.#connections.delete(socket));
    socket.on('error', () => socket.destroy());
    let held = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      held = Buffer.concat([held, chunk]);
      while (held.length >= 2 && held.length >= 2 + held.readUInt16BE(0)) {
        const message = Buffer.from(held.subarray(2, 2 + held.readUInt16BE(0)));
        held = held.subarray(2 + message.length);
        void this.#answer(
          message,
          'tcp',
          { address: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 },
          (answer) => socket.write(framed(answer)),
        );
      }
    });
  }

  async #answer(
    message: Buffer,
    by: By,
    from: { address: string; port: number },
    send: (answer: Buffer) => void,
  ): Promise<void> {
    const asked = packet.decode(message);
    const [question] = asked.questions ?? [];
    const heard = {
      by,
      message,
      from: from.address,
      port: from.port,
      name: question?.name ?? '',
      type: question?.type ?? '',
    };
    this.heard.push(heard);
    if (!this.answering) return;
    const said = await this.says(heard, asked);
    for (const each of said === null ? [] : Buffer.isBuffer(said) ? [said] : said) send(each);
  }
}

/** An answer to a question with records and a code. */
export function answer(asked: Packet, answers: readonly packet.Answer[], flags = packet.RECURSION_AVAILABLE): Buffer {
  return packet.encode({
    ...{ type: 'response', id: asked.id ?? 0, flags: flags | ((asked.flags ?? 0) & packet.RECURSION_DESIRED) },
    ...{ questions: asked.questions ?? [], answers: [...answers] },
  });
}

export const addressRecord = (name: string, data: string): packet.Answer =>
  data.includes(':') ? { type: 'AAAA', name, data, ttl: 60 } : { type: 'A', name, data, ttl: 60 };

/** Says one address for every question. */
export const alwaysSays =
  (address: string): Says =>
  (heard, asked) =>
    answer(asked, [addressRecord(heard.name, address)]);

export function question(name: string, type: string = 'A', more: Partial<Packet> = {}): Buffer {
  return packet.encode({
    ...{ type: 'query', id: Math.floor(Math.random() * 0xffff), flags: packet.RECURSION_DESIRED },
    questions: [{ name, type: type as 'A' }],
    ...more,
  });
}

/** Sends a message to a name server from inside a namespace; null: no answer within the time. */
export function ask(
  namespacePath: string,
  message: Buffer,
  options: { by?: By; server?: string; timeoutMs?: number } = {},
): Promise<Buffer | null> {
  const { by = 'udp', server = '127.0.0.11', timeoutMs = 6000 } = options;
  return new Promise((resolve) => {
    const finish = (answered: Buffer | null): void => {
      clearTimeout(timer);
      socket.close();
      resolve(answered);
    };
    const timer = setTimeout(() => finish(null), timeoutMs);
    const socket =
      by === 'udp' ? overUdp(namespacePath, server, message, finish) : overTcp(namespacePath, server, message, finish);
  });
}

type Finish = (answered: Buffer | null) => void;

function overUdp(path: string, server: string, message: Buffer, finish: Finish): { close(): void } {
  const socket = dgram.createSocket({ type: 'udp4', lookup: (host, _options, done) => done(null, host, 4) });
  socket.on('message', finish);
  socket.on('error', () => finish(null));
  socket.bind({ fd: bindInNamespace(path, 'udp', new Uint8Array(4), 0).fd, exclusive: true });
  socket.connect(53, server);
  socket.send(message);
  return socket;
}

function overTcp(path: string, server: string, message: Buffer, finish: Finish): { close(): void } {
  const fd = connectInNamespace(path, bytes(server), 53);
  const socket = new net.Socket({ fd, readable: true, writable: true });
  let held = Buffer.alloc(0);
  let done = false;
  const once: Finish = (answered) => {
    if (!done) finish(answered);
    done = true;
  };
  socket.on('data', (chunk) => {
    held = Buffer.concat([held, chunk]);
    if (held.length >= 2 && held.length >= 2 + held.readUInt16BE(0)) once(held.subarray(2, 2 + held.readUInt16BE(0)));
  });
  socket.on('error', () => once(null));
  socket.on('close', () => once(null));
  socket.write(framed(message));
  return { close: () => socket.destroy() };
}

function framed(message: Buffer): Buffer {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(message.length);
  return Buffer.concat([head, message]);
}

/** Code and addresses of an answer, at a glance. */
export function gist(answered: Buffer | null): string {
  if (answered === null) return 'nothing';
  const { rcode = '', answers = [] } = packet.decode(answered) as Packet & { rcode?: string };
  return [rcode, ...answers.map((each) => ('data' in each ? String(each.data) : each.type))].join(' ');
}
