/** Restarts that nobody asked for: what the restart policy decided (restart.ts), scheduled and carried out. */
import type { NewEvent } from '../event/types.ts';
import type { ContainerId } from '../lib/ids.ts';
import { dependencyComes } from './isolation.ts';
import { launch } from './launch.ts';
import { linksAreComing } from './links.ts';
import { nextDelayMs, restartDelayMsMax, restartsAfterExit } from './restart.ts';
import { endingOf, isRunning } from './running.ts';
import type { ContainerSet } from './set.ts';
import type { ContainerRecord, Ending } from './types.ts';

/** How often, and how many times, a container looks whether those it needs have been restarted: whose namespaces it shares, and whom it links to. */
const dependencyPollMs = 250;
const dependencyAttempts = 40;

export class Restarts {
  readonly #set: ContainerSet;

  constructor(set: ContainerSet) {
    this.#set = set;
  }

  /** Starts a container because its restart policy says so: after an exit, or with the daemon (which does not count). */
  async startAgain(id: ContainerId, cause: 'exit' | 'daemon', attempt = 0): Promise<void> {
    await this.#set.inLane(id, async () => {
      const record = this.#set.records.get(id);
      if (record === undefined || isRunning(record) || this.#set.live(id).removing) return;
      if (cause === 'exit') {
        if (record.state.is !== 'restarting') return;
        // The policy may have been changed since the delay began.
        if (!this.#wanted(record, record.state)) {
          await this.#set.commit({ ...record, state: { ...record.state, is: 'exited' } });
          return;
        }
      }
      if (attempt < dependencyAttempts && (dependencyComes(this.#set, record) || linksAreComing(this.#set, record))) {
        this.schedule(id, dependencyPollMs, cause, attempt + 1);
        return;
      }
      const restartCount = record.restartCount + (cause === 'exit' ? 1 : 0);
      await launch(this.#set, { ...record, restartCount }).catch(async (error: unknown) => {
        this.#set.parts.log.warn({ container: id, error }, 'a restart failed');
        await this.#tryAgain(id);
      });
    });
  }

  /** What failed may be mended without anyone's doing (a port taken, a disk that is not there yet), so the policy goes on. */
  async #tryAgain(id: ContainerId): Promise<void> {
    const record = this.#set.records.get(id);
    if (record?.state.is === 'exited' && this.#wanted(record, record.state)) {
      const live = this.#set.live(id);
      live.lastDelayMs = nextDelayMs(live.lastDelayMs, 0);
      const nextAttemptAt = Date.now() + live.lastDelayMs;
      await this.#set.commit({ ...record, state: { ...record.state, is: 'restarting', nextAttemptAt } });
      this.schedule(id, live.lastDelayMs);
    }
    // Not even the failure could be recorded: what the record says goes on.
    else if (record?.state.is === 'restarting') this.schedule(id, restartDelayMsMax);
  }

  #wanted(record: ContainerRecord, { exitCode }: Ending): boolean {
    return restartsAfterExit(record.hostConfig.RestartPolicy, exitCode, record.restartCount, record.stoppedByUser);
  }

  /** Schedules what the record says is waiting for its delay. */
  resume(record: ContainerRecord): void {
    if (record.state.is !== 'restarting') return;
    const { nextAttemptAt, finishedAt } = record.state;
    // The clock may have been set back since.
    const within = (ms: number) => Math.min(Math.max(0, ms), restartDelayMsMax);
    this.#set.live(record.id).lastDelayMs = within(nextAttemptAt - Date.parse(finishedAt));
    this.schedule(record.id, within(nextAttemptAt - Date.now()));
  }

  schedule(id: ContainerId, delayMs: number, cause: 'exit' | 'daemon' = 'exit', attempt = 0): void {
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
  async cancel(record: ContainerRecord, ending: Ending, event: NewEvent): Promise<void> {
    await this.#set.commit({ ...record, stoppedByUser: true, state: { ...endingOf(ending), is: 'exited' } }, [event]);
    this.#set.live(record.id).cancelRestart();
  }
}
