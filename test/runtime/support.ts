/** A busybox root file system and launch specs for tests. */
import fs from 'node:fs';
import type { HostConfig } from '../../src/container/types.ts';
import type { RunConfig } from '../../src/image/types.ts';
import type { ContainerId } from '../../src/lib/ids.ts';
import type { LaunchSpec } from '../../src/runtime/types.ts';

/** Test files run side by side; none may see the containers of another. Children of a test share its parent cgroup. */
export const cgroupParent = process.env.SLIPWAY_TEST_CGROUP ?? `slipway-test-${process.pid}`;
process.env.SLIPWAY_TEST_CGROUP = cgroupParent;

export function makeRootfs(directory: string): void {
  for (const name of ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp']) {
    fs.mkdirSync(`${directory}/${name}`, { recursive: true });
  }
  fs.copyFileSync('/bin/busybox', `${directory}/bin/busybox`);
  fs.chmodSync(`${directory}/bin/busybox`, 0o755);
  for (const name of `sh true false sleep cat echo id env pwd hostname stat ls mount umount kill stty dd head tail printf
    test touch grep mkdir wc ps awk sync readlink ulimit tty nproc mknod chown`.split(/\s+/)) {
    fs.symlinkSync('busybox', `${directory}/bin/${name}`);
  }
  fs.writeFileSync(
    `${directory}/etc/passwd`,
    'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/nowhere:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\n',
  );
  fs.writeFileSync(
    `${directory}/etc/group`,
    'root:x:0:\ndaemon:x:1:\naudio:x:29:anna\nanna:x:1000:\nvideo:x:44:anna,root\n',
  );
}

export const runConfig: RunConfig = {
  Hostname: '',
  Domainname: '',
  User: '',
  AttachStdin: false,
  AttachStdout: true,
  AttachStderr: true,
  ExposedPorts: null,
  Tty: false,
  OpenStdin: false,
  StdinOnce: false,
  Env: null,
  Cmd: null,
  Image: '',
  Volumes: null,
  WorkingDir: '',
  Entrypoint: null,
  OnBuild: null,
  Labels: null,
};

export const hostConfig: HostConfig = {
  Binds: null,
  ContainerIDFile: '',
  LogConfig: { Type: 'json-file', Config: {} },
  NetworkMode: 'none',
  PortBindings: null,
  RestartPolicy: { Name: 'no', MaximumRetryCount: 0 },
  AutoRemove: false,
  VolumeDriver: '',
  VolumesFrom: null,
  CapAdd: null,
  CapDrop: null,
  Dns: null,
  DnsOptions: null,
  DnsSearch: null,
  ExtraHosts: null,
  GroupAdd: null,
  IpcMode: 'private',
  Cgroup: '',
  Links: null,
  OomScoreAdj: 0,
  PidMode: '',
  Privileged: false,
  PublishAllPorts: false,
  ReadonlyRootfs: false,
  SecurityOpt: null,
  UTSMode: '',
  UsernsMode: '',
  ShmSize: 64 << 20,
  Runtime: '',
  ConsoleSize: [0, 0],
  Isolation: '',
  CpuShares: 0,
  Memory: 0,
  NanoCpus: 0,
  CgroupParent: '',
  BlkioWeight: 0,
  BlkioWeightDevice: null,
  BlkioDeviceReadBps: null,
  BlkioDeviceWriteBps: null,
  BlkioDeviceReadIOps: null,
  BlkioDeviceWriteIOps: null,
  CpuPeriod: 0,
  CpuQuota: 0,
  CpuRealtimePeriod: 0,
  CpuRealtimeRuntime: 0,
  CpusetCpus: '',
  CpusetMems: '',
  Devices: null,
  DiskQuota: 0,
  KernelMemory: 0,
  MemoryReservation: 0,
  MemorySwap: 0,
  MemorySwappiness: null,
  OomKillDisable: null,
  PidsLimit: 0,
  Ulimits: null,
  CpuCount: 0,
  CpuPercent: 0,
  IOMaximumIOps: 0,
  IOMaximumBandwidth: 0,
};

/** A spec over the root file system at `<directory>/rootfs`, logging to `<directory>/<id>.log`. */
export function launchSpec(
  directory: string,
  id: ContainerId,
  options: {
    readonly cmd: readonly string[];
    readonly config?: Partial<RunConfig>;
    readonly host?: Partial<HostConfig>;
    readonly spec?: Partial<LaunchSpec>;
  },
): LaunchSpec {
  return {
    id,
    config: { ...runConfig, Cmd: options.cmd, ...options.config },
    hostConfig: { ...hostConfig, ...options.host },
    hostname: 'box',
    rootfs: `${directory}/rootfs`,
    mounts: [],
    networkNamespace: null,
    resolvConf: null,
    hosts: null,
    hostnameFile: null,
    cgroupPath: `/${cgroupParent}/${id}`,
    logPath: `${directory}/${id}.log`,
    env: options.config?.Env ?? [],
    ...options.spec,
  };
}

/** Takes the cgroups of this file's tests off the machine. */
export function removeCgroupParent(): void {
  for (const directory of fs.globSync([`/sys/fs/cgroup/${cgroupParent}`, `/sys/fs/cgroup/*/${cgroupParent}`])) {
    fs.rmdirSync(directory);
  }
}
