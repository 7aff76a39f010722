/** Containers as the engine keeps them: a frozen record per container, in the newest API's terms. */

import type { RunConfig } from '../image/types.ts';
import type { ContainerId, ImageId } from '../lib/ids.ts';
import type { Endpoint, PortBinding, Sandbox } from '../network/types.ts';
import type { Health } from './health.ts';

/** `HostConfig` of API 1.26, normalised: every key present, absent lists null as dockerd has them. */
export interface HostConfig {
  readonly Binds: readonly string[] | null;
  readonly ContainerIDFile: string;
  readonly LogConfig: { readonly Type: string; readonly Config: Readonly<Record<string, string>> };
  /** `default`, `bridge`, `none`, `host`, `container:<ref>` or a network's name or id. */
  readonly NetworkMode: string;
  readonly PortBindings: Readonly<Record<string, readonly PortBinding[] | null>> | null;
  readonly RestartPolicy: {
    readonly Name: '' | 'no' | 'always' | 'unless-stopped' | 'on-failure';
    readonly MaximumRetryCount: number;
  };
  readonly AutoRemove: boolean;
  readonly VolumeDriver: string;
  readonly VolumesFrom: readonly string[] | null;
  readonly CapAdd: readonly string[] | null;
  readonly CapDrop: readonly string[] | null;
  readonly Dns: readonly string[] | null;
  readonly DnsOptions: readonly string[] | null;
  readonly DnsSearch: readonly string[] | null;
  readonly ExtraHosts: readonly string[] | null;
  readonly GroupAdd: readonly string[] | null;
  readonly IpcMode: string;
  readonly Cgroup: string;
  readonly Links: readonly string[] | null;
  readonly OomScoreAdj: number;
  readonly PidMode: string;
  readonly Privileged: boolean;
  readonly PublishAllPorts: boolean;
  readonly ReadonlyRootfs: boolean;
  readonly SecurityOpt: readonly string[] | null;
  readonly StorageOpt?: Readonly<Record<string, string>> | undefined;
  readonly Tmpfs?: Readonly<Record<string, string>> | undefined;
  readonly UTSMode: string;
  readonly UsernsMode: string;
  /** Bytes; 64 MiB unless given. */
  readonly ShmSize: number;
  readonly Sysctls?: Readonly<Record<string, string>> | undefined;
  readonly Runtime: string;
  /** [height, width] */
  readonly ConsoleSize: readonly [number, number];
  readonly Isolation: string;
  readonly Mounts?: readonly MountRequest[] | undefined;
  readonly Init?: boolean | undefined;

  readonly CpuShares: number;
  /** Bytes. */
  readonly Memory: number;
  /** Billionths of a CPU. */
  readonly NanoCpus: number;
  readonly CgroupParent: string;
  readonly BlkioWeight: number;
  readonly BlkioWeightDevice: readonly { readonly Path: string; readonly Weight: number }[] | null;
  readonly BlkioDeviceReadBps: readonly ThrottleDevice[] | null;
  readonly BlkioDeviceWriteBps: readonly ThrottleDevice[] | null;
  readonly BlkioDeviceReadIOps: readonly ThrottleDevice[] | null;
  readonly BlkioDeviceWriteIOps: readonly ThrottleDevice[] | null;
  /** Microseconds. */
  readonly CpuPeriod: number;
  /** Microseconds. */
  readonly CpuQuota: number;
  readonly CpuRealtimePeriod: number;
  readonly CpuRealtimeRuntime: number;
  readonly CpusetCpus: string;
  readonly CpusetMems: string;
  readonly Devices: readonly DeviceMapping[] | null;
  readonly DeviceCgroupRules?: readonly string[] | null | undefined;
  readonly DiskQuota: number;
  readonly KernelMemory: number;
  readonly MemoryReservation: number;
  /** Bytes of memory and swap together; -1 unlimited. */
  readonly MemorySwap: number;
  readonly MemorySwappiness: number | null;
  readonly OomKillDisable: boolean | null;
  /** 0 or -1: no limit. */
  readonly PidsLimit: number;
  readonly Ulimits: readonly Ulimit[] | null;
  readonly CpuCount: number;
  readonly CpuPercent: number;
  readonly IOMaximumIOps: number;
  readonly IOMaximumBandwidth: number;
}

export interface ThrottleDevice {
  readonly Path: string;
  readonly Rate: number;
}

export interface DeviceMapping {
  readonly PathOnHost: string;
  readonly PathInContainer: string;
  readonly CgroupPermissions: string;
}

export interface Ulimit {
  readonly Name: string;
  readonly Soft: number;
  readonly Hard: number;
}

