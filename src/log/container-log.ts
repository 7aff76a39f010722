/** One container's log: a file, the older ones rotated away, and everyone who reads them. See docs/logs.md. */
import fs from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { nowNano } from '../lib/time.ts';
import { isErrno } from '../platform/libc.ts';
import { whenOver } from './ending.ts';
import { Growth } from './growth.ts';
import { closeInBackground, read } from './io.ts';
import { LineRewriter } from './lines.ts';
import { TailSearch } from './tail.ts';
import type { ContainerLog, LogLimits, LogPosition, LogQuery } from './types.ts';

/** Size of what is read at once and of what is given at most. The monitor's lines are at most 8 KiB and a prefix long. */
const blockLength = 64 * 1024;
const newline = 10;

/** How often a file being written to is looked at: by readers, and to see whether it must be rotated. */
const followPollMs = 1;
const rotationPollMs = 20;
/** How long after a rotation the monitor is told again if it has made no new file. */
const remindMs = 2000;

/** Files deleted by rotation but kept open for a reader that has not come to them; beyond, it misses the oldest. */
const pinnedFilesMax = 512;
const pinnedBytesMax = 128 * 1024 * 1024;

interface LogParts {
  readonly path: string;
  readonly limits: LogLimits;
  /** Tells the monitor to open the file anew. */
  readonly reopen: () => void;
  /** Called when the log has been removed. */
  readonly forget: () => void;
  /** Told when a rotation fails; the file then grows on, and it is tried again. */
  readonly failed: (error: unknown) => void;
}

/**
 * Files are numbered by generation: the current one is `#newest`, `<path>.1` the one before. A rotation adds one, so a
 * generation keeps its number while its name changes. Renaming and looking up a name are synchronous and so never meet.
 */
export class LogFile implements ContainerLog {
  readonly path: string;
  readonly #parts: LogParts;
  readonly #growth: Growth;
  readonly #readers = new Set<Cursor>();
  readonly #pinned = new Map<number, { readonly fd: number; readonly size: number }>();
  #newest = 0;

  constructor(parts: LogParts) {
    this.path = parts.path;
    this.#parts = parts;
    this.#growth = new Growth(parts.path);
  }

  read(query: LogQuery, ended: Promise<unknown>, signal: AbortSignal): AsyncIterable<Buffer> {
    return this.#read(query, 'tail', ended, signal);
  }

  readFrom(position: LogPosition, query: LogQuery, ended: Promise<unknown>, signal: AbortSignal) {
    return this.#read({ ...query, follow: true }, position, ended, signal);
  }

  async position(): Promise<LogPosition> {
    return this.#end().position;
  }

  async remove(): Promise<void> {
    this.#parts.forget();
    this.close();
    const doomed = this.#rotatedNumbers().map((number) => `${this.path}.${number}`);
    await Promise.all([this.path, `${this.path}.tmp`, ...doomed].map((file) => rm(file, { force: true })));
  }

  /** Keeps the current file below its limit while the container runs. Returns the function that ends it. */
  watch(): () => void {
    const { limits, reopen, failed } = this.#parts;
    const { maxSize } = limits;
    if (maxSize <= 0) return () => undefined;
    const guarded = (work: () => void) => (): void => {
      try {
        work();
      } catch (error) {
        failed(error);
      }
    };
    const check = guarded(() => {
      const size = fs.statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
      if (size > maxSize) this.#rotate();
    });
    // The word to the monitor can be lost, also to a crash of ours; it then goes on writing to the renamed file.
    const remind = guarded(() => {
      if (!fs.existsSync(this.path) && fs.existsSync(`${this.path}.1`)) reopen();
    });
    remind();
    check();
    const timer = setInterval(remind, remindMs);
    const end = this.#growth.subscribe(check, rotationPollMs);
    return () => {
      clearInterval(timer);
      end();
    };
  }

  close(): void {
    for (const { fd } of this.#pinned.values()) closeInBackground(fd);
    this.#pinned.clear();
  }

  // ---- generations

  #nameOf(generation: number): string {
    return generation === this.#newest ? this.path : `${this.path}.${this.#newest - generation}`;
  }

