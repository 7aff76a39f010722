/** Memory of this process. */
import { declare } from './libc.ts';

const mallocTrim = declare<[number], number>('int malloc_trim(size_t pad)');

/** Gives memory that was freed back to the system; glibc keeps what ended threads used otherwise. A few milliseconds. */
export function giveBackMemory(): void {
  mallocTrim(0);
}
