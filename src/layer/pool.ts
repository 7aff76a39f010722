/** Worker threads for layers: started when there is work, ended when there has been none for a while. */
import { Readable } from 'node:stream';
import { Worker } from 'node:worker_threads';
import { EngineError, internal, messageOf, unavailable } from '../lib/errors.ts';
import { giveBackMemory } from '../platform/memory.ts';
import type { PathStat } from './confined.ts';
import type { Answer, JobName, Jobs, StreamSource } from './jobs.ts';
import { chunkSize } from './tar/assemble.ts';

const idleMs = 10_000;
/** Parts of the memory a stream is handed over in: one is sent, one is filled, and one stays behind in case it is still being sent. */
const ringSlots = 3;
/** Jobs that may wait for a thread. */
const queueMax = 10_000;
/** Threads for work that waits for clients. A stalled client holds none of them. */
const sharedMax = 4;

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

/** One thread. Questions are answered in their order, but for those that wait for a client. */
class Thread {
  readonly #worker = new Worker(new URL('./worker.ts', import.meta.url), {
    execArgv: ['--disable-warning=ExperimentalWarning'],
    // Descriptors come from our own system calls, and each is closed by whoever opened it.
    trackUnmanagedFds: false,
    // Contents pass through buffers outside of this heap.
    resourceLimits: { maxOldGenerationSizeMb: 512 },
  });
  readonly #waiting = new Map<number, Waiting>();
  #number = 0;
  ended = false;

  constructor() {
    this.#worker.on('message', (answer: Answer) => {
      const waiting = this.#waiting.get(answer.number);
      this.#waiting.delete(answer.number);
      if (this.#waiting.size === 0) this.#worker.unref();
      if (answer.error === undefined) waiting?.resolve(answer.value as never);
      else waiting?.reject(new EngineError(answer.error.kind, answer.error.message));
    });
    this.#worker.on('error', (error) => this.#end(internal(`a layer worker failed: ${messageOf(error)}`)));
    this.#worker.on('exit', () => this.#end(internal('a layer worker ended')));
    this.#worker.unref();
  }

  get pending(): number {
    return this.#waiting.size;
  }

  ask<N extends JobName>(job: N, ask: Jobs[N]['ask']): Promise<Jobs[N]['answer']> {
    if (this.ended) return Promise.reject(internal('a layer worker ended'));
    const number = this.#number++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage({ number, job, ask });
    });
  }

  async terminate(): Promise<void> {
    this.ended = true;
    await this.#worker.terminate();
  }

  #end(error: Error): void {
    this.ended = true;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

export class WorkerPool {
  readonly #max: number;
  readonly #threads = new Set<Thread>();
  readonly #queue: { readonly resolve: (thread: Thread) => void; readonly reject: (error: Error) => void }[] = [];
  readonly #idle = new Map<Thread, NodeJS.Timeout>();
  /** Threads that do many jobs in turns, and what ends those that have none. */
  readonly #shared = new Map<Thread, NodeJS.Timeout | undefined>();
  #streamer: Thread | null = null;
  #streamerIdle: NodeJS.Timeout | undefined;
  #streams = 0;
  #streamNumber = 0;
  #closed = false;

  /** At most `max` threads for jobs that keep theirs to themselves; a few more do the others, and one serves streams. */
  constructor(max: number) {
    this.#max = max;
  }

  /** Does one job on a thread of its own; jobs beyond the number of threads wait in order. */
  async run<N extends JobName>(job: N, ask: Jobs[N]['ask']): Promise<Jobs[N]['answer']> {
    const thread = await this.#acquire();
    try {
      return await thread.ask(job, ask);
    } finally {
      this.#release(thread);
    }
  }

  /** Does one job in turns with others. For jobs that are short, or made of short steps between which they wait for a client. */
  async share<N extends JobName>(job: N, ask: Jobs[N]['ask']): Promise<Jobs[N]['answer']> {
    const thread = this.#leastBusy();
    clearTimeout(this.#shared.get(thread));
    try {
      return await thread.ask(job, ask);
    } finally {
      const forget = () => this.#shared.delete(thread);
      if (thread.ended) forget();
      else if (thread.pending === 0 && !this.#closed) {
        clearTimeout(this.#shared.get(thread));
        this.#shared.set(thread, endWhenIdle(thread, forget));
      }
    }
  }

  /** A stream made by a thread as fast as it is read; closing it early is fine. All streams share one thread. */
  stream(source: StreamSource): Readable {
    let chunks: Chunks | null = null;
    return new Readable({
      highWaterMark: 1024 * 1024,
      construct: (done) => {
        this.#open(source).then((opened) => {
          chunks = opened;
          done();
        }, done);
      },
      read() {
        readChunk(this, chunks);
      },
      destroy: (error, done) => {
        chunks?.close();
        done(error);
      },
    });
  }

