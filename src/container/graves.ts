/**
 * Remembers for a minute how a container ended that was removed.
 *
 * Clients create with AutoRemove, start, and only then ask how it ended; on a fast machine the container can be gone before
 * that request arrives, and its exit code would be lost. What is remembered is written in the commit that removes the container, so
 * there is no moment, and no crash, between the two. Holds at most `gravesMax`; the oldest goes first.
 */
import type { Collection, Store, Write } from '../store/types.ts';
import type { ContainerRecord } from './types.ts';

const gravesMax = 1024;
const keptMs = 60_000;

interface Grave {
  readonly id: string;
  readonly name: string;
  readonly exitCode: number;
  /** Milliseconds since the epoch. */
  readonly until: number;
}

export class Graves {
  readonly #graves: Collection<Grave>;
  /** Their removal is on its way to the disk. */
  readonly #leaving = new Set<string>();

  constructor(store: Store) {
    this.#graves = store.collection<Grave>({ kind: 'grave', schema: 1 });
  }

  /** To be committed with the removal of the container. */
  bury({ id, name }: ContainerRecord, exitCode: number): readonly Write[] {
    const now = Date.now();
    const all = [...this.#graves.values()].filter((grave) => !this.#leaving.has(grave.id));
    for (const grave of this.#leaving) if (this.#graves.get(grave) === undefined) this.#leaving.delete(grave);
    const tooMany = all.length >= gravesMax ? all.toSorted((a, b) => a.until - b.until)[0] : undefined;
    const leaving = all.filter((grave) => !isKept(grave, now) || grave === tooMany);
    for (const grave of leaving) this.#leaving.add(grave.id);
    return [
      this.#graves.put({ id, name, exitCode, until: now + keptMs }),
      ...leaving.map((grave) => this.#graves.remove(grave.id)),
    ];
  }

  /** The exit code of a removed container by id, id prefix or name; of several, the one that went last. */
  find(ref: string): number | undefined {
    const name = ref.replace(/^\//, '');
    const now = Date.now();
    let last: Grave | undefined;
    for (const grave of this.#graves.values()) {
      if (!isKept(grave, now) || (last !== undefined && last.until > grave.until)) continue;
      if (grave.id === ref || grave.name === name || (ref.length >= 4 && grave.id.startsWith(ref))) last = grave;
    }
    return last?.exitCode;
  }
}

/** The clock may have been set back since. */
const isKept = ({ until }: Grave, now: number) => until > now && until <= now + keptMs;
