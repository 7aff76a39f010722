/**
 * The OCI runtime (crun or runc) and the monitor (conmon) as the engine uses them.
 *
 * Per container run directory `<exec-root>/container/<id>/`: `bundle/config.json`, `monitor.pid`, `pid`, `exit/<id>`,
 * `oom`, `ctl`, `attach` (socket). The monitor outlives the daemon; everything here can be found again by path.
 */
import type { HostConfig, MountPoint } from '../container/types.ts';
import type { RunConfig } from '../image/types.ts';
import type { IdMap } from '../lib/idmap.ts';
import type { ContainerId } from '../lib/ids.ts';
import type { KernelLimits } from './cgroup.ts';
import type { MachineLimits } from './machine.ts';

/** Everything the OCI spec is made from. */
export interface LaunchSpec {
  readonly id: ContainerId;
  readonly config: RunConfig;
  readonly hostConfig: HostConfig;
  readonly hostname: string;
  /** Path of the mounted root file system. */
  readonly rootfs: string;
  readonly mounts: readonly MountPoint[];
  /** Absolute path of the network namespace; null: the host's. */
  readonly networkNamespace: string | null;
  /** Containers whose namespaces are shared; with IPC comes /dev/shm. */
  readonly pidNamespaceOf?: NamespaceOwner | undefined;
  readonly ipcNamespaceOf?: NamespaceOwner | undefined;
  /** The user namespace, and how its ids are the machine's; null: the machine's. */
  readonly userNamespace?: { readonly path: string; readonly ids: IdMap } | null | undefined;
  /** Files of the engine bound over the image's: resolv.conf, hosts, hostname. Null ones are not bound. */
  readonly resolvConf: string | null;
  readonly hosts: string | null;
  readonly hostnameFile: string | null;
  readonly cgroupPath: string;
  /** Log file the monitor appends to (conmon `k8s-file` format). */
  readonly logPath: string;
  /** `DOCKER_…`-free environment: image's and user's Env merged; HOME, HOSTNAME, PATH, TERM are filled in by the runtime part. */
  readonly env: readonly string[];
}

export interface NamespaceOwner {
  readonly id: ContainerId;
  readonly pid: number;
  readonly pidStartTicks: number;
}

export interface Launched {
  readonly pid: number;
  readonly pidStartTicks: number;
  readonly monitorPid: number;
}

/** How the process of a container ended, read from what the monitor left behind. */
export interface ExitNotice {
  readonly id: ContainerId;
  /** 0 to 255; 128 + signal number when killed. */
  readonly exitCode: number;
  /** How often the kernel has killed in the container's cgroup for want of memory. */
  readonly oomKills: number;
  /** Milliseconds since the epoch. */
  readonly finishedAtMs: number;
}

export interface Runtime {
  /**
   * Tells that a `create` or `exec` will follow at once. Moving a process to a cgroup makes the kernel wait for a grace
   * period of 5 to 15 ms, unless that has happened in the last dozen; asked for now, the wait passes while other things are
   * being prepared. Asking in vain costs nothing but the question.
   */
  anticipate(): void;
  /** Checks binaries and the cgroup layout; prepares the private mount namespace crun needs on hybrid hosts. */
  prepare(): Promise<void>;
  /** What `/info` and `/version` tell: name, version, cgroup driver and version, warnings about known-bad runtimes, missing controllers. */
  describe(): RuntimeDescription;
  /** Throws dockerd's words for options that no start could honour on this machine: capabilities, security options, sysctls. */
  validate(hostConfig: HostConfig): void;
  /** Writes the bundle, starts the monitor, which runs the runtime's `create`. The process waits until `start`. Errors carry the runtime's words. Returned warnings: settings the kernel lacks, dropped. */
  create(spec: LaunchSpec): Promise<Launched & { readonly warnings: readonly string[] }>;
  start(id: ContainerId): Promise<void>;
  /** Signals pid 1 in-process through a pidfd after comparing its start time; false if it has gone. */
  kill(launched: Launched, signal: number): boolean;
  /** SIGKILL to every process in the container's cgroup. */
  killAll(id: ContainerId): Promise<void>;
  pause(id: ContainerId): Promise<void>;
  resume(id: ContainerId): Promise<void>;
  /** Gives a running container the limits of `to`; those of `from` are what it has. */
  update(id: ContainerId, to: HostConfig, from: HostConfig): Promise<void>;
  /** Removes runtime state, cgroup and run directory. Repeating it is not an error. */
  delete(id: ContainerId): Promise<void>;
  /** Called once for each exit the monitor reports, also for those from before this daemon. */
  onExit(listener: (notice: ExitNotice) => void): void;
  /** The exit notice of a container if it has ended; null if the monitor has left none (yet). */
  readExit(id: ContainerId): ExitNotice | null;
  /** True when pid and start time still name the same live process. */
  isAlive(launched: Launched): boolean;
  /** How often the kernel has killed in the container's cgroup for want of memory; 0 when that is gone. */
  oomKills(id: ContainerId): number;
  /** Run directories on disk, for the sweep at start. */
  listRunDirectories(): readonly ContainerId[];

