/**
 * Files relative to directory descriptors, for trees whose contents nobody trusts.
 *
 * Names are *byte strings*: one character per byte (latin1), since Linux names are bytes and need not be UTF-8.
 * Directories are entered only through `openBeneath` (the kernel resolves the path with the given directory as `/`) or by
 * one component at a time without following links, so neither a path nor a link can lead outside.
 */
import { Buffer } from 'node:buffer';
import fs from 'node:fs';
import { check, declare, failure, isErrno, syscallNumber } from './libc.ts';

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = fs.constants;
const O_CLOEXEC = 0o2000000;
const O_PATH = 0o10000000;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_REMOVEDIR = 0x200;
const STATX_ATTR_MOUNT_ROOT = 0x2000n;
const RESOLVE_NO_MAGICLINKS = 0x02;
const RESOLVE_IN_ROOT = 0x10;
const F_SETPIPE_SZ = 1031;

/** Text of one character per byte. */
export type ByteString = string;

/** Bytes of a path below one directory descriptor, for Node's own `fs` functions. */
export const pathAt = (dir: number, name: ByteString): Buffer => Buffer.from(`/proc/self/fd/${dir}/${name}`, 'latin1');

const c = (bytes: ByteString): Buffer => Buffer.from(`${bytes}\0`, 'latin1');

type Path = Uint8Array;
const openat = declare<[number, Path, number, number], number>(
  'int openat(int dir, const char *path, int flags, unsigned int mode)',
);
const openat2 = declare<[number, number, Path, Uint8Array, number], number>(
  'long syscall(long number, int dir, const char *path, const void *how, size_t size)',
);
const mkdirat = declare<[number, Path, number], number>('int mkdirat(int dir, const char *path, unsigned int mode)');
const mknodat = declare<[number, Path, number, number | bigint], number>(
  'int mknodat(int dir, const char *path, unsigned int mode, uint64_t device)',
);
const symlinkat = declare<[Path, number, Path], number>('int symlinkat(const char *target, int dir, const char *path)');
const linkat = declare<[number, Path, number, Path, number], number>(
  'int linkat(int fromDir, const char *from, int toDir, const char *to, int flags)',
);
const renameat = declare<[number, Path, number, Path], number>(
  'int renameat(int fromDir, const char *from, int toDir, const char *to)',
);
const unlinkat = declare<[number, Path, number], number>('int unlinkat(int dir, const char *path, int flags)');
const statx = declare<[number, Path, number, number, Uint8Array], number>(
  'int statx(int dir, const char *path, int flags, unsigned int mask, void *result)',
);
const fchownat = declare<[number, Path, number, number, number], number>(
  'int fchownat(int dir, const char *path, unsigned int uid, unsigned int gid, int flags)',
);
const fchmodat = declare<[number, Path, number, number], number>(
  'int fchmodat(int dir, const char *path, unsigned int mode, int flags)',
);
const utimensat = declare<[number, Path, Uint8Array, number], number>(
  'int utimensat(int dir, const char *path, const void *times, int flags)',
);
const futimens = declare<[number, Uint8Array], number>('int futimens(int fd, const void *times)');
const lsetxattr = declare<[Path, Path, Uint8Array, number, number], number>(
  'int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)',
);
const lgetxattr = declare<[Path, Path, Uint8Array, number], number>(
  'long lgetxattr(const char *path, const char *name, void *value, size_t size)',
);
const llistxattr = declare<[Path, Uint8Array, number], number>(
  'long llistxattr(const char *path, void *list, size_t size)',
);
const flistxattr = declare<[number, Uint8Array, number], number>('long flistxattr(int fd, void *list, size_t size)');
const syncfs_ = declare<[number], number>('int syncfs(int fd)');
const pipe2 = declare<[Uint8Array, number], number>('int pipe2(int *fds, int flags)');
const fcntl = declare<[number, number, number], number>('int fcntl(int fd, int command, int argument)');

/** Seconds and nanoseconds since the epoch. */
export interface FileTime {
  readonly seconds: number;
  readonly nanoseconds: number;
}

/**
 * Opens `path` as if `root` were `/`: `..`, absolute links and links out of it end at `root`. Numbers of processes
 * (`/proc` links) are not followed.
 */
export function openBeneath(root: number, path: ByteString, flags: number, mode: number = 0): number {
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0);
  how.writeBigUInt64LE(BigInt(mode), 8);
  how.writeBigUInt64LE(BigInt(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), 16);
  const bytes = c(path === '' ? '.' : path);
  // EAGAIN: something was renamed while `..` was resolved; the kernel asks to try again.
  for (let tries = 0; ; tries++) {
    try {
      return check(openat2(syscallNumber.openat2, root, bytes, how, how.length), 'openat2', path);
    } catch (error) {
      if (!isErrno(error, 'EAGAIN') || tries === 100) throw error;
    }
  }
}

