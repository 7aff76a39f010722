/** What a container's options mean for its network: ports to publish, and the files that name things. */
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { NewEvent } from '../event/types.ts';
import type { RunConfig } from '../image/types.ts';
import { hostnameFile, hostsFile, readHostResolvConf, resolvConf, resolvConfOfHostNetwork } from '../network/files.ts';
import type { PortOptions } from '../network/ports.ts';
import type { Sandbox } from '../network/types.ts';
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
 * Writes resolv.conf, hosts and hostname for a start. A container in another's network uses that one's files.
 * They are made anew at each start, so losing them in a crash costs nothing.
 */
export async function writeNetworkFiles(
  set: ContainerSet,
  record: ContainerRecord,
  sandbox: Sandbox | null,
  sharedWith: ContainerRecord | null,
): Promise<NetworkFiles> {
  const dir = set.dirOf(sharedWith?.id ?? record.id);
  const paths = {
    resolvConf: path.join(dir, 'resolv.conf'),
    hosts: path.join(dir, 'hosts'),
    hostnameFile: path.join(dir, 'hostname'),
  };
  if (sharedWith) return { ...paths, hostname: sharedWith.config.Hostname || os.hostname() };

  const inHostNetwork = 'host' in record.endpoints;
  const { config, hostConfig } = record;
  const hasHostsName = inHostNetwork || hostConfig.UTSMode === 'host';
  const hostname = config.Hostname || (hasHostsName ? os.hostname() : record.id.slice(0, 12));
  const defaults = set.parts.defaults();
  const orDefault = (own: readonly string[] | null, fallback: readonly string[]) => (own?.length ? own : fallback);
  const dns = {
    dns: orDefault(hostConfig.Dns, defaults.dns),
    dnsSearch: orDefault(hostConfig.DnsSearch, defaults.dnsSearch),
    dnsOptions: orDefault(hostConfig.DnsOptions, defaults.dnsOptions),
  };
  const hostResolvConf = await readHostResolvConf();
  const hosts = hostsFile({
    address: sandbox?.joined?.ipv4 ?? '',
    hostname,
    domainname: config.Domainname,
    extraHosts: hostConfig.ExtraHosts ?? [],
    gateway: sandbox?.joined?.gateway ?? '',
    ...(inHostNetwork ? { base: await fs.readFile('/etc/hosts', 'utf8').catch(() => undefined) } : {}),
  });
  await Promise.all([
    fs.writeFile(
      paths.resolvConf,
      inHostNetwork ? resolvConfOfHostNetwork(hostResolvConf, dns) : resolvConf(hostResolvConf, dns),
    ),
    fs.writeFile(paths.hosts, hosts),
    fs.writeFile(paths.hostnameFile, hostnameFile(config.Domainname ? `${hostname}.${config.Domainname}` : hostname)),
  ]);
  return { ...paths, hostname };
}

export function joinedEndpoints(record: ContainerRecord, sandbox: Sandbox | null): ContainerRecord['endpoints'] {
  return Object.fromEntries(
    Object.entries(record.endpoints).map(([name, endpoint]) => [
      name,
      { ...endpoint, joined: sandbox?.joined ?? null },
    ]),
  );
}

/** Events of the networks that a run joined or left. */
export function networkEvents(record: ContainerRecord, action: 'connect' | 'disconnect'): readonly NewEvent[] {
  return Object.values(record.endpoints)
    .filter((endpoint) => endpoint.joined !== null)
    .map((endpoint) => ({
      type: 'network' as const,
      action,
      id: endpoint.joined?.networkId ?? '',
      attributes: {
        container: record.id,
        name: endpoint.networkName,
        type: endpoint.networkName === 'bridge' ? 'bridge' : 'null',
      },
    }));
}
