/** Records as clients see them: rows of the list and the inspect document, in the newest API's terms. */
import { configJson } from '../image/config.ts';
import { shortId } from '../lib/ids.ts';
import { predefined } from '../network/requests.ts';
import type { Endpoint, PublishedPort } from '../network/types.ts';
import { apparmorProfileOf } from '../runtime/security.ts';
import type { Json } from './api.ts';
import { humanDuration } from './duration.ts';
import type { Health } from './health.ts';
import { joinedOf } from './networking.ts';
import type { ContainerRecord, MountPoint, State } from './types.ts';

export const never = '0001-01-01T00:00:00Z';

export type StatusWord = 'created' | 'running' | 'paused' | 'restarting' | 'exited';

export function statusWord(state: State): StatusWord {
  return state.is === 'running' && state.paused ? 'paused' : state.is;
}

/** `Up 5 seconds`, `Exited (0) 3 minutes ago`, as `docker ps` prints it. */
export function statusText(state: State, now: number, health?: Health): string {
  const since = (time: string) => humanDuration(Math.max(0, now - Date.parse(time)));
  switch (state.is) {
    case 'created':
      return 'Created';
    case 'running':
      return `Up ${since(state.startedAt)}${state.paused ? ' (Paused)' : healthText(health)}`;
    case 'restarting':
      return `Restarting (${state.exitCode}) ${since(state.finishedAt)} ago`;
    case 'exited':
      return `Exited (${state.exitCode}) ${since(state.finishedAt)} ago`;
  }
}

const healthText = (health: Health | undefined) =>
  health === undefined ? '' : ` (${health.status === 'starting' ? 'health: starting' : health.status})`;

/** The program and its arguments: Entrypoint and Cmd as one list. */
export function commandOf(record: ContainerRecord): { readonly path: string; readonly args: readonly string[] } {
  const [path = '', ...args] = [...(record.config.Entrypoint ?? []), ...(record.config.Cmd ?? [])];
  return { path, args };
}

const portOrder = (a: PublishedPort, b: PublishedPort) =>
  a.containerPort - b.containerPort ||
  a.protocol.localeCompare(b.protocol) ||
  // IPv4 before IPv6, as clients that look at the first row only expect.
  Number(a.hostIp.includes(':')) - Number(b.hostIp.includes(':')) ||
  a.hostIp.localeCompare(b.hostIp) ||
  a.hostPort - b.hostPort;

function listPorts(record: ContainerRecord): readonly Json[] {
  if (record.sandbox === null) return [];
  const published = [...record.sandbox.published].sort(portOrder);
  const rows: Json[] = published.map((port) => ({
    IP: port.hostIp,
    PrivatePort: port.containerPort,
    PublicPort: port.hostPort,
    Type: port.protocol,
  }));
  const shown = new Set(published.map(({ containerPort, protocol }) => `${containerPort}/${protocol}`));
  for (const spec of Object.keys(record.config.ExposedPorts ?? {})) {
    const [port, protocol = 'tcp'] = spec.split('/');
    if (!shown.has(`${port}/${protocol}`)) {
      rows.push({ PrivatePort: Number(port), Type: protocol });
    }
  }
  return rows;
}

/** `NetworkSettings.Ports`: every exposed port, with its bindings or null. Empty while the container does not run. */
function portMap(record: ContainerRecord): Json {
  if (record.sandbox === null) return {};
  const map: Record<string, { HostIp: string; HostPort: string }[] | null> = {};
  for (const spec of Object.keys(record.config.ExposedPorts ?? {}))
    map[spec.includes('/') ? spec : `${spec}/tcp`] = null;
  for (const port of [...record.sandbox.published].sort(portOrder)) {
    const key = `${port.containerPort}/${port.protocol}`;
    map[key] = [...(map[key] ?? []), { HostIp: port.hostIp, HostPort: String(port.hostPort) }];
  }
  return map;
}

function mountJson(mount: MountPoint): Json {
  return {
    Type: mount.type,
    ...(mount.name === undefined ? {} : { Name: mount.name }),
    Source: mount.source,
    Destination: mount.destination,
    ...(mount.driver === undefined ? {} : { Driver: mount.driver }),
    Mode: mount.mode,
    RW: mount.writable,
    Propagation: mount.propagation,
  };
}

/** Mounts as clients see them. */
const mountsJson = (record: ContainerRecord) => record.mounts.map(mountJson);

function networksJson(record: ContainerRecord): Json {
  if (record.config.NetworkDisabled) return {};
  return Object.fromEntries(
    Object.values(record.endpoints).map((endpoint) => [endpoint.networkName, endpointJson(record, endpoint)]),
  );
}

function endpointJson(
  record: ContainerRecord,
  { networkName, aliases, links, driverOptions, requested, joined }: Endpoint,
): Json {
  const { ipv4, ipv6, linkLocal } = requested;
  const ipam = {
    ...(ipv4 ? { IPv4Address: ipv4 } : {}),
    ...(ipv6 ? { IPv6Address: ipv6 } : {}),
    ...(linkLocal?.length ? { LinkLocalIPs: linkLocal } : {}),
  };
  // In networks of the user's own a container answers to the beginning of its id, too.
  const names = predefined.includes(networkName) ? aliases : [...new Set([...aliases, shortId(record.id)])];
  return {
    IPAMConfig: Object.keys(ipam).length > 0 ? ipam : null,
    Links: links.length > 0 ? links : null,
    Aliases: names.length > 0 ? names : null,
    NetworkID: joined?.networkId ?? '',
    EndpointID: joined?.endpointId ?? '',
    Gateway: joined?.gateway ?? '',
    IPAddress: joined?.ipv4 ?? '',
    IPPrefixLen: joined?.ipv4PrefixLength ?? 0,
    IPv6Gateway: joined?.ipv6Gateway ?? '',
    GlobalIPv6Address: joined?.ipv6 ?? '',
    GlobalIPv6PrefixLen: joined?.ipv6PrefixLength ?? 0,
    MacAddress: joined?.mac ?? '',
    ...(driverOptions === undefined ? {} : { DriverOpts: driverOptions }),
  };
}

