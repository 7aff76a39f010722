/** Limits on what containers may write into their root file systems, where the file system below can hold them to it. */
import fs from 'node:fs';
import path from 'node:path';
import { invalid } from '../lib/errors.ts';
import { isErrno } from '../platform/libc.ts';
import { hasProjectQuota, projectOf, setProject, setProjectLimit } from '../platform/quota.ts';

/** Projects of ours start here: low numbers are those that administrators give by hand. */
const firstProject = 1 << 20;

export class WritableQuota {
  readonly #directory: string;
  #able: boolean | null = null;
  #last = 0;

  /** `directory` holds the writable trees. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Throws dockerd's refusal where there is no such limit. */
  mustWork(): void {
    this.#able ??= hasProjectQuota(this.#directory);
    if (!this.#able) throw invalid("--storage-opt is supported only for overlay over xfs with 'pquota' mount option");
  }

  /** Limits a tree that is still empty. */
  limitNew(tree: string, bytes: number): void {
    this.mustWork();
    const project = this.#newProject();
    setProject(tree, project);
    setProjectLimit(tree, project, bytes);
  }

  /** Gives a tree that was limited from its beginning another limit. */
  limit(tree: string, bytes: number): void {
    this.mustWork();
    const project = projectOf(tree);
    // What is there already belongs to no project, and would not count.
    if (project < firstProject)
      throw invalid('DiskQuota can be changed for containers that were created with one only');
    setProjectLimit(tree, project, bytes);
  }

  /** To be called for a tree that is about to be deleted. */
  release(tree: string): void {
    if (this.#able !== true) return;
    try {
      const project = projectOf(tree);
      if (project >= firstProject) setProjectLimit(tree, project, 0);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
    }
  }

  /** A number that no tree has; the highest in use is looked up once. */
  #newProject(): number {
    if (this.#last === 0) {
      const trees = fs.readdirSync(this.#directory).map((name) => projectOf(path.join(this.#directory, name)));
      this.#last = Math.max(firstProject, ...trees);
    }
    this.#last += 1;
    return this.#last;
  }
}
