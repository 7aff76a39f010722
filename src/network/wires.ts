/** What networks are in the kernel: bridges, and the addresses they have to give. */
import { unavailable } from '../lib/errors.ts';
import type { NetworkId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';
import { Netlink } from '../platform/netlink.ts';
import { type BridgeSettings, ensureBridge } from './bridge.ts';
import { ensureParent, type MacvlanParent, parentNameOf } from './macvlan.ts';
import { Addresses } from './pools.ts';
import { isRemote } from './remote.ts';
import type { BridgeRules } from './table.ts';
import type { NetworkRecord } from './types.ts';

/** A network that can be joined. */
export interface UpNetwork {
  readonly record: NetworkRecord;
  /** Of each family that it has. */
  readonly addresses: readonly Addresses[];
  /** Null for drivers without a bridge. */
  readonly bridge: { readonly index: number; readonly settings: BridgeSettings } | null;
  readonly rules: BridgeRules | null;
  /** Null for other drivers. */
  readonly macvlan: MacvlanParent | null;
  /** Endpoints are made by plugins, or have their addresses from one. */
  readonly remote: boolean;
}

/** How long the kernel may take to end a namespace that nobody uses, before its veth is removed by hand. */
const vanishMs = 1000;

export class Wires {
  readonly host: Netlink;
  /** Names of our veths' host ends begin with it. */
  readonly vethPrefix: string;
  readonly #log: Log;
  readonly #up = new Map<NetworkId, UpNetwork>();
  /** Host ends that should vanish with their namespaces. */
  readonly #leaving = new Set<string>();
  #leavingCheck: NodeJS.Timeout | null = null;
  /** Bridges and macvlan parents to be removed in this turn, together. */
  #doomed: { readonly names: Set<string>; readonly done: Promise<void> } | null = null;

  constructor(host: Netlink, vethPrefix: string, log: Log) {
    this.host = host;
    this.vethPrefix = vethPrefix;
    this.#log = log;
  }

  networks(): Iterable<UpNetwork> {
    return this.#up.values();
  }

  rules(): BridgeRules[] {
    return [...this.#up.values()].flatMap(({ rules }) => rules ?? []);
  }

  /** Throws when it could not be brought up, or is being removed. */
  get(record: NetworkRecord): UpNetwork {
    const up = this.#up.get(record.id);
    if (up === undefined) throw unavailable(`network ${record.name} is not up`);
    return up;
  }

  find(id: NetworkId): UpNetwork | undefined {
    return this.#up.get(id);
  }

  findByName(name: string): UpNetwork | undefined {
    return [...this.#up.values()].find(({ record }) => record.name === name);
  }

  /** Makes it in the kernel, or brings what is there to what it shall be. Addresses taken before stay taken. */
  raise(record: NetworkRecord, settings: BridgeSettings): UpNetwork {
    const label = `${record.name} (${record.id})`;
    const before = this.#up.get(record.id);
    const same = before !== undefined && JSON.stringify(before.record.pools) === JSON.stringify(record.pools);
    const up: UpNetwork = {
      record,
      addresses: same
        ? before.addresses
        : record.pools.filter(({ poolId }) => poolId === undefined).map((pool) => new Addresses(label, pool)),
      macvlan: record.driver === 'macvlan' ? ensureParent(this.host, record) : null,
      remote: isRemote(record),
      bridge: record.driver === 'bridge' ? { index: ensureBridge(this.host, record), settings } : null,
      rules:
        record.driver === 'bridge'
          ? {
              bridgeName: record.bridgeName,
              subnets: record.pools.map(({ subnet }) => subnet),
              internal: record.internal,
              masquerade: settings.masquerade,
              icc: settings.icc,
            }
          : null,
    };
    this.#up.set(record.id, up);
    return up;
  }

  /** From now on it cannot be joined. */
  lower(id: NetworkId): UpNetwork | undefined {
    const up = this.#up.get(id);
    this.#up.delete(id);
    return up;
  }

  /** What was made for the network. Removing a link takes the kernel some 30 ms: all asked for in one turn go together, and a thread waits. */
  removeLink(record: NetworkRecord): Promise<void> {
    const made = record.driver === 'macvlan' ? record.madeParent === true : record.foreignBridge !== true;
    const name = record.driver === 'macvlan' ? parentNameOf(record) : record.bridgeName;
    if (!made || name === '') return Promise.resolve();
    if (this.#doomed === null) {
      const names = new Set<string>();
      const done = new Promise<void>((resolve, reject) => {
        setImmediate(() => {
          this.#doomed = null;
          Netlink.removeLinksSlowly([...names]).then(resolve, reject);
        });
      });
      this.#doomed = { names, done };
    }
    this.#doomed.names.add(name);
    return this.#doomed.done;
  }

  /**
   * Removing a veth makes the calling thread wait some 30 ms; when its namespace ends, the kernel does the same on its own time.
   * Only what is still there after a while, because something else holds the namespace, is removed, all at once.
   */
  expectGone(hostInterface: string): void {
    if (hostInterface === '') return;
    this.#leaving.add(hostInterface);
    this.#leavingCheck ??= setTimeout(() => {
      this.#leavingCheck = null;
      this.#removeLeaving();
    }, vanishMs).unref();
  }

  /** Veths of ours that nobody claims are removed. */
  sweep(claimed: ReadonlySet<string>): void {
    const stray = this.host
      .links()
      .filter((link) => link.kind === 'veth' && link.name.startsWith(this.vethPrefix) && !claimed.has(link.name));
    this.host.removeLinks(stray.map(({ name }) => name));
  }

  close(): void {
    if (this.#leavingCheck !== null) clearTimeout(this.#leavingCheck);
    this.#removeLeaving();
  }

  #removeLeaving(): void {
    try {
      const present = new Set(this.host.links().map(({ name }) => name));
      this.host.removeLinks([...this.#leaving].filter((name) => present.has(name)));
    } catch (error) {
      this.#log.warn({ error, links: [...this.#leaving] }, 'could not remove links of containers that left');
    }
    this.#leaving.clear();
  }
}
