/** Paths of a container, resolved inside its root whatever links it holds. */
import fs from 'node:fs';
import { type ByteString, chownAt, mkdirAt, openBeneath } from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';

const O_PATH = 0x200000;

const bytesOf = (text: string): ByteString => Buffer.from(text, 'utf8').toString('latin1');

function withRoot<T>(root: string, work: (directory: number) => T): T {
  const directory = fs.openSync(root, fs.constants.O_DIRECTORY | O_PATH);
  try {
    return work(directory);
  } finally {
    fs.closeSync(directory);
  }
}

/** Opens `path` for reading as the container would see it; never waits (a FIFO). The descriptor belongs to the caller. */
export function openForReading(root: string, path: string): number {
  const flags = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK;
  return withRoot(root, (directory) => openBeneath(directory, bytesOf(path), flags));
}

/**
 * Makes the directory `path` inside `root` with its parents (mode 0755) and gives the new ones to `uid` and `gid`.
 * What exists stays as it is. Throws ENOTDIR when something else is in the way.
 */
export function makeDirectories(root: string, path: string, uid: number, gid: number): void {
  const enter = (top: number, below: string): number =>
    openBeneath(top, bytesOf(below), fs.constants.O_DIRECTORY | O_PATH);
  withRoot(root, (top) => {
    let walked = '/';
    for (const name of path.split('/').filter((part) => part !== '' && part !== '.')) {
      const parent = enter(top, walked);
      try {
        if (name !== '..') {
          mkdirAt(parent, bytesOf(name), 0o755);
          chownAt(parent, bytesOf(name), uid, gid);
        }
      } catch (error) {
        if (!isErrno(error, 'EEXIST')) throw error;
      } finally {
        fs.closeSync(parent);
      }
      walked = `${walked}${name}/`;
    }
    fs.closeSync(enter(top, path));
  });
}
