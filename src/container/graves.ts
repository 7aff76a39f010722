/**
 * Remembers for a minute how a container ended that was removed.
 *
 * Clients create with AutoRemove, start, and only then ask how it ended; on a fast machine the container can be gone before
 * that request arrives, and its exit code would be lost. Holds at most `gravesMax`; the oldest goes first.
 */
import type { ContainerId } from '../lib/ids.ts';

const gravesMax = 1024;
const keptMs = 60_000;

interface Grave {
  readonly id: ContainerId;
  readonly name: string;
  readonly exitCode: number;
  readonly until: number;
}

export class Graves {
  readonly #graves = new Map<ContainerId, Grave>();

  bury(id: ContainerId, name: string, exitCode: number): void {
    const now = Date.now();
    for (const [oldest, grave] of this.#graves) {
      if (grave.until > now && this.#graves.size < gravesMax) break;
      this.#graves.delete(oldest);
    }
    this.#graves.set(id, { id, name, exitCode, until: now + keptMs });
  }

  /** The exit code of a removed container by id, id prefix or name. */
  find(ref: string): number | undefined {
    const name = ref.replace(/^\//, '');
    for (const grave of this.#graves.values()) {
      if (grave.until <= Date.now()) continue;
      if (grave.id === ref || grave.name === name || (ref.length >= 4 && grave.id.startsWith(ref)))
        return grave.exitCode;
    }
    return undefined;
  }
}
