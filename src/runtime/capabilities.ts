/** Capabilities of a container's process, from CapAdd, CapDrop and Privileged. Names as in capabilities(7). */
import fs from 'node:fs';
import { invalid } from '../lib/errors.ts';

/** In the order of their numbers: the index is the bit in `/proc/<pid>/status`. */
export const allCapabilities: readonly string[] = `
  CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
  NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
  SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
  MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`
  .trim()
  .split(/\s+/)
  .map((name) => `CAP_${name}`);

/** dockerd's default set. */
export const defaultCapabilities: readonly string[] = `
  CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
  AUDIT_WRITE`
  .trim()
  .split(/\s+/)
  .map((name) => `CAP_${name}`);

/** What this process may hand on: its bounding set. A capability outside can be given by nobody below us. */
export function heldCapabilities(): ReadonlySet<string> {
  const line = /^CapBnd:\s*([0-9a-f]+)$/m.exec(fs.readFileSync('/proc/self/status', 'utf8'));
  const bits = BigInt(`0x${line?.[1] ?? '0'}`);
  return new Set(allCapabilities.filter((_, index) => (bits >> BigInt(index)) & 1n));
}

/** `sys_admin`, `CAP_SYS_ADMIN` and `all` in one form; throws dockerd's words for a name the kernel does not know. */
function normalise(names: readonly string[], option: 'CapAdd' | 'CapDrop'): readonly string[] {
  return names.map((name) => {
    const upper = name.trim().toUpperCase();
    if (upper === 'ALL') return 'ALL';
    const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
    if (!allCapabilities.includes(full)) throw invalid(`invalid ${option}: unknown capability: "${full}"`);
    return full;
  });
}

/**
 * The set of a container, as dockerd computes it: everything when privileged; `ALL` added means all but the dropped;
 * `ALL` dropped means only the added; else the default, less the dropped, plus the added.
 * `held`: what the kernel lets us give; the rest is left out of "everything" and "all".
 */
export function capabilitiesOf(
  options: {
    readonly Privileged: boolean;
    readonly CapAdd: readonly string[] | null;
    readonly CapDrop: readonly string[] | null;
  },
  held: ReadonlySet<string>,
): readonly string[] {
  const add = normalise(options.CapAdd ?? [], 'CapAdd');
  const drop = normalise(options.CapDrop ?? [], 'CapDrop');
  const missing = add.find((name) => name !== 'ALL' && !held.has(name));
  if (missing !== undefined) {
    throw invalid(
      `invalid CapAdd: capability not supported by your kernel or not available in the current environment: "${missing}"`,
    );
  }
  const everything = allCapabilities.filter((name) => held.has(name));
  if (options.Privileged) return everything;
  if (add.includes('ALL')) return everything.filter((name) => !drop.includes(name));
  if (drop.includes('ALL')) return [...new Set(add)];
  const kept = defaultCapabilities.filter((name) => held.has(name) && !drop.includes(name));
  return [...new Set([...kept, ...add])];
}
