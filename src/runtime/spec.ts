/** The OCI runtime spec (`config.json`) of a container, the way dockerd 20.10 makes it on Linux. */
import fs from 'node:fs';
import type { MountPoint } from '../container/types.ts';
import type { IdRange } from '../lib/idmap.ts';
import { capabilitiesOf } from './capabilities.ts';
import type { KernelLimits } from './cgroup.ts';
import { type Device, devicesOf } from './devices.ts';
import { initPathInside } from './init.ts';
import { type ResourceLimit, type Resources, resourceLimits, resourcesOf } from './resources.ts';
import { defaultSeccomp, type SeccompSection } from './seccomp.ts';
import type { SeccompProfile } from './seccomp-profile.ts';
import { parseSecurityOptions, type SecurityOptions } from './security.ts';
import type { Shared } from './sharing.ts';
import { dotted } from './sysctls.ts';
import type { LaunchSpec } from './types.ts';
import type { ResolvedUser } from './user.ts';

/** What the spec depends on besides the container: read once at start. */
export interface Host {
  readonly limits: KernelLimits;
  readonly cgroupVersion: 1 | 2;
  /** Capabilities that can be given to containers. */
  readonly held: ReadonlySet<string>;
  /** Our own hard limits when we may not raise them; null with CAP_SYS_RESOURCE. */
  readonly hardLimits: ReadonlyMap<string, number> | null;
  /** Lowest OOM score adjustment that can be given to a container. */
  readonly oomScoreAdjMin: number;
  readonly apparmor: boolean;
  /** What the daemon is configured to do with containers that say nothing of their own. */
  readonly noNewPrivileges: boolean;
  readonly seccomp: 'builtin' | 'unconfined' | SeccompProfile;
}

export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

export interface OciProcess {
  readonly terminal: boolean;
  readonly consoleSize?: { readonly height: number; readonly width: number };
  readonly user: { readonly uid: number; readonly gid: number; readonly additionalGids: readonly number[] };
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly capabilities: Readonly<Record<'bounding' | 'effective' | 'inheritable' | 'permitted', readonly string[]>>;
  readonly rlimits: readonly ResourceLimit[];
  readonly noNewPrivileges: boolean;
  readonly oomScoreAdj?: number;
  readonly apparmorProfile?: string;
}

export interface OciIdMapping {
  readonly containerID: number;
  readonly hostID: number;
  readonly size: number;
}

export interface OciSpec {
  readonly ociVersion: string;
  readonly process: OciProcess;
  readonly root: { readonly path: string; readonly readonly: boolean };
  readonly hostname?: string;
  readonly mounts: readonly OciMount[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly linux: {
    readonly uidMappings?: readonly OciIdMapping[];
    readonly gidMappings?: readonly OciIdMapping[];
    readonly namespaces: readonly { readonly type: string; readonly path?: string }[];
    readonly cgroupsPath: string;
    readonly resources: Resources;
    readonly devices: readonly Device[];
    readonly sysctl: Readonly<Record<string, string>>;
    readonly rootfsPropagation: string;
    readonly seccomp?: SeccompSection;
    readonly maskedPaths: readonly string[];
    readonly readonlyPaths: readonly string[];
  };
}

export const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const maskedPaths: readonly string[] = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];
const readonlyPaths: readonly string[] = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

export function buildSpec(
  launch: LaunchSpec,
  user: ResolvedUser,
  host: Host,
  shared: Omit<Shared, typeof Symbol.dispose>,
  /** Program bound over `/sbin/docker-init`, under which the command runs; null: it is process 1 itself. */
  init: string | null = null,
): { readonly spec: OciSpec; readonly warnings: readonly string[] } {
  const { config, hostConfig } = launch;
  const security = parseSecurityOptions(hostConfig.SecurityOpt);
  const capabilities = capabilitiesOf(hostConfig, host.held);
  const { resources, warnings: limitWarnings } = resourcesOf(hostConfig, host.limits);
  const { limits, warnings: ulimitWarnings } = resourceLimits(hostConfig.Ulimits, host.hardLimits);
  const { devices, rules } = devicesOf(hostConfig);
  const warnings = [...limitWarnings, ...ulimitWarnings];
  const seccomp = hostConfig.Privileged ? null : seccompOf(security, host, capabilities);
  const openPaths = hostConfig.Privileged || security.systemPathsUnconfined;
  const oomScoreAdj = Math.max(hostConfig.OomScoreAdj, host.oomScoreAdjMin);
  if (oomScoreAdj > hostConfig.OomScoreAdj) {
    warnings.push(`OomScoreAdj was raised to ${oomScoreAdj}: the engine may not go below its own score.`);
  }
  const [height, width] = hostConfig.ConsoleSize;
  const ownUts = hostConfig.UTSMode !== 'host';

  return {
    warnings,
    spec: {
      ociVersion: '1.0.2',
      process: {
        terminal: config.Tty,
        ...(config.Tty && height > 0 && width > 0 && { consoleSize: { height, width } }),
        user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
        args: [...(init === null ? [] : [initPathInside, '--']), ...(config.Entrypoint ?? []), ...(config.Cmd ?? [])],
        env: environment(launch.env, { hostname: launch.hostname, tty: config.Tty, home: user.home }),
        cwd: config.WorkingDir || '/',
        capabilities: capabilitySets(capabilities, user.uid),
        rlimits: limits,
        noNewPrivileges: security.noNewPrivileges ?? host.noNewPrivileges,
        oomScoreAdj,
        ...(host.apparmor && security.apparmor && { apparmorProfile: security.apparmor }),
      },
      root: { path: launch.rootfs, readonly: hostConfig.ReadonlyRootfs },
      ...(ownUts && { hostname: launch.hostname }),
      mounts: mountsOf(launch, shared.sharedMemory, init),
      linux: {
        ...(launch.userNamespace && {
          uidMappings: mappings(launch.userNamespace.ids.users),
          gidMappings: mappings(launch.userNamespace.ids.groups),
        }),
        namespaces: namespacesOf(launch, host, shared),
        cgroupsPath: launch.cgroupPath,
        resources: { ...resources, devices: rules },
        devices,
        sysctl: sysctlsOf(launch, ownUts),
        rootfsPropagation: rootPropagation(launch.mounts),
        ...(seccomp && { seccomp }),
        maskedPaths: openPaths ? [] : maskedPaths,
        readonlyPaths: openPaths ? [] : readonlyPaths,
      },
    },
  };
}

