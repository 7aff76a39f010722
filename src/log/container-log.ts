/** One container's log: a file, the older ones rotated away, and everyone who reads them. See docs/logs.md. */
import fs from 'node:fs';
import type { Log } from '../lib/log.ts';
import { nowNano } from '../lib/time.ts';
import { Bell, type Block, Cursor } from './cursor.ts';
import { drivers } from './drivers/index.ts';
import { whenOver } from './ending.ts';
import { LogFiles } from './files.ts';
import { Forwarder } from './forward.ts';
import { Growth } from './growth.ts';
import { closeInBackground } from './io.ts';
import { LineRewriter } from './lines.ts';
import { TailSearch } from './tail.ts';
import type { ContainerLog, LogPosition, LogQuery, LogSource } from './types.ts';

/** How often a file being written to is looked at: by readers, and to see whether it must be rotated. */
const followPollMs = 1;
const rotationPollMs = 20;
/** How long after a rotation the monitor is told again if it has made no new file; also how often old files are compressed. */
const remindMs = 2000;

interface LogParts extends LogSource {
  readonly path: string;
  readonly containerId: string;
  /** Called when the log has been removed, and when nothing of it is left to be done. */
  readonly forget: () => void;
  readonly left: () => void;
  readonly log: Log;
}

/** What a walk over the blocks of a log depends on. */
export interface Walk {
  /** Where it ends; null: it follows. */
  readonly end: LogPosition | null;
  /** With nothing left to read: whether more can come. */
  readonly isOver: () => boolean;
  /** Rung when there may be more. */
  readonly bell: Bell;
  readonly signal: AbortSignal;
  /** Gives an empty block when woken for nothing. */
  readonly tellsWaking?: boolean;
}

export class LogFile implements ContainerLog {
  readonly path: string;
  readonly forwarder: Forwarder | null;
  readonly #parts: LogParts;
  readonly #files: LogFiles;
  readonly #growth: Growth;
  readonly #readers = new Set<Cursor>();

  constructor(parts: LogParts) {
    this.path = parts.path;
    this.#parts = parts;
    this.#growth = new Growth(parts.path);
    this.#files = new LogFiles({
      path: parts.path,
      limits: parts.plan.limits,
      reopen: parts.reopen,
      needed: () => Math.min(Number.POSITIVE_INFINITY, ...Array.from(this.#readers, (reader) => reader.generation)),
      hold: () => this.forwarder,
    });
    const { config } = parts.plan;
    const driver = drivers.get(config.Type)?.forward ?? null;
    this.forwarder =
      driver &&
      new Forwarder({
        driver,
        options: config.Config,
        files: this.#files,
        containerId: parts.containerId,
        subject: parts.subject,
        log: parts.log,
        blocks: (cursor, walk) => this.#blocks(cursor, walk),
        subscribe: (changed, pollMs) => this.#growth.subscribe(changed, pollMs),
      });
  }

  read(query: LogQuery, ended: Promise<unknown>, signal: AbortSignal): AsyncIterable<Buffer> {
    return this.#read(query, 'tail', ended, signal);
  }

  readFrom(position: LogPosition, query: LogQuery, ended: Promise<unknown>, signal: AbortSignal) {
    return this.#read({ ...query, follow: true }, position, ended, signal);
  }

  async position(): Promise<LogPosition> {
    return this.#files.end();
  }

  async remove(): Promise<void> {
    const { forwarder } = this;
    this.#parts.forget();
    // Ended while no engine ran, and removed by its AutoRemove: nothing has been sent yet.
    forwarder?.drain();
    if (forwarder?.isRunning) {
      // What it has not sent it reads from deleted files.
      this.#readers.add(forwarder.cursor);
      this.#files.remove();
      void forwarder.finish().finally(() => this.#leave());
    } else {
      this.#files.remove();
      this.#leave();
    }
    forwarder?.forget();
  }

  #leave(): void {
    this.#files.close();
    this.#parts.left();
  }

  /** Keeps the current file below its limit and sends it on while the container runs. Returns the function that ends it. */
  watch(): () => void {
    this.#files.tidy();
    this.forwarder?.begin();
    const endRotation = this.#watchSize();
    return () => {
      endRotation();
      this.forwarder?.end();
    };
  }

