/**
 * Moving a process to a cgroup makes the kernel wait for a grace period of 5 to 15 ms, unless that has happened in the last
 * dozen. Asked for ahead of time, the wait passes while other things are done.
 */
import fs from 'node:fs';
import type { CgroupLayout } from './cgroup.ts';

/** After an exec, how long and how often the next one's wait is kept away; the kernel forgets within a dozen milliseconds. */
const readyMs = 1000;
const readyPulseMs = 8;

export class Readiness implements Disposable {
  readonly #ownProcs: string;
  #anticipating = false;
  #readyUntil = 0;
  #keepReady: NodeJS.Timeout | null = null;

  constructor(layout: CgroupLayout) {
    this.#ownProcs = ownProcs(layout, fs.readFileSync('/proc/self/cgroup', 'latin1'));
  }

  [Symbol.dispose](): void {
    if (this.#keepReady) clearInterval(this.#keepReady);
  }

  anticipate(): void {
    if (this.#anticipating || this.#ownProcs === '') return;
    this.#anticipating = true;
    // Moving ourselves to where we are changes nothing and takes the same lock, in the same state.
    fs.writeFile(this.#ownProcs, String(process.pid), () => {
      this.#anticipating = false;
    });
  }

  /**
   * Execs come in series (a script, a health check from outside), each some tens of milliseconds after the last: for a second after one
   * the wait of the next is kept away. Costs about a fiftieth of a processor while it lasts.
   */
  stayReady(): void {
    this.#readyUntil = performance.now() + readyMs;
    this.#keepReady ??= setInterval(() => {
      if (performance.now() < this.#readyUntil) this.anticipate();
      else {
        clearInterval(this.#keepReady ?? undefined);
        this.#keepReady = null;
      }
    }, readyPulseMs).unref();
  }
}

/** `cgroup.procs` of the group this process is in, in one of the hierarchies. */
function ownProcs(layout: CgroupLayout, memberships: string): string {
  for (const line of memberships.split('\n')) {
    const [, controllers = '', group = ''] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const root =
      controllers === '' ? (layout.version === 2 ? layout.roots[0] : undefined) : layout.controllers.get(controllers);
    if (root !== undefined && fs.existsSync(`${root}${group}/cgroup.procs`)) return `${root}${group}/cgroup.procs`;
  }
  return '';
}
