/** Waiting that can be left, and how long to wait before asking a registry again. */
import { setTimeout as delay } from 'node:timers/promises';

/** The outcome of shared work for one who may leave before: the work itself goes on. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    work.catch(() => undefined);
    return Promise.reject(signal.reason as Error);
  }
  return new Promise<T>((resolve, reject) => {
    const leave = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', leave, { once: true });
    const settle = (): void => signal.removeEventListener('abort', leave);
    work.then(
      (value) => {
        settle();
        resolve(value);
      },
      (error: unknown) => {
        settle();
        reject(error as Error);
      },
    );
  });
}

export const sleep = (ms: number, signal: AbortSignal): Promise<void> =>
  delay(ms, undefined, { signal }).catch(() => {
    throw signal.reason;
  });

const retryAfterMsMax = 60_000;
const backOffMsMax = 15_000;

/**
 * Milliseconds until attempt number `attempt` (from 1): what `Retry-After` says (seconds or a date), else doubling from
 * `baseMs` with a random part, so that many clients do not return together. Null when the registry asks for more than a minute.
 */
export function retryDelayMs(attempt: number, baseMs: number, retryAfter?: string | string[]): number | null {
  if (typeof retryAfter === 'string') {
    const asked = /^\d+$/.test(retryAfter) ? Number(retryAfter) * 1000 : Date.parse(retryAfter) - Date.now();
    if (asked > retryAfterMsMax) return null;
    if (asked >= 0) return asked;
  }
  return Math.min(baseMs * 2 ** (attempt - 1), backOffMsMax) * (0.75 + Math.random() / 2);
}

/** At most `limit` at once; who waits is served in turn. The limit is asked for each time, so that a reload counts. */
export class Slots {
  readonly #limit: () => number;
  readonly #waiting: (() => void)[] = [];
  #taken = 0;

  constructor(limit: () => number) {
    this.#limit = limit;
  }

  get full(): boolean {
    return this.#taken >= Math.max(1, this.#limit());
  }

  /** Resolves with the function that gives the slot back (repeating it is not an error). */
  async take(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.full) {
      let enter: () => void = () => undefined;
      const turn = new Promise<void>((resolve) => {
        enter = resolve;
      });
      this.#waiting.push(enter);
      try {
        await unlessAborted(turn, signal);
      } catch (error) {
        const place = this.#waiting.indexOf(enter);
        if (place >= 0) this.#waiting.splice(place, 1);
        else this.#giveBack();
        throw error;
      }
    } else this.#taken++;
    let held = true;
    return () => {
      if (held) this.#giveBack();
      held = false;
    };
  }

  /** A slot given back goes to the first who waits, without being free in between. */
  #giveBack(): void {
    const next = this.#taken <= Math.max(1, this.#limit()) ? this.#waiting.shift() : undefined;
    if (next) next();
    else this.#taken--;
  }
}
