/**
 * Real-time processor time of a v1 cgroup. A group can have only what its parent has and gives to nobody else, and new
 * groups have none: so what a container is promised is first given to its parents, from the root down.
 */
import fs from 'node:fs';
import path from 'node:path';
import type { CgroupLayout } from './cgroup.ts';
import type { Resources } from './resources.ts';

/** Microseconds; the kernel's own. */
const periodDefault = 1_000_000;

/** The resources that can be had below `cgroupPath`, with a warning when the real-time share is not among them. */
export function realtimeGranted(
  layout: CgroupLayout,
  cgroupPath: string,
  resources: Resources,
): { readonly resources: Resources; readonly warnings: readonly string[] } {
  if (grantRealtime(layout, cgroupPath, resources)) return { resources, warnings: [] };
  const { realtimePeriod, realtimeRuntime, ...cpu } = resources.cpu ?? {};
  return {
    resources: { ...resources, cpu },
    warnings: [`The kernel has no real-time share of ${realtimeRuntime} us to give. CPU real-time settings discarded.`],
  };
}

/** Makes room for the real-time share of `resources` below the parents of `cgroupPath`. False when the kernel has not that much. */
function grantRealtime(layout: CgroupLayout, cgroupPath: string, resources: Resources): boolean {
  const root = layout.controllers.get('cpu');
  const runtime = Number(resources.cpu?.realtimeRuntime ?? 0);
  const share = runtime / Number(resources.cpu?.realtimePeriod ?? periodDefault);
  if (runtime === 0 || root === undefined || layout.version === 2) return true;
  const parents = path.posix.dirname(cgroupPath).split('/').filter(Boolean);
  try {
    let directory = root;
    for (const name of parents) {
      directory += `/${name}`;
      fs.mkdirSync(directory, { recursive: true });
      const wanted = sharesBelow(directory) + share;
      const period = Number(fs.readFileSync(`${directory}/cpu.rt_period_us`, 'latin1'));
      if (shareOf(directory) < wanted) {
        fs.writeFileSync(`${directory}/cpu.rt_runtime_us`, String(Math.ceil(wanted * period)));
      }
    }
    return true;
  } catch {
    return false;
  }
}

const sharesBelow = (directory: string): number =>
  fs
    .readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .reduce((sum, { name }) => sum + shareOf(`${directory}/${name}`), 0);

function shareOf(directory: string): number {
  const read = (name: string) => Number(fs.readFileSync(`${directory}/cpu.rt_${name}_us`, 'latin1'));
  return read('runtime') / read('period');
}
