/**
 * Blobs on their way from a registry into files `<directory>/blob-<hex>`.
 *
 * A file only grows, so that a connection that is cut, a cancelled pull and a killed daemon all go on by range where they
 * stopped. It is hashed in a thread while it grows and counts only once its digest is right; readers may follow it before
 * that, but see its end only then. Pulls that want the same blob at the same time share one download.
 */

import { constants } from 'node:fs';
import { type FileHandle, open, readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { internal, messageOf } from '../lib/errors.ts';
import type { Digest } from '../lib/ids.ts';
import { ContentError, RegistryError, UnreachableError } from './errors.ts';
import type { Hasher } from './hasher.ts';
import type { Repository } from './repository.ts';
import { retryDelayMs, type Slots, sleep, unlessAborted } from './waiting.ts';

export interface BlobToFetch {
  readonly digest: Digest;
  readonly size: number;
}

export type DownloadState = 'waiting' | 'downloading' | 'verifying' | 'complete' | 'failed';

export interface DownloadsOptions {
  readonly hasher: Hasher;
  /** How many blobs are fetched at once, over all pulls. */
  readonly slots: Slots;
  /** First pause after a cut, in milliseconds. */
  readonly backOffMs: number;
}

const failuresMax = 5;
const pendingBytesMax = 4 * 1024 * 1024;
const buffersPerWriteMax = 512;
const readBytes = 1024 * 1024;
/** What a reader that unpacks gets through, roughly; and the rest of a download that is not worth following any more. */
const readerBytesPerMs = 200_000;
const restMsMin = 300;

export class Download {
  readonly blob: BlobToFetch;
  readonly path: string;
  readonly #options: DownloadsOptions;
  readonly #sources: readonly Repository[];
  readonly #leaving = new AbortController();
  readonly #listeners = new Set<() => void>();
  #state: DownloadState = 'waiting';
  #received = 0;
  #resumed = false;
  #begun = { ms: 0, bytes: 0 };
  #error: Error | null = null;
  /** Settles when the blob is complete and verified, or failed, and the file is closed. */
  readonly done: Promise<void>;

  /** Begins when `after` has settled: an earlier download into the same file may still be ending. */
  constructor(
    path: string,
    blob: BlobToFetch,
    sources: readonly Repository[],
    options: DownloadsOptions,
    after: Promise<void>,
  ) {
    this.blob = blob;
    this.path = path;
    this.#sources = sources;
    this.#options = options;
    this.done = this.#run(after).then(
      () => this.#become('complete'),
      (error: unknown) => {
        this.#error = error instanceof Error ? error : internal(String(error));
        this.#become('failed');
        throw this.#error;
      },
    );
    this.done.catch(() => undefined);
  }

  get state(): DownloadState {
    return this.#state;
  }

  /** Bytes in the file so far. */
  get received(): number {
    return this.#received;
  }

  /** True when some of the bytes were there before. */
  get resumed(): boolean {
    return this.#resumed;
  }

  /** Calls back at each change of `state` and `received`. Returns the function that ends it. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Resolves when a reader should begin: when the blob is complete, or, for one that takes long, when reading what is here
   * takes as long as fetching the rest. Such a reader ends with the download and is hardly ever kept waiting, so that it
   * may hold a thread. Rejects when the download fails or `signal` aborts.
   */
  async readable(signal: AbortSignal): Promise<void> {
    while (this.#state !== 'complete' && !this.#worthFollowing()) {
      if (this.#state === 'failed') throw this.#error;
      const changed = Promise.withResolvers<void>();
      const end = this.onChange(changed.resolve);
      await unlessAborted(changed.promise, signal).finally(end);
    }
  }

  #worthFollowing(): boolean {
    const elapsedMs = performance.now() - this.#begun.ms;
    if (this.#state !== 'downloading' || elapsedMs < restMsMin) return false;
    const restMs = ((this.blob.size - this.#received) * elapsedMs) / (this.#received - this.#begun.bytes);
    return restMs > restMsMin && restMs < this.#received / readerBytesPerMs;
  }

  abort(): void {
    this.#leaving.abort(internal('the download was cancelled'));
  }

  #become(state: DownloadState): void {
    this.#state = state;
    for (const listener of [...this.#listeners]) listener();
  }

  async #run(after: Promise<void>): Promise<void> {
    const { signal } = this.#leaving;
    await after;
    const giveBack = await this.#options.slots.take(signal);
    try {
      await this.#fetch(signal);
    } finally {
      giveBack();
    }
  }

  async #fetch(signal: AbortSignal): Promise<void> {
    const file = await open(this.path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    const digesting = this.#options.hasher.file(this.path);
    try {
      const { size } = await file.stat();
      if (size > this.blob.size) await file.truncate(0);
      else this.#received = size;
      this.#resumed = this.#received > 0;
      this.#begun = { ms: performance.now(), bytes: this.#received };
      digesting.grow(this.#received);
      this.#become('downloading');
      const grown = (): void => {
        digesting.grow(this.#received);
        this.#become('downloading');
      };
      await this.#fill(file, grown, signal);
      this.#become('verifying');
      if ((await digesting.finish()) !== this.blob.digest) {
        await unlink(this.path);
        throw new ContentError(`filesystem layer verification failed for digest ${this.blob.digest}`);
      }
    } finally {
      digesting.drop();
      await file.close();
    }
  }

  /** Brings the file to its full size, from one source after the other. */
  async #fill(file: FileHandle, grown: () => void, signal: AbortSignal): Promise<void> {
    const sources = [...this.#sources];
    let failures = 0;
    while (this.#received < this.blob.size) {
      const before = this.#received;
      try {
        await this.#fillFrom(sources[0] as Repository, file, grown, signal);
      } catch (error) {
        signal.throwIfAborted();
        failures = this.#received > before ? 1 : failures + 1;
        const again = error instanceof UnreachableError && failures <= failuresMax;
        if (!again) {
          const next = error instanceof UnreachableError || error instanceof RegistryError;
          if (sources.length === 1 || !next) throw error;
          sources.shift();
          failures = 0;
          continue;
        }
        await sleep(retryDelayMs(failures, this.#options.backOffMs) ?? 0, signal);
      }
    }
  }

  async #fillFrom(source: Repository, file: FileHandle, grown: () => void, signal: AbortSignal): Promise<void> {
    const { offset, body } = await source.blob(this.blob.digest, this.#received, signal);
    // A registry that ignores ranges sends again what is there already.
    let skip = this.#received - offset;
    const writer = new Writer(file, this.#received, (position) => {
      this.#received = position;
      grown();
    });
    let expected = this.blob.size - offset;
    try {
      for await (const chunk of body as AsyncIterable<Buffer>) {
        expected -= chunk.length;
        if (expected < 0)
          throw new ContentError(`the registry sends more than the ${this.blob.size} bytes of ${this.blob.digest}`);
        const skipped = Math.min(skip, chunk.length);
        skip -= skipped;
        if (skipped < chunk.length) await writer.write(skipped === 0 ? chunk : chunk.subarray(skipped));
      }
      await writer.end();
      if (expected > 0)
        throw new UnreachableError(`the registry sent too few bytes of ${this.blob.digest}`, true, undefined);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof ContentError || error instanceof UnreachableError || writer.failed) throw error;
      throw new UnreachableError(
        `the connection broke while ${this.blob.digest} was sent: ${messageOf(error)}`,
        true,
        error,
      );
    } finally {
      await writer.end().catch(() => undefined);
    }
  }

  /** The blob from its first byte, following the file as it grows; ends when the blob is verified, else with its failure. */
  stream(): Readable {
    let file: FileHandle | null = null;
    let at = 0;
    let stopWaiting: () => void = () => undefined;
    const moreOrEnd = async (): Promise<void> => {
      while (at >= this.#received && this.#state !== 'complete' && this.#state !== 'failed') {
        const { promise, resolve } = Promise.withResolvers<void>();
        const end = this.onChange(resolve);
        stopWaiting = resolve;
        await promise.finally(end);
        if (stream.destroyed) return;
      }
    };
    const read = async (): Promise<Buffer | null> => {
      await moreOrEnd();
      if (this.#state === 'failed') throw this.#error;
      if (at >= this.#received) return null;
      file ??= await open(this.path, 'r');
      const buffer = Buffer.allocUnsafeSlow(Math.min(readBytes, this.#received - at));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) throw internal(`${this.path} became shorter while it was read`);
      at += bytesRead;
      return bytesRead < buffer.length ? buffer.subarray(0, bytesRead) : buffer;
    };
    let reading: Promise<unknown> = Promise.resolve();
    const stream = new Readable({
      highWaterMark: readBytes,
      read() {
        reading = read().then(
          (chunk) => !stream.destroyed && stream.push(chunk),
          (error: Error) => stream.destroy(error),
        );
      },
      destroy(error, done) {
        stopWaiting();
        reading
          .then(() => file?.close())
          .then(
            () => done(error),
            (failure: Error) => done(error ?? failure),
          );
      },
    });
    return stream;
  }
}

/** Writes chunks in order, many at a time, while further ones come in; a bounded number wait in memory. */
class Writer {
  readonly #file: FileHandle;
  readonly #wrote: (position: number) => void;
  #position: number;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #writing: Promise<void> | null = null;
  #failure: Error | null = null;

  constructor(file: FileHandle, position: number, wrote: (position: number) => void) {
    this.#file = file;
    this.#position = position;
    this.#wrote = wrote;
  }

  get failed(): boolean {
    return this.#failure !== null;
  }

  /** Waits only when too much is pending. */
  async write(chunk: Buffer): Promise<void> {
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
    this.#writing ??= this.#drain();
    if (this.#pendingBytes > pendingBytesMax) await this.#writing;
    if (this.#failure) throw this.#failure;
  }

  /** Resolves when what was given is in the file. */
  async end(): Promise<void> {
    await this.#writing;
    if (this.#failure) throw this.#failure;
  }

  async #drain(): Promise<void> {
    try {
      while (this.#pending.length > 0) await this.#writeSome(this.#pending.splice(0, buffersPerWriteMax));
    } catch (error) {
      this.#failure = internal(`cannot keep a download: ${messageOf(error)}`, { cause: error });
    } finally {
      this.#writing = null;
    }
  }

  async #writeSome(buffers: Buffer[]): Promise<void> {
    let rest = buffers;
    while (rest.length > 0) {
      const { bytesWritten } = await this.#file.writev(rest, this.#position);
      this.#position += bytesWritten;
      this.#pendingBytes -= bytesWritten;
      rest = without(rest, bytesWritten);
    }
    this.#wrote(this.#position);
  }
}

/** What is left of `buffers` after their first `bytes` bytes. */
function without(buffers: readonly Buffer[], bytes: number): Buffer[] {
  let gone = bytes;
  return buffers.flatMap((buffer) => {
    const cut = Math.min(gone, buffer.length);
    gone -= cut;
    return cut === buffer.length ? [] : [buffer.subarray(cut)];
  });
}

/** A share in a download. Must be left; `used`: the file is not needed any more once nobody else reads it. */
export interface DownloadShare {
  readonly download: Download;
  leave(used: boolean): Promise<void>;
}

interface Shared {
  readonly download: Download;
  shares: number;
  used: boolean;
}

const keptMsMax = 7 * 24 * 3600_000;
const keptBytesMax = 20 * 1024 ** 3;

export class Downloads {
  readonly #options: DownloadsOptions;
  /** By path. */
  readonly #running = new Map<string, Shared>();
  readonly #ending = new Map<string, Promise<void>>();

  constructor(options: DownloadsOptions) {
    this.#options = options;
  }

  /** Begins a download, or joins the one of the same blob. `sources` are tried in order. */
  join(directory: string, blob: BlobToFetch, sources: readonly Repository[]): DownloadShare {
    const path = join(directory, `blob-${blob.digest.slice('sha256:'.length)}`);
    const shared = this.#joinable(path) ?? this.#begin(path, blob, sources);
    shared.shares++;
    let left: Promise<void> | null = null;
    return {
      download: shared.download,
      leave: (used) => {
        left ??= this.#leave(shared, used);
        return left;
      },
    };
  }

  #joinable(path: string): Shared | undefined {
    const shared = this.#running.get(path);
    return shared?.download.state === 'failed' ? undefined : shared;
  }

  #begin(path: string, blob: BlobToFetch, sources: readonly Repository[]): Shared {
    const after = this.#ending.get(path) ?? Promise.resolve();
    const shared = { download: new Download(path, blob, sources, this.#options, after), shares: 0, used: false };
    this.#running.set(path, shared);
    return shared;
  }

  async #leave(shared: Shared, used: boolean): Promise<void> {
    shared.used ||= used;
    if (--shared.shares > 0) return;
    const { download } = shared;
    const { path } = download;
    if (this.#running.get(path) === shared) this.#running.delete(path);
    if (download.state !== 'complete') download.abort();
    const ended = download.done
      .then(
        () => (shared.used ? unlink(path) : undefined),
        () => undefined,
      )
      .catch(() => undefined);
    this.#ending.set(path, ended);
    await ended;
    if (this.#ending.get(path) === ended) this.#ending.delete(path);
  }

  /** Removes what former pulls left when it is old, and the oldest of it when it is much. */
  async sweep(directory: string): Promise<void> {
    const inUse = new Set([...this.#running.values()].map(({ download }) => download.path));
    const files: { path: string; bytes: number; modifiedMs: number }[] = [];
    for (const name of await readdir(directory)) {
      const path = join(directory, name);
      if (!/^blob-[0-9a-f]{64}$/.test(name) || inUse.has(path)) continue;
      const found = await stat(path).catch(() => null);
      if (found) files.push({ path, bytes: found.size, modifiedMs: found.mtimeMs });
    }
    let bytes = 0;
    for (const file of files.sort((a, b) => b.modifiedMs - a.modifiedMs)) {
      bytes += file.bytes;
      const kept = bytes <= keptBytesMax && Date.now() - file.modifiedMs <= keptMsMax;
      if (!kept) await unlink(file.path).catch(() => undefined);
    }
  }
}
