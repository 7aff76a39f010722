/** The three files of a container that its network determines: /etc/resolv.conf, /etc/hosts and /etc/hostname. */
import fsSync from 'node:fs';
import fs from 'node:fs/promises';
import { isErrno } from '../platform/libc.ts';

export interface DnsOptions {
  readonly dns: readonly string[];
  readonly dnsSearch: readonly string[];
  readonly dnsOptions: readonly string[];
}

/** dockerd's choice for a host whose only name server is itself. */
const publicNameservers = ['8.8.8.8', '8.8.4.4'];

/**
 * The host's resolv.conf that a container can use. Where systemd-resolved answers on 127.0.0.53 alone, its list of the real
 * servers. Empty if the host has none.
 */
export async function readHostResolvConf(): Promise<string> {
  const main = await readIfThere('/etc/resolv.conf');
  const { nameservers } = parseResolvConf(main);
  if (nameservers.length === 1 && nameservers[0] === '127.0.0.53') {
    return (await readIfThere('/run/systemd/resolve/resolv.conf')) || main;
  }
  return main;
}

/** The host's name servers, its loopback ones included: they are asked from the host. Read anew when the file has changed. */
export class HostServers {
  #servers: readonly string[] = [];
  #seen = '';
  #checkedAt = 0;

  read(): readonly string[] {
    if (Date.now() - this.#checkedAt < hostServersMs) return this.#servers;
    this.#checkedAt = Date.now();
    try {
      const text = fsSync.readFileSync('/etc/resolv.conf', 'utf8');
      if (text !== this.#seen) this.#servers = parseResolvConf(text).nameservers;
      this.#seen = text;
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
      this.#servers = [];
    }
    return this.#servers;
  }
}

const hostServersMs = 1000;

async function readIfThere(path: string): Promise<string> {
  try {
    return await fs.readFile(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return '';
    throw error;
  }
}

export function parseResolvConf(text: string): {
  readonly nameservers: readonly string[];
  readonly search: readonly string[];
  readonly options: readonly string[];
} {
  const nameservers: string[] = [];
  let search: readonly string[] = [];
  const options: string[] = [];
  for (const line of text.split('\n')) {
    const [keyword, ...values] = line
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/);
    if (keyword === 'nameserver' && values[0] !== undefined) nameservers.push(values[0]);
    if (keyword === 'search' || keyword === 'domain') search = values; // the last one counts
    if (keyword === 'options') options.push(...values);
  }
  return { nameservers, search, options };
}

/**
 * resolv.conf of a container with a network of its own: `options` (the container's, else the daemon's) win one by one over the
 * host's. The host's own loopback servers can't be reached from inside and are left out, as are IPv6 servers.
 * A search list of `.` alone means none.
 */
export function resolvConf(host: string, options: DnsOptions): string {
  const inherited = parseResolvConf(host);
  const reachable = inherited.nameservers.filter((server) => !server.startsWith('127.') && !server.includes(':'));
  const fallback = reachable.length > 0 ? reachable : publicNameservers;
  const nameservers = options.dns.length > 0 ? options.dns : fallback;
  const search = options.dnsSearch.length > 0 ? options.dnsSearch : inherited.search;
  const resolverOptions = options.dnsOptions.length > 0 ? options.dnsOptions : inherited.options;
  const lines = nameservers.map((server) => `nameserver ${server}`);
  if (search.length > 0 && search.join(' ') !== '.') lines.unshift(`search ${search.join(' ')}`);
  if (resolverOptions.length > 0) lines.push(`options ${resolverOptions.join(' ')}`);
  return `${lines.join('\n')}\n`;
}

/**
 * resolv.conf of a container in a network of the user's: our own name server answers, and asks the others itself. Search list and
 * options stay; without an `ndots` of its own a name with a dot is asked as it is, as dockerd has it.
 */
export function resolvConfOfNames(host: string, options: DnsOptions, server: string): string {
  const text = resolvConf(host, { ...options, dns: [server] });
  if (/^options .*\bndots:/m.test(text)) return text;
  return /^options /m.test(text) ? text.replace(/^options .*$/m, '$& ndots:0') : `${text}options ndots:0\n`;
}

/** resolv.conf of a container in the host's network: the host's file as it is, unless options were given. */
export function resolvConfOfHostNetwork(host: string, options: DnsOptions): string {
  if (options.dns.length + options.dnsSearch.length + options.dnsOptions.length === 0) return host;
  const inherited = parseResolvConf(host);
  return resolvConf('', {
    dns: options.dns.length > 0 ? options.dns : inherited.nameservers,
    dnsSearch: options.dnsSearch.length > 0 ? options.dnsSearch : inherited.search,
    dnsOptions: options.dnsOptions.length > 0 ? options.dnsOptions : inherited.options,
  });
}

const localNames = `127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
`;

export interface HostsOptions {
  /** Of the container itself. */
  readonly addresses: readonly string[];
  readonly hostname: string;
  readonly domainname: string;
  /** `name:address`; the address `host-gateway` stands for `gateway`. */
  readonly extraHosts: readonly string[];
  /** Other containers by what this one calls them. */
  readonly linked?: readonly { readonly address: string; readonly names: string }[] | undefined;
  /** The host as the container sees it; empty leaves entries that need it out. */
  readonly gateway: string;
  /** Content to begin with instead of the usual names: the host's /etc/hosts, for a container in its network. */
  readonly base?: string | undefined;
}

/** /etc/hosts in dockerd's order: local names, extra hosts, linked containers, the container itself. */
export function hostsFile(options: HostsOptions): string {
  let text = options.base ?? localNames;
  if (text !== '' && !text.endsWith('\n')) text += '\n';
  for (const extra of options.extraHosts) {
    const [, name = '', address = ''] = /^([^:]*):(.*)$/.exec(extra) ?? [];
    const resolved = address === 'host-gateway' ? options.gateway : address.replace(/^\[(.*)\]$/, '$1');
    if (resolved !== '') text += `${resolved}\t${name}\n`;
  }
  for (const { address, names } of options.linked ?? []) text += `${address}\t${names}\n`;
  for (const address of options.addresses) text += ownLine(address, options);
  return text;
}

type OwnName = Pick<HostsOptions, 'hostname' | 'domainname'>;

const ownLine = (address: string, { hostname, domainname }: OwnName): string =>
  `${address}\t${domainname === '' ? '' : `${hostname}.${domainname} `}${hostname}\n`;

/** A hosts file, perhaps edited, of a container that has other addresses now: its own lines go and come, all others stay. */
export function withOwnAddresses(
  text: string,
  before: readonly string[],
  now: readonly string[],
  own: OwnName,
): string {
  const gone = new Set(before.filter((address) => !now.includes(address)).map((address) => ownLine(address, own)));
  const lines: readonly string[] = (text === '' || text.endsWith('\n') ? text : `${text}\n`).match(/.*\n/g) ?? [];
  const kept = lines.filter((line) => !gone.has(line)).join('');
  const come = now.filter((address) => !before.includes(address)).map((address) => ownLine(address, own));
  return kept + come.filter((line) => !lines.includes(line)).join('');
}

/** A resolv.conf that somebody edited, with other servers in the place of the first and all else as it is. */
export function withServers(text: string, servers: readonly string[]): string {
  const lines = servers.map((server) => `nameserver ${server}\n`).join('');
  const others = text.replace(/^[ \t]*nameserver\b.*\n?/gm, '');
  const at = text.search(/^[ \t]*nameserver\b/m);
  if (at < 0) return `${lines}${text}`;
  // Everything before the first of them is as long in both.
  return `${others.slice(0, at)}${lines}${others.slice(at)}`;
}

/** A hosts file with another address for a link; lines that somebody wrote otherwise stay. */
export function withLinkAddress(text: string, alias: string, address: string): string {
  const line = new RegExp(`^\\S+(?=\\t${alias.replaceAll('.', '\\.')}(\\s|$))`, 'gm');
  return text.replace(line, address);
}

export const hostnameFile = (hostname: string): string => `${hostname}\n`;
