/** Mounts of a container that starts, runs and ends: sources on the host, file systems of volumes, propagation. */
import fs from 'node:fs';
import path from 'node:path';
import type { NewEvent } from '../event/types.ts';
import { internal, invalid, messageOf } from '../lib/errors.ts';
import { existsInRoot, openInRoot } from '../platform/files.ts';
import { isBelow, type MountEntry, mountOf, readMounts } from '../platform/mountinfo.ts';
import { ensureDirectory, withoutLinks } from '../platform/remote.ts';
import { volumeEvent } from '../volume/volumes.ts';
import { placeIn } from './mount-place.ts';
import { cleanPath, tmpfsOptions } from './mount-rules.ts';
import type { ContainerSet } from './set.ts';
import type { ContainerRecord, MountPoint } from './types.ts';

/** What the runtime is to mount. What was set up for it is taken back by `undo`. */
export async function takeMounts(
  set: ContainerSet,
  record: ContainerRecord,
  rootfs: string,
  undo: AsyncDisposableStack,
): Promise<readonly MountPoint[]> {
  const asked = mountsToRun(record);
  const places = new Set(asked.map(({ destination }) => destination));
  const mounts = asked.map((mount) => ({ ...mount, destination: placeOf(rootfs, mount, places) }));
  for (const mount of mounts) {
    if (mount.type !== 'tmpfs') checkProc(mount);
    if (mount.type === 'bind') await checkBind(mount, path.dirname(set.parts.dir));
  }
  const volumes = volumesOf(mounts);
  if (volumes.length > 0) undo.defer(() => releaseMounts(set, record));
  if (mounts.length === 0) return mounts;
  const found = await withSources(set, mounts, record.id);
  const table = readMounts();
  return Promise.all(
    found.map(async (mount) =>
      mount.type === 'tmpfs'
        ? { ...mount, tmpfsOptions: tmpfsFor(mount, found, rootfs) }
        : { ...mount, flags: flagsOf(mountOf(table, await withoutLinks(mount.source))) },
    ),
  );
}

/** Volumes mounted, and with the path that their drivers tell. */
async function withSources(set: ContainerSet, mounts: readonly MountPoint[], holder: string): Promise<MountPoint[]> {
  const sources = new Map<string, string>();
  for (const { name } of volumesOf(mounts)) sources.set(name, await set.parts.volumes.acquire(name, holder));
  return mounts.map((mount) => ({ ...mount, source: sources.get(mount.name ?? '') ?? mount.source }));
}

/** The record's mounts, with the sources that those of this run have. */
export function mountsShown({ mounts }: ContainerRecord, taken: readonly MountPoint[]): readonly MountPoint[] {
  const sources = new Map(taken.map(({ name, source }) => [name ?? '', source]));
  return mounts.map((mount) =>
    mount.name === undefined ? mount : { ...mount, source: sources.get(mount.name) ?? mount.source },
  );
}

/** The run is over: file systems of volumes are unmounted after their last container. */
export async function releaseMounts(set: ContainerSet, record: ContainerRecord): Promise<void> {
  for (const { name } of volumesOf(record.mounts)) await set.parts.volumes.release(name, record.id);
}

let holds = 0;

/** What is mounted in a resting container, with the file systems of its volumes mounted until `release` is called. */
export async function holdVolumes(set: ContainerSet, record: ContainerRecord) {
  const { volumes, log } = set.parts;
  const holder = `${record.id} looked at ${holds++}`;
  const names = volumesOf(record.mounts).map(({ name }) => name);
  const release = (): void => {
    for (const name of names) {
      volumes.release(name, holder).catch((error: unknown) => log.error({ volume: name, error }, 'unmounting failed'));
    }
  };
  try {
    return { mounts: await withSources(set, mountsToRun(record), holder), release };
  } catch (error) {
    release();
    throw error;
  }
}

/** The record's mounts, and those of `HostConfig.Tmpfs`, which hide what else is at their place. */
export function mountsToRun({ mounts, hostConfig }: ContainerRecord): readonly MountPoint[] {
  const tmpfs = new Map(
    Object.entries(hostConfig.Tmpfs ?? {}).map(([target, options]): [string, MountPoint] => {
      const destination = cleanPath(target);
      const mount = { type: 'tmpfs', source: '', mode: '', writable: true, propagation: '' } as const;
      return [destination, { ...mount, destination, tmpfsOptions: options }];
    }),
  );
  if (tmpfs.size === 0) return mounts;
  return [...mounts.filter(({ destination }) => !tmpfs.has(destination)), ...tmpfs.values()];
}

