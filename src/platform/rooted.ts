/** Paths of a container, resolved inside its root whatever links it holds (openat2, RESOLVE_IN_ROOT). */
import fs from 'node:fs';
import { check, declare, isErrno, syscallNumber } from './libc.ts';

const openat2 = declare<[number, number, string, BigUint64Array, number], number>(
  'long syscall(long number, int directory, const char *path, void *how, size_t size)',
);
const mkdirat = declare<[number, string, number], number>(
  'int mkdirat(int directory, const char *path, unsigned int mode)',
);
const fchownat = declare<[number, string, number, number, number], number>(
  'int fchownat(int directory, const char *path, unsigned int uid, unsigned int gid, int flags)',
);

const RESOLVE_NO_MAGICLINKS = 2;
const RESOLVE_IN_ROOT = 16;
const O_PATH = 0x200000;
const O_CLOEXEC = 0x80000;
const AT_SYMLINK_NOFOLLOW = 0x100;

function openBelow(directory: number, path: string, flags: number): number {
  const how = BigUint64Array.of(BigInt(flags | O_CLOEXEC), 0n, BigInt(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS));
  return check(openat2(syscallNumber.openat2, directory, path, how, how.byteLength), 'openat2', path);
}

function withRoot<T>(root: string, work: (directory: number) => T): T {
  const directory = fs.openSync(root, fs.constants.O_DIRECTORY | O_PATH);
  try {
    return work(directory);
  } finally {
    fs.closeSync(directory);
  }
}

/** Opens `path` as the container would see it. The descriptor belongs to the caller. */
export function openInRoot(root: string, path: string, flags: number): number {
  return withRoot(root, (directory) => openBelow(directory, path, flags));
}

/**
 * Makes the directory `path` inside `root` with its parents (mode 0755) and gives the new ones to `uid` and `gid`.
 * What exists stays as it is. Throws ENOTDIR when something else is in the way.
 */
export function makeDirectoriesInRoot(root: string, path: string, uid: number, gid: number): void {
  withRoot(root, (top) => {
    const walked: string[] = [];
    for (const name of path.split('/').filter((part) => part !== '' && part !== '.')) {
      const parent = openBelow(top, `/${walked.join('/')}`, fs.constants.O_DIRECTORY | O_PATH);
      try {
        if (name !== '..') {
          try {
            check(mkdirat(parent, name, 0o755), 'mkdir', path);
            check(fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW), 'chown', path);
          } catch (error) {
            if (!isErrno(error, 'EEXIST')) throw error;
          }
        }
      } finally {
        fs.closeSync(parent);
      }
      walked.push(name);
    }
    fs.closeSync(openBelow(top, path, fs.constants.O_DIRECTORY | O_PATH));
  });
}
