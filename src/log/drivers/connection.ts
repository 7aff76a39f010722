/** Ways to a sink: streams (tcp, tls, unix) and datagrams (udp, unixgram). Nothing is kept that the kernel has not taken. */
import dgram from 'node:dgram';
import dns from 'node:dns/promises';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import tls from 'node:tls';
import { isErrno } from '../../platform/libc.ts';
import { UnixDatagramSocket } from '../../platform/unix-datagram.ts';
import type { Address, NetAddress } from './address.ts';

const connectPatienceMs = 10_000;
/** A peer that has vanished without a word is noticed although nothing is sent. */
const keepAliveMs = 30_000;
/** How often a full queue of a unix socket is tried again. */
const fullQueueMs = { first: 1, last: 100 } as const;
/** Datagrams handed to the kernel at once. */
const datagramsAtOnce = 64;

export interface ByteStream {
  /** Resolves when the kernel has taken all of it. */
  write(bytes: Uint8Array): Promise<void>;
  onData: ((data: Buffer) => void) | null;
  onBroken: ((error: Error) => void) | null;
  close(): void;
}

export interface TlsFiles {
  readonly ca: Buffer | undefined;
  readonly cert: Buffer | undefined;
  readonly key: Buffer | undefined;
  readonly skipVerify: boolean;
}

let lookups: Promise<unknown> = Promise.resolve();

/**
 * The address of a name. One question at a time: the system's resolver holds a thread of the pool that files need too,
 * for as long as a name server does not answer.
 */
async function resolve(host: string, signal: AbortSignal): Promise<string> {
  if (net.isIP(host) !== 0) return host;
  const mine = lookups.then(async () => {
    signal.throwIfAborted();
    return (await dns.lookup(host)).address;
  });
  lookups = mine.catch(() => undefined);
  return mine;
}

export async function openStream(address: Address, secure: TlsFiles | null, signal: AbortSignal): Promise<ByteStream> {
  const target =
    'path' in address
      ? { path: address.path }
      : { host: await resolve(address.host, signal), port: address.port, noDelay: true };
  signal.throwIfAborted();
  const socket =
    secure === null
      ? net.connect(target)
      : tls.connect({
          ...target,
          ca: secure.ca,
          cert: secure.cert,
          key: secure.key,
          rejectUnauthorized: !secure.skipVerify,
          ...('host' in address && net.isIP(address.host) === 0 ? { servername: address.host } : {}),
          ...('host' in address
            ? { checkServerIdentity: (_, cert) => tls.checkServerIdentity(address.host, cert) }
            : {}),
        });
  const stream = new SocketStream(socket);
  const abort = (): void => stream.close();
  signal.addEventListener('abort', abort);
  socket.once('close', () => signal.removeEventListener('abort', abort));
  const patience = setTimeout(
    () => socket.destroy(new Error(`no connection within ${connectPatienceMs / 1000} seconds`)),
    connectPatienceMs,
  );
  try {
    await stream.whenOpen(secure === null ? 'connect' : 'secureConnect');
  } finally {
    clearTimeout(patience);
  }
  socket.setKeepAlive(true, keepAliveMs);
  return stream;
}

class SocketStream implements ByteStream {
  onData: ((data: Buffer) => void) | null = null;
  onBroken: ((error: Error) => void) | null = null;
  readonly #socket: net.Socket;
  #error: Error | null = null;

  constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    // Read even if nothing is expected: only so is the peer's end seen.
    socket.on('data', (data: Buffer) => this.onData?.(data));
    socket.on('end', () => socket.destroy(new Error('the sink has closed the connection')));
    socket.on('close', () => {
      this.#error ??= new Error('the connection is closed');
      this.onBroken?.(this.#error);
      this.onBroken = null;
    });
  }

  whenOpen(event: 'connect' | 'secureConnect'): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#socket.once(event, resolve);
      this.#socket.once('close', () => reject(this.#error ?? new Error('the connection is closed')));
    });
  }

  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#error !== null || this.#socket.destroyed) {
        reject(this.#error ?? new Error('the connection is closed'));
        return;
      }
      this.#socket.write(bytes, (error) => (error ? reject(this.#error ?? error) : resolve()));
    });
  }

  /** Whoever waits for an answer or a write learns of it. */
  close(): void {
    this.#socket.destroy();
  }
}

export interface Datagrams {
  /** Resolves when the kernel has taken all of them. */
  send(messages: readonly Uint8Array[]): Promise<void>;
  close(): void;
}

export async function openDatagrams(address: Address, signal: AbortSignal): Promise<Datagrams> {
  if (address.kind === 'unixgram' && 'path' in address) return new UnixDatagrams(address.path, signal);
  return openUdp(address as NetAddress, signal);
}

async function openUdp({ host, port }: NetAddress, signal: AbortSignal): Promise<Datagrams> {
  const ip = await resolve(host, signal);
  signal.throwIfAborted();
  const socket = dgram.createSocket(net.isIPv6(ip) ? 'udp6' : 'udp4');
  let failure: Error | null = null;
  // Nobody listens there, as an earlier datagram has learned.
  socket.on('error', (error) => {
    failure = error;
  });
  await new Promise<void>((resolve_, reject) => {
    socket.once('error', reject);
    socket.connect(port, ip, () => {
      socket.off('error', reject);
      resolve_();
    });
  });
  const send = (message: Uint8Array): Promise<void> =>
    new Promise((resolve_, reject) => socket.send(message, (error) => (error ? reject(error) : resolve_())));
  let closed = false;
  return {
    async send(messages) {
      for (let at = 0; at < messages.length; at += datagramsAtOnce) {
        if (failure !== null) throw failure;
        if (closed) throw new Error('the socket is closed');
        await Promise.all(messages.slice(at, at + datagramsAtOnce).map(send));
      }
    },
    close() {
      if (!closed) socket.close();
      closed = true;
    },
  };
}

export class UnixDatagrams implements Datagrams {
  readonly #socket: UnixDatagramSocket;
  readonly #signal: AbortSignal;

  constructor(path: string, signal: AbortSignal) {
    this.#socket = new UnixDatagramSocket(path);
    this.#signal = signal;
  }

  async send(messages: readonly Uint8Array[]): Promise<void> {
    for (const message of messages) await this.#whenRoom(() => this.#socket.send(message));
  }

  /** As one entry of the journal, however large. */
  async sendEntry(entry: Uint8Array): Promise<void> {
    await this.#whenRoom(() => {
      try {
        return this.#socket.send(entry);
      } catch (error) {
        if (!isErrno(error, 'EMSGSIZE')) throw error;
        return this.#socket.sendAsFile(entry);
      }
    });
  }

  async #whenRoom(send: () => boolean): Promise<void> {
    for (let delay: number = fullQueueMs.first; ; delay = Math.min(delay * 2, fullQueueMs.last)) {
      if (send()) return;
      await sleep(delay, undefined, { signal: this.#signal });
    }
  }

  close(): void {
    this.#socket.close();
  }
}
