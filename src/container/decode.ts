/** From the body of `POST /containers/create` and the image's config to the frozen parts of a record. */
import path from 'node:path';
import type { RunConfig } from '../image/types.ts';
import { invalid } from '../lib/errors.ts';
import type { ContainerId } from '../lib/ids.ts';
import { checkLogConfig, mergeLogConfig } from '../log/options.ts';
import type { PortBinding } from '../network/types.ts';
import { defaultCgroupParent } from '../runtime/parents.ts';
import type { CreateBody } from './api.ts';
import { checkHealthcheck, mergeHealthcheck } from './health.ts';
import { normalMount } from './mount-rules.ts';
import { parseSignal } from './signals.ts';
import type { HostConfig } from './types.ts';

/** What the daemon's configuration adds to a container. */
export interface HostDefaults {
  readonly logDriver: string;
  readonly logOpts: Readonly<Record<string, string>>;
  readonly runtime: string;
  readonly runtimes: readonly string[];
}

const hostnameBytesMax = 64;
const shmSizeDefault = 64 * 1024 * 1024;

/** `Config` as given, every key present, not yet merged with the image's. */
export function decodeConfig(body: CreateBody): RunConfig {
  return {
    Hostname: body.Hostname ?? '',
    Domainname: body.Domainname ?? '',
    User: body.User ?? '',
    AttachStdin: body.AttachStdin ?? false,
    AttachStdout: body.AttachStdout ?? false,
    AttachStderr: body.AttachStderr ?? false,
    ExposedPorts: asSet(body.ExposedPorts),
    Tty: body.Tty ?? false,
    OpenStdin: body.OpenStdin ?? false,
    StdinOnce: body.StdinOnce ?? false,
    Env: body.Env ?? null,
    Cmd: body.Cmd ?? null,
    Image: body.Image ?? '',
    Volumes: asSet(body.Volumes),
    WorkingDir: cleaned(body.WorkingDir ?? ''),
    Entrypoint: body.Entrypoint ?? null,
    OnBuild: body.OnBuild ?? null,
    Labels: body.Labels ?? {},
    ...(body.Healthcheck ? { Healthcheck: body.Healthcheck } : {}),
    ...(body.ArgsEscaped ? { ArgsEscaped: true } : {}),
    ...(body.NetworkDisabled ? { NetworkDisabled: true } : {}),
    ...(body.MacAddress ? { MacAddress: body.MacAddress } : {}),
    ...(body.StopSignal ? { StopSignal: body.StopSignal } : {}),
    ...(body.StopTimeout !== undefined && body.StopTimeout !== null ? { StopTimeout: body.StopTimeout } : {}),
    ...(body.Shell ? { Shell: body.Shell } : {}),
  };
}

/** Clients send `{"80/tcp": null}` for `{"80/tcp": {}}`. */
const asSet = (map: Readonly<Record<string, unknown>> | null | undefined) =>
  map ? Object.fromEntries(Object.keys(map).map((key) => [key, {}])) : null;

/** `/a/../b//c/` → `/b/c`; what is not absolute is refused elsewhere, as it was given. */
function cleaned(directory: string): string {
  if (!directory.startsWith('/')) return directory;
  return path.posix.normalize(directory).replace(/(?<=.)\/$/, '');
}

const isFilled = (map: object | null | undefined): boolean => Object.keys(map ?? {}).length > 0;

const nameOfVariable = (variable: string) => variable.split('=', 1)[0] as string;

/** Env of the image below the user's: the user's variables first, then those of the image that the user did not set. */
export function mergeEnv(below: readonly string[] | null, above: readonly string[] | null): readonly string[] | null {
  if (!above?.length) return below;
  if (!below?.length) return above;
  const set = new Set((above ?? []).map(nameOfVariable));
  return [...(above ?? []), ...below.filter((variable) => !set.has(nameOfVariable(variable)))];
}

/** The user's config on top of the image's, as dockerd merges them (`ExposedPorts`, `Volumes`, `Labels`, `Env` by key). */
export function mergeConfig(own: RunConfig, image: RunConfig): RunConfig {
  const healthcheck = mergeHealthcheck(own.Healthcheck, image.Healthcheck);
  const stopSignal = own.StopSignal || image.StopSignal;
  const shell = own.Shell?.length ? own.Shell : image.Shell;
  const bothMaps = <T>(a: Readonly<Record<string, T>> | null, b: Readonly<Record<string, T>> | null) =>
    isFilled(a) && b !== null ? { ...b, ...a } : isFilled(a) ? a : b;
  // An entrypoint of the user's own makes the image's Cmd meaningless.
  const cmd = own.Cmd?.length || own.Entrypoint?.length ? own.Cmd : image.Cmd;
  // A cleared one is empty, not null, where null would mean the image's when a client creates it anew.
  const cleared = image.Entrypoint?.length ? [] : null;
  const entrypoint =
    own.Entrypoint === null ? image.Entrypoint : isEmptyEntrypoint(own.Entrypoint) ? cleared : own.Entrypoint;
  return {
    ...own,
    User: own.User || image.User,
    ExposedPorts: bothMaps(own.ExposedPorts, image.ExposedPorts),
    Env: mergeEnv(image.Env, own.Env),
    Cmd: cmd,
    Entrypoint: entrypoint,
    Volumes: bothMaps(own.Volumes, image.Volumes),
    WorkingDir: own.WorkingDir || image.WorkingDir,
    Labels: { ...image.Labels, ...own.Labels },
    ...(healthcheck ? { Healthcheck: healthcheck } : {}),
    ...(stopSignal ? { StopSignal: stopSignal } : {}),
    ...(shell ? { Shell: shell } : {}),
  };
}