  /**
   * The same for what can be refused before its first byte. A chunk is valid until the next but one is asked for: the thread
   * fills the same few buffers again and again, since a collector that sees megabytes come and go works more than the thread.
   */
  async openStream(
    source: StreamSource,
  ): Promise<{ readonly opened: PathStat | undefined; readonly chunks: AsyncIterable<Buffer> }> {
    const ring = new SharedArrayBuffer(ringSlots * chunkSize);
    const chunks = await this.#open(source, ring);
    return { opened: chunks.opened, chunks: filled(ring, chunks) };
  }

  async #open(source: StreamSource, ring?: SharedArrayBuffer): Promise<Chunks> {
    const number = this.#streamNumber++;
    const thread = this.#streamThread();
    const close = () => {
      thread.ask('close', { stream: number }).catch(() => undefined); // the thread has ended, and the stream with it
      this.#streamDone(thread);
    };
    try {
      const opened = await thread.ask('open', { stream: number, source, ring });
      return {
        opened,
        next: () => thread.ask('next', { stream: number }),
        fill: () => thread.ask('fill', { stream: number }),
        close,
      };
    } catch (error) {
      close();
      throw error;
    }
  }

  /** Ends all threads. Jobs under way fail. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const timer of this.#idle.values()) clearTimeout(timer);
    for (const timer of this.#shared.values()) clearTimeout(timer);
    clearTimeout(this.#streamerIdle);
    for (const { reject } of this.#queue.splice(0)) reject(unavailable('the engine is stopping'));
    const all = [...this.#threads, ...this.#shared.keys(), ...(this.#streamer === null ? [] : [this.#streamer])];
    await Promise.all(all.map((thread) => thread.terminate()));
  }

  #leastBusy(): Thread {
    if (this.#closed) throw unavailable('the engine is stopping');
    let best: Thread | null = null;
    for (const thread of this.#shared.keys()) {
      if (thread.ended) this.#shared.delete(thread);
      else if (best === null || thread.pending < best.pending) best = thread;
    }
    if (best !== null && (best.pending === 0 || this.#shared.size >= sharedMax)) return best;
    const thread = new Thread();
    this.#shared.set(thread, undefined);
    return thread;
  }

  #acquire(): Thread | Promise<Thread> {
    if (this.#closed) throw unavailable('the engine is stopping');
    for (const [thread, timer] of this.#idle) {
      clearTimeout(timer);
      this.#idle.delete(thread);
      if (!thread.ended) return thread;
      this.#threads.delete(thread);
    }
    if (this.#threads.size < this.#max) {
      const thread = new Thread();
      this.#threads.add(thread);
      return thread;
    }
    if (this.#queue.length >= queueMax) throw unavailable('too much work on layers at once');
    return new Promise((resolve, reject) => this.#queue.push({ resolve, reject }));
  }

  #release(thread: Thread): void {
    let free = thread;
    if (thread.ended) {
      this.#threads.delete(thread);
      if (this.#queue.length === 0) return;
      free = new Thread();
      this.#threads.add(free);
    }
    const next = this.#queue.shift();
    if (next !== undefined) {
      next.resolve(free);
      return;
    }
    const forget = () => {
      this.#idle.delete(free);
      this.#threads.delete(free);
    };
    if (!this.#closed) this.#idle.set(free, endWhenIdle(free, forget));
  }

  #streamThread(): Thread {
    if (this.#closed) throw unavailable('the engine is stopping');
    if (this.#streamer === null || this.#streamer.ended) {
      this.#streamer = new Thread();
      this.#streams = 0;
    }
    clearTimeout(this.#streamerIdle);
    this.#streams++;
    return this.#streamer;
  }

  #streamDone(thread: Thread): void {
    if (thread !== this.#streamer) return;
    this.#streams--;
    if (this.#streams > 0 || this.#closed) return;
    this.#streamerIdle = endWhenIdle(thread, () => {
      this.#streamer = null;
    });
  }
}

/** A stream as its thread makes it. */
interface Chunks {
  readonly opened: PathStat | undefined;
  next(): Promise<Uint8Array<ArrayBuffer> | null>;
  /** Bytes put into the next part of the ring; 0 at the end. */
  fill(): Promise<number>;
  close(): void;
}

async function* filled(ring: SharedArrayBuffer, chunks: Chunks): AsyncGenerator<Buffer> {
  const ask = () => {
    const filling = chunks.fill();
    filling.catch(() => undefined); // awaited below, unless the reader leaves before
    return filling;
  };
  try {
    let coming = ask();
    for (let slot = 0; ; slot = (slot + 1) % ringSlots) {
      const length = await coming;
      if (length === 0) return;
      coming = ask();
      yield Buffer.from(ring, slot * chunkSize, length);
    }
  } finally {
    chunks.close();
  }
}

function readChunk(stream: Readable, chunks: Chunks | null): void {
  chunks?.next().then(
    (chunk) => stream.push(chunk === null ? null : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)),
    (error: Error) => stream.destroy(error),
  );
}

function endWhenIdle(thread: Thread, forget: () => void): NodeJS.Timeout {
  return setTimeout(() => {
    forget();
    thread.terminate().then(giveBackMemory, () => undefined); // rejected: it has ended by itself
  }, idleMs).unref();
}
