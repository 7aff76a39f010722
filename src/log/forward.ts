/**
 * Sends a container's log on to a sink, as a reader of the log file that remembers how far it got. Neither the container nor the
 * daemon ever waits for it: what a sink does not take stays in the file, up to a bound. See docs/logs.md.
 */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Walk } from './container-log.ts';
import { Bell, type Block, Cursor } from './cursor.ts';
import type { ForwardingDriver, LogLine, Sender } from './drivers/types.ts';
import type { Hold, LogFiles } from './files.ts';
import { isBefore, LineJoiner, type Progress } from './join.ts';
import { bufferLimit } from './options.ts';
import { PositionFile, type SavedPoint } from './position.ts';
import type { LogOptions, LogPosition, LogSubject } from './types.ts';

const pollMs = 5;
/** How often the position is written down at most: so much is sent twice after a kill. */
const saveMs = 20;
/** How often a sink is looked at for being too far behind. */
const behindMs = 100;
const retryMsMin = 100;
const retryMsMax = 30_000;
/** A connection that held so long begins a new row of attempts when it breaks. */
const steadyMs = 5000;
/** What was handed to the kernel so shortly before a connection broke may be lost in it: it is sent again, so many blocks at most. */
const repeatMs = 1000;
const repeatBlocksMax = 16;
/** A sink that comes and goes is told of once in that time. */
const tellMs = 60_000;
/** How long the last lines of a container that is removed are tried. */
const farewellMs = 10_000;

export interface ForwarderParts {
  readonly driver: ForwardingDriver;
  readonly options: LogOptions;
  readonly files: LogFiles;
  readonly containerId: string;
  readonly subject: () => LogSubject;
  readonly log: Log;
  readonly blocks: (cursor: Cursor, walk: Walk) => AsyncGenerator<Block>;
  readonly subscribe: (changed: () => void, pollMs: number) => () => void;
}

interface Sent {
  readonly lines: readonly LogLine[];
  readonly at: number;
}

export class Forwarder implements Hold {
  readonly cursor = new Cursor();
  isRunning = false;
  /** Bytes of the log that the sink has missed. */
  lostBytes = 0;
  readonly #parts: ForwarderParts;
  readonly #position: PositionFile;
  readonly #bell = new Bell();
  readonly #bufferLimit: number;
  #stop = new AbortController();
  /** The container runs: more may come. */
  #live = false;
  /** The container has been removed: nothing is written down any more. */
  #forgotten = false;
  /** Null: not known yet, so everything is needed. */
  #progress: Progress | null = null;
  #savedAt = 0;
  #saveTimer: NodeJS.Timeout | null = null;
  #sender: Sender | null = null;
  #connectedAt = 0;
  #attempts = 0;
  #toldAt = Number.NEGATIVE_INFINITY;
  #hasToldFailure = false;
  #missedToldAt = Number.NEGATIVE_INFINITY;
  #recent: Sent[] = [];
  #repeat: readonly LogLine[] = [];
  #lookedAt = 0;

  constructor(parts: ForwarderParts) {
    this.#parts = parts;
    this.#position = new PositionFile(`${parts.files.path}.sent`);
    this.#bufferLimit = bufferLimit(parts.options);
    const saved = this.#position.read();
    this.lostBytes = saved?.lostBytes ?? 0;
  }

