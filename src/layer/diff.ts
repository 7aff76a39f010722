/** The changes a container made, as a layer tar: overlay's marks in the upper directory become whiteout files. */
import { type ByteString, getAttributeAt } from '../platform/files.ts';
import { entryOf, noAttributes, Packer } from './pack.ts';
import type { Part } from './tar/assemble.ts';
import { encodeHeader, endOfArchive, type TarEntry } from './tar/format.ts';
import { opaqueAttribute } from './unpack.ts';
import { type Found, walk } from './walk.ts';

/** Parts of the tar of everything in the upper directory `upper`, ended properly. */
export function* diff(upper: string): Generator<Part, void> {
  const packer = new Packer();
  for (const found of walk(upper)) {
    if (isWhiteout(found)) {
      yield encodeHeader(marker(found, `${parentOf(found)}.wh.${found.name}`, 0o600));
      continue;
    }
    yield* packer.entry({ ...found, as: found.path });
    if (isOpaque(found))
      yield encodeHeader(marker(found, `${found.path}/.wh..wh..opq`, Number(found.stats.mode) & 0o777));
  }
  yield endOfArchive();
}

/** Overlay's mark for something of the layers below that is gone. */
export const isWhiteout = ({ stats }: Pick<Found, 'stats'>): boolean => stats.isCharacterDevice() && stats.rdev === 0n;

/** A directory that hides all that the layers below have in it. */
export const isOpaque = ({ dir, name, stats }: Pick<Found, 'dir' | 'name' | 'stats'>): boolean =>
  stats.isDirectory() && getAttributeAt(dir, name, opaqueAttribute)?.toString('latin1') === 'y';

const parentOf = (found: Found): ByteString => found.path.slice(0, found.path.length - found.name.length);

/** An empty file that says something about the layers below. */
const marker = (found: Found, as: ByteString, mode: number): TarEntry => ({
  ...entryOf({ ...found, as }, 'file'),
  mode,
  size: 0,
  attributes: noAttributes,
});
