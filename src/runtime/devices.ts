/** Device nodes of a container and the rules of its device cgroup. */
import fs from 'node:fs';
import path from 'node:path';
import type { DeviceMapping, HostConfig } from '../container/types.ts';
import { internal, invalid } from '../lib/errors.ts';
import { splitDevice } from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';
import type { DeviceRule } from './resources.ts';

export interface Device {
  readonly path: string;
  readonly type: 'c' | 'b';
  readonly major: number;
  readonly minor: number;
  readonly fileMode: number;
  readonly uid: number;
  readonly gid: number;
}

const allow = (type: string, major: number | undefined, minor: number | undefined, access = 'rwm'): DeviceRule => ({
  allow: true,
  type,
  ...(major !== undefined && { major }),
  ...(minor !== undefined && { minor }),
  access,
});

/**
 * What every container may do with devices. crun and runc each add a list of their own that differ in the details;
 * written out here, both end with the same: make any node, use null, zero, full, random, urandom, the terminals.
 */
const rulesOfEveryContainer: readonly DeviceRule[] = [
  { allow: false, access: 'rwm' },
  allow('c', undefined, undefined, 'm'),
  allow('b', undefined, undefined, 'm'),
  allow('c', 1, 3),
  allow('c', 1, 5),
  allow('c', 1, 7),
  allow('c', 1, 8),
  allow('c', 1, 9),
  allow('c', 5, 0),
  allow('c', 5, 1),
  allow('c', 5, 2),
  allow('c', 136, undefined),
];

export interface ContainerDevices {
  readonly devices: readonly Device[];
  readonly rules: readonly DeviceRule[];
}

/** Nodes to make in `/dev` and rules, from Privileged, Devices and DeviceCgroupRules. Throws dockerd's words. */
export function devicesOf(config: Pick<HostConfig, 'Privileged' | 'Devices' | 'DeviceCgroupRules'>): ContainerDevices {
  const budget = { entries: entriesMax };
  if (config.Privileged) {
    const mapped = (config.Devices ?? []).filter(({ PathOnHost, PathInContainer }) => PathOnHost !== PathInContainer);
    const own = mapped.flatMap((mapping) => mappedDevices(mapping, budget).devices);
    const paths = new Set(own.map((device) => device.path));
    return {
      devices: [...devicesBelow('/dev', budget).filter((device) => !paths.has(device.path)), ...own],
      rules: [{ allow: true, access: 'rwm' }],
    };
  }
  const mapped = (config.Devices ?? []).map((mapping) => mappedDevices(mapping, budget));
  return {
    devices: mapped.flatMap(({ devices }) => devices),
    rules: [
      ...rulesOfEveryContainer,
      ...mapped.flatMap(({ rules }) => rules),
      ...(config.DeviceCgroupRules ?? []).map(parseRule),
    ],
  };
}

/** A rule as the kernel's device cgroup writes them: `c 7:* rwm`. Throws dockerd's words. */
export function parseRule(text: string): DeviceRule {
  const match = /^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$/.exec(text);
  if (!match) throw invalid(`invalid device cgroup rule format: '${text}'`);
  const [, type = 'a', major, minor, access] = match;
  const number = (part: string | undefined): number | undefined => (part === '*' ? undefined : Number(part));
  return allow(type, number(major), number(minor), access);
}

/** The kernel's. */
const pathLengthMax = 4095;
const nameLengthMax = 255;

/** One `--device`: a node, or all nodes below a directory. */
function mappedDevices(mapping: DeviceMapping, budget: Budget): ContainerDevices {
  const { PathOnHost, PathInContainer, CgroupPermissions } = mapping;
  const fail = (reason: string, cause?: unknown): Error =>
    internal(`error gathering device information while adding custom device "${PathOnHost}": ${reason}`, { cause });
  let source: string;
  let stat: fs.Stats;
  if (PathOnHost === '') throw fail('no such file or directory');
  try {
    source = fs.realpathSync(PathOnHost);
    stat = fs.statSync(source);
  } catch (error) {
    throw fail('no such file or directory', error);
  }
  const inside = path.posix.join('/', PathInContainer || PathOnHost);
  if (inside === '/' || inside.length > pathLengthMax || inside.split('/').some((name) => name.length > nameLengthMax))
    throw invalid(`invalid device path in the container: ${inside.slice(0, nameLengthMax)}`);
  let devices: readonly Device[];
  if (stat.isDirectory()) {
    devices = devicesBelow(source, budget).map((device) => ({
      ...device,
      path: path.posix.join(inside, path.posix.relative(source, device.path)),
    }));
    if (devices.length === 0) throw fail('no such device');
  } else {
    const device = deviceAt(source);
    if (!device) throw fail('not a device node');
    devices = [{ ...device, path: inside }];
  }
  const access = CgroupPermissions || 'rwm';
  return { devices, rules: devices.map((device) => allow(device.type, device.major, device.minor, access)) };
}

function deviceAt(file: string): Device | null {
  let stat: fs.Stats;
  try {
    stat = fs.lstatSync(file);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES')) return null;
    throw error;
  }
  if (!stat.isCharacterDevice() && !stat.isBlockDevice()) return null;
  const type = stat.isBlockDevice() ? 'b' : 'c';
  return {
    path: file,
    type,
    ...splitDevice(BigInt(stat.rdev)),
    fileMode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
  };
}

/** These hold no devices of the machine, or are mounted by the runtime itself. */
const skippedDirectories = new Set(['pts', 'shm', 'fd', 'mqueue', '.lxc', '.lxd-mounts', '.udev']);

/** Entries of directories looked at for one container: `/dev` has hundreds, a whole disk would hold up the engine. */
const entriesMax = 20_000;

interface Budget {
  entries: number;
}

/** Throws when there is more to look at than `budget` has left. */
function devicesBelow(directory: string, budget: Budget): readonly Device[] {
  const devices: Device[] = [];
  const entries = entriesOf(directory);
  budget.entries -= entries.length;
  if (budget.entries < 0) throw invalid(`more than ${entriesMax} files are not looked through for devices`);
  for (const entry of entries) {
    const file = `${directory}/${entry.name}`;
    if (entry.isDirectory()) {
      if (!skippedDirectories.has(entry.name)) devices.push(...devicesBelow(file, budget));
    } else if (entry.name !== 'console') {
      const device = deviceAt(file);
      if (device) devices.push(device);
    }
  }
  return devices;
}

function entriesOf(directory: string): readonly fs.Dirent[] {
  try {
    return fs.readdirSync(directory, { withFileTypes: true });
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES', 'EINVAL', 'ESRCH')) return [];
    throw error;
  }
}
