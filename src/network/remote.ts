/**
 * Networks whose driver or addresses come from plugins: what to ask them when, and what to take back.
 *
 * Each endpoint known to a plugin has a record from before the driver is asked until it has deleted the endpoint, so that a daemon
 * that is killed in between knows what is to be taken back. See docs/plugins.md.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { forbidden, messageOf } from '../lib/errors.ts';
import { overlap } from '../lib/ip.ts';
import type { Log } from '../lib/log.ts';
import type { Netlink } from '../platform/netlink.ts';
import { PluginRefusal } from '../plugin/errors.ts';
import type { Plugins } from '../plugin/types.ts';
import type { Collection, Store } from '../store/types.ts';
import { parsePool, type TakenSubnet } from './pools.ts';
import { parseContainerPorts } from './ports.ts';
import { failed, type Options, RemoteCalls } from './remote-calls.ts';
import { addressed, type HeldAddress, RemoteIpams } from './remote-ipam.ts';
import { plugIn, plugOut } from './remote-link.ts';
import type { Endpoint, Joined, LiveSandbox, NetworkRecord, NetworkRequest, Pool, PortBinding } from './types.ts';

const builtinDrivers = ['bridge', 'host', 'null', 'macvlan'];
const builtinIpams = ['', 'default', 'null'];
export const isRemoteDriver = ({ driver }: Pick<NetworkRecord, 'driver'>): boolean => !builtinDrivers.includes(driver);
export const isRemoteIpam = ({ ipam }: Pick<NetworkRecord, 'ipam'>): boolean => !builtinIpams.includes(ipam.driver);
export const isRemote = (record: Pick<NetworkRecord, 'driver' | 'ipam'>): boolean =>
  isRemoteDriver(record) || isRemoteIpam(record);

/** What plugins say to a network that is to be made. */
export interface Prepared {
  /** Null: the driver is none of a plugin. */
  readonly scope: 'local' | 'global' | null;
  /** Null: addresses are ours to give. */
  readonly pools: readonly Pool[] | null;
}

interface EndpointRecord {
  /** Of the endpoint. */
  readonly id: string;
  readonly networkId: string;
  /** Empty: one of ours. */
  readonly driver: string;
  readonly ipam: string;
  readonly addresses: readonly HeldAddress[];
}

/** So long the end of a container waits for a plugin, twice; it goes on behind. */
const leaveMs = 5000;
/** After so long a silent plugin is asked again to delete an endpoint; twice as long each time, up to the second. */
const againMs = 10_000;
const againMsMax = 600_000;
const protocolNumbers = { tcp: 6, udp: 17, sctp: 132 } as const;

export type Ports = ReadonlyMap<string, readonly PortBinding[]>;

export class Remotes {
  readonly #calls: RemoteCalls;
  readonly #ipams: RemoteIpams;
  readonly #store: Pick<Store, 'commit'>;
  readonly #host: Netlink;
  readonly #log: Log;
  readonly #records: Collection<EndpointRecord>;
  /** Endpoints made since the daemon began: whoever made them takes them back. */
  readonly #own = new Set<string>();

  constructor(plugins: Plugins, store: Pick<Store, 'collection' | 'commit'>, host: Netlink, log: Log) {
    this.#calls = new RemoteCalls(plugins);
    this.#ipams = new RemoteIpams(this.#calls, (plugin, work) => this.#quietly(plugin, work));
    this.#store = store;
    this.#host = host;
    this.#log = log;
    this.#records = store.collection<EndpointRecord>({ kind: 'remote-endpoint', schema: 1 });
  }

  // ---- networks

  /** Null when nothing of it is a plugin's. Pools are held by their driver from here on: `abandon` gives them back. */
  async prepare(request: NetworkRequest): Promise<Prepared | null> {
    const driver = request.driver || 'bridge';
    const wanted = { driver, ipam: request.ipam };
    if (!isRemote(wanted)) return null;
    const scope = isRemoteDriver(wanted) ? await this.#calls.scope(driver) : null;
    const pools = isRemoteIpam(wanted) ? await this.#ipams.requestPools(request) : null;
    return { scope, pools: request.ipam.driver === 'null' ? [] : pools };
  }

  /** Gives back pools of a network that is no more, or came to nothing. */
  abandon(ipamDriver: string, pools: readonly Pool[]): Promise<void> {
    return this.#ipams.releasePools(ipamDriver, pools);
  }

