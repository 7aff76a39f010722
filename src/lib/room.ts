/** Room for so many at once; others wait in order, and not for ever. */
import { unavailable } from './errors.ts';

const waitingMax = 1000;

interface Waiting {
  readonly admit: () => void;
}

export class Room {
  readonly #max: number;
  readonly #waitMs: number;
  readonly #refusal: string;
  readonly #waiting = new Set<Waiting>();
  #inside = 0;

  /** `refusal`: what those are told who have waited for `waitMs`, or of whom too many wait already. */
  constructor(max: number, waitMs: number, refusal: string) {
    this.#max = max;
    this.#waitMs = waitMs;
    this.#refusal = refusal;
  }

  /** Resolves with what is called when leaving, once; throws 'unavailable', or the reason of the signal. */
  async enter(signal?: AbortSignal): Promise<() => void> {
    signal?.throwIfAborted();
    if (this.#inside < this.#max) this.#inside++;
    else await this.#turn(signal);
    return () => this.#leave();
  }

  async #turn(signal: AbortSignal | undefined): Promise<void> {
    if (this.#waiting.size >= waitingMax) throw unavailable(this.#refusal);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiting = { admit: resolve };
    const refuse = (error: Error): void => {
      if (this.#waiting.delete(waiting)) reject(error); // else it has been let in just now
    };
    const timer = setTimeout(() => refuse(unavailable(this.#refusal)), this.#waitMs);
    const aborted = () => refuse(signal?.reason instanceof Error ? signal.reason : new Error('aborted'));
    signal?.addEventListener('abort', aborted, { once: true });
    this.#waiting.add(waiting);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
    }
  }

  /** Hands the place on to whoever has waited longest. */
  #leave(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#inside--;
      return;
    }
    this.#waiting.delete(next);
    next.admit();
  }
}
