/**
 * The name server at 127.0.0.11 in the namespace of each container that is in a network of the user's (RFC 1035, over UDP and
 * TCP). It knows the names of containers; everything else is asked of the servers outside.
 */
import dgram from 'node:dgram';
import net from 'node:net';
import packet, { type Packet } from 'dns-packet';
import { bytesOf, formatAddress, parseAddress } from '../lib/ip.ts';
import type { Log } from '../lib/log.ts';
import { bindInNamespace } from '../platform/inet-socket.ts';
import { isErrno } from '../platform/libc.ts';
import type { Names } from './names.ts';
import type { LiveSandbox } from './types.ts';
import { Upstreams } from './upstream.ts';

export const resolverAddress = '127.0.0.11';
const port = 53;
/** As dockerd: names move, so answers are not to be kept for long. */
const ttlSeconds = 600;
/** Largest answer over UDP to a client that names no size of its own (RFC 1035 4.2.1). */
const plainBytesMax = 512;
const connectionsMax = 64;
const connectionIdleMs = 10_000;
/** Questions of one container that wait for servers outside; more are refused. */
const waitingMax = 1024;

const address = bytesOf(parseAddress(resolverAddress) ?? { family: 4, value: 0n });
const ServFail = 2;
const Refused = 5;

interface Listener {
  readonly udp: dgram.Socket;
  readonly tcp: net.Server;
  readonly connections: Set<net.Socket>;
}

export interface ResolverParts {
  readonly names: Names;
  /** The container as it is now; undefined when it has left. */
  readonly sandboxOf: (containerId: string) => LiveSandbox | undefined;
  /** Servers outside for a container; none for one without a way out. */
  readonly serversOf: (sandbox: LiveSandbox) => readonly string[];
  readonly log: Log;
}

export class Resolver {
  readonly #parts: ResolverParts;
  readonly #listeners = new Map<string, Listener>();
  readonly #upstreams = new Upstreams();

  constructor(parts: ResolverParts) {
    this.#parts = parts;
  }

  /** Begins to answer inside a namespace. Repeating it is not an error. */
  listen(containerId: string, namespacePath: string): void {
    if (this.#listeners.has(containerId)) return;
    const connections = new Set<net.Socket>();
    const waiting = { count: 0 };
    const udp = dgram.createSocket('udp4');
    udp.on('error', (error) => this.#parts.log.warn({ error, container: containerId }, 'the name server has trouble'));
    udp.on('message', (question, from) => {
      const reply = (answer: Buffer): void => udp.send(answer, from.port, from.address, () => undefined);
      void this.#answer(containerId, question, 'udp', waiting).then(
        (answer) => answer && this.#listeners.get(containerId)?.udp === udp && reply(answer),
        (error: unknown) => this.#parts.log.warn({ error, container: containerId }, 'a name could not be looked up'),
      );
    });
    const tcp = net.createServer((socket) => {
      connections.add(socket);
      socket.on('close', () => connections.delete(socket));
      this.#serve(containerId, socket, waiting);
    });
    tcp.maxConnections = connectionsMax;
    tcp.on('error', () => undefined); // accept() out of descriptors: clients try again
    udp.bind({ fd: bindInNamespace(namespacePath, 'udp', address, port), exclusive: true });
    tcp.listen({ fd: bindInNamespace(namespacePath, 'tcp', address, port), exclusive: true });
    udp.unref();
    tcp.unref();
    this.#listeners.set(containerId, { udp, tcp, connections });
  }

  /** Repeating it is not an error. */
  end(containerId: string): void {
    const listener = this.#listeners.get(containerId);
    if (listener === undefined) return;
    this.#listeners.delete(containerId);
    listener.udp.close();
    listener.tcp.close();
    for (const socket of listener.connections) socket.destroy();
  }

  close(): void {
    for (const id of [...this.#listeners.keys()]) this.end(id);
    this.#upstreams.close();
  }

  #serve(containerId: string, socket: net.Socket, waiting: { count: number }): void {
    let held = Buffer.alloc(0);
    socket.setTimeout(connectionIdleMs, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk) => {
      held = Buffer.concat([held, chunk]);
      while (held.length >= 2 && held.length >= 2 + held.readUInt16BE(0)) {
        const length = held.readUInt16BE(0);
        const question = held.subarray(2, 2 + length);
        held = held.subarray(2 + length);
        void this.#answer(containerId, Buffer.from(question), 'tcp', waiting).then(
          (answer) => {
            if (answer === null) return socket.destroy();
            const head = Buffer.alloc(2);
            head.writeUInt16BE(answer.length);
            socket.write(Buffer.concat([head, answer]));
          },
          () => socket.destroy(),
        );
      }
    });
  }

