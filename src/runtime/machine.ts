/** What this machine has that containers can be given a share of, and what of it the kernel can limit: for checks at create. */
import fs from 'node:fs';
import type { CgroupLayout, KernelLimits } from './cgroup.ts';

export interface MachineLimits {
  readonly kernel: KernelLimits;
  /** CPUs and memory nodes that cpusets may name, as the kernel prints them: `0-3`. */
  readonly cpus: string;
  readonly memoryNodes: string;
  /** CPUs this process may run on. */
  readonly cpuCount: number;
  /** Our own hard limits by OCI name when we may not raise them; null with CAP_SYS_RESOURCE. */
  readonly hardLimits: ReadonlyMap<string, number> | null;
}

export function readMachine(
  layout: CgroupLayout,
  kernel: KernelLimits,
  hardLimits: MachineLimits['hardLimits'],
): MachineLimits {
  const root = layout.controllers.get('cpuset') ?? '';
  const suffix = layout.version === 2 ? '.effective' : '';
  const read = (name: string): string => {
    try {
      return fs.readFileSync(`${root}/cpuset.${name}${suffix}`, 'latin1').trim();
    } catch {
      return '';
    }
  };
  const allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(fs.readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0';
  return { kernel, cpus: read('cpus'), memoryNodes: read('mems'), cpuCount: numbersIn(allowed)?.size ?? 1, hardLimits };
}

/** Highest number of a CPU or memory node that is looked at. */
export const cpuNumberMax = 8192;

/** The numbers of a list such as `0-3,7`; null when it is none. Throws a RangeError beyond `cpuNumberMax`. */
export function numbersIn(list: string): ReadonlySet<number> | null {
  const numbers = new Set<number>();
  if (list === '') return numbers;
  for (const part of list.split(',')) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    if (match === null) return null;
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (last < first) return null;
    if (last > cpuNumberMax) throw new RangeError(`beyond ${cpuNumberMax}`);
    for (let number = first; number <= last; number++) numbers.add(number);
  }
  return numbers;
}

/** A line for `/info` for each limit that cannot be set here, the way clients are used to read them. */
export function missingLimits(kernel: KernelLimits, cgroupVersion: 1 | 2): readonly string[] {
  const lines: readonly (readonly [boolean, string])[] = [
    [kernel.memory, 'memory limit'],
    [kernel.memoryReservation, 'memory reservation'],
    [kernel.swap, 'swap limit'],
    // Neither v2 nor Linux since 5.16 has the first; v2 never had the others.
    [kernel.kernelMemory || cgroupVersion === 2, 'kernel memory limit'],
    [kernel.swappiness || cgroupVersion === 2, 'memory swappiness'],
    [kernel.oomKillDisable || cgroupVersion === 2, 'oom kill disable'],
    [kernel.cpuQuota, 'cpu cfs quota'],
    [kernel.cpuQuota, 'cpu cfs period'],
    [kernel.cpuShares, 'cpu shares'],
    [kernel.cpuRealtime || cgroupVersion === 2, 'cpu real-time'],
    [kernel.cpuset, 'cpuset'],
    [kernel.pids, 'pids limit'],
    [kernel.blkioWeight, 'blkio weight'],
    [kernel.blkioWeightDevice, 'blkio weight_device'],
    [kernel.blkioThrottle, 'blkio throttle'],
  ];
  return lines.flatMap(([there, what]) => (there ? [] : [`WARNING: No ${what} support`]));
}
