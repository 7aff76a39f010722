/**
 * Subnets: which ones networks get, and which addresses of them are taken.
 *
 * What is taken is known from records and live sandboxes alone: nothing is stored beside them, so nothing can be forgotten
 * there, and after a restart it is told again.
 */
import { forbidden, internal, invalid, notFound } from '../lib/errors.ts';
import {
  type Address,
  bitsOf,
  contains,
  type Family,
  formatAddress,
  formatSubnet,
  lastOf,
  overlap,
  parseAddress,
  parseSubnet,
  type Subnet,
} from '../lib/ip.ts';
import type { IpamConfig, Pool } from './types.ts';

/** Where subnets of networks without a wish are taken from: `size` is the prefix length of each. */
export interface DefaultPool {
  readonly base: string;
  readonly size: number;
}

/** dockerd's pools in its order, and behind them room for a thousand more networks. */
export const defaultPools: readonly DefaultPool[] = [
  ...Array.from({ length: 15 }, (_, index) => ({ base: `172.${17 + index}.0.0/16`, size: 16 })),
  { base: '192.168.0.0/16', size: 20 },
  { base: '10.192.0.0/10', size: 20 },
];
/** Unique local addresses (RFC 4193) for networks with IPv6 and no wish. */
export const defaultPools6: readonly DefaultPool[] = [{ base: 'fdd5:1f2a:7c00::/48', size: 64 }];

/** A subnet and who has it, for error messages. */
export interface TakenSubnet {
  readonly subnet: Subnet;
  readonly holder: string;
  /** A route or address of the host rather than a network of ours. */
  readonly byHost?: true;
}

export function parsePool(text: string): Subnet {
  const subnet = parseSubnet(text);
  if (subnet === undefined) throw invalid(`Invalid subnet ${text} : invalid CIDR address: ${text}`);
  return subnet;
}

/** Of no machine: this network, groups, what is reserved. */
const nobodys = ['0.0.0.0/8', '224.0.0.0/3', 'ff00::/8'].map(parsePool);

/** The first subnet of the pools that nothing taken overlaps. */
export function chooseSubnet(pools: readonly DefaultPool[], family: Family, taken: readonly TakenSubnet[]): Subnet {
  const blocked = taken
    .filter(({ subnet }) => subnet.family === family)
    .map(({ subnet }) => ({ first: subnet.base, last: lastOf(subnet) }));
  for (const { base, size } of pools) {
    const whole = parsePool(base);
    if (whole.family !== family) continue;
    const step = 1n << BigInt((family === 4 ? 32 : 128) - size);
    for (let first = whole.base; first <= lastOf(whole); ) {
      const last = first + step - 1n;
      const hit = blocked.find((other) => other.first <= last && first <= other.last);
      if (hit === undefined) return { family, base: first, prefixLength: size };
      // Beyond what is in the way, at the next multiple.
      first = ((hit.last > last ? hit.last : last) / step + 1n) * step;
    }
  }
  const holders = [...new Set(taken.filter(({ subnet }) => subnet.family === family).map(({ holder }) => holder))];
  throw notFound(
    `could not find an available, non-overlapping IPv${family} address pool among the defaults to assign to the network; taken by ${listed(holders)}`,
  );
}

const listed = (names: readonly string[]): string =>
  names.length <= 20 ? names.join(', ') : `${names.slice(0, 20).join(', ')} and ${names.length - 20} more`;

/** What a create asked for of one family as a pool, gateway chosen when none is given. Throws dockerd's words. */
export function poolOf(config: IpamConfig, subnet: Subnet, withGateway: boolean): Pool {
  const { family } = subnet;
  const range = config.ipRange ? parseSubnet(config.ipRange) : subnet;
  if (range === undefined || range.family !== family || !inside(subnet, range)) {
    throw invalid(`invalid IP range ${config.ipRange}: not within subnet ${formatSubnet(subnet)}`);
  }
  if (subnet.prefixLength > (family === 4 ? 30 : 127))
    throw invalid('failed to allocate gateway (): No available addresses on this pool');
  if (nobodys.some((other) => overlap(subnet, other)))
    throw invalid(`invalid subnet ${formatSubnet(subnet)}: no machine can have its addresses`);
  const gateway = gatewayOf(config, subnet, range, withGateway);
  const reserved = config.auxiliaryAddresses ?? {};
  const used = new Set([gateway]);
  for (const [name, text] of Object.entries(reserved)) {
    const address = parseAddress(text);
    if (address === undefined) throw invalid(`non parsable secondary ip address (${name}:${text})`);
    if (!contains(subnet, address))
      throw forbidden(`auxiliary address: (${name}:${text}) must belong to the master pool: ${formatSubnet(subnet)}`);
    const plain = formatAddress(address);
    if (used.has(plain) || !isHost(subnet, address))
      throw forbidden(`failed to allocate secondary ip address (${name}:${text}): Address already in use`);
    used.add(plain);
  }
  return { subnet: formatSubnet(subnet), range: formatSubnet(range), gateway, reserved };
}