/** An open directory; `fd` is valid until `close`. */
export interface OpenDirectory {
  readonly fd: number;
  close(): void;
}

/** Opens the directory `path` below the directory `root` as `openBeneath` does; null when there is none. */
export function openInRoot(root: string, path: string): OpenDirectory | null {
  const base = fs.openSync(root, O_RDONLY | O_DIRECTORY);
  try {
    const fd = openBeneath(base, Buffer.from(path).toString('latin1'), O_RDONLY | O_DIRECTORY);
    return { fd, close: () => fs.closeSync(fd) };
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return null;
    throw error;
  } finally {
    fs.closeSync(base);
  }
}

/** Whether there is anything at `path` below the directory `root`, resolved as `openBeneath` does. */
export function existsInRoot(root: string, path: string): boolean {
  const base = fs.openSync(root, O_PATH | O_DIRECTORY);
  try {
    fs.closeSync(openBeneath(base, Buffer.from(path).toString('latin1'), O_PATH));
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return false;
    throw error;
  } finally {
    fs.closeSync(base);
  }
}

/** Opens one name in `dir`, never following a link at it. */
export function openAt(dir: number, name: ByteString, flags: number, mode: number = 0): number {
  return check(openat(dir, c(name), flags | O_NOFOLLOW | O_CLOEXEC, mode), 'openat', name);
}

/** Opens the directory `name` in `dir`; a link there is an error. */
export const openDirectoryAt = (dir: number, name: ByteString): number => openAt(dir, name, O_RDONLY | O_DIRECTORY);

/** Makes a regular file that must not exist and opens it for writing. */
export const createAt = (dir: number, name: ByteString, mode: number): number =>
  openAt(dir, name, O_WRONLY | O_CREAT | O_EXCL, mode);

export function mkdirAt(dir: number, name: ByteString, mode: number): void {
  check(mkdirat(dir, c(name), mode), 'mkdirat', name);
}

/** `type` is one of S_IFCHR, S_IFBLK, S_IFIFO. */
export function mknodAt(dir: number, name: ByteString, type: number, mode: number, major: number, minor: number): void {
  check(mknodat(dir, c(name), type | mode, deviceNumber(major, minor)), 'mknodat', name);
}

/** How Linux packs a device number; both parts may have 32 bits. */
export function deviceNumber(major: number, minor: number): bigint {
  const [high, low] = [BigInt(major >>> 0), BigInt(minor >>> 0)];
  return ((high & 0xfffn) << 8n) | ((high & ~0xfffn) << 32n) | (low & 0xffn) | ((low & ~0xffn) << 12n);
}

export function splitDevice(device: bigint): { readonly major: number; readonly minor: number } {
  return {
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)),
    minor: Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n)),
  };
}

export function symlinkAt(target: ByteString, dir: number, name: ByteString): void {
  check(symlinkat(c(target), dir, c(name)), 'symlinkat', name);
}

/** One more name for a file; a link as source is linked itself. */
export function linkAt(fromDir: number, from: ByteString, toDir: number, to: ByteString): void {
  check(linkat(fromDir, c(from), toDir, c(to), 0), 'linkat', `${from} to ${to}`);
}

export function renameAt(fromDir: number, from: ByteString, toDir: number, to: ByteString): void {
  check(renameat(fromDir, c(from), toDir, c(to)), 'renameat', `${from} to ${to}`);
}

/** Owner of the name itself, also when it is a link. */
export function chownAt(dir: number, name: ByteString, uid: number, gid: number): void {
  check(fchownat(dir, c(name), uid, gid, AT_SYMLINK_NOFOLLOW), 'fchownat', name);
}

/** Mode of what is at `name`; fails with EOPNOTSUPP when that is a link, which has no mode. */
export function chmodAt(dir: number, name: ByteString, mode: number): void {
  check(fchmodat(dir, c(name), mode, AT_SYMLINK_NOFOLLOW), 'fchmodat', name);
}

/**
 * Removes `name` with all that is in it, following no link, also while others change the tree. Something is mounted there
 * or further below: EBUSY; the kernel itself would let go of mounts that belong to another mount namespace.
 */
