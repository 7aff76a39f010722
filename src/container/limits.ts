/**
 * Checks of a container's limits at create and update, with dockerd's words (20.10, `verifyPlatformContainerResources`).
 * What the kernel cannot do is taken out with a warning, so the record says what the container really has.
 */
import { invalid } from '../lib/errors.ts';
import { parseRule } from '../runtime/devices.ts';
import { cpuNumberMax, type MachineLimits, numbersIn } from '../runtime/machine.ts';
import { isKnownLimit, resourceLimits } from '../runtime/resources.ts';
import type { HostConfig, Ulimit } from './types.ts';

/** The properties of `Resources` (API 1.26). */
export type Limits = Pick<HostConfig, (typeof limitNames)[number]>;

export const limitNames = [
  'CpuShares',
  'Memory',
  'NanoCpus',
  'CgroupParent',
  'BlkioWeight',
  'BlkioWeightDevice',
  'BlkioDeviceReadBps',
  'BlkioDeviceWriteBps',
  'BlkioDeviceReadIOps',
  'BlkioDeviceWriteIOps',
  'CpuPeriod',
  'CpuQuota',
  'CpuRealtimePeriod',
  'CpuRealtimeRuntime',
  'CpusetCpus',
  'CpusetMems',
  'Devices',
  'DeviceCgroupRules',
  'DiskQuota',
  'KernelMemory',
  'MemoryReservation',
  'MemorySwap',
  'MemorySwappiness',
  'OomKillDisable',
  'PidsLimit',
  'Ulimits',
  'CpuCount',
  'CpuPercent',
  'IOMaximumIOps',
  'IOMaximumBandwidth',
] as const satisfies readonly (keyof HostConfig)[];

const memoryMin = 6 * 1024 * 1024;
const memorySwappinessMax = 100;
/** Of one directory, and of all above the container's own so that files below still have a path. */
const nameBytesMax = 255;
const cgroupParentBytesMax = 3000;
const realtimePeriodDefault = 1_000_000;

type Changes = { -readonly [K in keyof Limits]: Limits[K] };

/** Throws for what can never be; returns the limits that can be kept and a line for each that cannot. */
export function checkLimits<T extends Limits>(
  given: T,
  machine: MachineLimits,
  purpose: 'create' | 'update',
): { readonly limits: T; readonly warnings: readonly string[] } {
  const limits: Changes & T = { ...given };
  const warnings: string[] = [];
  checkWindowsLimits(limits, warnings);
  checkMemory(limits, machine, purpose, warnings);
  checkCpu(limits, machine, warnings);
  checkCpusets(limits, machine, warnings);
  checkBlockIo(limits, machine, warnings);
  checkDevices(limits);
  warnings.push(...checkUlimits(limits.Ulimits, machine));
  checkCgroupParent(limits.CgroupParent);
  return { limits, warnings };
}

const lacks = (what: string, outcome: string) =>
  `Your kernel does not support ${what} or the cgroup is not mounted. ${outcome}`;
const discarded = 'Limitation discarded.';

/** Limits that Windows alone has: those of disks are refused, that of processors has no effect. */
function checkWindowsLimits(limits: Changes, warnings: string[]): void {
  if (limits.IOMaximumIOps !== 0) {
    throw invalid('Invalid QoS settings: linux does not support configuration of maximum IOPs');
  }
  if (limits.IOMaximumBandwidth !== 0) {
    throw invalid('Invalid QoS settings: linux does not support configuration of maximum bandwidth');
  }
  if (limits.CpuPercent > 0) {
    warnings.push('linux does not support CPU percent. Percent discarded.');
    limits.CpuPercent = 0;
  }
  if (limits.CpuCount !== 0) {
    warnings.push('linux does not support CPU count. Count discarded.');
    limits.CpuCount = 0;
  }
}

