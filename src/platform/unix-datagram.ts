/** Datagrams to a unix socket (syslog's `/dev/log`, the journal), which Node does not offer. Nothing here ever waits. */
import fs from 'node:fs';
import koffi from 'koffi';
import { check, declare, isErrno } from './libc.ts';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
/** Nobody changes, cuts or grows it any more, or takes these seals off. */
const allSeals = 0xf;
/** Bytes of `sun_path`, its final zero included. */
const pathMax = 108;

const socket_ = declare<[number, number, number], number>('int socket(int domain, int type, int protocol)');
const connect_ = declare<[number, Uint8Array, number], number>(
  'int connect(int fd, const void *address, uint32_t size)',
);
const close_ = declare<[number], number>('int close(int fd)');
const send_ = declare<[number, Uint8Array, number, number], number>(
  'long send(int fd, const void *data, size_t size, int flags)',
);
const sendmsg = declare<[number, Buffer, number], number>('long sendmsg(int fd, const void *message, int flags)');
const memfdCreate = declare<[string, number], number>('int memfd_create(const char *name, unsigned int flags)');
const fcntl = declare<[number, number, number], number>('int fcntl(int fd, int command, int argument)');

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

export class UnixDatagramSocket {
  readonly #path: string;
  #fd: number;

  /** Throws when nobody listens there (ENOENT, ECONNREFUSED), or when it is no datagram socket (EPROTOTYPE). */
  constructor(path: string) {
    const name = Buffer.from(path);
    const address = Buffer.alloc(2 + Math.min(name.length + 1, pathMax));
    address.writeUInt16LE(AF_UNIX, 0);
    name.copy(address, 2, 0, pathMax - 1);
    this.#path = path;
    this.#fd = check(socket_(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket', path);
    try {
      check(connect_(this.#fd, address, address.length), 'connect', path);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** False when the receiver's queue is full. Throws EMSGSIZE for what is too large, and when the receiver has gone. */
  send(data: Uint8Array): boolean {
    return this.#sent(() => send_(this.#fd, data, data.length, MSG_NOSIGNAL));
  }

  /** Sends the descriptor of a sealed file in memory that holds `data`: how the journal takes large entries. */
  sendAsFile(data: Uint8Array): boolean {
    const file = check(memfdCreate('log-entry', MFD_CLOEXEC | MFD_ALLOW_SEALING), 'memfd_create', this.#path);
    try {
      for (let written = 0; written < data.length; ) written += fs.writeSync(file, data, written);
      check(fcntl(file, F_ADD_SEALS, allSeals), 'fcntl', 'F_ADD_SEALS');
      // struct cmsghdr: size_t length, int level, int type, then the descriptor.
      const control = Buffer.alloc(24);
      control.writeBigUInt64LE(20n, 0);
      control.writeInt32LE(SOL_SOCKET, 8);
      control.writeInt32LE(SCM_RIGHTS, 12);
      control.writeInt32LE(file, 16);
      const vector = Buffer.alloc(koffi.sizeof(iovec));
      const message = Buffer.alloc(koffi.sizeof(msghdr));
      koffi.encode(vector, iovec, { base: null, length: 0 });
      koffi.encode(message, msghdr, {
        name: null,
        nameLength: 0,
        iov: vector,
        iovLength: 1,
        control,
        controlLength: control.length,
        flags: 0,
      });
      return this.#sent(() => sendmsg(this.#fd, message, MSG_NOSIGNAL));
    } finally {
      fs.closeSync(file);
    }
  }

  close(): void {
    if (this.#fd >= 0) close_(this.#fd);
    this.#fd = -1;
  }

  #sent(call: () => number): boolean {
    try {
      check(call(), 'send', this.#path);
      return true;
    } catch (error) {
      if (isErrno(error, 'EAGAIN', 'ENOBUFS')) return false;
      throw error;
    }
  }
}
