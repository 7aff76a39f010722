/** sha256 off the main thread. One thread serves all transfers; it is started when needed and ends a while after the last. */
import { Worker } from 'node:worker_threads';
import { internal } from '../lib/errors.ts';
import type { Digest } from '../lib/ids.ts';
import type { HashReply, HashRequest } from './hash-worker.ts';

/** One digest being computed. Ends with `finish` or `drop`. */
export interface Digesting {
  /** For a file: its first `bytes` bytes are there and will not change. */
  grow(bytes: number): void;
  /** For chunks: a copy is taken. */
  update(chunk: Uint8Array): void;
  finish(): Promise<Digest>;
  /** Repeating it, or calling it after `finish`, is not an error. */
  drop(): void;
}

interface Pending {
  readonly resolve: (digest: Digest) => void;
  readonly reject: (error: Error) => void;
  readonly promise: Promise<Digest>;
}

const idleMs = 10_000;

export class Hasher {
  #worker: Worker | null = null;
  #idle: NodeJS.Timeout | null = null;
  #nextId = 1;
  readonly #pending = new Map<number, Pending>();

  /** Digest of the file at `path`, which the thread reads as it is told that it grew. */
  file(path: string): Digesting {
    return this.#open(path);
  }

  chunks(): Digesting {
    return this.#open();
  }

  #open(path?: string): Digesting {
    const id = this.#nextId++;
    const pending = Promise.withResolvers<Digest>();
    // A failure before `finish` is told by `finish`.
    pending.promise.catch(() => undefined);
    this.#pending.set(id, pending);
    this.#send({ id, do: 'open', ...(path !== undefined && { path }) });
    return {
      grow: (to) => this.#send({ id, do: 'grow', to }),
      update: (chunk) => {
        // A view would be sent with all of the buffer it is a part of.
        const copy = new Uint8Array(chunk);
        this.#send({ id, do: 'chunk', chunk: copy }, [copy.buffer]);
      },
      finish: () => {
        this.#send({ id, do: 'finish' });
        return pending.promise;
      },
      drop: () => {
        if (!this.#pending.has(id)) return;
        this.#send({ id, do: 'drop' });
        this.#settle(id)?.reject(internal('the transfer was given up'));
      },
    };
  }

  #send(request: HashRequest, transfer: readonly ArrayBuffer[] = []): void {
    if (!this.#pending.has(request.id)) return;
    this.#worker ??= this.#start();
    this.#worker.postMessage(request, transfer);
  }

  #start(): Worker {
    const worker = new Worker(new URL('./hash-worker.ts', import.meta.url));
    worker.unref();
    worker.on('message', ({ id, hex, error }: HashReply) => {
      const pending = this.#settle(id);
      if (error === '') pending?.resolve(`sha256:${hex}` as Digest);
      else pending?.reject(internal(`cannot compute a digest: ${error}`));
    });
    worker.on('error', (error) => this.#ended(worker, error));
    worker.on('exit', () => this.#ended(worker, internal('the hashing thread ended')));
    return worker;
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (this.#idle) clearTimeout(this.#idle);
    if (this.#pending.size === 0) this.#idle = setTimeout(() => this.#endIdle(), idleMs).unref();
    return pending;
  }

  #ended(worker: Worker, error: Error): void {
    if (this.#worker !== worker) return;
    this.#worker = null;
    for (const id of [...this.#pending.keys()]) this.#settle(id)?.reject(error);
  }

  #endIdle(): void {
    if (this.#pending.size === 0) void this.close();
  }

  async close(): Promise<void> {
    const worker = this.#worker;
    this.#worker = null;
    if (this.#idle) clearTimeout(this.#idle);
    for (const id of [...this.#pending.keys()]) this.#settle(id)?.reject(internal('the engine is stopping'));
    await worker?.terminate();
  }
}
