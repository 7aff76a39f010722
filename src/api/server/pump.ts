/** Output to a client at the client's speed. */
import type { Writable } from 'node:stream';

/** Writes chunk after chunk, waits when the client does not read, stops when it has left. Leaving the loop tells the source. */
export async function pump<T>(
  source: AsyncIterable<T>,
  sink: Writable,
  encode: (value: T) => string | Uint8Array,
): Promise<void> {
  for await (const value of source) {
    if (sink.destroyed) return;
    if (!sink.write(encode(value))) await drained(sink);
  }
}

function drained(sink: Writable): Promise<void> {
  if (sink.destroyed || !sink.writableNeedDrain) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      sink.off('drain', done);
      sink.off('close', done);
      resolve();
    };
    sink.on('drain', done);
    sink.on('close', done);
  });
}
