/** The start of a container: from a resting record to a running process. All of it happens in the container's lane. */
import { conflict, EngineError, messageOf } from '../lib/errors.ts';
import type { ContainerId } from '../lib/ids.ts';
import { nowNano, rfc3339Nano } from '../lib/time.ts';
import { portsToJoin } from '../network/ports.ts';
import type { Place } from '../network/types.ts';
import { networkEvents } from './endpoints.ts';
import { healthAtStart, probePlan } from './health.ts';
import { sharedNamespaces } from './isolation.ts';
import { checkLinks, linkEnvironment, refreshHosts } from './links.ts';
import type { LiveContainer } from './live.ts';
import { mountEvents, mountsShown, takeMounts } from './mount-start.ts';
import { namesOf, portOptions, writeNetworkFiles } from './networking.ts';
import { startProbing } from './prober.ts';
import { destroy } from './removal.ts';
import { endingOf, isRunning, launchedOf, type RunningRecord } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import { SIGKILL } from './signals.ts';
import type { ContainerRecord } from './types.ts';
import { giveFiles, userNamespaceOf } from './userns.ts';

/** How long the start of a terminal waits for the size that its client sends once the start is answered. */
export const sizePatienceMs = 300;

/** From a resting record to a running process. Whatever was set up is taken back when a step fails. */
export async function launch(set: ContainerSet, record: ContainerRecord): Promise<void> {
  const { parts } = set;
  const { id } = record;
  const live = set.live(id);
  const undo = new AsyncDisposableStack();
  let running: RunningRecord;
  try {
    const rootfs = await parts.layers.mountWritable(id);
    undo.defer(() => parts.layers.unmountWritable(id));
    const shared = sharedNamespaces(set, record);
    checkLinks(set, record);
    const mounts = await takeMounts(set, record, rootfs, undo);
    using user = await userNamespaceOf(set, record);
    const network = await joinNetwork(set, record, undo, user?.network);
    const placed = { ...record, ...network.place };
    const files = await writeNetworkFiles(set, placed, network.sharedWith);
    if (user) await giveFiles(set.dirOf(network.sharedWith?.id ?? id), files, user.spec.ids);
    const launched = await parts.runtime
      .create({
        id,
        config: record.config,
        hostConfig: withDefaultUlimits(set, record),
        hostname: files.hostname,
        rootfs,
        mounts,
        networkNamespace: network.namespacePath,
        ...shared,
        userNamespace: user?.spec,
        resolvConf: files.resolvConf,
        hosts: files.hosts,
        hostnameFile: files.hostnameFile,
        cgroupPath: record.cgroupPath,
        logPath: set.logPath(id),
        env: [...linkEnvironment(set, record), ...(record.config.Env ?? [])],
      })
      .catch((error: unknown) => {
        const owner = network.sharedWith;
        if (owner && !parts.runtime.isAlive(launchedOf(owner))) throw networkOwnerRests(owner.id);
        const init = shared.pidNamespaceOf;
        // The kernel starts nothing where the first process has gone.
        if (init && !parts.runtime.isAlive({ ...init, monitorPid: 0 })) {
          const why = `container ${init.id} is not running`;
          throw conflict(`cannot join PID of a non running container: ${init.id}: ${why}`, { cause: error });
        }
        throw error;
      });
    undo.defer(() => parts.runtime.delete(id));
    for (const warning of launched.warnings) parts.log.warn({ container: id }, warning);
    if (record.config.OpenStdin) live.stdin.connect(await parts.runtime.openStdin(id));
    const { pid, pidStartTicks, monitorPid } = launched;
    running = {
      ...record,
      state: { is: 'running', paused: false, pid, pidStartTicks, monitorPid, startedAt: rfc3339Nano(nowNano()) },
      ...network.place,
      mounts: mountsShown(record, mounts),
      stoppedByUser: false,
      health: probePlan(record.config) === null ? undefined : healthAtStart(record.health),
    };
    await set.commit(running, [
      ...mountEvents(running, 'mount'),
      ...networkEvents(set, running, 'connect'),
      containerEvent(running, 'start'),
    ]);
  } catch (error) {
    await failStart(set, record, live, error, undo);
    throw error;
  }
  undo.move();
  refreshHosts(set, running);
  watchLog(set, running, live);
  live.health = running.health ?? null;
  await release(set, running, live);
  startProbing(set, running, false);
}

/**
 * Lets the created process begin. A terminal with an attached client waits a moment for its size, which the client sends
 * when the start has been answered: so the first command sees it. The lane is held meanwhile, the answer is not.
 */
