/**
 * The names of containers in users' networks: who answers to what, as one container of them sees it.
 *
 * Derived from what is joined. Names are compared without regard to case; `name` and `name.network` mean the same.
 */
import type { ContainerId } from '../lib/ids.ts';
import { shortId } from '../lib/ids.ts';
import { predefined } from './requests.ts';
import { isJoined, type Joined, type LiveSandbox } from './types.ts';

export class Names {
  readonly #live: ReadonlyMap<ContainerId, LiveSandbox>;
  /** Network → name → members. Made anew for a network when something about it has changed. */
  readonly #indexes = new Map<string, ReadonlyMap<string, readonly Member[]>>();
  /** Clients ask for both families in turn: each goes round by itself. */
  readonly #turns = { ipv4: 0, ipv6: 0 };

  constructor(live: ReadonlyMap<ContainerId, LiveSandbox>) {
    this.#live = live;
  }

  /** Something joined or left these networks, or goes by another name. */
  changed(networks: Iterable<string>): void {
    for (const network of networks) this.#indexes.delete(network);
  }

  /** Addresses of a name as `asker` sees it, in rotating order; null: no container's name. */
  find(asker: LiveSandbox, name: string, family: 'ipv4' | 'ipv6'): readonly string[] | null {
    const wanted = name.toLowerCase().replace(/\.$/, '');
    const members: Joined[] = [];
    for (const endpoint of Object.values(asker.endpoints)) {
      const network = endpoint.networkName;
      if (!hasNames(network)) continue;
      const suffix = `.${network.toLowerCase()}`;
      const bare = wanted.endsWith(suffix) ? wanted.slice(0, -suffix.length) : wanted;
      const index = this.#index(network);
      const linked = endpoint.links
        .map((link) => link.split(':'))
        .filter(([target = '', alias = target]) => alias.toLowerCase() === bare);
      for (const [target = ''] of linked) members.push(...(index.get(target.toLowerCase()) ?? []).map(joinedOf));
      if (linked.length === 0) members.push(...(index.get(bare) ?? []).map(joinedOf));
    }
    if (members.length === 0) return null;
    const own = [...new Set(members.map((each) => each[family]).filter((text) => text !== ''))];
    this.#turns[family]++;
    return own.map((_, position) => own[(position + this.#turns[family]) % own.length] as string);
  }

  /** The name of an address in one of the asker's networks, with its network. */
  nameOf(asker: LiveSandbox, address: string): string | null {
    for (const { networkName: network } of Object.values(asker.endpoints)) {
      if (!hasNames(network)) continue;
      for (const live of this.#live.values()) {
        const joined = live.endpoints[network]?.joined;
        if (joined?.ipv4 === address || joined?.ipv6 === address) return `${live.containerName}.${network}`;
      }
    }
    return null;
  }

  #index(network: string): ReadonlyMap<string, readonly Member[]> {
    const known = this.#indexes.get(network);
    if (known !== undefined) return known;
    const index = new Map<string, Member[]>();
    for (const live of this.#live.values()) {
      const endpoint = live.endpoints[network];
      if (endpoint === undefined || !isJoined(endpoint)) continue;
      for (const name of new Set([live.containerName, ...endpoint.aliases, shortId(live.containerId)])) {
        const key = name.toLowerCase();
        index.set(key, [...(index.get(key) ?? []), { joined: endpoint.joined }]);
      }
    }
    this.#indexes.set(network, index);
    return index;
  }
}

interface Member {
  readonly joined: Joined;
}
const joinedOf = ({ joined }: Member): Joined => joined;

/** Names are answered in networks of the user's only. */
export const hasNames = (network: string): boolean => !predefined.includes(network);
