/**
 * The life of a container: start, end, removal, and what the restart policy makes of it.
 *
 * Everything that changes a container runs in its lane. Waiting for a process to end never holds the lane, since
 * the news of its end comes through it.
 */
import fs from 'node:fs/promises';
import type { NewEvent } from '../event/types.ts';
import { conflict, EngineError, internal, messageOf, unchanged } from '../lib/errors.ts';
import type { ContainerId } from '../lib/ids.ts';
import { nowNano, rfc3339Nano } from '../lib/time.ts';
import { portsToPublish } from '../network/ports.ts';
import type { Sandbox } from '../network/types.ts';
import type { ExitNotice, Launched } from '../runtime/types.ts';
import type { LiveContainer } from './live.ts';
import { portOptions, writeNetworkFiles } from './networking.ts';
import { nextDelayMs, restartsAfterExit } from './restart.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import { parseSignal } from './signals.ts';
import type { ContainerRecord, Ending, Running } from './types.ts';

const stopTimeoutSecondsDefault = 10;
/** How long a process may take to go after SIGKILL before its end is an error. */
const killPatienceMs = 10_000;
/** How long the start of a terminal waits for the size that its client sends once the start is answered. */
export const sizePatienceMs = 300;

const SIGKILL = 9;
const SIGTERM = 15;

type RunningRecord = ContainerRecord & {
  readonly state: { readonly is: 'running'; readonly paused: boolean } & Running;
};

export function isRunning(record: ContainerRecord): record is RunningRecord {
  return record.state.is === 'running';
}

const launchedOf = (record: RunningRecord): Launched => record.state;

export class Life {
  readonly #set: ContainerSet;

  constructor(set: ContainerSet) {
    this.#set = set;
  }