/** The gateway asked for, else the first address of the range that is nobody else's; empty without one. */
function gatewayOf(config: IpamConfig, subnet: Subnet, range: Subnet, isNeeded: boolean): string {
  const { family } = subnet;
  if (config.gateway) {
    // It may be written with its prefix length.
    const parsed = parseAddress(config.gateway.replace(/\/\d+$/, ''));
    if (parsed === undefined) throw invalid(`invalid gateway address ${config.gateway} in Ipam configuration`);
    const refusal = `failed to allocate gateway (${config.gateway})`;
    if (!contains(subnet, parsed)) throw invalid(`${refusal}: Requested address is out of range`);
    if (!isHost(subnet, parsed)) throw forbidden(`${refusal}: Address already in use`);
    return formatAddress(parsed);
  }
  if (!isNeeded) return '';
  const used = new Set(Object.values(config.auxiliaryAddresses ?? {}));
  for (let value = range.base === subnet.base ? subnet.base + 1n : range.base; value <= lastOf(range); value++) {
    const address = { family, value };
    if (!used.has(formatAddress(address)) && isHost(subnet, address)) return formatAddress(address);
  }
  throw invalid('failed to allocate gateway (): No available addresses on this pool');
}

/** The lowest address of a subnet means the subnet, the highest of an IPv4 one everybody in it. */
function isHost(subnet: Subnet, { value }: Address): boolean {
  if (subnet.prefixLength >= bitsOf(subnet.family) - 1) return true;
  return value !== subnet.base && (subnet.family === 6 || value !== lastOf(subnet));
}

const inside = (outer: Subnet, inner: Subnet): boolean => inner.base >= outer.base && lastOf(inner) <= lastOf(outer);

/** Throws dockerd's refusal and names the holder when a wished subnet meets one that is taken. */
export function refuseOverlap(subnet: Subnet, taken: readonly TakenSubnet[]): void {
  const hit = taken.find((other) => overlap(subnet, other.subnet));
  if (hit !== undefined) {
    throw forbidden(
      `Pool overlaps with other one on this address space: ${formatSubnet(subnet)} with ${formatSubnet(hit.subnet)} of ${hit.holder}`,
    );
  }
}

/** Who holds an address or a port: compared by id, shown by name. */
export interface Owner {
  readonly id: string;
  readonly name: string;
}

/** The addresses of one pool. */
export class Addresses {
  readonly #network: string;
  readonly #subnet: Subnet;
  readonly #first: bigint;
  readonly #last: bigint;
  /** Address to who holds it. */
  readonly #taken = new Map<bigint, Owner>();
  /** Goes round the range, so that an address given back rests as long as possible before it is used again. */
  #next: bigint;

  /** `network` is the name for error messages. The lowest address, the broadcast address and the gateway are never given. */
  constructor(network: string, pool: Pool) {
    this.#network = network;
    this.#subnet = parsePool(pool.subnet);
    const range = parsePool(pool.range);
    const { family, prefixLength } = this.#subnet;
    const narrow = prefixLength >= (family === 4 ? 31 : 127);
    const lowest = narrow ? this.#subnet.base : this.#subnet.base + 1n;
    const highest = narrow || family === 6 ? lastOf(this.#subnet) : lastOf(this.#subnet) - 1n;
    this.#first = range.base > lowest ? range.base : lowest;
    this.#last = lastOf(range) < highest ? lastOf(range) : highest;
    this.#next = this.#first;
    for (const [name, text] of [['the gateway', pool.gateway], ...Object.entries(pool.reserved)] as const) {
      const address = parseAddress(text);
      if (address !== undefined) this.#taken.set(address.value, { id: '', name });
    }
  }

  get family(): Family {
    return this.#subnet.family;
  }

  get prefixLength(): number {
    return this.#subnet.prefixLength;
  }

  /** The address asked for, or a free one. Costs a few steps however many are taken, until the range is nearly full. */
  allocate(owner: Owner, wanted?: Address): Address {
    const { family } = this.#subnet;
    if (wanted !== undefined) {
      if (!contains(this.#subnet, wanted)) {
        throw invalid(`Invalid address ${formatAddress(wanted)}: It does not belong to any of this network's subnets`);
      }
      if (!isHost(this.#subnet, wanted))
        throw forbidden(`Address already in use: ${formatAddress(wanted)} of ${this.#network} is not a host's`);
      const holder = this.#taken.get(wanted.value);
      if (holder !== undefined && holder.id !== owner.id) {
        throw forbidden(
          `Address already in use: ${formatAddress(wanted)} of ${this.#network} belongs to ${holder.name}`,
        );
      }
      this.#taken.set(wanted.value, owner);
      return wanted;
    }
    for (let tried = 0n; tried <= this.#last - this.#first; tried++) {
      const value = this.#next;
      this.#next = value >= this.#last ? this.#first : value + 1n;
      if (this.#taken.has(value)) continue;
      this.#taken.set(value, owner);
      return { family, value };
    }
    throw internal(`no available IPv${family} addresses on this network's address pools: ${this.#network}`);
  }

  /** Marks an address a live sandbox has. Taken by another: an error, since two can't work. */
  take(address: Address, owner: Owner): void {
    this.allocate(owner, address);
    if (address.value >= this.#next && address.value < this.#last) this.#next = address.value + 1n;
  }

  /** Does nothing unless `owner` holds it: giving back twice must not free what is someone else's by then. */
  release(address: Address, ownerId: string): void {
    if (this.#taken.get(address.value)?.id === ownerId) this.#taken.delete(address.value);
  }
}
