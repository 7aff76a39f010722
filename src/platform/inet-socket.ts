/** Sockets that Node does not make: bound and nothing more. */
import { type Address, bytesOf } from '../lib/ip.ts';
import { check, declare, isErrno } from './libc.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK = { STREAM: 1, DGRAM: 2, NONBLOCK: 0o4000, CLOEXEC: 0o2000000 } as const;
const SOL_SOCKET = 1;
const SO = { REUSEADDR: 2, RCVBUF: 8 } as const;
const SOL_IPV6 = 41;
const IPV6_V6ONLY = 26;
const IP6T_SO_ORIGINAL_DST = 80;

const socket_ = declare<[number, number, number], number>('int socket(int domain, int type, int protocol)');
const bind_ = declare<[number, Uint8Array, number], number>('int bind(int fd, const void *addr, unsigned int len)');
const listen_ = declare<[number, number], number>('int listen(int fd, int backlog)');
const setsockopt_ = declare<[number, number, number, Uint8Array, number], number>(
  'int setsockopt(int fd, int level, int name, const void *value, unsigned int len)',
);
const getsockopt_ = declare<[number, number, number, Uint8Array, Uint8Array], number>(
  'int getsockopt(int fd, int level, int name, void *value, void *length)',
);
const close_ = declare<[number], number>('int close(int fd)');

/**
 * Takes a port, so that nobody else gets it, and does nothing with what arrives there: TCP is refused, UDP is lost.
 * `::` with `both` takes it for IPv4, too. Costs the kernel's socket only. Throws the kernel's errno (EADDRINUSE, EADDRNOTAVAIL …).
 */
export function occupyPort(kind: 'tcp' | 'udp', address: Address, port: number, both = false): { close(): void } {
  let fd: number;
  try {
    fd = bound(kind, address, port, { both, listen: false });
  } catch (error) {
    // Connections that ended a moment ago are in the way of those who will not share, as listeners may.
    if (kind === 'udp' || !isErrno(error, 'EADDRINUSE')) throw error;
    fd = bound(kind, address, port, { both, listen: true });
  }
  return {
    close: () => {
      if (fd >= 0) close_(fd);
      fd = -1;
    },
  };
}

function bound(
  kind: 'tcp' | 'udp',
  address: Address,
  port: number,
  { both, listen }: { readonly both: boolean; readonly listen: boolean },
): number {
  const family = address.family === 4 ? AF_INET : AF_INET6;
  const type = (kind === 'tcp' ? SOCK.STREAM : SOCK.DGRAM) | SOCK.NONBLOCK | SOCK.CLOEXEC;
  const what = `${kind} port ${port}`;
  const fd = check(socket_(family, type, 0), 'socket', what);
  try {
    if (family === AF_INET6) set(fd, SOL_IPV6, IPV6_V6ONLY, both ? 0 : 1, what);
    if (kind === 'udp') set(fd, SOL_SOCKET, SO.RCVBUF, 1, what);
    if (listen) set(fd, SOL_SOCKET, SO.REUSEADDR, 1, what);
    const name = socketName(address, port);
    check(bind_(fd, name, name.length), 'bind', what);
    if (listen) check(listen_(fd, 0), 'listen', what);
    return fd;
  } catch (error) {
    close_(fd);
    throw error;
  }
}

/** Where a TCP connection over IPv6 was going before a `redirect` of the firewall; undefined: here. */
export function originalDestination(fd: number): { readonly address: Buffer; readonly port: number } | undefined {
  const name = Buffer.alloc(28);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(name.length);
  if (getsockopt_(fd, SOL_IPV6, IP6T_SO_ORIGINAL_DST, name, length) < 0) return undefined;
  return { address: name.subarray(8, 24), port: name.readUInt16BE(2) };
}

function set(fd: number, level: number, option: number, value: number, what: string): void {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  check(setsockopt_(fd, level, option, bytes, bytes.length), 'setsockopt', what);
}

/** struct sockaddr_in, struct sockaddr_in6 */
function socketName(address: Address, port: number): Buffer {
  const name = Buffer.alloc(address.family === 4 ? 16 : 28);
  name.writeUInt16LE(address.family === 4 ? AF_INET : AF_INET6, 0);
  name.writeUInt16BE(port, 2);
  name.set(bytesOf(address), address.family === 4 ? 4 : 8);
  return name;
}
