/**
 * The text of our nftables table, in the language of nft(8).
 *
 * The chains never change. Bridges and ports are elements of sets and maps; each has one for either family of addresses.
 */
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
  /** Of the port's family; empty: the container has none, so the daemon relays. */
  readonly containerAddress: string;
  /** Where the daemon relays what comes by IPv6 and TCP; 0: nowhere. */
  readonly relayPort: number;
}

const types = {
  published: 'inet_proto . inet_service : ipv4_addr . inet_service',
  published_at: 'inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service',
  published6: 'inet_proto . inet_service : ipv6_addr . inet_service',
  published6_at: 'inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service',
  relayed: 'inet_service : inet_service',
  relayed_at: 'ipv6_addr . inet_service : inet_service',
  relays: 'inet_service',
  loopback_only: 'inet_proto . ipv4_addr . inet_service',
  bridges: 'ifname',
  internal: 'ifname',
  same: 'ifname . ifname',
  masqueraded: 'ipv4_addr',
  masqueraded6: 'ipv6_addr',
  own: 'ipv4_addr . ifname',
  own6: 'ipv6_addr . ifname',
} as const;

export type SetName = keyof typeof types;
export const setNames = Object.keys(types) as SetName[];

/** One entry of a map or set. `value` says where it leads and so whose it is, also for members of a set. */
export interface Element {
  readonly set: SetName;
  readonly key: string;
  readonly value: string;
}

const isMap = (set: SetName): boolean => types[set].includes(' : ');
export const hasSubnets = (set: SetName): boolean => /^(masqueraded|own)/.test(set);

export const placeOf = (element: Element): string => `${element.set} ${element.key}`;
const textOf = ({ set, key, value }: Element): string => (isMap(set) ? `${key} : ${value}` : key);

export function elementCommands(table: string, verb: 'add' | 'delete', elements: readonly Element[]): string[] {
  return [...Map.groupBy(elements, (element) => element.set)].map(([set, members]) => {
    const texts = members.map((element) => (verb === 'add' ? textOf(element) : element.key));
    return `${verb} element inet ${table} ${set} { ${texts.join(', ')} }`;
  });
}

/** Commands that lay the whole table down in place of what is there. */
export function wholeTable(table: string, elements: Iterable<Element>): string {
  const members = Map.groupBy(elements, ({ set }) => set);
  const set = (name: SetName): string => {
    const found = members.get(name) ?? [];
    return `  ${isMap(name) ? 'map' : 'set'} ${name} {
    type ${types[name]}
    ${hasSubnets(name) ? 'flags interval' : ''}
    ${found.length === 0 ? '' : `elements = { ${found.map(textOf).join(', ')} }`}
  }`;
  };

  // Adding before deleting, because deleting what is not there is an error.
  return `add table inet ${table}
delete table inet ${table}
table inet ${table} {
${setNames.map(set).join('\n')}

  chain guard {
    type filter hook prerouting priority raw; policy accept;
    # Bridges have route_localnet; containers must not profit from it.
    iifname @bridges ip daddr 127.0.0.0/8 drop
    iifname @bridges ip saddr 127.0.0.0/8 drop
    iifname != "lo" meta l4proto . ip daddr . th dport @loopback_only drop
    # The relay takes what it is led, not what asks for it.
    iifname != "lo" meta nfproto ipv6 tcp dport @relays drop
    # From an internal network the host has no other addresses than those it has there.
    iifname @internal fib daddr type local ip daddr . iifname != @own drop
    iifname @internal fib daddr type local ip6 daddr . iifname != @own6 ip6 daddr != fe80::/10 drop
  }

  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    ip daddr != 127.0.0.0/8 fib daddr type local jump publish
    meta nfproto ipv6 fib daddr type local jump publish
  }
  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }
  chain publish {
    meta nfproto ipv4 dnat ip to meta l4proto . ip daddr . th dport map @published_at
    meta nfproto ipv4 dnat ip to meta l4proto . th dport map @published
    # ::1 never leaves a host, so what is sent there is relayed.
    ip6 daddr != ::1 dnat ip6 to meta l4proto . ip6 daddr . th dport map @published6_at
    ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @published6
    iifname @internal return
    meta l4proto tcp redirect to :ip6 daddr . tcp dport map @relayed_at
    meta nfproto ipv6 meta l4proto tcp redirect to :tcp dport map @relayed
  }

  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    # A published port reached from its own network: the container must answer to the bridge, not to itself or to its neighbour.
    oifname @bridges ip saddr 127.0.0.0/8 ct status dnat masquerade
    ip saddr . oifname @own ct status dnat masquerade
    ip6 saddr . oifname @own6 ct status dnat masquerade
    # From one of our networks to another the address is good for the way back.
    oifname @bridges return
    ip saddr @masqueraded oifname != "lo" masquerade
    ip6 saddr @masqueraded6 oifname != "lo" masquerade
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

export function elementsOfBridge({ bridgeName, subnets, internal, masquerade, icc }: BridgeRules): Element[] {
  const value = bridgeName;
  const name = JSON.stringify(bridgeName);
  const elements: Element[] = [{ set: 'bridges', key: name, value }];
  // Without: the ports of the bridge are isolated, and a way round through the host is none either.
  if (icc) elements.push({ set: 'same', key: `${name} . ${name}`, value });
  if (internal) elements.push({ set: 'internal', key: name, value });
  for (const subnet of subnets) {
    const isV6 = subnet.includes(':');
    elements.push({ set: isV6 ? 'own6' : 'own', key: `${subnet} . ${name}`, value });
    // Addresses that the world knows are kept.
    const hidden = !isV6 || /^f[cd]/i.test(subnet);
    if (masquerade && hidden && !internal)
      elements.push({ set: isV6 ? 'masqueraded6' : 'masqueraded', key: subnet, value });
  }
  return elements;
}

export function elementsOfPort({ port, containerAddress, relayPort }: Publication): Element[] {
  const { protocol, hostIp, hostPort, containerPort } = port;
  const isV6 = hostIp.includes(':');
  const everywhere = hostIp === '0.0.0.0' || hostIp === '::';
  const elements: Element[] = [];
  const value = `${containerAddress} . ${containerPort}`;
  if (containerAddress !== '') {
    const set = `published${isV6 ? '6' : ''}${everywhere ? '' : '_at'}` as const;
    elements.push({ set, key: `${protocol} . ${everywhere ? '' : `${hostIp} . `}${hostPort}`, value });
    if (hostIp.startsWith('127.'))
      elements.push({ set: 'loopback_only', key: `${protocol} . ${hostIp} . ${hostPort}`, value });
  }
  if (isV6 && protocol === 'tcp' && relayPort !== 0) {
    const place = everywhere ? `${hostPort}` : `${hostIp} . ${hostPort}`;
    elements.push({ set: everywhere ? 'relayed' : 'relayed_at', key: place, value: String(relayPort) });
    elements.push({ set: 'relays', key: String(relayPort), value: '' });
  }
  return elements;
}
