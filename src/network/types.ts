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
  /** `container:alias`, for user-defined networks. */
  readonly links: readonly string[];
  /** Kept and shown; our drivers know none. */
  readonly driverOptions?: Readonly<Record<string, string>> | undefined;
  readonly requested: {
    readonly ipv4?: string | undefined;
    readonly ipv6?: string | undefined;
    readonly mac?: string | undefined;
    readonly linkLocal?: readonly string[] | undefined;
  };
  /** Null while the container does not run. */
  readonly joined: Joined | null;
}

/** Empty texts where the network has none of it: `host` and `none` give identities only. */
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
  /** Further addresses of its interface. */
  readonly linkLocal?: readonly string[] | undefined;
  /** `eth0` and so on, inside. */
  readonly interfaceName: string;
  readonly hostInterface: string;
  /** Of a network plugin: name of its interface on the host (empty: none), and routes through it. */
  readonly remote?:
    | {
        readonly source: string;
        readonly routes: readonly { readonly destination: string; readonly nextHop: string }[];
      }
    | undefined;
}

export type JoinedEndpoint = Endpoint & { readonly joined: Joined };
export const isJoined = (endpoint: Endpoint): endpoint is JoinedEndpoint => endpoint.joined !== null;

/** By network name. */
export type Endpoints = Readonly<Record<string, Endpoint>>;

export interface JoinRequest {
  /** Path of a new network namespace to take instead of making one. */
  readonly namespace?: string | undefined;
  readonly containerId: ContainerId;
  readonly containerName: string;
  /** The networks to join, by name. `host` alone, or any others. */
  readonly endpoints: Endpoints;
  /** Name servers it asked for; none: the host's. */
  readonly dns: readonly string[];
  /** As of a `LiveSandbox`. */
  readonly keepsSingleLabels?: boolean | undefined;
  /** `80/tcp` → requested bindings, from PortBindings and PublishAllPorts; none for what is only exposed. */
  readonly ports: ReadonlyMap<string, readonly PortBinding[]>;
}

/** What a container got for one run. Durable inside the container's record. */
export interface Sandbox {
  /** Path of the network namespace, given to the runtime. Empty: the host's. */
  readonly namespacePath: string;
  /** Ports of the host that lead to the container, through the network of its default route. */
  readonly published: readonly PublishedPort[];
}

/** A sandbox and the endpoints in it, all joined. */
export interface Place {
  readonly sandbox: Sandbox;
  readonly endpoints: Endpoints;
}

/** What is joined according to the records: the input of every rebuild. */
export interface LiveSandbox extends Place {
  readonly containerId: ContainerId;
  readonly containerName: string;
  /** Name servers it asked for; none: the host's. */
  readonly dns: readonly string[];
  /** Names of one label are not asked outside: its resolver comes again with a domain. */
  readonly keepsSingleLabels?: boolean | undefined;
}

export interface IpamConfig {
  readonly subnet?: string | undefined;
  readonly ipRange?: string | undefined;
  readonly gateway?: string | undefined;
  readonly auxiliaryAddresses?: Readonly<Record<string, string>> | undefined;
}

/** `GET /networks` rows in the newest API's terms come from these. */
export interface NetworkRecord {
  readonly id: NetworkId;
  readonly name: string;
  /** `bridge`, `host`, `null`, `macvlan`, or a plugin's name. */
  readonly driver: string;
  readonly created: string;
  readonly scope: 'local' | 'global';
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly internal: boolean;
  readonly attachable: boolean;
  readonly enableIPv6: boolean;
  readonly ipam: {
    readonly driver: string;
    readonly options: Readonly<Record<string, string>> | null;
    /** As the user gave it; what was chosen where nothing was given. */
    readonly config: readonly IpamConfig[];
  };
  /** The subnets in use, gateway included: at most one of each family with addresses to give. */
  readonly pools: readonly Pool[];
  /** The user chose the subnets: only then may endpoints ask for addresses. */
  readonly userSubnets: boolean;
  /** Name of the bridge on the host; empty for other drivers. */
  readonly bridgeName: string;
  /** Containers leave through it instead of through the bridge's own address. */
  readonly routeGateway?: string;
  /** The bridge was there before the network and outlives it. */
  readonly foreignBridge?: true;
  /** The macvlan parent was made for this network and goes with it. */
  readonly madeParent?: true;
}

