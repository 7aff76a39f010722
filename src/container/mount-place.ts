/** Where a mount really lands in a container's root, whose links may point anywhere. */
import fs from 'node:fs';
import path from 'node:path';
import { invalid } from '../lib/errors.ts';
import { isErrno } from '../platform/libc.ts';

/** As many as the kernel follows. */
const linksMax = 40;

/**
 * The path without links, each resolved as if `root` were `/`, also where the target does not exist yet: runtimes differ in
 * what they make of those. Ends at a place of `covered`, other mounts, where the root does not say what will be there. The
 * root must not change meanwhile, so this is for containers that do not run.
 */
export function placeIn(root: string, destination: string, covered: ReadonlySet<string>): string {
  const waiting = destination.split('/');
  let place = '/';
  for (let links = 0; waiting.length > 0; ) {
    const name = waiting.shift() as string;
    if (name === '' || name === '.') continue;
    if (name === '..') {
      place = path.posix.dirname(place);
      continue;
    }
    const next = path.posix.join(place, name);
    const target = covered.has(next) ? null : linkAt(path.join(root, next));
    if (target === null) {
      place = next;
      if (covered.has(place)) return path.posix.join(place, ...waiting);
      continue;
    }
    if (++links > linksMax) throw invalid(`${destination}: too many levels of symbolic links`);
    if (target.startsWith('/')) place = '/';
    waiting.unshift(...target.split('/'));
  }
  return place;
}

function linkAt(file: string): string | null {
  try {
    return fs.readlinkSync(file);
  } catch (error) {
    if (isErrno(error, 'EINVAL', 'ENOENT', 'ENOTDIR')) return null;
    throw error;
  }
}
