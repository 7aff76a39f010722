/** Files of local volumes: `<data-root>/volume/<name>/_data`. */
import { realpathSync } from 'node:fs';
import fs from 'node:fs/promises';
import path from 'node:path';
import { newId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';
import { isMountedAt, type Patience, unmountLocal } from './local-mount.ts';

/** Begins no volume's name. */
const trashPrefix = '.removed-';

export class LocalFiles {
  /** Without links, as the kernel names what is mounted below. */
  readonly #dir: string;
  readonly #patience: Patience;
  readonly #log: Log;

  constructor(dir: string, patience: Patience, log: Log) {
    this.#dir = path.join(realpathSync(path.dirname(dir)), path.basename(dir));
    this.#patience = patience;
    this.#log = log;
  }

  pathOf(name: string): string {
    return path.join(this.#dir, name, '_data');
  }

  /** What is there, volumes or leftovers. */
  async names(): Promise<readonly string[]> {
    await fs.mkdir(this.#dir, { recursive: true, mode: 0o711 });
    return fs.readdir(this.#dir);
  }

  /** An empty volume. What a crash left at its place belongs to nobody. */
  async make(name: string): Promise<void> {
    await this.remove(name);
    await fs.mkdir(this.pathOf(name), { recursive: true, mode: 0o755 });
  }

  /** Moved aside at once, deleted behind. What is still mounted there is never deleted into. */
  async remove(name: string): Promise<void> {
    const volume = this.pathOf(name);
    if (isMountedAt(volume)) await unmountLocal(volume, this.#patience);
    const trash = name.startsWith(trashPrefix) ? name : `${trashPrefix}${newId<string>()}`;
    try {
      if (trash !== name) await fs.rename(path.join(this.#dir, name), path.join(this.#dir, trash));
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return;
      throw error;
    }
    void fs
      .rm(path.join(this.#dir, trash), { recursive: true, force: true })
      .catch((error: unknown) => this.#log.error({ volume: name, error }, 'deleting the files of a volume failed'));
  }
}

/** Sizes of all files, hard links once. What vanishes meanwhile counts nothing. */
export async function bytesBelow(directory: string): Promise<number> {
  const seen = new Set<number>();
  const waiting = [directory];
  let bytes = 0;
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    for (const entry of await fs.readdir(at, { withFileTypes: true }).catch(() => [])) {
      const file = path.join(at, entry.name);
      if (entry.isDirectory()) waiting.push(file);
      else if (entry.isFile()) {
        const stat = await fs.lstat(file).catch(() => null);
        if (stat === null || seen.has(stat.ino)) continue;
        if (stat.nlink > 1) seen.add(stat.ino);
        bytes += stat.size;
      }
    }
  }
  return bytes;
}