export function removeAt(dir: number, name: ByteString): void {
  if (isMountPointAt(dir, name)) throw failure('unlinkat', 'EBUSY', name);
  try {
    check(unlinkat(dir, c(name), 0), 'unlinkat', name);
    return;
  } catch (error) {
    if (!isErrno(error, 'EISDIR')) throw error;
  }
  const fd = openDirectoryAt(dir, name);
  try {
    for (const entry of fs.readdirSync(`/proc/self/fd/${fd}`, { encoding: 'latin1' })) removeAt(fd, entry);
  } finally {
    fs.closeSync(fd);
  }
  check(unlinkat(dir, c(name), AT_REMOVEDIR), 'unlinkat', name);
}

/** True when `name` is the root of a mount. */
export function isMountPointAt(dir: number, name: ByteString): boolean {
  const result = Buffer.alloc(256);
  check(statx(dir, c(name), AT_SYMLINK_NOFOLLOW, 0, result), 'statx', name);
  return (result.readBigUInt64LE(8) & STATX_ATTR_MOUNT_ROOT) !== 0n;
}

const timespecs = (accessed: FileTime, modified: FileTime): Buffer => {
  const bytes = Buffer.allocUnsafe(32);
  bytes.writeBigInt64LE(BigInt(accessed.seconds), 0);
  bytes.writeBigInt64LE(BigInt(accessed.nanoseconds), 8);
  bytes.writeBigInt64LE(BigInt(modified.seconds), 16);
  bytes.writeBigInt64LE(BigInt(modified.nanoseconds), 24);
  return bytes;
};

/** Times of the name itself, also when it is a link. */
export function setTimesAt(dir: number, name: ByteString, accessed: FileTime, modified: FileTime): void {
  check(utimensat(dir, c(name), timespecs(accessed, modified), AT_SYMLINK_NOFOLLOW), 'utimensat', name);
}

export function setTimes(fd: number, accessed: FileTime, modified: FileTime): void {
  check(futimens(fd, timespecs(accessed, modified)), 'futimens', `fd ${fd}`);
}

/** Sets an extended attribute of the name itself, also when it is a link. */
export function setAttributeAt(dir: number, name: ByteString, attribute: string, value: Uint8Array): void {
  const path = c(`/proc/self/fd/${dir}/${name}`);
  check(lsetxattr(path, c(attribute), value, value.length, 0), 'lsetxattr', `${attribute} of ${name}`);
}

/** An extended attribute of the name itself; undefined when it has none of that name. */
export function getAttributeAt(dir: number, name: ByteString, attribute: ByteString): Buffer | undefined {
  const path = c(`/proc/self/fd/${dir}/${name}`);
  return readSized((into) => lgetxattr(path, c(attribute), into, into.length), `lgetxattr ${attribute} of ${name}`);
}

/** Names of all extended attributes of the name itself, sorted. */
export function listAttributesAt(dir: number, name: ByteString): readonly ByteString[] {
  const path = c(`/proc/self/fd/${dir}/${name}`);
  const list = readSized((into) => llistxattr(path, into, into.length), `llistxattr of ${name}`);
  return list === undefined ? [] : list.toString('latin1').split('\0').filter(Boolean).sort();
}

/** Names of all extended attributes of an open file, sorted. */
export function listAttributes(fd: number): readonly ByteString[] {
  const list = readSized((into) => flistxattr(fd, into, into.length), `flistxattr of fd ${fd}`);
  return list === undefined || list.length === 0 ? [] : list.toString('latin1').split('\0').filter(Boolean).sort();
}

function readSized(read: (into: Buffer) => number, detail: string): Buffer | undefined {
  for (let size = 256; ; size = 65536) {
    const into = Buffer.allocUnsafe(size);
    try {
      return into.subarray(0, check(read(into), 'xattr', detail));
    } catch (error) {
      if (isErrno(error, 'ENODATA', 'ENOTSUP', 'EOPNOTSUPP')) return undefined;
      if (!isErrno(error, 'ERANGE') || size === 65536) throw error;
    }
  }
}

/** Everything written to the file system that holds `fd` is on disk when this returns. Blocks: not for the main thread. */
export function syncFileSystem(fd: number): void {
  check(syncfs_(fd), 'syncfs', `fd ${fd}`);
}

/** A pipe, closed on exec, with room for `bytes` (as far as the kernel allows). */
export function makePipe(bytes: number): { readonly read: number; readonly write: number } {
  const fds = Buffer.alloc(8);
  check(pipe2(fds, O_CLOEXEC), 'pipe2', '');
  const [read, write] = [fds.readInt32LE(0), fds.readInt32LE(4)];
  fcntl(write, F_SETPIPE_SZ, bytes); // a smaller pipe works too
  return { read, write };
}
