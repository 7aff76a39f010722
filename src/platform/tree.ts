/** Mounts as descriptors: copied from another mount namespace, given another owner, put in place. See open_tree(2). */
import fs from 'node:fs';
import { check, declare, isErrno, syscallNumber } from './libc.ts';
import { MS } from './mount.ts';
import { CLONE, setns, unshare } from './namespace.ts';

const syscall = declare<[number, number, string, number], number>(
  'long syscall(long number, int dirfd, const char *path, unsigned int flags)',
);
const moveMount = declare<[number, number, string, number, string, number], number>(
  'long syscall(long number, int from, const char *fromPath, int to, const char *toPath, unsigned int flags)',
);
const mountSetattr = declare<[number, number, string, number, Uint8Array, number], number>(
  'long syscall(long number, int tree, const char *path, unsigned int flags, const void *attributes, size_t size)',
);
const fchdir = declare<[number], number>('int fchdir(int fd)');

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const AT_EMPTY_PATH = 0x1000;
const MOUNT_ATTR_IDMAP = 0x100000n;
const O_PATH = 0x200000;

/** A detached copy of the mount at `path` (that mount alone), as a descriptor that belongs to the caller. */
export function openTree(path: string): number {
  const flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW;
  return check(syscall(syscallNumber.open_tree, AT_FDCWD, path, flags), 'open_tree', path);
}

/** The same from inside another mount namespace, given by a descriptor. Null: there is no such path. */
export function cloneTree(namespace: number, path: string): number | null {
  const home = fs.openSync('/proc/thread-self/ns/mnt', 'r');
  const directory = fs.openSync('.', fs.constants.O_DIRECTORY | O_PATH);
  try {
    // A thread that shares root and working directory with others may not change its mount namespace.
    unshare(CLONE.FS);
    setns(namespace, CLONE.NEWNS);
    try {
      return openTree(path);
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'EINVAL')) return null;
      throw error;
    } finally {
      setns(home, CLONE.NEWNS);
      check(fchdir(directory), 'fchdir', 'working directory');
    }
  } finally {
    fs.closeSync(directory);
    fs.closeSync(home);
  }
}

/** Mounts a detached tree at `target`. */
export function attachTree(tree: number, target: string): void {
  const { move_mount } = syscallNumber;
  check(moveMount(move_mount, tree, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH), 'move_mount', target);
}

/**
 * Shows a detached tree with the ids of a user namespace: what is 0 on the disk is that namespace's root. It becomes private:
 * as a peer of the mount it was copied from it would get, and take away again, what is mounted there.
 */
export function shiftIds(tree: number, userNamespace: number): void {
  const attributes = Buffer.alloc(32);
  attributes.writeBigUInt64LE(MOUNT_ATTR_IDMAP, 0);
  attributes.writeBigUInt64LE(BigInt(MS.PRIVATE), 16);
  attributes.writeBigUInt64LE(BigInt(userNamespace), 24);
  const { mount_setattr } = syscallNumber;
  check(mountSetattr(mount_setattr, tree, '', AT_EMPTY_PATH, attributes, attributes.length), 'mount_setattr', 'ids');
}