  #watchSize(): () => void {
    const { plan, reopen } = this.#parts;
    const { maxSize } = plan.limits;
    if (maxSize <= 0) return () => undefined;
    const failed = (error: unknown): void => {
      const { log, containerId } = this.#parts;
      log.error({ container: containerId, error }, 'a log could not be rotated');
    };
    const guarded = (work: () => void) => (): void => {
      try {
        work();
      } catch (error) {
        failed(error);
      }
    };
    const check = guarded(() => {
      const size = fs.statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
      if (size > maxSize) this.#files.rotate();
    });
    // The word to the monitor can be lost, also to a crash of ours; it then goes on writing to the renamed file.
    const remind = guarded(() => {
      if (!fs.existsSync(this.path) && fs.existsSync(`${this.path}.1`)) reopen();
      this.#files.compress().catch(failed);
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
    this.forwarder?.stop();
    this.#files.close();
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
      const end = this.#files.end();
      if (from === 'tail') await this.#seekTail(cursor, query, end);
      else cursor.moveTo(this.#stillThere(from));
      this.#files.dropPins();
      const rewriter = new LineRewriter(query, from === 'tail');
      const isOver = (): boolean =>
        ending.isOver() || (query.until !== undefined && query.follow && nowNano() > query.until);
      for await (const block of this.#blocks(cursor, { end: query.follow ? null : end, isOver, bell, signal })) {
        yield* rewriter.chunksOf(block);
        if (rewriter.finished) return;
      }
    } finally {
      this.#readers.delete(cursor);
      ending.forget();
      unsubscribe?.();
      signal.removeEventListener('abort', abort);
      if (untilTimer) clearTimeout(untilTimer);
      cursor.close();
      this.#files.dropPins();
    }
  }

  /** Each whole line once and in order, across any number of rotations. */
  async *#blocks(cursor: Cursor, { end, isOver, bell, signal, tellsWaking }: Walk): AsyncGenerator<Block, void, void> {
    const files = this.#files;
    while (!signal.aborted) {
      bell.reset();
      if (cursor.jump) cursor.moveTo(cursor.jump);
      // Asked before the file is read: what was printed before the end is then sure to be seen.
      const over = isOver();
      const complete = files.isComplete(cursor.generation);
      cursor.fd ??= await files.open(cursor.generation);
      const block = await cursor.next(cursor.generation === end?.generation ? end.offset : undefined);
      if (block) {
        yield block;
        continue;
      }
      if (end !== null && cursor.generation >= end.generation) return;
      if (complete || (cursor.fd === null && cursor.generation < files.newest)) {
        cursor.advance();
        files.dropPins();
      } else if (over || end !== null) {
        return;
      } else {
        await bell.rung;
        if (tellsWaking) yield { data: nothing, length: 0, generation: cursor.generation, offset: cursor.offset };
      }
    }
  }

  /** All that is left comes after what has been rotated away. */
  #stillThere(position: LogPosition): LogPosition {
    const { oldest } = this.#files;
    return position.generation >= oldest ? position : { generation: oldest, offset: 0 };
  }

  /** Moves the cursor to the first line asked for. */
  async #seekTail(cursor: Cursor, query: LogQuery, end: LogPosition): Promise<void> {
    const { tail, since } = query;
    if (tail === 0) {
      cursor.moveTo(end);
      return;
    }
    const { oldest } = this.#files;
    cursor.generation = oldest;
    if (tail !== undefined && tail > 0) {
      const search = new TailSearch(tail);
      for (let generation = end.generation; generation >= oldest; generation--) {
        const fd = await this.#files.open(generation);
        if (fd === null) continue;
        try {
          const size = generation === end.generation ? end.offset : fs.fstatSync(fd).size;
          const offset = await search.search(fd, size);
          if (offset === null) continue;
          cursor.moveTo({ generation, offset });
          break;
        } finally {
          closeInBackground(fd);
        }
      }
    }
    // A file last written to before `since` holds nothing of interest; a second for clocks that stepped.
    while (since !== undefined && cursor.generation < end.generation) {
      const modifiedMs = this.#files.modifiedMs(cursor.generation);
      if (modifiedMs !== undefined && BigInt(Math.ceil(modifiedMs) + 1000) * 1_000_000n >= since) break;
      cursor.generation++;
      cursor.offset = 0;
    }
  }
}

const nothing = Buffer.alloc(0);

const timerMax = 2 ** 31 - 1;
function ringAt(nano: bigint, bell: Bell): NodeJS.Timeout {
  const ms = Number((nano - nowNano()) / 1_000_000n) + 1;
  return setTimeout(bell.ring, Math.min(Math.max(ms, 0), timerMax));
}
