/** What a container's options mean for its network: ports to publish, and the files that name things. */
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { RunConfig } from '../image/types.ts';
import {
  type DnsOptions,
  hostnameFile,
  hostsFile,
  readHostResolvConf,
  resolvConf,
  resolvConfOfHostNetwork,
  resolvConfOfNames,
} from '../network/files.ts';
import { resolverAddress } from '../network/names.ts';
import { hasNames } from '../network/nameserver.ts';
import type { PortOptions } from '../network/ports.ts';
import { type Endpoints, isJoined, type Joined, type LiveSandbox } from '../network/types.ts';
import { linkHosts } from './links.ts';
import type { ContainerSet } from './set.ts';
import type { ContainerRecord, HostConfig } from './types.ts';

export function portOptions(config: RunConfig, host: HostConfig): PortOptions {
  // In the host's network, or without one, there is nothing to publish from.
  if (host.NetworkMode === 'host' || host.NetworkMode === 'none')
    return { exposedPorts: config.ExposedPorts, portBindings: null, publishAllPorts: false };
  return { exposedPorts: config.ExposedPorts, portBindings: host.PortBindings, publishAllPorts: host.PublishAllPorts };
}

export interface NetworkFiles {
  readonly hostname: string;
  /** Paths of files to bind over the image's. */
  readonly resolvConf: string;
  readonly hosts: string;
  readonly hostnameFile: string;
}

/**
 * Writes resolv.conf, hosts and hostname for a start; `record` has its place on its networks. A container in another's
 * network uses that one's files. They are made anew at each start, so losing them in a crash costs nothing.
 */
export async function writeNetworkFiles(
  set: ContainerSet,
  record: ContainerRecord,
  sharedWith: ContainerRecord | null,
): Promise<NetworkFiles> {
  const dir = set.dirOf(sharedWith?.id ?? record.id);
  const paths = {
    resolvConf: path.join(dir, 'resolv.conf'),
    hosts: path.join(dir, 'hosts'),
    hostnameFile: path.join(dir, 'hostname'),
  };
  if (sharedWith) return { ...paths, hostname: sharedWith.config.Hostname || os.hostname() };

  const { config } = record;
  const hostname = hostnameOf(record);
  await Promise.all([
    writeResolvConf(set, record),
    writeHosts(set, record),
    fs.writeFile(paths.hostnameFile, hostnameFile(config.Domainname ? `${hostname}.${config.Domainname}` : hostname)),
  ]);
  return { ...paths, hostname };
}

/** The container's wishes, the daemon's where it has none. */
export function dnsOf(set: ContainerSet, { hostConfig }: ContainerRecord): DnsOptions {
  const defaults = set.parts.defaults();
  const orDefault = (own: readonly string[] | null, fallback: readonly string[]) => (own?.length ? own : fallback);
  return {
    dns: orDefault(hostConfig.Dns, defaults.dns),
    dnsSearch: orDefault(hostConfig.DnsSearch, defaults.dnsSearch),
    dnsOptions: orDefault(hostConfig.DnsOptions, defaults.dnsOptions),
  };
}

/** What its name server has to know of that. */
export function namesOf(set: ContainerSet, record: ContainerRecord): Pick<LiveSandbox, 'dns' | 'keepsSingleLabels'> {
  const { dns, dnsOptions } = dnsOf(set, record);
  return { dns, keepsSingleLabels: dnsOptions.some((option) => /^ndots:0*[1-9]/.test(option)) };
}

/** Writes /etc/resolv.conf as the container's networks are now: in place, since a running container has the file bound. */
export async function writeResolvConf(set: ContainerSet, record: ContainerRecord): Promise<void> {
  const host = await readHostResolvConf();
  const dns = dnsOf(set, record);
  const write = (text: string) => fs.writeFile(path.join(set.dirOf(record.id), 'resolv.conf'), text);
  if ('host' in record.endpoints) await write(resolvConfOfHostNetwork(host, dns));
  else if (Object.keys(record.endpoints).some(hasNames)) await write(resolvConfOfNames(host, dns, resolverAddress));
  else await write(resolvConf(host, dns));
}

const hostnameOf = ({ id, config, hostConfig, endpoints }: ContainerRecord): string =>
  config.Hostname || ('host' in endpoints || hostConfig.UTSMode === 'host' ? os.hostname() : id.slice(0, 12));

/** Writes /etc/hosts of a container as its networks are now: in place, since a running container has the file bound. */
export async function writeHosts(set: ContainerSet, record: ContainerRecord): Promise<void> {
  const joined = joinedOf(record.endpoints);
  const base = 'host' in record.endpoints ? await fs.readFile('/etc/hosts', 'utf8').catch(() => undefined) : undefined;
  await fs.writeFile(
    path.join(set.dirOf(record.id), 'hosts'),
    hostsFile({
      addresses: joined.flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6]).filter((address) => address !== ''),
      hostname: hostnameOf(record),
      domainname: record.config.Domainname,
      extraHosts: record.hostConfig.ExtraHosts ?? [],
      linked: linkHosts(set, record),
      gateway: joined.find(({ gateway }) => gateway !== '')?.gateway ?? '',
      ...(base === undefined ? {} : { base }),
    }),
  );
}

export const joinedOf = (endpoints: Endpoints): readonly Joined[] =>
  Object.values(endpoints)
    .filter(isJoined)
    .map(({ joined }) => joined);
