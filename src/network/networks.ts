/**
 * The networks of this host and what is joined to them.
 *
 * Which addresses and ports are taken is known from records and live sandboxes alone (`reconcile` tells them after a restart),
 * never from a table that could disagree with them. A join without published ports starts no process; its cost does not depend
 * on how many others there are.
 */
import { createHash } from 'node:crypto';
import type { Config } from '../config/types.ts';
import type { NewEvent } from '../event/types.ts';
import { conflict, EngineError, forbidden, invalid, invariant, messageOf, notFound } from '../lib/errors.ts';
import { type ContainerId, type NetworkId, newId } from '../lib/ids.ts';
import { overlap } from '../lib/ip.ts';
import type { Log } from '../lib/log.ts';
import { Netlink } from '../platform/netlink.ts';
import { Ruleset } from '../platform/ruleset.ts';
import type { Plugins } from '../plugin/types.ts';
import type { Collection, Store } from '../store/types.ts';
import { bridgeSettings, isForeignBridge, subnetsOfHost } from './bridge.ts';
import { configuredPool, type DefaultBridgeConfig, defaultBridge } from './default-bridge.ts';
import { Firewall } from './firewall.ts';
import { HostForwarding } from './forwarding.ts';
import { isParentToBeMade } from './macvlan.ts';
import { Namespaces } from './namespaces.ts';
import { chooseSubnet, type DefaultPool, defaultPools, parsePool, poolOf, type TakenSubnet } from './pools.ts';
import { type Prepared, Remotes } from './remote.ts';
import { checkEndpoint, predefined, recordOf } from './requests.ts';
import { Sandboxes } from './sandboxes.ts';
import type {
  Endpoint,
  InterfaceCounters,
  JoinRequest,
  LiveSandbox,
  NetworkRecord,
  NetworkRequest,
  Networks,
  Place,
  Pool,
  PortBinding,
  Sandbox,
} from './types.ts';
import { type UpNetwork, Wires } from './wires.ts';

export interface NetworksOptions {
  readonly config: DefaultBridgeConfig & Pick<Config, 'execRoot' | 'hostForwardPolicy' | 'defaultAddressPools'>;
  readonly store: Pick<Store, 'collection' | 'commit'>;
  readonly plugins: Plugins;
  readonly log: Log;
  /** Of the default network. Two engines on one host need two. */
  readonly bridgeName?: string;
}

/** `reconcile` comes before everything else but `list` and `get`. */
export function createNetworks(options: NetworksOptions): Networks {
  return new LocalNetworks(options);
}

/** Networks that a prune removes at the same time. */
const pruneWidth = 8;

/** Rules that somebody flushed are back within two of these. */
const watchMs = 1000;

const eventOf = ({ id, name, driver }: NetworkRecord, action: string): NewEvent => ({
  type: 'network',
  action,
  id,
  attributes: { name, type: driver },
});

/** Schema 1 had the three predefined networks only, which are made anew where they differ. */
function upgrade(body: unknown): NetworkRecord {
  const old = body as NetworkRecord;
  const pools = old.ipam.config.map(({ subnet = '', gateway = '' }) => ({
    subnet,
    range: subnet,
    gateway,
    reserved: {},
  }));
  return { ...old, pools, userSubnets: false };
}

class LocalNetworks implements Networks {
  readonly #config: NetworksOptions['config'];
  readonly #store: NetworksOptions['store'];
  readonly #log: Log;
  readonly #bridgeName: string;
  /** Where subnets nobody asked for are taken from. */
  readonly #pools: readonly DefaultPool[];
  readonly #records: Collection<NetworkRecord>;
  readonly #firewall: Firewall;
  readonly #host = new Netlink();
  readonly #ruleset = new Ruleset();
  readonly #forwarding: HostForwarding;
  #forwardPolicy: Config['hostForwardPolicy'];
  #watch: NodeJS.Timeout | null = null;
  readonly #wires: Wires;
  readonly #remotes: Remotes;
  readonly #sandboxes: Sandboxes;
  /** Networks being made: their names and subnets are taken before their records are there. */
  readonly #coming = new Map<NetworkId, NetworkRecord>();

