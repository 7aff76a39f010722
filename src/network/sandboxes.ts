/**
 * Sandboxes: what a container has of networks while it runs.
 *
 * All endpoints of one container share a namespace. One of them, the gateway, has the default route and the published ports:
 * the first by network name that is not internal. It changes when networks are connected and disconnected.
 */
import fs from 'node:fs';
import { EngineError, forbidden, messageOf, notFound } from '../lib/errors.ts';
import { type ContainerId, newId } from '../lib/ids.ts';
import { type Address, formatAddress, macOf, parseAddress } from '../lib/ip.ts';
import type { Log } from '../lib/log.ts';
import { forgetUdpFlowsAt, forgetUdpFlowsTo } from '../platform/conntrack.ts';
import { Netlink } from '../platform/netlink.ts';
import { allowHairpin, attachVeth, interfacePrefixOption, routeThrough, settlePort } from './bridge.ts';
import type { Firewall } from './firewall.ts';
import { attachMacvlan, isParentless } from './macvlan.ts';
import { NameServer, namedOf } from './nameserver.ts';
import type { Namespaces } from './namespaces.ts';
import { parseContainerPorts } from './ports.ts';
import { isRemoteDriver, type Remotes } from './remote.ts';
import { checkEndpoint } from './requests.ts';
import { Reservations } from './reservations.ts';
import type { Publication } from './table.ts';
import {
  type Endpoint,
  type Endpoints,
  isJoined,
  type Joined,
  type JoinedEndpoint,
  type JoinRequest,
  type LiveSandbox,
  type NetworkRecord,
  type Place,
  type PortBinding,
  type PublishedPort,
} from './types.ts';
import type { UpNetwork, Wires } from './wires.ts';

interface SandboxParts {
  readonly namespaces: Namespaces;
  readonly wires: Wires;
  readonly remotes: Remotes;
  readonly firewall: Firewall;
  readonly log: Log;
}

type Ports = ReadonlyMap<string, readonly PortBinding[]>;

export class Sandboxes {
  readonly #parts: SandboxParts;
  readonly #reservations: Reservations;
  /** What is joined or being joined. Changed by `#hold` and `#drop` alone. */
  readonly #held = new Map<ContainerId, LiveSandbox>();
  readonly #names: NameServer;

  constructor(parts: SandboxParts) {
    this.#parts = parts;
    this.#reservations = new Reservations(parts.log);
    this.#names = new NameServer(parts.log);
  }

  rename(containerId: ContainerId, name: string): void {
    const live = this.#held.get(containerId);
    if (live === undefined) return;
    this.#hold({ ...live, containerName: name });
    this.#answerNames({ ...live, containerName: name });
  }

