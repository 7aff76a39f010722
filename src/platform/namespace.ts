/**
 * Linux namespaces seen from the daemon's main thread.
 *
 * `setns` and `unshare` change the calling thread only. A child forked while inside inherits the namespace, and a
 * netlink socket opened inside keeps belonging to it. All of it is synchronous and undone in `finally`: no `await`
 * may stand between entering and leaving.
 */
import fs from 'node:fs';
import { check, declare } from './libc.ts';
import { bindMount } from './mount.ts';

export const CLONE = { NEWNS: 0x00020000, FS: 0x00000200, NEWNET: 0x40000000 } as const;

const unshare_ = declare<[number], number>('int unshare(int flags)');
const setns_ = declare<[number, number], number>('int setns(int fd, int nstype)');

export function unshare(flags: number): void {
  check(unshare_(flags), 'unshare', `0x${flags.toString(16)}`);
}

export function setns(fd: number, type: number): void {
  check(setns_(fd, type), 'setns', `0x${type.toString(16)}`);
}

/** Runs `work` with this thread inside the namespace kept at `path`. `work` must not return a promise. */
export function inNamespace<T>(path: string, type: 'net' | 'mnt', work: () => T): T {
  const flag = type === 'net' ? CLONE.NEWNET : CLONE.NEWNS;
  const home = fs.openSync(`/proc/thread-self/ns/${type}`, 'r');
  try {
    const there = fs.openSync(path, 'r');
    try {
      setns(there, flag);
    } finally {
      fs.closeSync(there);
    }
    try {
      return work();
    } finally {
      setns(home, flag);
    }
  } finally {
    fs.closeSync(home);
  }
}

/** Makes a new network namespace and keeps it alive by a bind mount on the (new, empty) file `path`. */
export function createNetworkNamespace(path: string): void {
  const home = fs.openSync('/proc/thread-self/ns/net', 'r');
  try {
    fs.closeSync(fs.openSync(path, 'w', 0o444));
    unshare(CLONE.NEWNET);
    try {
      bindMount('/proc/thread-self/ns/net', path);
    } finally {
      setns(home, CLONE.NEWNET);
    }
  } catch (error) {
    fs.rmSync(path, { force: true });
    throw error;
  } finally {
    fs.closeSync(home);
  }
}

/** Keeps the namespace at `from` alive by a bind mount on the (new, empty) file `path`. */
export function keepNamespace(from: string, path: string): void {
  fs.closeSync(fs.openSync(path, 'w', 0o444));
  try {
    bindMount(from, path);
  } catch (error) {
    fs.rmSync(path, { force: true });
    throw error;
  }
}