  /** Null: not a question. */
  async #answer(
    containerId: string,
    question: Buffer,
    by: 'udp' | 'tcp',
    waiting: { count: number },
  ): Promise<Buffer | null> {
    let asked: Packet;
    try {
      asked = packet.decode(question);
    } catch {
      return null;
    }
    const [first] = asked.questions ?? [];
    const sandbox = this.#parts.sandboxOf(containerId);
    if (asked.type !== 'query' || first === undefined || sandbox === undefined) return null;
    const known = this.#known(sandbox, first.name, first.type);
    if (known !== null) return encode(asked, known, by, by === 'tcp' ? 0xffff : sizeFor(asked));
    const servers = this.#parts.serversOf(sandbox);
    if (waiting.count >= waitingMax) return encode(asked, [], by, plainBytesMax, Refused);
    waiting.count++;
    try {
      const answer = await (by === 'udp'
        ? this.#upstreams.ask(servers, question)
        : this.#upstreams.askByStream(servers, question));
      return answer ?? encode(asked, [], by, plainBytesMax, ServFail);
    } finally {
      waiting.count--;
    }
  }

  /** Answers about containers; null: not one of ours. */
  #known(sandbox: LiveSandbox, name: string, type: string): readonly packet.Answer[] | null {
    const { names } = this.#parts;
    if (type === 'PTR') {
      const wanted = addressOfReverse(name);
      const found = wanted === null ? null : names.nameOf(sandbox, wanted);
      return found === null ? null : [{ type: 'PTR', name, ttl: ttlSeconds, class: 'IN', data: found }];
    }
    const found = names.find(sandbox, name, type === 'AAAA' ? 'ipv6' : 'ipv4');
    if (found === null) return null;
    // A name of ours has nothing but addresses: the rest is answered with nothing, not asked outside.
    if (type !== 'A' && type !== 'AAAA') return [];
    return found.map((data) => ({ type, name, ttl: ttlSeconds, class: 'IN', data }));
  }
}

/** What a client can take over UDP: the size it names (EDNS, RFC 6891), else 512 bytes. */
function sizeFor({ additionals }: Packet): number {
  const options = additionals?.find((each) => each.type === 'OPT');
  return options?.type === 'OPT' ? Math.max(plainBytesMax, options.udpPayloadSize) : plainBytesMax;
}

function encode(
  asked: Packet,
  answers: readonly packet.Answer[],
  by: 'udp' | 'tcp',
  bytesMax: number,
  code = 0,
): Buffer {
  const recursion = ((asked.flags ?? 0) & packet.RECURSION_DESIRED) | packet.RECURSION_AVAILABLE;
  const head = { type: 'response' as const, id: asked.id ?? 0, questions: asked.questions ?? [] };
  const whole = packet.encode({ ...head, flags: recursion | code, answers: [...answers] });
  if (by === 'tcp' || whole.length <= bytesMax) return whole;
  let kept = answers.length;
  for (;;) {
    kept = Math.floor(kept / 2);
    const cut = packet.encode({
      ...head,
      flags: recursion | code | packet.TRUNCATED_RESPONSE,
      answers: answers.slice(0, kept),
    });
    if (cut.length <= bytesMax || kept === 0) return cut;
  }
}

/** `4.3.2.1.in-addr.arpa` and the nibbles of `ip6.arpa` as addresses. */
function addressOfReverse(name: string): string | null {
  const v4 = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\.in-addr\.arpa\.?$/i.exec(name);
  if (v4) return `${v4[4]}.${v4[3]}.${v4[2]}.${v4[1]}`;
  const v6 = /^((?:[0-9a-f]\.){32})ip6\.arpa\.?$/i.exec(name);
  if (!v6) return null;
  const nibbles = (v6[1] ?? '').split('.').reverse().join('').toLowerCase();
  return canonical(nibbles.match(/.{4}/g)?.join(':') ?? '');
}

function canonical(text: string): string | null {
  const parsed = parseAddress(text);
  return parsed === undefined ? null : formatAddress(parsed);
}

/** A container without namespace of its own, or one that just went, is no reason to fail. */
export const isGone = (error: unknown): boolean => isErrno(error, 'ENOENT', 'EINVAL');
