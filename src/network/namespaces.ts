/** Containers' network namespaces under `<exec root>/netns`, one file each. */
import fs from 'node:fs';
import path from 'node:path';
import { isErrno } from '../platform/libc.ts';
import { unmount } from '../platform/mount.ts';
import { createNetworkNamespace, inNamespace, keepNamespace } from '../platform/namespace.ts';
import { Netlink } from '../platform/netlink.ts';

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

  /** A new namespace, or the new one at the path `from`, with loopback up. A leftover of the same name is replaced. */
  create(containerId: string, from?: string): string {
    const file = this.pathOf(containerId);
    this.remove(containerId);
    if (from === undefined) createNetworkNamespace(file);
    else keepNamespace(from, file);
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
