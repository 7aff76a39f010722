/** The macvlan driver: interfaces with hardware addresses of their own on an interface of the host, its parent. */
import fs from 'node:fs';
import { forbidden, invalid, notFound } from '../lib/errors.ts';
import type { Netlink } from '../platform/netlink.ts';
import { configureInside, mtuOf } from './bridge.ts';
import type { Joined, NetworkRecord, NetworkRequest } from './types.ts';

/** The kernel's numbers. */
const modes: Readonly<Record<string, number>> = { private: 1, vepa: 2, bridge: 4, passthru: 8 };

export interface MacvlanParent {
  readonly index: number;
  readonly mode: number;
  /** 0: that of the parent. */
  readonly mtu: number;
}

const modeOf = (options: NetworkRecord['options']): string => options.macvlan_mode || 'bridge';

export function checkMacvlanOptions({ options }: Pick<NetworkRequest, 'options'>): void {
  const mode = modeOf(options);
  if (!Object.hasOwn(modes, mode)) {
    throw invalid(`requested macvlan mode '${mode}' is not valid, 'bridge' mode is the macvlan driver default`);
  }
  mtuOf(options);
  if (options.parent === 'lo') throw invalid('loopback interface is not a valid macvlan parent link');
}

/** `eth0`, `eth0.10`; without one an interface of the network's own that leads nowhere. */
export const parentNameOf = ({ options, id }: Pick<NetworkRecord, 'options' | 'id'>): string =>
  options.parent || `dm-${id.slice(0, 12)}`;

/** Leads nowhere: containers see each other alone. */
export const isParentless = ({ driver, options }: Pick<NetworkRecord, 'driver' | 'options'>): boolean =>
  driver === 'macvlan' && !options.parent;

/** Throws when there can be no such parent. Answers whether it has to be made, and so goes with the network. */
export function isParentToBeMade(host: Netlink, network: NetworkRecord, others: Iterable<NetworkRecord>): boolean {
  const name = parentNameOf(network);
  for (const other of others) {
    if (other.driver === 'macvlan' && other.id !== network.id && parentNameOf(other) === name)
      throw forbidden(`network ${other.name} (${other.id}) is already using parent interface ${name}`);
  }
  if (isParentless(network)) return true;
  if (host.link(name) !== undefined) return false;
  const { base } = vlanOf(name);
  if (host.link(base) === undefined) throw notFound(`-o parent interface was not found on the host: ${base}`);
  return true;
}

function vlanOf(name: string): { readonly base: string; readonly tag: number } {
  const [, base, tag] = /^([^.]+)\.(.*)$/.exec(name) ?? [];
  if (base === undefined || name.length > 15)
    throw invalid(`invalid subinterface vlan name ${name}, example formatting is eth0.10`);
  if (!/^\d{1,4}$/.test(tag ?? '') || Number(tag) < 1 || Number(tag) > 4094)
    throw invalid(`unable to parse a valid vlan id from: ${tag} (ex. eth0.10 for vlan 10)`);
  return { base, tag: Number(tag) };
}

/** Makes the parent if it is not there (any more). Repeatable. */
export function ensureParent(host: Netlink, network: NetworkRecord): MacvlanParent {
  const name = parentNameOf(network);
  if (host.link(name) === undefined) {
    if (isParentless(network)) host.addSink(name);
    else {
      const { base, tag } = vlanOf(name);
      const parent = host.link(base);
      if (parent === undefined) throw notFound(`-o parent interface was not found on the host: ${base}`);
      host.addVlan(name, parent.index, tag);
    }
  }
  const link = host.link(name);
  if (link === undefined) throw notFound(`-o parent interface was not found on the host: ${name}`);
  if (!link.up) host.setUp(link.index);
  return { index: link.index, mode: modes[modeOf(network.options)] ?? 4, mtu: mtuOf(network.options) };
}

/** Gives the namespace its interface on the parent. `host` is a socket of our own namespace. */
export function attachMacvlan(host: Netlink, namespacePath: string, joined: Joined, parent: MacvlanParent): void {
  const namespaceFd = fs.openSync(namespacePath, 'r');
  try {
    const { interfaceName: name, mac } = joined;
    host.addMacvlan({ name, mac, mtu: parent.mtu, parent: parent.index, mode: parent.mode, namespaceFd });
  } finally {
    fs.closeSync(namespaceFd);
  }
  configureInside(namespacePath, joined);
}
