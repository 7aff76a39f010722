/** Namespaces, neighbours and talkers. Importing this moves the process into a network namespace of its own. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import type { ContainerId } from '../../src/lib/ids.ts';
import { newId } from '../../src/lib/ids.ts';
import { silentLog } from '../../src/lib/log.ts';
import { createNetworks, type NetworksOptions } from '../../src/network/networks.ts';
import type {
  Joined,
  LiveSandbox,
  NetworkRequest,
  Networks,
  PortBinding,
  PublishedPort,
} from '../../src/network/types.ts';
import { unmount } from '../../src/platform/mount.ts';
import { CLONE, createNetworkNamespace, unshare } from '../../src/platform/namespace.ts';
import { memoryStore, noPlugins, plainConfig } from './store.ts';

// Test files run side by side: each in a network of its own. Node's main thread opens all sockets and spawns all children.
unshare(CLONE.NEWNET);
run('ip', 'link', 'set', 'lo', 'up');

/** Runs a program and answers what it printed. */
export function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8' });
}

export const bridgeName = 'slipway0';

/** A sandbox on one network, and what it has there at hand. */
export interface Guest extends LiveSandbox {
  readonly namespacePath: string;
  readonly published: readonly PublishedPort[];
  readonly joined: Joined | null;
}

export class World {
  readonly directory = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-network-'));
  readonly store = memoryStore();
  readonly #children: ChildProcess[] = [];
  readonly #networks: Networks[] = [];
  readonly #joined = new Map<ContainerId, Networks>();

  /** Everything is taken down after the test. */
  constructor(t: TestContext) {
    t.after(() => this.#close());
  }

  async networks(
    options: Partial<NetworksOptions['config']> = {},
    live: readonly LiveSandbox[] = [],
  ): Promise<Networks> {
    const networks = this.create(options);
    await networks.reconcile(live);
    return networks;
  }

  create(options: Partial<NetworksOptions['config']> = {}): Networks {
    const config = { ...plainConfig, execRoot: this.directory, ...options };
    const networks = createNetworks({ config, store: this.store, plugins: noPlugins, log: silentLog });
    this.#networks.push(networks);
    return networks;
  }

  async join(
    networks: Networks,
    name: string,
    ports: Readonly<Record<string, readonly Partial<PortBinding>[]>> = {},
    network = 'bridge',
  ): Promise<Guest> {
    const containerId = newId<ContainerId>();
    const bindings = Object.entries(ports).map(
      ([key, list]) => [key, list.map((each) => ({ HostIp: '', HostPort: '', ...each }))] as const,
    );
    const endpoint = { networkName: network, aliases: [], links: [], requested: {}, joined: null };
    const place = await networks.join({
      containerId,
      containerName: name,
      endpoints: { [network]: endpoint },
      dns: [],
      ports: new Map(bindings),
    });
    this.#joined.set(containerId, networks);
    const joined = place.endpoints[network]?.joined ?? null;
    return { ...place, ...place.sandbox, joined, containerId, containerName: name, dns: [] };
  }

  /**
   * Another machine on a wire of its own: the host has `<prefix>.1` there, the neighbour `<prefix>.2` and a default route
   * through the host. Returns the path of its namespace.
   */
  neighbour(name: string, prefix: string): string {
    const namespace = path.join(this.directory, name);
    createNetworkNamespace(namespace);
    run('ip', 'link', 'add', name, 'type', 'veth', 'peer', 'name', 'wire', 'netns', namespace);
    run('ip', 'address', 'add', `${prefix}.1/24`, 'dev', name);
    run('ip', 'link', 'set', name, 'up');
    this.inside(namespace, 'ip', 'address', 'add', `${prefix}.2/24`, 'dev', 'wire');
    this.inside(namespace, 'ip', 'link', 'set', 'wire', 'up');
    this.inside(namespace, 'ip', 'link', 'set', 'lo', 'up');
    this.inside(namespace, 'ip', 'route', 'add', 'default', 'via', `${prefix}.1`);
    return namespace;
  }

  inside(namespace: string, ...command: string[]): string {
    return run('nsenter', `--net=${namespace}`, ...command);
  }

  /** Starts a server; resolves when it listens. `namespace` null: the host's. */
  async serve(namespace: string | null, protocol: 'tcp' | 'udp', port: number, name: string, address = '0.0.0.0') {
    const child = this.#peer(namespace, [`${protocol}-serve`, address, String(port), name]);
    this.#children.push(child);
    const [answer] = await Promise.race([once(child.stdout as NodeJS.ReadableStream, 'data'), once(child, 'close')]);
    if (typeof answer === 'number') throw new Error(`${name} cannot listen at ${protocol} port ${port}`);
    return child;
  }

  /** What came back: `<server's name> <address it saw> hello`, an errno's name, or `nothing`. */
  async ask(
    namespace: string | null,
    protocol: 'tcp' | 'udp',
    address: string,
    port: number,
    ownPort = '',
  ): Promise<string> {
    const child = this.#peer(namespace, [`${protocol}-ask`, address, String(port), ownPort]);
    let answer = '';
    child.stdout?.on('data', (chunk) => {
      answer += chunk;
    });
    await once(child, 'close');
    return answer.trim();
  }

  /** Resolves with a program's exit code. */
  async run(namespace: string, command: readonly string[]): Promise<number> {
    const child = spawn('nsenter', [`--net=${namespace}`, ...command], { stdio: 'ignore' });
    const [code] = (await once(child, 'close')) as [number];
    return code;
  }

  #peer(namespace: string | null, args: readonly string[]): ChildProcess {
    const command = [process.execPath, path.join(import.meta.dirname, 'peer.ts'), ...args];
    const [program = '', ...rest] = namespace === null ? command : ['nsenter', `--net=${namespace}`, ...command];
    return spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
  }