export interface MountRequest {
  readonly Type: 'bind' | 'volume' | 'tmpfs';
  readonly Source?: string | undefined;
  readonly Target: string;
  readonly ReadOnly?: boolean | undefined;
  readonly BindOptions?: { readonly Propagation?: string | undefined } | undefined;
  readonly VolumeOptions?:
    | {
        readonly NoCopy?: boolean | undefined;
        readonly Labels?: Readonly<Record<string, string>> | undefined;
        readonly DriverConfig?:
          | { readonly Name?: string | undefined; readonly Options?: Readonly<Record<string, string>> | undefined }
          | undefined;
      }
    | undefined;
  readonly TmpfsOptions?: { readonly SizeBytes?: number | undefined; readonly Mode?: number | undefined } | undefined;
}

/** A mount as resolved at create: what `Mounts` of inspect shows and the OCI spec gets. */
export interface MountPoint {
  readonly type: 'bind' | 'volume' | 'tmpfs';
  /** Volume's name. */
  readonly name?: string | undefined;
  /** Path on the host; empty for tmpfs. */
  readonly source: string;
  /** Path in the container. */
  readonly destination: string;
  readonly driver?: string | undefined;
  /** As given by the user, e.g. `ro,z`. */
  readonly mode: string;
  readonly writable: boolean;
  readonly propagation: string;
  /** A bind of `Mounts`, whose source is never made. */
  readonly mustExist?: boolean | undefined;
  /** An anonymous volume is removed with its container (`v=1`, AutoRemove). */
  readonly anonymous?: boolean | undefined;
  /** For the runtime: flags that the mount of the source has on the host and keeps. */
  readonly flags?: readonly string[] | undefined;
  /** Mount options of a tmpfs: as given in a record, complete for the runtime. */
  readonly tmpfsOptions?: string | undefined;
}

/**
 * Where a container is in its life.
 *
 * created → running ⇄ paused → exited → (running …), or restarting in between while the restart policy's delay runs;
 * then gone. A start that is under way is not a state: until the process exists the record says what it said before, and
 * whatever a crash leaves behind belongs to no running record and is swept. Nor is a removal: the record goes first, in one
 * commit with its event; files that no record claims are swept.
 */
export type State =
  | { readonly is: 'created' /** Why the last start failed. */; readonly error: string; readonly exitCode: number }
  | ({ readonly is: 'running'; readonly paused: boolean } & Running)
  | ({ readonly is: 'restarting' /** Milliseconds since the epoch. */; readonly nextAttemptAt: number } & Ending)
  | ({ readonly is: 'exited' } & Ending);

export interface Running {
  readonly pid: number;
  /** Start time of the pid in clock ticks since boot (`/proc/<pid>/stat`, field 22): tells a reused pid apart. */
  readonly pidStartTicks: number;
  readonly monitorPid: number;
  /** RFC 3339, nanoseconds. */
  readonly startedAt: string;
  /** Kills for want of memory in this run that have been told. */
  readonly oomKills?: number | undefined;
}

export interface Ending {
  readonly exitCode: number;
  readonly oomKilled: boolean;
  readonly startedAt: string;
  readonly finishedAt: string;
  /** Why the start failed or the monitor was lost. */
  readonly error: string;
}

/** A link to another container on the default bridge. */
export interface ContainerLink {
  readonly alias: string;
  readonly target: ContainerId;
  /** The target's name, for the time when it is gone. */
  readonly name: string;
}

export interface ContainerRecord {
  readonly id: ContainerId;
  /** Without the leading slash. */
  readonly name: string;
  /** RFC 3339, nanoseconds. */
  readonly created: string;
  readonly imageId: ImageId;
  readonly config: RunConfig;
  readonly hostConfig: HostConfig;
  /** Networks the container is or will be joined to, by network name. */
  readonly endpoints: Readonly<Record<string, Endpoint>>;
  /** `HostConfig.Links`, resolved. */
  readonly links?: readonly ContainerLink[] | undefined;
  /** What the network gave this run; null while the container does not run (or shares another's namespace). */
  readonly sandbox: Sandbox | null;
  readonly mounts: readonly MountPoint[];
  readonly state: State;
  readonly restartCount: number;
  /** Of the last run, when it had a health check; results since the last change of the status are in memory only. */
  readonly health?: Health | undefined;
  /** The user stopped it: `unless-stopped` and `on-failure` leave it so over a daemon restart. */
  readonly stoppedByUser: boolean;
  /** Cgroup path below each hierarchy, e.g. `/docker/<id>`. */
  readonly cgroupPath: string;
  readonly logDriver: string;
  /** Limits that the kernel is being told, of the run that began at `startedAt`; see `update.ts`. */
  readonly updating?: { readonly hostConfig: HostConfig; readonly startedAt: string } | undefined;
}
