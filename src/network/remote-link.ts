/** Interfaces that network plugins make on the host: into a container's namespace and back. */
import fs from 'node:fs';
import { parseAddress, parseSubnet } from '../lib/ip.ts';
import { Netlink } from '../platform/netlink.ts';
import { configureInside } from './bridge.ts';
import type { Joined } from './types.ts';

/** Under its name inside, with its hardware address, addresses and routes. `host` is a socket of our own namespace. */
export function plugIn(host: Netlink, namespacePath: string, joined: Joined): void {
  const { remote, interfaceName, mac } = joined;
  const link = host.link(remote?.source ?? '');
  if (link === undefined) throw new Error(`interface ${remote?.source} is not there`);
  if (mac !== '' && mac !== link.mac) host.setMac(link.index, mac);
  moveLink(host, link.index, interfaceName, namespacePath);
  configureInside(namespacePath, joined);
  using inside = Netlink.openIn(namespacePath);
  const index = inside.link(interfaceName)?.index ?? 0;
  // Those on the interface first: a next hop may lie behind one.
  const routes = [...(remote?.routes ?? [])].sort((a, b) => Number(a.nextHop !== '') - Number(b.nextHop !== ''));
  for (const { destination, nextHop } of routes) {
    const subnet = parseSubnet(destination);
    if (subnet !== undefined) inside.addRoute(index, subnet, parseAddress(nextHop));
  }
}

/** Back to the host, under the name it came with: its driver deletes it. */
export function plugOut(host: Netlink, namespacePath: string, { remote, interfaceName }: Joined): void {
  if (remote === undefined || host.link(remote.source) !== undefined) return;
  using inside = Netlink.openIn(namespacePath);
  const link = inside.link(interfaceName);
  if (link !== undefined) moveLink(inside, link.index, remote.source, '/proc/thread-self/ns/net');
}

function moveLink(from: Netlink, index: number, name: string, namespacePath: string): void {
  const namespaceFd = fs.openSync(namespacePath, 'r');
  try {
    from.moveLink(index, name, namespaceFd);
  } finally {
    fs.closeSync(namespaceFd);
  }
}