  #hold(live: LiveSandbox): void {
    this.#held.set(live.containerId, live);
  }

  #drop(containerId: ContainerId): void {
    this.#held.delete(containerId);
  }

  /** True while anything is joined, or being joined, to the network. */
  isUsed(network: NetworkRecord): boolean {
    return [...this.#held.values()].some(({ endpoints }) => Object.hasOwn(endpoints, network.name));
  }

  endpointIds(): ReadonlySet<string> {
    return new Set([...this.#held.values()].flatMap((live) => joinedOf(live).map(({ joined }) => joined.endpointId)));
  }

  publications(): Publication[] {
    return [...this.#held.values()].flatMap((live) => this.#publicationsOf(live));
  }

  async close(): Promise<void> {
    await this.#names.close();
    this.#reservations.close();
  }

  // ---- after a restart

  /** Takes over what lives according to the records, and sweeps what nothing claims. */
  adopt(live: readonly LiveSandbox[]): void {
    const { namespaces, wires, log } = this.#parts;
    // A join that is under way, or younger than the caller's list, counts like those in the list.
    for (const sandbox of live) this.#hold(sandbox);
    namespaces.prepare();
    for (const name of namespaces.list()) if (!this.#held.has(name as ContainerId)) namespaces.remove(name);
    const all = [...this.#held.values()];
    wires.sweep(new Set(all.flatMap((each) => joinedOf(each).map(({ joined }) => joined.hostInterface))));
    for (const each of all) {
      if (fs.existsSync(each.sandbox.namespacePath)) this.#answerNames(each);
      for (const endpoint of joinedOf(each)) {
        try {
          this.#readopt(each, endpoint);
        } catch (error) {
          const { containerName: container } = each;
          log.error({ error, container }, `network ${endpoint.networkName} could not be connected again`);
        }
      }
    }
  }

  /** Takes the addresses again, and brings the host's end back onto the bridge, also if bridge or pair are gone. */
  #readopt(live: LiveSandbox, endpoint: JoinedEndpoint): void {
    const { wires } = this.#parts;
    const { joined } = endpoint;
    const network = wires.find(joined.networkId);
    if (network === undefined) throw notFound(`network ${endpoint.networkName} not found`);
    for (const address of addressesOf(joined))
      network.addresses.find(({ family }) => family === address.family)?.take(address, ownerOf(live));
    if (network.bridge === null) return;
    const { index, settings } = network.bridge;
    if (wires.host.link(joined.hostInterface) !== undefined) settlePort(wires.host, joined, index, settings);
    else if (fs.existsSync(live.sandbox.namespacePath)) {
      this.#wire(live.sandbox.namespacePath, network, joined);
      if (this.#gatewayOf(live.endpoints)?.joined === joined) routeThrough(live.sandbox.namespacePath, joined);
    }
    if (live.sandbox.published.length > 0) allowHairpin(wires.host, joined);
  }

  /** Reserves again what live sandboxes have published. */
  async holdPorts(): Promise<void> {
    await Promise.all(
      [...this.#held.values()].flatMap((live) => {
        const gateway = this.#gatewayOf(live.endpoints);
        if (gateway === undefined) return [];
        const target = targetOf(gateway.joined);
        const wild = new Set(
          live.sandbox.published.flatMap((each) => (each.hostIp === '::' ? [`${each.protocol} ${each.hostPort}`] : [])),
        );
        return live.sandbox.published.map((port) =>
          this.#reservations.adopt(ownerOf(live), port, target, wild.has(`${port.protocol} ${port.hostPort}`)),
        );
      }),
    );
  }

  // ---- joining and leaving

  async join(request: JoinRequest): Promise<Place> {
    const { wires, namespaces, remotes, firewall, log } = this.#parts;
    const wanted = Object.values(request.endpoints);
    const networks = wanted.map((endpoint) => this.#networkOf(endpoint));
    const isHost = networks.some(({ record }) => record.driver === 'host');
    const live: { -readonly [K in keyof LiveSandbox]: LiveSandbox[K] } = {
      containerId: request.containerId,
      containerName: request.containerName,
      sandbox: { namespacePath: isHost ? '' : namespaces.pathOf(request.containerId), published: [] },
      // Counts as joined from here, so that no network is removed under it.
      endpoints: request.endpoints,
      dns: request.dns,
      keepsSingleLabels: request.keepsSingleLabels,
    };
    this.#hold(live);
    try {
      for (const [index, network] of networks.entries()) {
        const endpoint = wanted[index] as Endpoint;
        const joined = await this.#endpoint(live, endpoint, network, request.ports);
        live.endpoints = { ...live.endpoints, [endpoint.networkName]: { ...endpoint, joined } };
      }
      this.#hold(live);
      if (isHost) return placeOf(live);
      // Plugins are told of a namespace that is there, and tell what decides about the default route.
      const early = networks.some(({ remote }) => remote);
      if (early) {
        namespaces.create(live.containerId, request.namespace);
        for (const { networkName, joined } of joinedOf(live)) {
          const record = wires.find(joined.networkId)?.record;
          if (record === undefined) continue;
          const settled = {
            ...live.endpoints[networkName],
            joined: await remotes.join(live, record, joined, request.ports),
          };
          live.endpoints = { ...live.endpoints, [networkName]: settled as Endpoint };
        }
        this.#hold(live);
      }
      const gateway = this.#gatewayOf(live.endpoints);
      if (request.ports.size > 0 && this.#publishes(gateway))
        live.sandbox = { ...live.sandbox, published: await this.#reservePorts(live, gateway, request.ports) };
      // nft works while the namespace is made; the failure of either is the failure of both.
      const published = firewall.publish(this.#publicationsOf(live));
      published.catch(() => undefined);
      const { namespacePath } = live.sandbox;
      if (!early) namespaces.create(live.containerId, request.namespace);
      this.#answerNames(live);
      for (const { joined } of joinedOf(live)) this.#wire(namespacePath, wires.find(joined.networkId), joined);
      if (gateway) routeThrough(namespacePath, gateway.joined);
      if (gateway && live.sandbox.published.length > 0) allowHairpin(wires.host, gateway.joined);
      await this.#publishRemotely(gateway, request.ports);
      await Promise.all([published, this.#names.settled()]);
      this.#forgetOlderFlows(live);
      return placeOf(live);
    } catch (error) {
      // A leave takes down whatever there is.
      await this.leave(live.containerId, placeOf(live)).catch((failure: unknown) => {
        log.error({ error: failure, container: live.containerName }, 'a join that failed could not be undone at once');
      });
      throw error;
    }
  }

  async leave(containerId: ContainerId, place: Place | null): Promise<void> {
    const { firewall, namespaces } = this.#parts;
    const held = this.#held.get(containerId) ?? place;
    const failures: unknown[] = [];
    const attempt = async (work: () => unknown): Promise<void> => {
      try {
        await work();
      } catch (error) {
        failures.push(error);
      }
    };
    await attempt(() => held && firewall.unpublish(this.#publicationsOf(held)));
    this.#reservations.release(containerId);
    if (held?.sandbox.published.some(({ protocol }) => protocol === 'udp'))
      this.#forgetFlows(this.#gatewayOf(held.endpoints));
    this.#names.drop(containerId);
    if (held) await this.#unpublishRemotely(this.#gatewayOf(held.endpoints));
    for (const { joined } of held ? joinedOf(held) : [])
      await attempt(() => this.#parts.remotes.leave(held?.sandbox.namespacePath ?? '', joined));
    // Two cards of one address on a parent refuse each other: this one goes now rather than when the kernel finds the time.
    for (const { joined } of held ? joinedOf(held) : [])
      if (this.#parts.wires.find(joined.networkId)?.macvlan) this.#tryRemoveInside(held, joined);
    await attempt(() => namespaces.remove(containerId));
    for (const { joined } of held ? joinedOf(held) : []) {
      this.#release(containerId, joined);
      this.#parts.wires.expectGone(joined.hostInterface);
    }
    this.#drop(containerId);
    if (failures.length > 0)
      throw new AggregateError(failures, `leaving the network: ${failures.map(messageOf).join('; ')}`);
  }

  async connect(live: LiveSandbox, endpoint: Endpoint, ports: Ports): Promise<Place> {
    const network = this.#networkOf(endpoint);
    if (Object.hasOwn(live.endpoints, endpoint.networkName))
      throw forbidden(`endpoint with name ${live.containerName} already exists in network ${endpoint.networkName}`);
    checkEndpoint(endpoint, network.record);
    let joined = await this.#endpoint(live, endpoint, network, ports);
    let after = { ...live, endpoints: { ...live.endpoints, [endpoint.networkName]: { ...endpoint, joined } } };
    this.#hold(after);
    try {
      if (network.remote) {
        joined = await this.#parts.remotes.join(live, network.record, joined, ports);
        after = { ...live, endpoints: { ...live.endpoints, [endpoint.networkName]: { ...endpoint, joined } } };
        this.#hold(after);
      }
      this.#wire(live.sandbox.namespacePath, network, joined);
      return await this.#moveGateway(live, after, ports);
    } catch (error) {
      const undone = this.#unwire(live, joined).then(() => this.#moveGateway(after, live, ports));
      await undone.catch((failure: unknown) => {
        this.#parts.log.error({ error: failure, container: live.containerName }, 'a failed connect was not undone');
      });
      throw error;
    }
  }

  async disconnect(live: LiveSandbox, networkName: string, ports: Ports): Promise<Place> {
    const { [networkName]: leaving, ...endpoints } = live.endpoints;
    if (leaving === undefined || !isJoined(leaving))
      throw forbidden(`container ${live.containerId} is not connected to network ${networkName}`);
    const place = await this.#moveGateway(live, { ...live, endpoints }, ports);
    await this.#unwire(live, leaving.joined);
    return place;
  }

  /** Default route and published ports follow the gateway from one set of endpoints to another. */
  async #moveGateway(before: LiveSandbox, after: LiveSandbox, ports: Ports): Promise<Place> {
    const { firewall, wires } = this.#parts;
    const from = this.#gatewayOf(before.endpoints);
    const to = this.#gatewayOf(after.endpoints);
    let { published } = before.sandbox;
    if (from?.joined !== to?.joined) {
      if (published.length > 0) {
        await firewall.unpublish(this.#publicationsOf(before));
        if (published.some(({ protocol }) => protocol === 'udp')) this.#forgetFlows(from);
      }
      await this.#unpublishRemotely(from);
      if (!this.#publishes(to)) {
        this.#reservations.release(after.containerId);
        published = [];
      } else if (published.length > 0) this.#reservations.retarget(after.containerId, targetOf(to.joined));
      else if (ports.size > 0) published = await this.#reservePorts(after, to, ports);
      routeThrough(after.sandbox.namespacePath, to?.joined ?? null);
    }
    const settled: LiveSandbox = { ...after, sandbox: { ...after.sandbox, published } };
    this.#hold(settled);
    this.#answerNames(settled);
    await this.#names.settled();
    if (from?.joined !== to?.joined && to) {
      await firewall.publish(this.#publicationsOf(settled));
      this.#forgetOlderFlows(settled);
      if (published.length > 0) allowHairpin(wires.host, to.joined);
      await this.#publishRemotely(to, ports);
    }
    return placeOf(settled);
  }

  // ---- pieces

  /** A name server where there are names to be answered, and none elsewhere. */
  #answerNames(live: LiveSandbox): void {
    const pools = joinedOf(live).flatMap(({ joined }) => this.#parts.wires.find(joined.networkId)?.record.pools ?? []);
    this.#names.hold(
      namedOf(
        live,
        pools.map(({ subnet }) => subnet),
      ),
    );
  }

  #networkOf(endpoint: Endpoint): UpNetwork {
    const network = this.#parts.wires.findByName(endpoint.networkName);
    if (network === undefined) throw notFound(`network ${endpoint.networkName} not found`);
    return network;
  }

  /** Addresses and names of a new endpoint. */
  #identity(live: LiveSandbox, endpoint: Endpoint, network: UpNetwork): Joined {
    const { requested } = endpoint;
    const interfaceName = network.addresses.length > 0 || network.remote ? freeInterface(live, network.record) : '';
    const endpointId = newId();
    const wished = [requested.ipv4, requested.ipv6].map((text) => parseAddress(text ?? ''));
    const taken: Address[] = [];
    try {
      for (const pool of network.addresses) {
        const wish = wished.find((each) => each?.family === pool.family);
        taken.push(pool.allocate(ownerOf(live), wish));
      }
    } catch (error) {
      for (const [index, address] of taken.entries()) network.addresses[index]?.release(address, live.containerId);
      throw error;
    }
    const v4 = taken.find(({ family }) => family === 4);
    const v6 = taken.find(({ family }) => family === 6);
    const { pools, internal } = network.record;
    const gatewayOf = (isV6: boolean): string =>
      internal || isParentless(network.record)
        ? ''
        : (pools.find(({ subnet }) => subnet.includes(':') === isV6)?.gateway ?? '');
    const lengthOf = (family: 4 | 6): number =>
      network.addresses.find((pool) => pool.family === family)?.prefixLength ?? 0;
    return {
      networkId: network.record.id,
      endpointId,
      ipv4: v4 ? formatAddress(v4) : '',
      ipv4PrefixLength: v4 ? lengthOf(4) : 0,
      gateway: v4 ? gatewayOf(false) && (network.record.routeGateway ?? gatewayOf(false)) : '',
      mac: interfaceName === '' ? '' : requested.mac || (v4 ? macOf(v4) : ''),
      ipv6: v6 ? formatAddress(v6) : '',
      ipv6PrefixLength: v6 ? lengthOf(6) : 0,
      ipv6Gateway: v6 ? gatewayOf(true) : '',
      ...(requested.linkLocal?.length ? { linkLocal: requested.linkLocal } : {}),
      interfaceName,
      hostInterface: network.bridge ? `${this.#parts.wires.vethPrefix}${endpointId.slice(0, 8)}` : '',
    };
  }

  /** As `#identity`, and by plugins where the network is theirs. */
  async #endpoint(live: LiveSandbox, endpoint: Endpoint, network: UpNetwork, ports: Ports) {
    const joined = this.#identity(live, endpoint, network);
    if (!network.remote) return joined;
    try {
      return await this.#parts.remotes.create(live, endpoint, network.record, joined, ports);
    } catch (error) {
      this.#release(live.containerId, joined);
      throw error;
    }
  }

  /** The network of an endpoint whose driver is a plugin. */
  #remoteOf({ joined }: JoinedEndpoint): NetworkRecord | undefined {
    const record = this.#parts.wires.find(joined.networkId)?.record;
    return record !== undefined && isRemoteDriver(record) ? record : undefined;
  }

  async #publishRemotely(gateway: JoinedEndpoint | undefined, ports: Ports): Promise<void> {
    const network = gateway && this.#remoteOf(gateway);
    if (network) await this.#parts.remotes.publish(network, gateway.joined, ports);
  }

  async #unpublishRemotely(gateway: JoinedEndpoint | undefined): Promise<void> {
    const network = gateway && this.#remoteOf(gateway);
    if (network) await this.#parts.remotes.unpublish(network, gateway.joined);
  }

  #wire(namespacePath: string, network: UpNetwork | undefined, joined: Joined): void {
    if (network?.macvlan) attachMacvlan(this.#parts.wires.host, namespacePath, joined, network.macvlan);
    this.#parts.remotes.plug(namespacePath, joined);
    if (!network?.bridge) return;
    const { index, settings } = network.bridge;
    attachVeth(this.#parts.wires.host, { namespacePath, joined, bridge: index, settings });
  }

  /** The interface goes at once: the namespace lives on. */
  async #unwire(live: LiveSandbox, joined: Joined): Promise<void> {
    await this.#parts.remotes.leave(live.sandbox.namespacePath, joined);
    if (joined.hostInterface !== '') await Netlink.removeLinksSlowly([joined.hostInterface]);
    else this.#removeInside(live, joined);
    this.#release(live.containerId, joined);
  }

  /** The namespace's end takes the interface, too. */
  #tryRemoveInside(place: Place | null, joined: Joined): void {
    try {
      this.#removeInside(place, joined);
    } catch (error) {
      this.#parts.log.warn(
        { error, interface: joined.interfaceName },
        'an interface is left to the end of its namespace',
      );
    }
  }

  #removeInside(place: Place | null, { interfaceName }: Joined): void {
    const namespace = place?.sandbox.namespacePath ?? '';
    if (namespace === '' || interfaceName === '' || !fs.existsSync(namespace)) return;
    using inside = Netlink.openIn(namespace);
    inside.removeLinks([interfaceName]);
  }

  #release(containerId: ContainerId, joined: Joined): void {
    const network = this.#parts.wires.find(joined.networkId);
    for (const address of addressesOf(joined))
      network?.addresses.find(({ family }) => family === address.family)?.release(address, containerId);
  }

  /** The endpoint with the default route. */
  #gatewayOf(endpoints: Endpoints): JoinedEndpoint | undefined {
    return Object.values(endpoints)
      .filter(isJoined)
      .filter(({ joined }) => joined.gateway !== '' || joined.ipv6Gateway !== '')
      .sort((a, b) => (a.networkName < b.networkName ? -1 : 1))[0];
  }

  /** Ports of the host lead to containers on bridges; those on a macvlan are on the outside network themselves. */
  #publishes(gateway: JoinedEndpoint | undefined): gateway is JoinedEndpoint {
    return gateway !== undefined && Boolean(this.#parts.wires.find(gateway.joined.networkId)?.bridge);
  }

  #publicationsOf({ sandbox, endpoints }: Place): Publication[] {
    const gateway = this.#gatewayOf(endpoints);
    if (gateway === undefined) return [];
    const { ipv4, ipv6 } = gateway.joined;
    const relayPort = this.#reservations.relayPort;
    return sandbox.published.map((port) => ({
      port,
      containerAddress: port.hostIp.includes(':') ? ipv6 : ipv4,
      relayPort,
    }));
  }

  async #reservePorts(live: LiveSandbox, gateway: JoinedEndpoint, ports: Ports): Promise<PublishedPort[]> {
    const { joined } = gateway;
    const hostBinding = this.#parts.wires.find(joined.networkId)?.bridge?.settings.hostBinding ?? '';
    const published: PublishedPort[] = [];
    try {
      for (const [key, bindings] of ports) {
        const { first, protocol } = parseContainerPorts(key);
        for (const binding of bindings) {
          const at = binding.HostIp === '' ? { ...binding, HostIp: hostBinding } : binding;
          published.push(...(await this.#reservations.reserve(ownerOf(live), protocol, first, at, targetOf(joined))));
        }
      }
      return published;
    } catch (error) {
      const endpoint = `${live.containerName} (${joined.endpointId})`;
      throw new EngineError(
        error instanceof EngineError ? error.kind : 'internal',
        `driver failed programming external connectivity on endpoint ${endpoint}: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }

  /** Its clients would lose datagrams for a while otherwise, which is no reason for a leave to fail. */
  #forgetFlows(gateway: JoinedEndpoint | undefined): void {
    for (const address of gateway ? addressesOf(gateway.joined) : []) {
      try {
        forgetUdpFlowsTo(address);
      } catch (error) {
        this.#parts.log.warn({ error, address: formatAddress(address) }, 'UDP flows to a container could not be ended');
      }
    }
  }

  /** Clients that sent before the port was published would be led nowhere as long as they go on. */
  #forgetOlderFlows({ sandbox }: Place): void {
    const ports = new Set(sandbox.published.flatMap((each) => (each.protocol === 'udp' ? [each.hostPort] : [])));
    if (ports.size === 0) return;
    try {
      const own = new Set(this.#parts.wires.host.addresses().map(({ address }) => formatAddress(address)));
      const isMeant = (address: Address, port: number): boolean => ports.has(port) && own.has(formatAddress(address));
      for (const family of [4, 6] as const) forgetUdpFlowsAt(family, isMeant);
    } catch (error) {
      this.#parts.log.warn({ error }, 'older UDP flows to a published port could not be ended');
    }
  }
}

/** The next free name inside: `eth0` and so on, or with the prefix that the network's options give. */
function freeInterface(live: LiveSandbox, { options }: NetworkRecord): string {
  const prefix = options[interfacePrefixOption] || 'eth';
  const used = new Set(joinedOf(live).map(({ joined }) => joined.interfaceName));
  let number = 0;
  while (used.has(`${prefix}${number}`)) number++;
  return `${prefix}${number}`;
}

/** Where relayed connections go. */
const targetOf = ({ ipv4, ipv6 }: Joined): string => ipv4 || ipv6;
const ownerOf = ({ containerId, containerName }: LiveSandbox) => ({ id: containerId, name: containerName });
const joinedOf = ({ endpoints }: Place): JoinedEndpoint[] => Object.values(endpoints).filter(isJoined);
const placeOf = ({ sandbox, endpoints }: Place): Place => ({ sandbox, endpoints });
const addressesOf = ({ ipv4, ipv6 }: Joined): Address[] =>
  [ipv4, ipv6].map(parseAddress).filter((address) => address !== undefined);