/** A subnet of a network. Texts, since records are JSON. */
export interface Pool {
  readonly subnet: string;
  /** Addresses are given from here. */
  readonly range: string;
  /** Empty: the network has no way out at its own address (macvlan without gateway). */
  readonly gateway: string;
  /** Never given: name → address. */
  readonly reserved: Readonly<Record<string, string>>;
  /** What the IPAM plugin that has it calls it, and the address space it took it from. */
  readonly poolId?: string | undefined;
  readonly addressSpace?: string | undefined;
}

/** `POST /networks/create`. */
export interface NetworkRequest {
  readonly name: string;
  /** Empty: bridge. */
  readonly driver: string;
  readonly internal: boolean;
  readonly attachable: boolean;
  readonly enableIPv6: boolean;
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly ipam: {
    readonly driver: string;
    readonly options: Readonly<Record<string, string>> | null;
    readonly config: readonly IpamConfig[];
  };
}

export interface Networks {
  /** Bridges up, forwarding on, table in place, ports of live sandboxes reserved again; sweeps links, namespaces and rules no record claims. */
  reconcile(live: readonly LiveSandbox[]): Promise<void>;
  /** The kernel becomes again what records and live sandboxes say, as on SIGHUP; nothing before `reconcile`. */
  refresh(settings: { readonly hostForwardPolicy: 'overrule' | 'obey' }): Promise<void>;
  list(): readonly NetworkRecord[];
  /** By name, id, or the beginning of an id; throws 'invalid' when several begin so. */
  get(nameOrId: string): NetworkRecord | undefined;
  /** Durable and in the kernel when it resolves. Throws dockerd's words for what cannot be; a pool that overlaps names who has it. */
  create(request: NetworkRequest): Promise<NetworkRecord>;
  /** Throws 'forbidden' for a predefined network and for one with active endpoints. */
  remove(nameOrId: string): Promise<NetworkRecord>;
  /** Checks what an endpoint asks of its network (fixed addresses, aliases), for a create or connect of a container that does not run. */
  check(endpoint: Endpoint): void;
  /**
   * Namespace, interfaces, addresses, routes, published ports: everything a client may see is true when this resolves.
   * A failure leaves nothing behind. A taken port throws dockerd's words and names the container that holds it.
   */
  join(request: JoinRequest): Promise<Place>;
  /** One more network for a live sandbox. The answer has all endpoints. `ports`: as for a join, for the first network that can publish. */
  connect(live: LiveSandbox, endpoint: Endpoint, ports: ReadonlyMap<string, readonly PortBinding[]>): Promise<Place>;
  /** One network less; the endpoint is gone from the answer. */
  disconnect(
    live: LiveSandbox,
    networkName: string,
    ports: ReadonlyMap<string, readonly PortBinding[]>,
  ): Promise<Place>;
  /** Removes those of the user's that `isWanted` and that nothing is joined to; answers with their names. */
  prune(isWanted: (network: NetworkRecord) => boolean): Promise<readonly string[]>;
  /** A container goes by another name: what other containers find it by. */
  rename(containerId: ContainerId, name: string): void;
  /** Takes all of it down again. Repeating it, also for what never was joined, is not an error. */
  leave(containerId: ContainerId, place: Place | null): Promise<void>;
  /** Interfaces' byte counters of a sandbox, read in its namespace (for stats). Keyed by name in the container (`eth0`). */
  counters(sandbox: Sandbox): Readonly<Record<string, InterfaceCounters>>;
  close(): Promise<void>;
}

export type InterfaceCounters = LinkCounters;
