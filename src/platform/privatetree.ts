/**
 * A tree with other places mounted into it that nobody else sees: a mount namespace of its own that holds nothing else and
 * lives as long as the descriptors returned. For worker threads: the calling thread leaves its namespace for a moment.
 */
import fs from 'node:fs';
import { check, declare, isErrno, syscallNumber } from './libc.ts';
import { bindMount, MS, mount } from './mount.ts';
import { CLONE, setns, unshare } from './namespace.ts';

const fchdir = declare<[number], number>('int fchdir(int fd)');
const pivotRoot = declare<[number, string, string], number>(
  'long syscall(long number, const char *newRoot, const char *putOld)',
);
const umount2 = declare<[string, number], number>('int umount2(const char *target, int flags)');
const O_PATH = 0x200000;
const MNT_DETACH = 2;

export interface Bind {
  /** Path on the host, directory or not; passed over when it is not there. */
  readonly source: string;
  readonly destination: string;
  readonly writable: boolean;
}

export interface PrivateTree {
  /** The top, with everything mounted into it (O_PATH). */
  readonly root: number;
  close(): void;
}

/**
 * `tree` must be a mount point. `place` finds or makes the place of a bind below the top, as a descriptor that is closed
 * here; null leaves that bind out.
 */
export function openPrivateTree(
  tree: string,
  readonly: boolean,
  binds: readonly Bind[],
  place: (root: number, destination: string, isDirectory: boolean) => number | null,
): PrivateTree {
  const home = fs.openSync('/proc/thread-self/ns/mnt', 'r');
  const directory = fs.openSync('.', fs.constants.O_DIRECTORY | O_PATH);
  try {
    // A thread that shares root and working directory with others may not change its mount namespace.
    unshare(CLONE.FS);
    unshare(CLONE.NEWNS);
    try {
      return furnish();
    } finally {
      setns(home, CLONE.NEWNS);
      check(fchdir(directory), 'fchdir', 'working directory');
    }
  } finally {
    fs.closeSync(directory);
    fs.closeSync(home);
  }

  function furnish(): PrivateTree {
    mount(null, '/', null, MS.REC | MS.PRIVATE, null);
    const here = fs.openSync('/proc/thread-self/ns/mnt', 'r');
    let root = -1;
    try {
      root = fs.openSync(tree, fs.constants.O_DIRECTORY | O_PATH);
      for (const bind of binds) bindInto(root, bind);
      if (readonly) mount(null, `/proc/self/fd/${root}`, null, MS.REMOUNT | MS.BIND | MS.RDONLY, null);
      leaveTheRest(root);
      return {
        root,
        close: () => {
          fs.closeSync(root);
          fs.closeSync(here);
        },
      };
    } catch (error) {
      if (root >= 0) fs.closeSync(root);
      fs.closeSync(here);
      throw error;
    }
  }

  function bindInto(root: number, { source, destination, writable }: Bind): void {
    const found = fs.statSync(source, { throwIfNoEntry: false });
    const at = found === undefined ? null : place(root, destination, found.isDirectory());
    if (at === null) return;
    try {
      bindMount(source, `/proc/self/fd/${at}`, MS.REC);
    } finally {
      fs.closeSync(at);
    }
    if (writable) return;
    const mounted = place(root, destination, found?.isDirectory() === true);
    if (mounted === null) return;
    try {
      mount(null, `/proc/self/fd/${mounted}`, null, MS.REMOUNT | MS.BIND | MS.RDONLY, null);
    } finally {
      fs.closeSync(mounted);
    }
  }

  /** The other mounts of the machine are not to be kept busy by this copy of them. */
  function leaveTheRest(root: number): void {
    check(fchdir(root), 'fchdir', tree);
    try {
      check(pivotRoot(syscallNumber.pivot_root, '.', '.'), 'pivot_root', tree);
    } catch (error) {
      if (isErrno(error, 'EINVAL')) return; // the machine runs from its initial RAM disk
      throw error;
    }
    check(umount2('.', MNT_DETACH), 'umount', 'the old root');
  }
}
