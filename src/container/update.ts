/**
 * `POST /containers/{id}/update`: other limits and another restart policy for a container, running or not.
 *
 * What a request leaves out, or gives as zero, keeps its value. While the kernel is being told, the record holds the new
 * values as `updating`: a crash in between is finished, or taken back, when the daemon starts again. Nobody was answered
 * until then, so both are right.
 */
import { conflict, EngineError, internal, invalid, messageOf } from '../lib/errors.ts';
import type { ContainerId } from '../lib/ids.ts';
import type { UpdateBody } from './api.ts';
import { cgroupPathOf, checkRestartPolicy, decodeHostConfig } from './decode.ts';
import { diskLimitOf } from './disk-limit.ts';
import { checkLimits, type Limits, limitNames } from './limits.ts';
import { isRunning, type RunningRecord } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import type { ContainerRecord, HostConfig } from './types.ts';

/** What a running container cannot be given: its next start can. */
const forNextStart = [
  'CgroupParent',
  'Devices',
  'DeviceCgroupRules',
  'Ulimits',
] as const satisfies readonly (keyof Limits)[];
const kernelNames = limitNames.filter((name) => !(forNextStart as readonly string[]).includes(name));

export async function updateContainer(
  set: ContainerSet,
  ref: string,
  body: UpdateBody,
): Promise<{ readonly Warnings: readonly string[] }> {
  const { id } = set.index.resolve(ref);
  const { parts } = set;
  const policy = policyOf(body);
  const asked = checkLimits(limitsOf(body, set), parts.runtime.describe().machine, 'update');
  if (asked.limits.DiskQuota !== 0) parts.layers.mustLimitWritable();
  return set.inLane(id, async () => {
    const record = set.current(id);
    if (set.live(id).removing) {
      throw conflict(`Cannot update container ${id}: Container is marked for removal and cannot be "update".`);
    }
    const hostConfig = merge(record, asked.limits, policy);
    const changed = (names: readonly (keyof HostConfig)[]) =>
      names.filter((name) => JSON.stringify(hostConfig[name]) !== JSON.stringify(record.hostConfig[name]));
    const next = { ...withoutUpdate(record), hostConfig, cgroupPath: cgroupPathOf(hostConfig.CgroupParent, id) };
    const event = containerEvent(next, 'update');
    if (!isRunning(record)) {
      limitDisk(set, id, hostConfig, record.hostConfig);
      await set.commit(next, [event]);
      return { Warnings: asked.warnings };
    }
    if (changed(kernelNames).length === 0) await set.commit(next, [event]);
    else {
      await set.commit({ ...record, updating: { hostConfig, startedAt: record.state.startedAt } });
      await change(set, record, hostConfig, () => set.commit(next, [event]));
    }
    const later = changed(forNextStart).map((name) => `${name} takes effect with the next start of the container.`);
    return { Warnings: [...asked.warnings, ...later] };
  });
}

/** Tells the kernel, then has it recorded; when either fails, both go back to what they said. */
async function change(
  set: ContainerSet,
  record: RunningRecord,
  to: HostConfig,
  recordIt: () => Promise<unknown>,
): Promise<void> {
  const { runtime, log } = set.parts;
  const { id, hostConfig: from } = record;
  try {
    limitDisk(set, id, to, from);
    await runtime.update(id, to, from);
    await recordIt();
  } catch (error) {
    const back = async () => limitDisk(set, id, from, to);
    for (const step of [() => runtime.update(id, from, to), back, () => set.commit(withoutUpdate(record))]) {
      await step().catch((cause: unknown) =>
        log.error({ container: id, error: cause }, 'taking back an update failed'),
      );
    }
    if (error instanceof EngineError && error.kind === 'invalid') throw error;
    throw internal(`Cannot update container ${id}: ${messageOf(error)}`, { cause: error });
  }
}

function limitDisk(set: ContainerSet, id: ContainerId, to: HostConfig, from: HostConfig): void {
  const bytes = diskLimitOf(to);
  if (bytes !== diskLimitOf(from)) set.parts.layers.limitWritable(id, bytes);
}

