/**
 * Turns an archive, compressed or not, from a file or a stream, into something a worker thread can read plainly.
 *
 * Inflating goes on in a child process (`igzip`, `pigz`, `zstd`, `xz`, `bzip2`), so that it, the worker and the network
 * overlap and no byte passes the main thread twice; where a program is missing, in Node's own thread pool.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { Readable, Transform, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout } from 'node:timers/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { invalid, notImplemented } from '../lib/errors.ts';
import { makePipe } from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';
import { createRing, type Ring, RingWriter } from './ring.ts';
import type { ApplySource, Arriving, Compression } from './types.ts';

const pipeSize = 1024 * 1024;
const magicLength = 6;
const progressMs = 100;

/** Recognises a compression by the first bytes of a file. */
export function recognise(start: Uint8Array): Compression {
  const begins = (...bytes: readonly number[]) => bytes.every((byte, at) => start[at] === byte);
  if (begins(0x1f, 0x8b)) return 'gzip';
  if (begins(0x28, 0xb5, 0x2f, 0xfd)) return 'zstd';
  if (begins(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00)) return 'xz';
  if (begins(0x42, 0x5a, 0x68)) return 'bzip2';
  // A zstd archive may begin with a skippable frame.
  if (((start[0] ?? 0) & 0xf0) === 0x50 && start[1] === 0x2a && start[2] === 0x4d && start[3] === 0x18) return 'zstd';
  return 'none';
}

const programs: Readonly<Record<Exclude<Compression, 'none'>, readonly (readonly string[])[]>> = {
  gzip: [
    ['igzip', '-d', '-c'],
    ['pigz', '-d', '-c'],
  ],
  zstd: [['zstd', '-d', '-c', '-q']],
  xz: [['xz', '-d', '-c', '-q', '--memlimit-decompress=1GiB']],
  bzip2: [['bzip2', '-d', '-c', '-q']],
};

const found = new Map<string, string | null>();

/** Absolute path of a program of the host; looked up once. */
function programPath(name: string): string | null {
  let place = found.get(name);
  if (place === undefined) {
    const folders = (process.env.PATH ?? '/usr/bin:/bin').split(':').filter((folder) => path.isAbsolute(folder));
    place = folders.map((folder) => path.join(folder, name)).find((file) => fs.existsSync(file)) ?? null;
    found.set(name, place);
  }
  return place;
}

/** Where a worker finds plain bytes up to their end. */
export type Source =
  /** A descriptor that never keeps its reader waiting for a client: what is read was here when it began. */
  | { readonly file: number }
  /** The end of a pipe, filled as fast as a client sends. */
  | { readonly pipe: number }
  /** Memory, filled as fast as a client sends. */
  | { readonly ring: Ring };

export interface Input {
  readonly source: Source;
  /** Resolves when all has been written for the reader, with what went wrong on the way, if anything did. Never rejects. */
  readonly settled: Promise<Error | null>;
  /** Makes the reader see the end of its source soon. */
  cancel(reason: Error): void;
  /** Ends what still goes on and gives the source back. The reader must have stopped. */
  close(): Promise<void>;
}

/** How long a failed input may take to say why, after its reader met the end. */
const failureWaitMs = 100;

/**
 * Opens a source, has it read by `work` and closes it. Its signal makes the reader see the end, and sets the flag it looks
 * at. What went wrong on the way in counts more than what the reader makes of it.
 */
export async function consume<T>(
  source: Pick<ApplySource, 'from' | 'progress' | 'signal'>,
  work: (from: Source, cancel: Int32Array) => Promise<T>,
): Promise<T> {
  const { signal } = source;
  signal?.throwIfAborted();
  const input = await openInput(source);
  const cancel = new Int32Array(new SharedArrayBuffer(4));
  const abort = () => {
    Atomics.store(cancel, 0, 1);
    input.cancel(signal?.reason instanceof Error ? signal.reason : new Error('aborted'));
  };
  signal?.addEventListener('abort', abort, { once: true });
  if (signal?.aborted === true) abort(); // while the source was looked at
  try {
    const result = await work(input.source, cancel);
    const failure = await input.settled;
    if (failure !== null) throw failure;
    signal?.throwIfAborted();
    return result;
  } catch (error) {
    // An archive that ends too early is seldom the archive's fault: the network or the decompressor knows better.
    signal?.throwIfAborted();
    throw (await Promise.race([input.settled, setTimeout(failureWaitMs, null)])) ?? error;
  } finally {
    signal?.removeEventListener('abort', abort);
    await input.close();
  }
}

