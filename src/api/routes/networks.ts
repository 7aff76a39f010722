/** `/networks/…` */
import type { Json } from '../../container/api.ts';
import { EngineError, invalid, notFound } from '../../lib/errors.ts';
import { matchesLabels } from '../../lib/filters.ts';
import { parseTime } from '../../lib/time.ts';
import type { IpamConfig, NetworkRecord } from '../../network/types.ts';
import type { Backend } from '../backend.ts';
import { filterError, filters } from '../server/query.ts';
import { type Context, reply, route } from '../server/route.ts';
import { connectRequest, disconnectRequest, networkRequest } from './schemas.ts';

const list = async ({ query, backend }: Context<undefined>) => {
  const wanted = filters(query);
  const networks = backend.networks.list().filter((network) => matches(network, wanted));
  const members = await membersByNetwork(backend);
  return reply.json(networks.map((network) => view(network, members.get(network.id) ?? {})));
};

export const networkRoutes = [
  route('GET /networks', {}, list),
  route('GET /networks/', {}, list),
  route('GET /networks/{id}', {}, async ({ params, backend }) => {
    const network = backend.networks.get(params.id ?? '');
    if (network === undefined) throw notFound(`network ${params.id} not found`);
    return reply.json(view(network, (await membersByNetwork(backend)).get(network.id) ?? {}));
  }),

  route('POST /networks/create', { body: networkRequest, checkContentType: true }, async ({ body, backend }) => {
    const { id } = await backend.networks.create({
      name: body.Name ?? '',
      driver: body.Driver ?? '',
      internal: body.Internal ?? false,
      attachable: body.Attachable ?? false,
      enableIPv6: body.EnableIPv6 ?? false,
      options: body.Options ?? {},
      labels: body.Labels ?? {},
      ipam: {
        driver: body.IPAM?.Driver ?? '',
        options: body.IPAM?.Options ?? null,
        config: (body.IPAM?.Config ?? []).map(ipamConfig),
      },
    });
    return reply.json({ Id: id, Warning: '' }, 201);
  }),
  route('DELETE /networks/{id}', {}, async ({ params, backend }) => {
    await backend.networks.remove(params.id ?? '');
    return reply.empty(204);
  }),
  route('POST /networks/{id}/connect', { body: connectRequest, checkContentType: true }, async (context) => {
    const { params, body, backend } = context;
    if (!body.Container) throw invalid('No container was named to be connected');
    await backend.containers.connect(body.Container, params.id ?? '', body.EndpointConfig ?? null);
    return reply.empty(200);
  }),
  route('POST /networks/{id}/disconnect', { body: disconnectRequest, checkContentType: true }, async (context) => {
    const { params, body, backend } = context;
    if (!body.Container) throw invalid('No container was named to be disconnected');
    try {
      await backend.containers.disconnect(body.Container, params.id ?? '');
    } catch (error) {
      // By force also what is not there is no longer connected.
      const isGone = error instanceof EngineError && error.kind === 'not-found';
      if (!(isGone && body.Force && backend.networks.get(params.id ?? ''))) throw error;
    }
    return reply.empty(200);
  }),
  route('POST /networks/prune', {}, async ({ query, backend }) =>
    reply.json({ NetworksDeleted: await prune(backend, filters(query)) }),
  ),
];

const ipamConfig = (given: {
  readonly Subnet?: string | undefined;
  readonly IPRange?: string | undefined;
  readonly Gateway?: string | undefined;
  readonly AuxiliaryAddresses?: Readonly<Record<string, string>> | undefined;
}): IpamConfig => ({
  ...(given.Subnet ? { subnet: given.Subnet } : {}),
  ...(given.IPRange ? { ipRange: given.IPRange } : {}),
  ...(given.Gateway ? { gateway: given.Gateway } : {}),
  ...(given.AuxiliaryAddresses ? { auxiliaryAddresses: given.AuxiliaryAddresses } : {}),
});

const view = (network: NetworkRecord, members: Json): Json => ({
  Name: network.name,
  Id: network.id,
  Created: network.created,
  Scope: network.scope,
  Driver: network.driver,
  EnableIPv6: network.enableIPv6,
  IPAM: {
    Driver: network.ipam.driver,
    Options: network.ipam.options,
    Config: network.ipam.config.map(({ subnet, ipRange, gateway, auxiliaryAddresses }) => ({
      ...(subnet ? { Subnet: subnet } : {}),
      ...(ipRange ? { IPRange: ipRange } : {}),
      ...(gateway ? { Gateway: gateway } : {}),
      ...(auxiliaryAddresses ? { AuxiliaryAddresses: auxiliaryAddresses } : {}),
    })),
  },
  Internal: network.internal,
  Attachable: network.attachable,
  Containers: members,
  Options: network.options,
  Labels: network.labels,
});