  /** Subnets of a bridge have to be its own, whoever gave them. */
  checkPools(prepared: Prepared, taken: readonly TakenSubnet[]): void {
    if (prepared.scope !== null) return;
    for (const { subnet } of prepared.pools ?? []) {
      const hit = taken.find((other) => overlap(other.subnet, parsePool(subnet)));
      if (hit) throw forbidden(`Pool overlaps with other one on this address space: ${subnet} of ${hit.holder}`);
    }
  }

  async createNetwork(record: NetworkRecord): Promise<void> {
    if (isRemoteDriver(record)) await this.#calls.createNetwork(record);
  }

  /** What the plugins say to it is logged: the network goes all the same. */
  async deleteNetwork({ id, driver, ipam, pools }: NetworkRecord): Promise<void> {
    if (isRemoteDriver({ driver }))
      await this.#quietly(driver, () => this.#calls.network(driver, 'DeleteNetwork', { NetworkID: id }));
    if (isRemoteIpam({ ipam })) await this.abandon(ipam.driver, pools);
  }

  // ---- endpoints

  /** Has the plugins make the endpoint that `joined` says; answers with what they chose. A failure leaves nothing behind. */
  async create(
    live: LiveSandbox,
    endpoint: Endpoint,
    network: NetworkRecord,
    joined: Joined,
    ports: Ports,
  ): Promise<Joined> {
    const { endpointId } = joined;
    const driver = isRemoteDriver(network) ? network.driver : '';
    const ipam = isRemoteIpam(network) ? network.ipam.driver : '';
    // Whoever gives the address may want to know the hardware address first.
    const own =
      ipam === '' ? joined.mac : endpoint.requested.mac || `02:42:${endpointId.slice(0, 8).match(/../g)?.join(':')}`;
    let after = { ...joined, mac: own };
    let record: EndpointRecord = { id: endpointId, networkId: network.id, driver, ipam, addresses: [] };
    this.#own.add(endpointId);
    try {
      await this.#store.commit([this.#records.put(record)]);
      if (ipam !== '') {
        const { addresses, changes } = await this.#ipams.requestAddresses(ipam, network, endpoint, after);
        record = { ...record, addresses };
        after = { ...after, ...changes };
        await this.#store.commit([this.#records.put(record)]);
      }
      if (driver === '') return after;
      const place = { NetworkID: network.id, EndpointID: endpointId };
      const given = {
        Address: after.ipv4 && `${after.ipv4}/${after.ipv4PrefixLength}`,
        AddressIPv6: after.ipv6 && `${after.ipv6}/${after.ipv6PrefixLength}`,
        MacAddress: endpoint.requested.mac ?? '',
      };
      const made = await this.#calls.createEndpoint(driver, place, given, portOptions(ports));
      return { ...after, ...addressed(made.Address, 4), ...addressed(made.AddressIPv6, 6), mac: made.MacAddress };
    } catch (error) {
      await this.#takeBack(record);
      throw failed(`failed to create endpoint ${live.containerName} on network ${network.name}`, error);
    }
  }

