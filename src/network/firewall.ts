/**
 * Our one nftables table. It is a function of the bridges and the published ports; the table in the kernel is never read.
 *
 * The chains never change. Bridges and ports are elements of sets and maps, so adding one is an `add element` whose cost does
 * not depend on how many there are.
 * Changes asked for while a transaction runs wait and go into the next one together. If the kernel refuses a change because
 * the table is not as we left it (somebody flushed it), the whole table is laid down anew in one transaction.
 */
import type { Log } from '../lib/log.ts';
import { applyNft } from '../platform/nft.ts';
import type { PublishedPort } from './types.ts';

/** A bridge as the firewall sees it. */
export interface BridgeRules {
  readonly bridgeName: string;
  /** CIDRs. */
  readonly subnets: readonly string[];
  /** Nothing passes between it and the rest of the world. */
  readonly internal: boolean;
  /** What leaves for the outside gets the host's address. */
  readonly masquerade: boolean;
  /** Its containers reach each other. */
  readonly icc: boolean;
}

/** A published port and the address it leads to. */
export interface Publication {
  readonly port: PublishedPort;
  readonly containerAddress: string;
}

/** One entry of a map or set of the table. `value` says where it leads and so whose it is, also for members of a set. */
interface Element {
  readonly set:
    | 'published'
    | 'published_at'
    | 'loopback_only'
    | 'bridges'
    | 'internal'
    | 'same'
    | 'masqueraded'
    | 'own';
  readonly key: string;
  readonly value: string;
}

interface Change {
  /** Commands of nft; null: the whole table. */
  readonly commands: readonly string[] | null;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class Firewall {
  readonly #table: string;
  readonly #log: Log;
  /** What the table shall hold, by set and key. Changed at once when a change is asked for, so the newest wish wins. */
  readonly #elements = new Map<string, Element>();
  #waiting: Change[] = [];
  #running = false;
  /** The last transaction failed: the kernel has something else than `#elements`. */
  #stale = false;

  constructor(table: string, log: Log) {
    this.#table = table;
    this.#log = log;
  }

  /** Lays the whole table down for these bridges and ports, in one transaction; established connections go on. */
  rebuild(bridges: readonly BridgeRules[], publications: readonly Publication[]): Promise<void> {
    this.#elements.clear();
    const all = [...bridges.flatMap(elementsOfBridge), ...publications.flatMap(elementsOf)];
    for (const element of all) this.#elements.set(placeOf(element), element);
    return this.#enqueue(null);
  }

  addBridge(bridge: BridgeRules): Promise<void> {
    return this.#add(elementsOfBridge(bridge));
  }

  removeBridge(bridge: BridgeRules): Promise<void> {
    return this.#remove(elementsOfBridge(bridge));
  }

  /** Resolves when the ports lead to their containers. Spawns nothing if there is nothing for nftables in it. */
  publish(publications: readonly Publication[]): Promise<void> {
    return this.#add(publications.flatMap(elementsOf));
  }

  /** Forgets ports. What is not there, or leads elsewhere by now, is left alone. */
  unpublish(publications: readonly Publication[]): Promise<void> {
    return this.#remove(publications.flatMap(elementsOf));
  }

  async #add(added: readonly Element[]): Promise<void> {
    for (const element of added) this.#elements.set(placeOf(element), element);
    await this.#enqueue(this.#commands('add', added));
  }

  async #remove(elements: readonly Element[]): Promise<void> {
    const removed = elements.filter((element) => this.#elements.get(placeOf(element))?.value === element.value);
    for (const element of removed) this.#elements.delete(placeOf(element));
    await this.#enqueue(this.#commands('delete', removed));
  }

