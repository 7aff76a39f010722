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
import type { Write } from '../store/types.ts';
import type { LiveContainer } from './live.ts';
import { portOptions, writeNetworkFiles } from './networking.ts';
import { nextDelayMs, restartDelayMsMax, restartsAfterExit } from './restart.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import { parseSignal } from './signals.ts';
import type { ContainerRecord, Ending, Running } from './types.ts';

const stopTimeoutSecondsDefault = 10;
/** How long a process may take to go after SIGKILL before its end is an error. */
const killPatienceMs = 10_000;
/** How long the monitor of a process that has gone may take to tell, before it is given up. */
const monitorPatienceMs = 3000;
/** Until an end that could not be recorded is tried again: a full disk may have room by then. */
const settleAgainMs = 2000;
/** How often, and how many times, a container looks whether the one whose network it shares has been restarted. */
const networkOwnerPollMs = 250;
const networkOwnerAttempts = 40;
/** Node's timers reach 24 days; beyond, they fire at once. */
const timerMax = 2 ** 31 - 1;
/** How long the start of a terminal waits for the size that its client sends once the start is answered. */
export const sizePatienceMs = 300;

/** Exit code of a process that SIGKILL ended. */
const killedExitCode = 137;
const monitorLost = 'the monitor of the container was lost, and the exit code with it';

const SIGKILL = 9;
const SIGTERM = 15;

type RunningRecord = ContainerRecord & {
  readonly state: { readonly is: 'running'; readonly paused: boolean } & Running;
};

export function isRunning(record: ContainerRecord): record is RunningRecord {
  return record.state.is === 'running';
}

const launchedOf = (record: RunningRecord): Launched => record.state;