  /** Terminal size. Sent at most every 50 ms, always the last. */
  resize(id: ContainerId, rows: number, columns: number): void;
  /** Opens the one stdin connection of a container (monitor's attach socket). */
  openStdin(id: ContainerId): Promise<StdinPipe>;
  /** Tells the monitor to reopen its log file after the daemon renamed it. */
  reopenLog(id: ContainerId): void;

  exec(spec: ExecSpec): Promise<ExecProcess>;
  /** Prepares a command without terminal and stdin that will be run in the running container again and again, as its own user. */
  prepareProbe(id: ContainerId, cmd: readonly string[], options: ProbeOptions): Probe;
  /** pids inside, from the cgroup. */
  processes(id: ContainerId): Promise<readonly number[]>;
  /** Counters of the cgroup (v1 and v2), in the shape of `GET /containers/{id}/stats` of API 1.26 without names, network and times. */
  stats(id: ContainerId): Promise<CgroupStats>;
}

export interface RuntimeDescription {
  /** The runtime in use by default: `crun` or `runc`. */
  readonly name: string;
  readonly version: string;
  readonly available: Readonly<Record<string, { readonly path: string }>>;
  readonly cgroupDriver: 'cgroupfs';
  readonly cgroupVersion: 1 | 2;
  readonly hybrid: boolean;
  /** Which limits the kernel offers, for `/info` (MemoryLimit, SwapLimit, …). */
  readonly limits: KernelLimits;
  /** What limits are checked against. */
  readonly machine: MachineLimits;
  readonly warnings: readonly string[];
  /** `name=seccomp,profile=default` and the like. */
  readonly securityOptions: readonly string[];
  /** What `Init` runs: a path when it was configured, else the program's name; empty when there is none. */
  readonly initBinary: string;
}

export interface StdinPipe {
  /** Resolves when the monitor has taken it (flow control). */
  write(data: Uint8Array): Promise<void>;
  /** Half-close: ends the process's stdin when the container was created with StdinOnce. */
  end(): Promise<void>;
  readonly closed: Promise<void>;
}

export interface ExecSpec {
  readonly id: ContainerId;
  readonly cmd: readonly string[];
  /** The exec's own; the container's is added. */
  readonly env: readonly string[];
  /** Empty: the container's. */
  readonly user: string;
  /** Empty: the container's. */
  readonly workingDir: string;
  readonly tty: boolean;
  readonly privileged: boolean;
  readonly stdin: boolean;
  /** Nobody listens: output goes to /dev/null and the process outlives the daemon. */
  readonly detached: boolean;
  /** [rows, columns] */
  readonly consoleSize?: readonly [number, number] | undefined;
}

export interface ExecProcess {
  /** pid on the host. */
  readonly pid: number;
  /** Output in order of arrival; with a tty all of it is stdout. Ends when the last writer has gone. */
  readonly output: AsyncIterable<OutputChunk>;
  readonly input: { write(data: Uint8Array): Promise<void>; end(): void } | null;
  resize(rows: number, columns: number): void;
  /** 126 cannot be run, 127 not found, else the process's own; 128 + signal when killed. */
  readonly exit: Promise<number>;
}

export interface ProbeOptions {
  /** Output beyond is cut. */
  readonly outputBytesMax: number;
  /** It comes so often that a shell may stay in the container to run it. */
  readonly frequent: boolean;
}

export interface Probe {
  /** One at a time. Throws when it cannot even be tried. */
  run(): ProbeRun;
  /** It will not be run again. */
  close(): void;
}

export interface ProbeRun {
  /** Never rejects. */
  readonly ended: Promise<ProbeEnd>;
  /** Milliseconds that the command has been running; null while the runtime is still preparing it, or when it has ended. */
  ranMs(): Promise<number | null>;
  /** Ends the command and everything it has started. */
  kill(): Promise<void>;
}

export interface ProbeEnd {
  /** -1 when it could not be run; `output` says why. */
  readonly exitCode: number;
  /** Both streams together. */
  readonly output: string;
}

export interface OutputChunk {
  readonly stream: 'stdout' | 'stderr';
  readonly data: Uint8Array;
}

export interface CgroupStats {
  readonly pids_stats: { readonly current?: number; readonly limit?: number };
  readonly blkio_stats: Readonly<
    Record<
      string,
      readonly { readonly major: number; readonly minor: number; readonly op: string; readonly value: number }[] | null
    >
  >;
  readonly cpu: {
    readonly cpu_usage: {
      readonly total_usage: number;
      readonly percpu_usage?: readonly number[];
      readonly usage_in_kernelmode: number;
      readonly usage_in_usermode: number;
    };
    readonly system_cpu_usage: number;
    readonly online_cpus: number;
    readonly throttling_data: {
      readonly periods: number;
      readonly throttled_periods: number;
      readonly throttled_time: number;
    };
  };
  readonly memory_stats: {
    readonly usage?: number;
    readonly max_usage?: number;
    readonly stats?: Readonly<Record<string, number>>;
    readonly failcnt?: number;
    readonly limit?: number;
  };
}
