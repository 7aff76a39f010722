/** The daemon's configuration: flags and daemon.json, parsed once into a frozen object. A reload swaps it. */
export interface Config {
  /** `unix:///path`, `tcp://host:port`, `fd://`. */
  readonly hosts: readonly string[];
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly pidFile: string;
  /** Group of unix sockets; used if it exists. */
  readonly group: string;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'fatal';
  readonly debug: boolean;
  readonly labels: readonly string[];
  /** CIDR of the default bridge (its address and subnet); empty: chosen. */
  readonly bip: string;
  readonly mtu: number;
  /** Containers on the default bridge get addresses from here; empty: from its whole subnet. */
  readonly fixedCidr: string;
  /** Where containers on the default bridge send what leaves; empty: to the bridge. */
  readonly defaultGateway: string;
  /** Containers on the default bridge reach each other. */
  readonly icc: boolean;
  /** Address that ports of containers on the default bridge are published on, unless they name one. */
  readonly ip: string;
  /** What leaves the default bridge gets the host's address. */
  readonly ipMasq: boolean;
  /** Where networks get their subnets from that name none: prefix length `size` each. Empty: the engine's own. */
  readonly defaultAddressPools: readonly { readonly base: string; readonly size: number }[];
  /** What becomes of containers' traffic where the host drops by default what it forwards. */
  readonly hostForwardPolicy: 'overrule' | 'obey';
  readonly dns: readonly string[];
  readonly dnsOptions: readonly string[];
  readonly dnsSearch: readonly string[];
  /** host[:port] or CIDR; 127.0.0.0/8 always belongs to it. */
  readonly insecureRegistries: readonly string[];
  readonly registryMirrors: readonly string[];
  readonly tls: boolean;
  readonly tlsVerify: boolean;
  readonly tlsCaCert: string;
  readonly tlsCert: string;
  readonly tlsKey: string;
  readonly defaultRuntime: string;
  /** Name to binary. */
  readonly runtimes: Readonly<Record<string, { readonly path: string; readonly runtimeArgs: readonly string[] }>>;
  /** Containers that do not say otherwise run under an init process. */
  readonly init: boolean;
  /** Path or name of that init; empty: the first one known that is installed. */
  readonly initPath: string;
  readonly noNewPrivileges: boolean;
  /** `builtin`, `unconfined` or an absolute path. */
  readonly seccompProfile: string;
  /** Whose subordinate ids containers have (`default`, user[:group]); empty: the machine's own. */
  readonly usernsRemap: string;
  /** Default log driver and options of containers. */
  readonly logDriver: string;
  readonly logOpts: Readonly<Record<string, string>>;
  readonly defaultUlimits: Readonly<
    Record<string, { readonly Name: string; readonly Soft: number; readonly Hard: number }>
  >;
  readonly maxConcurrentDownloads: number;
  readonly maxConcurrentUploads: number;
  /** Directory of plugins' sockets. */
  readonly pluginSockets: string;
  /** Directories of files that tell where plugins are. */
  readonly pluginSpecs: readonly string[];
  /** Seconds. */
  readonly shutdownTimeout: number;
  readonly apiShape: 'open' | 'exact';
  readonly configFile: string;
}
