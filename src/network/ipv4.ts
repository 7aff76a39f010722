/** IPv4 addresses as numbers in host order (0 … 2³²-1), and subnets of them. */

export interface Subnet {
  /** The lowest address: all host bits zero. */
  readonly base: number;
  readonly prefixLength: number;
}

/** Undefined unless it is four decimal numbers from 0 to 255, without leading zeros. */
export function parseIPv4(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let address = 0;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    address = address * 256 + Number(part);
  }
  return address;
}

export function formatIPv4(address: number): string {
  return [address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255].join('.');
}

/** An address with its subnet's length, `172.17.0.1/16`. */
export function parseCidr(text: string): { readonly address: number; readonly prefixLength: number } | undefined {
  const [addressText = '', lengthText = '', ...rest] = text.split('/');
  const address = parseIPv4(addressText);
  const prefixLength = Number(lengthText);
  if (address === undefined || rest.length > 0 || !/^\d{1,2}$/.test(lengthText) || prefixLength > 32) return undefined;
  return { address, prefixLength };
}

const mask = (prefixLength: number): number => (prefixLength === 0 ? 0 : (0xffffffff << (32 - prefixLength)) >>> 0);

export function subnetOf(address: number, prefixLength: number): Subnet {
  return { base: (address & mask(prefixLength)) >>> 0, prefixLength };
}

export const formatSubnet = (subnet: Subnet): string => `${formatIPv4(subnet.base)}/${subnet.prefixLength}`;

export const lastOf = (subnet: Subnet): number => subnet.base + 2 ** (32 - subnet.prefixLength) - 1;

export function overlap(a: Subnet, b: Subnet): boolean {
  const shorter = mask(Math.min(a.prefixLength, b.prefixLength));
  return (a.base & shorter) === (b.base & shorter);
}

/** `02:42:` and the address: the same address has the same MAC in each run, so neighbours' ARP caches stay right. */
export function macOf(address: number): string {
  const hex = address.toString(16).padStart(8, '0');
  return `02:42:${hex.match(/../g)?.join(':')}`;
}
