/**
 * Paths inside a container's root. The kernel resolves them below the root's descriptor (`openBeneath`), whatever the
 * container does to its links meanwhile. For worker threads: it blocks.
 */
import fs from 'node:fs';
import path from 'node:path';
import { forbidden, invalid, notFound } from '../lib/errors.ts';
import type { IdMap } from '../lib/idmap.ts';
import { type ByteString, type FileTime, mkdirAt, openAt, openBeneath, pathAt } from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';
import { type Bind, openPrivateTree, type PrivateTree } from '../platform/privatetree.ts';

const { O_CREAT, O_DIRECTORY, O_NONBLOCK, O_RDONLY, O_WRONLY } = fs.constants;
const O_PATH = 0x200000;
/** Links that may be followed on the way to one place, as dockerd counts. */
const linksMax = 255;

/** Where a container's files are. */
export type RootSource = {
  /** How ids there are those of the container; null: as they are. */
  readonly ids: IdMap | null;
} /** The root of a running process, as it sees it; the descriptor stays the asker's. */ & (
  | { readonly fd: number }
  /** A mounted tree, and what is to be seen inside of it. */
  | { readonly tree: string; readonly readonly: boolean; readonly binds: readonly Bind[] }
);

/** What lies at a path, itself, not what it links to. */
export interface PathStat {
  /** Last part of the path as asked for; `/` or `.` where that ends so. */
  readonly name: string;
  readonly size: number;
  /** `st_mode` */
  readonly mode: number;
  readonly modified: FileTime;
  /** Of a link: the path it leads to inside the root, also when nothing is there. Else empty. */
  readonly linkTarget: string;
}

export const bytesOf = (text: string): ByteString => Buffer.from(text, 'utf8').toString('latin1');
export const textOf = (bytes: ByteString): string => Buffer.from(bytes, 'latin1').toString('utf8');

export function openRoot(source: RootSource): PrivateTree {
  if ('fd' in source) return { root: source.fd, close: () => undefined };
  return openPrivateTree(source.tree, source.readonly, source.binds, mountPlace);
}

/** Opens the place of a mount, making what is missing; null when something is in the way that cannot hold it. */
function mountPlace(root: number, destination: string, isDirectory: boolean): number | null {
  const parts = bytesOf(destination).split('/').filter(Boolean);
  const last = parts.pop() ?? '.';
  const kind = isDirectory ? O_DIRECTORY : 0;
  try {
    return openBeneath(root, bytesOf(destination), O_PATH | kind);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) return null;
  }
  try {
    let above = '/';
    for (const part of parts) {
      makeOnce(root, above, (dir) => mkdirAt(dir, part, 0o755));
      above = `${above}${part}/`;
    }
    makeOnce(root, above, (dir) => {
      if (isDirectory) mkdirAt(dir, last, 0o755);
      else fs.closeSync(openAt(dir, last, O_WRONLY | O_CREAT, 0o755));
    });
    return openBeneath(root, bytesOf(destination), O_PATH | kind);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'EROFS')) return null;
    throw error;
  }
}

function makeOnce(root: number, above: ByteString, make: (dir: number) => void): void {
  const dir = openBeneath(root, above, O_PATH | O_DIRECTORY);
  try {
    make(dir);
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error;
  } finally {
    fs.closeSync(dir);
  }
}

