/** Control groups as files: where they are, what the kernel offers, and what a container's own say. */
import fs from 'node:fs';
import fsp from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { isErrno } from '../platform/libc.ts';
import { signalProcess, startTicks } from '../platform/process.ts';
import type { Throttle } from './resources.ts';
import type { CgroupStats } from './types.ts';

export interface CgroupLayout {
  readonly version: 1 | 2;
  /** v1 with the v2 tree mounted beside it. */
  readonly hybrid: boolean;
  /** v1: mount point of each controller. v2: every controller at the one root. */
  readonly controllers: ReadonlyMap<string, string>;
  /** All v1 hierarchies (named ones too), or the one v2 root: where a container has a directory. */
  readonly roots: readonly string[];
}

/** Reads the layout from a mount table in the form of `/proc/self/mountinfo`. */
export function detectLayout(mountinfo: string, readControllers: (root: string) => string): CgroupLayout {
  const controllers = new Map<string, string>();
  const roots: string[] = [];
  let unified: string | null = null;
  for (const line of mountinfo.split('\n')) {
    const [before = '', after = ''] = line.split(' - ');
    const mountPoint = before.split(' ')[4] ?? '';
    const [type, , options = ''] = after.split(' ');
    if (!mountPoint.startsWith('/sys/fs/cgroup')) continue;
    if (type === 'cgroup2') unified = mountPoint;
    if (type !== 'cgroup') continue;
    roots.push(mountPoint);
    for (const option of options.split(',')) controllers.set(option, mountPoint);
  }
  if (roots.length > 0) return { version: 1, hybrid: unified !== null, controllers, roots };
  const root = unified ?? '/sys/fs/cgroup';
  for (const name of readControllers(root).split(/\s+/).filter(Boolean)) controllers.set(name, root);
  return { version: 2, hybrid: false, controllers, roots: [root] };
}

/** What the kernel can limit here. */
export interface KernelLimits {
  readonly memory: boolean;
  readonly memoryReservation: boolean;
  readonly swap: boolean;
  readonly swappiness: boolean;
  readonly kernelMemory: boolean;
  readonly oomKillDisable: boolean;
  readonly cpuShares: boolean;
  readonly cpuQuota: boolean;
  readonly cpuRealtime: boolean;
  readonly cpuset: boolean;
  readonly pids: boolean;
  readonly blkioWeight: boolean;
  readonly blkioWeightDevice: boolean;
  readonly blkioThrottle: boolean;
}

export function kernelLimits(layout: CgroupLayout): KernelLimits {
  if (layout.version === 2) {
    const has = (name: string): boolean => layout.controllers.has(name);
    return {
      memory: has('memory'),
      memoryReservation: has('memory'),
      swap: has('memory') && fs.existsSync('/proc/swaps'),
      swappiness: false,
      kernelMemory: false,
      oomKillDisable: false,
      cpuShares: has('cpu'),
      cpuQuota: has('cpu'),
      cpuRealtime: false,
      cpuset: has('cpuset'),
      pids: has('pids'),
      blkioWeight: has('io') && fs.existsSync('/sys/module/bfq'),
      blkioWeightDevice: has('io') && fs.existsSync('/sys/module/bfq'),
      blkioThrottle: has('io'),
    };
  }
  const file = (controller: string, name: string): boolean => {
    const root = layout.controllers.get(controller);
    return root !== undefined && fs.existsSync(`${root}/${name}`);
  };
  return {
    memory: file('memory', 'memory.limit_in_bytes'),
    memoryReservation: file('memory', 'memory.soft_limit_in_bytes'),
    swap: file('memory', 'memory.memsw.limit_in_bytes'),
    swappiness: file('memory', 'memory.swappiness'),
    // The file is still there on newer kernels, but writing it has had no effect since Linux 6.1.
    kernelMemory: false,
    oomKillDisable: file('memory', 'memory.oom_control'),
    cpuShares: file('cpu', 'cpu.shares'),
    cpuQuota: file('cpu', 'cpu.cfs_quota_us'),
    cpuRealtime: file('cpu', 'cpu.rt_runtime_us'),
    cpuset: file('cpuset', 'cpuset.cpus'),
    pids: layout.controllers.has('pids'),
    blkioWeight: file('blkio', 'blkio.weight'),
    blkioWeightDevice: file('blkio', 'blkio.weight_device'),
    blkioThrottle: file('blkio', 'blkio.throttle.read_bps_device'),
  };
}

