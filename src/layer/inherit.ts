/** Directories a layer only passes through look as they do in the layers below. For worker threads. */
import { Buffer } from 'node:buffer';
import fs from 'node:fs';
import {
  type ByteString,
  type FileTime,
  getAttributeAt,
  openBeneath,
  openDirectoryAt,
  setTimes,
  syncFileSystem,
} from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';
import { opaqueAttribute } from './unpack.ts';

const { O_RDONLY, O_DIRECTORY } = fs.constants;

/**
 * An archive may put `usr/bin/x` into a layer without saying what `usr` is. Overlay shows the topmost `usr`, so it gets
 * owner, mode and time of the one it covers. `below` are the trees of the layers below, topmost first.
 */
export function inherit(tree: string, below: readonly string[], paths: readonly ByteString[]): undefined {
  const root = fs.openSync(tree, O_RDONLY | O_DIRECTORY);
  try {
    for (const path of paths) {
      const covered = findCovered(below, path);
      if (covered === undefined) continue;
      const fd = openBeneath(root, path, O_RDONLY | O_DIRECTORY);
      try {
        fs.fchownSync(fd, Number(covered.uid), Number(covered.gid));
        fs.fchmodSync(fd, Number(covered.mode) & 0o7777);
        setTimes(fd, timeOf(covered.atimeNs), timeOf(covered.mtimeNs));
      } finally {
        fs.closeSync(fd);
      }
    }
    if (paths.length > 0) syncFileSystem(root);
  } finally {
    fs.closeSync(root);
  }
  return undefined;
}

const timeOf = (nanoseconds: bigint): FileTime => ({
  seconds: Number(nanoseconds / 1_000_000_000n),
  nanoseconds: Number(nanoseconds % 1_000_000_000n),
});

function findCovered(below: readonly string[], path: ByteString): fs.BigIntStats | undefined {
  for (const tree of below) {
    const found = look(tree, path);
    if (found === 'hidden') return undefined;
    if (found !== 'absent') return found;
  }
  return undefined;
}

/** What one tree says about a path: a directory, nothing, or that nothing further below can be seen. */
function look(tree: string, path: ByteString): fs.BigIntStats | 'absent' | 'hidden' {
  let fd = fs.openSync(Buffer.from(tree), O_RDONLY | O_DIRECTORY);
  let opaque = false;
  try {
    for (const name of path.split('/')) {
      const next = openDirectoryAt(fd, name);
      fs.closeSync(fd);
      fd = next;
      opaque ||= getAttributeAt(fd, '.', opaqueAttribute) !== undefined;
    }
    return fs.fstatSync(fd, { bigint: true });
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return opaque ? 'hidden' : 'absent';
    if (isErrno(error, 'ENOTDIR', 'ELOOP')) return 'hidden';
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}
