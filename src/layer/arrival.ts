/**
 * Reading what a client sends, in a worker that serves other clients while this one lets it wait. However many have stalled,
 * they hold a bit of memory each, and no thread.
 */
import { Buffer } from 'node:buffer';
import fs from 'node:fs';
import net from 'node:net';
import { setImmediate } from 'node:timers/promises';
import type { Source } from './input.ts';
import { takeFromRing } from './ring.ts';
import { type Reading, type Room, readNow } from './tar/reader.ts';

/** How long one reading may keep a thread to itself when its client is fast. */
const turnMs = 20;
const pipeBufferBytes = 256 * 1024;

/** Does a reading with what comes from a source: at once from a file, else in turns with other readings of this thread. */
export async function readArriving<T>(reading: Reading<T>, source: Source): Promise<T> {
  if ('file' in source) return readNow(reading, source.file);
  if ('ring' in source) return inTurns(reading, (room) => takeFromRing(source.ring, room));
  const pipe = new Pipe(source.pipe);
  try {
    return await inTurns(reading, (room) => pipe.take(room));
  } finally {
    pipe.close();
  }
}

async function inTurns<T>(reading: Reading<T>, take: (room: Room) => number | Promise<number>): Promise<T> {
  let begun = performance.now();
  let step = reading.next(0); // the first answer is to no question
  while (step.done !== true) {
    let read: number;
    try {
      const taken = take(step.value);
      read = typeof taken === 'number' ? taken : await taken;
      if (performance.now() - begun > turnMs) {
        await setImmediate();
        begun = performance.now();
      }
    } catch (error) {
      step = reading.throw(error); // gives back what it holds
      continue;
    }
    step = reading.next(read);
  }
  return step.value;
}

/** The end of a pipe, read when something is there. */
class Pipe {
  readonly #socket: net.Socket;
  #held: Buffer = Buffer.alloc(0);
  #over = false;
  #failure: Error | null = null;
  #changed: () => void = () => undefined;

  constructor(fd: number) {
    const onread = {
      buffer: Buffer.allocUnsafeSlow(pipeBufferBytes),
      callback: (length: number, bytes: Uint8Array): boolean => {
        this.#held = Buffer.from(bytes.buffer, bytes.byteOffset, length);
        this.#changed();
        return false; // no more until this has been taken
      },
    };
    // A description of its own: that of the asker stays as it is, and is closed by it.
    const own = fs.openSync(`/proc/self/fd/${fd}`, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    this.#socket = new net.Socket({ fd: own, readable: true, writable: false, onread });
    this.#socket.on('error', (error) => {
      this.#failure = error;
    });
    this.#socket.on('end', () => this.#ended());
    this.#socket.on('close', () => this.#ended());
    this.#socket.resume();
  }

  async take(room: Room): Promise<number> {
    while (this.#held.length === 0) {
      if (this.#failure !== null) throw this.#failure;
      if (this.#over) return 0;
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
    const taken = this.#held.copy(room);
    this.#held = this.#held.subarray(taken);
    if (this.#held.length === 0) this.#socket.resume();
    return taken;
  }

  close(): void {
    this.#socket.destroy();
  }

  #ended(): void {
    this.#over = true;
    this.#changed();
  }
}
