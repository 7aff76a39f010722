/**
 * Which kernel parameters a container may set: those of namespaces that it has for itself. dockerd leaves the check to runc,
 * whose rules and words these are (libcontainer's validator); here it is made when the container is created.
 */
import type { HostConfig } from '../container/types.ts';
import { invalid } from '../lib/errors.ts';

const ofIpcNamespace = new Set(
  'msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced'.split(' ').map((name) => `kernel.${name}`),
);

/** `net/ipv4/ip_forward` is `net.ipv4.ip_forward`: the first separator tells which of the two ways of writing it is. */
export function dotted(name: string): string {
  const [first] = /[./]/.exec(name) ?? [];
  if (first !== '/') return name;
  return [...name].map((letter) => (letter === '/' ? '.' : letter === '.' ? '/' : letter)).join('');
}

/** Longer than any there is; a path of the kernel's ends at 4095. */
const nameLengthMax = 1000;

/** Throws runc's words for the first that does not belong to a namespace of the container's own. */
export function checkSysctls(host: Pick<HostConfig, 'Sysctls' | 'IpcMode' | 'NetworkMode' | 'UTSMode'>): void {
  for (const [given, value] of Object.entries(host.Sysctls ?? {})) {
    const name = dotted(given);
    if (value.includes('\0')) throw invalid(`sysctl "${given}" holds a null byte`);
    // Interfaces are among the parts: anything but blanks.
    if (/\s/.test(name) || name.length > nameLengthMax || name.split(/[./]/).includes(''))
      throw invalid(`sysctl "${given}" is not a name`);
    if (ofIpcNamespace.has(name) || name.startsWith('fs.mqueue.')) {
      if (host.IpcMode === 'host') throw invalid(`sysctl "${given}" is not allowed in the hosts ipc namespace`);
    } else if (name.startsWith('net.')) {
      if (host.NetworkMode === 'host') throw invalid(`sysctl "${given}" not allowed in host network namespace`);
    } else if (name === 'kernel.domainname') {
      if (host.UTSMode === 'host') throw invalid(`sysctl "${given}" is not allowed in the hosts uts namespace`);
    } else if (name === 'kernel.hostname') {
      throw invalid(`sysctl "${given}" is not allowed as it conflicts with the OCI "hostname" field`);
    } else {
      throw invalid(`sysctl "${given}" is not in a separate kernel namespace`);
    }
  }
}
