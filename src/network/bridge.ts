/** The bridge on the host, and the choice of its subnet. */
import fs from 'node:fs';
import { internal, invalid } from '../lib/errors.ts';
import type { LinkPrefix, Netlink } from '../platform/netlink.ts';
import { lastOf, macOf, overlap, parseCidr, type Subnet, subnetOf } from './ipv4.ts';

/** The bridge's own address and the subnet it stands for. */
export interface BridgeAddress {
  readonly gateway: number;
  readonly subnet: Subnet;
}

/** dockerd's pools, in its order: 172.17 to 172.31 with 16 bits, then 192.168 with 20. */
function* pools(): Generator<Subnet> {
  for (let second = 17; second <= 31; second++) yield subnetOf(((172 << 24) | (second << 16)) >>> 0, 16);
  for (let third = 0; third < 256; third += 16) yield subnetOf(((192 << 24) | (168 << 16) | (third << 8)) >>> 0, 20);
}

/** What `--bip` says: an address with its subnet's length. */
export function parseBridgeAddress(bip: string): BridgeAddress {
  const parsed = parseCidr(bip);
  if (parsed === undefined) throw invalid(`invalid bip: "${bip}" is not an IPv4 address with prefix length`);
  const subnet = subnetOf(parsed.address, parsed.prefixLength);
  if (parsed.prefixLength > 30 || parsed.address === subnet.base || parsed.address === lastOf(subnet)) {
    throw invalid(`invalid bip: "${bip}" does not name a host in a subnet with room for others`);
  }
  return { gateway: parsed.address, subnet };
}

/** The first pool that nothing in `used` overlaps. */
export function chooseBridgeAddress(used: readonly Subnet[]): BridgeAddress {
  for (const subnet of pools()) {
    if (!used.some((other) => overlap(subnet, other))) return { gateway: subnet.base + 1, subnet };
  }
  throw internal('no free subnet for the default bridge: all pools overlap routes of the host; set one with --bip');
}

/** Subnets the host reaches otherwise than through `bridgeName`: its addresses and routes. */
export function subnetsOfHost(netlink: Netlink, bridgeName: string): Subnet[] {
  const own = netlink.link(bridgeName)?.index;
  return [...netlink.addresses(), ...netlink.routes()]
    .filter(({ index, prefixLength }) => index !== own && prefixLength > 0)
    .map(({ address, prefixLength }) => subnetOf(address, prefixLength));
}

/** Makes the bridge, or brings an existing one to what it shall be. Repeatable. Returns its index. */
export function ensureBridge(netlink: Netlink, bridgeName: string, { gateway, subnet }: BridgeAddress): number {
  if (netlink.link(bridgeName) === undefined) netlink.addBridge(bridgeName, macOf(gateway));
  const link = netlink.link(bridgeName);
  if (link?.kind !== 'bridge') throw internal(`${bridgeName} exists on this host and is not a bridge`);
  if (!link.up) netlink.setUp(link.index);
  const wanted: LinkPrefix = { index: link.index, address: gateway, prefixLength: subnet.prefixLength };
  const present = netlink.addresses().filter(({ index }) => index === link.index);
  const same = (a: LinkPrefix): boolean => a.address === wanted.address && a.prefixLength === wanted.prefixLength;
  for (const other of present) if (!same(other)) netlink.removeAddress(other);
  if (!present.some(same)) netlink.addAddress(wanted);
  // Lets the host's own 127.0.0.1 reach published ports; the firewall's `guard` keeps everybody else from using it.
  writeSysctl(`/proc/sys/net/ipv4/conf/${bridgeName}/route_localnet`);
  writeSysctl('/proc/sys/net/ipv4/ip_forward');
  return link.index;
}

/** To 1, unless it is: a host with these files read-only but right works. */
function writeSysctl(path: string): void {
  if (fs.readFileSync(path, 'utf8').trim() !== '1') fs.writeFileSync(path, '1');
}