function checkMemory(
  limits: Changes,
  { kernel }: MachineLimits,
  purpose: 'create' | 'update',
  warnings: string[],
): void {
  if (limits.Memory !== 0 && limits.Memory < memoryMin) throw invalid('Minimum memory limit allowed is 6MB');
  if (limits.Memory > 0 && !kernel.memory) {
    warnings.push(lacks('memory limit capabilities', discarded));
    limits.Memory = 0;
    limits.MemorySwap = -1;
  }
  if (limits.Memory > 0 && limits.MemorySwap !== -1 && !kernel.swap) {
    warnings.push(lacks('swap limit capabilities', 'Memory limited without swap.'));
    limits.MemorySwap = -1;
  }
  if (limits.Memory > 0 && limits.MemorySwap > 0 && limits.MemorySwap < limits.Memory) {
    throw invalid('Minimum memoryswap limit should be larger than memory limit, see usage');
  }
  if (limits.Memory === 0 && limits.MemorySwap > 0 && purpose === 'create') {
    throw invalid('You should always set the Memory limit when using Memoryswap limit, see usage');
  }
  // What no kernel takes is refused also where this one has none; dockerd discards it there.
  const swappiness = limits.MemorySwappiness ?? 0;
  if (swappiness < 0 || swappiness > memorySwappinessMax) {
    throw invalid(`Invalid value: ${swappiness}, valid memory swappiness range is 0-100`);
  }
  if (limits.MemorySwappiness !== null && !kernel.swappiness) {
    warnings.push(lacks('memory swappiness capabilities', 'Memory swappiness discarded.'));
    limits.MemorySwappiness = null;
  }
  if (limits.MemoryReservation > 0 && !kernel.memoryReservation) {
    warnings.push(lacks('memory soft limit capabilities', discarded));
    limits.MemoryReservation = 0;
  }
  if (limits.MemoryReservation > 0 && limits.MemoryReservation < memoryMin) {
    throw invalid('Minimum memory reservation allowed is 6MB');
  }
  if (limits.Memory > 0 && limits.MemoryReservation > limits.Memory) {
    throw invalid('Minimum memory limit can not be less than memory reservation limit, see usage');
  }
  if (limits.KernelMemory > 0 && limits.KernelMemory < memoryMin) {
    throw invalid('Minimum kernel memory limit allowed is 6MB');
  }
  if (limits.KernelMemory > 0 && !kernel.kernelMemory) {
    warnings.push(lacks('kernel memory limit capabilities', discarded));
    limits.KernelMemory = 0;
  }
  if (limits.OomKillDisable && !kernel.oomKillDisable) {
    warnings.push('Your kernel does not support OomKillDisable. OomKillDisable discarded.');
    limits.OomKillDisable = false;
  }
  if (limits.OomKillDisable && limits.Memory === 0 && purpose === 'create') {
    warnings.push(
      'OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.',
    );
  }
  if (limits.PidsLimit > 0 && !kernel.pids) {
    warnings.push(lacks('pids limit capabilities', 'PIDs limit discarded.'));
    limits.PidsLimit = 0;
  }
}

function checkCpu(limits: Changes, { kernel, cpuCount }: MachineLimits, warnings: string[]): void {
  if (limits.NanoCpus > 0 && limits.CpuPeriod > 0) {
    throw invalid('Conflicting options: Nano CPUs and CPU Period cannot both be set');
  }
  if (limits.NanoCpus > 0 && limits.CpuQuota > 0) {
    throw invalid('Conflicting options: Nano CPUs and CPU Quota cannot both be set');
  }
  if (limits.NanoCpus > 0 && !kernel.cpuQuota) {
    throw invalid(
      'NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted',
    );
  }
  if (limits.NanoCpus < 0 || limits.NanoCpus > cpuCount * 1e9) {
    throw invalid(`Range of CPUs is from 0.01 to ${cpuCount}.00, as there are only ${cpuCount} CPUs available`);
  }
  if (limits.CpuShares < 0) throw invalid(`Invalid value: ${limits.CpuShares}, CPU shares cannot be negative`);
  if (limits.CpuShares > 0 && !kernel.cpuShares) {
    warnings.push(lacks('CPU shares', 'Shares discarded.'));
    limits.CpuShares = 0;
  }
  if ((limits.CpuPeriod !== 0 || limits.CpuQuota !== 0) && !kernel.cpuQuota) {
    warnings.push(lacks('CPU CFS scheduler', 'CPU period/quota discarded.'));
    limits.CpuPeriod = 0;
    limits.CpuQuota = 0;
  }
  if (limits.CpuPeriod !== 0 && (limits.CpuPeriod < 1000 || limits.CpuPeriod > 1_000_000)) {
    throw invalid('CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)');
  }
  if (limits.CpuQuota > 0 && limits.CpuQuota < 1000) {
    throw invalid('CPU cfs quota can not be less than 1ms (i.e. 1000)');
  }
  const { CpuRealtimePeriod: period, CpuRealtimeRuntime: runtime } = limits;
  if (period < 0 || runtime < 0 || runtime > (period || realtimePeriodDefault)) {
    throw invalid(
      `Invalid value: CPU real-time runtime ${runtime} and period ${period}, the runtime cannot exceed the period (${realtimePeriodDefault} unless set)`,
    );
  }
  if ((period > 0 || runtime > 0) && !kernel.cpuRealtime) {
    warnings.push(lacks('CPU real-time scheduler', 'CPU real-time settings discarded.'));
    limits.CpuRealtimePeriod = 0;
    limits.CpuRealtimeRuntime = 0;
  }
}

