/**
 * The names of containers in users' networks: who answers to what, as one container of them sees it.
 *
 * Derived from what is joined. Names are compared without regard to case; `name` and `name.network` mean the same.
 */
import { shortId } from '../lib/ids.ts';
import { bytesOf, parseAddress } from '../lib/ip.ts';
import { nameBytes } from './message.ts';

export const resolverAddress = '127.0.0.11';

/** A container as the name server knows it. Plain data: it is handed to another thread. */
export interface NamedContainer {
  readonly id: string;
  readonly name: string;
  readonly namespacePath: string;
  /** Where it is known, and asks: networks with a way out first, then by name. The first that knows a name is the one that answers. */
  readonly places: readonly NamedPlace[];
  /** Name servers it asked for; none: the host's. */
  readonly dns: readonly string[];
  /** The families it has a way out with. */
  readonly wayOut: { readonly v4: boolean; readonly v6: boolean };
  /** Its own subnets. */
  readonly subnets: readonly string[];
  /** Names of one label are not asked outside: the container sets `ndots`, so its resolver comes again with a domain. */
  readonly keepsSingleLabels: boolean;
}

export interface NamedPlace {
  readonly network: string;
  readonly aliases: readonly string[];
  /** `container:alias` */
  readonly links: readonly string[];
  /** Empty: none. */
  readonly ipv4: string;
  readonly ipv6: string;
}

/** Who answers to one name in one network. */
interface Entry {
  readonly ipv4: Uint8Array[];
  readonly ipv6: Uint8Array[];
  /** Clients ask for both families in turn: each goes round by itself. */
  readonly turns: { ipv4: number; ipv6: number };
}

interface Index {
  readonly byName: ReadonlyMap<string, Entry>;
  /** Hexadecimal digits of an address → name of the container and the network, as in a record. */
  readonly byAddress: ReadonlyMap<string, Buffer>;
}

export class Names {
  readonly #containers: ReadonlyMap<string, NamedContainer>;
  /** Made anew for a network when something about it has changed. */
  readonly #indexes = new Map<string, Index>();

  constructor(containers: ReadonlyMap<string, NamedContainer>) {
    this.#containers = containers;
  }

  /** Something joined or left these networks, or goes by another name. */
  changed(places: readonly NamedPlace[]): void {
    for (const { network } of places) this.#indexes.delete(network);
  }

  /** Addresses of a name (in lower case, no dot at its end) as `asker` sees it, in rotating order; null: no container's name. */
  find(asker: NamedContainer, wanted: string, family: 'ipv4' | 'ipv6'): readonly Uint8Array[] | null {
    let found: Entry | undefined;
    for (const { network, links } of asker.places) {
      const suffix = `.${network.toLowerCase()}`;
      const bare = wanted.endsWith(suffix) ? wanted.slice(0, -suffix.length) : wanted;
      const { byName } = this.#index(network);
      const target = links.length === 0 ? undefined : targetOf(links, bare);
      const entry = byName.get(target ?? bare);
      if (entry === undefined) continue;
      found ??= entry;
      if (entry[family].length > 0) return inTurn(entry, family);
    }
    return found === undefined ? null : [];
  }

  /** Whose address of one of the asker's networks this is: `name.network`, as in a record. */
  nameOf(asker: NamedContainer, address: string): Uint8Array | null {
    for (const { network } of asker.places) {
      const name = this.#index(network).byAddress.get(address);
      if (name !== undefined) return name;
    }
    return null;
  }

  #index(network: string): Index {
    const known = this.#indexes.get(network);
    if (known !== undefined) return known;
    const byName = new Map<string, Entry>();
    const byAddress = new Map<string, Buffer>();
    for (const { id, name, places } of this.#containers.values()) {
      const place = places.find((each) => each.network === network);
      if (place === undefined) continue;
      const full = nameBytes(`${name}.${network}`);
      const keys = new Set([name, ...place.aliases, shortId(id)].map((each) => each.toLowerCase()));
      for (const family of ['ipv4', 'ipv6'] as const) {
        const address = parseAddress(place[family]);
        const bytes = address && bytesOf(address);
        if (bytes && full) byAddress.set(bytes.toString('hex'), full);
        for (const key of keys) {
          const entry = byName.get(key) ?? { ipv4: [], ipv6: [], turns: { ipv4: 0, ipv6: 0 } };
          byName.set(key, entry);
          if (bytes) entry[family].push(bytes);
        }
      }
    }
    const index = { byName, byAddress };
    this.#indexes.set(network, index);
    return index;
  }
}

function inTurn(entry: Entry, family: 'ipv4' | 'ipv6'): readonly Uint8Array[] {
  const addresses = entry[family];
  if (addresses.length < 2) return addresses;
  const first = entry.turns[family]++ % addresses.length;
  return [...addresses.slice(first), ...addresses.slice(0, first)];
}

function targetOf(links: readonly string[], alias: string): string | undefined {
  for (const link of links) {
    const [target = '', name = target] = link.toLowerCase().split(':');
    if (name === alias) return target;
  }
  return undefined;
}
