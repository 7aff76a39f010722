/** Mounting and unmounting, in-process. Flags are those of mount(2) and umount2(2). */
import { check, declare, isErrno } from './libc.ts';

export const MS = {
  RDONLY: 1,
  NOSUID: 2,
  NODEV: 4,
  NOEXEC: 8,
  REMOUNT: 32,
  BIND: 4096,
  REC: 16384,
  UNBINDABLE: 1 << 17,
  PRIVATE: 1 << 18,
  SLAVE: 1 << 19,
  SHARED: 1 << 20,
} as const;

const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

const mount_ = declare<[string | null, string, string | null, number, string | null], number>(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
);
const umount2 = declare<[string, number], number>('int umount2(const char *target, int flags)');

/** mount(2). `data` holds file system options; at most one page (4096 bytes). */
export function mount(source: string | null, target: string, type: string | null, flags: number, data: string | null) {
  check(mount_(source, target, type, flags, data), 'mount', `${type ?? ''} ${source ?? ''} on ${target}`);
}

export function bindMount(source: string, target: string, flags: number = 0): void {
  mount(source, target, null, MS.BIND | flags, null);
}

/**
 * Detaches what is mounted at `target` (the topmost mount). Lazy, so a busy mount never fails.
 * Nothing mounted there, or no such path, is not an error: callers repeat it after crashes.
 */
export function unmount(target: string): void {
  try {
    check(umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW), 'umount', target);
  } catch (error) {
    if (!isErrno(error, 'EINVAL', 'ENOENT')) throw error;
  }
}
