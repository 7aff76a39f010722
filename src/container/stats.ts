/** `GET /containers/{id}/stats` and `top`: what a running container uses, and its processes. */
import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { conflict, internal, invalid, messageOf } from '../lib/errors.ts';
import { nowNano, rfc3339Nano } from '../lib/time.ts';
import { isErrno } from '../platform/libc.ts';
import { noBlkio } from '../runtime/cgroup.ts';
import type { CgroupStats } from '../runtime/types.ts';
import type { Json } from './api.ts';
import { isRunning } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import type { ContainerRecord } from './types.ts';
import { never } from './view.ts';

const run = promisify(execFile);
const periodMs = 1000;
/** Between the two samples of a single answer: long enough for a rate. */
const pairMs = 500;

interface Sample {
  readonly read: string;
  readonly usage: CgroupStats | null;
}

const noCpu = {
  cpu_usage: { total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 },
  throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
};

/**
 * Without `stream` one sample, with the one before it in `precpu_stats` unless `oneShot`; else one a second until the
 * container is removed or the signal comes. One that does not run gives zeros.
 */
export async function* containerStats(
  set: ContainerSet,
  ref: string,
  options: { readonly stream: boolean; readonly oneShot: boolean },
  signal: AbortSignal,
): AsyncGenerator<Json> {
  const { id } = set.index.resolve(ref);
  let before: Sample | null = null;
  if (!options.stream) {
    const record = set.current(id);
    if (!options.oneShot && isRunning(record)) {
      before = await sample(set, record);
      await sleep(pairMs);
    }
    yield statsJson(set, record, await sample(set, record), before);
    return;
  }
  while (!signal.aborted) {
    const record = set.records.get(id);
    if (record === undefined) return;
    const now: Sample = await sample(set, record);
    yield statsJson(set, record, now, before);
    before = now;
    await sleep(periodMs, undefined, { signal }).catch(() => undefined);
  }
}

async function sample(set: ContainerSet, record: ContainerRecord): Promise<Sample> {
  // Between look and reading the process may end, and its cgroup with it.
  const usage = isRunning(record) ? await set.parts.runtime.stats(record.id).catch(() => null) : null;
  return { read: usage === null ? never : rfc3339Nano(nowNano()), usage };
}

function statsJson(set: ContainerSet, record: ContainerRecord, now: Sample, before: Sample | null): Json {
  const { usage } = now;
  const networks = usage === null ? {} : networkCounters(set, record);
  return {
    read: now.read,
    preread: before?.read ?? never,
    pids_stats: usage?.pids_stats ?? {},
    blkio_stats: usage?.blkio_stats ?? noBlkio,
    num_procs: 0,
    storage_stats: {},
    cpu_stats: usage?.cpu ?? noCpu,
    precpu_stats: before?.usage?.cpu ?? noCpu,
    memory_stats: usage?.memory_stats ?? {},
    name: `/${record.name}`,
    id: record.id,
    ...networks,
  };
}

function networkCounters(set: ContainerSet, { sandbox }: ContainerRecord): Json {
  if (sandbox === null || sandbox.namespacePath === '') return {};
  try {
    return { networks: set.parts.networks.counters(sandbox) };
  } catch (error) {
    // The container ended since its record was read, and its namespace with it.
    if (isErrno(error, 'ENOENT', 'EINVAL')) return {};
    throw error;
  }
}

/** The host's `ps` with the arguments given, and of its rows those of the container's processes. */
export async function containerTop(
  set: ContainerSet,
  ref: string,
  psArgs: string,
): Promise<{ readonly Titles: readonly string[]; readonly Processes: readonly (readonly string[])[] }> {
  const record = set.index.resolve(ref);
  if (!isRunning(record)) throw conflict(`Container ${record.id} is not running`);
  const pids = new Set(await set.parts.runtime.processes(record.id));
  const args = (psArgs || '-ef').split(/\s+/).filter((word) => word !== '');
  // A list of pids of the client's own would show processes outside.
  if (args.some((word) => /^(-?[pqs]\d|--(pid|ppid|quick-pid|sid))/i.test(word)))
    throw invalid(`bad ps args: ${psArgs}`);
  let output: string;
  try {
    output = (await run('ps', args, { timeout: 10_000, maxBuffer: 64 * 1024 * 1024 })).stdout;
  } catch (error) {
    throw internal(`ps: ${messageOf(error)}`);
  }
  const rows = parsePs(output, pids);
  await set.parts.store.commit([], [containerEvent(record, 'top')]);
  return rows;
}

export function parsePs(
  output: string,
  pids: ReadonlySet<number>,
): { readonly Titles: readonly string[]; readonly Processes: readonly (readonly string[])[] } {
  const [head = '', ...lines] = output.split('\n');
  const titles = head.trim().split(/\s+/);
  const pidColumn = titles.indexOf('PID');
  if (pidColumn < 0) throw internal("Couldn't find PID field in ps output");
  const processes: string[][] = [];
  for (const line of lines) {
    const words = line.trim().split(/\s+/);
    if (words.length < titles.length || !pids.has(Number(words[pidColumn]))) continue;
    // The last column holds blanks of its own: the command.
    processes.push([...words.slice(0, titles.length - 1), words.slice(titles.length - 1).join(' ')]);
  }
  return { Titles: titles, Processes: processes };
}
