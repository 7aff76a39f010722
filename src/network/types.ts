/**
 * Networks, endpoints, published ports. What the kernel holds (bridges, veths, addresses, nftables rules) is a projection
 * of records and can be rebuilt from them at any time.
 */
import type { ContainerId, NetworkId } from '../lib/ids.ts';
import type { LinkCounters } from '../platform/netlink.ts';

/** `HostPort` may be empty (any free port) or a range `8000-8010`. */
export interface PortBinding {
  readonly HostIp: string;
  readonly HostPort: string;
}

/** A port as published: both sides concrete. */
export interface PublishedPort {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly containerPort: number;
  /** `0.0.0.0`, `::`, or one address. */
  readonly hostIp: string;
  readonly hostPort: number;
}

/** A container's place on one network: what was asked for, and (while joined) what it got. */
export interface Endpoint {
  readonly networkName: string;
  readonly aliases: readonly string[];
  readonly links: readonly string[];
  readonly requested: {
    readonly ipv4?: string | undefined;
    readonly ipv6?: string | undefined;
    readonly mac?: string | undefined;
  };
  /** Null while the container does not run. */
  readonly joined: Joined | null;
}

export interface Joined {
  readonly networkId: NetworkId;
  /** 64 hex digits, new at each join. */
  readonly endpointId: string;
  readonly ipv4: string;
  readonly ipv4PrefixLength: number;
  readonly gateway: string;
  readonly mac: string;
  readonly ipv6: string;
  readonly ipv6PrefixLength: number;
  readonly ipv6Gateway: string;
  readonly hostInterface: string;
}

export interface JoinRequest {
  readonly containerId: ContainerId;
  readonly containerName: string;
  /** `none`: a namespace with loopback only. `bridge`: the default bridge. */
  readonly mode: 'bridge' | 'none';
  readonly endpoint: Endpoint | null;
  /** `80/tcp` → requested bindings, from PortBindings and PublishAllPorts. */
  readonly ports: ReadonlyMap<string, readonly PortBinding[]>;
}

/** What a container got for one run. Durable inside the container's record. */
export interface Sandbox {
  /** Path of the network namespace, given to the runtime. */
  readonly namespacePath: string;
  readonly joined: Joined | null;
  readonly published: readonly PublishedPort[];
}

/** What is joined according to the records: the input of every rebuild. */
export interface LiveSandbox extends Sandbox {
  readonly containerId: ContainerId;
  readonly containerName: string;
}

/** `GET /networks` rows in the newest API's terms come from these. */
export interface NetworkRecord {
  readonly id: NetworkId;
  readonly name: string;
  readonly driver: 'bridge' | 'host' | 'null';
  readonly created: string;
  readonly scope: 'local';
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly internal: boolean;
  readonly attachable: boolean;
  readonly enableIPv6: boolean;
  readonly ipam: {
    readonly driver: string;
    readonly config: readonly { readonly subnet: string; readonly gateway: string }[];
  };
  /** Name of the bridge on the host. */
  readonly bridgeName: string;
}

export interface Networks {
  /** Bridge up, forwarding on, table in place, ports of live sandboxes reserved again; sweeps links, namespaces and rules no record claims. */
  reconcile(live: readonly LiveSandbox[]): Promise<void>;
  list(): readonly NetworkRecord[];
  get(nameOrId: string): NetworkRecord | undefined;
  /**
   * Namespace, veth pair, address, routes, published ports: everything a client may see is true when this resolves.
   * A failure leaves nothing behind. A taken port throws dockerd's words and names the container that holds it.
   */
  join(request: JoinRequest): Promise<Sandbox>;
  /** Takes all of it down again. Repeating it, also for what never was joined, is not an error. */
  leave(containerId: ContainerId, sandbox: Sandbox | null): Promise<void>;
  /** Interfaces' byte counters of a sandbox, read in its namespace (for stats). Keyed by name in the container (`eth0`). */
  counters(sandbox: Sandbox): Readonly<Record<string, InterfaceCounters>>;
  close(): Promise<void>;
}

export type InterfaceCounters = LinkCounters;
