/** What clients ask of networks, checked and completed: a `POST /networks/create`, an endpoint. Pure, but for what is told as taken. */
import { forbidden, invalid, notFound } from '../lib/errors.ts';
import type { NetworkId } from '../lib/ids.ts';
import { contains, formatSubnet, overlap, parseAddress, parseSubnet } from '../lib/ip.ts';
import { bridgeNameOf, checkBridgeOptions } from './bridge.ts';
import { checkMacvlanOptions } from './macvlan.ts';
import {
  chooseSubnet,
  type DefaultPool,
  defaultPools6,
  parsePool,
  poolOf,
  refuseOverlap,
  type TakenSubnet,
} from './pools.ts';
import type { Prepared } from './remote.ts';
import type { Endpoint, IpamConfig, NetworkRecord, NetworkRequest, Pool } from './types.ts';

export const predefined: readonly string[] = ['bridge', 'host', 'none'];

/** A record for what was asked. `taken` has the subnets of all networks and of the host. Throws dockerd's words. */
export function recordOf(
  request: NetworkRequest,
  id: NetworkId,
  created: string,
  pools: readonly DefaultPool[],
  taken: readonly TakenSubnet[],
  prepared: Prepared | null = null,
): NetworkRecord {
  const driver = request.driver || 'bridge';
  if (request.name.trim() === '') throw invalid('invalid name: name is empty');
  if (predefined.includes(request.name) || request.name === 'default')
    throw forbidden(`operation is not permitted on predefined ${request.name} network `);
  if (driver === 'host' || driver === 'null') throw forbidden(`only one instance of "${driver}" network is allowed`);
  const isPlugin = prepared !== null && prepared.scope !== null;
  if (driver !== 'bridge' && driver !== 'macvlan' && !isPlugin) throw notFound(`plugin "${driver}" not found`);
  if (request.ipam.driver === 'null' && !isPlugin) throw invalid('ipv4 pool is empty');
  if (!['', 'default'].includes(request.ipam.driver) && !prepared?.pools)
    throw notFound(`plugin "${request.ipam.driver}" not found`);
  if (driver === 'bridge') checkBridgeOptions(request);
  else if (driver === 'macvlan') checkMacvlanOptions(request);
  // Containers of a macvlan are in the parent's own subnet, which the host of course reaches.
  const inTheWay = driver === 'bridge' ? taken : taken.filter(({ byHost }) => byHost !== true);
  const chosen = prepared?.pools ?? poolsOf({ ...request, driver }, pools, inTheWay, taken);
  return {
    id,
    name: request.name,
    driver,
    created,
    scope: prepared?.scope ?? 'local',
    options: request.options,
    labels: request.labels,
    internal: request.internal,
    attachable: request.attachable,
    enableIPv6: request.enableIPv6,
    ipam: {
      driver: request.ipam.driver || 'default',
      options: request.ipam.options,
      // As dockerd shows a network that gives no addresses.
      config: request.ipam.driver === 'null' ? [{ subnet: '0.0.0.0/0' }] : configOf(request, chosen),
    },
    pools: chosen,
    userSubnets: request.ipam.config.some(({ subnet }) => (subnet ?? '') !== ''),
    bridgeName: driver === 'bridge' ? bridgeNameOf(request, id) : '',
  };
}

/** What the user gave as it was given, and what was chosen where nothing was: IPv4 first. */
function configOf(request: NetworkRequest, chosen: readonly Pool[]): readonly IpamConfig[] {
  const given = request.ipam.config.filter(({ subnet }) => subnet);
  const isV6 = (text = '') => text.includes(':');
  return [false, true].flatMap((v6) => {
    const own = given.filter(({ subnet }) => isV6(subnet) === v6);
    if (own.length > 0) return own;
    return chosen.filter(({ subnet }) => isV6(subnet) === v6).map(({ subnet, gateway }) => ({ subnet, gateway }));
  });
}

/** `taken` stands in the way of subnets asked for, `avoided` of those that are chosen. IPv4 first. */
function poolsOf(
  request: NetworkRequest,
  pools: readonly DefaultPool[],
  taken: readonly TakenSubnet[],
  avoided: readonly TakenSubnet[],
): readonly Pool[] {
  const chosen: Pool[] = [];
  for (const config of request.ipam.config) {
    if (!config.subnet) {
      if (config.gateway || config.ipRange || Object.keys(config.auxiliaryAddresses ?? {}).length > 0)
        throw invalid('Invalid subnet  : a subnet must be given with a gateway, range or auxiliary address');
      continue;
    }
    const subnet = parsePool(config.subnet);
    refuseOverlap(subnet, taken);
    const own = chosen.find((other) => overlap(parsePool(other.subnet), subnet));
    if (own) throw forbidden(`Pool overlaps with other one on this address space: ${own.subnet}`);
    if (subnet.family === 6 && !request.enableIPv6) continue;
    if (chosen.some((other) => parsePool(other.subnet).family === subnet.family))
      throw forbidden(`${request.driver} driver doesn't support multiple subnets: ${formatSubnet(subnet)}`);
    chosen.push(poolOf(config, subnet, true));
  }
  if (!chosen.some(({ subnet }) => !subnet.includes(':')))
    chosen.push(poolOf({}, chooseSubnet(pools, 4, avoided), true));
  if (request.enableIPv6 && !chosen.some(({ subnet }) => subnet.includes(':')))
    chosen.push(poolOf({}, chooseSubnet([...pools, ...defaultPools6], 6, avoided), true));
  return chosen.sort((a, b) => Number(a.subnet.includes(':')) - Number(b.subnet.includes(':')));
}

const linkLocals = ['169.254.0.0/16', 'fe80::/10'].map(parsePool);

/** Throws dockerd's words for what a network cannot give. */
export function checkEndpoint(endpoint: Endpoint, network: NetworkRecord): void {
  const { requested, aliases } = endpoint;
  const wished = [requested.ipv4, requested.ipv6].filter((text) => text !== undefined && text !== '') as string[];
  if (predefined.includes(network.name)) {
    if (wished.length > 0) throw invalid('user specified IP address is supported on user defined networks only');
    if (aliases.length > 0)
      throw invalid('network-scoped alias is supported only for containers in user defined networks');
    return;
  }
  for (const [text, family] of [
    [requested.ipv4, 4],
    [requested.ipv6, 6],
  ] as const) {
    if (!text) continue;
    const address = parseAddress(text);
    if (address?.family !== family) throw invalid(`invalid IPv${family} address: ${text}`);
    const subnets = network.pools
      .map(({ subnet }) => parseSubnet(subnet))
      .filter((each) => each?.family === family)
      .filter((each) => each !== undefined);
    if (!network.userSubnets || subnets.length === 0) {
      throw invalid(
        'user specified IP address is supported only when connecting to networks with user configured subnets',
      );
    }
    if (!subnets.some((subnet) => contains(subnet, address)))
      throw invalid(`no configured subnet or ip-range contain the IP address ${text}`);
  }
  for (const text of requested.linkLocal ?? []) {
    const address = parseAddress(text);
    if (address === undefined || !linkLocals.some((subnet) => contains(subnet, address)))
      throw invalid(`invalid link local IP address: ${text}`);
  }
}
