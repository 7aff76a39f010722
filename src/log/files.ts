/**
 * The files of one log, numbered by generation: the current one is `newest`, `<path>.1` the one before. A rotation adds one, so a
 * generation keeps its number while its name changes. Renaming and looking up a name are synchronous and so never meet.
 */
import fs from 'node:fs';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { isErrno } from '../platform/libc.ts';
import { closeInBackground } from './io.ts';
import type { LogLimits, LogPosition } from './types.ts';

/** Files deleted by rotation but kept open for a reader that has not come to them; beyond, it misses the oldest. */
const pinnedFilesMax = 512;
const pinnedBytesMax = 128 * 1024 * 1024;
/** What rotation keeps for a forwarder beyond the files it would keep anyway, together with those. */
export const heldBytesMax = 128 * 1024 * 1024;

const compressed = '.gz';
/** The container goes on printing meanwhile: quick rather than small. */
const compressionLevel = 3;

/** What rotation must keep although it is old. */
export interface Hold {
  /** The first generation still needed. */
  readonly generation: number;
  /** A generation, of so many bytes, has to go all the same; those before it have gone. */
  lose(generation: number, bytes: number): void;
}

export interface FilesParts {
  readonly path: string;
  readonly limits: LogLimits;
  /** Tells the monitor to open the file anew. */
  readonly reopen: () => void;
  /** The first generation that a reader has not come to. */
  readonly needed: () => number;
  readonly hold: () => Hold | null;
}

export class LogFiles {
  readonly path: string;
  newest = 0;
  readonly #parts: FilesParts;
  readonly #pinned = new Map<number, { readonly fd: number; readonly size: number; readonly isCompressed: boolean }>();
  #compressing = false;
  #removed = false;

  constructor(parts: FilesParts) {
    this.path = parts.path;
    this.#parts = parts;
  }

  nameOf(generation: number): string {
    return generation === this.newest ? this.path : `${this.path}.${this.newest - generation}`;
  }

  get oldest(): number {
    return this.newest - Math.max(0, ...this.#rotatedNumbers());
  }

  /** The monitor has let go of a generation when a later file is there: it makes the new one before it writes on. */
  isComplete(generation: number): boolean {
    if (generation < this.newest - 1) return true;
    return generation === this.newest - 1 && (this.#removed || fs.existsSync(this.path));
  }

  /** Where the log ends now. */
  end(): LogPosition {
    for (const generation of [this.newest, this.newest - 1]) {
      const size = fs.statSync(this.nameOf(generation), { throwIfNoEntry: false })?.size;
      if (size !== undefined) return { generation, offset: size };
    }
    return { generation: this.newest, offset: 0 };
  }

  /** Null: no such file (any more, or yet). The descriptor is the caller's. */
  async open(generation: number): Promise<number | null> {
    const pin = this.#pinned.get(generation);
    const name = this.nameOf(generation);
    if (pin) {
      const fd = fs.openSync(`/proc/self/fd/${pin.fd}`, 'r');
      return pin.isCompressed ? this.#inflate(fd) : fd;
    }
    const plain = openIfThere(name);
    if (plain !== null) return plain;
    const packed = openIfThere(name + compressed);
    return packed === null ? null : this.#inflate(packed);
  }

  /** When a file was last written to; undefined if it is gone. */
  modifiedMs(generation: number): number | undefined {
    const name = this.nameOf(generation);
    const stat = [name, name + compressed].map((each) => fs.statSync(each, { throwIfNoEntry: false }));
    return (stat[0] ?? stat[1])?.mtimeMs;
  }

  inodeOf(generation: number): bigint {
    return fs.statSync(this.nameOf(generation), { bigint: true, throwIfNoEntry: false })?.ino ?? 0n;
  }

  /** The generation that is this file; null when it is gone. */
  generationOf(inode: bigint): number | null {
    for (let { newest: generation, oldest } = this; generation >= oldest; generation--)
      if (this.inodeOf(generation) === inode) return generation;
    return null;
  }

  /** Bytes behind a position, of files that are not compressed. */
  bytesAfter({ generation, offset }: LogPosition): number {
    let bytes = -offset;
    for (let each = generation; each <= this.newest; each++) bytes += this.#sizeOf(each);
    return Math.max(0, bytes);
  }

  /** The position so many bytes before the end, not at the beginning of a line. */
  beforeEnd(bytes: number): LogPosition {
    let missing = bytes;
    for (let { newest: generation, oldest } = this; generation >= oldest; generation--) {
      const size = this.#sizeOf(generation);
      if (size >= missing) return { generation, offset: size - missing };
      missing -= size;
    }
    return { generation: this.oldest, offset: 0 };
  }

  #sizeOf(generation: number): number {
    return fs.statSync(this.nameOf(generation), { throwIfNoEntry: false })?.size ?? 0;
  }

  #rotatedNumbers(): number[] {
    const prefix = `${path.basename(this.path)}.`;
    const numbers = namesIn(path.dirname(this.path))
      .filter((name) => name.startsWith(prefix))
      .map((name) => /^(\d+)(?:\.gz)?$/.exec(name.slice(prefix.length))?.[1])
      .filter((digits) => digits !== undefined);
    return [...new Set(numbers)].map(Number);
  }

