/**
 * The networks of this host: `bridge`, `host` and `none`.
 *
 * Which addresses and ports are taken is known from the live sandboxes alone (`reconcile` tells them after a restart), never from
 * a table that could disagree with them. A join without published ports starts no process; its cost does not depend on how
 * many others there are.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import type { Config } from '../config/types.ts';
import { EngineError, invalid, invariant, messageOf } from '../lib/errors.ts';
import { type ContainerId, type NetworkId, newId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';
import { forgetUdpFlowsTo } from '../platform/conntrack.ts';
import { Netlink } from '../platform/netlink.ts';
import type { Collection, Store } from '../store/types.ts';
import { Addresses } from './addresses.ts';
import { type BridgeAddress, chooseBridgeAddress, ensureBridge, parseBridgeAddress, subnetsOfHost } from './bridge.ts';
import { Firewall, type Publication } from './firewall.ts';
import { formatIPv4, formatSubnet, macOf, overlap, parseCidr, parseIPv4 } from './ipv4.ts';
import { attach, Namespaces } from './namespaces.ts';
import { parseContainerPorts } from './ports.ts';
import { Reservations } from './reservations.ts';
import type {
  InterfaceCounters,
  Joined,
  JoinRequest,
  LiveSandbox,
  NetworkRecord,
  Networks,
  PublishedPort,
  Sandbox,
} from './types.ts';

export interface NetworksOptions {
  readonly config: Pick<Config, 'bip' | 'mtu' | 'execRoot'>;
  readonly store: Pick<Store, 'collection' | 'commit'>;
  readonly log: Log;
  /** Of the default network. Two engines on one host need two. */
  readonly bridgeName?: string;
}

/** `reconcile` comes before everything else but `list` and `get`. */
export function createNetworks(options: NetworksOptions): Networks {
  return new LocalNetworks(options);
}

/** How long the kernel may take to end a namespace that nobody uses, before its veth is removed by hand. */
const vanishMs = 1000;

class LocalNetworks implements Networks {
  readonly #config: NetworksOptions['config'];
  readonly #store: NetworksOptions['store'];
  readonly #log: Log;
  readonly #bridgeName: string;
  readonly #records: Collection<NetworkRecord>;
  readonly #namespaces: Namespaces;
  readonly #firewall: Firewall;
  readonly #reservations: Reservations;
  readonly #host = new Netlink();
  /** Names of our veths' host ends begin with it. */
  readonly #vethPrefix: string;
  /** What is joined or being joined. */
  readonly #held = new Map<ContainerId, LiveSandbox>();
  /** Host ends that should vanish with their namespaces. */
  readonly #leaving = new Set<string>();
  #leavingCheck: NodeJS.Timeout | null = null;
  #bridge: { readonly record: NetworkRecord; readonly index: number; readonly address: BridgeAddress } | null = null;
  #addresses: Addresses | null = null;