  #rotatedNumbers(): number[] {
    const prefix = `${path.basename(this.path)}.`;
    try {
      return fs
        .readdirSync(path.dirname(this.path))
        .filter((name) => name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)))
        .map((name) => Number(name.slice(prefix.length)));
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return [];
      throw error;
    }
  }

  #oldest(): number {
    return this.#newest - Math.max(0, ...this.#rotatedNumbers());
  }

  /** The monitor has let go of a generation when a later file is there: it makes the new one before it writes on. */
  #isComplete(generation: number): boolean {
    return generation < this.#newest - 1 || (generation === this.#newest - 1 && fs.existsSync(this.path));
  }

  /** Where the log ends now. */
  #end(): { generation: number; position: LogPosition } {
    for (const generation of [this.#newest, this.#newest - 1]) {
      const stat = fs.statSync(this.#nameOf(generation), { bigint: true, throwIfNoEntry: false });
      if (stat) return { generation, position: { inode: stat.ino, offset: Number(stat.size) } };
    }
    return { generation: this.#newest, position: { inode: 0n, offset: 0 } };
  }

  #find(position: LogPosition): { generation: number; offset: number } {
    const oldest = this.#oldest();
    for (let generation = this.#newest; generation >= oldest; generation--) {
      const stat = fs.statSync(this.#nameOf(generation), { bigint: true, throwIfNoEntry: false });
      if (stat?.ino === position.inode) return { generation, offset: position.offset };
    }
    // Taken when there was no file yet, or rotated away since: all that is left comes after it.
    return { generation: oldest, offset: 0 };
  }

  /** Null: no such file (any more, or yet). */
  #open(generation: number): number | null {
    const pin = this.#pinned.get(generation);
    try {
      return fs.openSync(pin ? `/proc/self/fd/${pin.fd}` : this.#nameOf(generation), 'r');
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return null;
      throw error;
    }
  }

  // ---- rotation

  /** One older file is always kept: it is being written to until the monitor has made the next. */
  #rotate(): void {
    const last = Math.max(this.#parts.limits.maxFiles - 1, 1);
    for (const number of this.#rotatedNumbers().sort((a, b) => b - a)) {
      if (number >= last) this.#discard(this.#newest - number);
      else fs.renameSync(`${this.path}.${number}`, `${this.path}.${number + 1}`);
    }
    fs.renameSync(this.path, `${this.path}.1`);
    this.#newest++;
    this.#parts.reopen();
  }

  /** Unlinks a file; its blocks are given back in the background, when no reader needs it any more. */
  #discard(generation: number): void {
    const name = this.#nameOf(generation);
    const fd = fs.openSync(name, 'r');
    fs.unlinkSync(name);
    this.#pinned.set(generation, { fd, size: fs.fstatSync(fd).size });
    this.#dropPins();
  }

  #dropPins(): void {
    const needed = Math.min(Number.POSITIVE_INFINITY, ...Array.from(this.#readers, (reader) => reader.generation));
    let bytes = 0;
    for (const { size } of this.#pinned.values()) bytes += size;
    for (const [generation, { fd, size }] of this.#pinned) {
      const tooMuch = this.#pinned.size > pinnedFilesMax || bytes > pinnedBytesMax;
      if (generation >= needed && !tooMuch) continue;
      this.#pinned.delete(generation);
      bytes -= size;
      closeInBackground(fd);
    }
  }

  // ---- reading

  async *#read(
    query: LogQuery,
    from: 'tail' | LogPosition,
    ended: Promise<unknown>,
    signal: AbortSignal,
  ): AsyncGenerator<Buffer, void, void> {
    const cursor = new Cursor();
    this.#readers.add(cursor);
    const bell = new Bell();
    const ending = whenOver(ended, bell.ring);
    const unsubscribe = query.follow ? this.#growth.subscribe(bell.ring, followPollMs) : null;
    const abort = (): void => bell.ring();
    signal.addEventListener('abort', abort);
    const untilTimer = query.follow && query.until !== undefined ? ringAt(query.until, bell) : null;
    try {
      // Without follow the answer ends where the log ends now, however fast the container goes on printing.
      const end = this.#end();
      if (from === 'tail') await this.#seekTail(cursor, query, end);
      else Object.assign(cursor, this.#find(from));
      this.#dropPins();
      const rewriter = new LineRewriter(query, from === 'tail');
      while (!signal.aborted && !rewriter.finished) {
        bell.reset();
        // Asked before the file is read: what was printed before the end is then sure to be seen.
        const over = ending.isOver() || (query.until !== undefined && query.follow && nowNano() > query.until);
        const complete = this.#isComplete(cursor.generation);
        cursor.fd ??= this.#open(cursor.generation);
        const limit = !query.follow && cursor.generation === end.generation ? end.position.offset : undefined;
        const chunk = await cursor.next(rewriter, limit);
        if (chunk) {
          if (chunk.length > 0) yield chunk;
          continue;
        }
        if (!query.follow && cursor.generation >= end.generation) return;
        if (complete || (cursor.fd === null && cursor.generation < this.#newest)) {
          cursor.advance();
          this.#dropPins();
        } else if (over || !query.follow) {
          return;
        } else {
          await bell.rung;
        }
      }
    } finally {
      this.#readers.delete(cursor);
      ending.forget();
      unsubscribe?.();
      signal.removeEventListener('abort', abort);
      if (untilTimer) clearTimeout(untilTimer);
      cursor.close();
      this.#dropPins();
    }
  }

  /** Moves the cursor to the first line asked for. */
  async #seekTail(cursor: Cursor, query: LogQuery, end: { generation: number; position: LogPosition }): Promise<void> {
    const { tail, since } = query;
    if (tail === 0) {
      cursor.generation = end.generation;
      cursor.offset = end.position.offset;
      return;
    }
    const oldest = this.#oldest();
    cursor.generation = oldest;
    if (tail !== undefined && tail > 0) {
      const search = new TailSearch(tail);
      for (let generation = end.generation; generation >= oldest; generation--) {
        const fd = this.#open(generation);
        if (fd === null) continue;
        try {
          const size = generation === end.generation ? end.position.offset : fs.fstatSync(fd).size;
          const offset = await search.search(fd, size);
          if (offset === null) continue;
          cursor.generation = generation;
          cursor.offset = offset;
          break;
        } finally {
          closeInBackground(fd);
        }
      }
    }
    // A file last written to before `since` holds nothing of interest; a second for clocks that stepped.
    while (since !== undefined && cursor.generation < end.generation) {
      const stat = fs.statSync(this.#nameOf(cursor.generation), { throwIfNoEntry: false });
      if (stat && BigInt(Math.ceil(stat.mtimeMs) + 1000) * 1_000_000n >= since) break;
      cursor.generation++;
      cursor.offset = 0;
    }
  }
}

/** Where a reader is. Counts as needing its generation from the moment it is made. */
class Cursor {
  generation = Number.NEGATIVE_INFINITY;
  offset = 0;
  fd: number | null = null;

  /** The next block, rewritten; null at the end of the file or at `limit`. */
  async next(rewriter: LineRewriter, limit = Number.POSITIVE_INFINITY): Promise<Buffer | null> {
    const fd = this.fd;
    if (fd === null) return null;
    const size = Math.min(fs.fstatSync(fd).size, limit);
    // Somebody has emptied the file; the monitor appends, so what comes begins at its start.
    if (size < this.offset) this.offset = 0;
    const wanted = Math.min(size - this.offset, blockLength);
    if (wanted <= 0) return null;
    // Bytes that were just written are in memory: read at once, without a turn through the thread pool.
    const fresh = size - this.offset < blockLength && limit === Number.POSITIVE_INFINITY;
    const block = Buffer.allocUnsafeSlow(wanted);
    const length = fresh ? fs.readSync(fd, block, 0, wanted, this.offset) : await read(fd, block, wanted, this.offset);
    const lines = block.lastIndexOf(newline, length - 1) + 1;
    if (length === 0 || lines === 0) {
      // Only the beginning of a line so far; in a full block there can be no line of ours.
      if (length === blockLength) this.offset += length;
      return length === blockLength ? Buffer.alloc(0) : null;
    }
    this.offset += lines;
    return block.subarray(0, rewriter.rewrite(block, lines));
  }

  advance(): void {
    this.close();
    this.generation++;
    this.offset = 0;
  }

  close(): void {
    if (this.fd !== null) closeInBackground(this.fd);
    this.fd = null;
  }
}

/** Wakes one sleeper; a ring before it sleeps is not lost. */
class Bell {
  #waiting = Promise.withResolvers<void>();
  readonly ring = (): void => this.#waiting.resolve();

  get rung(): Promise<void> {
    return this.#waiting.promise;
  }

  reset(): void {
    this.#waiting = Promise.withResolvers();
  }
}

const timerMax = 2 ** 31 - 1;
function ringAt(nano: bigint, bell: Bell): NodeJS.Timeout {
  const ms = Number((nano - nowNano()) / 1_000_000n) + 1;
  return setTimeout(bell.ring, Math.min(Math.max(ms, 0), timerMax));
}
