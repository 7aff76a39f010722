/** `GET /networks`, `GET /networks/{id}` */
import type { Json } from '../../container/api.ts';
import { notFound } from '../../lib/errors.ts';
import type { NetworkRecord } from '../../network/types.ts';
import type { Backend } from '../backend.ts';
import { filterError, filters } from '../server/query.ts';
import { type Context, reply, route } from '../server/route.ts';

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
];

const view = (network: NetworkRecord, members: Json): Json => ({
  Name: network.name,
  Id: network.id,
  Created: network.created,
  Scope: network.scope,
  Driver: network.driver,
  EnableIPv6: network.enableIPv6,
  IPAM: {
    Driver: network.ipam.driver,
    Options: null,
    Config: network.ipam.config.map(({ subnet, gateway }) => ({ Subnet: subnet, Gateway: gateway })),
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
