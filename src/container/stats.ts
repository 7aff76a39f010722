/** `GET /containers/{id}/stats`: what a running container uses. */
import { setTimeout as sleep } from 'node:timers/promises';
import { nowNano, rfc3339Nano } from '../lib/time.ts';
import { isErrno } from '../platform/libc.ts';
import { noBlkio } from '../runtime/cgroup.ts';
import type { CgroupStats } from '../runtime/types.ts';
import type { Json } from './api.ts';
import { isRunning } from './running.ts';
import type { ContainerSet } from './set.ts';
import type { ContainerRecord } from './types.ts';
import { never } from './view.ts';

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
