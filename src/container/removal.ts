/** Removal of a container that does not run: one commit, then its files. */
import fs from 'node:fs/promises';
import type { NewEvent } from '../event/types.ts';
import type { ContainerId } from '../lib/ids.ts';
import type { Write } from '../store/types.ts';
import { exitCodeOf } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import type { ContainerRecord } from './types.ts';

export interface Removal {
  readonly writes: readonly Write[];
  readonly events: readonly NewEvent[];
  /** It could not be committed: what was marked is let go. */
  keep(): void;
  /** Lets waiting clients go and deletes the files. */
  finish(): Promise<void>;
}

/** Removes a container that has ended, if it is still there. Failures are logged. */
export async function removeEnded(set: ContainerSet, id: ContainerId): Promise<void> {
  try {
    await set.inLane(id, async () => {
      const record = set.records.get(id);
      if (record?.state.is === 'exited') await destroy(set, record, true);
    });
  } catch (error) {
    set.parts.log.error({ container: id, error }, 'an ended container could not be removed');
  }
}

/** Removes record and files. In the lane, of a container that does not run. */
export async function destroy(set: ContainerSet, record: ContainerRecord, withVolumes: boolean): Promise<void> {
  const removal = removalOf(set, record, withVolumes);
  await set.parts.store.commit(removal.writes, removal.events).catch((error: unknown) => {
    removal.keep();
    throw error;
  });
  await removal.finish();
}

/** A removal as one commit, and what is to be done when it is durable. */
export function removalOf(set: ContainerSet, record: ContainerRecord, withVolumes: boolean): Removal {
  const { parts } = set;
  const volumes = parts.volumes.forget(
    withVolumes ? anonymousVolumesOf(record) : [],
    (name) => set.usersOfVolume(name).length <= 1,
  );
  return {
    writes: [set.records.remove(record.id), ...set.graves.bury(record, exitCodeOf(record)), ...volumes.writes],
    events: [...volumes.events, containerEvent(record, 'destroy')],
    keep: volumes.keep,
    finish: async () => {
      const log = set.logOf(record);
      set.live(record.id).endRun({ exitCode: exitCodeOf(record) });
      set.forget(record);
      await parts.layers.removeWritable(record.id);
      await log.remove();
      await fs.rm(set.dirOf(record.id), { recursive: true, force: true });
      await parts.volumes.discard(volumes.names);
    },
  };
}

const anonymousVolumesOf = (record: ContainerRecord): readonly string[] => [
  ...new Set(record.mounts.flatMap((mount) => (mount.type === 'volume' && mount.anonymous && mount.name) || [])),
];
