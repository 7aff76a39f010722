/** Limits of a container as `linux.resources` and `process.rlimits` of an OCI spec; what the kernel lacks is dropped with a warning. */
import fs from 'node:fs';
import type { HostConfig, ThrottleDevice } from '../container/types.ts';
import { internal, invalid } from '../lib/errors.ts';
import { splitDevice } from '../platform/files.ts';
import type { KernelLimits } from './cgroup.ts';
import type { MachineLimits } from './machine.ts';

export interface Resources {
  memory?: Record<string, number | boolean>;
  cpu?: Record<string, number | string>;
  pids?: { limit: number };
  blockIO?: Record<string, unknown>;
  devices?: readonly DeviceRule[];
}

export interface DeviceRule {
  readonly allow: boolean;
  readonly type?: string;
  readonly major?: number;
  readonly minor?: number;
  readonly access: string;
}

/** Microseconds; the kernel's default, and what NanoCpus is counted in. */
const cpuPeriodDefault = 100_000;

/** The kernel's own. */
const cpuSharesDefault = 1024;

/** Translates the limits; the warnings are dockerd's words. */
export function resourcesOf(
  config: HostConfig,
  kernel: KernelLimits,
): { readonly resources: Resources; readonly warnings: readonly string[] } {
  const resources: Resources = {};
  const warnings: string[] = [];
  const supported = (wanted: boolean, available: boolean, what: string, outcome: string): boolean => {
    if (wanted && !available)
      warnings.push(`Your kernel does not support ${what} or the cgroup is not mounted. ${outcome}`);
    return wanted && available;
  };

  const memory: Record<string, number | boolean> = {};
  const discarded = 'Limitation discarded.';
  if (supported(config.Memory > 0, kernel.memory, 'memory limit capabilities', discarded)) {
    memory.limit = config.Memory;
    const swap = config.MemorySwap === 0 ? 2 * config.Memory : config.MemorySwap;
    const limited = swap >= 0;
    if (supported(limited, kernel.swap, 'swap limit capabilities', 'Memory limited without swap.')) memory.swap = swap;
    else if (kernel.swap) memory.swap = -1;
  }
  if (supported(config.MemoryReservation > 0, kernel.memoryReservation, 'memory soft limit capabilities', discarded)) {
    memory.reservation = config.MemoryReservation;
  }
  supported(config.KernelMemory > 0, kernel.kernelMemory, 'kernel memory limit capabilities', discarded);
  const swappiness = config.MemorySwappiness ?? -1;
  if (
    supported(swappiness !== -1, kernel.swappiness, 'memory swappiness capabilities', 'Memory swappiness discarded.')
  ) {
    memory.swappiness = swappiness;
  }
  if (config.OomKillDisable) {
    if (kernel.oomKillDisable) memory.disableOOMKiller = true;
    else warnings.push('Your kernel does not support OomKillDisable. OomKillDisable discarded.');
  }
  if (Object.keys(memory).length > 0) resources.memory = memory;

  const cpu: Record<string, number | string> = {};
  if (supported(config.CpuShares > 0, kernel.cpuShares, 'CPU shares', 'Shares discarded.'))
    cpu.shares = config.CpuShares;
  if (config.NanoCpus > 0) {
    if (!kernel.cpuQuota) {
      throw invalid(
        'NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted',
      );
    }
    cpu.period = cpuPeriodDefault;
    cpu.quota = Math.floor((config.NanoCpus * cpuPeriodDefault) / 1e9);
  }
  if (supported(config.CpuPeriod > 0, kernel.cpuQuota, 'CPU CFS scheduler', 'CPU period discarded.')) {
    cpu.period = config.CpuPeriod;
  }
  // None is what a new group has; crun 1.8 cannot write it on v1.
  if (supported(config.CpuQuota > 0, kernel.cpuQuota, 'CPU CFS scheduler', 'CPU quota discarded.')) {
    cpu.quota = config.CpuQuota;
  }
  const realtime = config.CpuRealtimePeriod > 0 || config.CpuRealtimeRuntime > 0;
  if (supported(realtime, kernel.cpuRealtime, 'CPU real-time scheduler', 'CPU real-time settings discarded.')) {
    if (config.CpuRealtimePeriod > 0) cpu.realtimePeriod = config.CpuRealtimePeriod;
    if (config.CpuRealtimeRuntime > 0) cpu.realtimeRuntime = config.CpuRealtimeRuntime;
  }
  const cpuset = config.CpusetCpus !== '' || config.CpusetMems !== '';
  if (supported(cpuset, kernel.cpuset, 'cpuset', 'Cpuset discarded.')) {
    if (config.CpusetCpus !== '') cpu.cpus = config.CpusetCpus;
    if (config.CpusetMems !== '') cpu.mems = config.CpusetMems;
  }
  if (Object.keys(cpu).length > 0) resources.cpu = cpu;

  if (supported(config.PidsLimit > 0, kernel.pids, 'pids limit capabilities', 'PIDs limit discarded.')) {
    resources.pids = { limit: config.PidsLimit };
  }

  const blockIO: Record<string, unknown> = {};
  if (supported(config.BlkioWeight > 0, kernel.blkioWeight, 'Block I/O weight', 'Weight discarded.')) {
    blockIO.weight = config.BlkioWeight;
  }
  const weights = config.BlkioWeightDevice ?? [];
  if (supported(weights.length > 0, kernel.blkioWeightDevice, 'Block I/O weight_device', 'Weight-device discarded.')) {
    blockIO.weightDevice = weights.map(({ Path, Weight }) => ({ ...blockDevice(Path), weight: Weight }));
  }
  const throttle = (key: string, devices: readonly ThrottleDevice[] | null, what: string): void => {
    // A rate of nothing is none.
    const wanted = (devices ?? []).filter(({ Rate }) => Rate > 0);
    const [unit, direction] = what.split(' ') as [string, string];
    const name = `${unit} Block I/O ${direction} limit`;
    if (!supported(wanted.length > 0, kernel.blkioThrottle, name, `Block I/O ${what} limit discarded.`)) return;
    blockIO[key] = wanted.map(({ Path, Rate }) => ({ ...blockDevice(Path), rate: Rate }));
  };
  throttle('throttleReadBpsDevice', config.BlkioDeviceReadBps, 'BPS read');
  throttle('throttleWriteBpsDevice', config.BlkioDeviceWriteBps, 'BPS write');
  throttle('throttleReadIOPSDevice', config.BlkioDeviceReadIOps, 'IOPS read');
  throttle('throttleWriteIOPSDevice', config.BlkioDeviceWriteIOps, 'IOPS write');
  if (Object.keys(blockIO).length > 0) resources.blockIO = blockIO;

  return { resources, warnings };
}

