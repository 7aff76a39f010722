/**
 * Sockets that hold a published port on the host.
 *
 * They are what makes a second claim on the port fail, ours or anybody's. nftables leads traffic to the container before it
 * could arrive here, except IPv6 (the default bridge has none) and UDP flows older than the rule: those are relayed.
 * So at most 1024 connections and 256 UDP peers per port are relayed; IPv4 is not bounded by this.
 */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';

const connectionsMax = 1024;
const peersMax = 256;
/** As long as the kernel remembers a UDP flow that was answered. */
const peerIdleMs = 120_000;

export interface Held {
  close(): void;
}

/** The container's side. Read for each new connection or datagram. */
export interface Target {
  address: string;
  readonly port: number;
}

/** Holds a port. Rejects with Node's error (EADDRINUSE, EADDRNOTAVAIL, …) when the host does not give it. */
export function holdPort(protocol: 'tcp' | 'udp', address: string, port: number, target: Target): Promise<Held> {
  return protocol === 'tcp' ? holdTcp(address, port, target) : holdUdp(address, port, target);
}

async function holdTcp(address: string, port: number, target: Target): Promise<Held> {
  const open = new Set<net.Socket>();
  const server = net.createServer({ allowHalfOpen: true }, (client) => {
    const container = net.connect({ host: target.address, port: target.port, allowHalfOpen: true });
    for (const [one, other] of [
      [client, container],
      [container, client],
    ] as const) {
      open.add(one);
      // `pipe` passes the half-close on; a socket that is gone altogether takes the other with it.
      one.pipe(other);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        open.delete(one);
        if (one.errored || !one.readableEnded) other.destroy();
      });
    }
  });
  server.maxConnections = connectionsMax;
  server.listen({ host: address, port, ipv6Only: true, exclusive: true });
  await once(server, 'listening');
  server.on('error', () => undefined); // accept() out of descriptors: the port stays held
  server.unref();
  return {
    close() {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

async function holdUdp(address: string, port: number, target: Target): Promise<Held> {
  const version = address.includes(':') ? 'udp6' : 'udp4';
  const server = dgram.createSocket({ type: version, ipv6Only: version === 'udp6' });
  /** In the order of last use. */
  const peers = new Map<string, { readonly socket: dgram.Socket; usedAt: number }>();
  const drop = (key: string): void => {
    peers.get(key)?.socket.close();
    peers.delete(key);
  };
  const sweep = setInterval(() => {
    const oldest = Date.now() - peerIdleMs;
    for (const [key, peer] of peers) if (peer.usedAt < oldest) drop(key);
  }, peerIdleMs / 4).unref();

  server.on('message', (data, from) => {
    const key = `${from.address} ${from.port}`;
    let peer = peers.get(key);
    if (peer === undefined) {
      const first = peers.keys().next();
      if (peers.size >= peersMax && first.value !== undefined) drop(first.value);
      const socket = dgram.createSocket('udp4');
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
    clearInterval(sweep);
    server.close();
    throw error;
  }
  server.on('error', () => undefined);
  server.unref();
  return {
    close() {
      clearInterval(sweep);
      server.close();
      for (const key of [...peers.keys()]) drop(key);
    },
  };
}
