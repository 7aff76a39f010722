/** `/networks/…` */
import type { Json } from '../../container/api.ts';
import { forbidden, invalid, notFound, notImplemented } from '../../lib/errors.ts';
import { compilePattern, matchesLabels } from '../../lib/filters.ts';
import { parseTime } from '../../lib/time.ts';
import type { IpamConfig, NetworkRecord } from '../../network/types.ts';
import type { Backend } from '../backend.ts';
import { filterError, filters } from '../server/query.ts';
import { type Context, reply, route } from '../server/route.ts';
import { connectRequest, disconnectRequest, networkRequest } from './schemas.ts';

const list = async ({ query, backend }: Context<undefined>) => {
  const isWanted = compile(filters(query));
  const members = await membersByNetwork(backend);
  const rows = backend.networks.list().map((network) => ({ network, members: members.get(network.id) ?? {} }));
  return reply.json(rows.filter(isWanted).map((row) => view(row.network, row.members)));
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
    refuseSwarm(body);
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
    if (!body.Container) throw invalid('invalid name or ID supplied: ""');
    await backend.containers.connect(body.Container, params.id ?? '', body.EndpointConfig ?? null);
    return reply.empty(200);
  }),
  route('POST /networks/{id}/disconnect', { body: disconnectRequest, checkContentType: true }, async (context) => {
    const { params, body, backend } = context;
    if (!body.Container) throw invalid('invalid name or ID supplied: ""');
    // Force takes endpoints from networks whose containers are lost; here no endpoint is without its container.
    await backend.containers.disconnect(body.Container, params.id ?? '');
    return reply.empty(200);
  }),
  route('POST /networks/prune', {}, async ({ query, backend }) => {
    const removed = await backend.networks.prune(prunable(filters(query)));
    return reply.json({ NetworksDeleted: removed.length > 0 ? removed : null });
  }),
];

/** Networks of swarms, and those that only lend their settings to others. */
function refuseSwarm(body: ReturnType<typeof networkRequest>): void {
  if (body.Ingress) throw forbidden('Ingress network can only be global scope network');
  if (body.Scope && body.Scope !== 'local')
    throw forbidden(`cannot create a ${body.Scope} scoped network when swarm is not active`);
  if (body.ConfigOnly) throw notImplemented('configuration networks are not supported');
  if (body.ConfigFrom?.Network) throw notFound(`configuration network "${body.ConfigFrom.Network}" does not exist`);
}

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
async function membersByNetwork(backend: Backend): Promise<ReadonlyMap<string, Readonly<Record<string, Json>>>> {
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

/** Each filter: alternatives, of which one must hold; labels must all match. Throws for values that mean nothing. */
const tests: Readonly<Record<string, (values: readonly string[]) => (row: Row) => boolean>> = {
  name: (values) => {
    const patterns = values.map(compilePattern);
    return ({ network }) => patterns.some((pattern) => pattern.test(network.name));
  },
  id: (values) => {
    const patterns = values.map(compilePattern);
    return ({ network }) => patterns.some((pattern) => pattern.test(network.id));
  },
  driver:
    (values) =>
    ({ network }) =>
      values.includes(network.driver),
  scope:
    (values) =>
    ({ network }) =>
      values.includes(network.scope),
  type: (values) => {
    for (const value of values)
      if (value !== 'builtin' && value !== 'custom') throw invalid(`invalid filter: 'type'='${value}'`);
    return ({ network }) => values.includes(builtin.includes(network.name) ? 'builtin' : 'custom');
  },
  label:
    (values) =>
    ({ network }) =>
      matchesLabels(new Map([['label', values]]), network.labels),
  dangling: (values) => {
    if (values.length > 1) throw invalid('got more than one value for filter key "dangling"');
    const wanted = { true: true, 1: true, false: false, 0: false }[values[0] ?? ''];
    if (wanted === undefined) {
      const allowed = 'must be "true" (or "1"), or "false" (or "0")';
      throw invalid(`invalid value for filter 'dangling', ${allowed}`);
    }
    return ({ network, members }) => wanted === (!builtin.includes(network.name) && Object.keys(members).length === 0);
  },
};

interface Row {
  readonly network: NetworkRecord;
  readonly members: Readonly<Record<string, Json>>;
}

function compile(wanted: ReadonlyMap<string, readonly string[]>): (row: Row) => boolean {
  const all = [...wanted].map(([name, values]) => {
    const build = Object.hasOwn(tests, name) ? tests[name] : undefined;
    if (build === undefined) throw filterError(name);
    return values.length === 0 ? () => true : build(values);
  });
  return (row) => all.every((test) => test(row));
}

const pruneFilters = ['label', 'label!', 'until'];

/** Which networks of the user's a prune takes, if nothing is joined to them. */
function prunable(wanted: ReadonlyMap<string, readonly string[]>): (network: NetworkRecord) => boolean {
  for (const name of wanted.keys()) if (!pruneFilters.includes(name)) throw filterError(name);
  const [until, ...more] = wanted.get('until') ?? [];
  if (more.length > 0) throw invalid('more than one until filter specified');
  const before = until === undefined ? null : parseTime(until);
  const unwanted = wanted.get('label!') ?? [];
  return ({ labels, created }) =>
    matchesLabels(wanted, labels) &&
    !unwanted.some((label) => matchesLabels(new Map([['label', [label]]]), labels)) &&
    (before === null || BigInt(Date.parse(created)) * 1_000_000n < before);
}
