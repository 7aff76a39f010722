/**
 * The name server at 127.0.0.11 in the namespace of each container that is in a network of the user's, over UDP and TCP. It knows the
 * names of containers; everything else is asked of the servers outside. Runs in a thread of its own (`name-worker.ts`).
 */
import dgram from 'node:dgram';
import fs from 'node:fs';
import net from 'node:net';
import { bytesOf, contains, parseAddress, parseSubnet } from '../lib/ip.ts';
import { isErrno } from '../platform/libc.ts';
import { bindInNamespace } from '../platform/namespace-socket.ts';
import { type Ports, shiftedPorts, shiftPorts } from '../platform/port-shift.ts';
import type { Server } from './channel.ts';
import { HostServers } from './files.ts';
import {
  addressOfReverse,
  answerTo,
  Code,
  classIN,
  type Question,
  questionBytesMax,
  readQuestion,
  Type,
} from './message.ts';
import { type NamedContainer, Names, resolverAddress } from './names.ts';
import { Upstreams } from './upstream.ts';

const port = 53;
/** dockerd's. */
const ttlSeconds = 600;
const connectionsMax = 64;
const connectionIdleMs = 10_000;
/** Bytes of answers that a client over TCP has not read. */
const unreadBytesMax = 1024 * 1024;
/** Questions that wait for servers outside, of one container and of all; more are answered with ServFail. */
const waitingMax = 4096;
const waitingOfAllMax = 16_384;

const address = bytesOf(parseAddress(resolverAddress) ?? { family: 4, value: 0n });

interface Listener {
  readonly udp: dgram.Socket;
  readonly tcp: net.Server;
  readonly connections: Set<net.Socket>;
  waiting: number;
}

type Reply = (answer: Buffer) => void;

export class Resolver {
  readonly #containers = new Map<string, NamedContainer>();
  readonly #names = new Names(this.#containers);
  readonly #listeners = new Map<string, Listener>();
  readonly #upstreams = new Upstreams();
  readonly #hostServers = new HostServers();
  /** What was chosen for a container, from which list of the host. */
  readonly #servers = new WeakMap<NamedContainer, { host: readonly string[]; servers: readonly Server[] }>();
  readonly #warn: (containerId: string, error: unknown) => void;

  constructor(warn: (containerId: string, error: unknown) => void) {
    this.#warn = warn;
  }

