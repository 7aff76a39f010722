/** Puts the parts of an archive together. For worker threads: it reads files. */
import { Buffer } from 'node:buffer';
import fs from 'node:fs';
import { internal } from '../../lib/errors.ts';

export const chunkSize = 1024 * 1024;

/** Bytes as they are, or a stretch of an open file, which is closed once read. */
export type Part =
  | Buffer
  | {
      readonly fd: number;
      readonly offset: number;
      readonly length: number;
      /** For messages. */
      readonly name: string;
      /** A file that is shorter than it was gets zeros at its end; without it that is an error. */
      readonly mayShrink?: boolean;
    };

/** Each with an ArrayBuffer of its own that the receiver may keep or transfer. */
export function* freshBuffers(): Generator<Buffer, never> {
  for (;;) yield Buffer.allocUnsafeSlow(chunkSize);
}

/** Chunks of 1 MiB and a shorter last one, put into one after the other of `buffers`. */
export function* assemble(parts: Iterable<Part>, buffers: Generator<Buffer, never>): Generator<Buffer, void> {
  let chunk = buffers.next().value;
  let filled = 0;
  for (const part of parts) {
    try {
      for (let at = 0; at < part.length; ) {
        const wanted = Math.min(part.length - at, chunkSize - filled);
        const copied = Buffer.isBuffer(part)
          ? part.copy(chunk, filled, at, at + wanted)
          : readOrZero(part, chunk, filled, wanted, at);
        at += copied;
        filled += copied;
        if (filled < chunkSize) continue;
        yield chunk;
        chunk = buffers.next().value;
        filled = 0;
      }
    } finally {
      if (!Buffer.isBuffer(part)) fs.closeSync(part.fd);
    }
  }
  if (filled > 0) yield chunk.subarray(0, filled);
}

function readOrZero(part: Exclude<Part, Buffer>, chunk: Buffer, start: number, wanted: number, at: number): number {
  const read = fs.readSync(part.fd, chunk, start, wanted, part.offset + at);
  if (read > 0) return read;
  if (part.mayShrink !== true) throw internal(`content is missing: ${part.name} is too short`);
  chunk.fill(0, start, start + wanted);
  return wanted;
}
