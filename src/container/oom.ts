/**
 * Kills for want of memory while a container runs on: of a process that is not its first, as a rule. The kernel counts them in the
 * container's cgroup; the count is looked at every second where there is a limit, now and then elsewhere (where the machine itself may have run
 * out). How many are known is kept in the record, so that those of a time without a daemon are told too, each once.
 */
import type { NewEvent } from '../event/types.ts';
import { isRunning } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import type { ContainerRecord } from './types.ts';

const lookMs = 1000;
/** Every so many looks all containers are looked at. */
const allEvery = 10;
/** Events of one look; a fork bomb in a small cgroup can be killed thousands of times a second. */
const eventsMax = 16;

/** One event per kill that is not known yet. */
export function oomEvents(record: ContainerRecord, kills: number): readonly NewEvent[] {
  const known = isRunning(record) ? (record.state.oomKills ?? 0) : 0;
  return Array.from({ length: Math.min(Math.max(0, kills - known), eventsMax) }, () => containerEvent(record, 'oom'));
}

export function watchMemory(set: ContainerSet): void {
  let looks = 0;
  setInterval(() => {
    looks += 1;
    for (const record of set.records.values()) {
      if (isRunning(record) && (record.hostConfig.Memory > 0 || looks % allEvery === 0)) look(set, record);
    }
  }, lookMs).unref();
}

function look(set: ContainerSet, { id, state }: ContainerRecord): void {
  const known = state.is === 'running' ? (state.oomKills ?? 0) : 0;
  if (set.parts.runtime.oomKills(id) <= known) return;
  set
    .inLane(id, async () => {
      const record = set.records.get(id);
      // Its end tells the rest.
      if (record === undefined || !isRunning(record) || record.state.startedAt !== startedAtOf(state)) return;
      const oomKills = set.parts.runtime.oomKills(id);
      const events = oomEvents(record, oomKills);
      if (events.length > 0) await set.commit({ ...record, state: { ...record.state, oomKills } }, events);
    })
    .catch((error: unknown) => set.parts.log.error({ container: id, error }, 'a lack of memory could not be recorded'));
}

const startedAtOf = (state: ContainerRecord['state']) => (state.is === 'running' ? state.startedAt : '');