  /** Throws 'unchanged' when it runs already. */
  async start(ref: string): Promise<void> {
    const { id } = this.#set.index.resolve(ref);
    this.#set.parts.runtime.anticipate();
    await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      if (isRunning(record)) {
        if (record.state.paused) throw conflict('cannot start a paused container, try unpause instead');
        throw unchanged(`Container ${ref} is already started`);
      }
      this.#set.live(id).cancelRestart();
      await this.#launch({ ...record, restartCount: 0 });
    });
  }

  /**
   * Ends the process with its stop signal, then with SIGKILL. Throws 'unchanged' when it does not run.
   * Negative seconds: waits for ever.
   */
  async stop(ref: string, timeoutSeconds: number | undefined): Promise<void> {
    const record = this.#set.index.resolve(ref);
    await this.#set.inLane(record.id, () => this.#cancelRestarting(record.id));
    const now = this.#set.current(record.id);
    if (!isRunning(now)) {
      if (record.state.is === 'restarting') return;
      throw unchanged(`Container ${ref} is already stopped`);
    }
    const signal = now.config.StopSignal ? parseSignal(now.config.StopSignal) : SIGTERM;
    await this.#end(now.id, signal, timeoutSeconds ?? now.config.StopTimeout ?? stopTimeoutSecondsDefault);
  }

  async restart(ref: string, timeoutSeconds: number | undefined): Promise<void> {
    const { id } = this.#set.index.resolve(ref);
    await this.stop(id, timeoutSeconds).catch(ignoreUnchanged);
    await this.start(id).catch(ignoreUnchanged);
    const record = this.#set.current(id);
    await this.#set.parts.store.commit([], [containerEvent(record, 'restart')]);
  }

  /** Sends a signal; SIGKILL also waits for the end. */
  async kill(ref: string, signalText: string): Promise<void> {
    const signal = signalText === '' ? SIGKILL : parseSignal(signalText);
    const { id } = this.#set.index.resolve(ref);
    const ended = this.#set.live(id).ended.promise;
    await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      if (!isRunning(record)) throw conflict(`Cannot kill container: ${ref}: Container ${record.id} is not running`);
      await this.#signal(record, signal, this.#endsContainer(record, signal));
    });
    if (signal === SIGKILL) await this.#awaitEnd(id, ended);
  }

  async pause(ref: string): Promise<void> {
    const { id } = this.#set.index.resolve(ref);
    await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      if (!isRunning(record)) throw conflict(`Container ${record.id} is not running`);
      if (record.state.paused) throw conflict(`Container ${record.id} is already paused`);
      await this.#set.parts.runtime.pause(id);
      await this.#set.commit({ ...record, state: { ...record.state, paused: true } }, [
        containerEvent(record, 'pause'),
      ]);
    });
  }

  async unpause(ref: string): Promise<void> {
    const { id } = this.#set.index.resolve(ref);
    await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      if (!isRunning(record)) throw conflict(`Container ${record.id} is not running`);
      if (!record.state.paused) throw internal(`Container ${record.id} is not paused`);
      await this.#resume(record);
    });
  }

  async rename(ref: string, to: string): Promise<void> {
    const { id } = this.#set.index.resolve(ref);
    await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      this.#set.reserveName(to, id);
      try {
        const renamed = { ...record, name: to };
        await this.#set.commit(renamed, [containerEvent(renamed, 'rename', { oldName: `/${record.name}` })]);
      } catch (error) {
        this.#set.index.release(to, id);
        throw error;
      }
      this.#set.index.release(record.name, id);
    });
  }

  async remove(ref: string, options: { readonly force: boolean; readonly volumes: boolean }): Promise<void> {
    const { id } = this.#set.index.resolve(ref);
    const ended = this.#set.live(id).ended.promise;
    const killed = await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      if (record.state.is === 'restarting' && !options.force) {
        throw conflict(
          `You cannot remove a restarting container ${id}. Stop the container before attempting removal or force remove`,
        );
      }
      if (!isRunning(record)) {
        await this.destroy(record, options.volumes);
        return false;
      }
      if (!options.force) {
        const state = record.state.paused ? 'paused' : 'running';
        const how = record.state.paused ? 'Unpause and then stop' : 'Stop';
        throw conflict(
          `You cannot remove a ${state} container ${id}. ${how} the container before attempting removal or force remove`,
        );
      }
      await this.#signal(record, SIGKILL, true);
      return true;
    });
    if (!killed) return;
    await this.#awaitEnd(id, ended);
    await this.#set.inLane(id, async () => {
      const record = this.#set.index.find(id);
      // AutoRemove may have been faster.
      if (record) await this.destroy(record, options.volumes);
    });
  }

  /** What the monitor tells about a process that has ended. */
  async exited(notice: ExitNotice): Promise<void> {
    await this.#set.inLane(notice.id, async () => {
      const record = this.#set.records.get(notice.id);
      if (record && isRunning(record)) await this.#settle(record, notice, '');
    });
  }

  /** Takes over a process found running when the daemon starts. */
  async adopt(record: ContainerRecord): Promise<void> {
    if (!isRunning(record)) return;
    const { runtime } = this.#set.parts;
    const live = this.#set.live(record.id);
    if (record.config.OpenStdin) live.stdin.connect(await runtime.openStdin(record.id));
    this.#watchLog(record, live);
    // A crash may have come between the commit and the start; starting what runs already is no error.
    await runtime.start(record.id);
  }

  /** Settles a container whose process went while no daemon was there, or whose monitor was lost with it. */
  async settleLost(record: ContainerRecord, notice: ExitNotice | null): Promise<void> {
    if (!isRunning(record)) return;
    const lost: ExitNotice = { id: record.id, exitCode: 255, oomKilled: false, finishedAtMs: Date.now() };
    const why = notice === null ? 'the monitor of the container was lost, and the exit code with it' : '';
    await this.#set.inLane(record.id, () => this.#settle(record, notice ?? lost, why));
  }

  /** Starts a container because its restart policy says so: after an exit, or with the daemon (which does not count). */
  async startAgain(id: ContainerId, cause: 'exit' | 'daemon'): Promise<void> {
    await this.#set.inLane(id, async () => {
      const record = this.#set.records.get(id);
      if (record === undefined || isRunning(record)) return;
      if (cause === 'exit' && record.state.is !== 'restarting') return;
      const restartCount = record.restartCount + (cause === 'exit' ? 1 : 0);
      await this.#launch({ ...record, restartCount }).catch((error: unknown) => {
        this.#set.parts.log.warn({ container: id, error }, 'a restart failed');
      });
    });
  }

  /** Schedules what the record says is waiting for its delay. */
  resumeRestart(record: ContainerRecord): void {
    if (record.state.is === 'restarting')
      this.#scheduleRestart(record.id, Math.max(0, record.state.nextAttemptAt - Date.now()));
  }

  /** Removes record and files. In the lane, of a container that does not run. */
  async destroy(record: ContainerRecord, withVolumes: boolean): Promise<void> {
    const { parts } = this.#set;
    const volumes = withVolumes ? this.#anonymousVolumesOf(record) : [];
    const writes = volumes.map((name) => parts.volumes.forget(name));
    await parts.store.commit([this.#set.records.remove(record.id), ...writes], [containerEvent(record, 'destroy')]);
    const log = this.#set.logOf(record);
    this.#set.live(record.id).endRun({ exitCode: exitCodeOf(record) });
    this.#set.graves.bury(record.id, record.name, exitCodeOf(record));
    this.#set.forget(record);
    await parts.layers.removeWritable(record.id);
    await log.remove();
    await fs.rm(this.#set.dirOf(record.id), { recursive: true, force: true });
    await parts.volumes.discard(volumes);
  }

  #anonymousVolumesOf(record: ContainerRecord): readonly string[] {
    return record.mounts
      .filter((mount) => mount.type === 'volume' && mount.anonymous && mount.name !== undefined)
      .map((mount) => mount.name as string)
      .filter((name) => this.#set.usersOfVolume(name).length <= 1);
  }

  /** From a resting record to a running process. Whatever was set up is taken back when a step fails. */
  async #launch(record: ContainerRecord): Promise<void> {
    const { parts } = this.#set;
    const { id } = record;
    const live = this.#set.live(id);
    const undo = new AsyncDisposableStack();
    let running: RunningRecord;
    try {
      const rootfs = await parts.layers.mountWritable(id);
      undo.defer(() => parts.layers.unmountWritable(id));
      const network = await this.#joinNetwork(record, undo);
      const files = await writeNetworkFiles(this.#set, record, network.sandbox, network.sharedWith);
      const launched = await parts.runtime.create({
        id,
        config: record.config,
        hostConfig: this.#withDefaultUlimits(record),
        hostname: files.hostname,
        rootfs,
        mounts: record.mounts,
        networkNamespace: network.namespacePath,
        resolvConf: files.resolvConf,
        hosts: files.hosts,
        hostnameFile: files.hostnameFile,
        cgroupPath: record.cgroupPath,
        logPath: this.#set.logPath(id),
        env: record.config.Env ?? [],
      });
      undo.defer(() => parts.runtime.delete(id));
      for (const warning of launched.warnings) parts.log.warn({ container: id }, warning);
      if (record.config.OpenStdin) live.stdin.connect(await parts.runtime.openStdin(id));
      const { pid, pidStartTicks, monitorPid } = launched;
      running = {
        ...record,
        state: { is: 'running', paused: false, pid, pidStartTicks, monitorPid, startedAt: rfc3339Nano(nowNano()) },
        endpoints: joinedEndpoints(record, network.sandbox),
        sandbox: network.sandbox,
        stoppedByUser: false,
      };
      await this.#set.commit(running, [...networkEvents(running, 'connect'), containerEvent(running, 'start')]);
    } catch (error) {
      await this.#failStart(record, live, error, undo);
      throw error;
    }
    undo.move();
    this.#watchLog(running, live);
    await this.#release(running, live);
  }

  /**
   * Lets the created process begin. A terminal with an attached client waits a moment for its size, which the client sends
   * when the start has been answered: so the first command sees it. The lane is held meanwhile, the answer is not.
   */
  async #release(record: RunningRecord, live: LiveContainer): Promise<void> {
    const { runtime } = this.#set.parts;
    if (!(record.config.Tty && live.attached > 0 && live.size === null)) {
      if (live.size) runtime.resize(record.id, ...live.size);
      await runtime.start(record.id);
      return;
    }
    const sized = new Promise<void>((resolve) => {
      live.onResize = resolve;
      setTimeout(resolve, sizePatienceMs);
    });
    void this.#set
      .inLane(record.id, async () => {
        await sized;
        live.onResize = null;
        await runtime.start(record.id);
      })
      .catch((error: unknown) => this.#set.parts.log.error({ container: record.id, error }, 'start failed'));
  }

  #watchLog(record: ContainerRecord, live: LiveContainer): void {
    this.#set.logOf(record);
    live.unwatchLog = this.#set.parts.logs.watch(record.id);
  }

  /** The network of a start: its own sandbox, the host's, or another container's. */
  async #joinNetwork(
    record: ContainerRecord,
    undo: AsyncDisposableStack,
  ): Promise<{
    readonly sandbox: Sandbox | null;
    readonly namespacePath: string | null;
    readonly sharedWith: ContainerRecord | null;
  }> {
    const { networks } = this.#set.parts;
    const mode = Object.keys(record.endpoints)[0];
    if (mode === 'host') return { sandbox: null, namespacePath: null, sharedWith: null };
    if (mode === undefined) {
      const other = this.#set.current(record.hostConfig.NetworkMode.slice('container:'.length) as ContainerId);
      if (!isRunning(other)) {
        throw conflict(`cannot join network of a non running container: ${other.id}`);
      }
      return { sandbox: null, namespacePath: `/proc/${other.state.pid}/ns/net`, sharedWith: other };
    }
    const sandbox = await networks.join({
      containerId: record.id,
      containerName: record.name,
      mode: mode === 'none' ? 'none' : 'bridge',
      endpoint: record.endpoints[mode] ?? null,
      ports: portsToPublish(portOptions(record.config, record.hostConfig)),
    });
    undo.defer(() => networks.leave(record.id, sandbox));
    return { sandbox, namespacePath: sandbox.namespacePath, sharedWith: null };
  }

  #withDefaultUlimits(record: ContainerRecord): ContainerRecord['hostConfig'] {
    const defaults = this.#set.parts.defaults().ulimits;
    const own = record.hostConfig.Ulimits ?? [];
    const missing = Object.values(defaults).filter((ulimit) => !own.some((o) => o.Name === ulimit.Name));
    return missing.length === 0 ? record.hostConfig : { ...record.hostConfig, Ulimits: [...own, ...missing] };
  }

  /** A start that came to nothing: everything is taken back, the record says why, waiting clients are let go. */
  async #failStart(
    record: ContainerRecord,
    live: LiveContainer,
    error: unknown,
    undo: AsyncDisposableStack,
  ): Promise<void> {
    const { parts } = this.#set;
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
    if (record.hostConfig.AutoRemove) await this.destroy(failed, true);
    else await this.#set.commit(failed);
    live.endRun({ exitCode });
  }

  /** Records the end of a run and gives back what it held. In the lane. */
  async #settle(record: RunningRecord, notice: ExitNotice, why: string): Promise<void> {
    const { parts } = this.#set;
    const { id } = record;
    const live = this.#set.live(id);
    const ending: Ending = {
      exitCode: notice.exitCode,
      oomKilled: notice.oomKilled,
      startedAt: record.state.startedAt,
      finishedAt: rfc3339Nano(BigInt(Math.trunc(notice.finishedAtMs * 1000)) * 1000n),
      error: why,
    };
    const stopped = record.stoppedByUser || live.stopping;
    const again = restartsAfterExit(record.hostConfig.RestartPolicy, notice.exitCode, record.restartCount, stopped);
    if (again) live.lastDelayMs = nextDelayMs(live.lastDelayMs, notice.finishedAtMs - Date.parse(ending.startedAt));
    const settled: ContainerRecord = {
      ...record,
      endpoints: joinedEndpoints(record, null),
      sandbox: null,
      state: again
        ? { is: 'restarting', nextAttemptAt: Date.now() + live.lastDelayMs, ...ending }
        : { is: 'exited', ...ending },
    };
    const events: NewEvent[] = [
      ...(notice.oomKilled ? [containerEvent(record, 'oom')] : []),
      containerEvent(record, 'die', { exitCode: String(notice.exitCode) }),
      ...networkEvents(record, 'disconnect'),
    ];
    // Ports and addresses are free again before anyone learns of the end.
    await Promise.all([parts.networks.leave(id, record.sandbox), this.#set.commit(settled, events)]);
    live.endRun({ exitCode: notice.exitCode });
    const cleaned = await Promise.allSettled([parts.runtime.delete(id), parts.layers.unmountWritable(id)]);
    for (const step of cleaned) {
      if (step.status === 'rejected')
        parts.log.error({ container: id, error: step.reason }, 'cleaning up after a container failed');
    }
    if (again) this.#scheduleRestart(id, live.lastDelayMs);
    else if (record.hostConfig.AutoRemove) await this.destroy(settled, true);
  }

  #scheduleRestart(id: ContainerId, delayMs: number): void {
    const live = this.#set.live(id);
    live.cancelRestart();
    live.restartTimer = setTimeout(() => {
      live.restartTimer = null;
      void this.startAgain(id, 'exit');
    }, delayMs);
  }

  /** A container waiting for its restart becomes an exited one. */
  async #cancelRestarting(id: ContainerId): Promise<void> {
    const record = this.#set.current(id);
    if (record.state.is !== 'restarting') return;
    this.#set.live(id).cancelRestart();
    await this.#set.commit({ ...record, stoppedByUser: true, state: { ...endingOf(record.state), is: 'exited' } }, [
      containerEvent(record, 'stop'),
    ]);
  }

  /** Stop signal, patience, SIGKILL. */
  async #end(id: ContainerId, signal: number, timeoutSeconds: number): Promise<void> {
    const ended = this.#set.live(id).ended.promise;
    const send = (number: number) =>
      this.#set.inLane(id, async () => {
        const record = this.#set.records.get(id);
        if (record && isRunning(record)) await this.#signal(record, number, true);
      });
    await send(signal);
    if (timeoutSeconds < 0) await ended;
    else if (!(await endsWithin(ended, timeoutSeconds * 1000))) {
      await send(SIGKILL);
      await this.#awaitEnd(id, ended);
    }
    const record = this.#set.records.get(id);
    if (record) await this.#set.parts.store.commit([], [containerEvent(record, 'stop')]);
  }

  /** Sends a signal to the first process. `ends`: the restart policy is to leave the container alone afterwards. */
  async #signal(record: RunningRecord, signal: number, ends: boolean): Promise<void> {
    const event = containerEvent(record, 'kill', { signal: String(signal) });
    if (ends) {
      this.#set.live(record.id).stopping = true;
      await this.#set.commit({ ...record, stoppedByUser: true }, [event]);
    } else {
      await this.#set.parts.store.commit([], [event]);
    }
    this.#set.parts.runtime.kill(launchedOf(record), signal);
    if (ends && record.state.paused) await this.#set.parts.runtime.resume(record.id);
  }

  /** Signals that are sent to end a container; a container with a stop signal of its own knows others. */
  #endsContainer(record: ContainerRecord, signal: number): boolean {
    const stopSignal = record.config.StopSignal ? parseSignal(record.config.StopSignal) : SIGTERM;
    return signal === SIGKILL || signal === stopSignal;
  }

  async #awaitEnd(id: ContainerId, ended: Promise<unknown>): Promise<void> {
    if (await endsWithin(ended, killPatienceMs)) return;
    // What is left may be a process that pid 1 cannot take along, or one stuck in the kernel.
    await this.#set.parts.runtime.killAll(id);
    if (!(await endsWithin(ended, killPatienceMs)))
      throw internal(`container ${id} did not end within 20 seconds of SIGKILL`);
  }

  async #resume(record: RunningRecord): Promise<void> {
    await this.#set.parts.runtime.resume(record.id);
    await this.#set.commit({ ...record, state: { ...record.state, paused: false } }, [
      containerEvent(record, 'unpause'),
    ]);
  }
}