  #commands(verb: 'add' | 'delete', elements: readonly Element[]): string[] {
    return [...Map.groupBy(elements, (element) => element.set)].map(([set, members]) => {
      const text = members.map((element) => (verb === 'add' ? textOf(element) : element.key));
      return `${verb} element inet ${this.#table} ${set} { ${text.join(', ')} }`;
    });
  }

  #enqueue(commands: readonly string[] | null): Promise<void> {
    if (commands?.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiting.push({ commands, resolve, reject });
      if (!this.#running) {
        this.#running = true;
        // Not at once: whatever asks in the same turn shares the transaction.
        setImmediate(() => void this.#drain());
      }
    });
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      let batch = this.#waiting.splice(0);
      try {
        const commands = batch.map((change) => change.commands);
        const whole = this.#stale || commands.includes(null);
        if (whole || !(await this.#tryCommands(commands.flatMap((each) => each ?? [])))) {
          // The table as wished now has what came in meanwhile, too.
          batch = [...batch, ...this.#waiting.splice(0)];
          await applyNft(this.#wholeTable());
        }
        this.#stale = false;
        for (const change of batch) change.resolve();
      } catch (error) {
        this.#stale = true;
        for (const change of batch) change.reject(error);
      }
    }
    this.#running = false;
  }

  async #tryCommands(commands: readonly string[]): Promise<boolean> {
    try {
      await applyNft(`${commands.join('\n')}\n`);
      return true;
    } catch (error) {
      this.#log.warn({ error, table: this.#table }, 'the firewall table is not as it was left; laying it down anew');
      return false;
    }
  }

  #wholeTable(): string {
    const content = (set: Element['set']): string => {
      const members = [...this.#elements.values()].filter((element) => element.set === set);
      return members.length === 0 ? '' : `elements = { ${members.map(textOf).join(', ')} }`;
    };

    // Adding before deleting, because deleting what is not there is an error.
    return `add table inet ${this.#table}
delete table inet ${this.#table}
table inet ${this.#table} {
  map published {
    type inet_proto . inet_service : ipv4_addr . inet_service
    ${content('published')}
  }
  map published_at {
    type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
    ${content('published_at')}
  }
  set loopback_only {
    type inet_proto . ipv4_addr . inet_service
    ${content('loopback_only')}
  }

  set bridges {
    type ifname
    ${content('bridges')}
  }
  set internal {
    type ifname
    ${content('internal')}
  }
  set same {
    type ifname . ifname
    ${content('same')}
  }
  set masqueraded {
    type ipv4_addr
    flags interval
    ${content('masqueraded')}
  }
  set own {
    type ipv4_addr . ifname
    flags interval
    ${content('own')}
  }

  chain guard {
    type filter hook prerouting priority raw; policy accept;
    # Bridges have route_localnet; containers must not profit from it.
    iifname @bridges ip daddr 127.0.0.0/8 drop
    iifname @bridges ip saddr 127.0.0.0/8 drop
    iifname != "lo" meta l4proto . ip daddr . th dport @loopback_only drop
  }

  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    ip daddr != 127.0.0.0/8 fib daddr type local jump publish
  }
  chain output {
    type nat hook output priority -100; policy accept;
    meta nfproto ipv4 fib daddr type local jump publish
  }
  chain publish {
    dnat ip to meta l4proto . ip daddr . th dport map @published_at
    dnat ip to meta l4proto . th dport map @published
  }

  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    # A published port reached from its own network: the container must answer to the bridge, not to itself or to its neighbour.
    oifname @bridges ip saddr 127.0.0.0/8 ct status dnat masquerade
    ip saddr . oifname @own ct status dnat masquerade
    ip saddr . oifname @own return
    ip saddr @masqueraded oifname != "lo" masquerade
  }

  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname . oifname @same accept
    iifname @internal drop
    oifname @internal drop
    oifname @bridges ct state established,related accept
    oifname @bridges ct status dnat accept
    oifname @bridges drop
  }
}
`;
  }
}

const placeOf = (element: Element): string => `${element.set} ${element.key}`;
const textOf = ({ set, key, value }: Element): string =>
  set === 'published' || set === 'published_at' ? `${key} : ${value}` : key;

function elementsOfBridge({ bridgeName, subnets, internal, masquerade, icc }: BridgeRules): Element[] {
  const value = bridgeName;
  const name = JSON.stringify(bridgeName);
  const elements: Element[] = [{ set: 'bridges', key: name, value }];
  if (icc) elements.push({ set: 'same', key: `${name} . ${name}`, value });
  if (internal) elements.push({ set: 'internal', key: name, value });
  for (const subnet of subnets.filter((each) => !each.includes(':'))) {
    elements.push({ set: 'own', key: `${subnet} . ${name}`, value });
    if (masquerade && !internal) elements.push({ set: 'masqueraded', key: subnet, value });
  }
  return elements;
}

/** IPv6 addresses of the host have none: the daemon relays for them. */
function elementsOf({ port, containerAddress }: Publication): Element[] {
  if (port.hostIp.includes(':')) return [];
  const value = `${containerAddress} . ${port.containerPort}`;
  if (port.hostIp === '0.0.0.0') {
    return [{ set: 'published', key: `${port.protocol} . ${port.hostPort}`, value }];
  }
  const key = `${port.protocol} . ${port.hostIp} . ${port.hostPort}`;
  const elements: Element[] = [{ set: 'published_at', key, value }];
  if (port.hostIp.startsWith('127.')) elements.push({ set: 'loopback_only', key, value });
  return elements;
}
