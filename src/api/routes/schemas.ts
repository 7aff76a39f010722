/** What bodies may hold. Wrong types are refused by name; values are checked by the part that knows them. */
import { bool, type Decoded, list, map, object, orNull, text, whole, words } from '../server/decode.ts';

const texts = list(text);
const set = map(orNull(object({})));
const throttle = list(object({ Path: text, Rate: whole }));

const config = {
  Hostname: text,
  Domainname: text,
  User: text,
  AttachStdin: bool,
  AttachStdout: bool,
  AttachStderr: bool,
  ExposedPorts: set,
  Tty: bool,
  OpenStdin: bool,
  StdinOnce: bool,
  Env: texts,
  Cmd: words,
  Healthcheck: object({ Test: texts, Interval: whole, Timeout: whole, StartPeriod: whole, Retries: whole }),
  ArgsEscaped: bool,
  Image: text,
  Volumes: set,
  WorkingDir: text,
  Entrypoint: words,
  NetworkDisabled: bool,
  MacAddress: text,
  OnBuild: texts,
  Labels: map(text),
  StopSignal: text,
  StopTimeout: whole,
  Shell: words,
};

const resources = {
  CpuShares: whole,
  Memory: whole,
  NanoCpus: whole,
  CgroupParent: text,
  BlkioWeight: whole,
  BlkioWeightDevice: list(object({ Path: text, Weight: whole })),
  BlkioDeviceReadBps: throttle,
  BlkioDeviceWriteBps: throttle,
  BlkioDeviceReadIOps: throttle,
  BlkioDeviceWriteIOps: throttle,
  CpuPeriod: whole,
  CpuQuota: whole,
  CpuRealtimePeriod: whole,
  CpuRealtimeRuntime: whole,
  CpusetCpus: text,
  CpusetMems: text,
  Devices: list(object({ PathOnHost: text, PathInContainer: text, CgroupPermissions: text })),
  DeviceCgroupRules: texts,
  DiskQuota: whole,
  KernelMemory: whole,
  MemoryReservation: whole,
  MemorySwap: whole,
  MemorySwappiness: whole,
  OomKillDisable: bool,
  PidsLimit: whole,
  Ulimits: list(object({ Name: text, Soft: whole, Hard: whole })),
  CpuCount: whole,
  CpuPercent: whole,
  IOMaximumIOps: whole,
  IOMaximumBandwidth: whole,
};

const restartPolicy = object({ Name: text, MaximumRetryCount: whole });

const hostConfig = object({
  Binds: texts,
  ContainerIDFile: text,
  LogConfig: object({ Type: text, Config: map(text) }),
  NetworkMode: text,
  PortBindings: map(orNull(list(object({ HostIp: text, HostPort: text })))),
  RestartPolicy: restartPolicy,
  AutoRemove: bool,
  VolumeDriver: text,
  VolumesFrom: texts,
  CapAdd: words,
  CapDrop: words,
  Dns: texts,
  DnsOptions: texts,
  DnsSearch: texts,
  ExtraHosts: texts,
  GroupAdd: texts,
  IpcMode: text,
  Cgroup: text,
  Links: texts,
  OomScoreAdj: whole,
  PidMode: text,
  Privileged: bool,
  PublishAllPorts: bool,
  ReadonlyRootfs: bool,
  SecurityOpt: texts,
  StorageOpt: map(text),
  Tmpfs: map(text),
  UTSMode: text,
  UsernsMode: text,
  ShmSize: whole,
  Sysctls: map(text),
  Runtime: text,
  ConsoleSize: list(whole),
  Isolation: text,
  Mounts: list(
    object({
      Type: text,
      Source: text,
      Target: text,
      ReadOnly: bool,
      BindOptions: object({ Propagation: text }),
      VolumeOptions: object({
        NoCopy: bool,
        Labels: map(text),
        DriverConfig: object({ Name: text, Options: map(text) }),
      }),
      TmpfsOptions: object({ SizeBytes: whole, Mode: whole }),
    }),
  ),
  Init: bool,
  ...resources,
});

/** What a client may ask for on a network; the rest of `EndpointSettings` is answer only. */
const endpointSettings = object({
  IPAMConfig: object({ IPv4Address: text, IPv6Address: text, LinkLocalIPs: texts }),
  Links: texts,
  Aliases: texts,
  MacAddress: text,
  DriverOpts: map(text),
  EndpointID: text,
});

const create = object({
  ...config,
  HostConfig: hostConfig,
  NetworkingConfig: object({ EndpointsConfig: map(orNull(endpointSettings)) }),
});

const update = object({ ...resources, RestartPolicy: restartPolicy });

const exec = object({
  AttachStdin: bool,
  AttachStdout: bool,
  AttachStderr: bool,
  DetachKeys: text,
  Tty: bool,
  Cmd: words,
  Env: texts,
  Privileged: bool,
  User: text,
  WorkingDir: text,
});

const execStart = object({ Detach: bool, Tty: bool });

const volume = object({ Name: text, Driver: text, DriverOpts: map(text), Labels: map(text) });

const credentials = object({
  username: text,
  password: text,
  serveraddress: text,
  identitytoken: text,
  registrytoken: text,
});

const network = object({
  Name: text,
  CheckDuplicate: bool,
  Driver: text,
  // Of later versions: asked for, they are refused rather than ignored.
  Scope: text,
  Ingress: bool,
  ConfigOnly: bool,
  ConfigFrom: object({ Network: text }),
  Internal: bool,
  Attachable: bool,
  EnableIPv6: bool,
  IPAM: object({
    Driver: text,
    Options: map(text),
    Config: list(object({ Subnet: text, IPRange: text, Gateway: text, AuxiliaryAddresses: map(text) })),
  }),
  Options: map(text),
  Labels: map(text),
});
const connect = object({ Container: text, EndpointConfig: orNull(endpointSettings) });
const disconnect = object({ Container: text, Force: bool });

export type CreateRequest = Decoded<typeof create>;

/** No body, and `null`, are an object without properties. */
const given = (value: unknown) => value ?? {};

export const createRequest = (value: unknown): CreateRequest => create(given(value));
export const updateRequest = (value: unknown) => update(given(value));
export const execRequest = (value: unknown) => exec(given(value));
export const execStartRequest = (value: unknown) => execStart(given(value));
export const volumeRequest = (value: unknown) => volume(given(value));
export const credentialsRequest = (value: unknown) => credentials(given(value));

export const networkRequest = (value: unknown) => network(given(value));
export const connectRequest = (value: unknown) => connect(given(value));
export const disconnectRequest = (value: unknown) => disconnect(given(value));

/** Nothing of `Config` is there: the client forgot the body, or wrapped it in something. */
export const isEmptyConfig = (body: CreateRequest): boolean => !Object.keys(body).some((name) => name in config);
