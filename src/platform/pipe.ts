/** Real pipes and sealed files. Node's own "pipes" to children are sockets, which a child cannot reopen as /dev/stdout. */
import fs from 'node:fs';
import { check, declare } from './libc.ts';

const pipe2 = declare<[Int32Array, number], number>('int pipe2(_Out_ int *descriptors, int flags)');
const memfdCreate = declare<[string, number], number>('int memfd_create(const char *name, unsigned int flags)');
const fcntl = declare<[number, number, number], number>('int fcntl(int fd, int command, int argument)');

const O_CLOEXEC = 0x80000;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_SETFL = 4;
const F_ADD_SEALS = 1033;
/** F_SEAL_SEAL, SHRINK, GROW and WRITE: nobody can change the file any more. */
const allSeals = 15;

/** Both ends are close-on-exec and belong to the caller. */
export function createPipe(): { readonly read: number; readonly write: number } {
  const descriptors = new Int32Array(2);
  check(pipe2(descriptors, O_CLOEXEC), 'pipe2', 'a pipe');
  return { read: descriptors[0] ?? -1, write: descriptors[1] ?? -1 };
}

/** Writing never waits any more: what does not fit is EAGAIN. */
export function setNonBlocking(fd: number): void {
  check(fcntl(fd, F_SETFL, fs.constants.O_NONBLOCK), 'fcntl', 'F_SETFL');
}

/** A copy of a file in memory that nobody can change; lives as long as a descriptor of it. */
export function sealedCopy(path: string): number {
  const fd = check(
    memfdCreate(path.slice(path.lastIndexOf('/') + 1), MFD_CLOEXEC | MFD_ALLOW_SEALING),
    'memfd_create',
    path,
  );
  try {
    const content = fs.readFileSync(path);
    for (let written = 0; written < content.length; ) written += fs.writeSync(fd, content, written);
    check(fcntl(fd, F_ADD_SEALS, allSeals), 'fcntl', `F_ADD_SEALS ${path}`);
    return fd;
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}
