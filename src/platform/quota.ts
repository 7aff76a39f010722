/**
 * Limits on what a directory tree may hold: project quotas, as XFS has them (mounted with `pquota`) and ext4 with its
 * `project` feature. Files inherit the project number of the directory they are made in.
 */
import fs from 'node:fs';
import { check, declare, isErrno, syscallNumber } from './libc.ts';

const FS_IOC_FSGETXATTR = 0x801c581f;
const FS_IOC_FSSETXATTR = 0x401c5820;
const FS_XFLAG_PROJINHERIT = 0x200;
/** Of `struct fsxattr`. */
const attributes = { size: 28, flags: 0, project: 12 } as const;

const PRJQUOTA = 2;
const Q_XGETQUOTA = 0x5803;
const Q_XSETQLIM = 0x5804;
const Q_XGETQSTAT = 0x5805;
const FS_QUOTA_PDQ_ENFD = 1 << 5;
const FS_DQ_BSOFT = 1 << 2;
const FS_DQ_BHARD = 1 << 3;
const FS_PROJ_QUOTA = 2;
/** Of `struct fs_disk_quota`; blocks are of 512 bytes. */
const quota = { size: 112, version: 0, flags: 1, fields: 2, id: 4, hard: 8, soft: 16, used: 40 } as const;
const blockBytes = 512;

const ioctl = declare<[number, number, Uint8Array], number>('int ioctl(int fd, unsigned long request, void *argument)');
const quotactl = declare<[number, number, number, number, Uint8Array], number>(
  'long syscall(long number, unsigned int fd, unsigned int command, unsigned int id, void *address)',
);

const command = (name: number): number => ((name << 8) | PRJQUOTA) >>> 0;

function withDirectory<T>(directory: string, work: (fd: number) => T): T {
  const fd = fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    return work(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Whether the file system of `directory` holds trees to their limits. */
export function hasProjectQuota(directory: string): boolean {
  const state = Buffer.alloc(256);
  try {
    withDirectory(directory, (fd) =>
      check(quotactl(syscallNumber.quotactl_fd, fd, command(Q_XGETQSTAT), 0, state), 'quotactl', directory),
    );
  } catch (error) {
    if (isErrno(error, 'ENOSYS', 'ENOTTY', 'EOPNOTSUPP', 'EINVAL', 'ESRCH', 'EPERM', 'ENOTBLK', 'ENODEV')) return false;
    throw error;
  }
  return (state.readUInt16LE(2) & FS_QUOTA_PDQ_ENFD) !== 0;
}

/** The project of a directory; 0: none of its own. */
export function projectOf(directory: string): number {
  return withDirectory(directory, (fd) => readAttributes(fd, directory).readUInt32LE(attributes.project));
}

/** Gives an empty directory a project, which all that is made in it inherits. */
export function setProject(directory: string, project: number): void {
  withDirectory(directory, (fd) => {
    const wanted = readAttributes(fd, directory);
    wanted.writeUInt32LE(project, attributes.project);
    wanted.writeUInt32LE((wanted.readUInt32LE(attributes.flags) | FS_XFLAG_PROJINHERIT) >>> 0, attributes.flags);
    check(ioctl(fd, FS_IOC_FSSETXATTR, wanted), 'ioctl', `FS_IOC_FSSETXATTR of ${directory}`);
  });
}

function readAttributes(fd: number, directory: string): Buffer {
  const found = Buffer.alloc(attributes.size);
  check(ioctl(fd, FS_IOC_FSGETXATTR, found), 'ioctl', `FS_IOC_FSGETXATTR of ${directory}`);
  return found;
}

/** Bytes that all files of a project may take together; 0: no limit. `directory` tells the file system. */
export function setProjectLimit(directory: string, project: number, bytes: number): void {
  const blocks = BigInt(Math.ceil(bytes / blockBytes));
  const wanted = Buffer.alloc(quota.size);
  wanted.writeInt8(1, quota.version);
  wanted.writeInt8(FS_PROJ_QUOTA, quota.flags);
  wanted.writeUInt16LE(FS_DQ_BHARD | FS_DQ_BSOFT, quota.fields);
  wanted.writeUInt32LE(project, quota.id);
  wanted.writeBigUInt64LE(blocks, quota.hard);
  wanted.writeBigUInt64LE(blocks, quota.soft);
  withDirectory(directory, (fd) =>
    check(
      quotactl(syscallNumber.quotactl_fd, fd, command(Q_XSETQLIM), project, wanted),
      'quotactl',
      `Q_XSETQLIM of project ${project} at ${directory}`,
    ),
  );
}

/** Bytes that the files of a project take, and may take (0: no limit). */
export function projectUsage(directory: string, project: number): { readonly used: number; readonly limit: number } {
  const found = Buffer.alloc(quota.size);
  withDirectory(directory, (fd) =>
    check(
      quotactl(syscallNumber.quotactl_fd, fd, command(Q_XGETQUOTA), project, found),
      'quotactl',
      `Q_XGETQUOTA of project ${project} at ${directory}`,
    ),
  );
  const bytes = (offset: number) => Number(found.readBigUInt64LE(offset)) * blockBytes;
  return { used: bytes(quota.used), limit: bytes(quota.hard) };
}