/** The container's own profile, else the daemon's, else the built-in one; null: none. */
function seccompOf(security: SecurityOptions, host: Host, capabilities: readonly string[]): SeccompSection | null {
  const profile = security.seccomp === 'default' ? host.seccomp : security.seccomp;
  if (profile === 'unconfined') return null;
  return profile === 'builtin' ? defaultSeccomp(capabilities) : profile({ capabilities });
}

const mappings = (ranges: readonly IdRange[]): readonly OciIdMapping[] =>
  ranges.map(({ inside, outside, size }) => ({ containerID: inside, hostID: outside, size }));

/** JSON of a spec. An unlimited rlimit is 2^64-1, which no JavaScript number holds. */
export function encodeSpec(spec: OciSpec | OciProcess): string {
  const marker = '\u0000unlimited';
  const text = JSON.stringify(spec, (key, value: unknown) =>
    (key === 'soft' || key === 'hard') && value === -1 ? marker : value,
  );
  return text.replaceAll(JSON.stringify(marker), '18446744073709551615');
}

/**
 * A process that is not root starts with nothing effective or permitted and can only get what its bounding set leaves
 * a set-uid program.
 */
export function capabilitySets(capabilities: readonly string[], uid: number): OciProcess['capabilities'] {
  const own = uid === 0 ? capabilities : [];
  return { bounding: capabilities, effective: own, permitted: own, inheritable: [] };
}

/**
 * PATH, HOSTNAME, TERM with a terminal; then the container's own, replacing in place what it names again (a name
 * without `=` removes it); HOME when it is still missing.
 */
export function environment(
  own: readonly string[],
  facts: { readonly hostname: string; readonly tty: boolean; readonly home: string },
): readonly string[] {
  const env = new Map<string, string>([
    ['PATH', `PATH=${defaultPath}`],
    ['HOSTNAME', `HOSTNAME=${facts.hostname}`],
  ]);
  if (facts.tty) env.set('TERM', 'TERM=xterm');
  for (const entry of own) {
    const equals = entry.indexOf('=');
    if (equals < 0) env.delete(entry);
    else env.set(entry.slice(0, equals), entry);
  }
  if (!env.has('HOME')) env.set('HOME', `HOME=${facts.home}`);
  return [...env.values()];
}

function namespacesOf(
  { hostConfig, networkNamespace, userNamespace }: LaunchSpec,
  host: Host,
  shared: Pick<Shared, 'pidNamespace' | 'ipcNamespace'>,
): OciSpec['linux']['namespaces'] {
  const namespaces: { type: string; path?: string }[] = [{ type: 'mount' }];
  const add = (type: string, mode: string, path: string | null): void => {
    if (path !== null) namespaces.push({ type, path });
    else if (mode !== 'host') namespaces.push({ type });
  };
  add('pid', hostConfig.PidMode, shared.pidNamespace);
  add('ipc', hostConfig.IpcMode, shared.ipcNamespace);
  add('uts', hostConfig.UTSMode, null);
  if (userNamespace) namespaces.push({ type: 'user', path: userNamespace.path });
  if (networkNamespace !== null) namespaces.push({ type: 'network', path: networkNamespace });
  if (host.cgroupVersion === 2 && !hostConfig.Privileged) namespaces.push({ type: 'cgroup' });
  return namespaces;
}