  /** A container as it is now. Answers begin in its namespace, or end there when it is in no network with names. */
  hold(container: NamedContainer): void {
    const { id, places } = container;
    this.#names.changed(this.#containers.get(id)?.places ?? []);
    this.#containers.set(id, container);
    this.#names.changed(places);
    if (places.length === 0) this.#end(id);
    else if (!this.#listeners.has(id)) this.#listen(container);
  }

  /** It has left. Repeating it is not an error. */
  drop(id: string): void {
    this.#end(id);
    this.#names.changed(this.#containers.get(id)?.places ?? []);
    this.#containers.delete(id);
  }

  close(): void {
    for (const id of [...this.#listeners.keys()]) this.#end(id);
    this.#upstreams.close();
  }

  #listen({ id, namespacePath }: NamedContainer): void {
    const listener: Listener = {
      // Without a lookup Node would put every answer off to its next turn.
      udp: dgram.createSocket({ type: 'udp4', lookup: (host, _options, done) => done(null, host, 4) }),
      tcp: net.createServer((socket) => this.#serve(id, listener, socket)),
      connections: new Set(),
      waiting: 0,
    };
    const { udp, tcp } = listener;
    udp.on('error', (error) => this.#warn(id, error));
    udp.on('message', (message, from) => {
      this.#answer(id, listener, message, 'udp', (answer) => {
        if (this.#listeners.get(id) === listener) udp.send(answer, from.port, from.address, ignore);
      });
    });
    tcp.maxConnections = connectionsMax;
    tcp.on('error', ignore); // accept() out of descriptors: clients try again
    // Port 53 itself is left to the container, which may be a name server.
    const { sockets, isShifted } = bindBoth(namespacePath);
    udp.bind({ fd: sockets.udp.fd, exclusive: true });
    try {
      tcp.listen({ fd: sockets.tcp.fd, exclusive: true });
      if (!isShifted) shiftPorts(namespacePath, { address, port, udp: sockets.udp.port, tcp: sockets.tcp.port });
    } catch (error) {
      udp.close();
      tcp.close();
      throw error;
    }
    this.#listeners.set(id, listener);
  }

  #end(id: string): void {
    const listener = this.#listeners.get(id);
    if (listener === undefined) return;
    this.#listeners.delete(id);
    listener.udp.close();
    listener.tcp.close();
    for (const socket of listener.connections) socket.destroy();
    const path = this.#containers.get(id)?.namespacePath;
    if (path) this.#upstreams.leave(path);
  }

  #serve(id: string, listener: Listener, socket: net.Socket): void {
    const { connections } = listener;
    connections.add(socket);
    socket.on('close', () => connections.delete(socket));
    socket.on('error', () => socket.destroy());
    socket.setTimeout(connectionIdleMs, () => socket.destroy());
    let held: Buffer = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
      while (held.length >= 2) {
        const length = held.readUInt16BE(0);
        if (length > questionBytesMax) return void socket.destroy();
        if (held.length < 2 + length) return;
        const message = Buffer.from(held.subarray(2, 2 + length));
        held = held.subarray(2 + length);
        this.#answer(id, listener, message, 'tcp', (answer) => {
          if (socket.destroyed) return;
          const head = Buffer.alloc(2);
          head.writeUInt16BE(answer.length);
          socket.write(Buffer.concat([head, answer]));
          if (socket.writableLength > unreadBytesMax) socket.destroy();
        });
      }
    });
  }

  #answer(id: string, listener: Listener, message: Buffer, by: 'udp' | 'tcp', reply: Reply): void {
    const question = readQuestion(message);
    const asker = this.#containers.get(id);
    if (question === null || asker === undefined) return;
    const bytesMax = by === 'tcp' ? 0xffff : question.bytesMax;
    const say = (code: number, records: readonly Uint8Array[] = []): void =>
      reply(answerTo(question, code, records, ttlSeconds, bytesMax));
    const known = question.fault === Code.none ? this.#known(asker, question) : null;
    if (question.fault !== Code.none) say(question.fault);
    else if (known !== null) say(Code.none, known);
    else this.#askOutside(asker, listener, question, by, (answer) => (answer ? reply(answer) : say(Code.ServFail)));
  }

  #askOutside(
    asker: NamedContainer,
    listener: Listener,
    question: Question,
    by: 'udp' | 'tcp',
    done: (answer: Buffer | null) => void,
  ): void {
    if (listener.waiting >= waitingMax || this.#upstreams.waiting >= waitingOfAllMax) {
      done(null);
      return;
    }
    listener.waiting++;
    this.#upstreams.ask(this.#serversOf(asker), question, by, (answer) => {
      listener.waiting--;
      done(answer);
    });
  }

  /** The records of a name of ours, none for types it has none of; null: not one of ours. */
  #known(asker: NamedContainer, { name, type, class: asked }: Question): readonly Uint8Array[] | null {
    if (asked !== classIN) return null;
    if (type === Type.PTR) {
      const wanted = addressOfReverse(name);
      const found = wanted === null ? null : this.#names.nameOf(asker, wanted);
      if (found !== null) return [found];
    }
    const found = this.#names.find(asker, name, type === Type.AAAA ? 'ipv6' : 'ipv4');
    if (found !== null) return type === Type.A || type === Type.AAAA ? found : [];
    const isAddress = type === Type.A || type === Type.AAAA;
    return isAddress && asker.keepsSingleLabels && !name.includes('.') ? [] : null;
  }

  /**
   * Asked from within the container, as it would itself, so that its routes and firewalls count; a server of the host's that only
   * the host can reach is asked from there. Without a way out there are no servers outside, or names would be one.
   */
  #serversOf(asker: NamedContainer): readonly Server[] {
    const host = this.#hostServers.read();
    const known = this.#servers.get(asker);
    if (known?.host === host) return known.servers;
    const servers = this.#chooseServers(asker, host);
    this.#servers.set(asker, { host, servers });
    return servers;
  }

  #chooseServers({ dns, wayOut, subnets, namespacePath }: NamedContainer, host: readonly string[]): readonly Server[] {
    const own = (server: string): boolean => isLoopback(server) || isInside(server, subnets);
    const hasWay = wayOut.v4 || wayOut.v6;
    if (dns.length > 0)
      return dns
        .filter((server) => server !== resolverAddress && parseAddress(server) !== undefined)
        .filter((server) => hasWay || own(server))
        .map((server) => ({ address: server, namespacePath }));
    const reachable = (server: string): boolean =>
      !isLoopback(server) && (server.includes(':') ? wayOut.v6 : wayOut.v4 || isInside(server, subnets));
    return host
      .filter((server) => server !== resolverAddress && parseAddress(server) !== undefined)
      .filter((server) => hasWay || isInside(server, subnets))
      .map((server) => ({ address: server, namespacePath: reachable(server) ? namespacePath : '' }));
  }
}

interface Sockets {
  readonly udp: { readonly fd: number; readonly port: number };
  readonly tcp: { readonly fd: number; readonly port: number };
}

/** Where a daemon before this one listened, if it did and that is free: clients are led there already. */
function bindBoth(path: string): { readonly sockets: Sockets; readonly isShifted: boolean } {
  const known = shiftedPorts(path);
  if (known) {
    try {
      return { sockets: bindAt(path, known), isShifted: true };
    } catch (error) {
      if (!isErrno(error, 'EADDRINUSE')) throw error;
    }
  }
  return { sockets: bindAt(path, { udp: 0, tcp: 0 }), isShifted: false };
}

function bindAt(path: string, ports: Ports): Sockets {
  const udp = bindInNamespace(path, 'udp', address, ports.udp);
  try {
    return { udp, tcp: bindInNamespace(path, 'tcp', address, ports.tcp) };
  } catch (error) {
    fs.closeSync(udp.fd);
    throw error;
  }
}

const isLoopback = (server: string): boolean => server.startsWith('127.') || server === '::1';

function isInside(server: string, subnets: readonly string[]): boolean {
  const at = parseAddress(server);
  return (
    at !== undefined &&
    subnets.some((text) => {
      const subnet = parseSubnet(text);
      return subnet !== undefined && contains(subnet, at);
    })
  );
}

const ignore = (): void => undefined;
