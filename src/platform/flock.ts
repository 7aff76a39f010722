/** An advisory lock that says "one process at a time"; the kernel drops it with the process, however that dies. */
import fs from 'node:fs';
import { check, declare, isErrno } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;
const flock = declare<[number, number], number>('int flock(int fd, int operation)');

export interface FileLock {
  release(): void;
}

/**
 * Takes the lock on the file at `path` (made if absent) and writes this process's pid into it.
 * Answers the pid of the holder when somebody else has it ('' if unreadable). The file is never removed: a lock on an
 * unlinked file would exclude nobody. Node opens files close-on-exec, so no child can inherit the lock and outlive us.
 */
export function tryLock(path: string): FileLock | { readonly heldBy: string } {
  const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
  try {
    check(flock(fd, LOCK_EX | LOCK_NB), 'flock', path);
  } catch (error) {
    const heldBy = fs.readFileSync(fd, 'utf8').trim();
    fs.closeSync(fd);
    if (isErrno(error, 'EWOULDBLOCK', 'EAGAIN')) return { heldBy };
    throw error;
  }
  fs.ftruncateSync(fd);
  fs.writeSync(fd, `${process.pid}\n`, 0);
  return { release: () => fs.closeSync(fd) };
}
