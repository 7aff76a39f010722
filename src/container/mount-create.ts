/** What the mounts of a new container need before it is committed: volumes, found or made, with what the image has at their place. */
import fs from 'node:fs/promises';
import path from 'node:path';
import type { NewEvent } from '../event/types.ts';
import { invalid, messageOf } from '../lib/errors.ts';
import { rootOutside } from '../lib/idmap.ts';
import type { ContainerId } from '../lib/ids.ts';
import { existsInRoot, openInRoot } from '../platform/files.ts';
import { pathExists } from '../platform/remote.ts';
import type { Write } from '../store/types.ts';
import type { Claim } from '../volume/types.ts';
import { mountProblem } from './mount-rules.ts';
import type { PlannedMount } from './mounts.ts';
import type { ContainerSet } from './set.ts';
import type { MountPoint } from './types.ts';

export interface PreparedMounts extends AsyncDisposable {
  readonly mounts: readonly MountPoint[];
  /** To be committed with the container, and announced before it. */
  readonly writes: readonly Write[];
  readonly events: readonly NewEvent[];
}

/** Given back, the volumes can be removed again by others: after the commit they are the container's. */
export async function prepareMounts(
  set: ContainerSet,
  id: ContainerId,
  planned: readonly PlannedMount[],
): Promise<PreparedMounts> {
  const { volumes } = set.parts;
  await checkSources(planned);
  const claims: Claim[] = [];
  const giveBack = async (): Promise<void> => {
    for (const claim of claims) claim[Symbol.dispose]();
    // Those that were not committed after all.
    await volumes.discard(claims.filter((claim) => claim.writes.length > 0).map((claim) => claim.name));
  };
  try {
    const mounts: MountPoint[] = [];
    const filled: { readonly plan: PlannedMount; readonly claim: Claim }[] = [];
    for (const plan of planned) {
      const { mount, volume } = plan;
      if (mount.type !== 'volume') {
        mounts.push(mount);
        continue;
      }
      const claim = volume === null ? volumes.claim(mount.name ?? '') : await volumes.obtain(volume);
      claims.push(claim);
      if (claim.driver === 'local') await giveToRoot(set, id, claim.path);
      mounts.push({ ...mount, ...shownOf(mount, claim) });
      if (plan.copyUp) filled.push({ plan, claim });
    }
    if (filled.length > 0) await fillAll(set, id, filled);
    return {
      mounts,
      writes: claims.flatMap((claim) => claim.writes),
      events: claims.flatMap((claim) => claim.events),
      [Symbol.asyncDispose]: giveBack,
    };
  } catch (error) {
    await giveBack();
    throw error;
  }
}

async function checkSources(planned: readonly PlannedMount[]): Promise<void> {
  for (const { mount } of planned) {
    if (mount.mustExist !== true || mount.type !== 'bind') continue;
    const there = await pathExists(mount.source).catch((error: unknown) => {
      throw invalid(mountProblem('bind', messageOf(error)));
    });
    if (!there) throw invalid(mountProblem('bind', `bind source path does not exist: ${mount.source}`));
  }
}

/** A plugin's volume has a path when it is mounted, and neither mode nor propagation unless they were asked for: as dockerd shows it. */
function shownOf(mount: MountPoint, { name, driver, path: source }: Claim): Partial<MountPoint> {
  if (driver === 'local') return { name, driver, source };
  return {
    name,
    driver,
    source: mount.driver === driver ? mount.source : source,
    mode: mount.mode === 'z' ? '' : mount.mode,
  };
}

/** A volume that nothing is in belongs to root, also where root is somebody else. */
async function giveToRoot(set: ContainerSet, id: ContainerId, volume: string): Promise<void> {
  const ids = set.parts.layers.idsOf(id);
  if (ids === null) return;
  const { uid, gid } = rootOutside(ids);
  if ((await fs.readdir(volume)).length === 0) await fs.chown(volume, uid, gid);
}

async function fillAll(
  set: ContainerSet,
  id: ContainerId,
  filled: readonly { readonly plan: PlannedMount; readonly claim: Claim }[],
): Promise<void> {
  const { layers, volumes } = set.parts;
  const root = await layers.mountWritable(id);
  try {
    for (const { plan, claim } of filled) {
      const { destination } = plan.mount;
      const from = openInRoot(root, destination);
      if (from !== null) {
        try {
          await volumes.fill(claim, from);
        } finally {
          from.close();
        }
      } else if (existsInRoot(root, destination)) {
        const place = path.join(root, destination);
        throw invalid(
          plan.from === 'config'
            ? `cannot mount volume over existing file, file exists ${place}`
            : `source ${place} is not directory`,
        );
      }
    }
  } finally {
    await layers.unmountWritable(id);
  }
}
