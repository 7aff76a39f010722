/**
 * Tells when a file grows or is replaced by another of its name.
 *
 * A quiet file costs one inotify watch. When it is written to, the watch is given up for a timer that looks at the
 * size: a busy writer would otherwise raise an event per write, tens of thousands a second, all on the main thread.
 * When it has been quiet for a while the watch is taken up again. A slow timer beside it covers what inotify cannot
 * (its limit reached, a file system without it).
 */
import fs from 'node:fs';
import path from 'node:path';

const slowPollMs = 500;
/** A file that stays busy is looked at less and less often, down to this: nobody types that fast. */
const busyPollMs = 10;
const looksPerStep = 50;

interface Subscriber {
  readonly changed: () => void;
  /** How often to look while the file is busy. */
  readonly pollMs: number;
}

export class Growth {
  readonly #path: string;
  readonly #subscribers = new Set<Subscriber>();
  #watcher: fs.FSWatcher | null = null;
  #hotTimer: NodeJS.Timeout | null = null;
  #slowTimer: NodeJS.Timeout | null = null;
  #seen = '';
  #changedAt = 0;
  /** Looks taken since the file became busy. */
  #looks = 0;

  constructor(file: string) {
    this.#path = file;
  }

  /** Calls `changed` after each change, until the returned function is called. */
  subscribe(changed: () => void, pollMs: number): () => void {
    const subscriber = { changed, pollMs };
    this.#subscribers.add(subscriber);
    if (this.#slowTimer === null) {
      this.#seen = this.#look();
      this.#slowTimer = setInterval(() => this.#check(), slowPollMs);
      this.#arm();
    }
    return () => {
      this.#subscribers.delete(subscriber);
      if (this.#subscribers.size === 0) this.#stop();
    };
  }

  #stop(): void {
    this.#disarm();
    if (this.#hotTimer) clearTimeout(this.#hotTimer);
    if (this.#slowTimer) clearInterval(this.#slowTimer);
    this.#hotTimer = null;
    this.#slowTimer = null;
  }

  #look(): string {
    const stat = fs.statSync(this.#path, { throwIfNoEntry: false });
    return stat ? `${stat.ino} ${stat.size}` : '';
  }

  #check(): boolean {
    const now = this.#look();
    if (now === this.#seen) return false;
    this.#seen = now;
    this.#changedAt = performance.now();
    for (const subscriber of this.#subscribers) subscriber.changed();
    return true;
  }

  /** Watches the file or, while there is none, its directory. */
  #arm(): void {
    const heat = (): void => {
      this.#disarm();
      this.#changedAt = performance.now();
      this.#looks = 0;
      this.#check();
      this.#poll();
    };
    for (const target of [this.#path, path.dirname(this.#path)]) {
      try {
        this.#watcher = fs.watch(target, heat).on('error', heat);
        break;
      } catch {
        // The slow timer is still there.
      }
    }
    // What was written between the last look and the watch raised no event.
    if (this.#check() && this.#watcher) heat();
  }

  #disarm(): void {
    this.#watcher?.close();
    this.#watcher = null;
  }

  #poll(): void {
    if (this.#slowTimer === null || this.#hotTimer !== null) return;
    const shortest = Math.min(...Array.from(this.#subscribers, (subscriber) => subscriber.pollMs));
    const stretched = shortest * (1 + Math.floor(this.#looks++ / looksPerStep));
    const pollMs = Math.max(shortest, Math.min(stretched, busyPollMs));
    this.#hotTimer = setTimeout(() => {
      this.#hotTimer = null;
      if (this.#slowTimer === null) return;
      if (this.#check() || performance.now() - this.#changedAt < 10 * shortest) this.#poll();
      else this.#arm();
    }, pollMs);
  }
}
