/** Sockets of IPv4 opened in another network namespace; Node's own are always of the process's. */
import { check, declare } from './libc.ts';
import { inNamespace } from './namespace.ts';

const AF_INET = 2;
const SOCK = { STREAM: 1, DGRAM: 2, NONBLOCK: 0o4000, CLOEXEC: 0o2000000 } as const;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;

const socket_ = declare<[number, number, number], number>('int socket(int domain, int type, int protocol)');
const bind_ = declare<[number, Uint8Array, number], number>('int bind(int fd, const void *addr, unsigned int len)');
const setsockopt_ = declare<[number, number, number, Uint8Array, number], number>(
  'int setsockopt(int fd, int level, int name, const void *value, unsigned int len)',
);
const close_ = declare<[number], number>('int close(int fd)');

/** A bound socket of the namespace kept at `path`, to be handed to Node as a descriptor. TCP: not listening yet. */
export function bindInNamespace(path: string, kind: 'tcp' | 'udp', address: Uint8Array, port: number): number {
  const type = (kind === 'tcp' ? SOCK.STREAM : SOCK.DGRAM) | SOCK.NONBLOCK | SOCK.CLOEXEC;
  const fd = inNamespace(path, 'net', () => check(socket_(AF_INET, type, 0), 'socket', kind));
  try {
    const on = Buffer.alloc(4);
    on.writeInt32LE(1);
    if (kind === 'tcp') check(setsockopt_(fd, SOL_SOCKET, SO_REUSEADDR, on, on.length), 'setsockopt', kind);
    // struct sockaddr_in
    const name = Buffer.alloc(16);
    name.writeUInt16LE(AF_INET, 0);
    name.writeUInt16BE(port, 2);
    name.set(address, 4);
    check(bind_(fd, name, name.length), 'bind', `${kind} port ${port} in ${path}`);
    return fd;
  } catch (error) {
    close_(fd);
    throw error;
  }
}
