/** Containers' network namespaces under `<exec root>/netns`, one file each, and what stands in them. */
import fs from 'node:fs';
import path from 'node:path';
import { isErrno } from '../platform/libc.ts';
import { unmount } from '../platform/mount.ts';
import { createNetworkNamespace, inNamespace } from '../platform/namespace.ts';
import { Netlink } from '../platform/netlink.ts';
import { parseIPv4 } from './ipv4.ts';
import type { Joined } from './types.ts';

const loopbackIndex = 1;

export class Namespaces {
  readonly #directory: string;

  constructor(execRoot: string) {
    this.#directory = path.join(execRoot, 'netns');
  }

  prepare(): void {
    fs.mkdirSync(this.#directory, { recursive: true, mode: 0o755 });
  }

  pathOf(containerId: string): string {
    return path.join(this.#directory, containerId);
  }

  list(): string[] {
    return fs.readdirSync(this.#directory);
  }

  /** A new namespace with loopback up. A leftover of the same name is replaced. */
  create(containerId: string): string {
    const file = this.pathOf(containerId);
    this.remove(containerId);
    createNetworkNamespace(file);
    try {
      inNamespace(file, 'net', () => {
        // Interfaces yet to come have no IPv6 while their network has none: no link-local addresses, no multicast noise.
        fs.writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1');
      });
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error; // kernel without IPv6
    }
    using inside = Netlink.openIn(file);
    inside.setUp(loopbackIndex);
    return file;
  }

  /** Repeatable. The kernel ends the namespace, and both ends of its veths, when nothing else holds it. */
  remove(containerId: string): void {
    const file = this.pathOf(containerId);
    unmount(file);
    fs.rmSync(file, { force: true });
  }
}

export interface Attachment {
  readonly namespacePath: string;
  readonly joined: Joined;
  /** Index of the bridge. */
  readonly bridge: number;
  readonly mtu: number;
  /** Whether it has published ports, so that it may meet itself through them. */
  readonly published: boolean;
}

/** Connects the namespace to the bridge as `joined` says: veth pair, address, default route. `host` is a socket of our own namespace. */
export function attach(host: Netlink, options: Attachment): void {
  const { joined, namespacePath } = options;
  const namespaceFd = fs.openSync(namespacePath, 'r');
  try {
    host.addVeth({
      name: joined.hostInterface,
      mtu: options.mtu,
      master: options.bridge,
      peer: { name: 'eth0', mac: joined.mac, namespaceFd },
    });
  } finally {
    fs.closeSync(namespaceFd);
  }
  // Where bridged frames pass netfilter (br_netfilter), the rewritten frame goes straight back to the port it came from.
  if (options.published) host.setHairpin(host.link(joined.hostInterface)?.index ?? 0);
  using inside = Netlink.openIn(namespacePath);
  const index = inside.link('eth0')?.index ?? 0;
  const address = parseIPv4(joined.ipv4) ?? 0;
  inside.addAddress({ index, address, prefixLength: joined.ipv4PrefixLength });
  inside.setUp(index);
  inside.addDefaultRoute(index, parseIPv4(joined.gateway) ?? 0);
}
