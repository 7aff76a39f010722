/**
 * What holds a published port on the host, and carries what nftables cannot lead to the container.
 *
 * A socket on each port makes a second claim on it fail, ours or anybody's. nftables leads traffic to the container before it could
 * arrive there, so the socket is bound and nothing more. Relayed is only what comes by IPv6 for a container that has no such
 * address (or comes to ::1, which never leaves a host): TCP by one listener, to which nftables redirects the connections of all ports,
 * UDP by a socket per port.
 */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { type Address, addressOfBytes, formatAddress } from '../lib/ip.ts';
import { occupyPort, originalDestination } from '../platform/inet-socket.ts';

const connectionsMax = 4096;
/** Per port. */
const peersMax = 256;
/** As long as the kernel remembers a UDP flow that was answered. */
const peerIdleMs = 120_000;

export interface Held {
  /** It holds the port of both families. */
  readonly both?: boolean;
  close(): void;
}

/** The container's side. Read for each new connection or datagram. */
export interface Target {
  address: string;
  readonly port: number;
}

/** Holds a port. Rejects with an error (EADDRINUSE, EADDRNOTAVAIL, …) when the host does not give it. */
export async function holdPort(protocol: 'tcp' | 'udp', address: Address, port: number, target: Target): Promise<Held> {
  return protocol === 'udp' && address.family === 6
    ? await holdUdp(formatAddress(address), port, target)
    : occupyPort(protocol, address, port);
}

/** Holds a TCP port of all addresses of both families by one socket; null when that is not to be had. */
export function holdBoth(port: number): Held | null {
  try {
    const { close } = occupyPort('tcp', { family: 6, value: 0n }, port, true);
    return { both: true, close };
  } catch {
    return null;
  }
}

/** One listener for the connections of all ports. */
export class TcpRelay {
  readonly #targetOf: (address: Address, port: number) => Target | undefined;
  /** By connection, with the target it was led to. */
  readonly #open = new Map<net.Socket, Target>();
  #server: net.Server | null = null;
  #listening: Promise<void> | null = null;

  constructor(targetOf: (address: Address, port: number) => Target | undefined) {
    this.#targetOf = targetOf;
  }

  /** Where it listens; 0 while nothing needs it, or the host has no IPv6. */
  get port(): number {
    const address = this.#server?.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Resolves when it listens. Rejects if the host has no IPv6. */
  listen(): Promise<void> {
    this.#listening ??= this.#listen().catch((error: unknown) => {
      this.#listening = null;
      throw error;
    });
    return this.#listening;
  }

  async #listen(): Promise<void> {
    const server = net.createServer({ allowHalfOpen: true }, (client) => this.#relay(client));
    server.maxConnections = connectionsMax;
    server.listen({ host: '::', port: 0, ipv6Only: true, exclusive: true });
    await once(server, 'listening');
    server.on('error', () => undefined); // accept() out of descriptors: it goes on when there are some again
    server.unref();
    this.#server = server;
  }

  #relay(client: net.Socket): void {
    const wanted = originalDestination(descriptorOf(client));
    const target = wanted && this.#targetOf(addressOfBytes(wanted.address), wanted.port);
    if (target === undefined) {
      client.on('error', () => undefined);
      client.destroy();
      return;
    }
    const container = net.connect({ host: target.address, port: target.port, allowHalfOpen: true });
    for (const [one, other] of [
      [client, container],
      [container, client],
    ] as const) {
      this.#open.set(one, target);
      // `pipe` passes the half-close on; a socket that is gone altogether takes the other with it.
      one.pipe(other);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        this.#open.delete(one);
        if (one.errored || !one.readableEnded) other.destroy();
      });
    }
  }

  /** Ends the connections of these. */
  end(targets: ReadonlySet<Target>): void {
    for (const [socket, target] of this.#open) if (targets.has(target)) socket.destroy();
  }

  close(): void {
    this.#server?.close();
    for (const socket of this.#open.keys()) socket.destroy();
  }
}

/** Node has it, but tells nobody. -1: not to be had, so no destination will be found. */
function descriptorOf(socket: net.Socket): number {
  const { _handle: handle } = socket as unknown as { readonly _handle?: { readonly fd?: number } };
  return handle?.fd ?? -1;
}

const sweepers = new Set<() => void>();
let sweepTimer: NodeJS.Timeout | null = null;

/** One timer for all ports. */
function sweepRegularly(sweep: () => void): () => void {
  sweepers.add(sweep);
  sweepTimer ??= setInterval(() => {
    for (const each of sweepers) each();
  }, peerIdleMs / 4).unref();
  return () => {
    sweepers.delete(sweep);
    if (sweepers.size > 0 || sweepTimer === null) return;
    clearInterval(sweepTimer);
    sweepTimer = null;
  };
}

async function holdUdp(address: string, port: number, target: Target): Promise<Held> {
  const server = dgram.createSocket({ type: 'udp6', ipv6Only: true });
  /** In the order of last use. */
  const peers = new Map<string, { readonly socket: dgram.Socket; usedAt: number }>();
  const drop = (key: string): void => {
    peers.get(key)?.socket.close();
    peers.delete(key);
  };
  server.on('message', (data, from) => {
    const key = `${from.address} ${from.port}`;
    let peer = peers.get(key);
    if (peer === undefined) {
      const first = peers.keys().next();
      if (peers.size >= peersMax && first.value !== undefined) drop(first.value);
      const socket = dgram.createSocket(target.address.includes(':') ? 'udp6' : 'udp4');
      socket.on('error', () => undefined); // the container refused: datagrams may get lost
      socket.on('message', (answer) => server.send(answer, from.port, from.address, () => undefined));
      peer = { socket, usedAt: 0 };
    }
    peer.usedAt = Date.now();
    peers.delete(key);
    peers.set(key, peer);
    peer.socket.send(data, target.port, target.address, () => undefined);
  });
  try {
    server.bind({ address, port, exclusive: true });
    await once(server, 'listening');
  } catch (error) {
    server.close();
    throw error;
  }
  server.on('error', () => undefined);
  server.unref();
  const forget = sweepRegularly(() => {
    const oldest = Date.now() - peerIdleMs;
    for (const [key, peer] of peers) if (peer.usedAt < oldest) drop(key);
  });
  return {
    close() {
      forget();
      server.close();
      for (const key of [...peers.keys()]) drop(key);
    },
  };
}