interface Removal {
  readonly writes: readonly Write[];
  readonly event: NewEvent;
  /** Lets waiting clients go and deletes the files. */
  finish(): Promise<void>;
}

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
      const live = this.#set.live(id);
      if (live.removing) throw conflict('container is marked for removal and cannot be started');
      live.cancelRestart();
      live.lastDelayMs = 0;
      await this.#launch({ ...record, restartCount: 0 });
    });
  }

  /**
   * Ends the process with its stop signal, then with SIGKILL. Throws 'unchanged' when it does not run.
   * Negative seconds: waits for ever.
   */
  async stop(ref: string, timeoutSeconds: number | undefined): Promise<void> {
    const { id } = this.#set.index.resolve(ref);
    // Looked at and signalled in one go: between the two, a container in a restart loop would slip away.
    const run = await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      if (record.state.is === 'restarting') {
        await this.#cancelRestarting(record, record.state);
        return null;
      }
      if (!isRunning(record)) throw unchanged(`Container ${ref} is already stopped`);
      const ended = this.#set.live(id).ended.promise;
      await this.#signal(record, record.config.StopSignal ? parseSignal(record.config.StopSignal) : SIGTERM, true);
      return { ended, seconds: timeoutSeconds ?? record.config.StopTimeout ?? stopTimeoutSecondsDefault };
    });
    if (run !== null) await this.#end(id, run.ended, run.seconds);
  }

  async restart(ref: string, timeoutSeconds: number | undefined): Promise<void> {
    const { id } = this.#set.index.resolve(ref);
    const live = this.#set.live(id);
    live.restarting++;
    try {
      await this.stop(id, timeoutSeconds).catch(ignoreUnchanged);
    } finally {
      live.restarting--;
    }
    await this.start(id).catch(ignoreUnchanged);
    const record = this.#set.current(id);
    await this.#set.parts.store.commit([], [containerEvent(record, 'restart')]);
  }

  /** Sends a signal; SIGKILL also waits for the end. */
  async kill(ref: string, signalText: string): Promise<void> {
    const signal = signalText === '' ? SIGKILL : parseSignal(signalText);
    const { id } = this.#set.index.resolve(ref);
    const run = await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      if (!isRunning(record)) throw conflict(`Cannot kill container: ${ref}: Container ${record.id} is not running`);
      const ended = this.#set.live(id).ended.promise;
      await this.#signal(record, signal, this.#endsContainer(record, signal));
      return { ended };
    });
    if (signal === SIGKILL) await this.#awaitEnd(id, run.ended);
  }

  async pause(ref: string): Promise<void> {
    const { id } = this.#set.index.resolve(ref);
    await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      if (!isRunning(record)) throw conflict(`Container ${record.id} is not running`);
      if (record.state.paused) throw conflict(`Container ${record.id} is already paused`);
      const { runtime } = this.#set.parts;
      try {
        await runtime.pause(id);
        await this.#set.commit({ ...record, state: { ...record.state, paused: true } }, [
          containerEvent(record, 'pause'),
        ]);
      } catch (error) {
        await runtime.resume(id).catch(() => undefined);
        throw error;
      }
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
    const live = this.#set.live(id);
    const run = await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      if (record.state.is === 'restarting' && !options.force) {
        throw conflict(
          `You cannot remove a restarting container ${id}. Stop the container before attempting removal or force remove`,
        );
      }
      if (!isRunning(record)) {
        await this.destroy(record, options.volumes);
        return null;
      }
      if (!options.force) {
        const state = record.state.paused ? 'paused' : 'running';
        const how = record.state.paused ? 'Unpause and then stop' : 'Stop';
        throw conflict(
          `You cannot remove a ${state} container ${id}. ${how} the container before attempting removal or force remove`,
        );
      }
      const ended = live.ended.promise;
      live.removing = true;
      await this.#signal(record, SIGKILL, true);
      return { ended };
    });
    if (run === null) return;
    try {
      await this.#awaitEnd(id, run.ended);
      await this.#set.inLane(id, async () => {
        const record = this.#set.records.get(id);
        // AutoRemove may have been faster.
        if (record && !isRunning(record)) await this.destroy(record, options.volumes);
      });
    } finally {
      live.removing = false;
    }
  }

  /** What the monitor tells about a process that has ended. It is told once, so what cannot be recorded is kept and tried again. */
  async exited(notice: ExitNotice): Promise<void> {
    const { id } = notice;
    try {
      await this.#set.inLane(id, async () => {
        const record = this.#set.records.get(id);
        if (record && isRunning(record)) await this.#settle(record, notice, '');
      });
    } catch (error) {
      this.#set.parts.log.error({ container: id, error }, 'settling a container failed; it is tried again');
      setTimeout(() => void this.exited(notice), settleAgainMs).unref();
    }
  }

  /** Settles a container whose process has gone without a word of its monitor, which was killed or hangs. True: it does not run. */
  async settleIfLost(id: ContainerId, exitCode: number): Promise<boolean> {
    return this.#set.inLane(id, async () => {
      const record = this.#set.records.get(id);
      if (record === undefined || !isRunning(record)) return true;
      if (this.#set.parts.runtime.isAlive(launchedOf(record))) return false;
      const notice = this.#set.parts.runtime.readExit(id);
      const lost: ExitNotice = { id, exitCode, oomKilled: false, finishedAtMs: Date.now() };
      await this.#settle(record, notice ?? lost, notice === null ? monitorLost : '');
      return true;
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
    // The same for pausing: what was answered is in the record.
    if (record.state.paused) await runtime.pause(record.id);
    else await runtime.resume(record.id);
  }

  /** Settles a container whose process went while no daemon was there, or whose monitor was lost with it. */
  async settleLost(record: ContainerRecord, notice: ExitNotice | null): Promise<void> {
    if (!isRunning(record)) return;
    const lost: ExitNotice = { id: record.id, exitCode: 255, oomKilled: false, finishedAtMs: Date.now() };
    await this.#set.inLane(record.id, () => this.#settle(record, notice ?? lost, notice === null ? monitorLost : ''));
  }

  /** Starts a container because its restart policy says so: after an exit, or with the daemon (which does not count). */
  async startAgain(id: ContainerId, cause: 'exit' | 'daemon', attempt = 0): Promise<void> {
    await this.#set.inLane(id, async () => {
      const record = this.#set.records.get(id);
      if (record === undefined || isRunning(record) || this.#set.live(id).removing) return;
      if (cause === 'exit' && record.state.is !== 'restarting') return;
      if (attempt < networkOwnerAttempts && this.#networkOwnerComes(record)) {
        this.#scheduleRestart(id, networkOwnerPollMs, cause, attempt + 1);
        return;
      }
      const restartCount = record.restartCount + (cause === 'exit' ? 1 : 0);
      await this.#launch({ ...record, restartCount }).catch((error: unknown) => {
        this.#set.parts.log.warn({ container: id, error }, 'a restart failed');
      });
      // Not even the failure could be recorded: what the record says goes on.
      const now = this.#set.records.get(id);
      if (now?.state.is === 'restarting') this.#scheduleRestart(id, restartDelayMsMax);
    });
  }

  /** After a reboot a container and the one whose network it shares are started at once: the first waits for the second. */
  #networkOwnerComes({ hostConfig: { NetworkMode: mode } }: ContainerRecord): boolean {
    if (!mode.startsWith('container:')) return false;
    const owner = this.#set.index.find(mode.slice('container:'.length));
    if (owner === undefined || isRunning(owner) || owner.stoppedByUser) return false;
    return owner.hostConfig.RestartPolicy.Name !== 'no';
  }

  /** Schedules what the record says is waiting for its delay. */
  resumeRestart(record: ContainerRecord): void {
    if (record.state.is === 'restarting')
      // The clock may have been set back since.
      this.#scheduleRestart(
        record.id,
        Math.min(Math.max(0, record.state.nextAttemptAt - Date.now()), restartDelayMsMax),
      );
  }

  /** Removes a container that has ended, if it is still there. Failures are logged. */
  async removeEnded(id: ContainerId): Promise<void> {
    try {
      await this.#set.inLane(id, async () => {
        const record = this.#set.records.get(id);
        if (record?.state.is === 'exited') await this.destroy(record, true);
      });
    } catch (error) {
      this.#set.parts.log.error({ container: id, error }, 'an ended container could not be removed');
    }
  }

  /** Removes record and files. In the lane, of a container that does not run. */
  async destroy(record: ContainerRecord, withVolumes: boolean): Promise<void> {
    const removal = this.#removalOf(record, withVolumes);
    await this.#set.parts.store.commit(removal.writes, [removal.event]);
    await removal.finish();
  }

  /** A removal as one commit, and what is to be done when it is durable. */
  #removalOf(record: ContainerRecord, withVolumes: boolean): Removal {
    const { parts } = this.#set;
    const volumes = withVolumes ? this.#anonymousVolumesOf(record) : [];
    return {
      writes: [this.#set.records.remove(record.id), ...volumes.map((name) => parts.volumes.forget(name))],
      event: containerEvent(record, 'destroy'),
      finish: async () => {
        const log = this.#set.logOf(record);
        this.#set.graves.bury(record.id, record.name, exitCodeOf(record));
        this.#set.live(record.id).endRun({ exitCode: exitCodeOf(record) });
        this.#set.forget(record);
        await parts.layers.removeWritable(record.id);
        await log.remove();
        await fs.rm(this.#set.dirOf(record.id), { recursive: true, force: true });
        await parts.volumes.discard(volumes);
      },
    };
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
      const launched = await parts.runtime
        .create({
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
        })
        .catch((error: unknown) => {
          const owner = network.sharedWith;
          if (owner && !parts.runtime.isAlive(launchedOf(owner))) throw networkOwnerRests(owner.id);
          throw error;
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
      await this.#begin(record);
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
        await this.#begin(record);
      })
      .catch((error: unknown) => this.#set.parts.log.error({ container: record.id, error }, 'start failed'));
  }

  /** A process that cannot be let go would wait for ever: it is ended, and its monitor tells. */
  async #begin(record: RunningRecord): Promise<void> {
    const { runtime } = this.#set.parts;
    try {
      await runtime.start(record.id);
    } catch (error) {
      // False: it has been killed before it began, and its monitor tells that too.
      if (runtime.kill(launchedOf(record), SIGKILL)) throw error;
    }
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
    readonly sharedWith: RunningRecord | null;
  }> {
    const { networks } = this.#set.parts;
    const mode = Object.keys(record.endpoints)[0];
    if (mode === 'host') return { sandbox: null, namespacePath: null, sharedWith: null };
    if (mode === undefined) {
      const other = this.#set.current(record.hostConfig.NetworkMode.slice('container:'.length) as ContainerId);
      if (!isRunning(other)) throw networkOwnerRests(other.id);
      // The file rather than the process: a number can have become somebody else's by the time it is opened.
      const namespacePath = other.sandbox?.namespacePath ?? `/proc/${other.state.pid}/ns/net`;
      return { sandbox: null, namespacePath, sharedWith: other };
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
    try {
      if (record.hostConfig.AutoRemove) await this.destroy(failed, true);
      else await this.#set.commit(failed);
    } finally {
      live.endRun({ exitCode });
    }
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
    const removes = record.hostConfig.AutoRemove && live.restarting === 0;
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
    const removal = removes && !again ? this.#removalOf(settled, true) : null;
    const [left, recorded] = await Promise.allSettled([
      parts.networks.leave(id, record.sandbox),
      removal
        ? parts.store.commit(removal.writes, [...events, removal.event])
        : this.#set.commit(settled, events).then(() => undefined),
    ]);
    if (recorded.status === 'rejected') throw recorded.reason;
    if (removal === null) live.endRun({ exitCode: notice.exitCode });
    const rest = removal === null ? parts.layers.unmountWritable(id) : removal.finish();
    const cleaned = await Promise.allSettled([parts.runtime.delete(id), rest]);
    for (const step of [left, ...cleaned]) {
      if (step.status === 'rejected')
        parts.log.error({ container: id, error: step.reason }, 'cleaning up after a container failed');
    }
    if (again) this.#scheduleRestart(id, live.lastDelayMs);
  }

  #scheduleRestart(id: ContainerId, delayMs: number, cause: 'exit' | 'daemon' = 'exit', attempt = 0): void {
    const live = this.#set.live(id);
    live.cancelRestart();
    live.restartTimer = setTimeout(() => {
      live.restartTimer = null;
      void this.startAgain(id, cause, attempt).catch((error: unknown) => {
        this.#set.parts.log.error({ container: id, error }, 'a restart could not be tried');
      });
    }, delayMs);
  }

  /** A container waiting for its restart becomes an exited one. In the lane. */
  async #cancelRestarting(record: ContainerRecord, ending: Ending): Promise<void> {
    await this.#set.commit({ ...record, stoppedByUser: true, state: { ...endingOf(ending), is: 'exited' } }, [
      containerEvent(record, 'stop'),
    ]);
    this.#set.live(record.id).cancelRestart();
  }

  /** After the stop signal: patience, then SIGKILL. */
  async #end(id: ContainerId, ended: Promise<unknown>, timeoutSeconds: number): Promise<void> {
    if (timeoutSeconds < 0) await ended;
    else if (!(await endsWithin(ended, timeoutSeconds * 1000))) {
      await this.#set.inLane(id, async () => {
        const record = this.#set.records.get(id);
        const sameRun = this.#set.live(id).ended.promise === ended;
        if (record && isRunning(record) && sameRun) await this.#signal(record, SIGKILL, true);
      });
      await this.#awaitEnd(id, ended);
    }
    const record = this.#set.records.get(id);
    if (record) await this.#set.parts.store.commit([], [containerEvent(record, 'stop')]);
  }

  /** Sends a signal to the first process. `ends`: the restart policy is to leave the container alone afterwards. */
  async #signal(record: RunningRecord, signal: number, ends: boolean): Promise<void> {
    const event = containerEvent(record, 'kill', { signal: String(signal) });
    if (ends) this.#set.live(record.id).stopping = true;
    try {
      if (ends) await this.#set.commit({ ...record, stoppedByUser: true }, [event]);
      else await this.#set.parts.store.commit([], [event]);
    } catch (error) {
      // On a full disk above all, what fills it must still be stopped.
      this.#set.parts.log.error({ container: record.id, error }, 'a signal is sent, but could not be recorded');
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
    const { runtime, log } = this.#set.parts;
    if (await endsWithin(ended, monitorPatienceMs)) return;
    if (await this.settleIfLost(id, killedExitCode)) return;
    if (await endsWithin(ended, killPatienceMs - monitorPatienceMs)) return;
    // What is left may be frozen by somebody else, be a process that pid 1 cannot take along, or be stuck in the kernel.
    for (const step of [() => runtime.resume(id), () => runtime.killAll(id)])
      await step().catch((error: unknown) => log.warn({ container: id, error }, 'ending a container is hard'));
    if (await endsWithin(ended, killPatienceMs)) return;
    if (!(await this.settleIfLost(id, killedExitCode)))
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
    timer = setTimeout(() => resolve(false), Math.min(ms, timerMax));
  });
  try {
    return await Promise.race([ended.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

const networkOwnerRests = (id: ContainerId) => conflict(`cannot join network of a non running container: ${id}`);

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