const hasPing = fs.existsSync('/proc/sys/net/ipv4/ping_group_range');
const hasPortStart = fs.existsSync('/proc/sys/net/ipv4/ip_unprivileged_port_start');

/** Of a user namespace, the kernel takes groups alone that are there. */
function lastGroup({ userNamespace }: LaunchSpec): number {
  const first = userNamespace?.ids.groups.find(({ inside }) => inside === 0);
  return first ? first.inside + first.size - 1 : 2 ** 31 - 1;
}

function sysctlsOf(launch: LaunchSpec, ownUts: boolean): Readonly<Record<string, string>> {
  const ownNetwork = launch.networkNamespace !== null && !launch.hostConfig.NetworkMode.startsWith('container:');
  return {
    ...(ownNetwork && hasPing && { 'net.ipv4.ping_group_range': `0 ${lastGroup(launch)}` }),
    ...(ownNetwork && hasPortStart && { 'net.ipv4.ip_unprivileged_port_start': '0' }),
    ...(ownUts && launch.config.Domainname !== '' && { 'kernel.domainname': launch.config.Domainname }),
    ...Object.fromEntries(
      Object.entries(launch.hostConfig.Sysctls ?? {}).map(([name, value]) => [dotted(name), value]),
    ),
  };
}

const shmOptions = ['nosuid', 'noexec', 'nodev'] as const;

const depth = (mount: OciMount): number => mount.destination.split('/').filter(Boolean).length;

function mountsOf(launch: LaunchSpec, sharedMemory: string | null, init: string | null): readonly OciMount[] {
  const { hostConfig } = launch;
  const { Privileged: privileged, ReadonlyRootfs: readonlyRoot } = hostConfig;
  const bind = (
    source: string,
    destination: string,
    writable: boolean,
    propagation: string,
    flags: readonly string[] = [],
  ): OciMount => ({
    destination,
    type: 'bind',
    source,
    options: ['rbind', ...flags, ...(writable || flags.includes('ro') ? [] : ['ro']), propagation || 'rprivate'],
  });

  const added: OciMount[] = launch.mounts.map((mount) =>
    mount.type === 'tmpfs'
      ? {
          destination: mount.destination,
          type: 'tmpfs',
          source: 'tmpfs',
          options: (mount.tmpfsOptions ?? '').split(',').filter(Boolean),
        }
      : bind(mount.source, mount.destination, mount.writable, mount.propagation, mount.flags),
  );
  const taken = new Set(added.map((mount) => mount.destination));
  const files: readonly (readonly [string | null, string])[] = [
    [launch.resolvConf, '/etc/resolv.conf'],
    [launch.hostnameFile, '/etc/hostname'],
    [launch.hosts, '/etc/hosts'],
  ];
  for (const [source, destination] of files) {
    if (source !== null && !taken.has(destination)) added.push(bind(source, destination, !readonlyRoot, 'rprivate'));
  }
  if (sharedMemory !== null && !taken.has('/dev/shm')) {
    const { options, ...shm } = bind(sharedMemory, '/dev/shm', true, 'rprivate');
    added.push({ ...shm, options: hostConfig.IpcMode === 'host' ? options : [...options, ...shmOptions] });
  }
  if (init !== null) added.push(bind(init, initPathInside, false, 'rprivate'));
  for (const mount of added) taken.add(mount.destination);

  const readWrite = privileged ? [] : ['ro'];
  const standard: readonly OciMount[] = [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
    },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', ...readWrite] },
    {
      destination: '/sys/fs/cgroup',
      type: 'cgroup',
      source: 'cgroup',
      options: [...readWrite, 'nosuid', 'noexec', 'nodev'],
    },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev/shm',
      type: 'tmpfs',
      source: 'shm',
      options: [...shmOptions, 'mode=1777', `size=${hostConfig.ShmSize}`],
    },
  ];
  const neverReadonly = new Set(['/proc', '/dev', '/dev/pts', '/dev/shm', '/dev/mqueue']);
  const kept = standard
    .filter(({ destination }) => !taken.has(destination) && !(taken.has('/dev') && destination.startsWith('/dev/')))
    .filter(({ destination }) => destination !== '/dev/shm' || hostConfig.IpcMode !== 'none')
    .map((mount) =>
      readonlyRoot && !neverReadonly.has(mount.destination) && !mount.options.includes('ro')
        ? { ...mount, options: [...mount.options, 'ro'] }
        : mount,
    );
  // A mount below another must come after it; equal depths keep their order.
  return [...kept, ...added.sort((a, b) => depth(a) - depth(b))];
}

/** The container's root must let through what the most open of its volumes asks for. */
function rootPropagation(mounts: readonly MountPoint[]): string {
  const asked = (kind: string): boolean => mounts.some((mount) => mount.propagation.endsWith(kind));
  if (asked('shared')) return 'rshared';
  return asked('slave') ? 'rslave' : 'rprivate';
}
