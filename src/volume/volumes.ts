/**
 * Local volumes: directories below `<data-root>/volume/<name>/_data` that outlive containers. Who uses a volume is
 * derived from the containers' mounts, never counted.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs/promises';
import path from 'node:path';
import { internal } from '../lib/errors.ts';
import { newId } from '../lib/ids.ts';
import type { Collection, Store, Write } from '../store/types.ts';

export interface VolumeRecord {
  /** The name. */
  readonly id: string;
  readonly created: string;
  readonly driver: 'local';
  readonly labels: Readonly<Record<string, string>>;
  readonly options: Readonly<Record<string, string>>;
}

/** A volume that exists on disk; `write` makes it a record, null when it has been one. */
export interface PreparedVolume {
  readonly name: string;
  readonly path: string;
  readonly write: Write | null;
}

export class Volumes {
  readonly #dir: string;
  readonly #records: Collection<VolumeRecord>;
  readonly #now: () => string;

  constructor(options: { readonly dir: string; readonly store: Store; readonly now: () => string }) {
    this.#dir = options.dir;
    this.#records = options.store.collection<VolumeRecord>({ kind: 'volume', schema: 1 });
    this.#now = options.now;
  }

  get(name: string): VolumeRecord | undefined {
    return this.#records.get(name);
  }

  pathOf(name: string): string {
    return path.join(this.#dir, name, '_data');
  }

  /** Finds the volume, or makes its directory; without a name a new anonymous one. The caller commits `write` with what uses it. */
  async prepare(name: string | undefined): Promise<PreparedVolume> {
    const chosen = name ?? newId<string>();
    const data = this.pathOf(chosen);
    await fs.mkdir(data, { recursive: true, mode: 0o755 });
    const known = this.#records.get(chosen) !== undefined;
    const record: VolumeRecord = { id: chosen, created: this.#now(), driver: 'local', labels: {}, options: {} };
    return { name: chosen, path: data, write: known ? null : this.#records.put(record) };
  }

  /** The write that forgets a volume. Its files go with `discard` once that is committed. */
  forget(name: string): Write {
    return this.#records.remove(name);
  }

  /** Deletes the files of volumes that no record names any more. Repeating it is not an error. */
  async discard(names: readonly string[]): Promise<void> {
    for (const name of names) {
      if (this.#records.get(name) === undefined)
        await fs.rm(path.join(this.#dir, name), { recursive: true, force: true });
    }
  }

  /** Sweeps directories that a crash left between making and committing them. */
  async reconcile(): Promise<void> {
    await fs.mkdir(this.#dir, { recursive: true, mode: 0o711 });
    await this.discard(await fs.readdir(this.#dir));
  }

  /**
   * Copies what the image has at the mount point into an empty volume, owner, mode and times included. `from` is an open
   * directory inside the container's root, so that no link in the image can lead the copy outside.
   */
  async copyUp(from: { readonly fd: number }, volumePath: string): Promise<void> {
    if ((await fs.readdir(volumePath)).length > 0) return;
    const child = spawn('cp', ['-a', '--', '/proc/self/fd/3/.', volumePath], {
      stdio: ['ignore', 'ignore', 'pipe', from.fd],
    });
    let complaint = '';
    child.stderr?.on('data', (data: Buffer) => {
      if (complaint.length < 1000) complaint += data.toString();
    });
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== 0) throw internal(`copying the image's files into the volume at ${volumePath}: ${complaint.trim()}`);
  }
}