/** `--entrypoint ""` arrives as a list of one empty word: it clears the image's. */
const isEmptyEntrypoint = (entrypoint: readonly string[]) => entrypoint.length === 1 && entrypoint[0] === '';

/** Checks of `Config` that need nothing else. */
export function checkConfig(config: RunConfig): void {
  if ((config.Cmd?.length ?? 0) === 0 && (config.Entrypoint?.length ?? 0) === 0) throw invalid('No command specified');
  if (config.WorkingDir !== '' && !config.WorkingDir.startsWith('/')) {
    throw invalid(`the working directory '${config.WorkingDir}' is invalid, it needs to be an absolute path`);
  }
  checkHealthcheck(config.Healthcheck);
  if (config.StopSignal) parseSignal(config.StopSignal);
  // The kernel has room for no more.
  if (Buffer.byteLength(config.Hostname) > hostnameBytesMax) {
    throw invalid(`invalid hostname format: ${config.Hostname}: longer than ${hostnameBytesMax} bytes`);
  }
  for (const variable of config.Env ?? []) {
    if (variable === '' || variable.startsWith('=')) throw invalid(`invalid environment variable: ${variable}`);
    if (variable.includes('\0'))
      throw invalid(`invalid environment variable: ${nameOfVariable(variable)} holds a null byte`);
  }
  for (const word of [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])]) {
    if (word.includes('\0')) throw invalid('a command word holds a null byte');
  }
}

/** `HostConfig` as given, every key present, defaults filled in. */
export function decodeHostConfig(given: NonNullable<CreateBody['HostConfig']>, defaults: HostDefaults): HostConfig {
  return {
    Binds: given.Binds ?? null,
    ContainerIDFile: given.ContainerIDFile ?? '',
    LogConfig: mergeLogConfig(given.LogConfig, { Type: defaults.logDriver, Config: defaults.logOpts }),
    NetworkMode: given.NetworkMode || 'default',
    PortBindings: given.PortBindings ? withBothKeys(given.PortBindings) : null,
    RestartPolicy: {
      Name: given.RestartPolicy?.Name || 'no',
      MaximumRetryCount: given.RestartPolicy?.MaximumRetryCount ?? 0,
    },
    AutoRemove: given.AutoRemove ?? false,
    VolumeDriver: given.VolumeDriver ?? '',
    VolumesFrom: given.VolumesFrom ?? null,
    CapAdd: given.CapAdd ?? null,
    CapDrop: given.CapDrop ?? null,
    Dns: given.Dns ?? null,
    DnsOptions: given.DnsOptions ?? null,
    DnsSearch: given.DnsSearch ?? null,
    ExtraHosts: given.ExtraHosts ?? null,
    GroupAdd: given.GroupAdd ?? null,
    // As API versions before 1.40 have it; private ones cost nothing less.
    IpcMode: given.IpcMode || 'shareable',
    Cgroup: given.Cgroup ?? '',
    Links: given.Links ?? null,
    OomScoreAdj: given.OomScoreAdj ?? 0,
    PidMode: given.PidMode ?? '',
    Privileged: given.Privileged ?? false,
    PublishAllPorts: given.PublishAllPorts ?? false,
    ReadonlyRootfs: given.ReadonlyRootfs ?? false,
    SecurityOpt: given.SecurityOpt ?? null,
    UTSMode: given.UTSMode ?? '',
    UsernsMode: given.UsernsMode ?? '',
    ShmSize: given.ShmSize || shmSizeDefault,
    Runtime: given.Runtime || defaults.runtime,
    ConsoleSize: given.ConsoleSize ?? [0, 0],
    Isolation: given.Isolation ?? '',
    CpuShares: given.CpuShares ?? 0,
    Memory: given.Memory ?? 0,
    NanoCpus: given.NanoCpus ?? 0,
    CgroupParent: given.CgroupParent ?? '',
    BlkioWeight: given.BlkioWeight ?? 0,
    BlkioWeightDevice: withKeys(given.BlkioWeightDevice, { Path: '', Weight: 0 }),
    BlkioDeviceReadBps: withKeys(given.BlkioDeviceReadBps, { Path: '', Rate: 0 }),
    BlkioDeviceWriteBps: withKeys(given.BlkioDeviceWriteBps, { Path: '', Rate: 0 }),
    BlkioDeviceReadIOps: withKeys(given.BlkioDeviceReadIOps, { Path: '', Rate: 0 }),
    BlkioDeviceWriteIOps: withKeys(given.BlkioDeviceWriteIOps, { Path: '', Rate: 0 }),
    CpuPeriod: given.CpuPeriod ?? 0,
    CpuQuota: given.CpuQuota ?? 0,
    CpuRealtimePeriod: given.CpuRealtimePeriod ?? 0,
    CpuRealtimeRuntime: given.CpuRealtimeRuntime ?? 0,
    CpusetCpus: given.CpusetCpus ?? '',
    CpusetMems: given.CpusetMems ?? '',
    Devices: withKeys(given.Devices, { PathOnHost: '', PathInContainer: '', CgroupPermissions: '' }),
    DeviceCgroupRules: given.DeviceCgroupRules ?? null,
    DiskQuota: given.DiskQuota ?? 0,
    KernelMemory: given.KernelMemory ?? 0,
    MemoryReservation: given.MemoryReservation ?? 0,
    MemorySwap: given.MemorySwap || swapBeside(given.Memory ?? 0),
    MemorySwappiness: given.MemorySwappiness === -1 ? null : (given.MemorySwappiness ?? null),
    OomKillDisable: given.OomKillDisable ?? false,
    PidsLimit: given.PidsLimit ?? 0,
    Ulimits: withKeys(given.Ulimits, { Name: '', Soft: 0, Hard: 0 }),
    CpuCount: given.CpuCount ?? 0,
    CpuPercent: given.CpuPercent ?? 0,
    IOMaximumIOps: given.IOMaximumIOps ?? 0,
    IOMaximumBandwidth: given.IOMaximumBandwidth ?? 0,
    ...(given.StorageOpt && isFilled(given.StorageOpt) ? { StorageOpt: given.StorageOpt } : {}),
    ...(given.Tmpfs && isFilled(given.Tmpfs) ? { Tmpfs: given.Tmpfs } : {}),
    ...(given.Sysctls && isFilled(given.Sysctls) ? { Sysctls: given.Sysctls } : {}),
    ...(given.Mounts?.length ? { Mounts: given.Mounts.map(normalMount) } : {}),
    ...(given.Init !== undefined && given.Init !== null ? { Init: given.Init } : {}),
  };
}