export type Throttle = 'BlkioDeviceReadBps' | 'BlkioDeviceWriteBps' | 'BlkioDeviceReadIOps' | 'BlkioDeviceWriteIOps';
const throttles: readonly Throttle[] = [
  'BlkioDeviceReadBps',
  'BlkioDeviceWriteBps',
  'BlkioDeviceReadIOps',
  'BlkioDeviceWriteIOps',
];

/** Devices (`7:0`) whose rates `from` limits and `to` does not: what a runtime cannot be told in the same way for v1 and v2. */
export function ratesLifted(to: HostConfig, from: HostConfig): readonly { kind: Throttle; device: string }[] {
  return throttles.flatMap((kind) => {
    const limited = new Set((to[kind] ?? []).filter(({ Rate }) => Rate > 0).map(({ Path }) => Path));
    const gone = (from[kind] ?? []).filter(({ Path, Rate }) => Rate > 0 && !limited.has(Path));
    return gone.map(({ Path }) => {
      const { major, minor } = blockDevice(Path);
      return { kind, device: `${major}:${minor}` };
    });
  });
}

/**
 * The same for a container that runs with the limits `from`. The kernel would keep what `to` no longer limits (as when an
 * update is taken back), so the values of an unlimited group are said.
 */
export function updateOf(to: HostConfig, from: HostConfig, machine: MachineLimits): Resources {
  const { resources } = resourcesOf(to, machine.kernel);
  const gone = (name: 'Memory' | 'MemoryReservation' | 'CpuShares' | 'CpusetCpus' | 'CpusetMems') =>
    Boolean(from[name]) && !to[name];
  const memory = {
    ...resources.memory,
    ...(gone('Memory') && { limit: -1, ...(machine.kernel.swap && { swap: -1 }) }),
    ...(gone('MemoryReservation') && { reservation: -1 }),
  };
  const cpu = {
    ...resources.cpu,
    ...(gone('CpuShares') && { shares: cpuSharesDefault }),
    ...(gone('CpusetCpus') && { cpus: machine.cpus }),
    ...(gone('CpusetMems') && { mems: machine.memoryNodes }),
  };
  return { ...resources, memory, cpu };
}