  constructor(options: NetworksOptions) {
    this.#config = options.config;
    this.#store = options.store;
    this.#log = options.log;
    this.#bridgeName = options.bridgeName ?? 'slipway0';
    const mark = createHash('sha256').update(this.#bridgeName).digest('hex').slice(0, 4);
    this.#vethPrefix = `sw${mark}`;
    this.#records = options.store.collection<NetworkRecord>({ kind: 'network', schema: 1 });
    this.#namespaces = new Namespaces(options.config.execRoot);
    this.#firewall = new Firewall(this.#bridgeName === 'slipway0' ? 'slipway' : `slipway_${mark}`, options.log);
    this.#reservations = new Reservations(options.log);
  }

  list(): readonly NetworkRecord[] {
    return [...this.#records.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** By name, id, or the beginning of an id that no other has. */
  get(nameOrId: string): NetworkRecord | undefined {
    const all = this.list();
    const exact = all.find(({ id, name }) => name === nameOrId || id === nameOrId);
    if (exact !== undefined || nameOrId === '') return exact;
    const begun = all.filter(({ id }) => id.startsWith(nameOrId));
    return begun.length === 1 ? begun[0] : undefined;
  }

  async reconcile(live: readonly LiveSandbox[]): Promise<void> {
    // A join that is under way, or younger than the caller's list, counts like those in the list.
    for (const sandbox of live) this.#held.set(sandbox.containerId, sandbox);
    const joined = [...this.#held.values()].filter(isJoined);

    const address = this.#chooseAddress(joined.length > 0);
    const record = await this.#ensureRecords(address);
    const index = ensureBridge(this.#host, this.#bridgeName, address);
    this.#bridge = { record, index, address };
    this.#takeAddresses(joined, record, address);

    this.#namespaces.prepare();
    this.#sweep(joined);
    for (const sandbox of joined) this.#reattach(sandbox, index);
    await Promise.all(
      joined.flatMap((sandbox) =>
        sandbox.published.map((port) =>
          this.#reservations.adopt({ id: sandbox.containerId, name: sandbox.containerName }, port, sandbox.joined.ipv4),
        ),
      ),
    );
    // Asked anew: joins and leaves may have come in meanwhile.
    await this.#firewall.rebuild(
      [{ bridgeName: this.#bridgeName, subnet: formatSubnet(address.subnet) }],
      [...this.#held.values()].flatMap(publicationsOf),
    );
  }

  async join(request: JoinRequest): Promise<Sandbox> {
    return request.mode === 'none' ? this.#joinNone(request) : await this.#joinBridge(request);
  }

  async leave(containerId: ContainerId, sandbox: Sandbox | null): Promise<void> {
    const held = this.#held.get(containerId) ?? sandbox;
    const failures: unknown[] = [];
    try {
      await this.#firewall.unpublish(held === null ? [] : publicationsOf(held));
    } catch (error) {
      failures.push(error);
    }
    this.#reservations.release(containerId);
    if (held?.joined && held.published.some(({ protocol }) => protocol === 'udp')) this.#forgetFlows(held.joined);
    try {
      this.#detach(containerId, held?.joined ?? null);
    } catch (error) {
      failures.push(error);
    }
    this.#held.delete(containerId);
    if (failures.length > 0)
      throw new AggregateError(failures, `leaving the network: ${failures.map(messageOf).join('; ')}`);
  }

  counters(sandbox: Sandbox): Readonly<Record<string, InterfaceCounters>> {
    using inside = Netlink.openIn(sandbox.namespacePath);
    const links = inside.links().filter(({ name }) => name !== 'lo');
    return Object.fromEntries(links.map(({ name, counters }) => [name, counters]));
  }

  async close(): Promise<void> {
    if (this.#leavingCheck !== null) clearTimeout(this.#leavingCheck);
    this.#removeLeaving();
    this.#reservations.close();
    this.#host[Symbol.dispose]();
  }

  #joinNone(request: JoinRequest): Sandbox {
    const { containerId, containerName } = request;
    const sandbox = { namespacePath: this.#namespaces.create(containerId), joined: null, published: [] };
    this.#held.set(containerId, { ...sandbox, containerId, containerName });
    return sandbox;
  }

  async #joinBridge(request: JoinRequest): Promise<Sandbox> {
    const { containerId, containerName, ports } = request;
    const bridge = this.#bridge;
    const addresses = this.#addresses;
    invariant(bridge !== null && addresses !== null, 'reconcile comes before join');
    if (request.endpoint?.requested.ipv4) {
      throw invalid('user specified IP address is supported on user defined networks only');
    }

    const address = addresses.allocate(containerId);
    const endpointId = newId();
    const joined: Joined = {
      networkId: bridge.record.id,
      endpointId,
      ipv4: formatIPv4(address),
      ipv4PrefixLength: bridge.address.subnet.prefixLength,
      gateway: formatIPv4(bridge.address.gateway),
      mac: request.endpoint?.requested.mac || macOf(address),
      ipv6: '',
      ipv6PrefixLength: 0,
      ipv6Gateway: '',
      hostInterface: `${this.#vethPrefix}${endpointId.slice(0, 8)}`,
    };
    const sandbox: { -readonly [K in keyof LiveSandbox]: LiveSandbox[K] } = {
      containerId,
      containerName,
      namespacePath: this.#namespaces.pathOf(containerId),
      joined,
      published: [],
    };
    this.#held.set(containerId, sandbox);
    try {
      if (ports.size > 0) sandbox.published = await this.#reservePorts(request, joined);
      // nft works while the namespace is made; the failure of either is the failure of both.
      const published = this.#firewall.publish(publicationsOf(sandbox));
      published.catch(() => undefined);
      this.#namespaces.create(containerId);
      this.#attach(sandbox, joined, bridge.index);
      await published;
      return { namespacePath: sandbox.namespacePath, joined, published: sandbox.published };
    } catch (error) {
      // A leave takes down whatever there is.
      await this.leave(containerId, sandbox).catch((failure: unknown) => {
        this.#log.error({ error: failure, container: containerName }, 'a join that failed could not be undone at once');
      });
      throw error;
    }
  }

  async #reservePorts(request: JoinRequest, joined: Joined): Promise<PublishedPort[]> {
    const owner = { id: request.containerId, name: request.containerName };
    const published: PublishedPort[] = [];
    try {
      for (const [key, bindings] of request.ports) {
        const { first, protocol } = parseContainerPorts(key);
        for (const binding of bindings) {
          published.push(...(await this.#reservations.reserve(owner, protocol, first, binding, joined.ipv4)));
        }
      }
      return published;
    } catch (error) {
      const endpoint = `${request.containerName} (${joined.endpointId})`;
      throw new EngineError(
        error instanceof EngineError ? error.kind : 'internal',
        `driver failed programming external connectivity on endpoint ${endpoint}: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }

  /** Its clients would lose datagrams for a while otherwise, which is no reason for a leave to fail. */
  #forgetFlows({ ipv4 }: Joined): void {
    try {
      forgetUdpFlowsTo(parseIPv4(ipv4) ?? 0);
    } catch (error) {
      this.#log.warn({ error, address: ipv4 }, 'UDP flows to a container that left could not be ended');
    }
  }

  #attach({ namespacePath, published }: Sandbox, joined: Joined, bridge: number): void {
    const options = { namespacePath, joined, bridge, mtu: this.#config.mtu, published: published.length > 0 };
    attach(this.#host, options);
  }

  /** Repeatable. The veth goes with the namespace, a few milliseconds later: see `#removeLeaving`. */
  #detach(containerId: ContainerId, joined: Joined | null): void {
    this.#namespaces.remove(containerId);
    if (joined === null) return;
    this.#leaving.add(joined.hostInterface);
    this.#leavingCheck ??= setTimeout(() => {
      this.#leavingCheck = null;
      this.#removeLeaving();
    }, vanishMs).unref();
    this.#addresses?.release(parseIPv4(joined.ipv4) ?? 0, containerId);
  }

  /**
   * Removing a veth makes the calling thread wait some 30 ms; when its namespace ends, the kernel does the same on its own time.
   * Only what is still there after a while, because something else holds the namespace, is removed here, all at once.
   */
  #removeLeaving(): void {
    try {
      const present = new Set(this.#host.links().map(({ name }) => name));
      this.#host.removeLinks([...this.#leaving].filter((name) => present.has(name)));
    } catch (error) {
      this.#log.warn({ error, links: [...this.#leaving] }, 'could not remove links of containers that left');
    }
    this.#leaving.clear();
  }

  /** The address in the record stays while containers use it; else what is configured, else one that collides with nothing. */
  #chooseAddress(inUse: boolean): BridgeAddress {
    const recorded = this.#recordedAddress();
    const configured = this.#config.bip === '' ? undefined : parseBridgeAddress(this.#config.bip);
    if (recorded !== undefined && inUse) {
      if (configured !== undefined && configured.gateway !== recorded.gateway) {
        this.#log.warn({ bip: this.#config.bip }, 'bip takes effect when no container runs on the default bridge');
      }
      return recorded;
    }
    if (configured !== undefined) return configured;
    const used = subnetsOfHost(this.#host, this.#bridgeName);
    if (recorded !== undefined && !used.some((subnet) => overlap(subnet, recorded.subnet))) return recorded;
    return chooseBridgeAddress(used);
  }

  #recordedAddress(): BridgeAddress | undefined {
    const [config] = this.get('bridge')?.ipam.config ?? [];
    const subnet = parseCidr(config?.subnet ?? '');
    const gateway = parseIPv4(config?.gateway ?? '');
    if (subnet === undefined || gateway === undefined) return undefined;
    return { gateway, subnet: { base: subnet.address, prefixLength: subnet.prefixLength } };
  }

  /** Ids and dates of the three are made once and stay. */
  async #ensureRecords(address: BridgeAddress): Promise<NetworkRecord> {
    const common = { scope: 'local', labels: {}, internal: false, attachable: false, enableIPv6: false } as const;
    const bridge: NetworkRecord = {
      ...common,
      ...this.#identity('bridge'),
      driver: 'bridge',
      options: {
        'com.docker.network.bridge.default_bridge': 'true',
        'com.docker.network.bridge.enable_icc': 'true',
        'com.docker.network.bridge.enable_ip_masquerade': 'true',
        'com.docker.network.bridge.host_binding_ipv4': '0.0.0.0',
        'com.docker.network.bridge.name': this.#bridgeName,
        'com.docker.network.driver.mtu': String(this.#config.mtu),
      },
      ipam: {
        driver: 'default',
        config: [{ subnet: formatSubnet(address.subnet), gateway: formatIPv4(address.gateway) }],
      },
      bridgeName: this.#bridgeName,
    };
    const plain = { ...common, options: {}, ipam: { driver: 'default', config: [] }, bridgeName: '' };
    const wanted: NetworkRecord[] = [
      bridge,
      { ...plain, ...this.#identity('host'), driver: 'host' },
      { ...plain, ...this.#identity('none'), driver: 'null' },
    ];
    const changed = wanted.filter(({ id }) => this.#records.get(id) === undefined);
    if (JSON.stringify(this.#records.get(bridge.id)) !== JSON.stringify(bridge) && !changed.includes(bridge)) {
      changed.push(bridge);
    }
    if (changed.length > 0) await this.#store.commit(changed.map((record) => this.#records.put(record)));
    return bridge;
  }

  #identity(name: string): { readonly id: NetworkId; readonly name: string; readonly created: string } {
    const known = this.get(name);
    return { id: known?.id ?? newId<NetworkId>(), name, created: known?.created ?? new Date().toISOString() };
  }

  #takeAddresses(joined: readonly JoinedSandbox[], record: NetworkRecord, address: BridgeAddress): void {
    const addresses = new Addresses(`bridge (${record.id})`, address.subnet, address.gateway);
    for (const { joined: place, containerId } of joined) {
      try {
        addresses.take(parseIPv4(place.ipv4) ?? 0, containerId);
      } catch (error) {
        this.#log.error({ error, container: containerId }, 'two containers have one address');
      }
    }
    this.#addresses = addresses;
  }

  /** Removes namespaces and links of ours that nothing joined claims. */
  #sweep(joined: readonly JoinedSandbox[]): void {
    for (const name of this.#namespaces.list()) {
      if (!this.#held.has(name as ContainerId)) this.#namespaces.remove(name);
    }
    const claimed = new Set(joined.map((sandbox) => sandbox.joined.hostInterface));
    const stray = this.#host
      .links()
      .filter((link) => link.kind === 'veth' && link.name.startsWith(this.#vethPrefix) && !claimed.has(link.name));
    this.#host.removeLinks(stray.map(({ name }) => name));
  }

  /** Brings the host's end of a live sandbox back onto the bridge, also if bridge or pair are gone. */
  #reattach(sandbox: JoinedSandbox, bridge: number): void {
    const { joined, namespacePath, containerName } = sandbox;
    try {
      const link = this.#host.link(joined.hostInterface);
      if (link !== undefined) {
        if (link.master !== bridge) this.#host.setMaster(link.index, bridge);
        if (!link.up) this.#host.setUp(link.index);
        if (sandbox.published.length > 0) this.#host.setHairpin(link.index);
      } else if (fs.existsSync(namespacePath)) {
        this.#attach(sandbox, joined, bridge);
      }
    } catch (error) {
      this.#log.error(
        { error, container: containerName },
        'could not connect a running container to its network again',
      );
    }
  }
}

type JoinedSandbox = LiveSandbox & { readonly joined: Joined };
const isJoined = (sandbox: LiveSandbox): sandbox is JoinedSandbox => sandbox.joined !== null;

function publicationsOf({ joined, published }: Sandbox): Publication[] {
  return joined === null ? [] : published.map((port) => ({ port, containerAddress: joined.ipv4 }));
}
