/**
 * Runs the health probes of one container while it runs: one at a time, the interval counted from the end of the last one, so that
 * slow probes never pile up. Results live in memory; the record changes, with an event, when the status does.
 */
import { EngineError, messageOf } from '../lib/errors.ts';
import type { ContainerId } from '../lib/ids.ts';
import { nowNano, rfc3339Nano } from '../lib/time.ts';
import type { Probe, ProbeEnd, ProbeRun } from '../runtime/types.ts';
import { healthAfter, type ProbePlan, type ProbeResult, probePlan } from './health.ts';
import { isRunning, type RunningRecord } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';

/** Bytes of a probe's output that are kept. */
const outputBytesMax = 4096;
/** How long the runtime may take until the command runs, beyond the command's own timeout. */
const launchPatienceMs = 60_000;
/** How often a probe that should be over, and has not begun, is looked at. */
const launchPollMs = 100;
/** Probes with a shorter interval may have a shell that stays in the container. */
const frequentMs = 5000;
/** Node's timers reach 24 days; beyond, they fire at once. */
const timerMax = 2 ** 31 - 1;

/** Probes begin one per turn of the event loop, so that requests come in between when many are due at once. */
let turn: Promise<void> = Promise.resolve();

function nextTurn(): Promise<void> {
  turn = turn.then(() => new Promise((resolve) => setImmediate(resolve)));
  return turn;
}

/** Begins to check the health of a container that runs, unless it has no health check. `spread`: the first probe comes anywhere within the first interval. */
export function startProbing(set: ContainerSet, record: RunningRecord, spread: boolean): void {
  const plan = probePlan(record.config);
  if (plan === null || record.health === undefined) return;
  const live = set.live(record.id);
  const previous = live.prober;
  live.health ??= record.health;
  live.prober = new Prober(set, record, plan, previous?.stop() ?? Promise.resolve());
  live.prober.schedule(plan.intervalMs * (spread ? Math.random() : 1));
}

export class Prober {
  readonly #set: ContainerSet;
  readonly #id: ContainerId;
  readonly #startedAt: string;
  readonly #plan: ProbePlan;
  #probe: Probe | null = null;
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;
  #current: ProbeRun | null = null;
  /** Settled when the last probe has ended. */
  #last: Promise<void>;

  constructor(set: ContainerSet, record: RunningRecord, plan: ProbePlan, before: Promise<void>) {
    this.#set = set;
    this.#id = record.id;
    this.#startedAt = record.state.startedAt;
    this.#plan = plan;
    this.#last = before;
  }

  schedule(delayMs: number): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(
      () => {
        this.#last = this.#last
          .then(() => this.#check())
          .catch((error: unknown) => {
            this.#set.parts.log.error({ container: this.#id, error }, 'a health check failed in the engine');
          });
        void this.#last.then(() => this.schedule(this.#plan.intervalMs));
      },
      Math.min(delayMs, timerMax),
    ).unref();
  }

  /** No probe begins any more; the one that runs is ended and not counted. Resolves when it has gone. */
  stop(): Promise<void> {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#current?.kill().catch((error: unknown) => {
      this.#set.parts.log.warn({ container: this.#id, error }, 'a health probe could not be ended');
    });
    return this.#last.finally(() => this.#probe?.close());
  }

  async #check(): Promise<void> {
    await nextTurn();
    if (this.#stopped) return;
    const start = nowNano();
    let run: ProbeRun;
    try {
      this.#probe ??= this.#set.parts.runtime.prepareProbe(this.#id, this.#plan.cmd, {
        outputBytesMax,
        frequent: this.#plan.intervalMs < frequentMs,
      });
      run = this.#probe.run();
    } catch (error) {
      // Also what no probe could mend, such as a user that does not exist.
      if (!(error instanceof EngineError)) this.#set.parts.log.warn({ container: this.#id, error }, 'no health probe');
      await this.#take(start, { exitCode: -1, output: messageOf(error) });
      return;
    }
    this.#current = run;
    try {
      const end = await this.#within(run);
      await this.#take(
        start,
        end ?? { exitCode: -1, output: `Health check exceeded timeout (${this.#plan.timeoutText})` },
      );
      if (end === null) {
        await run.kill();
        await run.ended;
      }
    } finally {
      this.#current = null;
    }
  }

  /** The probe's end; null when it has been running for longer than it may. What the runtime needed before is not counted. */
  async #within(run: ProbeRun): Promise<ProbeEnd | null> {
    const { timeoutMs } = this.#plan;
    const lastMoment = performance.now() + timeoutMs + launchPatienceMs;
    for (let waitMs = timeoutMs; ; ) {
      const end = await endWithin(run.ended, waitMs);
      if (end !== null) return end;
      if (performance.now() >= lastMoment) return null;
      const ranMs = await run.ranMs();
      // Start times have a precision of ten milliseconds.
      if (ranMs !== null && ranMs >= timeoutMs - 10) return null;
      waitMs = ranMs === null ? launchPollMs : timeoutMs - ranMs;
    }
  }

  async #take(start: bigint, { exitCode, output }: ProbeEnd): Promise<void> {
    if (this.#stopped) return;
    const live = this.#set.live(this.#id);
    const before = live.health;
    if (before === null) return;
    const result: ProbeResult = {
      Start: rfc3339Nano(start),
      End: rfc3339Nano(nowNano()),
      ExitCode: exitCode,
      Output: output,
    };
    const ranForMs = Number(start / 1_000_000n) - Date.parse(this.#startedAt);
    const health = healthAfter(before, result, this.#plan, ranForMs);
    live.health = health;
    // Compared with the record, so that a change which could not be written is tried again.
    if (this.#set.records.get(this.#id)?.health?.status === health.status) return;
    await this.#set.inLane(this.#id, async () => {
      const record = this.#set.records.get(this.#id);
      if (this.#stopped || record === undefined || !isRunning(record) || record.health?.status === health.status)
        return;
      await this.#set.commit({ ...record, health }, [containerEvent(record, `health_status: ${health.status}`)]);
    });
  }
}

async function endWithin(ended: Promise<ProbeEnd>, ms: number): Promise<ProbeEnd | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(resolve, Math.min(ms, timerMax), null);
  });
  try {
    return await Promise.race([ended, late]);
  } finally {
    clearTimeout(timer);
  }
}
