/**
 * One queue per key (a container's id, a network's, a reference): work for the same key runs one at a time in the order
 * of the calls, work for different keys side by side.
 */
import { unavailable } from './errors.ts';
import type { Log } from './log.ts';

interface Lane {
  /** Settled when the last work entered so far has ended. */
  tail: Promise<unknown>;
  /** Works running or waiting. */
  length: number;
}

export class Lanes {
  readonly #lanes = new Map<string, Lane>();
  readonly #log: Log;
  readonly #lengthMax: number;

  constructor(log: Log, options: { readonly lengthMax?: number } = {}) {
    this.#log = log;
    this.#lengthMax = options.lengthMax ?? 1000;
  }

  /** Keys with work running or waiting. */
  get size(): number {
    return this.#lanes.size;
  }

  /**
   * Runs `work` when all work entered before it under `key` has ended; resolves or rejects as it does. Never enter a
   * lane from within work of the same lane: it would wait for itself.
   *
   * `deadlineMs` counts from the start of `work`. Work that outlives it is reported to the log and keeps its place:
   * the lane exists so that two works never overlap, and nothing can interrupt a promise.
   * Throws 'unavailable' when too many wait already.
   */
  enter<T>(key: string, work: () => Promise<T>, options: { readonly deadlineMs?: number } = {}): Promise<T> {
    const lane = this.#lanes.get(key) ?? { tail: Promise.resolve(), length: 0 };
    if (lane.length >= this.#lengthMax) {
      return Promise.reject(unavailable(`too many operations wait for ${key}`));
    }
    this.#lanes.set(key, lane);
    lane.length++;
    const result = lane.tail.then(() => this.#watched(key, work, options.deadlineMs));
    const leave = (): void => {
      if (--lane.length === 0) this.#lanes.delete(key);
    };
    lane.tail = result.then(leave, leave);
    return result;
  }

  async #watched<T>(key: string, work: () => Promise<T>, deadlineMs: number | undefined): Promise<T> {
    if (deadlineMs === undefined) return await work();
    const started = performance.now();
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#log.warn({ key, deadlineMs }, 'an operation has outlived its deadline; what comes after it waits');
    }, deadlineMs);
    timer.unref();
    try {
      return await work();
    } finally {
      clearTimeout(timer);
      if (late)
        this.#log.warn({ key, tookMs: Math.round(performance.now() - started) }, 'the late operation has ended');
    }
  }
}
