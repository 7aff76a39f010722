/** Who a container's process runs as: names looked up in the image's own `/etc/passwd` and `/etc/group`. */
import fs from 'node:fs';
import { invalid } from '../lib/errors.ts';
import { isErrno } from '../platform/libc.ts';
import { openForReading } from './rootfs.ts';

export interface ResolvedUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
  readonly home: string;
}

/** Files of this kind are small; a larger one is an attempt to eat memory. */
const accountFileBytesMax = 4 << 20;
const idMax = 2 ** 31 - 1;

/**
 * `user[:group]`, each a name or a number, and further groups. A number need not exist in the files, a name must.
 * With a group given, the user's other memberships do not count (as dockerd has it). Throws dockerd's words.
 */
export function resolveUser(rootfs: string, user: string, groupAdd: readonly string[] | null): ResolvedUser {
  const [userPart = '', groupPart = ''] = user.split(':');
  const passwd = readRows(rootfs, '/etc/passwd').map(([name = '', , uid, gid, , home = '']) => ({
    name,
    uid: number(uid),
    gid: number(gid),
    home,
  }));
  const groups = readRows(rootfs, '/etc/group').map(([name = '', , gid, members = '']) => ({
    name,
    gid: number(gid),
    members: members.split(','),
  }));

  let uid = 0;
  let gid = 0;
  let home = '/';
  const userId = userPart === '' ? 0 : number(userPart);
  const account = passwd.find((row) => (Number.isNaN(userId) ? row.name === userPart : row.uid === userId));
  if (account) {
    ({ uid, gid, home } = account);
  } else if (userPart !== '') {
    if (Number.isNaN(userId)) throw invalid(`unable to find user ${userPart}: no matching entries in passwd file`);
    uid = inRange(userId);
  }

  let memberships: readonly number[] = [];
  if (groupPart !== '') {
    const groupId = number(groupPart);
    const group = groups.find((row) => (Number.isNaN(groupId) ? row.name === groupPart : row.gid === groupId));
    if (!group && Number.isNaN(groupId)) {
      throw invalid(`unable to find group ${groupPart}: no matching entries in group file`);
    }
    gid = group ? group.gid : inRange(groupId);
  } else if (account) {
    memberships = groups.filter((row) => row.members.includes(account.name)).map((row) => row.gid);
  }

  const added = (groupAdd ?? []).map((name) => {
    const group = groups.find((row) => row.name === name || String(row.gid) === name);
    if (group) return group.gid;
    const id = number(name);
    if (Number.isNaN(id)) throw invalid(`Unable to find group ${name}: no matching entries in group file`);
    return inRange(id);
  });
  // The primary group stands among the additional ones: a process that drops it could otherwise pass checks that
  // deny the group something (CVE-2022-36109).
  return { uid, gid, additionalGids: [...new Set([gid, ...memberships, ...added])], home: home || '/' };
}

function number(text: string | undefined): number {
  return text !== undefined && /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
}

function inRange(id: number): number {
  if (id < 0 || id > idMax) throw invalid(`uids and gids must be in range 0-${idMax}`);
  return id;
}

/** Rows of a colon-separated file inside the root; none when the file is absent. Broken rows are dropped. */
function readRows(rootfs: string, path: string): readonly string[][] {
  let fd: number;
  try {
    fd = openForReading(rootfs, path);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return [];
    throw error;
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) return [];
    if (stat.size > accountFileBytesMax) throw invalid(`${path} of the container is larger than 4 MiB`);
    return fs
      .readFileSync(fd, 'utf8')
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => line.split(':'))
      .filter((row) => !Number.isNaN(number(row[2])));
  } finally {
    fs.closeSync(fd);
  }
}