/** An absolute path without `.` and `..`, which end as text does; a `/` or `/.` at the end stays, as it asks for a directory. */
export function absolutePath(asked: ByteString): ByteString {
  const cleaned = path.posix.normalize(`/${asked}`).replace(/(.)\/+$/, '$1');
  const ending = /(?:^|\/)(\.?\/*)$/.exec(asked)?.[1] ?? '';
  if (ending.startsWith('.')) return `${cleaned.replace(/\/$/, '')}/.`;
  return asked.endsWith('/') && cleaned !== '/' ? `${cleaned}/` : cleaned;
}

/** The last part of an absolute path: `/` for the root, `.` where it ends so. */
export const baseOf = (absolute: ByteString): ByteString => /([^/]+)\/*$/.exec(absolute)?.[1] ?? '/';

/** A name in an open directory; `.` for the directory itself. */
export interface Place {
  /** O_PATH */
  readonly dir: number;
  readonly name: ByteString;
}

/** Runs `work` on the place an absolute path names, the last link not followed unless a `/` or `/.` follows it. */
export function atPlace<T>(root: number, absolute: ByteString, work: (place: Place) => T): T {
  const slash = absolute.lastIndexOf('/');
  const last = absolute.slice(slash + 1);
  const above = absolute.slice(0, slash + 1);
  const dir = said(absolute, () => openBeneath(root, above, O_PATH | O_DIRECTORY));
  try {
    const name = last === '' ? '.' : last;
    // What a process is told by the kernel is no file, and reaches beyond the container.
    if (name !== '.' && isPseudo(dir)) throw missing();
    return said(absolute, () => work({ dir, name }));
  } finally {
    fs.closeSync(dir);
  }
}

/** Opens a regular file; null when the name holds anything else, also since it was looked at. */
export function openFile(
  dir: number,
  name: ByteString,
): { readonly fd: number; readonly stats: fs.BigIntStats } | null {
  const handle = openAt(dir, name, O_PATH);
  try {
    const stats = fs.fstatSync(handle, { bigint: true });
    if (!stats.isFile()) return null;
    return { fd: fs.openSync(`/proc/self/fd/${handle}`, O_RDONLY | O_NONBLOCK), stats };
  } finally {
    fs.closeSync(handle);
  }
}

export function statPath(root: number, asked: string): PathStat {
  const absolute = absolutePath(bytesOf(asked));
  return atPlace(root, absolute, (place) => statPlace(root, absolute, place));
}

export function statPlace(root: number, absolute: ByteString, { dir, name }: Place): PathStat {
  const stats = fs.lstatSync(pathAt(dir, name), { bigint: true });
  return {
    name: textOf(baseOf(absolute)),
    size: Number(stats.size),
    mode: Number(stats.mode),
    modified: timeOf(stats.mtimeNs),
    linkTarget: stats.isSymbolicLink() ? textOf(evaluate(root, absolute)) : '',
  };
}

/** Nanoseconds since the epoch in parts. */
export function timeOf(nanoseconds: bigint): FileTime {
  const seconds = nanoseconds / 1_000_000_000n - (nanoseconds % 1_000_000_000n < 0n ? 1n : 0n);
  return { seconds: Number(seconds), nanoseconds: Number(nanoseconds - seconds * 1_000_000_000n) };
}

/** The absolute path with every link in it followed; what does not exist keeps its name. Text only: open it beneath the root. */
export function evaluate(root: number, absolute: ByteString): ByteString {
  let done = '';
  let links = 0;
  const waiting = absolute.split('/').reverse();
  for (let part = waiting.pop(); part !== undefined; part = waiting.pop()) {
    if (part === '' || part === '.') continue;
    if (part === '..') {
      done = done.slice(0, Math.max(0, done.lastIndexOf('/')));
      continue;
    }
    const target = linkAt(root, done, part);
    if (target === null) {
      done = `${done}/${part}`;
      continue;
    }
    if (++links > linksMax) throw invalid(`too many links in ${textOf(absolute)}`);
    if (target.startsWith('/')) done = '';
    waiting.push(...target.split('/').reverse());
  }
  return done === '' ? '/' : done;
}

function linkAt(root: number, above: ByteString, name: ByteString): ByteString | null {
  let dir: number;
  try {
    dir = openBeneath(root, above, O_PATH | O_DIRECTORY);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG')) return null;
    throw error;
  }
  try {
    return fs.readlinkSync(pathAt(dir, name), 'latin1');
  } catch (error) {
    if (isErrno(error, 'EINVAL', 'ENOENT', 'ENOTDIR', 'ENAMETOOLONG')) return null;
    throw error;
  } finally {
    fs.closeSync(dir);
  }
}

/** File systems in which the kernel speaks: nothing there is a file of the container's. */
const pseudoTypes: ReadonlySet<number> = new Set([
  0x9fa0, // proc
  0x62656572, // sysfs
  0x27e0eb, // cgroup
  0x63677270, // cgroup2
  0x1cd1, // devpts
  0x19800202, // mqueue
  0x64626720, // debugfs
  0x74726163, // tracefs
  0x73636673, // securityfs
  0xcafe4a11, // bpf
  0x6165676c, // pstore
  0x62656570, // configfs
  0x65735543, // fusectl
  0x42494e4d, // binfmt_misc
]);

export const isPseudo = (fd: number): boolean => pseudoTypes.has(fs.statfsSync(`/proc/self/fd/${fd}`).type);

/** Whoever asked knows whose file it is and says so. */
const missing = () => notFound('no such file or directory');

/** Failures that the path itself explains, in words. */
function said<T>(absolute: ByteString, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (isErrno(error, 'ENOENT')) throw missing();
    if (isErrno(error, 'ENOTDIR')) throw invalid(`not a directory: ${textOf(absolute)}`);
    if (isErrno(error, 'ELOOP')) throw invalid(`too many links in ${textOf(absolute)}`);
    if (isErrno(error, 'ENAMETOOLONG')) throw invalid(`file name too long: ${textOf(absolute)}`);
    throw error;
  }
}

/** Where an archive is to be unpacked: the directory a path leads to, all links followed. */
export interface Target {
  /** O_PATH */
  readonly fd: number;
  /** Its absolute path. */
  readonly at: ByteString;
}

/** `volumes` are places of mounts, for the words of a refusal. Throws what `PUT archive` answers. */
export function openTarget(root: number, asked: string, volumes: readonly string[]): Target {
  const absolute = absolutePath(bytesOf(asked));
  const at = evaluate(root, absolute);
  let fd: number;
  try {
    fd = said(absolute, () => openBeneath(root, at, O_PATH | O_DIRECTORY));
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('not a directory')) {
      throw invalid('extraction point is not a directory');
    }
    throw error;
  }
  try {
    if (isPseudo(fd)) throw missing();
    fs.accessSync(`/proc/self/fd/${fd}`, fs.constants.W_OK);
    return { fd, at };
  } catch (error) {
    fs.closeSync(fd);
    if (isErrno(error, 'EROFS')) throw readOnly(at, volumes);
    throw error;
  }
}

export function readOnly(at: ByteString, volumes: readonly string[]): Error {
  const inVolume = volumes.map(bytesOf).some((volume) => at === volume || at.startsWith(`${volume}/`));
  return forbidden(inVolume ? 'mounted volume is marked read-only' : 'container rootfs is marked read-only');
}
