/**
 * A second view of the machine's mounts, for children that must not see some of them.
 *
 * The view is a mount namespace held by a descriptor: it lives as long as this process or a child inside. What is
 * mounted and unmounted in the daemon's own namespace reaches it wherever the mount above is shared.
 */
import fs from 'node:fs';
import { check, declare } from './libc.ts';
import { MS, mount, unmount } from './mount.ts';
import { CLONE, setns, unshare } from './namespace.ts';

const fchdir = declare<[number], number>('int fchdir(int fd)');
const O_PATH = 0x200000;

export class MountView implements Disposable {
  readonly #home: number;
  readonly #there: number;

  /** Copies the mounts as they are now, then detaches each of `hidden` in the copy alone. */
  constructor(hidden: readonly { readonly path: string; readonly parent: string }[]) {
    this.#home = fs.openSync('/proc/thread-self/ns/mnt', 'r');
    this.#there = this.#excursion(
      () => unshare(CLONE.NEWNS),
      () => {
        for (const { path, parent } of hidden) {
          mount(null, parent, null, MS.PRIVATE, null);
          unmount(path);
        }
        return fs.openSync('/proc/thread-self/ns/mnt', 'r');
      },
    );
  }

  /** The namespace as a path that any child can open while this process lives and holds the view. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.#there}`;
  }

  /** Runs `work` with this thread inside; children it forks stay inside. `work` must not return a promise. */
  run<T>(work: () => T): T {
    return this.#excursion(() => setns(this.#there, CLONE.NEWNS), work);
  }

  [Symbol.dispose](): void {
    fs.closeSync(this.#there);
    fs.closeSync(this.#home);
  }

  /** Entering a mount namespace moves the working directory to its root, so that is put back too. */
  #excursion<T>(enter: () => void, work: () => T): T {
    const directory = fs.openSync('.', fs.constants.O_DIRECTORY | O_PATH);
    try {
      // A thread that shares root and working directory with others may not change its mount namespace, and threads
      // started since the last time (workers, Node's pool) share ours.
      unshare(CLONE.FS);
      enter();
      try {
        return work();
      } finally {
        setns(this.#home, CLONE.NEWNS);
        check(fchdir(directory), 'fchdir', 'working directory');
      }
    } finally {
      fs.closeSync(directory);
    }
  }
}