  async #close(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL');
    for (const [id, networks] of this.#joined) await networks.leave(id, null);
    for (const networks of this.#networks) await networks.close();
    for (const link of ['left', 'right', bridgeName]) {
      try {
        execFileSync('ip', ['link', 'delete', link], { stdio: 'ignore' });
      } catch {
        // This test had none.
      }
    }
    for (const name of fs.readdirSync(this.directory)) unmount(path.join(this.directory, name));
    run('nft', 'flush', 'ruleset');
    fs.rmSync(this.directory, { recursive: true });
  }
}

/** What a client asks for when it creates a network; a subnet of IPv6 switches that on. */
export function request(
  name: string,
  more: Partial<NetworkRequest> = {},
  subnets: readonly string[] = [],
): NetworkRequest {
  return {
    name,
    driver: 'bridge',
    internal: false,
    attachable: false,
    enableIPv6: subnets.some((subnet) => subnet.includes(':')),
    options: {},
    labels: {},
    ipam: { driver: 'default', options: null, config: subnets.map((subnet) => ({ subnet })) },
    ...more,
  };
}

/** A network for the time of the test. */
export async function network(t: TestContext, networks: Networks, wish: NetworkRequest): Promise<string> {
  const { bridgeName } = await networks.create(wish);
  t.after(() => run('sh', '-c', `ip link delete ${bridgeName} 2>/dev/null || true`));
  return bridgeName;
}

/** The neighbour speaks IPv6, too: `<prefix>::2`, the host is `<prefix>::1`. */
export function addIPv6(world: World, neighbour: string, name: string, prefix: string): void {
  run('ip', 'address', 'add', `${prefix}::1/64`, 'dev', name, 'nodad');
  world.inside(neighbour, 'ip', 'address', 'add', `${prefix}::2/64`, 'dev', 'wire', 'nodad');
  world.inside(neighbour, 'ip', 'route', 'add', 'default', 'via', `${prefix}::1`);
}

/** Polls until it holds; for what the kernel finishes on its own time. */
export async function eventually(condition: () => boolean): Promise<void> {
  for (let step = 0; step < 200; step++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`did not come true in 2 s: ${condition}`);
}
