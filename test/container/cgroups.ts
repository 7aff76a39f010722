/** The cgroup of a process as the kernel has it, asked in the words of v1 wherever it runs. */
import fs from 'node:fs';

/** v2 alone, where v1 has a hierarchy for each controller. */
export const isUnified = fs.existsSync('/sys/fs/cgroup/cgroup.controllers');

/** Its directory in each hierarchy that has controllers (v1), or the one (v2). */
export function cgroupDirectories(pid: number): readonly string[] {
  return [...memberships(pid).values()];
}

/** The limit that v1 has in `file`, trimmed: `memory.limit_in_bytes`. On v2 from where the same limit stands there. */
export function cgroupValue(pid: number, file: string): string {
  const controller = isUnified ? '' : (file.split('.')[0] ?? '');
  const directory = memberships(pid).get(controller);
  if (directory === undefined) throw new Error(`no controller ${controller} here`);
  const read = (name: string) => fs.readFileSync(`${directory}/${name}`, 'utf8').trim();
  return isUnified ? valueOnV2(file, read) : read(file);
}

function valueOnV2(file: string, read: (name: string) => string): string {
  const limit = (name: string) => (read(name) === 'max' ? unlimitedOnV1 : read(name));
  const [quota = '', period = ''] = file.startsWith('cpu.cfs') ? read('cpu.max').split(' ') : [];
  switch (file) {
    case 'memory.limit_in_bytes':
      return limit('memory.max');
    case 'memory.memsw.limit_in_bytes':
      return [read('memory.max'), read('memory.swap.max')].includes('max')
        ? unlimitedOnV1
        : String(Number(read('memory.max')) + Number(read('memory.swap.max')));
    case 'memory.soft_limit_in_bytes':
      return limit('memory.low');
    case 'cpu.cfs_quota_us':
      return quota === 'max' ? '-1' : quota;
    case 'cpu.cfs_period_us':
      return period;
    case 'freezer.state':
      return read('cgroup.freeze') === '1' ? 'FROZEN' : 'THAWED';
    default:
      if (file === 'cpu.shares') return `weight ${read('cpu.weight')}`;
      if (file.startsWith('blkio.throttle.')) return ratesOf(file, read('io.max'));
      return read(file);
  }
}

/** What `cgroupValue` says of shares: on v2 they are weights, of 1 to 10000. */
export const cpuShares = (shares: number): string =>
  isUnified ? `weight ${1 + Math.floor(((shares - 2) * 9999) / 262_142)}` : String(shares);

const unlimitedOnV1 = '9223372036854771712';

/** `7:0 rbps=1048576 wbps=max …` as `7:0 1048576` for the file's kind of rate. */
function ratesOf(file: string, text: string): string {
  const [, direction = '', unit = ''] = /throttle\.(r|w)[a-z]+_(bps|iops)_device/.exec(file) ?? [];
  return text
    .split('\n')
    .flatMap((line) => {
      const value = new RegExp(`\\b${direction}${unit}=(\\d+)`).exec(line)?.[1];
      return value === undefined ? [] : [`${line.split(' ')[0]} ${value}`];
    })
    .join('\n');
}

function memberships(pid: number): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const line of fs.readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n')) {
    const [, names = '', group = ''] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (isUnified) found.set('', `/sys/fs/cgroup${group}`);
    for (const name of names.split(',').filter((word) => word !== '' && !word.includes('='))) {
      found.set(name, `/sys/fs/cgroup/${name}${group}`);
    }
  }
  return found;
}
