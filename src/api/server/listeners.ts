/** Where the server listens: unix sockets, TCP with or without TLS, sockets handed over by systemd. */
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import type { Config } from '../../config/types.ts';

export type ListenConfig = Pick<Config, 'hosts' | 'group' | 'tls' | 'tlsVerify' | 'tlsCaCert' | 'tlsCert' | 'tlsKey'>;

export interface Endpoint {
  readonly is: 'unix' | 'tcp';
  /** As configured, for messages. */
  readonly host: string;
  readonly listenOn:
    | { readonly path: string }
    | { readonly port: number; readonly host?: string }
    | { readonly fd: number };
}

/** Plain and TLS port of dockerd. */
const defaultPort = { plain: 2375, tls: 2376 };

/** First descriptor that systemd hands over. */
const firstInheritedFd = 3;

export function endpointsOf(host: string, withTls: boolean, env: NodeJS.ProcessEnv = process.env): readonly Endpoint[] {
  if (host.startsWith('unix://')) return [{ is: 'unix', host, listenOn: { path: host.slice('unix://'.length) } }];
  if (host.startsWith('tcp://')) return [{ is: 'tcp', host, listenOn: tcpAddress(host, withTls) }];
  if (host.startsWith('fd://')) return inheritedSockets(host, env);
  throw new Error(`cannot listen on "${host}": expected unix://, tcp:// or fd://`);
}

function tcpAddress(host: string, withTls: boolean): Endpoint['listenOn'] {
  const found = /^tcp:\/\/(?:\[([^\]]+)\]|([^:/]*))(?::(\d+))?\/?$/.exec(host);
  if (found === null) throw new Error(`cannot listen on "${host}": expected tcp://address:port`);
  const address = found[1] ?? found[2] ?? '';
  const port = found[3] === undefined ? (withTls ? defaultPort.tls : defaultPort.plain) : Number(found[3]);
  return { port, ...(address === '' ? {} : { host: address }) };
}

/** sd_listen_fds(3): `LISTEN_FDS` sockets from descriptor 3 on, meant for the process `LISTEN_PID`. */
function inheritedSockets(host: string, env: NodeJS.ProcessEnv): readonly Endpoint[] {
  const count = env.LISTEN_PID === String(process.pid) ? Number(env.LISTEN_FDS ?? 0) : 0;
  if (!(count > 0)) {
    throw new Error(`cannot listen on "${host}": systemd handed over no sockets (LISTEN_FDS, LISTEN_PID)`);
  }
  return Array.from({ length: count }, (_, index): Endpoint => {
    const fd = firstInheritedFd + index;
    return { is: isUnixSocket(fd) ? 'unix' : 'tcp', host: `${host} (descriptor ${fd})`, listenOn: { fd } };
  });
}

function isUnixSocket(fd: number): boolean {
  const inode = /^socket:\[(\d+)\]$/.exec(fs.readlinkSync(`/proc/self/fd/${fd}`))?.[1];
  const sockets = fs.readFileSync('/proc/net/unix', 'utf8');
  return inode !== undefined && sockets.split('\n').some((line) => line.split(/\s+/)[6] === inode);
}

/** Resolves when connections are accepted. A unix socket has mode 0660 and the group before its first connection. */
export async function listen(server: net.Server, endpoint: Endpoint, group: string): Promise<void> {
  const file = 'path' in endpoint.listenOn ? endpoint.listenOn.path : undefined;
  if (file !== undefined) {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    await removeStaleSocket(file);
  }
  const listening = new Promise<void>((resolve, reject) => {
    server.once('listening', resolve);
    server.once('error', (error) =>
      reject(new Error(`cannot listen on ${endpoint.host}: ${error.message}`, { cause: error })),
    );
  });
  // bind(2) happens within listen(): nobody else can connect before the mode is right.
  const umask = process.umask(0o177);
  try {
    server.listen(endpoint.listenOn);
  } finally {
    process.umask(umask);
  }
  await listening;
  if (file !== undefined) {
    const gid = groupId(group);
    if (gid !== null) fs.chownSync(file, 0, gid);
    fs.chmodSync(file, 0o660);
  }
}

/** A socket file nobody listens on is left by a daemon that was killed. A live one belongs to somebody. */
async function removeStaleSocket(file: string): Promise<void> {
  if (!fs.lstatSync(file, { throwIfNoEntry: false })?.isSocket()) return;
  const isAlive = await new Promise<boolean>((resolve) => {
    const probe = net.connect(file);
    probe.once('connect', () => resolve(true));
    probe.once('error', () => resolve(false));
    probe.once('close', () => probe.destroy());
    probe.once('connect', () => probe.destroy());
  });
  if (isAlive) throw new Error(`cannot listen on unix://${file}: another process answers there`);
  fs.rmSync(file, { force: true });
}

/** A number, or a name in /etc/group. Null when there is no such group: the socket is then for root alone. */
function groupId(group: string): number | null {
  if (/^\d+$/.test(group)) return Number(group);
  const line = readGroups().find((entry) => entry.startsWith(`${group}:`));
  return line === undefined || group === '' ? null : Number(line.split(':')[2]);
}

function readGroups(): readonly string[] {
  try {
    return fs.readFileSync('/etc/group', 'utf8').split('\n');
  } catch {
    return [];
  }
}