async function release(set: ContainerSet, record: RunningRecord, live: LiveContainer): Promise<void> {
  const { runtime } = set.parts;
  if (!(record.config.Tty && live.attached > 0 && live.size === null)) {
    if (live.size) runtime.resize(record.id, ...live.size);
    await begin(set, record);
    return;
  }
  const sized = new Promise<void>((resolve) => {
    live.onResize = resolve;
    setTimeout(resolve, sizePatienceMs);
  });
  void set
    .inLane(record.id, async () => {
      await sized;
      live.onResize = null;
      await begin(set, record);
    })
    .catch((error: unknown) => set.parts.log.error({ container: record.id, error }, 'start failed'));
}

/** A process that cannot be let go would wait for ever: it is ended, and its monitor tells. */
async function begin(set: ContainerSet, record: RunningRecord): Promise<void> {
  const { runtime } = set.parts;
  try {
    await runtime.start(record.id);
  } catch (error) {
    // False: it has been killed before it began, and its monitor tells that too.
    if (runtime.kill(launchedOf(record), SIGKILL)) throw error;
  }
}

export function watchLog(set: ContainerSet, record: ContainerRecord, live: LiveContainer): void {
  set.logOf(record);
  live.unwatchLog = set.parts.logs.watch(record.id);
}

/** The network of a start: its own sandbox, the host's, or another container's. */
async function joinNetwork(
  set: ContainerSet,
  record: ContainerRecord,
  undo: AsyncDisposableStack,
  namespace: string | undefined,
): Promise<{
  readonly place: Place | null;
  readonly namespacePath: string | null;
  readonly sharedWith: RunningRecord | null;
}> {
  const { networks } = set.parts;
  const { NetworkMode: mode } = record.hostConfig;
  if (mode.startsWith('container:')) {
    const other = set.current(mode.slice('container:'.length) as ContainerId);
    if (!isRunning(other)) throw networkOwnerRests(other.id);
    // The file rather than the process: a number can have become somebody else's by the time it is opened.
    const namespacePath = other.sandbox?.namespacePath || `/proc/${other.state.pid}/ns/net`;
    return { place: null, namespacePath, sharedWith: other };
  }
  const place = await networks.join({
    containerId: record.id,
    containerName: record.name,
    endpoints: record.endpoints,
    ...namesOf(set, record),
    ports: portsToJoin(portOptions(record.config, record.hostConfig)),
    namespace,
  });
  undo.defer(() => networks.leave(record.id, place));
  return { place, namespacePath: place.sandbox.namespacePath || null, sharedWith: null };
}

function withDefaultUlimits(set: ContainerSet, record: ContainerRecord): ContainerRecord['hostConfig'] {
  const defaults = set.parts.defaults().ulimits;
  const own = record.hostConfig.Ulimits ?? [];
  const missing = Object.values(defaults).filter((ulimit) => !own.some((o) => o.Name === ulimit.Name));
  return missing.length === 0 ? record.hostConfig : { ...record.hostConfig, Ulimits: [...own, ...missing] };
}

/** A start that came to nothing: everything is taken back, the record says why, waiting clients are let go. */
async function failStart(
  set: ContainerSet,
  record: ContainerRecord,
  live: LiveContainer,
  error: unknown,
  undo: AsyncDisposableStack,
): Promise<void> {
  const { parts } = set;
  await undo.disposeAsync().catch((cleanup: unknown) => {
    parts.log.error({ container: record.id, error: cleanup }, 'taking back a failed start failed itself');
  });
  const exitCode = exitCodeOfFailure(error);
  const why = messageOf(error);
  const failed: ContainerRecord = {
    ...record,
    state:
      record.state.is === 'exited' || record.state.is === 'restarting'
        ? { ...endingOf(record.state), is: 'exited', exitCode, error: why }
        : { is: 'created', exitCode, error: why },
  };
  try {
    if (record.hostConfig.AutoRemove) await destroy(set, failed, true);
    else await set.commit(failed);
  } finally {
    live.endRun({ exitCode });
  }
}

const networkOwnerRests = (id: ContainerId) => conflict(`cannot join network of a non running container: ${id}`);

/** 127: not found, 126: cannot be run, as the runtime part says; 128 for any other failure, as dockerd has it. */
function exitCodeOfFailure(error: unknown): number {
  return error instanceof EngineError && 'exitCode' in error && typeof error.exitCode === 'number'
    ? error.exitCode
    : 128;
}
