/** Terminals handed over by an OCI runtime: receiving the descriptor, and its size. */
import fs from 'node:fs';
import koffi from 'koffi';
import { check, declare, isErrno } from './libc.ts';

const iovec = koffi.struct({ base: 'void *', length: 'size_t' });
const msghdr = koffi.struct({
  name: 'void *',
  nameLength: 'uint32_t',
  iov: 'void *',
  iovLength: 'size_t',
  control: 'void *',
  controlLength: 'size_t',
  flags: 'int',
});
const recvmsg = declare<[number, Buffer, number], number>('long recvmsg(int fd, void *message, int flags)');
const ioctl = declare<[number, number, Buffer], number>('int ioctl(int fd, unsigned long request, void *argument)');

const ioctlInt = declare<[number, number, number], number>('int ioctl(int fd, unsigned long request, long argument)');

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x40000000;
const TIOCSWINSZ = 0x5414;
const TIOCSPTLCK = 0x40045431;
const TIOCGPTPEER = 0x5441;
const O_CLOEXEC = 0x80000;

/**
 * Takes the descriptor that a peer sent over a unix socket (SCM_RIGHTS); the runtime's end of `--console-socket`.
 * Null when nothing has arrived yet. The descriptor is close-on-exec and belongs to the caller.
 */
export function receiveDescriptor(socket: number): number | null {
  const data = Buffer.alloc(256);
  const control = Buffer.alloc(64);
  const vector = Buffer.alloc(koffi.sizeof(iovec));
  const message = Buffer.alloc(koffi.sizeof(msghdr));
  koffi.encode(vector, iovec, { base: data, length: data.length });
  koffi.encode(message, msghdr, {
    name: null,
    nameLength: 0,
    iov: vector,
    iovLength: 1,
    control,
    controlLength: control.length,
    flags: 0,
  });
  try {
    check(recvmsg(socket, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC), 'recvmsg', 'console socket');
  } catch (error) {
    if (isErrno(error, 'EAGAIN')) return null;
    throw error;
  }
  // struct cmsghdr: size_t length, int level, int type, then the descriptors.
  const descriptors = Number(control.readBigUInt64LE(0)) - 16;
  if (descriptors < 4 || control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) {
    throw new Error('no descriptor came over the console socket');
  }
  for (let offset = 4; offset + 4 <= descriptors; offset += 4) fs.closeSync(control.readInt32LE(16 + offset));
  return control.readInt32LE(16);
}

/** A new pseudo-terminal of the host. Both descriptors are close-on-exec and belong to the caller. */
export function openTerminal(): { readonly master: number; readonly slave: number } {
  const flags = fs.constants.O_RDWR | fs.constants.O_NOCTTY;
  const master = fs.openSync('/dev/ptmx', flags);
  try {
    check(ioctl(master, TIOCSPTLCK, Buffer.alloc(4)), 'ioctl', 'TIOCSPTLCK');
    const slave = check(ioctlInt(master, TIOCGPTPEER, flags | O_CLOEXEC), 'ioctl', 'TIOCGPTPEER');
    return { master, slave };
  } catch (error) {
    fs.closeSync(master);
    throw error;
  }
}

/** Size of a terminal; its foreground process group gets SIGWINCH when it changes. */
export function setTerminalSize(fd: number, rows: number, columns: number): void {
  const size = Buffer.alloc(8);
  size.writeUInt16LE(rows, 0);
  size.writeUInt16LE(columns, 2);
  check(ioctl(fd, TIOCSWINSZ, size), 'ioctl', `TIOCSWINSZ ${rows}x${columns}`);
}