  constructor(options: NetworksOptions) {
    this.#config = options.config;
    this.#store = options.store;
    this.#log = options.log;
    this.#bridgeName = options.bridgeName ?? 'slipway0';
    const { defaultAddressPools } = options.config;
    this.#pools = defaultAddressPools.length > 0 ? defaultAddressPools : defaultPools;
    const mark = createHash('sha256').update(this.#bridgeName).digest('hex').slice(0, 4);
    this.#records = options.store.collection<NetworkRecord>({ kind: 'network', schema: 2, upgrade });
    const table = this.#bridgeName === 'slipway0' ? 'slipway' : `slipway_${mark}`;
    this.#firewall = new Firewall(table, this.#ruleset, options.log);
    this.#forwardPolicy = options.config.hostForwardPolicy;
    this.#forwarding = new HostForwarding(table, this.#ruleset, options.log, () =>
      this.#forwardPolicy === 'obey' ? [] : this.#wires.rules(),
    );
    this.#wires = new Wires(this.#host, `sw${mark}`, options.log);
    this.#remotes = new Remotes(options.plugins, options.store, this.#host, options.log);
    this.#sandboxes = new Sandboxes({
      namespaces: new Namespaces(options.config.execRoot),
      wires: this.#wires,
      remotes: this.#remotes,
      firewall: this.#firewall,
      log: options.log,
    });
  }

  list(): readonly NetworkRecord[] {
    return [...this.#records.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  get(nameOrId: string): NetworkRecord | undefined {
    const all = this.list();
    const exact = all.find(({ name }) => name === nameOrId) ?? all.find(({ id }) => id === nameOrId);
    if (exact !== undefined || nameOrId === '') return exact;
    const begun = all.filter(({ id }) => id.startsWith(nameOrId));
    if (begun.length > 1)
      throw invalid(`network ${nameOrId} is ambiguous (${begun.length} matches found based on ID prefix)`);
    return begun[0];
  }

  async reconcile(live: readonly LiveSandbox[]): Promise<void> {
    await this.#ensurePredefined(live.some(({ endpoints }) => 'bridge' in endpoints));
    await this.#project(live);
    this.#remotes.reconcile(this.list(), this.#sandboxes.endpointIds());
    this.#watch ??= setInterval(() => void this.#lookAfter(), watchMs).unref();
  }

  async refresh({ hostForwardPolicy }: Pick<Config, 'hostForwardPolicy'>): Promise<void> {
    this.#forwardPolicy = hostForwardPolicy;
    if (this.#watch !== null) await this.#project([]);
  }

  /** The kernel becomes what records and live sandboxes say. */
  async #project(live: readonly LiveSandbox[]): Promise<void> {
    for (const record of this.list()) this.#bringUp(record);
    this.#sandboxes.adopt(live);
    await this.#sandboxes.holdPorts();
    // Asked anew: joins and leaves may have come in meanwhile.
    await this.#firewall.rebuild(this.#wires.rules(), this.#sandboxes.publications());
    await this.#forwarding.settle();
  }

  /** Somebody may flush all rules, or change what the host does with forwarded traffic. */
  async #lookAfter(): Promise<void> {
    try {
      await this.#firewall.check();
      await this.#forwarding.check();
    } catch (error) {
      this.#log.error({ error }, `the firewall could not be looked after: ${messageOf(error)}`);
    }
  }

  async create(request: NetworkRequest): Promise<NetworkRecord> {
    const prepared = await this.#remotes.prepare(request);
    try {
      return await this.#create(request, prepared);
    } catch (error) {
      if (prepared?.pools) await this.#remotes.abandon(request.ipam.driver, prepared.pools);
      throw error;
    }
  }

  async #create(request: NetworkRequest, prepared: Prepared | null): Promise<NetworkRecord> {
    const id = newId<NetworkId>();
    const taken = this.#takenSubnets();
    if (prepared) this.#remotes.checkPools(prepared, taken);
    const others = [...this.#records.values(), ...this.#coming.values()];
    if (!predefined.includes(request.name) && others.some(({ name }) => name === request.name))
      throw conflict(`network with name ${request.name} already exists`);
    const bare = recordOf(request, id, new Date().toISOString(), this.#pools, taken, prepared);
    const record: NetworkRecord = { ...bare, ...this.#linkOf(bare, others) };
    this.#coming.set(id, record);
    try {
      await this.#store.commit([this.#records.put(record)]);
      try {
        const { rules } = this.#wires.raise(record, bridgeSettings(record, this.#config.mtu));
        if (rules) await Promise.all([this.#firewall.addBridge(rules), this.#forwarding.settle()]);
        await this.#remotes.createNetwork(record);
        await this.#store.commit([], [eventOf(record, 'create')]);
      } catch (error) {
        await this.#takeDown(record, []);
        throw error;
      }
      return record;
    } finally {
      this.#coming.delete(id);
    }
  }

  async remove(nameOrId: string): Promise<NetworkRecord> {
    const record = this.get(nameOrId);
    if (record === undefined) throw notFound(`network ${nameOrId} not found`);
    if (predefined.includes(record.name))
      throw forbidden(`${record.name} is a pre-defined network and cannot be removed`);
    if (this.#sandboxes.isUsed(record))
      throw forbidden(`error while removing network: network ${record.name} id ${record.id} has active endpoints`);
    await this.#takeDown(record, [eventOf(record, 'destroy')], () => this.#remotes.deleteNetwork(record));
    return record;
  }

  async prune(isWanted: (network: NetworkRecord) => boolean): Promise<readonly string[]> {
    const removed: string[] = [];
    const wanted = this.list().filter((network) => !predefined.includes(network.name) && isWanted(network));
    const remove = async ({ id, name }: NetworkRecord): Promise<void> => {
      try {
        await this.remove(id);
        removed.push(name);
      } catch (error) {
        // In use, or removed by somebody else meanwhile.
        if (!(error instanceof EngineError && ['forbidden', 'not-found'].includes(error.kind))) throw error;
      }
    };
    // Bridges that go in one turn cost the kernel as much as one.
    while (wanted.length > 0) await Promise.all(wanted.splice(0, pruneWidth).map(remove));
    await this.#store.commit([], [{ type: 'network', action: 'prune', id: '', attributes: { reclaimed: '0' } }]);
    return removed.sort();
  }

  check(endpoint: Endpoint): void {
    const network = this.get(endpoint.networkName);
    if (network === undefined) throw notFound(`network ${endpoint.networkName} not found`);
    checkEndpoint(endpoint, network);
  }

  join(request: JoinRequest): Promise<Place> {
    return this.#sandboxes.join(request);
  }

  connect(live: LiveSandbox, endpoint: Endpoint, ports: ReadonlyMap<string, readonly PortBinding[]>): Promise<Place> {
    return this.#sandboxes.connect(live, endpoint, ports);
  }

  disconnect(
    live: LiveSandbox,
    networkName: string,
    ports: ReadonlyMap<string, readonly PortBinding[]>,
  ): Promise<Place> {
    return this.#sandboxes.disconnect(live, networkName, ports);
  }

  rename(containerId: ContainerId, name: string): void {
    this.#sandboxes.rename(containerId, name);
  }

  leave(containerId: ContainerId, place: Place | null): Promise<void> {
    return this.#sandboxes.leave(containerId, place);
  }

  counters(sandbox: Sandbox): Readonly<Record<string, InterfaceCounters>> {
    using inside = Netlink.openIn(sandbox.namespacePath);
    const links = inside.links().filter(({ name }) => name !== 'lo');
    return Object.fromEntries(links.map(({ name, counters }) => [name, counters]));
  }

  async close(): Promise<void> {
    if (this.#watch !== null) clearInterval(this.#watch);
    this.#watch = null;
    await this.#sandboxes.close();
    this.#wires.close();
    this.#ruleset[Symbol.dispose]();
    this.#host[Symbol.dispose]();
  }

  /** The record goes last: what a crash leaves half taken down is brought up again. */
  async #takeDown(record: NetworkRecord, events: readonly NewEvent[], before?: () => Promise<void>): Promise<void> {
    const up = this.#wires.lower(record.id);
    await before?.();
    if (up?.rules) await Promise.all([this.#firewall.removeBridge(up.rules), this.#forwarding.settle()]);
    await this.#wires.removeLink(record);
    await this.#store.commit([this.#records.remove(record.id)], events);
  }

  /** What of the link under a new network is not the network's own. Throws when it is not to be had. */
  #linkOf(record: NetworkRecord, others: readonly NetworkRecord[]): Partial<NetworkRecord> {
    if (record.driver === 'macvlan') return isParentToBeMade(this.#host, record, others) ? { madeParent: true } : {};
    if (record.bridgeName === '') return {};
    const other = others.find(({ bridgeName }) => bridgeName === record.bridgeName);
    if (other) throw forbidden(`bridge ${record.bridgeName} belongs to network ${other.name} (${other.id}) already`);
    return isForeignBridge(this.#host, record.bridgeName) ? { foreignBridge: true } : {};
  }

  #bringUp(record: NetworkRecord): UpNetwork | undefined {
    try {
      return this.#wires.raise(record, bridgeSettings(record, this.#config.mtu));
    } catch (error) {
      // The others work without it; a join tells what is wrong.
      this.#log.error({ error, network: record.name }, `a network could not be brought up: ${messageOf(error)}`);
      return undefined;
    }
  }

  /** What networks have and what the host reaches by itself. */
  #takenSubnets(except?: NetworkRecord): TakenSubnet[] {
    const networks = [...this.#records.values(), ...this.#coming.values()].filter(({ id }) => id !== except?.id);
    const bridges = new Set([...networks.map(({ bridgeName }) => bridgeName), this.#bridgeName]);
    return [
      ...networks.flatMap(({ name, pools }) =>
        pools.map(({ subnet }) => ({ subnet: parsePool(subnet), holder: `network ${name}` })),
      ),
      ...subnetsOfHost(this.#host, bridges),
    ];
  }

  /** The pool in the record stays while containers use it; else what is configured, else one that collides with nothing. */
  #poolOfDefault(inUse: boolean): Pool {
    const known = this.get('bridge');
    const [recorded] = known?.pools ?? [];
    const configured = configuredPool(this.#config);
    if (recorded !== undefined && inUse) {
      if (
        configured !== undefined &&
        JSON.stringify([configured.gateway, configured.range]) !== JSON.stringify([recorded.gateway, recorded.range])
      ) {
        this.#log.warn(
          { bip: this.#config.bip },
          'its new subnet takes effect when no container runs on the default bridge',
        );
      }
      return recorded;
    }
    if (configured !== undefined) return configured;
    const taken = this.#takenSubnets(known);
    const fits = recorded && !taken.some(({ subnet }) => overlap(subnet, parsePool(recorded.subnet)));
    return fits ? recorded : poolOf({}, chooseSubnet(this.#pools, 4, taken), true);
  }

  /** Ids and dates of the three are made once and stay. */
  async #ensurePredefined(inUse: boolean): Promise<void> {
    const pool = this.#poolOfDefault(inUse);
    const common = {
      scope: 'local',
      labels: {},
      internal: false,
      attachable: false,
      enableIPv6: false,
      userSubnets: false,
    } as const;
    const bridge: NetworkRecord = {
      ...common,
      ...this.#identity('bridge'),
      ...defaultBridge(this.#config, pool, this.#bridgeName),
    };
    const plain = {
      ...common,
      options: {},
      ipam: { driver: 'default', options: null, config: [] },
      pools: [],
      bridgeName: '',
    };
    const wanted: NetworkRecord[] = [
      bridge,
      { ...plain, ...this.#identity('host'), driver: 'host' },
      { ...plain, ...this.#identity('none'), driver: 'null' },
    ];
    const changed = wanted.filter((each) => JSON.stringify(this.#records.get(each.id)) !== JSON.stringify(each));
    if (changed.length > 0) await this.#store.commit(changed.map((record) => this.#records.put(record)));
    invariant(this.get('bridge') !== undefined, 'the default network has a record');
  }

  #identity(name: string): { readonly id: NetworkId; readonly name: string; readonly created: string } {
    const known = this.get(name);
    return { id: known?.id ?? newId<NetworkId>(), name, created: known?.created ?? new Date().toISOString() };
  }
}
