/**
 * What a container shares with the host or with another container (`NetworkMode`, `PidMode`, `IpcMode`, `UTSMode`), and the
 * rest of its isolation: checked and resolved when it is created, opened when it starts.
 */
import type { RunConfig } from '../image/types.ts';
import { conflict, invalid } from '../lib/errors.ts';
import type { ContainerId } from '../lib/ids.ts';
import type { LaunchSpec, NamespaceOwner } from '../runtime/types.ts';
import { isRunning } from './running.ts';
import type { ContainerSet } from './set.ts';
import type { ContainerRecord, HostConfig } from './types.ts';

const sharedPrefix = 'container:';
type SharedMode = 'NetworkMode' | 'PidMode' | 'IpcMode';
const sharedModes: readonly SharedMode[] = ['NetworkMode', 'PidMode', 'IpcMode'];

/** The container a mode refers to, as it was given or by id; null: it shares nothing with one. */
const referenceIn = (mode: string) => (mode.startsWith(sharedPrefix) ? mode.slice(sharedPrefix.length) : null);

/** Ids of the containers that must run before this one can start. */
export function dependenciesOf({ hostConfig }: ContainerRecord): readonly ContainerId[] {
  const ids = sharedModes.map((mode) => referenceIn(hostConfig[mode])).filter((ref) => ref !== null);
  return [...new Set(ids)] as ContainerId[];
}

/** Processes of a container in a namespace of its own end with process 1; others would live on. */
export const ownsPidNamespace = ({ PidMode: mode }: HostConfig) => mode === '' || mode === 'private';

/** dockerd takes more and ignores it, but for the conflict of host names. Words are its own or its client's. */
export function checkIsolation(own: RunConfig, host: HostConfig, remaps: boolean): void {
  if (remaps && host.UsernsMode !== 'host') checkRemapped(host);
  const known = (mode: string) => ['', 'host', 'private'].includes(mode);
  if (!known(host.PidMode) && !referenceIn(host.PidMode)) throw invalid(`Invalid PID mode: ${host.PidMode}`);
  if (host.IpcMode === sharedPrefix) throw invalid(`Invalid IPC mode: ${host.IpcMode}`);
  if (!known(host.UTSMode)) throw invalid(`Invalid UTS mode: ${host.UTSMode}`);
  if (!['', 'host'].includes(host.UsernsMode)) throw invalid(`Invalid USER mode: ${host.UsernsMode}`);
  if (host.UTSMode === 'host') {
    if (own.Hostname !== '') throw invalid('conflicting options: hostname and the UTS mode');
    if (own.Domainname !== '') throw invalid('conflicting options: domainname and the UTS mode');
  }
}

function checkRemapped(host: HostConfig): void {
  if (host.Privileged) {
    throw invalid(
      'privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode',
    );
  }
  if (host.NetworkMode === 'host')
    throw invalid("cannot share the host's network namespace when user namespaces are enabled");
  if (host.PidMode === 'host') throw invalid('cannot share the host PID namespace when user namespaces are enabled');
}

/** Whether a container gets a user namespace of its own, or that of those it shares others with. */
export const isRemapped = (set: ContainerSet, host: HostConfig) =>
  set.parts.layers.shiftedIds !== null && host.UsernsMode !== 'host';

/**
 * The options as they are kept: containers by id, so that a rename or a new container of that name changes nothing, and
 * dockerd's mark on what runs without SELinux confinement.
 */
export function resolveIsolation(set: ContainerSet, host: HostConfig): HostConfig {
  const resolved = sharedModes.map((mode) => [mode, resolveMode(set, host[mode])] as const);
  const labelled = host.SecurityOpt?.some((option) => /^label[=:]/.test(option)) ?? false;
  const unlabelled = host.Privileged || host.PidMode === 'host' || host.IpcMode === 'host';
  return {
    ...host,
    ...(Object.fromEntries(resolved) as Pick<HostConfig, SharedMode>),
    ...(unlabelled && !labelled && { SecurityOpt: [...(host.SecurityOpt ?? []), 'label=disable'] }),
  };
}

function resolveMode(set: ContainerSet, mode: string): string {
  const reference = referenceIn(mode);
  if (!reference) return mode;
  const found = set.index.find(reference);
  // Not a 404: clients take that for a missing image and pull it.
  if (found === undefined) throw invalid(`No such container: ${reference}`);
  return sharedPrefix + found.id;
}

/** Whose namespaces a start joins. Throws dockerd's words when one of them is not there to be joined. */
export function sharedNamespaces(
  set: ContainerSet,
  { hostConfig }: ContainerRecord,
): Pick<LaunchSpec, 'pidNamespaceOf' | 'ipcNamespaceOf'> {
  const pid = referenceIn(hostConfig.PidMode);
  const ipc = referenceIn(hostConfig.IpcMode);
  return {
    ...(pid !== null && { pidNamespaceOf: ownerOf(set, pid, `cannot join PID of a non running container: ${pid}`) }),
    ...(ipc !== null && { ipcNamespaceOf: ipcOwnerOf(set, ipc) }),
  };
}

function ipcOwnerOf(set: ContainerSet, id: string): NamespaceOwner {
  const refusal = `can't join IPC of container ${id}`;
  const owner = ownerOf(set, id, refusal);
  if (['private', 'none'].includes(set.current(owner.id).hostConfig.IpcMode)) {
    throw conflict(`${refusal}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`);
  }
  return owner;
}

function ownerOf(set: ContainerSet, id: string, refusal: string): NamespaceOwner {
  const owner = set.records.get(id);
  if (owner === undefined) throw conflict(`${refusal}: No such container: ${id}`);
  if (owner.state.is === 'restarting')
    throw conflict(`${refusal}: container ${id} is restarting, wait until the container is running`);
  if (!isRunning(owner)) throw conflict(`${refusal}: container ${id} is not running`);
  return { id: owner.id, pid: owner.state.pid, pidStartTicks: owner.state.pidStartTicks };
}

/** After a reboot a container and those it shares something with are started at once: it waits for them. */
export function dependencyComes(set: ContainerSet, record: ContainerRecord): boolean {
  return dependenciesOf(record).some((id) => {
    const owner = set.records.get(id);
    if (owner === undefined || isRunning(owner) || owner.stoppedByUser) return false;
    return owner.hostConfig.RestartPolicy.Name !== 'no';
  });
}
