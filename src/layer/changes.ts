/** What a container changed of its image, as `docker diff` tells it. For worker threads: it blocks. */
import fs from 'node:fs';
import { type ByteString, getAttributeAt, listAttributesAt, openBeneath, pathAt } from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';
import { textOf } from './confined.ts';
import { isOpaque, isWhiteout } from './diff.ts';

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = fs.constants;

/** As the API numbers them. */
export const changeKind = { modified: 0, added: 1, deleted: 2 } as const;

export interface Change {
  readonly path: string;
  readonly kind: 0 | 1 | 2;
}

/**
 * Compares the upper directory of an overlay with the directories below it (topmost first). A directory counts as changed
 * when its owner or mode is, or when anything in it is; a file also when its time, size or capabilities are.
 */
export function changes(upper: string, below: readonly string[]): readonly Change[] {
  const own = fs.openSync(upper, O_RDONLY | O_DIRECTORY);
  const image = new Image(below);
  const found: Change[] = [];
  try {
    compare({ own, image, found }, '', { inImage: true, hidden: false });
    return found;
  } finally {
    image.close();
    fs.closeSync(own);
  }
}

interface Comparison {
  readonly own: number;
  readonly image: Image;
  readonly found: Change[];
}

/** How a directory stands: whether the image has one there, and whether that one is hidden, so that its content counts as deleted. */
interface Standing {
  readonly inImage: boolean;
  readonly hidden: boolean;
}

/** Adds the changes inside of a directory of the upper tree. */
function compare({ own, image, found }: Comparison, path: ByteString, { inImage, hidden }: Standing): void {
  const dir = openBeneath(own, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  try {
    const present = new Set<ByteString>();
    for (const name of fs.readdirSync(`/proc/self/fd/${dir}`, { encoding: 'latin1' }).sort()) {
      const stats = fs.lstatSync(pathAt(dir, name), { bigint: true, throwIfNoEntry: false });
      if (stats === undefined) continue; // gone since it was listed
      const here = { dir, name, stats };
      const place = `${path}/${name}`;
      const before = inImage ? image.look(place) : null;
      if (isWhiteout(here)) {
        if (before !== null) found.push({ path: textOf(place), kind: changeKind.deleted });
        present.add(name);
        continue;
      }
      present.add(name);
      const at = found.length;
      if (before === null) found.push({ path: textOf(place), kind: changeKind.added });
      else if (differs(here, before)) found.push({ path: textOf(place), kind: changeKind.modified });
      const said = found.length;
      if (!stats.isDirectory()) continue;
      const covers = before?.stats.isDirectory() === true;
      compare({ own, image, found }, place, { inImage: covers, hidden: covers && (hidden || isOpaque(here)) });
      if (said === at && found.length > at) found.splice(at, 0, { path: textOf(place), kind: changeKind.modified });
    }
    if (!hidden) return;
    for (const name of image.names(path)) {
      if (!present.has(name)) found.push({ path: textOf(`${path}/${name}`), kind: changeKind.deleted });
    }
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error; // the container goes on while we look
  } finally {
    fs.closeSync(dir);
  }
}

interface Seen {
  readonly dir: number;
  readonly name: ByteString;
  readonly stats: fs.BigIntStats;
}

interface Before {
  readonly stats: fs.BigIntStats;
  readonly capability: string;
}

function differs(now: Seen, before: Before): boolean {
  const [a, b] = [now.stats, before.stats];
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || a.rdev !== b.rdev) return true;
  if (!a.isDirectory() && (a.mtimeNs !== b.mtimeNs || a.size !== b.size)) return true;
  return capabilityOf(now.dir, now.name) !== before.capability;
}

const capability = 'security.capability';

function capabilityOf(dir: number, name: ByteString): string {
  if (!listAttributesAt(dir, name).includes(capability)) return '';
  return getAttributeAt(dir, name, capability)?.toString('latin1') ?? '';
}

/** The layers below as the overlay shows them without the upper directory. */
class Image {
  readonly #layers: readonly number[];

  constructor(trees: readonly string[]) {
    this.#layers = trees.map((tree) => fs.openSync(tree, O_RDONLY | O_DIRECTORY));
  }

  close(): void {
    for (const layer of this.#layers) fs.closeSync(layer);
  }

  /** What the image has at an absolute path whose directory it has; null for nothing. */
  look(path: ByteString): Before | null {
    for (const layer of this.#through(path)) {
      const slash = path.lastIndexOf('/');
      const found = inDirectory(layer, path.slice(0, slash), (dir) => {
        const name = path.slice(slash + 1);
        const stats = fs.lstatSync(pathAt(dir, name), { bigint: true, throwIfNoEntry: false });
        return stats === undefined ? undefined : { stats, capability: capabilityOf(dir, name) };
      });
      if (found !== undefined) return isWhiteout(found) ? null : found;
    }
    return null;
  }

  /** The names in a directory the image has. */
  names(path: ByteString): readonly ByteString[] {
    const shown = new Map<ByteString, boolean>();
    for (const layer of [...this.#through(`${path}/.`)]) {
      inDirectory(layer, path, (dir) => {
        for (const name of fs.readdirSync(`/proc/self/fd/${dir}`, { encoding: 'latin1' })) {
          if (shown.has(name)) continue;
          shown.set(name, !isWhiteout({ stats: fs.lstatSync(pathAt(dir, name), { bigint: true }) }));
        }
        return true;
      });
    }
    return [...shown]
      .filter(([, is]) => is)
      .map(([name]) => name)
      .sort();
  }

  /** Layers from the top down to the one that hides the directory of `path` from those further below. */
  *#through(path: ByteString): Generator<number> {
    const parts = path.split('/').slice(1, -1);
    for (const layer of this.#layers) {
      yield layer;
      if (hides(layer, parts)) return;
    }
  }
}

/** True when one of the directories on the way is replaced in this layer: by something else, or by an opaque one. */
function hides(layer: number, parts: readonly ByteString[]): boolean {
  let above = '';
  for (const name of parts) {
    const answer = inDirectory(layer, above, (dir) => {
      const stats = fs.lstatSync(pathAt(dir, name), { bigint: true, throwIfNoEntry: false });
      if (stats === undefined) return 'absent';
      return stats.isDirectory() && !isOpaque({ dir, name, stats }) ? 'passes' : 'hides';
    });
    if (answer === 'hides') return true;
    if (answer !== 'passes') return false;
    above = `${above}/${name}`;
  }
  return false;
}

/** Undefined when the layer has no such directory. */
function inDirectory<T>(layer: number, path: ByteString, work: (dir: number) => T): T | undefined {
  let dir: number;
  try {
    dir = openBeneath(layer, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return undefined;
    throw error;
  }
  try {
    return work(dir);
  } finally {
    fs.closeSync(dir);
  }
}