function checkCpusets(limits: Changes, { kernel, cpus, memoryNodes }: MachineLimits, warnings: string[]): void {
  parseNumbers(limits.CpusetCpus, 'cpus');
  parseNumbers(limits.CpusetMems, 'mems');
  if ((limits.CpusetCpus !== '' || limits.CpusetMems !== '') && !kernel.cpuset) {
    warnings.push(lacks('cpuset', 'Cpuset discarded.'));
    limits.CpusetCpus = '';
    limits.CpusetMems = '';
  }
  checkNumbers(limits.CpusetCpus, cpus, 'cpus', 'CPUs');
  checkNumbers(limits.CpusetMems, memoryNodes, 'mems', 'memory nodes');
}

function checkNumbers(wanted: string, available: string, name: string, kind: string): void {
  const numbers = parseNumbers(wanted, name);
  const there = numbersIn(available) ?? new Set<number>();
  if ([...numbers].some((number) => !there.has(number))) {
    throw invalid(`Requested ${kind} are not available - requested ${wanted}, available: ${available}`);
  }
}

function parseNumbers(list: string, name: string): ReadonlySet<number> {
  const failure = (why: string) => invalid(`Invalid value ${list} for cpuset ${name}: ${why}`);
  let numbers: ReadonlySet<number> | null;
  try {
    numbers = numbersIn(list);
  } catch {
    throw failure(`value of out range, maximum is ${cpuNumberMax}`); // sic
  }
  if (numbers === null) throw failure(`invalid format: ${list}`);
  return numbers;
}

function checkBlockIo(limits: Changes, { kernel }: MachineLimits, warnings: string[]): void {
  if (limits.BlkioWeight > 0 && !kernel.blkioWeight) {
    warnings.push(lacks('Block I/O weight', 'Weight discarded.'));
    limits.BlkioWeight = 0;
  }
  const inRange = (weight: number) => weight >= 10 && weight <= 1000;
  if (limits.BlkioWeight !== 0 && !inRange(limits.BlkioWeight)) {
    throw invalid('Range of blkio weight is from 10 to 1000');
  }
  if ((limits.BlkioWeightDevice?.length ?? 0) > 0 && !kernel.blkioWeightDevice) {
    warnings.push(lacks('Block I/O weight_device', 'Weight-device discarded.'));
    limits.BlkioWeightDevice = [];
  }
  for (const { Path, Weight } of limits.BlkioWeightDevice ?? []) {
    if (!inRange(Weight)) throw invalid(`Range of blkio weight is from 10 to 1000: ${Weight} for ${Path}`);
  }
  const throttles = [
    ['BlkioDeviceReadBps', 'BPS', 'read'],
    ['BlkioDeviceWriteBps', 'BPS', 'write'],
    ['BlkioDeviceReadIOps', 'IOPS', 'read'],
    ['BlkioDeviceWriteIOps', 'IOPS', 'write'],
  ] as const;
  for (const [name, unit, direction] of throttles) {
    const list = limits[name] ?? [];
    const wrong = list.find(({ Rate }) => Rate < 0);
    if (wrong) throw invalid(`Invalid value: ${wrong.Rate}, the rate of ${name} for ${wrong.Path} cannot be negative`);
    if (list.length > 0 && !kernel.blkioThrottle) {
      const what = `${unit} Block I/O ${direction} limit`;
      warnings.push(lacks(what, `Block I/O ${unit} ${direction} limit discarded.`));
      limits[name] = [];
    }
  }
}

/** What stands in the request itself; whether a device is there is looked up at start. */
function checkDevices(limits: Changes): void {
  for (const { PathOnHost, CgroupPermissions } of limits.Devices ?? []) {
    if (!/^[rwm]*$/.test(CgroupPermissions ?? '')) {
      throw invalid(`invalid device mode: ${CgroupPermissions} of ${PathOnHost}: r, w and m are known`);
    }
  }
  for (const rule of limits.DeviceCgroupRules ?? []) parseRule(rule);
}

export function checkUlimits(ulimits: readonly Ulimit[] | null, { hardLimits }: MachineLimits): readonly string[] {
  for (const { Name, Soft, Hard } of ulimits ?? []) {
    if (!isKnownLimit(Name)) throw invalid(`invalid ulimit type: ${Name}`);
    if (Soft < -1 || Hard < -1) throw invalid(`invalid ulimit value of ${Name}: -1 is unlimited`);
    if (Hard !== -1 && (Soft === -1 || Soft > Hard)) {
      throw invalid(`ulimit soft limit must be less than or equal to hard limit: ${Name}: ${Soft} > ${Hard}`);
    }
  }
  return resourceLimits(ulimits, hardLimits).warnings;
}

/** What the kernel takes as directories; the runtime, asked to complain of more than a pipe holds, would never end. */
function checkCgroupParent(parent: string): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  const isBad = /[\x00-\x1f]/.test(parent) || parent.split('/').some((name) => Buffer.byteLength(name) > nameBytesMax);
  if (isBad || Buffer.byteLength(parent) > cgroupParentBytesMax) throw invalid('CgroupParent is no path of a cgroup');
}
