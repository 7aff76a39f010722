/** Memory of an engine's processes: those whose command line names its directory. The containers' own do not. */
import fs from 'node:fs';

export interface ProcessMemory {
  readonly pid: number;
  readonly residentBytes: number;
  /** Pages nobody else has: what would be free again without this process. */
  readonly privateBytes: number;
}

export function memoryOf(directory: string): ProcessMemory[] {
  const found: ProcessMemory[] = [];
  for (const name of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    try {
      if (!fs.readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(`${directory}/`)) continue;
      const rollup = fs.readFileSync(`/proc/${name}/smaps_rollup`, 'utf8');
      const bytes = (key: string) => Number(new RegExp(`^${key}: +(\\d+) kB`, 'm').exec(rollup)?.[1] ?? 0) * 1024;
      found.push({
        pid: Number(name),
        residentBytes: bytes('Rss'),
        privateBytes: bytes('Private_Clean') + bytes('Private_Dirty'),
      });
    } catch {
      // It ended while we looked.
    }
  }
  return found;
}

export function sum(processes: readonly ProcessMemory[], key: 'residentBytes' | 'privateBytes'): number {
  return processes.reduce((total, one) => total + one[key], 0);
}