async function checkBind({ source, propagation, mustExist }: MountPoint, dataRoot: string): Promise<void> {
  if (mustExist !== true) {
    await ensureDirectory(source).catch((error: unknown) => {
      throw internal(`error while creating mount source path '${source}': ${messageOf(error)}`, { cause: error });
    });
  }
  const wanted = /(shared|slave)$/.exec(propagation)?.[1];
  if (wanted === undefined) return;
  const on = mountOf(readMounts(), await withoutLinks(source));
  if (on === undefined || on.shared) return;
  if (wanted === 'shared') throw invalid(`path ${source} is mounted on ${on.target} but it is not a shared mount`);
  // Whoever binds the engine's own files was made a slave unasked.
  if (on.slave || isBelow(source, dataRoot) || isBelow(dataRoot, source)) return;
  throw invalid(`path ${source} is mounted on ${on.target} but it is not a shared or slave mount`);
}

/**
 * What is read-only or without devices on the host is so in a container too. The kernel would keep these flags for a bind, but
 * the runtime sets them anew.
 */
const flagsOf = (on: MountEntry | undefined): readonly string[] =>
  on?.flags.filter((flag) => ['ro', 'nosuid', 'nodev', 'noexec', 'noatime', 'nodiratime'].includes(flag)) ?? [];

function placeOf(rootfs: string, { destination }: MountPoint, places: ReadonlySet<string>): string {
  const others = new Set(places);
  others.delete(destination);
  const place = placeIn(rootfs, destination, others);
  if (place === '/') throw invalid(`${destination} leads to the root of the container: destination can't be '/'`);
  return place;
}

/** Complete options of a tmpfs. Over a directory of the image it has that one's mode, unless asked for another. */
function tmpfsFor({ destination, tmpfsOptions: given = '' }: MountPoint, all: readonly MountPoint[], root: string) {
  const options = tmpfsOptions(given);
  const above = ['/dev', '/proc', '/sys', ...all.map((mount) => mount.destination)];
  const hidden = above.some((place) => place !== destination && isBelow(destination, place));
  if (!hidden && !existsInRoot(root, destination)) {
    // As open as a new tmpfs: made by the runtime it would be less so at the second start, when it is there to be covered.
    fs.mkdirSync(path.join(root, destination), { recursive: true, mode: 0o755 });
    fs.chmodSync(path.join(root, destination), 0o1777);
  }
  const covered = hidden ? null : openInRoot(root, destination);
  if (covered === null) return options.join(',');
  try {
    const mode = (fs.fstatSync(covered.fd).mode & 0o7777).toString(8);
    return [...options, ...(options.some((option) => option.startsWith('mode=')) ? [] : [`mode=${mode}`])].join(',');
  } finally {
    covered.close();
  }
}

/** Files of /proc that lie without doing harm; over the rest a bind could forge what the runtime relies on. */
const procAllowed = ['cpuinfo', 'diskstats', 'loadavg', 'meminfo', 'net/dev', 'slabinfo', 'stat', 'swaps', 'uptime'];

function checkProc({ type, source, destination }: MountPoint): void {
  if (destination === '/proc') {
    if (type === 'bind' && mountOf(readMounts(), source)?.type === 'proc') return;
    throw invalid(
      `error mounting "${source}" to rootfs at "/proc": it cannot be mounted because it is not of type proc`,
    );
  }
  if (!destination.startsWith('/proc/') || procAllowed.includes(destination.slice('/proc/'.length))) return;
  throw invalid(
    `error mounting "${source}" to rootfs at "${destination}": it cannot be mounted because it is inside /proc`,
  );
}

const volumesOf = (mounts: readonly MountPoint[]) =>
  mounts.flatMap((mount) =>
    mount.type === 'volume' && mount.name !== undefined ? [{ ...mount, name: mount.name }] : [],
  );

export function mountEvents(record: ContainerRecord, action: 'mount' | 'unmount'): readonly NewEvent[] {
  return volumesOf(record.mounts).map(({ name, driver = 'local', destination, writable, propagation }) =>
    volumeEvent(name, action, driver, {
      container: record.id,
      ...(action === 'mount' && { destination, 'read/write': String(writable), propagation }),
    }),
  );
}

/** Volumes of running containers, for the start of the daemon. */
export const volumesHeld = (running: readonly ContainerRecord[]) =>
  running.flatMap((record) => volumesOf(record.mounts).map(({ name }) => ({ volume: name, holder: record.id })));
