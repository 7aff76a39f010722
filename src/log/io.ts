/** Files by descriptor: opened at once, read and closed in the thread pool. */
import fs from 'node:fs';
import { promisify } from 'node:util';

const readAt = promisify(fs.read);

/** Fills the first `length` bytes of `block` from `position`; answers how many there were. */
export async function read(fd: number, block: Buffer, length: number, position: number): Promise<number> {
  return (await readAt(fd, block, 0, length, position)).bytesRead;
}

/** The kernel frees the blocks of an unlinked file at its last close, which can take long: not on the main thread. */
export function closeInBackground(fd: number): void {
  // close(2) has given the descriptor up even when it reports an error.
  fs.close(fd, () => undefined);
}
