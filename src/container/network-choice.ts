/**
 * What a create request says about its network: which one, with what address of its card, linked to whom; and the options
 * that contradict each other, with dockerd's words. What a network can give is `endpoints.ts`' to check.
 */
import net from 'node:net';
import type { RunConfig } from '../image/types.ts';
import { invalid } from '../lib/errors.ts';
import { parseMac } from '../network/mac.ts';
import type { Endpoints } from '../network/types.ts';
import type { CreateBody, EndpointSettings } from './api.ts';
import { endpointsOf, networkOf } from './endpoints.ts';
import { hostNetworkAndLinks, resolveLinks } from './links.ts';
import type { ContainerSet } from './set.ts';
import type { ContainerLink, HostConfig } from './types.ts';

export interface NetworkChoice {
  /** A network's name, or `container:<id>`. */
  readonly mode: string;
  /** By network name; empty in another container's network. */
  readonly endpoints: Endpoints;
  readonly links: readonly ContainerLink[];
}

/** `own`: the request's Config before the image's was merged in: what an image exposes contradicts nothing. */
export function chooseNetwork(set: ContainerSet, body: CreateBody, own: RunConfig, host: HostConfig): NetworkChoice {
  checkNames(host);
  checkConflicts(own, host);
  const asked = checkEndpoints(body);
  if (host.NetworkMode.startsWith('container:')) return { mode: host.NetworkMode, endpoints: {}, links: [] };
  const isDisabled = own.NetworkDisabled === true;
  const mode = isDisabled ? 'none' : networkOf(set, host.NetworkMode).name;
  const settings = withMac(own, mode, isDisabled ? {} : asked);
  const endpoints = endpointsOf(set, mode, settings);
  const [chosen = mode] = Object.keys(endpoints);
  const isSpecial = [mode, chosen].some((name) => name === 'host' || name === 'none');
  if (chosen !== mode && isSpecial && host.NetworkMode !== 'default') {
    throw invalid(`conflicting options: the network mode ${mode} and an endpoint on network ${chosen}`);
  }
  // Networks of the user's own have links of their own.
  const isPredefined = ['bridge', 'host', 'none'].includes(chosen);
  return { mode: chosen, endpoints, links: isPredefined ? resolveLinks(set, host.Links) : [] };
}

/** In another's network namespace a container has nothing of its own to set there. */
function checkConflicts(own: RunConfig, host: HostConfig): void {
  const { NetworkMode: mode } = host;
  const filled = (list: readonly unknown[] | null) => (list?.length ?? 0) > 0;
  const hasMac = (own.MacAddress ?? '') !== '';
  const macConflict = 'conflicting options: mac-address and the network mode';
  if (mode === 'host' && filled(host.Links)) throw hostNetworkAndLinks();
  if (mode === 'host' && hasMac) throw invalid(macConflict);
  const [kind, ref] = mode.split(':');
  if (kind !== 'container') return;
  if (!ref) throw invalid('Invalid network mode: invalid container format container:<name|id>');
  const conflicts: readonly (readonly [boolean, string])[] = [
    [own.Hostname !== '', 'conflicting options: hostname and the network mode'],
    [
      filled(host.Links),
      "conflicting options: container type network can't be used with links. This would result in undefined behavior",
    ],
    [filled(host.Dns), 'conflicting options: dns and the network mode'],
    [filled(host.ExtraHosts), 'conflicting options: custom host-to-IP mapping and the network mode'],
    [hasMac, macConflict],
    [
      Object.keys(host.PortBindings ?? {}).length > 0 || host.PublishAllPorts,
      'conflicting options: port publishing and the container type network mode',
    ],
    [
      Object.keys(own.ExposedPorts ?? {}).length > 0,
      'conflicting options: port exposing and the container type network mode',
    ],
  ];
  for (const [isThere, words] of conflicts) if (isThere) throw invalid(words);
}

/** What becomes lines of `/etc/hosts` and `/etc/resolv.conf`. */
function checkNames(host: HostConfig): void {
  for (const entry of host.ExtraHosts ?? []) {
    const [, name, address = ''] = /^([^:\s]+):(.*)$/s.exec(entry) ?? [];
    if (name === undefined) throw invalid(`bad format for add-host: "${entry}"`);
    if (address !== 'host-gateway' && net.isIP(address.replace(/^\[(.*)\]$/, '$1')) === 0) {
      throw invalid(`invalid IP address in add-host: "${address}"`);
    }
  }
  for (const server of host.Dns ?? []) if (net.isIP(server) === 0) throw invalid(`${server} is not an ip address`);
  for (const domain of host.DnsSearch ?? []) if (/\s/.test(domain)) throw invalid(`${domain} is not a valid domain`);
  for (const option of host.DnsOptions ?? []) if (/\s/.test(option)) throw invalid(`invalid DNS option: "${option}"`);
}

type Asked = Readonly<Record<string, EndpointSettings>>;

function checkEndpoints(body: CreateBody): Asked {
  const asked = body.NetworkingConfig?.EndpointsConfig ?? {};
  for (const [network, settings] of Object.entries(asked)) {
    if (settings === null) throw invalid(`no EndpointSettings for ${network}`);
    const { IPv4Address: ipv4, IPv6Address: ipv6 } = settings.IPAMConfig ?? {};
    if (ipv4 && !net.isIPv4(ipv4)) throw invalid(`invalid IPv4 address: ${ipv4}`);
    if (ipv6 && !net.isIPv6(ipv6)) throw invalid(`invalid IPv6 address: ${ipv6}`);
  }
  return asked as Asked;
}

/** The endpoint with the hardware address that Config asks for. */
function withMac(own: RunConfig, mode: string, asked: Asked): Asked {
  if (!own.MacAddress) return asked;
  const mac = parseMac(own.MacAddress);
  const settings = Object.entries(Object.keys(asked).length === 0 ? { [mode]: {} } : asked);
  return Object.fromEntries(
    settings.map(([network, { MacAddress, EndpointID, ...rest }]: [string, EndpointSettings]) => {
      if (MacAddress && !EndpointID && parseMac(MacAddress) !== mac) throw invalid(macsDiffer);
      return [network, { ...rest, MacAddress: mac }];
    }),
  );
}

const macsDiffer =
  'the container-wide MAC address must match the endpoint-specific MAC address for the main network, or must be omitted';