/** As much swap as memory unless said; without end where the sum is no number of the kernel's. */
const swapBeside = (memory: number) => (memory >= 2 ** 62 ? -1 : Math.max(0, 2 * memory));

/** A relative parent counts from the root of each hierarchy, where init is. */
export const cgroupPathOf = (parent: string, id: ContainerId) =>
  path.posix.join('/', parent || defaultCgroupParent, id);

/** Rows with every key, also those that the client left out. */
const withKeys = <T extends object>(rows: readonly Partial<T>[] | null | undefined, keys: T): readonly T[] | null =>
  rows?.map((row) => ({ ...keys, ...row })) ?? null;

/** A binding names both sides, also when the client left one to be chosen. */
function withBothKeys(bindings: NonNullable<HostConfig['PortBindings']>): HostConfig['PortBindings'] {
  const complete = (list: readonly Partial<PortBinding>[] | null) =>
    list?.map(({ HostIp, HostPort }) => ({ HostIp: HostIp ?? '', HostPort: HostPort ?? '' })) ?? null;
  return Object.fromEntries(Object.entries(bindings).map(([port, list]) => [port, complete(list)]));
}

export function checkRestartPolicy(policy: HostConfig['RestartPolicy']): void {
  if (!['no', 'always', 'unless-stopped', 'on-failure'].includes(policy.Name))
    throw invalid(`invalid restart policy '${policy.Name}'`);
  if (policy.Name !== 'on-failure' && policy.MaximumRetryCount !== 0) {
    throw invalid(`maximum retry count cannot be used with restart policy '${policy.Name}'`);
  }
  if (policy.MaximumRetryCount < 0) throw invalid('maximum retry count cannot be negative');
}

/** Checks of `HostConfig` with dockerd's words (20.10 `verifyContainerSettings`, ERRORS.md); those of limits are in `limits.ts`. */
export function checkHostConfig(host: HostConfig, defaults: HostDefaults): void {
  const { RestartPolicy: policy } = host;
  checkRestartPolicy(policy);
  if (host.AutoRemove && policy.Name !== 'no') throw invalid("can't create 'AutoRemove' container with restart policy");

  if (host.OomScoreAdj < -1000 || host.OomScoreAdj > 1000) {
    throw invalid(`Invalid value ${host.OomScoreAdj}, range for oom score adj is [-1000, 1000]`);
  }
  if (!['', 'default'].includes(host.Isolation.toLowerCase())) {
    throw invalid(`Invalid isolation: "${host.Isolation}" - linux only supports 'default'`);
  }
  if (host.ShmSize < 0) throw invalid('SHM size can not be less than 0');
  if (
    host.IpcMode.startsWith('container:') === false &&
    !['', 'private', 'none', 'shareable', 'host'].includes(host.IpcMode)
  ) {
    throw invalid(`Invalid IPC mode: ${host.IpcMode}`);
  }
  if (!defaults.runtimes.includes(host.Runtime)) throw invalid(`Unknown runtime specified ${host.Runtime}`);
  checkLogConfig(host.LogConfig);
}
