/** What a log driver is. */
import type { LogOptions, LogSubject } from '../types.ts';

/** One line as the container printed it, without its newline; a line of pieces is one. */
export interface LogLine {
  readonly stream: 'stdout' | 'stderr';
  /** When the line began: Unix time. */
  readonly seconds: number;
  readonly nanoseconds: number;
  /** Shares memory with the block it was read in. */
  readonly text: Buffer;
}

/** A connection to a sink. Broken once, it stays broken. */
export interface Sender {
  /**
   * Resolves when all lines have been handed to the kernel, or acknowledged where the protocol can. Rejects when the connection
   * breaks: some of them may have arrived.
   */
  send(lines: readonly LogLine[]): Promise<void>;
  /** Called at most once, when the connection breaks by itself. */
  onBroken: ((error: Error) => void) | null;
  close(): void;
}

export interface Driver {
  readonly name: string;
  /** Options of its own, beside those all drivers take (`mode`, `max-buffer-size`, `cache-*`). */
  readonly options: readonly string[];
  /** What dockerd answers to an option that is not known. */
  unknown(option: string): string;
  /** Throws 'invalid' for a value that will not do. */
  check(options: LogOptions): void;
  /** Null: the log stays here. */
  readonly forward: ForwardingDriver | null;
}

export interface ForwardingDriver {
  /** Milliseconds before the second attempt to reach a sink; doubled for each further one, up to a cap. */
  retryMs(options: LogOptions): number;
  /** The kernel's queues may hold lines when the connection breaks: what was sent last is then sent again. */
  readonly repeats: boolean;
  /** Rejects when the sink cannot be reached; the signal ends the attempt. */
  connect(options: LogOptions, subject: LogSubject, signal: AbortSignal): Promise<Sender>;
}
