/**
 * What the daemon holds in memory about a container beside its record: who waits for its end, who types into it, the
 * terminal size asked for. All of it can be lost with the daemon without losing anything a client was promised.
 */
import { whenOver } from '../log/ending.ts';
import type { StdinPipe } from '../runtime/types.ts';
import type { Health } from './health.ts';
import type { Prober } from './prober.ts';

/** How a run ended, as waiters learn it. */
export interface RunEnd {
  readonly exitCode: number;
}

/** Input typed before the process can take it waits at most so long in number of pieces per writer: one (writers await). */
export class StdinHub {
  #pipe: StdinPipe | null = null;
  #ready = Promise.withResolvers<void>();
  #ended = false;
  /** Number of the current run, or of the next one while there is none. */
  #run = 0;

  /** The process can read now. */
  connect(pipe: StdinPipe): void {
    this.#pipe = pipe;
    this.#ready.resolve();
  }

  /** The run is over (or never began): writers get through and what they bring is dropped. */
  disconnect(): void {
    const pipe = this.#pipe;
    this.#pipe = null;
    this.#ended = false;
    this.#run++;
    this.#ready.resolve();
    this.#ready = Promise.withResolvers<void>();
    pipe?.end().catch(() => undefined);
  }

  /** A way into the current run, or the next one while there is none; into no later one: a client that has stayed behind must not end or feed what others started. */
  writer(): StdinWriter {
    const run = this.#run;
    const pipe = async (): Promise<StdinPipe | null> => {
      if (this.#pipe === null && run === this.#run) await this.#ready.promise;
      return run === this.#run && !this.#ended ? this.#pipe : null;
    };
    return {
      // A process that has just gone is no error of the client's: its exit code tells.
      write: async (data) => (await pipe())?.write(data).catch(() => undefined),
      end: async () => {
        const open = await pipe();
        if (open === null) return;
        this.#ended = true;
        await open.end().catch(() => undefined);
      },
    };
  }
}

export interface StdinWriter {
  /** Resolves when the monitor has taken the data, or dropped it because the process has gone. */
  write(data: Uint8Array): Promise<void>;
  /** Ends the process's stdin (StdinOnce). Waits until there is one. */
  end(): Promise<void>;
}

/**
 * Waits for the end of a run; null when the signal comes first. Those who leave are forgotten, also by a run that goes on for
 * months with a client that asks anew every second.
 */
export async function endUnless(ended: Promise<RunEnd>, signal: AbortSignal): Promise<RunEnd | null> {
  if (signal.aborted) return null;
  const woken = Promise.withResolvers<void>();
  const wake = (): void => woken.resolve();
  const ending = whenOver(ended, wake);
  signal.addEventListener('abort', wake);
  try {
    if (!ending.isOver()) await woken.promise;
  } finally {
    ending.forget();
    signal.removeEventListener('abort', wake);
  }
  return ending.isOver() ? ended : null;
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
  /** `restart` commands under way: the end they bring about does not remove a container with AutoRemove. */
  restarting = 0;
  /** A removal by force is under way: it is not to be started again. */
  removing = false;
  /** Commits that hold the current run still while they read. In memory only: a daemon that starts anew lets it go on. */
  readonly heldBy = new Set<symbol>();
  /** As the last probe left it; null before the first run with a health check under this daemon. */
  health: Health | null = null;
  /** Runs the health probes while the container runs and is not paused. */
  prober: Prober | null = null;
  /** Takes the log's size watch back. */
  unwatchLog: (() => void) | null = null;

  /** Tells everyone that the run is over, and gets ready for the next. */
  endRun(end: RunEnd): void {
    this.ended.resolve(end);
    this.ended = Promise.withResolvers<RunEnd>();
    this.stdin.disconnect();
    this.unwatchLog?.();
    this.unwatchLog = null;
    this.heldBy.clear();
    this.size = null;
    this.stopping = false;
    void this.prober?.stop();
  }

  cancelRestart(): void {
    if (this.restartTimer !== null) clearTimeout(this.restartTimer);
    this.restartTimer = null;
  }
}
