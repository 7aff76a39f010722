/** What a create request wants mounted where: from `VolumesFrom`, `Binds`, `Mounts`, and `Volumes` of config and image. */
import type { RunConfig } from '../image/types.ts';
import { EngineError, invalid } from '../lib/errors.ts';
import { isBelow } from '../platform/mountinfo.ts';
import type { VolumeRequest } from '../volume/types.ts';
import {
  checkMount,
  checkTmpfsPlace,
  cleanPath,
  parseBind,
  parseVolumesFrom,
  tmpfsOptions,
  tmpfsWords,
} from './mount-rules.ts';
import type { HostConfig, MountPoint, MountRequest } from './types.ts';

/** A mount point whose volume, if it is one, still has to be found or made. */
export interface PlannedMount {
  readonly mount: MountPoint;
  /** Null for a volume of another container, which is there. */
  readonly volume: VolumeRequest | null;
  /** Gets what the image has at its place. */
  readonly copyUp: boolean;
  /** `config`: asked for by `Volumes`, which must not cover a file. */
  readonly from: 'request' | 'config' | 'container';
}

export interface Surroundings {
  /** Mounts of a container by name or id. Throws when there is no such container. */
  readonly mountsOf: (container: string) => readonly MountPoint[];
  readonly dataRoot: string;
}

/**
 * Mounts by destination. Other containers' come first and give way to the request's own, which may not contradict each other;
 * `Volumes` fill what is left. `Tmpfs` is checked here and mounted from the host config. Throws dockerd's words.
 */
export function planMounts(config: RunConfig, host: HostConfig, around: Surroundings): readonly PlannedMount[] {
  const planned = new Map<string, PlannedMount>();
  const own = new Set<string>();
  const tmpfs = new Set(Object.keys(host.Tmpfs ?? {}).map(checkTmpfsPlace));
  for (const options of Object.values(host.Tmpfs ?? {})) tmpfsOptions(options);
  for (const given of host.VolumesFrom ?? []) {
    for (const mount of inherited(given, around)) {
      planned.set(mount.destination, { mount, volume: null, copyUp: false, from: 'container' });
    }
  }
  const add = (next: PlannedMount, target: string, duplicate = false): void => {
    const { destination } = next.mount;
    if (duplicate || own.has(destination)) throw invalid(`Duplicate mount point: ${target}`);
    own.add(destination);
    planned.set(destination, next);
  };
  for (const bind of host.Binds ?? []) {
    const { request, mode } = parseBind(bind, host.VolumeDriver);
    const next = planOf(request, mode, around.dataRoot);
    add(next, next.mount.destination, tmpfs.has(next.mount.destination));
  }
  for (const request of host.Mounts ?? []) {
    checkMount(request);
    const next = planOf(request, '', around.dataRoot);
    const { mount } = next;
    add(mount.type === 'bind' ? { ...next, mount: { ...mount, mustExist: true } } : next, request.Target);
  }
  for (const target of Object.keys(config.Volumes ?? {})) {
    const destination = placeOfVolume(target);
    // A tmpfs would hide it.
    if (planned.has(destination) || tmpfs.has(destination)) continue;
    const mount: MountPoint = { ...volumeAt(destination), mode: '', anonymous: true };
    planned.set(destination, { mount, volume: { driver: host.VolumeDriver }, copyUp: true, from: 'config' });
  }
  return [...planned.values()];
}

const volumeAt = (destination: string) =>
  ({ type: 'volume', source: '', destination, driver: 'local', writable: true, propagation: '' }) as const;

/** `VOLUME data` of an image means a place below `/`. */
function placeOfVolume(target: string): string {
  const destination = cleanPath(`/${target}`);
  if (destination === '/' || target.includes('\0')) {
    throw invalid(
      `invalid volume specification: '${target}': invalid mount config for type "volume": invalid specification: destination can't be '/'`,
    );
  }
  return destination;
}

function planOf(request: MountRequest, mode: string, dataRoot: string): PlannedMount {
  const { Type: type, ReadOnly: readOnly = false } = request;
  const common = { destination: cleanPath(request.Target), writable: !readOnly, mode };
  const rest = { volume: null, copyUp: false, from: 'request' } as const;
  if (type === 'bind') {
    const source = cleanPath(request.Source ?? '');
    const propagation = propagationOf(request.BindOptions?.Propagation ?? '', source, dataRoot);
    return { mount: { type, source, propagation, ...common }, ...rest };
  }
  if (type === 'tmpfs') {
    const words = tmpfsWords(request);
    return { mount: { type, source: '', propagation: '', tmpfsOptions: words, ...common }, ...rest };
  }
  const { NoCopy = false, Labels, DriverConfig } = request.VolumeOptions ?? {};
  const name = request.Source || undefined;
  return {
    // dockerd shows a volume's missing mode as the label it would share it with.
    mount: { ...volumeAt(common.destination), ...common, mode: mode || 'z', name, anonymous: name === undefined },
    volume: { name, driver: DriverConfig?.Name, options: DriverConfig?.Options, labels: Labels },
    copyUp: !NoCopy,
    from: 'request',
  };
}

/**
 * A bind that shows the engine's own files would keep the mounts of other containers alive, unless unmounting reaches it: so
 * it follows the host (`rslave`).
 */
function propagationOf(asked: string, source: string, dataRoot: string): string {
  if (!isBelow(source, dataRoot) && !isBelow(dataRoot, source)) return asked || 'rprivate';
  if (asked === '') return 'rslave';
  if (asked === 'rslave' || asked === 'rshared') return asked;
  throw invalid(
    `invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within the daemon root, daemon root: "${dataRoot}", bind mount source: "${source}", propagation: "${asked}"`,
  );
}

/** Volumes and binds of another container; a tmpfs is nobody else's. */
function inherited(given: string, around: Surroundings): readonly MountPoint[] {
  const { container, writable } = parseVolumesFrom(given);
  return mountsOf(container, around)
    .filter((mount) => mount.type !== 'tmpfs')
    .map((mount) => ({ ...mount, mode: '', writable: mount.writable && writable }));
}

function mountsOf(container: string, around: Surroundings): readonly MountPoint[] {
  try {
    return around.mountsOf(container);
  } catch (error) {
    // To create, a container that is not there is a mistake in the request.
    if (error instanceof EngineError && error.kind === 'not-found') throw invalid(error.message);
    throw error;
  }
}
