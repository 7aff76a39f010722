/** How runs end: signals and patience, the news of the end, and what is recorded and given back then. */
import type { NewEvent } from '../event/types.ts';
import { internal } from '../lib/errors.ts';
import type { ContainerId } from '../lib/ids.ts';
import { rfc3339Nano } from '../lib/time.ts';
import type { ExitNotice } from '../runtime/types.ts';
import { networkEvents, placeOf, withoutPlace } from './endpoints.ts';
import { healthAtEnd } from './health.ts';
import { ownsPidNamespace } from './isolation.ts';
import { mountEvents, releaseMounts } from './mount-start.ts';
import { oomEvents } from './oom.ts';
import { removalOf } from './removal.ts';
import { nextDelayMs, restartsAfterExit } from './restart.ts';
import type { Restarts } from './restarts.ts';
import { isRunning, launchedOf, type RunningRecord } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import { parseSignal, SIGKILL, SIGTERM } from './signals.ts';
import type { ContainerRecord, Ending } from './types.ts';

/** How long a process may take to go after SIGKILL before its end is an error. */
const killPatienceMs = 10_000;
/** How long the monitor of a process that has gone may take to tell, before it is given up. */
const monitorPatienceMs = 3000;
/** Until an end that could not be recorded is tried again: a full disk may have room by then. */
const settleAgainMs = 2000;
/** Node's timers reach 24 days; beyond, they fire at once. */
const timerMax = 2 ** 31 - 1;

/** Exit code of a process that SIGKILL ended. */
const killedExitCode = 137;
const monitorLost = 'the monitor of the container was lost, and the exit code with it';

export const stopSignalOf = ({ config }: ContainerRecord) =>
  config.StopSignal ? parseSignal(config.StopSignal) : SIGTERM;

/** Signals that are sent to end a container; a container with a stop signal of its own knows others. */
export const endsContainer = (record: ContainerRecord, signal: number) =>
  signal === SIGKILL || signal === stopSignalOf(record);

export class Endings {
  readonly #set: ContainerSet;
  readonly #restarts: Restarts;

  constructor(set: ContainerSet, restarts: Restarts) {
    this.#set = set;
    this.#restarts = restarts;
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
  settleIfLost(id: ContainerId, exitCode: number): Promise<boolean> {
    return this.#set.inLane(id, async () => {
      const record = this.#set.records.get(id);
      if (record === undefined || !isRunning(record)) return true;
      if (this.#set.parts.runtime.isAlive(launchedOf(record))) return false;
      await this.#settleGone(record, exitCode);
      return true;
    });
  }

  /** Settles a container whose process went while no daemon was there; what has its number now is not asked. */
  async settleGone(id: ContainerId, exitCode: number): Promise<void> {
    await this.#set.inLane(id, async () => {
      const record = this.#set.records.get(id);
      if (record && isRunning(record)) await this.#settleGone(record, exitCode);
    });
  }

  /** `exitCode` where the monitor has left none. */
  async #settleGone(record: RunningRecord, exitCode: number): Promise<void> {
    const notice = this.#set.parts.runtime.readExit(record.id);
    const lost: ExitNotice = { id: record.id, exitCode, oomKills: 0, finishedAtMs: Date.now() };
    await this.#settle(record, notice ?? lost, notice === null ? monitorLost : '');
  }

  /** Records the end of a run and gives back what it held. In the lane. */
  async #settle(record: RunningRecord, notice: ExitNotice, why: string): Promise<void> {
    const { parts } = this.#set;
    const { id } = record;
    const live = this.#set.live(id);
    void live.prober?.stop();
    const ending: Ending = {
      exitCode: notice.exitCode,
      oomKilled: notice.oomKills > 0 || (record.state.oomKills ?? 0) > 0,
      startedAt: record.state.startedAt,
      finishedAt: rfc3339Nano(BigInt(Math.trunc(notice.finishedAtMs * 1000)) * 1000n),
      error: why,
    };
    // Without a process 1 that takes the others along, they are ended before anyone learns of the end.
    if (!ownsPidNamespace(record.hostConfig)) await parts.runtime.killAll(id);
    const stopped = record.stoppedByUser || live.stopping;
    const removes = record.hostConfig.AutoRemove && live.restarting === 0;
    const again = restartsAfterExit(record.hostConfig.RestartPolicy, notice.exitCode, record.restartCount, stopped);
    if (again) live.lastDelayMs = nextDelayMs(live.lastDelayMs, notice.finishedAtMs - Date.parse(ending.startedAt));
    const settled: ContainerRecord = {
      ...record,
      ...(record.health ? { health: healthAtEnd(live.health ?? record.health) } : {}),
      ...withoutPlace(record),
      state: again
        ? { is: 'restarting', nextAttemptAt: Date.now() + live.lastDelayMs, ...ending }
        : { is: 'exited', ...ending },
    };
    const events: NewEvent[] = [
      ...oomEvents(record, notice.oomKills),
      containerEvent(record, 'die', { exitCode: String(notice.exitCode) }),
      ...networkEvents(this.#set, record, 'disconnect'),
      ...mountEvents(record, 'unmount'),
    ];
    // Ports and addresses are free again before anyone learns of the end.
    const removal = removes && !again ? removalOf(this.#set, settled, true) : null;
    const [left, recorded] = await Promise.allSettled([
      parts.networks.leave(id, placeOf(record)),
      removal
        ? parts.store.commit(removal.writes, [...events, ...removal.events])
        : this.#set.commit(settled, events).then(() => undefined),
    ]);
    if (recorded.status === 'rejected') {
      removal?.keep();
      throw recorded.reason;
    }
    if (removal === null) live.endRun({ exitCode: notice.exitCode });
    const rest = removal === null ? parts.layers.unmountWritable(id) : removal.finish();
    const cleaned = await Promise.allSettled([parts.runtime.delete(id), rest, releaseMounts(this.#set, record)]);
    for (const step of [left, ...cleaned]) {
      if (step.status === 'rejected')
        parts.log.error({ container: id, error: step.reason }, 'cleaning up after a container failed');
    }
    if (again) this.#restarts.schedule(id, live.lastDelayMs);
  }

  /** After the stop signal: patience, then SIGKILL. */
  async endPatiently(id: ContainerId, ended: Promise<unknown>, timeoutSeconds: number): Promise<void> {
    if (timeoutSeconds < 0) await ended;
    else if (!(await endsWithin(ended, timeoutSeconds * 1000))) {
      await this.#set.inLane(id, async () => {
        const record = this.#set.records.get(id);
        const sameRun = this.#set.live(id).ended.promise === ended;
        if (record && isRunning(record) && sameRun) await this.signal(record, SIGKILL, true);
      });
      await this.awaitEnd(id, ended);
    }
    const record = this.#set.records.get(id);
    if (record) await this.#set.parts.store.commit([], [containerEvent(record, 'stop')]);
  }

  /** Sends a signal to the first process. `ends`: the restart policy is to leave the container alone afterwards. */
  async signal(record: RunningRecord, signal: number, ends: boolean): Promise<void> {
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
    // Also one that a commit holds still, which may take minutes: nothing frozen can end.
    const isFrozen = record.state.paused || this.#set.live(record.id).heldBy.size > 0;
    if (ends && isFrozen) await this.#set.parts.runtime.resume(record.id);
  }

  /** Resolves when a run that was sent SIGKILL is over; throws when it does not end. */
  async awaitEnd(id: ContainerId, ended: Promise<unknown>): Promise<void> {
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
