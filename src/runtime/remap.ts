/**
 * `userns-remap`: which ids of the machine root and the others of a container are. `default`, `user`, `user:group`, `uid` or
 * `uid:gid`; the ranges are those of /etc/subuid and /etc/subgid (subuid(5)). Words of failures are dockerd's.
 */
import fs from 'node:fs';
import { invalid } from '../lib/errors.ts';
import type { IdMap, IdRange } from '../lib/idmap.ts';

/** Files that say who there is; others in tests. */
export interface AccountFiles {
  readonly passwd: string;
  readonly group: string;
  readonly subuid: string;
  readonly subgid: string;
}

const machineFiles: AccountFiles = {
  passwd: '/etc/passwd',
  group: '/etc/group',
  subuid: '/etc/subuid',
  subgid: '/etc/subgid',
};

/** Owner of the ranges that `default` means; they are set apart when there are none. */
const defaultOwner = 'dockremap';
const rangeSize = 65_536;
const rangeFirst = 100_000;

export function readRemap(setting: string, files: AccountFiles = machineFiles): IdMap {
  const parts = setting.split(':');
  const [user = '', group] = parts;
  if (parts.length > 2 || user === '' || group === '')
    throw invalid(`Invalid user/group specification in --userns-remap: "${setting}"`);
  if (user === 'default' && group === undefined) {
    return { users: rangesOrNew(files.subuid), groups: rangesOrNew(files.subgid) };
  }
  const userRow = find(files.passwd, user);
  if (userRow === undefined) {
    throw invalid(
      isNumber(user)
        ? `Uid ${user} has no entry in ${files.passwd}`
        : `Error during uid lookup for "${user}": no such user`,
    );
  }
  const wanted = group ?? user;
  const groupRow = find(files.group, wanted);
  if (groupRow === undefined) {
    throw invalid(
      isNumber(wanted)
        ? `Gid ${wanted} has no entry in ${files.group}`
        : `Error during gid lookup for "${wanted}": no such group`,
    );
  }
  return { users: ranges(files.subuid, userRow, 'subuid'), groups: ranges(files.subgid, groupRow, 'subgid') };
}

interface Account {
  readonly name: string;
  readonly id: string;
}

const isNumber = (text: string) => /^\d+$/.test(text);

function find(file: string, nameOrId: string): Account | undefined {
  const rows = rowsOf(file).map(([name = '', , id = '']) => ({ name, id }));
  return rows.find(({ name, id }) => (isNumber(nameOrId) ? id === nameOrId : name === nameOrId));
}

/** Ranges of one owner, laid end to end from 0 on inside. */
function rangesOf(file: string, owners: readonly string[]): readonly IdRange[] {
  let inside = 0;
  return rowsOf(file)
    .filter(([owner = '']) => owners.includes(owner))
    .map(([, start, size]) => ({ outside: Number(start), size: Number(size) }))
    .filter(({ outside, size }) => Number.isInteger(outside) && outside > 0 && Number.isInteger(size) && size > 0)
    .map(({ outside, size }) => {
      inside += size;
      return { inside: inside - size, outside, size };
    });
}

function ranges(file: string, { name, id }: Account, kind: 'subuid' | 'subgid'): readonly IdRange[] {
  const found = rangesOf(file, [name, id]);
  if (found.length === 0)
    throw invalid(`no ${kind} ranges found for ${kind === 'subuid' ? 'user' : 'group'} "${name}" in ${file}`);
  return found;
}

/** dockerd makes a user for it; the ranges are all that is needed. */
function rangesOrNew(file: string): readonly IdRange[] {
  const found = rangesOf(file, [defaultOwner]);
  if (found.length > 0) return found;
  const taken = rowsOf(file).map(([, start, size]) => Number(start) + Number(size));
  const outside = Math.max(rangeFirst, ...taken.filter(Number.isInteger));
  fs.appendFileSync(file, `${defaultOwner}:${outside}:${rangeSize}\n`);
  return [{ inside: 0, outside, size: rangeSize }];
}

function rowsOf(file: string): readonly (readonly string[])[] {
  if (!fs.existsSync(file)) return [];
  return fs
    .readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.trim().split(':'));
}