/** Finishes the update that a crash has cut short, or takes it back. Called for running containers before any command. */
export async function finishUpdate(set: ContainerSet, { id, updating }: ContainerRecord): Promise<void> {
  if (updating !== undefined) await set.inLane(id, () => finish(set, set.current(id)));
}

async function finish(set: ContainerSet, record: ContainerRecord): Promise<void> {
  const { updating } = record;
  if (updating === undefined || !isRunning(record)) return;
  const settled = withoutUpdate(record);
  // The container has been started again since, with what the record says.
  if (updating.startedAt !== record.state.startedAt) {
    await set.commit(settled);
    return;
  }
  const { hostConfig } = updating;
  const next = { ...settled, hostConfig, cgroupPath: cgroupPathOf(hostConfig.CgroupParent, record.id) };
  await change(set, record, hostConfig, () => set.commit(next, [containerEvent(next, 'update')])).catch(
    (error: unknown) => set.parts.log.warn({ container: record.id, error }, 'an update cut short was taken back'),
  );
}

function withoutUpdate(record: ContainerRecord): ContainerRecord {
  const { updating: _, ...settled } = record;
  return settled;
}

function policyOf({ RestartPolicy: given }: UpdateBody): HostConfig['RestartPolicy'] | null {
  const policy = { Name: given?.Name ?? '', MaximumRetryCount: given?.MaximumRetryCount ?? 0 } as const;
  if (policy.Name === '') return null;
  checkRestartPolicy(policy);
  return policy;
}

/** The limits of a request; those left out are zero, empty or null. */
function limitsOf(body: UpdateBody, set: ContainerSet): Limits {
  const decoded = decodeHostConfig(body, set.parts.defaults());
  return { ...decoded, MemorySwap: body.MemorySwap ?? 0, OomKillDisable: body.OomKillDisable ?? null };
}

const isGiven = (value: unknown) =>
  Array.isArray(value) ? value.length > 0 : ![0, '', null, undefined].includes(value as null);

/** What the container has with what is asked for, where the two do not contradict each other (dockerd's rules and words). */
function merge(record: ContainerRecord, asked: Limits, policy: HostConfig['RestartPolicy'] | null): HostConfig {
  const { id, hostConfig: current } = record;
  const clash = (why: string) => conflict(`Cannot update container ${id}: ${why}`);
  const nano = 'Conflicting options: Nano CPUs cannot be updated as CPU';
  if (asked.NanoCpus > 0 && current.CpuPeriod > 0) throw clash(`${nano} Period has already been set`);
  if (asked.NanoCpus > 0 && current.CpuQuota > 0) throw clash(`${nano} Quota has already been set`);
  const because = 'cannot be updated as NanoCPUs has already been set';
  if (asked.CpuPeriod > 0 && current.NanoCpus > 0) throw clash(`Conflicting options: CPU Period ${because}`);
  if (asked.CpuQuota > 0 && current.NanoCpus > 0) throw clash(`Conflicting options: CPU Quota ${because}`);
  // Unlimited swap is as large as any memory (dockerd refuses here, too).
  if (asked.Memory > current.MemorySwap && asked.MemorySwap === 0 && current.MemorySwap !== -1) {
    throw clash(
      'Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time',
    );
  }
  if (policy && policy.Name !== 'no' && current.AutoRemove) {
    throw clash('Restart policy cannot be updated because AutoRemove is enabled for the container');
  }
  const changes = Object.fromEntries(
    limitNames.filter((name) => isGiven(asked[name])).map((name) => [name, asked[name]]),
  );
  const merged: HostConfig = { ...current, ...changes, ...(policy && { RestartPolicy: policy }) };
  // What the kernel would refuse, and the next start fail for.
  if (merged.MemorySwap > 0 && merged.Memory === 0) {
    throw invalid('You should always set the Memory limit when using Memoryswap limit, see usage');
  }
  if (merged.MemorySwap > 0 && merged.MemorySwap < merged.Memory) {
    throw invalid('Minimum memoryswap limit should be larger than memory limit, see usage');
  }
  return merged;
}
