/** The bridge driver: a bridge on the host, and a veth pair per endpoint. */
import fs from 'node:fs';
import { forbidden, internal, invalid } from '../lib/errors.ts';
import { formatAddress, macOf, parseAddress, parseCidr, type Subnet, subnetOf } from '../lib/ip.ts';
import { isErrno } from '../platform/libc.ts';
import { inNamespace } from '../platform/namespace.ts';
import { type LinkPrefix, Netlink } from '../platform/netlink.ts';
import type { TakenSubnet } from './pools.ts';
import type { Joined, NetworkRecord, NetworkRequest, Pool } from './types.ts';

const prefix = 'com.docker.network.bridge.';
const mtuOption = 'com.docker.network.driver.mtu';
/** How the interfaces of its containers are called inside, without the number. */
export const interfacePrefixOption = 'com.docker.network.container_iface_prefix';
const booleans = ['default_bridge', 'enable_icc', 'enable_ip_masquerade', 'inhibit_ipv4'];

/** What a record's options mean. */
export interface BridgeSettings {
  readonly mtu: number;
  /** Containers of the network reach each other. */
  readonly icc: boolean;
  readonly masquerade: boolean;
  /** Address of the host that published ports without one are bound to; empty: all. */
  readonly hostBinding: string;
}

export function bridgeSettings({ options }: Pick<NetworkRecord, 'options'>, mtuDefault: number): BridgeSettings {
  const mtu = mtuOf(options);
  const isOn = (name: string): boolean => truth(options[prefix + name] ?? 'true') !== false;
  const binding = options[`${prefix}host_binding_ipv4`] ?? '';
  return {
    mtu: mtu > 0 ? mtu : mtuDefault,
    icc: isOn('enable_icc'),
    masquerade: isOn('enable_ip_masquerade'),
    hostBinding: binding === '0.0.0.0' ? '' : binding,
  };
}

