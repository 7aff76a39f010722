/** Progress of work that many tasks do at once, read by one client. */
import type { Progress } from './types.ts';

interface Queued {
  message: Progress;
}

const amountIntervalMs = 100;

/**
 * Messages wait here for the reader. Amounts (`progressDetail`) come at most ten times a second for each id, and of those
 * that nobody has read yet only the newest is kept: a slow reader holds up nobody and costs no memory.
 */
export class ProgressStream {
  #queue: Queued[] = [];
  readonly #amounts = new Map<string, Queued>();
  readonly #toldMs = new Map<string, number>();
  #wake: () => void = () => undefined;
  #ended = false;
  #failure: unknown = null;

  tell(message: Progress): void {
    this.#queue.push({ message });
    this.#wake();
  }

  amount(id: string, status: string, current: number, total: number): void {
    const key = `${id} ${status}`;
    const now = performance.now();
    const message = { status, progressDetail: { current, total }, id };
    const unread = this.#amounts.get(key);
    if (unread) {
      unread.message = message;
      return;
    }
    if (now - (this.#toldMs.get(key) ?? -amountIntervalMs) < amountIntervalMs) return;
    this.#toldMs.set(key, now);
    const queued = { message };
    this.#amounts.set(key, queued);
    this.#queue.push(queued);
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  fail(error: unknown): void {
    this.#failure = error;
    this.end();
  }

  /** All messages; throws what the stream failed with after the last. */
  async *read(): AsyncGenerator<Progress, void, undefined> {
    for (;;) {
      const queue = this.#queue;
      this.#queue = [];
      this.#amounts.clear();
      for (const { message } of queue) yield message;
      if (this.#queue.length > 0) continue;
      if (this.#ended) break;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#failure !== null) throw this.#failure;
  }
}

/**
 * Runs `work` for a reader: begins when reading begins, is aborted when the reader leaves or `signal` aborts, and has
 * ended, with all it holds given back, when the iteration ends.
 */
export async function* whileReading(
  work: (progress: ProgressStream, signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): AsyncGenerator<Progress, void, undefined> {
  signal.throwIfAborted();
  const leaving = new AbortController();
  const progress = new ProgressStream();
  const done = work(progress, AbortSignal.any([signal, leaving.signal])).then(
    () => progress.end(),
    (error: unknown) => progress.fail(error),
  );
  try {
    yield* progress.read();
  } finally {
    leaving.abort(new Error('the client left'));
    await done;
  }
}
