/** Memory of this process. */
import { declare } from './libc.ts';

const mallocTrim = declare<[number], number>('int malloc_trim(size_t pad)');

/** Gives memory that was freed back to the system; glibc keeps what ended threads used otherwise. A few milliseconds. */
export function giveBackMemory(): void {
  mallocTrim(0);
}

const memcpy = declare<[Uint8Array, Uint8Array, number], number>(
  'size_t memcpy(uint8_t *into, const uint8_t *from, size_t length)',
);

/**
 * Copies the first `length` bytes. V8's own copies from and to shared memory go byte by byte where the two are not aligned
 * alike; here nobody touches these bytes meanwhile.
 */
export function copyShared(into: Uint8Array, from: Uint8Array, length: number): void {
  if (length > into.length || length > from.length) throw new RangeError('more bytes than there are');
  memcpy(into, from, length);
}

/**
 * Frees the memory of bytes nobody will look at again, now instead of at the next collection: a stream of many would
 * otherwise take new pages for each piece, and have the collector run for them. Memory that others share stays.
 */
export function release(bytes: Uint8Array): void {
  if (bytes.buffer instanceof ArrayBuffer && bytes.length === bytes.buffer.byteLength) bytes.buffer.transfer(0);
}
