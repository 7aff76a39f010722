/**
 * The file systems of volumes with driver options. Mounting and unmounting are children with a deadline: a server that does
 * not answer holds up those who want this volume, and nobody else.
 */
import net from 'node:net';
import { internal, messageOf } from '../lib/errors.ts';
import { runChild } from '../platform/child.ts';
import { readMounts } from '../platform/mountinfo.ts';
import type { Texts } from './types.ts';

export interface Patience {
  readonly mountMs: number;
  readonly unmountMs: number;
}

export const patienceDefault: Patience = { mountMs: 60_000, unmountMs: 20_000 };

export const isMountedAt = (path: string): boolean => readMounts().some((entry) => entry.target === path);

/** Mounts what the options say at `path`, unless that has been done. */
export async function mountLocal(options: Texts, path: string, patience: Patience): Promise<void> {
  if (isMountedAt(path)) return;
  const { device = '', type = '' } = options;
  if (device === '') throw internal('missing device in volume options');
  try {
    const data = await withAddress(type, options.o ?? '', patience);
    // No helper programs and no looking at the paths: the kernel alone decides, as it does for dockerd.
    const words = ['-n', '-i', '-c', '-t', type || 'none', ...(data === '' ? [] : ['-o', data]), '--', device, path];
    const { code, output } = await runChild(['mount', ...words], { deadlineMs: patience.mountMs });
    if (code !== 0) throw internal(reasonIn(output, path));
  } catch (error) {
    const flags = options.o ? `, data: ${options.o}` : '';
    throw internal(`failed to mount local volume: mount ${device}:${path}${flags}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Lazily, so that whoever still looks inside does not keep it. What is not mounted is no error. */
export async function unmountLocal(path: string, patience: Patience): Promise<void> {
  for (let layers = 0; isMountedAt(path); layers++) {
    const { code, output } = await runChild(['umount', '-n', '-i', '-c', '-l', '--', path], {
      deadlineMs: patience.unmountMs,
    });
    if ((code !== 0 && isMountedAt(path)) || layers === 16) {
      throw internal(`unmounting the volume at ${path}: ${reasonIn(output, path)}`);
    }
  }
}

/** The kernel wants a number in `addr=`; a name is looked up by a child, since that may take long too. */
async function withAddress(type: string, data: string, patience: Patience): Promise<string> {
  const name = /(?:^|,)addr=([^,]+)/.exec(data)?.[1];
  if (!/^(nfs\d?|cifs)$/.test(type) || name === undefined || net.isIP(name) !== 0) return data;
  const { code, output } = await runChild(['getent', 'ahosts', name], { deadlineMs: patience.mountMs });
  const address = /^\S+/.exec(output)?.[0];
  if (code !== 0 || address === undefined) throw internal(`lookup ${name}: no such host`);
  return data.replace(`addr=${name}`, `addr=${address}`);
}

/** `mount: /path: unknown filesystem type 'x'.` and a hint at the kernel's log, as the reason alone, in the kernel's words. */
function reasonIn(output: string, path: string): string {
  const line = output.split('\n')[0] ?? '';
  if (/does not exist\.$/.test(line)) return 'no such file or directory';
  if (line.includes('unknown filesystem type')) return 'no such device';
  return line
    .replace(/^u?mount: /, '')
    .replace(`${path}: `, '')
    .replace(/\.$/, '');
}
