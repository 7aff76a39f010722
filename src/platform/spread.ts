/** Where a file system puts the files of unrelated trees. */
import { Buffer } from 'node:buffer';
import fs from 'node:fs';
import { check, declare, isErrno } from './libc.ts';

const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_TOPDIR_FL = 0x20000;

const ioctl = declare<[number, number, Uint8Array], number>('int ioctl(int fd, unsigned long request, void *flags)');

/**
 * Tells the file system that the directories made in `directory` have nothing to do with each other (`chattr +T`), where it
 * wants to know. ext4 then gives each a group of inodes of its own choice; without it they crowd into one, and whoever
 * makes files where many were removed within the last half minute waits for it to look at each of those.
 */
export function spreadTreesOf(directory: string): void {
  const fd = fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    const flags = Buffer.alloc(8);
    check(ioctl(fd, FS_IOC_GETFLAGS, flags), 'ioctl', `FS_IOC_GETFLAGS of ${directory}`);
    const had = flags.readUInt32LE();
    if ((had & FS_TOPDIR_FL) !== 0) return;
    flags.writeUInt32LE((had | FS_TOPDIR_FL) >>> 0);
    check(ioctl(fd, FS_IOC_SETFLAGS, flags), 'ioctl', `FS_IOC_SETFLAGS of ${directory}`);
  } catch (error) {
    // A file system that knows no such hint, or lets us give none.
    if (!isErrno(error, 'ENOTTY', 'EOPNOTSUPP', 'ENOTSUP', 'EINVAL', 'EPERM', 'EACCES', 'ENOSYS')) throw error;
  } finally {
    fs.closeSync(fd);
  }
}
