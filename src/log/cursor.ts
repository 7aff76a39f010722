/** Where a reader is, and what wakes it. */
import fs from 'node:fs';
import { closeInBackground, read } from './io.ts';
import type { LogPosition } from './types.ts';

/** Size of what is read at once and of what is given at most. The monitor's lines are at most 8 KiB and a prefix long. */
export const blockLength = 64 * 1024;
const newline = 10;

/** Whole lines as they stand in a file, and where they stand there. */
export interface Block {
  readonly data: Buffer;
  /** Bytes of the whole lines at the start of `data`; 0: nothing but a wake-up. */
  readonly length: number;
  readonly generation: number;
  readonly offset: number;
}

/** Counts as needing its generation from the moment it is made. */
export class Cursor {
  generation = Number.NEGATIVE_INFINITY;
  offset = 0;
  fd: number | null = null;
  /** Where it goes on at its next step. */
  jump: LogPosition | null = null;

  /** The next block; null at the end of the file or at `limit`. */
  async next(limit = Number.POSITIVE_INFINITY): Promise<Block | null> {
    const { fd, generation } = this;
    if (fd === null) return null;
    const size = Math.min(fs.fstatSync(fd).size, limit);
    // Somebody has emptied the file; the monitor appends, so what comes begins at its start.
    if (size < this.offset) this.offset = 0;
    const { offset } = this;
    const wanted = Math.min(size - offset, blockLength);
    if (wanted <= 0) return null;
    // Bytes that were just written are in memory: read at once, without a turn through the thread pool.
    const fresh = size - offset < blockLength && limit === Number.POSITIVE_INFINITY;
    const data = Buffer.allocUnsafeSlow(wanted);
    const bytesRead = fresh ? fs.readSync(fd, data, 0, wanted, offset) : await read(fd, data, wanted, offset);
    const length = data.lastIndexOf(newline, bytesRead - 1) + 1;
    if (bytesRead === 0 || length === 0) {
      // Only the beginning of a line so far; in a full block there can be no line of ours.
      if (bytesRead !== blockLength) return null;
      this.offset += bytesRead;
    }
    this.offset += length;
    return { data, length, generation, offset };
  }

  advance(): void {
    this.moveTo({ generation: this.generation + 1, offset: 0 });
  }

  moveTo({ generation, offset }: LogPosition): void {
    this.close();
    this.generation = generation;
    this.offset = offset;
    this.jump = null;
  }

  close(): void {
    if (this.fd !== null) closeInBackground(this.fd);
    this.fd = null;
  }
}

/** Wakes one sleeper; a ring before it sleeps is not lost. */
export class Bell {
  #waiting = Promise.withResolvers<void>();
  readonly ring = (): void => this.#waiting.resolve();

  get rung(): Promise<void> {
    return this.#waiting.promise;
  }

  reset(): void {
    this.#waiting = Promise.withResolvers();
  }
}