const ratesOf: Readonly<Record<Throttle, readonly [v1: string, v2: string]>> = {
  BlkioDeviceReadBps: ['read_bps', 'rbps'],
  BlkioDeviceWriteBps: ['write_bps', 'wbps'],
  BlkioDeviceReadIOps: ['read_iops', 'riops'],
  BlkioDeviceWriteIOps: ['write_iops', 'wiops'],
};

/** The directories of one container's cgroup. */
export class Cgroup {
  readonly #layout: CgroupLayout;
  readonly #path: string;

  /** `cgroupPath` is absolute below each hierarchy, e.g. `/docker/<id>`. */
  constructor(layout: CgroupLayout, cgroupPath: string) {
    this.#layout = layout;
    this.#path = path.posix.normalize(`/${cgroupPath}`);
  }

  #file(controller: string, name: string): string {
    return `${this.#layout.controllers.get(controller) ?? `/sys/fs/cgroup/${controller}`}${this.#path}/${name}`;
  }

  get directories(): readonly string[] {
    return this.#layout.roots.map((root) => root + this.#path);
  }

  /** pids inside, subgroups included; none when the group has gone. */
  async processes(): Promise<readonly number[]> {
    const directory =
      this.#layout.version === 2
        ? this.directories[0]
        : path.dirname(this.#file(this.#layout.controllers.has('pids') ? 'pids' : 'memory', 'cgroup.procs'));
    return directory === undefined ? [] : processesBelow(directory);
  }

  /**
   * SIGKILL to everything inside, again until nobody is left: a process may fork while we read. Resolves after at most
   * some tens of rounds; what survives those is stuck in the kernel.
   */
  async killAll(): Promise<void> {
    for (let round = 0; round < 50; round += 1) {
      const pids = await this.processes();
      let alive = 0;
      for (const pid of pids) {
        const ticks = startTicks(pid);
        if (ticks !== null && signalProcess(pid, ticks, os.constants.signals.SIGKILL)) alive += 1;
      }
      if (alive === 0) return;
      await new Promise((resolve) => setTimeout(resolve, Math.min(1 + round, 20)));
    }
  }

  /** Takes limits away that crun 1.8 can only set. */
  async lift(limit: 'cpu' | 'pids' | 'oom-kill-disable'): Promise<void> {
    const v2 = this.#layout.version === 2;
    const write = (controller: string, name: string, value: string) =>
      fsp.writeFile(v2 ? `${this.directories[0]}/${name}` : this.#file(controller, name), value);
    if (limit === 'pids') await write('pids', 'pids.max', 'max');
    else if (limit === 'cpu') await write('cpu', v2 ? 'cpu.max' : 'cpu.cfs_quota_us', v2 ? 'max' : '-1');
    else if (!v2) await write('memory', 'memory.oom_control', '0');
  }

  /** Takes a rate of block I/O away from a device (`7:0`). */
  async liftRate(kind: Throttle, device: string): Promise<void> {
    const [v1, v2] = ratesOf[kind];
    if (this.#layout.version === 2) await fsp.writeFile(`${this.directories[0]}/io.max`, `${device} ${v2}=max`);
    else await fsp.writeFile(this.#file('blkio', `blkio.throttle.${v1}_device`), `${device} 0`);
  }

  /**
   * On v2 a limit below what is in use has the kernel kill for it at once, where v1 refuses: bytes that no limit may go
   * below, 0 where the kernel sees to it itself.
   */
  async memoryInUse(): Promise<number> {
    if (this.#layout.version === 1) return 0;
    const { anon = 0, shmem = 0 } = pairs(readOr(`${this.directories[0]}/memory.stat`));
    return anon + shmem;
  }

  /** Stops or continues everything inside; resolves when the kernel says so. */
  async freeze(frozen: boolean): Promise<void> {
    const [file, word, reached] =
      this.#layout.version === 2
        ? [this.#file('', 'cgroup.freeze'), frozen ? '1' : '0', () => this.#frozenV2(frozen)]
        : [this.#file('freezer', 'freezer.state'), frozen ? 'FROZEN' : 'THAWED', () => this.#frozenV1(frozen)];
    const control = this.#layout.version === 2 ? `${this.directories[0]}/cgroup.freeze` : file;
    await fsp.writeFile(control, word);
    for (let attempt = 0; !(await reached()); attempt += 1) {
      if (attempt === 500) throw new Error(`the kernel has not ${frozen ? 'frozen' : 'thawed'} the cgroup in time`);
      await new Promise((resolve) => setTimeout(resolve, Math.min(1 + attempt, 20)));
      // A v1 group that was forking while it froze stays FREEZING until asked once more.
      if (this.#layout.version === 1) await fsp.writeFile(control, word);
    }
  }

  async #frozenV1(frozen: boolean): Promise<boolean> {
    const state = (await fsp.readFile(this.#file('freezer', 'freezer.state'), 'utf8')).trim();
    return state === (frozen ? 'FROZEN' : 'THAWED');
  }

  async #frozenV2(frozen: boolean): Promise<boolean> {
    const events = await fsp.readFile(`${this.directories[0]}/cgroup.events`, 'utf8');
    return new RegExp(`^frozen ${frozen ? 1 : 0}$`, 'm').test(events);
  }

  /** How often the kernel's out-of-memory killer has struck inside; 0 when the group has gone. */
  oomKills(): number {
    const file =
      this.#layout.version === 2 ? `${this.directories[0]}/memory.events` : this.#file('memory', 'memory.oom_control');
    try {
      return Number(/^oom_kill (\d+)$/m.exec(fs.readFileSync(file, 'utf8'))?.[1] ?? 0);
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENODEV', 'ENOTDIR')) return 0;
      throw error;
    }
  }

  /**
   * Removes the group's directories, subgroups first. True when nothing of it is left; false when somebody still
   * lives inside.
   */
  async remove(): Promise<boolean> {
    const removed = await Promise.all(this.directories.map(removeGroup));
    return removed.every(Boolean);
  }

  async stats(): Promise<CgroupStats> {
    return this.#layout.version === 2
      ? statsV2(this.directories[0] ?? '')
      : statsV1((controller, name) => this.#file(controller, name));
  }
}

async function processesBelow(directory: string): Promise<readonly number[]> {
  try {
    const [text, entries] = await Promise.all([
      fsp.readFile(`${directory}/cgroup.procs`, 'utf8'),
      fsp.readdir(directory, { withFileTypes: true }),
    ]);
    const own = text.split('\n').filter(Boolean).map(Number);
    const below = entries.filter((entry) => entry.isDirectory());
    if (below.length === 0) return own;
    const nested = await Promise.all(below.map((entry) => processesBelow(`${directory}/${entry.name}`)));
    return [...own, ...nested.flat()];
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV')) return [];
    throw error;
  }
}

async function removeGroup(directory: string): Promise<boolean> {
  try {
    await fsp.rmdir(directory);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true;
    if (!isErrno(error, 'EBUSY', 'ENOTEMPTY')) throw error;
  }
  let below: string[];
  try {
    const entries = await fsp.readdir(directory, { withFileTypes: true });
    below = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true;
    throw error;
  }
  for (const name of below) await removeGroup(`${directory}/${name}`);
  try {
    await fsp.rmdir(directory);
    return true;
  } catch (error) {
    return isErrno(error, 'ENOENT');
  }
}

const nothing = '';

/** At once: the kernel answers from memory in microseconds, where a turn in the thread pool costs ten times that. */
function readOr(file: string): string {
  try {
    return fs.readFileSync(file, 'latin1');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV', 'ENOTDIR', 'EOPNOTSUPP')) return nothing;
    throw error;
  }
}

/** `name value` lines. */
function pairs(text: string): Record<string, number> {
  const result: Record<string, number> = {};
  for (const line of text.split('\n')) {
    const space = line.lastIndexOf(' ');
    if (space > 0) result[line.slice(0, space)] = Number(line.slice(space + 1));
  }
  return result;
}

/** The keys of v1's memory.stat that dockerd passes on. */
const memoryKeysV1 = new Set(
  (() => {
    const own = `cache rss rss_huge mapped_file dirty writeback pgpgin pgpgout pgfault pgmajfault inactive_anon
      active_anon inactive_file active_file unevictable`
      .trim()
      .split(/\s+/);
    return [...own, ...own.map((key) => `total_${key}`), 'hierarchical_memory_limit', 'hierarchical_memsw_limit'];
  })(),
);

/** A limit as the kernel prints it; without one, the machine's memory. */
function memoryLimit(text: string): number {
  const value = Number(text);
  return text.trim() === '' || text.trim() === 'max' || value > os.totalmem() ? os.totalmem() : value;
}

/** Nanoseconds of all CPUs since boot, busy or not (first line of /proc/stat, in USER_HZ = 100 per second). */
function systemCpu(): number {
  const line = fs.readFileSync('/proc/stat', 'latin1').split('\n', 1)[0] ?? '';
  const ticks = line
    .trim()
    .split(/\s+/)
    .slice(1, 9)
    .reduce((sum, text) => sum + Number(text), 0);
  return ticks * 1e7;
}

type BlkioRow = { readonly major: number; readonly minor: number; readonly op: string; readonly value: number };

function statsV1(file: (controller: string, name: string) => string): CgroupStats {
  const read = (controller: string, name: string): string => readOr(file(controller, name));
  const blkio = (name: string): readonly BlkioRow[] =>
    parseBlkio(read('blkio', `blkio.${name}_recursive`) || read('blkio', `blkio.throttle.${name}_recursive`));
  const [
    current,
    max,
    usage,
    maxUsage,
    failcnt,
    limit,
    memory,
    cpuTotal,
    perCpu,
    cpuStat,
    throttling,
    bytes,
    serviced,
  ] = [
    read('pids', 'pids.current'),
    read('pids', 'pids.max'),
    read('memory', 'memory.usage_in_bytes'),
    read('memory', 'memory.max_usage_in_bytes'),
    read('memory', 'memory.failcnt'),
    read('memory', 'memory.limit_in_bytes'),
    read('memory', 'memory.stat'),
    read('cpuacct', 'cpuacct.usage'),
    read('cpuacct', 'cpuacct.usage_percpu'),
    read('cpuacct', 'cpuacct.stat'),
    read('cpu', 'cpu.stat'),
    blkio('io_service_bytes'),
    blkio('io_serviced'),
  ] as const;
  const cpu = pairs(cpuStat);
  const periods = pairs(throttling);
  const percpu = perCpu.trim() === '' ? [] : perCpu.trim().split(/\s+/).map(Number);
  return {
    pids_stats: pidsStats(current, max),
    blkio_stats: {
      io_service_bytes_recursive: bytes,
      io_serviced_recursive: serviced,
      io_queue_recursive: [],
      io_service_time_recursive: [],
      io_wait_time_recursive: [],
      io_merged_recursive: [],
      io_time_recursive: [],
      sectors_recursive: [],
    },
    cpu: {
      cpu_usage: {
        total_usage: Number(cpuTotal),
        percpu_usage: percpu,
        usage_in_kernelmode: (cpu.system ?? 0) * 1e7,
        usage_in_usermode: (cpu.user ?? 0) * 1e7,
      },
      system_cpu_usage: systemCpu(),
      online_cpus: onlineCpus,
      throttling_data: {
        periods: periods.nr_periods ?? 0,
        throttled_periods: periods.nr_throttled ?? 0,
        throttled_time: periods.throttled_time ?? 0,
      },
    },
    memory_stats:
      usage === nothing
        ? {}
        : {
            usage: Number(usage),
            max_usage: Number(maxUsage),
            stats: Object.fromEntries(Object.entries(pairs(memory)).filter(([key]) => memoryKeysV1.has(key))),
            failcnt: Number(failcnt),
            limit: memoryLimit(limit),
          },
  };
}

const onlineCpus = os.cpus().length;

function pidsStats(current: string, max: string): CgroupStats['pids_stats'] {
  if (current === nothing) return {};
  const limit = max.trim();
  return { current: Number(current), ...(limit !== 'max' && limit !== '' && { limit: Number(limit) }) };
}

/** `8:0 Read 4096` lines; the last, `Total 4096`, has no device and is left out. */
function parseBlkio(text: string): readonly BlkioRow[] {
  const rows: BlkioRow[] = [];
  for (const line of text.split('\n')) {
    const match = /^(\d+):(\d+) (\w+) (\d+)$/.exec(line);
    if (match)
      rows.push({ major: Number(match[1]), minor: Number(match[2]), op: match[3] ?? '', value: Number(match[4]) });
  }
  return rows;
}

/** Block I/O counters where nothing can be read. */
export const noBlkio = {
  io_service_bytes_recursive: null,
  io_serviced_recursive: null,
  io_queue_recursive: null,
  io_service_time_recursive: null,
  io_wait_time_recursive: null,
  io_merged_recursive: null,
  io_time_recursive: null,
  sectors_recursive: null,
};

/** Readings of a v2 group's directory. */
export function statsV2(directory: string): CgroupStats {
  const read = (name: string): string => readOr(`${directory}/${name}`);
  const [current, max, usage, limit, memory, cpuStat, io] = [
    read('pids.current'),
    read('pids.max'),
    read('memory.current'),
    read('memory.max'),
    read('memory.stat'),
    read('cpu.stat'),
    read('io.stat'),
  ] as const;
  const cpu = pairs(cpuStat);
  return {
    pids_stats: pidsStats(current, max),
    blkio_stats: { ...noBlkio, io_service_bytes_recursive: parseIoV2(io) },
    cpu: {
      cpu_usage: {
        total_usage: (cpu.usage_usec ?? 0) * 1000,
        usage_in_kernelmode: (cpu.system_usec ?? 0) * 1000,
        usage_in_usermode: (cpu.user_usec ?? 0) * 1000,
      },
      system_cpu_usage: systemCpu(),
      online_cpus: onlineCpus,
      throttling_data: {
        periods: cpu.nr_periods ?? 0,
        throttled_periods: cpu.nr_throttled ?? 0,
        throttled_time: (cpu.throttled_usec ?? 0) * 1000,
      },
    },
    memory_stats: usage === nothing ? {} : { usage: Number(usage), stats: pairs(memory), limit: memoryLimit(limit) },
  };
}

/** `8:0 rbytes=1 wbytes=2 rios=3 …` lines. */
function parseIoV2(text: string): readonly BlkioRow[] {
  const rows: BlkioRow[] = [];
  for (const line of text.split('\n')) {
    const device = /^(\d+):(\d+) /.exec(line);
    if (!device) continue;
    for (const [key, op] of [
      ['rbytes', 'read'],
      ['wbytes', 'write'],
    ] as const) {
      const value = new RegExp(`${key}=(\\d+)`).exec(line)?.[1];
      if (value !== undefined)
        rows.push({ major: Number(device[1]), minor: Number(device[2]), op, value: Number(value) });
    }
  }
  return rows;
}