function blockDevice(path: string): { readonly major: number; readonly minor: number } {
  try {
    return splitDevice(BigInt(fs.statSync(path).rdev));
  } catch (cause) {
    throw internal(`stat ${path}: no such file or directory`, { cause });
  }
}

export interface ResourceLimit {
  readonly type: string;
  /** -1: unlimited. */
  readonly soft: number;
  readonly hard: number;
}

const unlimited = Number.POSITIVE_INFINITY;

/** Lines of `/proc/<pid>/limits` and what the OCI spec calls them. */
const namesOfLimits: Readonly<Record<string, string>> = {
  'Max cpu time': 'RLIMIT_CPU',
  'Max file size': 'RLIMIT_FSIZE',
  'Max data size': 'RLIMIT_DATA',
  'Max stack size': 'RLIMIT_STACK',
  'Max core file size': 'RLIMIT_CORE',
  'Max resident set': 'RLIMIT_RSS',
  'Max processes': 'RLIMIT_NPROC',
  'Max open files': 'RLIMIT_NOFILE',
  'Max locked memory': 'RLIMIT_MEMLOCK',
  'Max address space': 'RLIMIT_AS',
  'Max file locks': 'RLIMIT_LOCKS',
  'Max pending signals': 'RLIMIT_SIGPENDING',
  'Max msgqueue size': 'RLIMIT_MSGQUEUE',
  'Max nice priority': 'RLIMIT_NICE',
  'Max realtime priority': 'RLIMIT_RTPRIO',
  'Max realtime timeout': 'RLIMIT_RTTIME',
};

const limitTypes: ReadonlySet<string> = new Set(Object.values(namesOfLimits));

/** Whether it names a ulimit, as `nofile` does. */
export const isKnownLimit = (name: string): boolean => limitTypes.has(`RLIMIT_${name.toUpperCase()}`);

/** Hard limits of this process (`/proc/self/limits`), by the OCI name. */
export function ownHardLimits(text: string): ReadonlyMap<string, number> {
  const limits = new Map<string, number>();
  for (const line of text.split('\n')) {
    const match = /^(.{25}) *(\S+) +(\S+)/.exec(line);
    const type = namesOfLimits[match?.[1]?.trim() ?? ''];
    if (type) limits.set(type, match?.[3] === 'unlimited' ? unlimited : Number(match?.[3]));
  }
  return limits;
}

/**
 * Ulimits for the process. Raising a hard limit takes CAP_SYS_RESOURCE: without it (`own` given) a higher one is
 * lowered to ours with a warning, where the runtime would fail. -1 is unlimited.
 */
export function resourceLimits(
  ulimits: HostConfig['Ulimits'],
  own: ReadonlyMap<string, number> | null,
): { readonly limits: readonly ResourceLimit[]; readonly warnings: readonly string[] } {
  const warnings: string[] = [];
  // Of two with one name the last counts.
  const byType = new Map((ulimits ?? []).map((ulimit) => [ulimit.Name.toUpperCase(), ulimit]));
  const limits = [...byType.values()].map(({ Name, Soft, Hard }) => {
    const type = `RLIMIT_${Name.toUpperCase()}`;
    const wanted = Hard === -1 ? unlimited : Hard;
    const hard = Math.min(wanted, own?.get(type) ?? unlimited);
    if (hard < wanted) {
      warnings.push(`The hard limit of ulimit ${Name} was lowered to ${hard}: the engine may not raise its own limit.`);
    }
    const soft = Math.min(Soft === -1 ? unlimited : Soft, hard);
    const written = (value: number): number => (value === unlimited ? -1 : value);
    return { type, hard: written(hard), soft: written(soft) };
  });
  return { limits, warnings };
}