  /** The namespace is there. Answers with the endpoint as its driver has it: gateways, routes, the interface to move. */
  async join(live: LiveSandbox, network: NetworkRecord, joined: Joined, ports: Ports): Promise<Joined> {
    if (!isRemoteDriver(network)) return joined;
    const { driver } = network;
    const place = { NetworkID: network.id, EndpointID: joined.endpointId };
    const { source, prefix, gateway, ipv6Gateway, routes } = await this.#calls.join(
      driver,
      place,
      live.sandbox.namespacePath,
      portOptions(ports),
    );
    const link = source === '' ? undefined : this.#host.link(source);
    if (source !== '' && link === undefined)
      throw new PluginRefusal(200, `${driver}: the driver's interface ${source} is not there`);
    // Tells what the driver knows more; nothing of it is needed.
    await this.#quietly(driver, () => this.#calls.network(driver, 'EndpointOperInfo', place));
    return {
      ...joined,
      gateway,
      ipv6Gateway,
      mac: joined.mac || (link?.mac ?? ''),
      interfaceName: source === '' ? '' : freeName(live, joined, prefix),
      remote: { source, routes },
    };
  }

  /** Moves the driver's interface into the namespace. */
  plug(namespacePath: string, joined: Joined): void {
    if (joined.remote !== undefined && joined.remote.source !== '') plugIn(this.#host, namespacePath, joined);
  }

  /** The endpoint has the default route: what is published leads to it. */
  async publish(network: NetworkRecord, { endpointId }: Joined, ports: Ports): Promise<void> {
    const place = { NetworkID: network.id, EndpointID: endpointId };
    const body = { ...place, Options: portOptions(ports) };
    await this.#calls.optional(network.driver, 'ProgramExternalConnectivity', body);
  }

  async unpublish(network: NetworkRecord, { endpointId }: Joined): Promise<void> {
    const body = { NetworkID: network.id, EndpointID: endpointId };
    const revoked = this.#quietly(network.driver, () =>
      this.#calls.optional(network.driver, 'RevokeExternalConnectivity', body),
    );
    await Promise.race([revoked, sleep(leaveMs, undefined, { ref: false })]);
  }

  /** Takes an endpoint out of its namespace, and has it deleted. Waits for silent plugins a while, and goes on behind. */
  async leave(namespacePath: string, joined: Joined): Promise<void> {
    const record = this.#records.get(joined.endpointId);
    if (record === undefined) return;
    const { driver, networkId: NetworkID } = record;
    const left = async () => {
      const body = { NetworkID, EndpointID: record.id };
      if (driver !== '') await this.#quietly(driver, () => this.#calls.network(driver, 'Leave', body, { once: true }));
    };
    await Promise.race([left(), sleep(leaveMs, undefined, { ref: false })]);
    if (joined.remote !== undefined && joined.remote.source !== '') {
      try {
        plugOut(this.#host, namespacePath, joined);
      } catch (error) {
        this.#log.warn(
          { error, interface: joined.interfaceName },
          `an interface went with its namespace: ${messageOf(error)}`,
        );
      }
    }
    await Promise.race([this.#takeBack(record), sleep(leaveMs, undefined, { ref: false })]);
  }

  /** At start: endpoints that no living container has are taken back, and IPAM drivers that forget are told again what is held. */
  reconcile(networks: readonly NetworkRecord[], live: ReadonlySet<string>): void {
    for (const record of this.#records.values()) {
      if (live.has(record.id) || this.#own.has(record.id)) continue;
      this.#takeBack(record).catch((error: unknown) => this.#log.error({ error }, messageOf(error)));
    }
    const held = [...this.#records.values()].filter(({ id }) => live.has(id)).flatMap(({ addresses }) => addresses);
    for (const network of networks.filter(isRemoteIpam))
      void this.#quietly(network.ipam.driver, () => this.#ipams.replay(network, held));
  }

  /** The record goes unless a plugin is silent: then it is asked again from time to time, also after a start of the daemon. */
  async #takeBack(record: EndpointRecord, nextMs = againMs): Promise<void> {
    const { id, driver, ipam, networkId: NetworkID, addresses } = record;
    const body = { NetworkID, EndpointID: id };
    this.#own.delete(id);
    const isDone =
      driver === '' || (await this.#quietly(driver, () => this.#calls.network(driver, 'DeleteEndpoint', body)));
    const isFree = await this.#ipams.releaseAddresses(ipam, addresses);
    if (isDone && isFree) {
      await this.#store.commit([this.#records.remove(id)]);
      return;
    }
    setTimeout(() => {
      this.#takeBack(record, Math.min(nextMs * 2, againMsMax)).catch((error: unknown) =>
        this.#log.error({ error }, messageOf(error)),
      );
    }, nextMs).unref();
  }

  /** False when the plugin did not answer. What it refuses is logged and done. */
  async #quietly(plugin: string, work: () => Promise<unknown>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      this.#log.warn({ error, plugin }, `a network plugin: ${messageOf(error)}`);
      return error instanceof PluginRefusal;
    }
  }
}

/** A name inside that no other interface of the container has. */
function freeName(live: LiveSandbox, own: Joined, prefix: string): string {
  const others = Object.values(live.endpoints).flatMap(({ joined }) =>
    joined && joined.endpointId !== own.endpointId ? [joined] : [],
  );
  const used = new Set(others.map(({ interfaceName }) => interfaceName));
  let number = 0;
  while (used.has(`${prefix}${number}`)) number++;
  return `${prefix}${number}`;
}

/** Ports as libnetwork tells drivers of them. */
function portOptions(ports: Ports): Options {
  const all = [...ports].map(([key, bindings]) => ({ ...parseContainerPorts(key), bindings }));
  return {
    'com.docker.network.endpoint.exposedports': all.map(({ first, protocol }) => ({
      Proto: protocolNumbers[protocol],
      Port: first,
    })),
    'com.docker.network.portmap': all.flatMap(({ first, protocol, bindings }) =>
      bindings.map(({ HostIp, HostPort }) => {
        const [from = 0, to = from] = HostPort.split('-').map(Number);
        return {
          Proto: protocolNumbers[protocol],
          IP: '',
          Port: first,
          HostIP: HostIp,
          HostPort: from,
          HostPortEnd: to,
        };
      }),
    ),
  };
}
