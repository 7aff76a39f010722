/** Which networks a container is joined to: from a request to endpoints, and changes of them. */
import type { NewEvent } from '../event/types.ts';
import { forbidden, invalid, notFound } from '../lib/errors.ts';
import type { NetworkId } from '../lib/ids.ts';
import { parseMac } from '../network/mac.ts';
import { portsToJoin } from '../network/ports.ts';
import type { Endpoint, Endpoints, LiveSandbox, NetworkRecord, Place } from '../network/types.ts';
import type { EndpointSettings } from './api.ts';
import { namesOf, portOptions, updateNetworkFiles } from './networking.ts';
import { isRunning, type RunningRecord } from './running.ts';
import type { ContainerSet } from './set.ts';
import type { ContainerRecord } from './types.ts';

/** The network a mode names; `default` is the bridge. Throws for networks that are not there. */
export function networkOf(set: ContainerSet, mode: string): NetworkRecord {
  const network = set.parts.networks.get(mode === 'default' ? 'bridge' : mode);
  if (network === undefined) throw notFound(`network ${mode} not found`);
  return network;
}

/** What `EndpointsConfig` asks for; without it the network of the mode. Throws dockerd's words for what a network cannot give. */
export function endpointsOf(
  set: ContainerSet,
  mode: string,
  asked: Readonly<Record<string, EndpointSettings | null>>,
): Endpoints {
  const names = Object.keys(asked);
  if (names.length > 1)
    throw invalid(`Container cannot be created with multiple network endpoints: ${names.join(', ')}`);
  const endpoints = (names.length > 0 ? names : [mode]).map((name) =>
    endpointOf(networkOf(set, name), asked[name] ?? null),
  );
  for (const endpoint of endpoints) set.parts.networks.check(endpoint);
  return Object.fromEntries(endpoints.map((endpoint) => [endpoint.networkName, endpoint]));
}

function endpointOf(network: NetworkRecord, settings: EndpointSettings | null): Endpoint {
  const ipam = settings?.IPAMConfig;
  return {
    networkName: network.name,
    aliases: settings?.Aliases ?? [],
    links: settings?.Links ?? [],
    ...(settings?.DriverOpts && Object.keys(settings.DriverOpts).length > 0
      ? { driverOptions: settings.DriverOpts }
      : {}),
    requested: {
      ...(ipam?.IPv4Address ? { ipv4: ipam.IPv4Address } : {}),
      ...(ipam?.IPv6Address ? { ipv6: ipam.IPv6Address } : {}),
      ...(ipam?.LinkLocalIPs?.length ? { linkLocal: ipam.LinkLocalIPs } : {}),
      // Settings with an EndpointID copy what inspect showed of another container, whose address this one must not have.
      ...(settings?.MacAddress && !settings.EndpointID ? { mac: parseMac(settings.MacAddress) } : {}),
    },
    joined: null,
  };
}

/** The record as it is when it does not run: asked for, but not joined. */
export function withoutPlace(record: ContainerRecord): Pick<ContainerRecord, 'endpoints' | 'sandbox'> {
  const endpoints = Object.entries(record.endpoints).map(([name, each]) => [name, { ...each, joined: null }] as const);
  return { endpoints: Object.fromEntries(endpoints), sandbox: null };
}

/** Its place on its networks; null when it does not run or has no sandbox of its own. */
export const placeOf = ({ sandbox, endpoints }: ContainerRecord): Place | null => sandbox && { sandbox, endpoints };

/** What the network part knows a running container by. */
export function liveSandboxOf(set: ContainerSet, record: ContainerRecord): LiveSandbox | null {
  const place = placeOf(record);
  return place && { ...place, containerId: record.id, containerName: record.name, ...namesOf(set, record) };
}