interface ListedEndpoint {
  readonly NetworkID?: string;
  readonly EndpointID?: string;
  readonly MacAddress?: string;
  readonly IPAddress?: string;
  readonly IPPrefixLen?: number;
  readonly GlobalIPv6Address?: string;
  readonly GlobalIPv6PrefixLen?: number;
}

/** Network id → container id → its place on the network, from the list of running containers. */
async function membersByNetwork(backend: Backend): Promise<ReadonlyMap<string, Json>> {
  const members = new Map<string, Record<string, Json>>();
  const running = await backend.containers.list({ all: false, limit: 0, size: false, filters: new Map() });
  for (const row of running) {
    const { Networks } = (row.NetworkSettings ?? {}) as { Networks?: Record<string, ListedEndpoint> };
    for (const endpoint of Object.values(Networks ?? {})) {
      if (!endpoint.NetworkID || !endpoint.EndpointID) continue;
      const known = members.get(endpoint.NetworkID) ?? {};
      known[String(row.Id)] = {
        Name: String((row.Names as readonly string[] | undefined)?.[0] ?? '').replace(/^\//, ''),
        EndpointID: endpoint.EndpointID,
        MacAddress: endpoint.MacAddress ?? '',
        IPv4Address: withPrefix(endpoint.IPAddress, endpoint.IPPrefixLen),
        IPv6Address: withPrefix(endpoint.GlobalIPv6Address, endpoint.GlobalIPv6PrefixLen),
      };
      members.set(endpoint.NetworkID, known);
    }
  }
  return members;
}

const withPrefix = (address = '', length = 0) => (address === '' ? '' : `${address}/${length}`);

const builtin = ['bridge', 'host', 'none'];
const has = (values: readonly string[], test: (value: string) => boolean) => values.length === 0 || values.some(test);

const tests: Readonly<Record<string, (network: NetworkRecord, values: readonly string[]) => boolean>> = {
  name: (network, values) => has(values, (value) => network.name.includes(value)),
  id: (network, values) => has(values, (value) => network.id.startsWith(value)),
  driver: (network, values) => has(values, (value) => network.driver === value),
  type: (network, values) =>
    has(values, (value) => (builtin.includes(network.name) ? value === 'builtin' : value === 'custom')),
  label: (network, values) =>
    values.every((value) => {
      const [key, wanted] = value.split(/=(.*)/s, 2) as [string, string?];
      const label = network.labels[key];
      return label !== undefined && (wanted === undefined || label === wanted);
    }),
};

function matches(network: NetworkRecord, wanted: ReadonlyMap<string, readonly string[]>): boolean {
  for (const [name, values] of wanted) {
    const test = Object.hasOwn(tests, name) ? tests[name] : undefined;
    if (test === undefined) throw filterError(name);
    if (!test(network, values)) return false;
  }
  return true;
}

const pruneFilters = ['label', 'label!', 'until'];

/** Removes networks of the user's that nothing is joined to; names of those that went. */
async function prune(
  backend: Backend,
  wanted: ReadonlyMap<string, readonly string[]>,
): Promise<readonly string[] | null> {
  for (const name of wanted.keys()) if (!pruneFilters.includes(name)) throw filterError(name);
  const [until, ...more] = wanted.get('until') ?? [];
  if (more.length > 0) throw invalid('more than one until filter specified');
  const before = until === undefined ? null : parseTime(until);
  const removed: string[] = [];
  for (const { id, name, labels, created } of backend.networks.list()) {
    if (builtin.includes(name) || !matchesLabels(wanted, labels)) continue;
    if ((wanted.get('label!') ?? []).some((label) => matchesLabels(new Map([['label', [label]]]), labels))) continue;
    if (before !== null && BigInt(Date.parse(created)) * 1_000_000n >= before) continue;
    try {
      await backend.networks.remove(id);
      removed.push(name);
    } catch (error) {
      // In use, or removed by somebody else meanwhile.
      if (!(error instanceof EngineError && ['forbidden', 'not-found'].includes(error.kind))) throw error;
    }
  }
  return removed.length > 0 ? removed : null;
}
