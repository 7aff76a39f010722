/** `Binds`, `Volumes` and `Tmpfs` of a create request as mount points. */
import path from 'node:path';
import type { RunConfig } from '../image/types.ts';
import { invalid } from '../lib/errors.ts';
import type { HostConfig, MountPoint } from './types.ts';

/** A mount point whose volume, if it is one, still has to be found or made. */
export type PlannedMount = Omit<MountPoint, 'source'> & { readonly source: string; readonly copyUp: boolean };

const propagations = new Set(['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave']);
const ignoredModes = new Set(['z', 'Z', 'consistent', 'cached', 'delegated', 'rw']);

/**
 * What is to be mounted, by destination in the order given: binds first, then volumes of the config and the image that no
 * bind covers, then tmpfs. Throws dockerd's words for a specification it would refuse.
 */
export function planMounts(config: RunConfig, host: HostConfig): readonly PlannedMount[] {
  const planned = new Map<string, PlannedMount>();
  for (const bind of host.Binds ?? []) {
    const mount = parseBind(bind);
    if (planned.has(mount.destination)) throw invalid(`Duplicate mount point: ${mount.destination}`);
    planned.set(mount.destination, mount);
  }
  for (const [target, options] of Object.entries(host.Tmpfs ?? {})) {
    const destination = checkDestination(target, target);
    if (planned.has(destination)) throw invalid(`Duplicate mount point: ${destination}`);
    planned.set(destination, {
      type: 'tmpfs',
      source: '',
      destination,
      mode: options,
      writable: true,
      propagation: '',
      tmpfsOptions: options,
      copyUp: false,
    });
  }
  for (const target of Object.keys(config.Volumes ?? {})) {
    const destination = checkDestination(target, target);
    if (planned.has(destination)) continue;
    planned.set(destination, { ...volumeAt(destination), anonymous: true });
  }
  return [...planned.values()];
}

const volumeAt = (destination: string): PlannedMount => ({
  type: 'volume',
  source: '',
  destination,
  driver: 'local',
  mode: '',
  writable: true,
  propagation: '',
  copyUp: true,
});

/** `/host:/container[:modes]` or `name:/container[:modes]`. */
function parseBind(bind: string): PlannedMount {
  // A lone path is a place in the container: an anonymous volume.
  if (/^\/[^:]*$/.test(bind)) return { ...volumeAt(checkDestination(bind, bind)), anonymous: true };
  const parts = bind.split(':');
  const [source, target, mode = ''] = parts;
  if (parts.length > 3 || !source || !target) throw invalid(`invalid volume specification: '${bind}'`);
  const destination = checkDestination(target, bind);
  const isPath = source.startsWith('/');
  let writable = true;
  let copyUp = true;
  let propagation = isPath ? 'rprivate' : '';
  for (const word of mode === '' ? [] : mode.split(',')) {
    if (word === 'ro') writable = false;
    else if (word === 'nocopy') copyUp = false;
    else if (propagations.has(word) && isPath) propagation = word;
    else if (!ignoredModes.has(word)) throw invalid(`invalid mode: ${mode}`);
  }
  if (isPath) {
    return {
      type: 'bind',
      source: path.posix.normalize(source),
      destination,
      mode,
      writable,
      propagation,
      copyUp: false,
    };
  }
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}$/.test(source)) {
    throw invalid(
      `create ${source}: "${source}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
    );
  }
  return { ...volumeAt(destination), name: source, mode: mode === '' ? 'z' : mode, writable, copyUp };
}

function checkDestination(target: string, specification: string): string {
  if (!target.startsWith('/')) {
    throw invalid(
      `invalid volume specification: '${specification}': invalid mount config for type "volume": invalid mount path: '${target}' mount path must be absolute`,
    );
  }
  const destination = path.posix.normalize(target).replace(/(.)\/$/, '$1');
  if (destination === '/')
    throw invalid(`invalid volume specification: '${specification}': invalid mount config: destination can't be '/'`);
  return destination;
}