/** Joins one more network, at once when the container runs. */
export async function connect(
  set: ContainerSet,
  ref: string,
  networkRef: string,
  settings: EndpointSettings | null,
): Promise<void> {
  const { id } = set.index.resolve(ref);
  await set.inLane(id, async () => {
    const record = set.current(id);
    const network = networkOf(set, networkRef);
    refuseShared(record);
    if (network.driver === 'host') throw invalid(hostNetwork);
    if ('none' in record.endpoints || (network.driver === 'null' && Object.keys(record.endpoints).length > 0))
      throw invalid(
        'container cannot be connected to multiple networks with one of the networks in private (none) mode',
      );
    const endpoint = endpointOf(network, settings);
    set.parts.networks.check(endpoint);
    const live = isRunning(record) ? liveSandboxOf(set, record) : null;
    if (live === null) {
      // As with dockerd, what was asked for first stays.
      if (Object.hasOwn(record.endpoints, network.name)) return;
      await set.commit({ ...record, endpoints: { ...record.endpoints, [network.name]: endpoint } });
      return;
    }
    if (Object.hasOwn(record.endpoints, network.name))
      throw forbidden(`endpoint with name ${record.name} already exists in network ${network.name}`);
    const ports = portsToJoin(portOptions(record.config, record.hostConfig));
    const place = await set.parts.networks.connect(live, endpoint, ports);
    try {
      await settle(set, record as RunningRecord, place, network, 'connect');
    } catch (error) {
      await set.parts.networks.disconnect({ ...live, ...place }, network.name, ports).catch(() => undefined);
      throw error;
    }
  });
}

export async function disconnect(set: ContainerSet, ref: string, networkRef: string): Promise<void> {
  const { id } = set.index.resolve(ref);
  await set.inLane(id, async () => {
    const record = set.current(id);
    const network = set.parts.networks.get(networkRef) ?? goneNetwork(record, networkRef);
    if (network.driver === 'host' && Object.hasOwn(record.endpoints, network.name)) throw invalid(hostNetwork);
    if (!Object.hasOwn(record.endpoints, network.name))
      throw forbidden(`container ${record.id} is not connected to network ${network.name}`);
    const live = isRunning(record) ? liveSandboxOf(set, record) : null;
    if (live === null) {
      const { [network.name]: _, ...endpoints } = record.endpoints;
      await set.commit({ ...record, endpoints });
      return;
    }
    const ports = portsToJoin(portOptions(record.config, record.hostConfig));
    const place = await set.parts.networks.disconnect(live, network.name, ports);
    await settle(set, record as RunningRecord, place, network, 'disconnect');
  });
}

/** A network that was removed while the container rested: what is left of it there can be taken away. */
function goneNetwork(record: ContainerRecord, name: string): Pick<NetworkRecord, 'id' | 'name' | 'driver'> {
  if (isRunning(record) || !Object.hasOwn(record.endpoints, name)) throw notFound(`network ${name} not found`);
  return { id: '' as NetworkId, name, driver: '' };
}

const hostNetwork = 'container cannot be disconnected from host network or connected to host network';

function refuseShared(record: ContainerRecord): void {
  if (record.hostConfig.NetworkMode.startsWith('container:') || 'host' in record.endpoints) {
    throw invalid(
      'container sharing network namespace with another container or host cannot be connected to any other network',
    );
  }
}

async function settle(
  set: ContainerSet,
  record: RunningRecord,
  place: Place,
  network: Pick<NetworkRecord, 'id' | 'name' | 'driver'>,
  action: 'connect' | 'disconnect',
): Promise<void> {
  const after = { ...record, ...place };
  await set.commit(after, [networkEvent(record, network.id, network, action)]);
  await updateNetworkFiles(set, record, after);
}

function networkEvent(
  record: ContainerRecord,
  id: string,
  network: Pick<NetworkRecord, 'name' | 'driver'>,
  action: 'connect' | 'disconnect',
): NewEvent {
  const attributes = { container: record.id, name: network.name, type: network.driver };
  return { type: 'network', action, id, attributes };
}

/** Events of the networks that a run joined or left. */
export function networkEvents(
  set: ContainerSet,
  record: ContainerRecord,
  action: 'connect' | 'disconnect',
): readonly NewEvent[] {
  return Object.values(record.endpoints).flatMap(({ networkName: name, joined }) => {
    if (joined === null) return [];
    const driver = set.parts.networks.get(joined.networkId)?.driver ?? 'bridge';
    return [networkEvent(record, joined.networkId, { name, driver }, action)];
  });
}
