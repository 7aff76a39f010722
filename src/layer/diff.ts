/** The changes a container made, as a layer tar: overlay's marks in the upper directory become whiteout files. */
import { Buffer } from 'node:buffer';
import fs from 'node:fs';
import { type ByteString, getAttributeAt, listAttributesAt, openAt, pathAt, splitDevice } from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';
import type { Part } from './tar/assemble.ts';
import { encodeHeader, endOfArchive, paddingOf, type TarEntry, type TarType } from './tar/format.ts';
import { opaqueAttribute } from './unpack.ts';
import { type Found, walk } from './walk.ts';

/** Attributes that belong to a file wherever it is. */
const keptAttribute = /^(security\.capability$|user\.(?!overlay\.))/;
const noAttributes: ReadonlyMap<ByteString, Buffer> = new Map();

/** Parts of the tar of everything in the upper directory `upper`, ended properly. */
export function* diff(upper: string): Generator<Part, void> {
  const firstNames = new Map<bigint, ByteString>();
  for (const found of walk(upper)) {
    const type = typeOf(found.stats);
    if (type === undefined) continue; // a socket: nothing an image could hold
    if (type === 'char' && found.stats.rdev === 0n) {
      yield encodeHeader(marker(found, `${parentOf(found)}.wh.${found.name}`, 0o600));
      continue;
    }
    const firstName = found.stats.nlink > 1n && type !== 'directory' ? firstNames.get(found.stats.ino) : undefined;
    if (firstName !== undefined) {
      yield encodeHeader({ ...entryOf(found, 'link'), linkName: firstName, size: 0 });
      continue;
    }
    if (found.stats.nlink > 1n && type !== 'directory') firstNames.set(found.stats.ino, found.path);
    if (type === 'file') yield* file(found);
    else yield* special(found, type);
    if (type === 'directory' && getAttributeAt(found.dir, found.name, opaqueAttribute)?.toString('latin1') === 'y') {
      yield encodeHeader(marker(found, `${found.path}/.wh..wh..opq`, Number(found.stats.mode) & 0o777));
    }
  }
  yield endOfArchive();
}

function* file(found: Found): Generator<Part, void> {
  let fd: number;
  try {
    fd = openAt(found.dir, found.name, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ELOOP')) return; // gone since it was listed
    throw error;
  }
  const entry = entryOf(found, 'file');
  yield encodeHeader(entry);
  yield { fd, offset: 0, length: entry.size, name: found.path, mayShrink: true };
  yield Buffer.alloc(paddingOf(entry.size));
}

function* special(found: Found, type: TarType): Generator<Part, void> {
  try {
    yield encodeHeader(entryOf(found, type));
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EINVAL')) throw error; // a link that is gone, or no link any more
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

const parentOf = (found: Found): ByteString => found.path.slice(0, found.path.length - found.name.length);

function entryOf(found: Found, type: TarType): TarEntry {
  const { stats } = found;
  const device = type === 'char' || type === 'block' ? splitDevice(stats.rdev) : { major: 0, minor: 0 };
  const seconds = stats.mtimeNs / 1_000_000_000n - (stats.mtimeNs % 1_000_000_000n < 0n ? 1n : 0n);
  return {
    type,
    name: type === 'directory' ? `${found.path}/` : found.path,
    linkName: type === 'symlink' ? fs.readlinkSync(pathAt(found.dir, found.name), 'latin1') : '',
    mode: Number(stats.mode) & 0o7777,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    size: type === 'file' ? Number(stats.size) : 0,
    modified: { seconds: Number(seconds), nanoseconds: Number(stats.mtimeNs - seconds * 1_000_000_000n) },
    ...device,
    attributes: type === 'link' ? noAttributes : attributesOf(found),
  };
}

/** An empty file that says something about the layers below. */
const marker = (found: Found, name: ByteString, mode: number): TarEntry => ({
  ...entryOf(found, 'file'),
  name,
  mode,
  size: 0,
  attributes: noAttributes,
});

function attributesOf(found: Found): ReadonlyMap<ByteString, Buffer> {
  const kept = listAttributesAt(found.dir, found.name).filter((name) => keptAttribute.test(name));
  if (kept.length === 0) return noAttributes;
  const values = new Map<ByteString, Buffer>();
  for (const name of kept) {
    const value = getAttributeAt(found.dir, found.name, name);
    if (value !== undefined) values.set(name, value);
  }
  return values;
}
