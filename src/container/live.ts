/**
 * What the daemon holds in memory about a container beside its record: who waits for its end, who types into it, the
 * terminal size asked for. All of it can be lost with the daemon without losing anything a client was promised.
 */
import type { StdinPipe } from '../runtime/types.ts';

/** How a run ended, as waiters learn it. */
export interface RunEnd {
  readonly exitCode: number;
}

/** Input typed before the process can take it waits at most so long in number of pieces per writer: one (writers await). */
export class StdinHub {
  #pipe: StdinPipe | null = null;
  #ready = Promise.withResolvers<void>();
  #ended = false;

  /** The process can read now. */
  connect(pipe: StdinPipe): void {
    this.#pipe = pipe;
    this.#ready.resolve();
  }

  get connected(): boolean {
    return this.#pipe !== null;
  }

  /** The run is over (or never began): writers get through and what they bring is dropped. */
  disconnect(): void {
    const pipe = this.#pipe;
    this.#pipe = null;
    this.#ended = false;
    this.#ready.resolve();
    this.#ready = Promise.withResolvers<void>();
    pipe?.end().catch(() => undefined);
  }

  /** Resolves when the monitor has taken the data, or dropped it because the process has gone. */
  async write(data: Uint8Array): Promise<void> {
    if (this.#pipe === null) await this.#ready.promise;
    if (this.#ended) return;
    // A process that has just gone is no error of the client's: its exit code tells.
    await this.#pipe?.write(data).catch(() => undefined);
  }

  /** Ends the process's stdin (StdinOnce). Waits until there is one. */
  async end(): Promise<void> {
    if (this.#pipe === null) await this.#ready.promise;
    if (this.#ended) return;
    this.#ended = true;
    await this.#pipe?.end().catch(() => undefined);
  }
}

export class LiveContainer {
  /** Resolves at the end of the current run, or of the next one while there is none. */
  ended = Promise.withResolvers<RunEnd>();
  readonly stdin = new StdinHub();
  /** Streams following the output now. */
  attached = 0;
  /** Last size asked for, [rows, columns]; kept for a terminal that does not exist yet. */
  size: readonly [number, number] | null = null;
  /** Resolves at the first resize after it was set: the start of a terminal waits for it a moment. */
  onResize: (() => void) | null = null;
  /** Milliseconds the restart policy waited last; 0 before the first time. */
  lastDelayMs = 0;
  restartTimer: NodeJS.Timeout | null = null;
  /** The daemon is ending it for good (`stop`, `kill`, removal by force), seen before the record says so. */
  stopping = false;
  /** Takes the log's size watch back. */
  unwatchLog: (() => void) | null = null;

  /** Tells everyone that the run is over, and gets ready for the next. */
  endRun(end: RunEnd): void {
    this.ended.resolve(end);
    this.ended = Promise.withResolvers<RunEnd>();
    this.stdin.disconnect();
    this.unwatchLog?.();
    this.unwatchLog = null;
    this.size = null;
    this.stopping = false;
  }

  cancelRestart(): void {
    if (this.restartTimer !== null) clearTimeout(this.restartTimer);
    this.restartTimer = null;
  }
}
