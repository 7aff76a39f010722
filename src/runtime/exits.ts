/** The ends of containers as their monitors leave them: a file each, told once to whoever listens. */
import fs from 'node:fs';
import type { ContainerId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';
import { isErrno } from '../platform/libc.ts';
import type { ExitNotice } from './types.ts';

export const isContainerId = (name: string): name is ContainerId => /^[0-9a-f]{64}$/.test(name);

export class Exits implements Disposable {
  readonly directory: string;
  readonly #log: Log;
  readonly #oomKills: (id: ContainerId) => number;
  readonly #listeners: ((notice: ExitNotice) => void)[] = [];
  /** Exits told already. */
  readonly #told = new Set<ContainerId>();
  #watcher: fs.FSWatcher | null = null;
  #rescan: NodeJS.Timeout | null = null;

  constructor(directory: string, log: Log, oomKills: (id: ContainerId) => number) {
    this.directory = directory;
    this.#log = log;
    this.#oomKills = oomKills;
  }

  [Symbol.dispose](): void {
    this.#watcher?.close();
    if (this.#rescan) clearInterval(this.#rescan);
  }

  /** A new run begins, or the container goes: its next end is told again. */
  forget(id: ContainerId): void {
    this.#told.delete(id);
  }

  onExit(listener: (notice: ExitNotice) => void): void {
    this.#listeners.push(listener);
    this.#scan();
  }

  watch(): void {
    const guarded = (work: () => void): void => {
      try {
        work();
      } catch (error) {
        // Out of descriptors, say: the next look finds what this one has missed.
        this.#log.error({ error }, 'the exits of containers could not be read');
      }
    };
    this.#watcher = fs.watch(this.directory, (_event, name) => {
      if (name === null) guarded(() => this.#scan());
      else if (isContainerId(name)) guarded(() => this.#tell(name));
    });
    this.#watcher.on('error', (error) => this.#log.error({ error }, 'the exit directory cannot be watched'));
    // The kernel drops notices when too many wait; a look now and then finds what they were about.
    this.#rescan = setInterval(() => guarded(() => this.#scan()), 30_000).unref();
  }

  #scan(): void {
    for (const name of fs.readdirSync(this.directory)) if (isContainerId(name)) this.#tell(name);
  }

  #tell(id: ContainerId): void {
    if (this.#listeners.length === 0 || this.#told.has(id)) return;
    const notice = this.read(id);
    if (!notice) return;
    this.#told.add(id);
    for (const listener of this.#listeners) listener(notice);
  }

  read(id: ContainerId): ExitNotice | null {
    const file = `${this.directory}/${id}`;
    try {
      const exitCode = Number(fs.readFileSync(file, 'latin1'));
      const finishedAtMs = Math.round(fs.statSync(file).mtimeMs);
      return { id, exitCode, oomKills: this.#oomKills(id), finishedAtMs };
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return null;
      throw error;
    }
  }
}
