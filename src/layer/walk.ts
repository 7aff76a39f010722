/** Walks over a tree that others may change meanwhile, without following links. For worker threads: it blocks. */
import fs from 'node:fs';
import { type ByteString, openBeneath, pathAt } from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = fs.constants;

export interface Found {
  /** Open directory that holds it; valid until the next one is asked for. */
  readonly dir: number;
  readonly name: ByteString;
  /** Path below the top. */
  readonly path: ByteString;
  readonly stats: fs.BigIntStats;
}

/** What its directory lists as a regular file, not looked at yet. */
export type Listed = Omit<Found, 'stats'> & { readonly stats: null };

/** As `walkListed`, with a look at everything. */
export function* walk(top: string | number, enter?: (dir: number) => boolean): Generator<Found, void> {
  for (const found of walkListed(top, enter)) {
    if (found.stats !== null) {
      yield found;
      continue;
    }
    const stats = unlessGone(() => fs.lstatSync(pathAt(found.dir, found.name), { bigint: true }));
    if (stats !== undefined) yield { ...found, stats };
  }
}

/**
 * Everything below `top` (a path, or an open directory that stays the caller's), directories before what is in them, each directory's names in byte order. What vanishes on the
 * way is left out, as are directories nested deeper than a path can name, and what is in directories that `enter` refuses.
 */
export function* walkListed(
  top: string | number,
  enter: (dir: number) => boolean = () => true,
): Generator<Found | Listed, void> {
  const root = typeof top === 'number' ? top : fs.openSync(top, O_RDONLY | O_DIRECTORY);
  try {
    const waiting: ByteString[] = [''];
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
      const dir = unlessGone(() => openBeneath(root, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
      if (dir === undefined) continue;
      const below: ByteString[] = [];
      try {
        if (!enter(dir)) continue;
        const listing = fs.readdirSync(`/proc/self/fd/${dir}`, { encoding: 'latin1', withFileTypes: true });
        for (const entry of listing.sort((a, b) => (a.name < b.name ? -1 : 1))) {
          const { name } = entry;
          if (entry.isFile()) {
            yield { dir, name, path: path === '' ? name : `${path}/${name}`, stats: null };
            continue;
          }
          const stats = unlessGone(() => fs.lstatSync(pathAt(dir, name), { bigint: true }));
          if (stats === undefined) continue;
          const found = { dir, name, path: path === '' ? name : `${path}/${name}`, stats };
          yield found;
          if (stats.isDirectory()) below.push(found.path);
        }
      } finally {
        fs.closeSync(dir);
      }
      waiting.push(...below.reverse());
    }
  } finally {
    if (root !== top) fs.closeSync(root);
  }
}

function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG')) return undefined;
    throw error;
  }
}

/** Bytes of all files below `top`; a file with several names counts once. */
export function measure(top: string): number {
  const seen = new Set<bigint>();
  let bytes = 0n;
  for (const { stats } of walk(top)) {
    if (stats.isDirectory()) continue;
    if (stats.nlink > 1n) {
      if (seen.has(stats.ino)) continue;
      seen.add(stats.ino);
    }
    bytes += stats.size;
  }
  return Number(bytes);
}
