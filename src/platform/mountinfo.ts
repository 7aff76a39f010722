/** What is mounted where, read from `/proc/self/mountinfo`: no question to the file systems themselves, one of which may be dead. */
import fs from 'node:fs';

export interface MountEntry {
  /** Where it is mounted. */
  readonly target: string;
  readonly type: string;
  /** `ro`, `nosuid`, `relatime`, … of this mount, not of the file system. */
  readonly flags: readonly string[];
  /** Mounts below it reach other namespaces, and theirs reach here. */
  readonly shared: boolean;
  /** Mounts made in the namespace it came from reach here. */
  readonly slave: boolean;
  /** Device, root, target and flags: tells whether two namespaces have the same mount there. */
  readonly identity: string;
}

const unescaped = (text: string) =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

/** Mounts of the calling thread's namespace, in the order they were made. */
export function readMounts(): readonly MountEntry[] {
  return parseMounts(fs.readFileSync('/proc/thread-self/mountinfo', 'utf8'));
}

export function parseMounts(text: string): readonly MountEntry[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const fields = line.split(' ');
      const [, , device = '', root = '', target = '', flags = ''] = fields;
      const separator = fields.indexOf('-', 6);
      const optional = fields.slice(6, separator);
      return {
        target: unescaped(target),
        type: fields[separator + 1] ?? '',
        flags: flags.split(','),
        shared: optional.some((field) => field.startsWith('shared:')),
        slave: optional.some((field) => field.startsWith('master:')),
        identity: `${device} ${root} ${target} ${flags}`,
      };
    });
}

export const isBelow = (path: string, directory: string): boolean =>
  path === directory || directory === '/' || path.startsWith(`${directory}/`);

/** The mount an absolute path without links lies on: the longest target above it, and of several there the last made. */
export function mountOf(mounts: readonly MountEntry[], path: string): MountEntry | undefined {
  let found: MountEntry | undefined;
  for (const entry of mounts) {
    if (isBelow(path, entry.target) && entry.target.length >= (found?.target.length ?? 0)) found = entry;
  }
  return found;
}

const remoteTypes = /^(nfs\d?|cifs|smb\d?|smbfs|ceph|fuse(\.|blk|$)|9p|afs|glusterfs|lustre|ncpfs|gfs2|ocfs2|virtiofs)/;

/** File systems whose every answer waits for somebody else. */
export const isRemote = (entry: MountEntry | undefined): boolean => entry !== undefined && remoteTypes.test(entry.type);

/** All that is seen at and below a path, for comparing two namespaces. Flags count: a change of them does not propagate. */
export function sightOf(mounts: readonly MountEntry[], path: string): string {
  const below = mounts.filter((entry) => isBelow(entry.target, path));
  return [mountOf(mounts, path), ...below].map((entry) => entry?.identity).join('\n');
}