  // ---- rotation

  /** What a crash has left half done. */
  tidy(): void {
    for (const number of this.#rotatedNumbers()) {
      const name = `${this.path}.${number}`;
      if (fs.existsSync(name + compressed)) fs.rmSync(name, { force: true });
    }
    fs.rmSync(this.#workFile, { force: true });
  }

  /** One older file is always kept: it is being written to until the monitor has made the next. */
  rotate(): void {
    const last = Math.max(this.#parts.limits.maxFiles - 1, 1);
    for (const number of this.#rotatedNumbers().sort((a, b) => b - a)) {
      const generation = this.newest - number;
      if (number >= last && !this.#keeps(generation)) this.#discard(generation);
      else
        for (const suffix of ['', compressed])
          renameIfThere(`${this.path}.${number}${suffix}`, `${this.path}.${number + 1}${suffix}`);
    }
    fs.renameSync(this.path, `${this.path}.1`);
    this.newest++;
    this.#parts.reopen();
  }

  /** Whether a forwarder still needs it, and may. */
  #keeps(generation: number): boolean {
    const hold = this.#parts.hold();
    if (hold === null || generation < hold.generation) return false;
    if (this.bytesAfter({ generation, offset: 0 }) <= heldBytesMax) return true;
    hold.lose(generation, this.#sizeOf(generation));
    return false;
  }

  /** Unlinks a file; its blocks are given back in the background, when no reader needs it any more. */
  #discard(generation: number): void {
    const name = this.nameOf(generation);
    for (const each of [name, name + compressed]) {
      const fd = openIfThere(each);
      if (fd === null) continue;
      fs.unlinkSync(each);
      this.#pinned.set(generation, { fd, size: fs.fstatSync(fd).size, isCompressed: each !== name });
    }
    this.dropPins();
  }

  dropPins(): void {
    const needed = this.#parts.needed();
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

  close(): void {
    for (const { fd } of this.#pinned.values()) closeInBackground(fd);
    this.#pinned.clear();
  }

  /** Deletes all files; readers that are registered can still come to them until `close`. */
  remove(): void {
    for (let generation = this.oldest; generation <= this.newest; generation++) this.#discard(generation);
    fs.rmSync(this.#workFile, { force: true });
    fs.rmSync(`${this.path}.tmp`, { force: true });
    this.#removed = true;
  }

  // ---- compression

  get #workFile(): string {
    return `${this.path}.compressing`;
  }

  /** Compresses what is complete and has been forwarded, one file at a time. */
  async compress(): Promise<void> {
    if (this.#compressing || !this.#parts.limits.compress) return;
    this.#compressing = true;
    try {
      for (let generation = this.oldest; generation < this.newest; generation++) {
        const hold = this.#parts.hold();
        if (!this.isComplete(generation) || (hold !== null && generation >= hold.generation)) break;
        const fd = openIfThere(this.nameOf(generation));
        if (fd !== null) await this.#compressOne(generation, fd);
      }
    } finally {
      this.#compressing = false;
    }
  }

  async #compressOne(generation: number, fd: number): Promise<void> {
    const { mtime, atime } = fs.fstatSync(fd);
    const work = this.#workFile;
    try {
      await pipeline(
        fs.createReadStream('', { fd, start: 0 }),
        createGzip({ level: compressionLevel }),
        fs.createWriteStream(work, { mode: 0o640 }),
      );
    } catch (error) {
      // On a full disk above all, half a copy helps nobody.
      fs.rmSync(work, { force: true });
      throw error;
    }
    // By now it may have another name, or be gone.
    const name = this.nameOf(generation);
    if (this.#removed || !fs.existsSync(name)) {
      fs.rmSync(work, { force: true });
      return;
    }
    fs.utimesSync(work, atime, mtime);
    fs.renameSync(work, name + compressed);
    fs.unlinkSync(name);
  }

  /** The text of a compressed file, in a file without a name: searching from the end needs all of it. */
  async #inflate(fd: number): Promise<number> {
    const name = `${this.path}.reading-${process.hrtime.bigint()}`;
    const text = fs.openSync(name, 'wx+', 0o600);
    fs.unlinkSync(name);
    try {
      const target = fs.createWriteStream('', { fd: text, autoClose: false });
      await pipeline(fs.createReadStream('', { fd, start: 0 }), createGunzip(), target);
      return text;
    } catch (error) {
      fs.closeSync(text);
      throw error;
    }
  }
}

function openIfThere(name: string): number | null {
  try {
    return fs.openSync(name, 'r');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return null;
    throw error;
  }
}

function renameIfThere(from: string, to: string): void {
  try {
    fs.renameSync(from, to);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}

function namesIn(dir: string): readonly string[] {
  try {
    return fs.readdirSync(dir);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}
