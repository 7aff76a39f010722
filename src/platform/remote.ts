/** Paths of the host that may lie on a file server: looked at by a child, since the server may be dead. */
import fs from 'node:fs/promises';
import { runChild } from './child.ts';
import { isErrno } from './libc.ts';
import { isRemote, mountOf, readMounts } from './mountinfo.ts';

const deadlineMs = 10_000;

const mayHang = (path: string): boolean => isRemote(mountOf(readMounts(), path));

/** Whether something is there. A server that does not answer is an error. */
export async function pathExists(path: string): Promise<boolean> {
  if (mayHang(path)) return (await runChild(['test', '-e', path], { deadlineMs })).code === 0;
  try {
    await fs.stat(path);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return false;
    throw error;
  }
}

/** Makes a directory with its parents, unless something is there, be it a file or a socket. */
export async function ensureDirectory(path: string): Promise<void> {
  if (!mayHang(path)) {
    await fs.mkdir(path, { recursive: true }).catch((error: unknown) => {
      if (!isErrno(error, 'EEXIST', 'ENOTDIR')) throw error;
    });
    return;
  }
  const { code, output } = await runChild(['sh', '-c', 'test -e "$1" || mkdir -p -- "$1"', 'sh', path], { deadlineMs });
  if (code !== 0) throw new Error(output);
}

/** The path without links, for looking it up among the mounts; as given where it cannot be resolved. */
export async function withoutLinks(path: string): Promise<string> {
  if (mayHang(path)) return path;
  return fs.realpath(path).catch(() => path);
}
