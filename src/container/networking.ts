/** What a container's options mean for its network: ports to publish, and the files that name things. */
import { createHash } from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { RunConfig } from '../image/types.ts';
import {
  type DnsOptions,
  hostnameFile,
  hostsFile,
  parseResolvConf,
  readHostResolvConf,
  resolvConf,
  resolvConfOfHostNetwork,
  resolvConfOfNames,
  withOwnAddresses,
  withServers,
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

/** /etc/resolv.conf for the container's networks as they are now. */
async function resolvConfOf(set: ContainerSet, record: ContainerRecord): Promise<string> {
  const host = await readHostResolvConf();
  const dns = dnsOf(set, record);
  if ('host' in record.endpoints) return resolvConfOfHostNetwork(host, dns);
  if (isAnswered(record)) return resolvConfOfNames(host, dns, resolverAddress);
  return resolvConf(host, dns);
}

const isAnswered = ({ endpoints }: ContainerRecord): boolean => Object.keys(endpoints).some(hasNames);

/** In place, since a running container has the file bound. Beside it what was written, by which edits are known. */
async function writeResolvConf(set: ContainerSet, record: ContainerRecord): Promise<void> {
  const text = await resolvConfOf(set, record);
  const file = path.join(set.dirOf(record.id), 'resolv.conf');
  await Promise.all([fs.writeFile(file, text), fs.writeFile(`${file}.hash`, hashOf(text))]);
}

const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex');

/** These files are the container's to write: what is larger is not read. */
const fileBytesMax = 1024 * 1024;

/** Brings the files of a running container up to date with its networks; what was edited there stays as it is. */
export async function updateNetworkFiles(
  set: ContainerSet,
  before: ContainerRecord,
  record: ContainerRecord,
): Promise<void> {
  const dir = set.dirOf(record.id);
  const [resolv, hosts] = [path.join(dir, 'resolv.conf'), path.join(dir, 'hosts')];
  const readable = async (file: string): Promise<boolean> => (await fs.stat(file)).size <= fileBytesMax;
  if (await readable(hosts)) {
    const own = { hostname: hostnameOf(record), domainname: record.config.Domainname };
    const text = await fs.readFile(hosts, 'utf8');
    const after = withOwnAddresses(text, addressesOf(before), addressesOf(record), own);
    if (after !== text) await fs.writeFile(hosts, after);
  }
  if (!(await readable(resolv))) return;
  const text = await fs.readFile(resolv, 'utf8');
  const isOurs = hashOf(text) === (await fs.readFile(`${resolv}.hash`, 'utf8').catch(() => ''));
  if (isOurs) await writeResolvConf(set, record);
  else if (isAnswered(before) !== isAnswered(record)) {
    const { nameservers } = parseResolvConf(await resolvConfOf(set, record));
    await fs.writeFile(resolv, withServers(text, nameservers));
  }
}

const hostnameOf = ({ id, config, hostConfig, endpoints }: ContainerRecord): string =>
  config.Hostname || ('host' in endpoints || hostConfig.UTSMode === 'host' ? os.hostname() : id.slice(0, 12));

/** In place, since a running container has the file bound. */
async function writeHosts(set: ContainerSet, record: ContainerRecord): Promise<void> {
  const joined = joinedOf(record.endpoints);
  const base = 'host' in record.endpoints ? await fs.readFile('/etc/hosts', 'utf8').catch(() => undefined) : undefined;
  await fs.writeFile(
    path.join(set.dirOf(record.id), 'hosts'),
    hostsFile({
      addresses: addressesOf(record),
      hostname: hostnameOf(record),
      domainname: record.config.Domainname,
      extraHosts: record.hostConfig.ExtraHosts ?? [],
      linked: linkHosts(set, record),
      gateway: joined.find(({ gateway }) => gateway !== '')?.gateway ?? '',
      ...(base === undefined ? {} : { base }),
    }),
  );
}

const addressesOf = ({ endpoints }: ContainerRecord): readonly string[] =>
  joinedOf(endpoints)
    .flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6])
    .filter((address) => address !== '');

export const joinedOf = (endpoints: Endpoints): readonly Joined[] =>
  Object.values(endpoints)
    .filter(isJoined)
    .map(({ joined }) => joined);
