/** The engine about itself: `/info` and `/version`, in the newest API's terms. */
import { readFileSync } from 'node:fs';
import fs from 'node:fs/promises';
import os from 'node:os';
import type { Config } from '../config/types.ts';
import type { Json } from '../container/api.ts';
import type { Credentials, Images } from '../image/types.ts';
import { nowNano, rfc3339Nano } from '../lib/time.ts';
import { logDriverNames } from '../log/options.ts';
import type { Plugins } from '../plugin/types.ts';
import type { Runtime } from '../runtime/types.ts';
import { diskUsage, type UsageParts } from './usage.ts';

export interface SystemParts extends UsageParts {
  readonly config: () => Config;
  readonly images: Images;
  readonly runtime: Runtime;
  readonly plugins: Plugins;
  readonly login: (credentials: Credentials) => Promise<Json>;
  /** Records that could not be read at start, and the like: one line each. */
  readonly warnings: () => readonly string[];
  readonly eventListeners: () => number;
  /** Made once for a data root, kept: identifies the engine. */
  readonly engineId: string;
}

/** Plugins that have not yet said what they are, and are slow to, are left out. */
const pluginPatienceMs = 500;
const networkDrivers = ['bridge', 'host', 'macvlan', 'null'];

const packageJson = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  readonly version: string;
};
const architectures: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64', arm: 'arm', ia32: '386' };
const architecture = architectures[process.arch] ?? process.arch;

export const engineVersion = packageJson.version;

export function createSystem(parts: SystemParts) {
  return {
    engineVersion,
    info: () => info(parts),
    version: (): Json => ({
      Version: engineVersion,
      GitCommit: '',
      // Clients print it as the language's version: what runs this engine is Node.js.
      GoVersion: `node${process.versions.node}`,
      Os: 'linux',
      Arch: architecture,
      KernelVersion: os.release(),
      Experimental: false,
      BuildTime: '',
    }),
    login: parts.login,
    df: () => diskUsage(parts),
  };
}

async function info(parts: SystemParts): Promise<Json> {
  const config = parts.config();
  const counts = parts.containers.counts();
  const runtime = parts.runtime.describe();
  const images = await parts.images.list({ all: true, digests: false, filters: new Map() });
  return {
    ID: parts.engineId,
    Containers: counts.running + counts.paused + counts.stopped,
    ContainersRunning: counts.running,
    ContainersPaused: counts.paused,
    ContainersStopped: counts.stopped,
    Images: images.length,
    Driver: 'overlay2',
    DriverStatus: [['Backing Filesystem', await fileSystemOf(config.dataRoot)]],
    SystemStatus: null,
    Plugins: {
      Volume: ['local', ...(await parts.plugins.implementing('VolumeDriver', pluginPatienceMs))],
      Network: [...networkDrivers, ...(await parts.plugins.implementing('NetworkDriver', pluginPatienceMs))],
      Authorization: null,
      Log: logDriverNames,
    },
    MemoryLimit: runtime.limits.memory,
    SwapLimit: runtime.limits.swap,
    KernelMemory: runtime.limits.kernelMemory,
    CpuCfsPeriod: runtime.limits.cpuQuota,
    CpuCfsQuota: runtime.limits.cpuQuota,
    CPUShares: runtime.limits.cpuShares,
    CPUSet: runtime.limits.cpuset,
    PidsLimit: runtime.limits.pids,
    IPv4Forwarding: (await readLine('/proc/sys/net/ipv4/ip_forward')) === '1',
    BridgeNfIptables: (await readLine('/proc/sys/net/bridge/bridge-nf-call-iptables')) === '1',
    BridgeNfIp6tables: (await readLine('/proc/sys/net/bridge/bridge-nf-call-ip6tables')) === '1',
    Debug: config.debug,
    NFd: (await fs.readdir('/proc/self/fd')).length,
    OomKillDisable: runtime.limits.oomKillDisable,
    NGoroutines: process.getActiveResourcesInfo().length,
    SystemTime: rfc3339Nano(nowNano()),
    LoggingDriver: config.logDriver,
    CgroupDriver: runtime.cgroupDriver,
    CgroupVersion: String(runtime.cgroupVersion),
    NEventsListener: parts.eventListeners(),
    KernelVersion: os.release(),
    OperatingSystem: await operatingSystem(),
    OSType: 'linux',
    Architecture: os.machine(),
    IndexServerAddress: 'https://index.docker.io/v1/',
    RegistryConfig: registryConfig(config),
    NCPU: os.availableParallelism(),
    MemTotal: os.totalmem(),
    DockerRootDir: config.dataRoot,
    HttpProxy: proxy('http_proxy'),
    HttpsProxy: proxy('https_proxy'),
    NoProxy: proxy('no_proxy'),
    Name: os.hostname(),
    Labels: config.labels,
    ExperimentalBuild: false,
    ServerVersion: engineVersion,
    ClusterStore: '',
    ClusterAdvertise: '',
    Runtimes: Object.fromEntries(Object.entries(runtime.available).map(([name, { path }]) => [name, { path }])),
    DefaultRuntime: runtime.name,
    Swarm: {
      NodeID: '',
      NodeAddr: '',
      LocalNodeState: 'inactive',
      ControlAvailable: false,
      Error: '',
      RemoteManagers: null,
    },
    LiveRestoreEnabled: true,
    Isolation: '',
    InitBinary: runtime.initBinary,
    ContainerdCommit: { ID: '', Expected: '' },
    RuncCommit: { ID: runtime.version, Expected: runtime.version },
    InitCommit: { ID: '', Expected: '' },
    SecurityOptions: runtime.securityOptions,
    Warnings: [...runtime.warnings, ...parts.warnings()],
  };
}

function registryConfig(config: Config): Json {
  const cidrs = config.insecureRegistries.filter((entry) => entry.includes('/'));
  const hosts = config.insecureRegistries.filter((entry) => !entry.includes('/'));
  const insecure = hosts.map((host) => [host, { Name: host, Mirrors: [], Secure: false, Official: false }]);
  return {
    AllowNondistributableArtifactsCIDRs: [],
    AllowNondistributableArtifactsHostnames: [],
    InsecureRegistryCIDRs: [...new Set([...cidrs, '127.0.0.0/8'])],
    IndexConfigs: {
      ...Object.fromEntries(insecure),
      'docker.io': { Name: 'docker.io', Mirrors: config.registryMirrors, Secure: true, Official: true },
    },
    Mirrors: config.registryMirrors,
  };
}

/** A proxy from the environment; who may use it is nobody's business. */
const proxy = (name: string) =>
  (process.env[name.toUpperCase()] ?? process.env[name] ?? '').replace(/\/\/[^@/]*@/, '//xxxxx:xxxxx@');

async function readLine(file: string): Promise<string> {
  return (await fs.readFile(file, 'utf8').catch(() => '')).trim();
}

async function operatingSystem(): Promise<string> {
  const release = await fs.readFile('/etc/os-release', 'utf8').catch(() => '');
  return /^PRETTY_NAME="?([^"\n]*)/m.exec(release)?.[1] ?? 'Linux';
}

const fileSystems: Readonly<Record<number, string>> = {
  61267: 'extfs',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  16914836: 'tmpfs',
  801189825: 'zfs',
};

async function fileSystemOf(dir: string): Promise<string> {
  return fileSystems[(await fs.statfs(dir)).type] ?? 'unknown';
}
