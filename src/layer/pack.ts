/** Files as tar entries: what archives of containers and layers made by them have in common. For worker threads: it blocks. */
import { Buffer } from 'node:buffer';
import fs from 'node:fs';
import { type IdMap, idInside } from '../lib/idmap.ts';
import {
  type ByteString,
  getAttributeAt,
  listAttributes,
  listAttributesAt,
  openDirectoryAt,
  pathAt,
  splitDevice,
} from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';
import {
  absolutePath,
  atPlace,
  baseOf,
  bytesOf,
  evaluate,
  isPseudo,
  openFile,
  type PathStat,
  statPlace,
  timeOf,
} from './confined.ts';
import type { Part } from './tar/assemble.ts';
import { blockSize, encodeHeader, endOfArchive, paddingOf, type TarEntry, type TarType } from './tar/format.ts';
import { type Found, type Listed, walkListed } from './walk.ts';

const O_PATH = 0x200000;

/** Attributes that belong to a file wherever it is. */
const keptAttribute = /^(security\.capability$|user\.(?!overlay\.))/;
const zeros = Buffer.alloc(blockSize);
export const noAttributes: ReadonlyMap<ByteString, Buffer> = new Map();

/** Something found, and the name it gets in the archive. */
export interface Named extends Omit<Found, 'path'> {
  readonly as: ByteString;
}
type NamedListed = Omit<Listed, 'path'> & { readonly as: ByteString };

/** Turns files into entries; a file met again under another name becomes a hard link to the first. */
export class Packer {
  readonly #ids: IdMap | null;
  readonly #firstNames = new Map<string, ByteString>();

  /** `ids`: those of the container, when its tree shows others. */
  constructor(ids: IdMap | null = null) {
    this.#ids = ids;
  }

