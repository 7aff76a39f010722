/** IP addresses and subnets of both families, as numbers. Text forms of IPv6 follow RFC 5952. */

export type Family = 4 | 6;

export interface Address {
  readonly family: Family;
  readonly value: bigint;
}

export interface Subnet {
  readonly family: Family;
  /** The lowest address: all host bits zero. */
  readonly base: bigint;
  readonly prefixLength: number;
}

/** An address with its subnet's length, `172.17.0.1/16`. */
export interface Cidr {
  readonly address: Address;
  readonly prefixLength: number;
}

export const bitsOf = (family: Family): number => (family === 4 ? 32 : 128);

/** Undefined unless it is an address: four decimal numbers without leading zeros, or IPv6 without zone. */
export function parseAddress(text: string): Address | undefined {
  return text.includes(':') ? parseIPv6(text) : parseIPv4(text);
}

function parseIPv4(text: string): Address | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0n;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = (value << 8n) | BigInt(part);
  }
  return { family: 4, value };
}

function parseIPv6(text: string): Address | undefined {
  // The last 32 bits may be written as IPv4.
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  if (dotted) {
    const last = parseIPv4(dotted[2] ?? '');
    if (last === undefined) return undefined;
    return parseIPv6(`${dotted[1]}${(last.value >> 16n).toString(16)}:${(last.value & 0xffffn).toString(16)}`);
  }
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const [head = [], tail = []] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  let value = 0n;
  for (const group of [...head, ...Array<string>(missing).fill('0'), ...tail]) {
    if (!/^[0-9a-f]{1,4}$/i.test(group)) return undefined;
    value = (value << 16n) | BigInt(`0x${group}`);
  }
  return { family: 6, value };
}

export function formatAddress({ family, value }: Address): string {
  if (family === 4) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n).join('.');
  const groups = Array.from({ length: 8 }, (_, index) => (value >> BigInt(16 * (7 - index))) & 0xffffn);
  // The first longest run of at least two zeros becomes `::`.
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0n) length++;
    if (length > best.length) best = { start, length };
  }
  const hex = groups.map((group) => group.toString(16));
  if (best.start < 0) return hex.join(':');
  return `${hex.slice(0, best.start).join(':')}::${hex.slice(best.start + best.length).join(':')}`;
}

export function parseCidr(text: string): Cidr | undefined {
  const [addressText = '', lengthText = '', ...rest] = text.split('/');
  const address = parseAddress(addressText);
  if (address === undefined || rest.length > 0 || !/^\d{1,3}$/.test(lengthText)) return undefined;
  const prefixLength = Number(lengthText);
  return prefixLength > bitsOf(address.family) ? undefined : { address, prefixLength };
}

const hostBits = (family: Family, prefixLength: number): bigint => BigInt(bitsOf(family) - prefixLength);

export function subnetOf({ family, value }: Address, prefixLength: number): Subnet {
  const bits = hostBits(family, prefixLength);
  return { family, base: (value >> bits) << bits, prefixLength };
}

/** The subnet a text names, whatever its host bits. */
export function parseSubnet(text: string): Subnet | undefined {
  const cidr = parseCidr(text);
  return cidr && subnetOf(cidr.address, cidr.prefixLength);
}

export const formatSubnet = ({ family, base, prefixLength }: Subnet): string =>
  `${formatAddress({ family, value: base })}/${prefixLength}`;

export const lastOf = ({ family, base, prefixLength }: Subnet): bigint =>
  base + (1n << hostBits(family, prefixLength)) - 1n;

export const contains = (subnet: Subnet, { family, value }: Address): boolean =>
  subnet.family === family && value >= subnet.base && value <= lastOf(subnet);

export const overlap = (a: Subnet, b: Subnet): boolean =>
  a.family === b.family && a.base <= lastOf(b) && b.base <= lastOf(a);

/** In network byte order: 4 or 16 bytes. */
export function bytesOf({ family, value }: Address): Buffer {
  return Buffer.from(value.toString(16).padStart(bitsOf(family) / 4, '0'), 'hex');
}

export function addressOfBytes(bytes: Uint8Array): Address {
  const hex = Buffer.from(bytes).toString('hex');
  return { family: bytes.length === 4 ? 4 : 6, value: BigInt(`0x${hex || '0'}`) };
}

/** `02:42:` and the address: the same IPv4 address has the same MAC in each run, so neighbours' ARP caches stay right. */
export function macOf({ value }: Address): string {
  const hex = value.toString(16).padStart(8, '0');
  return `02:42:${hex.match(/../g)?.join(':')}`;
}
