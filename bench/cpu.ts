/**
 * CPU time of an engine with everything it starts, the short-lived too: its processes are moved to a group of their own, which counts for
 * their children as well. Containers are in groups of theirs and are added.
 */
import fs from 'node:fs';
import { memoryOf } from './memory.ts';

const root = fs.existsSync('/sys/fs/cgroup/cpuacct') ? '/sys/fs/cgroup/cpuacct' : '/sys/fs/cgroup';

export class CpuMeter {
  readonly #group: string;

  /** `directory` is named by the command lines of the engine's processes. */
  constructor(name: string, directory: string) {
    this.#group = `${root}/bench-${name}-${process.pid}`;
    fs.mkdirSync(this.#group);
    for (const { pid } of memoryOf(directory)) fs.writeFileSync(`${this.#group}/cgroup.procs`, String(pid));
  }

  /** Milliseconds so far, of the engine and of these containers. */
  milliseconds(containers: readonly string[]): number {
    const groups = containers.flatMap((id) => fs.globSync(`${root}/**/*${id}*/`));
    return [this.#group, ...groups].reduce((sum, group) => sum + usage(group), 0);
  }

  /** Its processes go back where they came from. */
  close(): void {
    for (const pid of fs.readFileSync(`${this.#group}/cgroup.procs`, 'latin1').split('\n').filter(Boolean)) {
      try {
        fs.writeFileSync(`${root}/cgroup.procs`, pid);
      } catch {
        // It has just ended.
      }
    }
    fs.rmdirSync(this.#group);
  }
}

function usage(group: string): number {
  if (fs.existsSync(`${group}/cpuacct.usage`)) return Number(fs.readFileSync(`${group}/cpuacct.usage`, 'latin1')) / 1e6;
  return Number(/^usage_usec (\d+)/.exec(fs.readFileSync(`${group}/cpu.stat`, 'latin1'))?.[1] ?? 0) / 1000;
}