/** Opens a source. Nothing is left behind when it throws. */
export async function openInput(source: Pick<ApplySource, 'from' | 'progress'>): Promise<Input> {
  return 'path' in source.from ? openFile(source.from.path, source.progress) : openStream(source.from, source.progress);
}

async function openFile(file: string, progress: ApplySource['progress']): Promise<Input> {
  const handle = fs.openSync(file, 'r');
  try {
    const start = Buffer.alloc(magicLength);
    const compression = recognise(start.subarray(0, fs.readSync(handle, start, 0, magicLength, 0)));
    const meter = progress === undefined ? undefined : setInterval(() => progress(positionOf(handle)), progressMs);
    const finish = () => {
      clearInterval(meter);
      if (progress !== undefined) progress(positionOf(handle));
      fs.closeSync(handle);
    };
    if (compression === 'none') return new PlainInput(handle, finish);
    const program = command(compression);
    if (program === null) {
      const bytes = fs.createReadStream(file, { fd: handle, autoClose: false });
      return new PipedInput('file', bytes, compression, null, finish);
    }
    return new PipedInput('file', handle, compression, program, finish);
  } catch (error) {
    fs.closeSync(handle);
    throw error;
  }
}

/** The offset is shared with the child that reads the file. */
function positionOf(fd: number): number {
  return Number(/^pos:\s*(\d+)/.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? 0);
}

async function openStream({ stream, owned = false }: Arriving, progress: ApplySource['progress']): Promise<Input> {
  const { start, whole } = await peek(stream, magicLength);
  const compression = recognise(start);
  const counted = progress === undefined ? whole : countBytes(whole, progress);
  if (compression === 'none') return new RingInput(counted, owned);
  return new PipedInput('pipe', counted, compression, command(compression), () => undefined);
}

function command(compression: Exclude<Compression, 'none'>): readonly string[] | null {
  for (const [name = '', ...args] of programs[compression]) {
    const program = programPath(name);
    if (program !== null) return [program, ...args];
  }
  if (compression === 'gzip' || compression === 'zstd') return null;
  throw notImplemented(`a layer is compressed by ${compression}, and no such program is installed`);
}

/** The first bytes of a stream, and a stream that still has them. */
async function peek(stream: Readable, length: number): Promise<{ start: Buffer; whole: Readable }> {
  const pieces: Buffer[] = [];
  let held = 0;
  while (held < length) {
    const piece = stream.read() as Buffer | null;
    if (piece !== null) {
      pieces.push(piece);
      held += piece.length;
      continue;
    }
    if (stream.errored !== null) throw stream.errored;
    if (stream.readableEnded || stream.destroyed) break;
    if (!(await readable(stream))) break;
  }
  const start = Buffer.concat(pieces);
  // What has ended takes nothing back.
  if (held < length) return { start, whole: Readable.from([start], { objectMode: false }) };
  stream.unshift(start);
  return { start, whole: stream };
}

/** False at the end of the stream; throws what the stream fails with. */
function readable(stream: Readable): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const done = (work: () => void) => () => {
      for (const [event, listener] of listeners) stream.off(event, listener);
      work();
    };
    const listeners: [string, (error: Error) => void][] = [
      ['readable', done(() => resolve(true))],
      ['end', done(() => resolve(false))],
      ['close', done(() => resolve(false))],
    ];
    listeners.push(['error', (error: Error) => done(() => reject(error))()]);
    for (const [event, listener] of listeners) stream.on(event, listener);
  });
}

function countBytes(stream: Readable, progress: (bytes: number) => void): Readable {
  const through = counter(progress);
  stream.pipe(through);
  stream.on('error', (error) => through.destroy(error));
  through.on('close', () => stream.destroy());
  return through;
}

function counter(progress: (bytes: number) => void): Transform {
  let bytes = 0;
  let told = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      const now = performance.now();
      if (now - told >= progressMs) {
        told = now;
        progress(bytes);
      }
      done(null, chunk);
    },
    flush(done) {
      progress(bytes);
      done();
    },
  });
}

/** An uncompressed file: the worker reads it itself. */
class PlainInput implements Input {
  readonly source: Source;
  readonly settled = Promise.resolve(null);
  readonly #finish: () => void;