  /** The first generation that is not all sent, as far as is written down. */
  get generation(): number {
    if (this.#progress === null) return Number.NEGATIVE_INFINITY;
    return Math.min(this.#progress.stdout.generation, this.#progress.stderr.generation);
  }

  /** For whoever looks after the engine. */
  get warning(): string | undefined {
    if (this.lostBytes === 0) return undefined;
    const { name } = this.#parts.subject();
    return `the log sink of container ${name} has missed ${this.lostBytes} bytes of its log`;
  }

  /** The container runs. */
  begin(): void {
    this.#live = true;
    this.drain();
  }

  /** The container has ended: the rest is sent, and then the connection ends. */
  end(): void {
    this.#live = false;
    this.#bell.ring();
  }

  /** Sends what there is. */
  drain(): void {
    if (this.isRunning || this.#stop.signal.aborted) this.#bell.ring();
    else void this.#run();
  }

  /** The container is being removed: what is left gets a last chance. */
  async finish(): Promise<void> {
    this.end();
    const patience = setTimeout(() => this.stop(), farewellMs);
    while (this.isRunning) await sleep(20);
    clearTimeout(patience);
  }

  forget(): void {
    this.#forgotten = true;
    this.#position.close();
    this.#position.remove();
  }

  stop(): void {
    this.#live = false;
    this.#stop.abort();
    this.#bell.ring();
    this.#save();
  }

  /** A file has to go before it was sent. */
  lose(generation: number, bytes: number): void {
    const { cursor } = this;
    const next = { generation: generation + 1, offset: 0 };
    if (cursor.generation <= generation) {
      this.#missed(bytes - (cursor.generation === generation ? cursor.offset : 0));
      cursor.jump = next;
    }
    this.#progress = {
      stdout: later(this.#progress?.stdout ?? next, next),
      stderr: later(this.#progress?.stderr ?? next, next),
    };
    this.#write();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    this.isRunning = true;
    let failed = false;
    const unsubscribe = this.#parts.subscribe(this.#bell.ring, pollMs);
    try {
      const from = this.#startingPoint();
      this.#progress = from;
      const joiner = new LineJoiner(from);
      this.cursor.moveTo(isBefore(from.stdout, from.stderr) ? from.stdout : from.stderr);
      const walk: Walk = { end: null, isOver: () => !this.#live, bell: this.#bell, signal, tellsWaking: true };
      for await (const block of this.#parts.blocks(this.cursor, walk)) {
        await this.#deliver(joiner.feed(block));
        this.#advance(joiner.progress);
        this.#keepUp();
        // Others have their turn, however much there is to send.
        await turn();
      }
      if (signal.aborted) return;
      await this.#deliver(joiner.flush());
      this.#advance(joiner.progress);
    } catch (error) {
      failed = !signal.aborted;
      if (failed) this.#tell('error', error, 'forwarding a log failed; it is tried again');
    } finally {
      unsubscribe();
      this.cursor.close();
      this.#disconnect();
      this.#save();
      this.#position.close();
      this.isRunning = false;
      this.#recent = [];
    }
    if (failed) setTimeout(() => this.drain(), retryMsMax).unref();
    // Started again while the last lines were on their way.
    else if (this.#live && !signal.aborted) this.drain();
  }

  /** What was written down, as far as its files are still there; else the oldest there is. */
  #startingPoint(): Progress {
    const { files } = this.#parts;
    const saved = this.#position.read();
    const oldest = { generation: files.oldest, offset: 0 };
    const find = (point: SavedPoint | undefined): LogPosition => {
      const generation = point && point.inode > 0n ? files.generationOf(point.inode) : null;
      return point && generation !== null ? { generation, offset: point.offset } : oldest;
    };
    return { stdout: find(saved?.stdout), stderr: find(saved?.stderr) };
  }

  // ---- sending

  /** Resolves when the sink has the lines, however long that takes; rejects when the forwarder is stopped. */
  async #deliver(lines: readonly LogLine[]): Promise<void> {
    const { signal } = this.#stop;
    while (lines.length > 0 || this.#repeat.length > 0) {
      signal.throwIfAborted();
      try {
        const sender = this.#sender ?? (await this.#connect());
        if (this.#repeat.length > 0) {
          await sender.send(this.#repeat);
          this.#repeat = [];
        }
        await sender.send(lines);
        this.#succeeded(lines);
        return;
      } catch (error) {
        signal.throwIfAborted();
        this.#broken(error);
        const delay = Math.min(
          Math.max(this.#parts.driver.retryMs(this.#parts.options), retryMsMin) * 2 ** this.#attempts,
          retryMsMax,
        );
        this.#attempts = Math.min(this.#attempts + 1, 16);
        // Not all at the same moment when a sink comes back.
        await sleep(delay * (0.75 + Math.random() / 2), undefined, { signal });
      }
    }
  }

  async #connect(): Promise<Sender> {
    const { driver, options, subject } = this.#parts;
    const sender = await driver.connect(options, subject(), this.#stop.signal);
    sender.onBroken = (error) => {
      if (this.#sender !== sender) return;
      this.#broken(error);
      this.#bell.ring();
    };
    this.#sender = sender;
    this.#connectedAt = performance.now();
    return sender;
  }

  #succeeded(lines: readonly LogLine[]): void {
    if (this.#hasToldFailure) this.#tell('info', undefined, 'the log is forwarded again');
    this.#hasToldFailure = false;
    if (!this.#parts.driver.repeats || lines.length === 0) return;
    const at = performance.now();
    while (this.#recent.length >= repeatBlocksMax || (this.#recent[0]?.at ?? at) < at - repeatMs) this.#recent.shift();
    this.#recent.push({ lines, at });
  }

  #broken(error: unknown): void {
    const now = performance.now();
    if (this.#sender !== null && now - this.#connectedAt > steadyMs) this.#attempts = 0;
    this.#disconnect();
    const doubtful = this.#recent.filter(({ at }) => at >= now - repeatMs);
    this.#repeat = [...this.#repeat, ...doubtful.flatMap(({ lines }) => lines)];
    this.#recent = [];
    if (this.#hasToldFailure || now - this.#toldAt < tellMs) return;
    this.#tell('warn', error, 'the log cannot be forwarded; it waits in its file');
    this.#hasToldFailure = true;
    this.#toldAt = now;
  }

  #disconnect(): void {
    const sender = this.#sender;
    this.#sender = null;
    if (sender === null) return;
    sender.onBroken = null;
    sender.close();
  }

  #tell(level: 'info' | 'warn' | 'error', error: unknown, message: string): void {
    const why = error === undefined ? {} : { why: messageOf(error) };
    this.#parts.log[level]({ container: this.#parts.containerId, ...why }, message);
  }

  // ---- how far it got

  #advance(progress: Progress): void {
    this.#progress = {
      stdout: later(this.#progress?.stdout ?? progress.stdout, progress.stdout),
      stderr: later(this.#progress?.stderr ?? progress.stderr, progress.stderr),
    };
    const wait = this.#savedAt + saveMs - performance.now();
    if (wait <= 0) this.#write();
    else this.#saveTimer ??= setTimeout(() => this.#save(), wait).unref();
  }

  /** In `mode=non-blocking` the sink is at most `max-buffer-size` behind: older lines are passed over. */
  #keepUp(): void {
    const now = performance.now();
    if (this.#bufferLimit === Number.POSITIVE_INFINITY || now - this.#lookedAt < behindMs) return;
    this.#lookedAt = now;
    const { files } = this.#parts;
    const { cursor } = this;
    const behind = files.bytesAfter({ generation: cursor.generation, offset: cursor.offset });
    if (behind <= this.#bufferLimit) return;
    cursor.jump = files.beforeEnd(this.#bufferLimit);
    this.#missed(behind - this.#bufferLimit);
  }

  #missed(bytes: number): void {
    if (bytes <= 0) return;
    this.lostBytes += bytes;
    const now = performance.now();
    if (now - this.#missedToldAt < tellMs) return;
    this.#missedToldAt = now;
    const { log, containerId } = this.#parts;
    log.warn(
      { container: containerId, lostBytes: this.lostBytes },
      'the sink of a log has missed lines: it is too slow',
    );
  }

  #save(): void {
    if (this.#progress !== null) this.#write();
  }

  #write(): void {
    if (this.#saveTimer) clearTimeout(this.#saveTimer);
    this.#saveTimer = null;
    this.#savedAt = performance.now();
    if (this.#forgotten || this.#progress === null) return;
    const { files } = this.#parts;
    const saved = (point: LogPosition): SavedPoint => ({
      inode: files.inodeOf(point.generation),
      offset: point.offset,
    });
    const { stdout, stderr } = this.#progress;
    try {
      this.#position.write({ stdout: saved(stdout), stderr: saved(stderr), lostBytes: this.lostBytes });
    } catch (error) {
      this.#tell('error', error, 'how far a log has been forwarded could not be written down');
    }
  }
}

const later = (a: LogPosition, b: LogPosition): LogPosition => (isBefore(a, b) ? b : a);
