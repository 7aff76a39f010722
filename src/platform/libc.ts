/**
 * The one door to the C library.
 *
 * Everything Node does not offer (mount, setns, openat2, netlink sockets …) is declared in this folder through
 * `declare` and called through `check`, which turns a negative answer into a `SystemError` with the errno's name.
 * Calls made here run on the calling thread and must take microseconds; what can block belongs in a worker or a child.
 */
import os from 'node:os';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');

/** Declares a C function by its prototype, e.g. `int umount2(const char *target, int flags)`. */
export function declare<A extends readonly unknown[], R>(prototype: string): (...args: A) => R {
  return libc.func(prototype) as unknown as (...args: A) => R;
}

/** The same, called by another thread, for what makes its caller wait. `errno` is lost: the result has to say all. */
export function declareSlow<A extends readonly unknown[], R>(prototype: string): (...args: A) => Promise<R> {
  const slow = libc.func(prototype);
  return (...args) =>
    new Promise((resolve, reject) => {
      slow.async(...args, (error: Error | null, result: R) => (error ? reject(error) : resolve(result)));
    });
}

/** Where two names share a number (EAGAIN, EWOULDBLOCK), the first is the one Node's own errors carry. */
const nameOfErrno = new Map(
  Object.entries(os.constants.errno)
    .map(([name, number]) => [number, name] as const)
    .reverse(),
);
const strerror = declare<[number], string>('const char *strerror(int errnum)');

/** A failed system call: `code` is the errno's name as in Node's own errors, so both kinds are handled alike. */
export class SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
  constructor(syscall: string, errno: number, detail: string) {
    const code = nameOfErrno.get(errno) ?? `E${errno}`;
    super(`${syscall} ${detail}: ${strerror(errno).toLowerCase()} (${code})`);
    this.name = 'SystemError';
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** The error of a call that would have to fail but was not made. */
export const failure = (syscall: string, code: keyof typeof os.constants.errno, detail: string): SystemError =>
  new SystemError(syscall, os.constants.errno[code], detail);

/** Passes a non-negative answer on; throws the errno of a negative one. `detail` says what was tried on what. */
export function check(answer: number, syscall: string, detail: string): number {
  if (answer < 0) throw new SystemError(syscall, koffi.errno(), detail);
  return answer;
}

/** True when `error` is a failure (Node's or ours) with that errno name. */
export function isErrno(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && codes.includes(error.code);
}

/** Numbers of system calls that have no wrapper in glibc 2.36, per architecture. */
export const syscallNumber = {
  quotactl_fd: 443,
  openat2: 437, // the same on x86_64 and arm64, as are all calls since 424
  pidfd_open: 434,
  pidfd_send_signal: 424,
  pivot_root: process.arch === 'arm64' ? 41 : 155,
  open_tree: 428,
  move_mount: 429,
  mount_setattr: 442,
} as const;
