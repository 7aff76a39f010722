/** Processes by number, told apart from later ones that got the same number, and signals that cannot miss. */
import fs from 'node:fs';
import { check, declare, isErrno, syscallNumber } from './libc.ts';

const O_PATH = 0x200000;

const pidfdOpen = declare<[number, number, number], number>('long syscall(long number, int pid, unsigned int flags)');
const pidfdSendSignal = declare<[number, number, number, null, number], number>(
  'long syscall(long number, int pidfd, int signal, void *info, unsigned int flags)',
);

/**
 * Start of a process in clock ticks since boot (`/proc/<pid>/stat`, field 22), as its identity next to the pid.
 * Null when there is no such process, or only its corpse is left (zombie).
 */
export function startTicks(pid: number): number | null {
  const fields = statFields(pid);
  return fields === null || fields[0] === 'Z' || fields[0] === 'X' ? null : Number(fields[19]);
}

/** pid of the parent; 0 when there is no such process. */
export function parentOf(pid: number): number {
  return Number(statFields(pid)?.[1] ?? 0);
}

/** `/proc/<pid>/stat` from field 3 on. */
function statFields(pid: number): readonly string[] | null {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name in brackets may hold anything, brackets too: count from the last one.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return null;
    throw error;
  }
}

/**
 * Of `candidates`, what a process has started: its children, theirs, and whoever is in the session of one of them, also when those
 * between have gone. Children come first.
 */
export function familyOf(parent: number, candidates: readonly number[]): readonly number[] {
  const rows = candidates.flatMap((pid) => {
    const fields = statFields(pid);
    return fields === null || fields[0] === 'Z' ? [] : [{ pid, parent: Number(fields[1]), session: Number(fields[3]) }];
  });
  const members = new Set<number>([parent]);
  for (let before = 0; before < members.size; ) {
    before = members.size;
    for (const row of rows) if (members.has(row.parent) || members.has(row.session)) members.add(row.pid);
  }
  members.delete(parent);
  return [...members];
}

/** Children of a single-threaded process, wherever they are; none where the kernel does not tell. */
export function childrenOf(pid: number): readonly number[] {
  try {
    return fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return [];
    throw error;
  }
}

/** Milliseconds since a process was forked; null when it has gone. */
export function runsForMs(pid: number): number | null {
  const ticks = startTicks(pid);
  if (ticks === null) return null;
  return Number(fs.readFileSync('/proc/uptime', 'latin1').split(' ')[0]) * 1000 - ticks * 10;
}

/**
 * Opens the root directory of that very process (O_PATH), as the process sees it with all that is mounted there; null when
 * it has gone. The descriptor belongs to the caller.
 */
export function openRootOf(pid: number, expectedStartTicks: number): number | null {
  let fd: number;
  try {
    fd = fs.openSync(`/proc/${pid}/root`, fs.constants.O_DIRECTORY | O_PATH);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH', 'EACCES')) return null;
    throw error;
  }
  if (startTicks(pid) === expectedStartTicks) return fd;
  fs.closeSync(fd);
  return null;
}

/** Signals that very process; false when it has gone. The pidfd pins the process before its identity is compared. */
export function signalProcess(pid: number, expectedStartTicks: number, signal: number): boolean {
  try {
    const fd = check(pidfdOpen(syscallNumber.pidfd_open, pid, 0), 'pidfd_open', `pid ${pid}`);
    try {
      if (startTicks(pid) !== expectedStartTicks) return false;
      check(pidfdSendSignal(syscallNumber.pidfd_send_signal, fd, signal, null, 0), 'pidfd_send_signal', `pid ${pid}`);
      return true;
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    if (isErrno(error, 'ESRCH', 'EINVAL')) return false;
    throw error;
  }
}
