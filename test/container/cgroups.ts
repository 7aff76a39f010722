/** The cgroup of a process as the kernel has it. */
import fs from 'node:fs';

/** Its directory in each hierarchy that has controllers (v1), or the one (v2). */
export function cgroupDirectories(pid: number): readonly string[] {
  return [...memberships(pid).values()];
}

/** A file of its group: `memory.limit_in_bytes`; trimmed. */
export function cgroupValue(pid: number, file: string): string {
  const controller = file.split('.')[0] ?? '';
  const directory = memberships(pid).get(controller);
  if (directory === undefined) throw new Error(`no controller ${controller} here`);
  return fs.readFileSync(`${directory}/${file}`, 'utf8').trim();
}

function memberships(pid: number): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const line of fs.readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n')) {
    const [, names = '', group = ''] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    for (const name of names.split(',').filter((word) => word !== '' && !word.includes('='))) {
      found.set(name, `/sys/fs/cgroup/${name}${group}`);
    }
  }
  return found;
}
