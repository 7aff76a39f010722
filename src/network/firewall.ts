/**
 * Our one nftables table. It is a function of the bridges and the published ports; the table in the kernel is never read.
 *
 * A port is an element of a map, so publishing one is an `add element` whose cost does not depend on how many there are.
 * Changes asked for while a transaction runs wait and go into the next one together. If the kernel refuses a change because
 * the table is not as we left it (somebody flushed it), the whole table is laid down anew in one transaction.
 */
import type { Log } from '../lib/log.ts';
import { applyNft } from '../platform/nft.ts';
import type { PublishedPort } from './types.ts';

export interface BridgeRules {
  readonly bridgeName: string;
  /** CIDR. */
  readonly subnet: string;
}

/** A published port and the address it leads to. */
export interface Publication {
  readonly port: PublishedPort;
  readonly containerAddress: string;
}

/** One entry of a map or set of the table. `value` says where it leads and so whose it is, also for members of a set. */
interface Element {
  readonly set: 'published' | 'published_at' | 'loopback_only';
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
  #bridges: readonly BridgeRules[] = [];
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
    this.#bridges = bridges;
    this.#elements.clear();
    for (const element of publications.flatMap(elementsOf)) this.#elements.set(placeOf(element), element);
    return this.#enqueue(null);
  }

  /** Resolves when the ports lead to their containers. Spawns nothing if there is nothing for nftables in it. */
  async publish(publications: readonly Publication[]): Promise<void> {
    const added = publications.flatMap(elementsOf);
    for (const element of added) this.#elements.set(placeOf(element), element);
    await this.#enqueue(this.#commands('add', added));
  }

  /** Forgets ports. What is not there, or leads elsewhere by now, is left alone. */
  async unpublish(publications: readonly Publication[]): Promise<void> {
    const removed = publications
      .flatMap(elementsOf)
      .filter((element) => this.#elements.get(placeOf(element))?.value === element.value);
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
    const forEachBridge = (rules: (bridge: BridgeRules) => string[]): string =>
      this.#bridges.flatMap(rules).join('\n    ');

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

  chain guard {
    type filter hook prerouting priority raw; policy accept;
    ${forEachBridge(({ bridgeName }) => [
      // The bridge has route_localnet, see Networks; containers must not profit from it.
      `iifname "${bridgeName}" ip daddr 127.0.0.0/8 drop`,
      `iifname "${bridgeName}" ip saddr 127.0.0.0/8 drop`,
    ])}
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
    ${forEachBridge(({ bridgeName, subnet }) => [
      `ip saddr ${subnet} oifname != { "lo", "${bridgeName}" } masquerade`,
      // The container must answer to the bridge, not to itself or (at layer 2) straight to its neighbour.
      `oifname "${bridgeName}" ip saddr { 127.0.0.0/8, ${subnet} } ct status dnat masquerade`,
    ])}
  }

  chain forward {
    type filter hook forward priority filter; policy accept;
    ${forEachBridge(({ bridgeName }) => [
      `oifname "${bridgeName}" ct state established,related accept`,
      `oifname "${bridgeName}" ct status dnat accept`,
      `oifname "${bridgeName}" iifname != "${bridgeName}" drop`,
    ])}
  }
}
`;
  }
}

const placeOf = (element: Element): string => `${element.set} ${element.key}`;
const textOf = (element: Element): string =>
  element.set === 'loopback_only' ? element.key : `${element.key} : ${element.value}`;

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
