/**
 * Bringing records and kernel together when the daemon starts: what runs is adopted, what has ended is settled with
 * the time and code its monitor left, what no record claims is swept. Costs nothing per stopped container.
 */
import fs from 'node:fs/promises';
import path from 'node:path';
import type { ContainerId } from '../lib/ids.ts';
import type { Endings } from './endings.ts';
import { liveSandboxOf } from './endpoints.ts';
import type { Life } from './life.ts';
import { refreshHosts } from './links.ts';
import { volumesHeld } from './mount-start.ts';
import { watchMemory } from './oom.ts';
import { removeEnded } from './removal.ts';
import { restartsWithDaemon } from './restart.ts';
import type { Restarts } from './restarts.ts';
import { isRunning } from './running.ts';
import type { ContainerSet } from './set.ts';
import type { ContainerRecord } from './types.ts';

/** How long a monitor whose process has gone may take to write the exit file. */
const exitFilePatienceMs = 2000;
/** How often running containers are looked at, lest the end of one goes unnoticed whose monitor was killed. */
const watchMs = 10_000;
/** Exit code of a run whose own code nobody knows. */
const unknownExitCode = 255;

export interface Living {
  readonly life: Life;
  readonly restarts: Restarts;
  readonly endings: Endings;
}

export async function reconcile(set: ContainerSet, { life, restarts, endings }: Living): Promise<void> {
  const { runtime, networks, layers, log } = set.parts;
  const alive: ContainerRecord[] = [];
  const lost: ContainerRecord[] = [];
  const resting: ContainerRecord[] = [];
  const runDirectories = new Set(runtime.listRunDirectories());
  for (const record of set.records.values()) {
    if (!isRunning(record)) resting.push(record);
    // Without its run directory, which a reboot empties, a process of the same number is another one.
    else if (runDirectories.has(record.id) && runtime.readExit(record.id) === null && runtime.isAlive(record.state))
      alive.push(record);
    else lost.push(record);
  }
  await layers.reconcile(new Set([...set.records.values()].map((r) => r.id)), new Set(alive.map((r) => r.id)));
  await networks.reconcile(alive.map((record) => liveSandboxOf(set, record)).filter((live) => live !== null));
  await set.parts.volumes.reconcile(volumesHeld(alive));
  await Promise.all(
    alive.map((record) =>
      life
        .adopt(record)
        .catch((error: unknown) =>
          log.error({ container: record.id, error }, 'a running container could not be taken over'),
        ),
    ),
  );
  await Promise.all(
    lost.map(async (record) => {
      await awaitExit(set, record);
      await endings.settleGone(record.id, unknownExitCode).catch((error: unknown) => {
        log.error({ container: record.id, error }, 'a container that ended could not be settled');
      });
    }),
  );
  // A crash may have come between the start of one and the others' hosts files.
  for (const record of alive) if (record.links?.length) refreshHosts(set, record);
  await sweep(set, new Set(alive.map((r) => r.id)));
  await Promise.all(resting.filter(shouldHaveGone).map((record) => removeEnded(set, record.id)));
  runtime.onExit((notice) => void endings.exited(notice));
  set.becomeReady();
  for (const record of resting) restartWithDaemon(restarts, record);
  // What they printed last may not have reached its sink.
  for (const record of set.records.values()) if (!isRunning(record)) set.drainLog(record);
  watchForLost(set, endings);
  watchMemory(set);
}

/** A crash came between the end of a container with AutoRemove and its removal. */
const shouldHaveGone = ({ state, hostConfig }: ContainerRecord) => state.is === 'exited' && hostConfig.AutoRemove;

/** Settles containers that are found without their process, and without word of it, twice in a row. */
function watchForLost(set: ContainerSet, endings: Endings): void {
  const { runtime, log } = set.parts;
  let missed = new Set<string>();
  setInterval(() => {
    const missing = new Set<string>();
    for (const record of set.records.values()) {
      if (!isRunning(record) || runtime.isAlive(record.state)) continue;
      const run = `${record.id} ${record.state.startedAt}`;
      if (!missed.has(run)) missing.add(run);
      else
        endings.settleIfLost(record.id, unknownExitCode).catch((error: unknown) => {
          log.error({ container: record.id, error }, 'a lost container could not be settled');
        });
    }
    missed = missing;
  }, watchMs).unref();
}

/** Resolves when the monitor has left the exit code, or will not any more. */
async function awaitExit(set: ContainerSet, record: ContainerRecord): Promise<void> {
  for (const until = Date.now() + exitFilePatienceMs; ; ) {
    if (set.parts.runtime.readExit(record.id) !== null || Date.now() > until) return;
    const monitor = record.state.is === 'running' ? record.state.monitorPid : 0;
    if (!(await exists(`/proc/${monitor}`))) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const exists = (file: string) =>
  fs.access(file).then(
    () => true,
    () => false,
  );

function restartWithDaemon(restarts: Restarts, record: ContainerRecord): void {
  if (record.state.is === 'restarting') restarts.resume(record);
  else if (restartsWithDaemon(record.hostConfig.RestartPolicy, record.state.is === 'exited', record.stoppedByUser)) {
    restarts.startAgain(record.id, 'daemon').catch(() => undefined); // it has logged why
  }
}

/** Run directories of processes nobody knows (a start that a crash cut short), and files of removed containers. */
async function sweep(set: ContainerSet, alive: ReadonlySet<ContainerId>): Promise<void> {
  const { runtime, dir, log } = set.parts;
  for (const id of runtime.listRunDirectories()) {
    const record = set.records.get(id);
    if (alive.has(id) || (record && isRunning(record))) continue;
    await runtime
      .delete(id)
      .catch((error: unknown) => log.error({ container: id, error }, 'sweeping a run directory failed'));
  }
  await fs.mkdir(dir, { recursive: true, mode: 0o711 });
  for (const name of await fs.readdir(dir)) {
    if (!set.records.get(name)) await fs.rm(path.join(dir, name), { recursive: true, force: true });
  }
}