/** A row of `GET /containers/json`. `names`: the name the image has now, and others' links to it. */
export function summary(
  record: ContainerRecord,
  names: { readonly image: string; readonly links: readonly string[] },
  now: number,
  sizes: Sizes | null,
): Json {
  const { path, args } = commandOf(record);
  return {
    Id: record.id,
    Names: [`/${record.name}`, ...names.links],
    Image: names.image,
    ImageID: record.imageId,
    Command: [path, ...args.map((word) => (word.includes(' ') ? `'${word}'` : word))].join(' '),
    Created: Math.trunc(Date.parse(record.created) / 1000),
    Ports: listPorts(record),
    ...(sizes === null ? {} : { ...(sizes.rw > 0 ? { SizeRw: sizes.rw } : {}), SizeRootFs: sizes.root }),
    Labels: record.config.Labels ?? {},
    State: statusWord(record.state),
    Status: statusText(record.state, now, record.health),
    HostConfig: { NetworkMode: record.hostConfig.NetworkMode },
    NetworkSettings: { Networks: networksJson(record) },
    Mounts: mountsJson(record),
  };
}

export interface Sizes {
  /** Bytes written by the container. */
  readonly rw: number;
  /** Bytes of the image and `rw` together. */
  readonly root: number;
}

function stateJson(state: State, health: Health | undefined): Json {
  const running = state.is === 'running';
  const ended = state.is === 'exited' || state.is === 'restarting';
  return {
    Status: statusWord(state),
    Running: running || state.is === 'restarting',
    Paused: running && state.paused,
    Restarting: state.is === 'restarting',
    OOMKilled: running ? (state.oomKills ?? 0) > 0 : ended && state.oomKilled,
    Dead: false,
    Pid: running ? state.pid : 0,
    ExitCode: running ? 0 : state.exitCode,
    Error: running ? '' : state.error,
    StartedAt: running || ended ? state.startedAt : never,
    FinishedAt: ended ? state.finishedAt : never,
    ...(health ? { Health: { Status: health.status, FailingStreak: health.failingStreak, Log: health.log } } : {}),
  };
}

/** What inspect tells beyond the record. */
export interface InspectExtras {
  readonly links: readonly string[] | null;
  readonly resolvConfPath: string;
  readonly hostnamePath: string;
  readonly hostsPath: string;
  readonly logPath: string;
  /** The newest; the record's may be older. */
  readonly health: Health | undefined;
  readonly execIds: readonly string[];
  readonly graphDriverData: Readonly<Record<string, string>>;
  readonly sizes: Sizes | null;
}

/** `GET /containers/{id}/json`. */
export function inspection(record: ContainerRecord, extras: InspectExtras): Json {
  const { path, args } = commandOf(record);
  // Of the default network alone, as clients from before there were others read them.
  const joined = record.endpoints.bridge?.joined ?? null;
  return {
    Id: record.id,
    Created: record.created,
    Path: path,
    Args: args,
    State: stateJson(record.state, extras.health),
    Image: record.imageId,
    ResolvConfPath: extras.resolvConfPath,
    HostnamePath: extras.hostnamePath,
    HostsPath: extras.hostsPath,
    LogPath: extras.logPath,
    Name: `/${record.name}`,
    RestartCount: record.restartCount,
    Driver: 'overlay2',
    Platform: 'linux',
    MountLabel: '',
    ProcessLabel: '',
    AppArmorProfile: apparmorProfileOf(record.hostConfig.SecurityOpt),
    ExecIDs: extras.execIds.length > 0 ? extras.execIds : null,
    HostConfig: { ...record.hostConfig, Links: extras.links },
    GraphDriver: { Data: extras.graphDriverData, Name: 'overlay2' },
    ...(extras.sizes === null ? {} : { SizeRw: extras.sizes.rw, SizeRootFs: extras.sizes.root }),
    Mounts: mountsJson(record),
    Config: configJson(record.config),
    NetworkSettings: {
      Bridge: '',
      SandboxID: joinedOf(record.endpoints)[0]?.endpointId ?? '',
      HairpinMode: false,
      LinkLocalIPv6Address: '',
      LinkLocalIPv6PrefixLen: 0,
      Ports: portMap(record),
      SandboxKey: record.sandbox?.namespacePath ?? '',
      SecondaryIPAddresses: null,
      SecondaryIPv6Addresses: null,
      EndpointID: joined?.endpointId ?? '',
      Gateway: joined?.gateway ?? '',
      GlobalIPv6Address: joined?.ipv6 ?? '',
      GlobalIPv6PrefixLen: joined?.ipv6PrefixLength ?? 0,
      IPAddress: joined?.ipv4 ?? '',
      IPPrefixLen: joined?.ipv4PrefixLength ?? 0,
      IPv6Gateway: joined?.ipv6Gateway ?? '',
      MacAddress: joined?.mac ?? '',
      Networks: networksJson(record),
    },
  };
}
