/**
 * The life of a container as its users command it: start, stop, kill, pause, removal. How a start goes is told in launch.ts, how
 * a run ends in endings.ts, what the restart policy makes of it in restarts.ts.
 *
 * Everything that changes a container runs in its lane. Waiting for a process to end never holds the lane, since
 * the news of its end comes through it.
 */
import { conflict, EngineError, internal, unchanged } from '../lib/errors.ts';
import { type Endings, endsContainer, stopSignalOf } from './endings.ts';
import { launch, watchLog } from './launch.ts';
import { renameInLinks } from './links.ts';
import { startProbing } from './prober.ts';
import { destroy } from './removal.ts';
import type { Restarts } from './restarts.ts';
import { isRunning, type RunningRecord } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import { parseSignal, SIGKILL } from './signals.ts';
import type { ContainerRecord } from './types.ts';
import { finishUpdate } from './update.ts';

const stopTimeoutSecondsDefault = 10;

export class Life {
  readonly #set: ContainerSet;
  readonly #restarts: Restarts;
  readonly #endings: Endings;

  constructor(set: ContainerSet, restarts: Restarts, endings: Endings) {
    this.#set = set;
    this.#restarts = restarts;
    this.#endings = endings;
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
      await launch(this.#set, { ...record, restartCount: 0 });
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
        await this.#restarts.cancel(record, record.state, containerEvent(record, 'stop'));
        return null;
      }
      if (!isRunning(record)) throw unchanged(`Container ${ref} is already stopped`);
      const ended = this.#set.live(id).ended.promise;
      await this.#endings.signal(record, stopSignalOf(record), true);
      void this.#set.live(id).prober?.stop();
      return { ended, seconds: timeoutSeconds ?? record.config.StopTimeout ?? stopTimeoutSecondsDefault };
    });
    if (run !== null) await this.#endings.endPatiently(id, run.ended, run.seconds);
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
      if (record.state.is === 'restarting' && endsContainer(record, signal)) {
        await this.#restarts.cancel(record, record.state, containerEvent(record, 'kill', { signal: String(signal) }));
        return null;
      }
      if (!isRunning(record)) {
        const why =
          record.state.is === 'restarting' ? 'restarting, wait until the container is running' : 'not running';
        throw conflict(`Cannot kill container: ${ref}: Container ${record.id} is ${why}`);
      }
      const ended = this.#set.live(id).ended.promise;
      await this.#endings.signal(record, signal, endsContainer(record, signal));
      return { ended };
    });
    if (run !== null && signal === SIGKILL) await this.#endings.awaitEnd(id, run.ended);
  }

  async pause(ref: string): Promise<void> {
    const { id } = this.#set.index.resolve(ref);
    await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      if (record.state.is === 'restarting')
        throw conflict(`Container ${record.id} is restarting, wait until the container is running`);
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
      // A frozen probe would only run into its timeout.
      void this.#set.live(id).prober?.stop();
    });
  }

  async unpause(ref: string): Promise<void> {
    const { id } = this.#set.index.resolve(ref);
    await this.#set.inLane(id, async () => {
      const record = this.#set.current(id);
      if (!isRunning(record) || !record.state.paused) throw internal(`Container ${record.id} is not paused`);
      await this.#resume(record);
      startProbing(this.#set, record, false);
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
      this.#set.parts.networks.rename(id, to);
    });
    await renameInLinks(this.#set, id, to);
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
        await destroy(this.#set, record, options.volumes);
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
      await this.#endings.signal(record, SIGKILL, true);
      return { ended };
    });
    if (run === null) return;
    try {
      await this.#endings.awaitEnd(id, run.ended);
      await this.#set.inLane(id, async () => {
        const record = this.#set.records.get(id);
        // AutoRemove may have been faster.
        if (record && !isRunning(record)) await destroy(this.#set, record, options.volumes);
      });
    } finally {
      live.removing = false;
    }
  }

  /** Takes over a process found running when the daemon starts. */
  async adopt(record: ContainerRecord): Promise<void> {
    if (!isRunning(record)) return;
    const { runtime } = this.#set.parts;
    const live = this.#set.live(record.id);
    if (record.config.OpenStdin) {
      // Without its monitor a container has no stdin any more, but everything else.
      await runtime.openStdin(record.id).then(
        (pipe) => live.stdin.connect(pipe),
        (error: unknown) => this.#set.parts.log.warn({ container: record.id, error }, 'a stdin is lost'),
      );
    }
    watchLog(this.#set, record, live);
    // A crash may have come between the commit and the start; starting what runs already is no error.
    await runtime.start(record.id);
    // The same for pausing: what was answered is in the record.
    if (record.state.paused) await runtime.pause(record.id);
    else {
      await runtime.resume(record.id);
      startProbing(this.#set, record, true);
    }
    await finishUpdate(this.#set, record);
  }

  async #resume(record: RunningRecord): Promise<void> {
    await this.#set.parts.runtime.resume(record.id);
    await this.#set.commit({ ...record, state: { ...record.state, paused: false } }, [
      containerEvent(record, 'unpause'),
    ]);
  }
}

function ignoreUnchanged(error: unknown): void {
  if (!(error instanceof EngineError && error.kind === 'unchanged')) throw error;
}
