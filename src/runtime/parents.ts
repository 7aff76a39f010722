/**
 * Parents of containers' cgroups. Those that had to be made go again with the last container in them; those that were there
 * before, with limits of the administrator's perhaps, stay. What was made is noted in a directory of marks, which a reboot
 * empties as it does the hierarchies.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { isErrno } from '../platform/libc.ts';

/** Parent of containers that name none; kept, since the next one comes soon. */
export const defaultCgroupParent = '/slipway';

export class CgroupParents {
  readonly #roots: readonly string[];
  readonly #marks: string;
  /** Launches under way below a parent: it is not to be taken away under their feet. */
  readonly #launching = new Map<string, number>();

  /** `roots`: where the hierarchies are mounted. `marks`: a directory of ours. */
  constructor(roots: readonly string[], marks: string) {
    this.#roots = roots;
    this.#marks = marks;
    fs.mkdirSync(marks, { recursive: true, mode: 0o700 });
  }

  /** To be called before a container's cgroup is made, and disposed of when it is there (or will never be). */
  launching(cgroupPath: string): Disposable {
    const parents = parentsOf(cgroupPath);
    for (const parent of parents) {
      this.#launching.set(parent, (this.#launching.get(parent) ?? 0) + 1);
      if (!this.#roots.some((root) => fs.existsSync(root + parent))) fs.writeFileSync(this.#mark(parent), '');
    }
    return {
      [Symbol.dispose]: () => {
        for (const parent of parents) {
          const left = (this.#launching.get(parent) ?? 1) - 1;
          if (left === 0) this.#launching.delete(parent);
          else this.#launching.set(parent, left);
        }
      },
    };
  }

  /** Removes the empty ones that were made for containers, when a container's cgroup has gone. */
  release(cgroupPath: string): void {
    for (const parent of parentsOf(cgroupPath)) {
      if (this.#launching.has(parent) || !fs.existsSync(this.#mark(parent))) return;
      if (!this.#roots.map((root) => removed(root + parent)).every(Boolean)) return;
      fs.rmSync(this.#mark(parent), { force: true });
    }
  }

  #mark(parent: string): string {
    // A path may be longer than a name may be.
    return path.join(this.#marks, createHash('sha256').update(parent).digest('hex'));
  }
}

const endsHere = (parent: string) => parent === '/' || parent === defaultCgroupParent;

/** The nearest first: `/a/b` and `/a` of `/a/b/id`. */
function parentsOf(cgroupPath: string): readonly string[] {
  const parents: string[] = [];
  for (let parent = path.posix.dirname(cgroupPath); !endsHere(parent); parent = path.posix.dirname(parent)) {
    parents.push(parent);
  }
  return parents;
}

function removed(directory: string): boolean {
  try {
    fs.rmdirSync(directory);
    return true;
  } catch (error) {
    // With others inside it is theirs too.
    if (isErrno(error, 'EBUSY', 'ENOTEMPTY')) return false;
    if (isErrno(error, 'ENOENT')) return true;
    throw error;
  }
}