  /** Nothing for a socket, and for what has gone since it was found. */
  *entry(found: Named | NamedListed): Generator<Part, void> {
    if (found.stats === null || found.stats.isFile()) {
      yield* this.#file(found);
      return;
    }
    const type = typeOf(found.stats);
    if (type === undefined) return; // a socket: nothing an archive could hold
    const firstName = this.#firstName(found, type);
    if (firstName !== undefined) {
      yield encodeHeader({ ...this.#own(entryOf(found, 'link')), linkName: firstName });
    } else {
      try {
        yield encodeHeader(this.#own(entryOf(found, type)));
      } catch (error) {
        if (!isErrno(error, 'ENOENT', 'EINVAL')) throw error; // a link that is gone, or no link any more
      }
    }
  }

  *#file({ dir, name, as }: Named | NamedListed): Generator<Part, void> {
    let opened: ReturnType<typeof openFile>;
    try {
      opened = openFile(dir, name);
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ELOOP', 'ENXIO')) return; // gone since it was listed
      throw error;
    }
    if (opened === null) return; // no file any more
    const { fd, stats } = opened;
    const found = { dir, name, as, stats };
    let ours = true; // the receiver may leave at any yield
    try {
      const firstName = this.#firstName(found, 'file');
      if (firstName !== undefined) {
        yield encodeHeader({ ...this.#own(entryOf(found, 'link')), linkName: firstName });
        return;
      }
      const names = listAttributes(fd);
      const attributes = names.length === 0 ? noAttributes : attributesOf(found, names);
      const entry = this.#own({ ...entryOf(found, 'file'), attributes });
      yield encodeHeader(entry);
      ours = false;
      yield { fd, offset: 0, length: entry.size, name: as, mayShrink: true };
      const padding = paddingOf(entry.size);
      if (padding > 0) yield zeros.subarray(0, padding);
    } finally {
      if (ours) fs.closeSync(fd);
    }
  }

  #own(entry: TarEntry): TarEntry {
    const ids = this.#ids;
    if (ids === null) return entry;
    return { ...entry, uid: idInside(ids.users, entry.uid), gid: idInside(ids.groups, entry.gid) };
  }

  #firstName({ stats, as }: Named, type: TarType): ByteString | undefined {
    if (stats.nlink <= 1n || type === 'directory') return undefined;
    const inode = `${stats.dev}:${stats.ino}`;
    const known = this.#firstNames.get(inode);
    if (known === undefined) this.#firstNames.set(inode, as);
    return known;
  }
}

function typeOf(stats: fs.BigIntStats): TarType | undefined {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  if (stats.isSymbolicLink()) return 'symlink';
  if (stats.isCharacterDevice()) return 'char';
  if (stats.isBlockDevice()) return 'block';
  return stats.isFIFO() ? 'fifo' : undefined;
}

export function entryOf(found: Named, type: TarType): TarEntry {
  const { stats } = found;
  const device = type === 'char' || type === 'block' ? splitDevice(stats.rdev) : { major: 0, minor: 0 };
  return {
    type,
    name: type === 'directory' ? `${found.as}/` : found.as,
    linkName: type === 'symlink' ? fs.readlinkSync(pathAt(found.dir, found.name), 'latin1') : '',
    mode: Number(stats.mode) & 0o7777,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    size: type === 'file' ? Number(stats.size) : 0,
    modified: timeOf(stats.mtimeNs),
    ...device,
    // Only files and directories can have those that are kept.
    attributes: type === 'directory' ? attributesOf(found, listAttributesAt(found.dir, found.name)) : noAttributes,
  };
}

function attributesOf(found: Named, names: readonly ByteString[]): ReadonlyMap<ByteString, Buffer> {
  const kept = names.filter((name) => keptAttribute.test(name));
  if (kept.length === 0) return noAttributes;
  const values = new Map<ByteString, Buffer>();
  for (const name of kept) {
    const value = getAttributeAt(found.dir, found.name, name);
    if (value !== undefined) values.set(name, value);
  }
  return values;
}

/** An archive about to be made; `close` it, begun or not. */
export interface Packed {
  readonly stat: PathStat;
  readonly parts: Generator<Part, void>;
  close(): void;
}

/** The archive of what is at a path inside an open root, its top entry named like the path. */
export function packPath(root: number, asked: string, ids: IdMap | null): Packed {
  const absolute = absolutePath(bytesOf(asked));
  const base = baseOf(absolute);
  return packPlace(root, absolute, base, base === '/' ? '' : base, ids);
}

/** As old clients have it: every link followed, and of a directory what is in it. */
export function packResource(root: number, asked: string, ids: IdMap | null): Packed {
  const absolute = evaluate(root, absolutePath(bytesOf(asked)));
  return packPlace(root, absolute, baseOf(absolute), null, ids);
}

/** Everything below the directory at the path `tree` of the host, without other mounts. */
export function packTree(tree: string, ids: IdMap | null): Omit<Packed, 'stat'> {
  const fd = fs.openSync(tree, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  return { parts: packDirectory(fd, fs.fstatSync(fd, { bigint: true }), null, ids), close: () => fs.closeSync(fd) };
}

function packPlace(
  root: number,
  absolute: ByteString,
  fileName: ByteString,
  top: ByteString | null,
  ids: IdMap | null,
): Packed {
  return atPlace(root, absolute, (place) => {
    const stat = statPlace(root, absolute, place);
    const stats = fs.lstatSync(pathAt(place.dir, place.name), { bigint: true });
    const isDirectory = stats.isDirectory();
    const handle = isDirectory
      ? openDirectoryAt(place.dir, place.name)
      : fs.openSync(`/proc/self/fd/${place.dir}`, O_PATH | fs.constants.O_DIRECTORY);
    const parts = isDirectory
      ? packDirectory(handle, stats, top, ids)
      : packOne({ dir: handle, name: place.name, as: fileName, stats }, ids);
    return { stat, parts, close: () => fs.closeSync(handle) };
  });
}

function* packOne(found: Named, ids: IdMap | null): Generator<Part, void> {
  yield* new Packer(ids).entry(found);
  yield endOfArchive();
}

/** The directory `fd` as `top` with everything in it; `top` null: only what is in it. */
function* packDirectory(
  fd: number,
  stats: fs.BigIntStats,
  top: ByteString | null,
  ids: IdMap | null,
): Generator<Part, void> {
  const packer = new Packer(ids);
  if (top !== null) yield* packer.entry({ dir: fd, name: '.', as: top, stats });
  for (const found of walkListed(fd, (dir) => !isPseudo(dir))) {
    yield* packer.entry({ ...found, as: top === null ? found.path : `${top}/${found.path}` });
  }
  yield endOfArchive();
}