  constructor(fd: number, finish: () => void) {
    this.source = { file: fd };
    this.#finish = finish;
  }

  async close(): Promise<void> {
    this.#finish();
  }

  cancel(): void {
    // The worker looks at its flag between two reads, and a file never keeps it waiting.
  }
}

/** A stream of ours in memory that the worker sees. */
class RingInput implements Input {
  readonly source: Source;
  readonly settled: Promise<Error | null>;
  readonly #abort = new AbortController();
  #reason: Error | null = null;

  constructor(from: Readable, owned: boolean) {
    const ring = createRing();
    this.source = { ring };
    this.settled = pipeline(from, new RingWriter(ring, { owned }), { signal: this.#abort.signal }).then(
      () => this.#reason,
      (error: unknown) => this.#reason ?? (error instanceof Error ? error : new Error(String(error))),
    );
  }

  cancel(reason: Error): void {
    this.#reason ??= reason;
    this.#abort.abort();
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.settled;
  }
}

/** A pipe that is filled by a child process or by a stream of ours. */
class PipedInput implements Input {
  readonly source: Source;
  readonly settled: Promise<Error | null>;
  readonly #read: number;
  readonly #finish: () => void;
  readonly #abort = new AbortController();
  #reason: Error | null = null;

  /** `as`: how its reader is told of the pipe. */
  constructor(
    as: 'file' | 'pipe',
    from: Readable | number,
    compression: Exclude<Compression, 'none'>,
    program: readonly string[] | null,
    finish: () => void,
  ) {
    const { read, write } = makePipe(pipeSize);
    this.#read = read;
    this.source = as === 'file' ? { file: read } : { pipe: read };
    this.#finish = finish;
    const { signal } = this.#abort;
    const work =
      program === null
        ? inflateHere(from as Readable, compression, write, signal)
        : inflateInChild(from, program, write, signal);
    this.settled = work.then(
      () => this.#reason,
      (error: unknown) => this.#reason ?? (error instanceof Error ? error : new Error(String(error))),
    );
  }

  cancel(reason: Error): void {
    this.#reason ??= reason;
    this.#abort.abort();
  }

  async close(): Promise<void> {
    fs.closeSync(this.#read); // a writer that is still there meets a broken pipe
    this.#abort.abort();
    await this.settled;
    this.#finish();
  }
}

async function inflateHere(
  from: Readable,
  compression: Exclude<Compression, 'none'>,
  write: number,
  signal: AbortSignal,
): Promise<void> {
  const into = new net.Socket({ fd: write, readable: false, writable: true });
  const inflate = compression === 'gzip' ? createGunzip({ chunkSize: 256 * 1024 }) : createZstdDecompress();
  try {
    await pipeline(from, inflate, into, { signal });
  } catch (error) {
    if (error instanceof Error && 'code' in error && /^(Z_|ZSTD_)/.test(String(error.code))) {
      throw invalid(`broken ${compression} data: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

async function inflateInChild(
  from: Readable | number,
  [program = '', ...args]: readonly string[],
  write: number,
  signal: AbortSignal,
): Promise<void> {
  let child: ChildProcess;
  try {
    child = spawn(program, args, { stdio: [typeof from === 'number' ? from : 'pipe', write, 'pipe'] });
  } finally {
    fs.closeSync(write);
  }
  const stop = () => child.kill('SIGKILL');
  signal.addEventListener('abort', stop, { once: true });
  let complaint = '';
  child.stderr?.on('data', (data: Buffer) => {
    if (complaint.length < 300) complaint += data.toString();
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve();
      else
        reject(
          invalid(`broken compressed data: ${complaint.trim().slice(0, 300) || `${path.basename(program)} failed`}`),
        );
    });
  });
  const fed = typeof from === 'number' ? Promise.resolve() : feed(from, child.stdin as Writable, signal);
  try {
    const [feeding, ending] = await Promise.allSettled([fed, ended]);
    // A source that broke off explains the child's complaint about missing bytes, not the other way round.
    if (feeding.status === 'rejected') throw feeding.reason;
    if (ending.status === 'rejected') throw ending.reason;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

async function feed(from: Readable, into: Writable, signal: AbortSignal): Promise<void> {
  try {
    await pipeline(from, into, { signal });
  } catch (error) {
    // The child has ended already; its exit code says why.
    if (from.errored === error || !isErrno(error, 'EPIPE', 'ECONNRESET')) throw error;
  }
}