async function endsWithin(ended: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([ended.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

function ignoreUnchanged(error: unknown): void {
  if (!(error instanceof EngineError && error.kind === 'unchanged')) throw error;
}

/** 127: not found, 126: cannot be run, as the runtime part says; 128 for any other failure, as dockerd has it. */
function exitCodeOfFailure(error: unknown): number {
  return error instanceof EngineError && 'exitCode' in error && typeof error.exitCode === 'number'
    ? error.exitCode
    : 128;
}

const exitCodeOf = (record: ContainerRecord) => (record.state.is === 'running' ? 0 : record.state.exitCode);

function endingOf({ exitCode, oomKilled, startedAt, finishedAt, error }: Ending): Ending {
  return { exitCode, oomKilled, startedAt, finishedAt, error };
}

function joinedEndpoints(record: ContainerRecord, sandbox: Sandbox | null): ContainerRecord['endpoints'] {
  return Object.fromEntries(
    Object.entries(record.endpoints).map(([name, endpoint]) => [
      name,
      { ...endpoint, joined: sandbox?.joined ?? null },
    ]),
  );
}

function networkEvents(record: ContainerRecord, action: 'connect' | 'disconnect'): readonly NewEvent[] {
  return Object.values(record.endpoints)
    .filter((endpoint) => endpoint.joined !== null)
    .map((endpoint) => ({
      type: 'network' as const,
      action,
      id: endpoint.joined?.networkId ?? '',
      attributes: {
        container: record.id,
        name: endpoint.networkName,
        type: endpoint.networkName === 'bridge' ? 'bridge' : 'null',
      },
    }));
}
