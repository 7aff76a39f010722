/** Sockets of IPv4 and IPv6 opened in another network namespace; Node's own are always of the process's. */
import { check, declare, isErrno } from './libc.ts';
import { inNamespace } from './namespace.ts';

const AF = { 4: 2, 16: 10 } as const;
const SOCK = { STREAM: 1, DGRAM: 2, NONBLOCK: 0o4000, CLOEXEC: 0o2000000 } as const;
const SOL_SOCKET = 1;
const SO = { REUSEADDR: 2, RCVBUFFORCE: 33 } as const;

const socket_ = declare<[number, number, number], number>('int socket(int domain, int type, int protocol)');
const bind_ = declare<[number, Uint8Array, number], number>('int bind(int fd, const void *addr, unsigned int len)');
const connect_ = declare<[number, Uint8Array, number], number>(
  'int connect(int fd, const void *addr, unsigned int len)',
);
const getsockname_ = declare<[number, Uint8Array, Uint8Array], number>(
  'int getsockname(int fd, void *addr, void *len)',
);
const setsockopt_ = declare<[number, number, number, Uint8Array, number], number>(
  'int setsockopt(int fd, int level, int name, const void *value, unsigned int len)',
);
const close_ = declare<[number], number>('int close(int fd)');

type Kind = 'tcp' | 'udp';

/** Room for what arrives while the reader is busy. */
const receiveBytes = 2 * 1024 * 1024;

function open(path: string, kind: Kind, address: Uint8Array): number {
  const type = (kind === 'tcp' ? SOCK.STREAM : SOCK.DGRAM) | SOCK.NONBLOCK | SOCK.CLOEXEC;
  const make = (): number => check(socket_(familyOf(address), type, 0), 'socket', kind);
  return path === '' ? make() : inNamespace(path, 'net', make);
}

function settle<T>(fd: number, work: () => T): T {
  try {
    return work();
  } catch (error) {
    close_(fd);
    throw error;
  }
}

function option(fd: number, name: number, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  check(setsockopt_(fd, SOL_SOCKET, name, bytes, bytes.length), 'setsockopt', String(name));
}

/**
 * A bound socket of the namespace kept at `path` (empty: the process's own), to be handed to Node as a descriptor. TCP: not listening
 * yet. Port 0 takes a free one.
 */
export function bindInNamespace(
  path: string,
  kind: Kind,
  address: Uint8Array,
  port: number,
): { readonly fd: number; readonly port: number } {
  const fd = open(path, kind, address);
  return settle(fd, () => {
    option(fd, kind === 'tcp' ? SO.REUSEADDR : SO.RCVBUFFORCE, kind === 'tcp' ? 1 : receiveBytes);
    const name = nameOf(address, port);
    check(bind_(fd, name, name.length), 'bind', `${kind} port ${port} in ${path}`);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(name.length);
    check(getsockname_(fd, name, length), 'getsockname', kind);
    return { fd, port: name.readUInt16BE(2) };
  });
}

/** A TCP socket of that namespace on its way to a connection with `port` at `address`. */
export function connectInNamespace(path: string, address: Uint8Array, port: number): number {
  const fd = open(path, 'tcp', address);
  return settle(fd, () => {
    const name = nameOf(address, port);
    try {
      check(connect_(fd, name, name.length), 'connect', `port ${port} from ${path}`);
    } catch (error) {
      if (!isErrno(error, 'EINPROGRESS')) throw error;
    }
    return fd;
  });
}

const familyOf = (address: Uint8Array): number => (address.length === 4 ? AF[4] : AF[16]);

/** struct sockaddr_in and sockaddr_in6 */
function nameOf(address: Uint8Array, port: number): Buffer {
  const name = Buffer.alloc(address.length === 4 ? 16 : 28);
  name.writeUInt16LE(familyOf(address), 0);
  name.writeUInt16BE(port, 2);
  name.set(address, address.length === 4 ? 4 : 8);
  return name;
}
