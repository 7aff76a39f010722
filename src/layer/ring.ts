/**
 * Bytes from the main thread to a worker through memory both see: no system call and no wake-up for each piece that a
 * socket hands out, as a pipe would cost. The worker does something else when it is empty, the main thread's stream waits when it
 * is full.
 */
import { Buffer } from 'node:buffer';
import { Writable } from 'node:stream';
import { copyShared, release } from '../platform/memory.ts';

const ringBytes = 1024 * 1024;
/** So much is worth waking the worker at once; less has to wait a moment. */
const wakeBytes = 256 * 1024;
const wakeMs = 1;

/** Words of the shared state: bytes written and read so far (modulo 2^32), whether more will come, and how often the reader was woken. */
const at = { written: 0, read: 1, ended: 2, woken: 3 } as const;

export interface Ring {
  readonly state: Int32Array<SharedArrayBuffer>;
  readonly bytes: SharedArrayBuffer;
}

export const createRing = (): Ring => ({
  state: new Int32Array(new SharedArrayBuffer(16)),
  bytes: new SharedArrayBuffer(ringBytes),
});

/** Bytes that wait to be read. */
const waiting = ({ state }: Ring): number => (Atomics.load(state, at.written) - Atomics.load(state, at.read)) >>> 0;

/** The end of the main thread. Ended or destroyed, it lets the reader see the end. With `owned`, what is written to it is freed. */
export class RingWriter extends Writable {
  readonly #ring: Ring;
  readonly #bytes: Buffer;
  readonly #owned: boolean;
  #timer: NodeJS.Timeout | null = null;

  constructor(ring: Ring, { owned }: { readonly owned: boolean }) {
    super({ highWaterMark: wakeBytes });
    this.#owned = owned;
    this.#ring = ring;
    this.#bytes = Buffer.from(ring.bytes);
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    const left = this.#put(chunk);
    const put = () => {
      if (this.#owned) release(chunk);
      done();
    };
    if (left.length === 0) put();
    else this.#putRest(left).then(put, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#end();
    Atomics.notify(this.#ring.state, at.read); // whoever still waits for room
    done(error);
  }

  /** As much as there is room for; returns the rest. */
  #put(chunk: Buffer): Buffer {
    let left = chunk;
    for (;;) {
      const start = (Atomics.load(this.#ring.state, at.written) >>> 0) % ringBytes;
      const length = Math.min(left.length, ringBytes - waiting(this.#ring), ringBytes - start);
      if (length === 0) return left;
      copyShared(this.#bytes.subarray(start), left, length);
      left = left.subarray(length);
      Atomics.add(this.#ring.state, at.written, length);
      this.#wakeSoon();
    }
  }

  async #putRest(chunk: Buffer): Promise<void> {
    const { state } = this.#ring;
    for (let left = chunk; left.length > 0 && !this.destroyed; left = this.#put(left)) {
      const read = Atomics.load(state, at.read);
      // Looked at again: the reader may have come by since.
      if (waiting(this.#ring) === ringBytes) await Atomics.waitAsync(state, at.read, read).value;
    }
  }

  #wakeSoon(): void {
    if (waiting(this.#ring) >= wakeBytes) this.#wake();
    else this.#timer ??= setTimeout(() => this.#wake(), wakeMs);
  }

  #wake(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    Atomics.add(this.#ring.state, at.woken, 1);
    Atomics.notify(this.#ring.state, at.woken);
  }

  #end(): void {
    Atomics.store(this.#ring.state, at.ended, 1);
    this.#wake();
  }
}

/** The worker's end: at least one byte into `room`, 0 at the end. A promise when there is none yet. */
export function takeFromRing(ring: Ring, room: Buffer): number | Promise<number> {
  const { state, bytes } = ring;
  const woken = Atomics.load(state, at.woken); // before the look: whoever writes or ends after it wakes us
  const ended = Atomics.load(state, at.ended) === 1; // before the count: what was written before the end is seen
  const there = waiting(ring);
  if (there === 0) return ended ? 0 : wokenAfter(ring, woken).then(() => takeFromRing(ring, room));
  const start = (Atomics.load(state, at.read) >>> 0) % ringBytes;
  const taken = Math.min(there, room.length, ringBytes - start);
  copyShared(room, Buffer.from(bytes, start, taken), taken);
  Atomics.add(state, at.read, taken);
  Atomics.notify(state, at.read);
  return taken;
}

async function wokenAfter({ state }: Ring, woken: number): Promise<void> {
  await Atomics.waitAsync(state, at.woken, woken).value;
}