/** As Go's ParseBool; undefined for anything else. */
function truth(text: string): boolean | undefined {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true;
  return ['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text) ? false : undefined;
}

/** Throws for options with values that mean nothing. Unknown options are kept and ignored, as by dockerd. */
export function checkBridgeOptions({ options }: Pick<NetworkRequest, 'options'>): void {
  for (const name of booleans) {
    const value = options[prefix + name];
    if (value !== undefined && truth(value) === undefined)
      throw invalid(`failed to parse ${prefix}${name} value: ${value} (invalid boolean)`);
  }
  mtuOf(options);
  const inside = options[interfacePrefixOption];
  if (inside && !/^[\w-]{1,12}$/.test(inside))
    throw invalid(`invalid ${interfacePrefixOption} value: ${inside} (not the beginning of an interface's name)`);
  const binding = options[`${prefix}host_binding_ipv4`];
  if (binding && parseAddress(binding)?.family !== 4)
    throw invalid(`failed to parse ${prefix}host_binding_ipv4 value: ${binding} (not an IPv4 address)`);
  const name = options[`${prefix}name`];
  if (name && (!/^[\w.-]{1,15}$/.test(name) || ['.', '..', 'all', 'default'].includes(name)))
    throw invalid(`invalid bridge name: ${name}`);
}

/** 0 when there is none. Throws for what is none. */
export function mtuOf(options: NetworkRecord['options']): number {
  const text = options[mtuOption] ?? '0';
  const mtu = Number(text);
  if (!/^\d{1,5}$/.test(text) || mtu > 65535 || (mtu !== 0 && mtu < 68))
    throw invalid(`failed to parse ${mtuOption} value: ${text} (not an MTU)`);
  return mtu;
}

export const bridgeNameOf = (request: Pick<NetworkRequest, 'options'>, id: string): string =>
  request.options[`${prefix}name`] || `br-${id.slice(0, 12)}`;

/** What `--bip` says: an address with its subnet's length. */
export function parseBridgeAddress(bip: string): Pool {
  const parsed = parseCidr(bip);
  if (parsed?.address.family !== 4) throw invalid(`invalid bip: "${bip}" is not an IPv4 address with prefix length`);
  const { address, prefixLength } = parsed;
  const subnet = subnetOf(address, prefixLength);
  const last = subnet.base + (1n << BigInt(32 - prefixLength)) - 1n;
  if (prefixLength > 30 || address.value === subnet.base || address.value === last) {
    throw invalid(`invalid bip: "${bip}" does not name a host in a subnet with room for others`);
  }
  const text = `${formatAddress({ family: 4, value: subnet.base })}/${prefixLength}`;
  return { subnet: text, range: text, gateway: formatAddress(address), reserved: {} };
}

/** Subnets the host reaches otherwise than through `bridges`: its addresses and routes. */
export function subnetsOfHost(netlink: Netlink, bridges: ReadonlySet<string>): TakenSubnet[] {
  const links = new Map(netlink.links().map(({ index, name }) => [index, name]));
  const nameOf = (index: number): string => links.get(index) ?? '';
  return [...netlink.addresses(), ...netlink.routes()]
    .filter(({ index, prefixLength }) => !bridges.has(nameOf(index)) && prefixLength > 0)
    .map(({ index, address, prefixLength }) => ({
      subnet: subnetOf(address, prefixLength) satisfies Subnet,
      holder: `a route of the host${nameOf(index) === '' ? '' : ` through ${nameOf(index)}`}`,
      byHost: true,
    }));
}

/** True when a bridge of that name is there already: it is used and stays. Throws for another kind of link. */
export function isForeignBridge(netlink: Netlink, bridgeName: string): boolean {
  const link = netlink.link(bridgeName);
  if (link !== undefined && link.kind !== 'bridge') throw forbidden(`existing interface ${bridgeName} is not a bridge`);
  return link !== undefined;
}

/**
 * Makes the bridge, or brings an existing one to what it shall be; one that is not ours keeps the addresses it has. Repeatable.
 * Returns its index.
 */
export function ensureBridge(netlink: Netlink, network: NetworkRecord): number {
  const { bridgeName, pools } = network;
  const gateways = pools.map(({ gateway }) => parseAddress(gateway));
  const mac = macOf(gateways.find((each) => each?.family === 4) ?? { family: 4, value: 0n });
  if (netlink.link(bridgeName) === undefined) netlink.addBridge(bridgeName, mac);
  const link = netlink.link(bridgeName);
  if (link?.kind !== 'bridge') throw internal(`${bridgeName} exists on this host and is not a bridge`);
  const isInhibited = truth(network.options[`${prefix}inhibit_ipv4`] ?? '') === true;
  const wanted = pools.flatMap(({ subnet, gateway }): LinkPrefix[] => {
    const address = parseAddress(gateway);
    if (address?.family === 4 && isInhibited) return [];
    const prefixLength = parseCidr(subnet)?.prefixLength ?? 0;
    return address === undefined ? [] : [{ index: link.index, address, prefixLength }];
  });
  const hasIPv6 = wanted.some(({ address }) => address.family === 6);
  if (hasIPv6) writeSysctl(`/proc/sys/net/ipv6/conf/${bridgeName}/disable_ipv6`, '0');
  if (!link.up) netlink.setUp(link.index);
  const present = netlink.addresses().filter(({ index }) => index === link.index);
  const same = (a: LinkPrefix, b: LinkPrefix): boolean =>
    a.address.family === b.address.family && a.address.value === b.address.value && a.prefixLength === b.prefixLength;
  if (network.foreignBridge !== true)
    for (const other of present) if (!wanted.some((each) => same(each, other))) netlink.removeAddress(other);
  for (const each of wanted) if (!present.some((other) => same(each, other))) netlink.addAddress(each);
  // Lets the host's own 127.0.0.1 reach published ports; the firewall's `guard` keeps everybody else from using it.
  writeSysctl(`/proc/sys/net/ipv4/conf/${bridgeName}/route_localnet`, '1');
  writeSysctl('/proc/sys/net/ipv4/ip_forward', '1');
  if (hasIPv6) writeSysctl('/proc/sys/net/ipv6/conf/all/forwarding', '1');
  return link.index;
}

/** Unless it is so already: a host with these files read-only but right works. */
function writeSysctl(path: string, value: string): void {
  if (fs.readFileSync(path, 'utf8').trim() !== value) fs.writeFileSync(path, value);
}

export interface Attachment {
  readonly namespacePath: string;
  readonly joined: Joined;
  /** Index of the bridge. */
  readonly bridge: number;
  readonly settings: BridgeSettings;
}

/** Connects the namespace to the bridge as `joined` says: veth pair and addresses. `host` is a socket of our own namespace. */
export function attachVeth(host: Netlink, { joined, namespacePath, bridge, settings }: Attachment): void {
  const namespaceFd = fs.openSync(namespacePath, 'r');
  try {
    host.addVeth({
      name: joined.hostInterface,
      mtu: settings.mtu,
      master: bridge,
      peer: { name: joined.interfaceName, mac: joined.mac, namespaceFd },
    });
  } finally {
    fs.closeSync(namespaceFd);
  }
  settlePort(host, joined, bridge, settings);
  configureInside(namespacePath, joined);
}

/** The host's end as it shall be: a port of the bridge, up. Repeatable. */
export function settlePort(host: Netlink, joined: Joined, bridge: number, settings: BridgeSettings): void {
  const link = host.link(joined.hostInterface);
  if (link === undefined) return;
  if (link.master !== bridge) host.setMaster(link.index, bridge);
  if (!link.up) host.setUp(link.index);
  if (!settings.icc) host.setIsolated(link.index);
}

/** Where bridged frames pass netfilter (br_netfilter), the rewritten frame of a published port goes straight back to where it came from. */
export function allowHairpin(host: Netlink, joined: Joined): void {
  const link = host.link(joined.hostInterface);
  if (link !== undefined) host.setHairpin(link.index);
}

/** Addresses of an interface that has just been born in a namespace. */
export function configureInside(namespacePath: string, joined: Joined): void {
  if (joined.ipv6 !== '' || joined.linkLocal?.some((each) => each.includes(':'))) {
    inNamespace(namespacePath, 'net', () => {
      fs.writeFileSync(`/proc/sys/net/ipv6/conf/${joined.interfaceName}/disable_ipv6`, '0');
    });
  }
  using inside = Netlink.openIn(namespacePath);
  const index = inside.link(joined.interfaceName)?.index ?? 0;
  for (const [text, prefixLength] of [
    [joined.ipv4, joined.ipv4PrefixLength],
    [joined.ipv6, joined.ipv6PrefixLength],
  ] as const) {
    const address = parseAddress(text);
    if (address !== undefined) inside.addAddress({ index, address, prefixLength });
  }
  for (const text of joined.linkLocal ?? []) {
    const address = parseAddress(text);
    if (address !== undefined) inside.addAddress({ index, address, prefixLength: address.family === 4 ? 16 : 64 });
  }
  inside.setUp(index);
}

/** Sends what leaves the namespace through this endpoint; null: through none. Repeatable. */
export function routeThrough(namespacePath: string, joined: Joined | null): void {
  using inside = Netlink.openIn(namespacePath);
  inside.removeDefaultRoute(4);
  try {
    inside.removeDefaultRoute(6);
  } catch (error) {
    if (!isErrno(error, 'EAFNOSUPPORT', 'EOPNOTSUPP')) throw error; // kernel without IPv6
  }
  if (joined === null) return;
  const index = inside.link(joined.interfaceName)?.index ?? 0;
  for (const text of [joined.gateway, joined.ipv6Gateway]) {
    const gateway = parseAddress(text);
    if (gateway !== undefined) inside.addDefaultRoute(index, gateway);
  }
}
