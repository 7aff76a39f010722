/** Every setting once: its flag, its key in daemon.json, its type, default, check and sentence. */
import net from 'node:net';
import path from 'node:path';
import { invalid } from '../lib/errors.ts';
import type { Config } from './types.ts';

export const defaultConfigFile = '/etc/slipway/daemon.json';
const defaultHost = 'unix:///run/slipway/slipway.sock';

/** How a value is written: on the command line (lists, maps, ulimits and runtimes may be repeated) and in the file. */
export type Kind = 'text' | 'switch' | 'number' | 'list' | 'map' | 'ulimits' | 'runtimes' | 'pools';

export interface Option {
  /** Without the dashes. */
  readonly flag: string;
  readonly letter?: string;
  /** Key in daemon.json. */
  readonly key: string;
  readonly of: keyof Config;
  readonly kind: Kind;
  readonly initial: unknown;
  /** Stands for the value in the help. */
  readonly placeholder?: string;
  readonly help: string;
  /** Takes effect on SIGHUP. */
  readonly reloads?: true;
  /** Answers the value as it shall be kept, or throws what is wrong with it (the caller names the setting). */
  readonly check?: (value: never) => unknown;
}

const oneOf =
  (...allowed: readonly string[]) =>
  (value: string): string => {
    if (!allowed.includes(value)) throw invalid(`"${value}" is not one of ${allowed.join(', ')}`);
    return value;
  };
const each =
  (check: (value: string) => string) =>
  (values: readonly string[]): readonly string[] =>
    values.map(check);
const atLeast =
  (least: number) =>
  (value: number): number => {
    if (value < least) throw invalid(`${value} is less than ${least}`);
    return value;
  };
const absolute = (value: string): string => path.resolve(value);
const absoluteIfSet = (value: string): string => (value === '' ? '' : path.resolve(value));

function host(value: string): string {
  if (value === 'unix://') return defaultHost;
  const known =
    /^unix:\/\/\/.+/.test(value) || /^fd:\/\//.test(value) || /^tcp:\/\/(\[[^\]]*\]|[^:/]*)(:\d+)?\/?$/.test(value);
  if (!known) throw invalid(`invalid address "${value}": expected unix:///path, tcp://address:port or fd://`);
  return value;
}

function hosts(values: readonly string[]): readonly string[] {
  return values.length === 0 ? [defaultHost] : [...new Set(values.map(host))];
}

function logLevel(value: string): string {
  return oneOf('debug', 'info', 'warn', 'error', 'fatal')(value === 'warning' ? 'warn' : value);
}

function label(value: string): string {
  if (!/^[^=\s][^=]*=/.test(value)) throw invalid(`bad attribute format: ${value} (expected key=value)`);
  return value;
}

function cidr(value: string): string {
  const [address = '', bits = ''] = value.split('/');
  if (value !== '' && !(net.isIPv4(address) && /^\d{1,2}$/.test(bits) && Number(bits) <= 30)) {
    throw invalid(`invalid CIDR address: ${value}`);
  }
  return value;
}

function ipv4(value: string): string {
  if (!net.isIPv4(value)) throw invalid(`${value} is not an IPv4 address`);
  return value;
}
const ipv4IfSet = (value: string): string => (value === '' ? '' : ipv4(value));

function ipAddress(value: string): string {
  if (net.isIP(value) === 0) throw invalid(`${value} is not an ip address`);
  return value;
}

function seccompProfile(value: string): string {
  return value === 'builtin' || value === 'unconfined' ? value : value === '' ? 'builtin' : absolute(value);
}

function insecureRegistry(value: string): string {
  if (value.includes('://')) throw invalid(`insecure registry ${value} should not contain '://'`);
  return value;
}

function mirror(value: string): string {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (!url || !/^https?:$/.test(url.protocol))
    throw invalid(`invalid mirror: "${value}" (expected http:// or https://)`);
  if (url.search !== '' || url.hash !== '')
    throw invalid(`invalid mirror: query or fragment at end of the URI "${value}"`);
  return value.endsWith('/') ? value : `${value}/`;
}

/** In the order of the help: by flag. */
export const options: readonly Option[] = [
  {
    flag: 'add-runtime',
    key: 'runtimes',
    of: 'runtimes',
    kind: 'runtimes',
    initial: {},
    placeholder: 'name=path',
    help: 'Register a further OCI runtime (crun and runc are known)',
    reloads: true,
  },
  {
    flag: 'api-shape',
    key: 'api-shape',
    of: 'apiShape',
    kind: 'text',
    initial: 'open',
    placeholder: 'open|exact',
    help: 'Keys that came after the API version of a request: sent (open) or left out (exact)',
    check: oneOf('open', 'exact'),
  },
  {
    flag: 'bip',
    key: 'bip',
    of: 'bip',
    kind: 'text',
    initial: '',
    placeholder: 'address/bits',
    help: 'Address and subnet of the default bridge; chosen if empty',
    check: cidr,
  },
  {
    flag: 'data-root',
    key: 'data-root',
    of: 'dataRoot',
    kind: 'text',
    initial: '/var/lib/slipway',
    placeholder: 'directory',
    help: 'What must outlive a reboot: records, images, layers, logs, volumes',
    check: absolute,
  },
  {
    flag: 'debug',
    letter: 'D',
    key: 'debug',
    of: 'debug',
    kind: 'switch',
    initial: false,
    help: 'Log in detail',
    reloads: true,
  },
  {
    flag: 'default-address-pool',
    key: 'default-address-pools',
    of: 'defaultAddressPools',
    kind: 'pools',
    initial: [],
    placeholder: 'base=…,size=…',
    help: 'Where networks that name no subnet get theirs from; may be repeated',
  },
  {
    flag: 'default-gateway',
    key: 'default-gateway',
    of: 'defaultGateway',
    kind: 'text',
    initial: '',
    placeholder: 'address',
    help: 'Where containers on the default bridge send what leaves, instead of to the bridge',
    check: ipv4IfSet,
  },
  {
    flag: 'default-runtime',
    key: 'default-runtime',
    of: 'defaultRuntime',
    kind: 'text',
    initial: 'crun',
    placeholder: 'name',
    help: 'OCI runtime of containers that name none',
    reloads: true,
  },
  {
    flag: 'default-ulimit',
    key: 'default-ulimits',
    of: 'defaultUlimits',
    kind: 'ulimits',
    initial: {},
    placeholder: 'name=soft[:hard]',
    help: 'Default ulimit of containers; may be repeated',
  },
  {
    flag: 'dns',
    key: 'dns',
    of: 'dns',
    kind: 'list',
    initial: [],
    placeholder: 'address',
    help: 'DNS server of containers; may be repeated',
    check: each(ipAddress),
  },
  {
    flag: 'dns-opt',
    key: 'dns-opts',
    of: 'dnsOptions',
    kind: 'list',
    initial: [],
    placeholder: 'option',
    help: 'Resolver option of containers; may be repeated',
  },
  {
    flag: 'dns-search',
    key: 'dns-search',
    of: 'dnsSearch',
    kind: 'list',
    initial: [],
    placeholder: 'domain',
    help: 'DNS search domain of containers; may be repeated',
  },
  {
    flag: 'exec-root',
    key: 'exec-root',
    of: 'execRoot',
    kind: 'text',
    initial: '/run/slipway',
    placeholder: 'directory',
    help: 'State of running containers',
    check: absolute,
  },
  {
    flag: 'fixed-cidr',
    key: 'fixed-cidr',
    of: 'fixedCidr',
    kind: 'text',
    initial: '',
    placeholder: 'subnet',
    help: 'Part of the subnet of the default bridge that containers get addresses from',
    check: cidr,
  },
  {
    flag: 'group',
    letter: 'G',
    key: 'group',
    of: 'group',
    kind: 'text',
    initial: 'docker',
    placeholder: 'name',
    help: 'Group of the unix sockets, if it exists',
  },
  {
    flag: 'host',
    letter: 'H',
    key: 'hosts',
    of: 'hosts',
    kind: 'list',
    initial: [defaultHost],
    placeholder: 'address',
    help: 'Where to listen: unix:///path, tcp://address:port or fd://; may be repeated',
    check: hosts,
  },
  {
    flag: 'host-forward-policy',
    key: 'host-forward-policy',
    of: 'hostForwardPolicy',
    kind: 'text',
    initial: 'overrule',
    placeholder: 'overrule|obey',
    help: 'Policy DROP of the host for forwarded traffic, as to containers',
    reloads: true,
    check: oneOf('overrule', 'obey'),
  },
  {
    flag: 'icc',
    key: 'icc',
    of: 'icc',
    kind: 'switch',
    initial: true,
    help: 'Containers on the default bridge reach each other',
  },
  {
    flag: 'init',
    key: 'init',
    of: 'init',
    kind: 'switch',
    initial: false,
    help: 'Run an init in containers that do not say otherwise: it passes signals on and reaps processes',
  },
  {
    flag: 'init-path',
    key: 'init-path',
    of: 'initPath',
    kind: 'text',
    initial: '',
    placeholder: 'path',
    help: 'That init, linked statically; docker-init, tini-static or catatonit if empty',
  },
  {
    flag: 'insecure-registry',
    key: 'insecure-registries',
    of: 'insecureRegistries',
    kind: 'list',
    initial: [],
    placeholder: 'host[:port]|CIDR',
    help: 'Registry reached without TLS or with an unknown certificate; may be repeated',
    reloads: true,
    check: each(insecureRegistry),
  },
  {
    flag: 'ip',
    key: 'ip',
    of: 'ip',
    kind: 'text',
    initial: '0.0.0.0',
    placeholder: 'address',
    help: 'Where ports of containers on the default bridge are published that name no address',
    check: ipv4,
  },
  {
    flag: 'ip-masq',
    key: 'ip-masq',
    of: 'ipMasq',
    kind: 'switch',
    initial: true,
    help: "What leaves the default bridge gets the host's address",
  },
  {
    flag: 'label',
    key: 'labels',
    of: 'labels',
    kind: 'list',
    initial: [],
    placeholder: 'key=value',
    help: 'Label of the engine, shown by info; may be repeated',
    reloads: true,
    check: each(label),
  },
  {
    flag: 'log-driver',
    key: 'log-driver',
    of: 'logDriver',
    kind: 'text',
    initial: 'json-file',
    placeholder: 'name',
    help: 'Log driver of containers that name none',
    reloads: true,
  },
  {
    flag: 'log-level',
    letter: 'l',
    key: 'log-level',
    of: 'logLevel',
    kind: 'text',
    initial: 'info',
    placeholder: 'debug|info|warn|error|fatal',
    help: "Least level of the engine's own log",
    reloads: true,
    check: logLevel,
  },
  {
    flag: 'log-opt',
    key: 'log-opts',
    of: 'logOpts',
    kind: 'map',
    initial: {},
    placeholder: 'key=value',
    help: 'Default option of that log driver (max-size, max-file …); may be repeated',
    reloads: true,
  },
  {
    flag: 'max-concurrent-downloads',
    key: 'max-concurrent-downloads',
    of: 'maxConcurrentDownloads',
    kind: 'number',
    initial: 6,
    help: 'Layers fetched side by side, over all pulls',
    reloads: true,
    check: atLeast(1),
  },
  {
    flag: 'max-concurrent-uploads',
    key: 'max-concurrent-uploads',
    of: 'maxConcurrentUploads',
    kind: 'number',
    initial: 5,
    help: 'Layers sent side by side, over all pushes',
    reloads: true,
    check: atLeast(1),
  },
  {
    flag: 'mtu',
    key: 'mtu',
    of: 'mtu',
    kind: 'number',
    initial: 1500,
    help: 'MTU of the default bridge',
    check: atLeast(68),
  },
  {
    flag: 'no-new-privileges',
    key: 'no-new-privileges',
    of: 'noNewPrivileges',
    kind: 'switch',
    initial: false,
    help: 'No set-uid gain of privileges in containers that do not say otherwise',
  },
  {
    flag: 'pidfile',
    letter: 'p',
    key: 'pidfile',
    of: 'pidFile',
    kind: 'text',
    initial: '/run/slipway/slipway.pid',
    placeholder: 'path',
    help: "File with the engine's process id; none if empty",
    check: absoluteIfSet,
  },
  {
    flag: 'plugin-sockets',
    key: 'plugin-sockets',
    of: 'pluginSockets',
    kind: 'text',
    initial: '/run/docker/plugins',
    placeholder: 'directory',
    help: 'Where plugins have their sockets',
    check: absolute,
  },
  {
    flag: 'plugin-specs',
    key: 'plugin-specs',
    of: 'pluginSpecs',
    kind: 'list',
    initial: ['/etc/docker/plugins', '/usr/lib/docker/plugins'],
    placeholder: 'directory',
    help: 'Where .spec and .json files tell of plugins; may be repeated',
    check: each(absolute),
  },
  {
    flag: 'registry-mirror',
    key: 'registry-mirrors',
    of: 'registryMirrors',
    kind: 'list',
    initial: [],
    placeholder: 'url',
    help: "Asked before Docker Hub for the Hub's images; may be repeated",
    reloads: true,
    check: each(mirror),
  },
  {
    flag: 'seccomp-profile',
    key: 'seccomp-profile',
    of: 'seccompProfile',
    kind: 'text',
    initial: 'builtin',
    placeholder: 'path',
    help: 'Seccomp profile of containers that name none; or unconfined',
    check: seccompProfile,
  },
  {
    flag: 'shutdown-timeout',
    key: 'shutdown-timeout',
    of: 'shutdownTimeout',
    kind: 'number',
    initial: 15,
    placeholder: 'seconds',
    help: 'Time that work under way gets when the engine ends; containers run on',
    reloads: true,
    check: atLeast(0),
  },
  { flag: 'tls', key: 'tls', of: 'tls', kind: 'switch', initial: false, help: 'TLS on tcp addresses' },
  {
    flag: 'tlscacert',
    key: 'tlscacert',
    of: 'tlsCaCert',
    kind: 'text',
    initial: '/etc/slipway/ca.pem',
    placeholder: 'path',
    help: 'Certificates that client certificates must come from',
    check: absolute,
  },
  {
    flag: 'tlscert',
    key: 'tlscert',
    of: 'tlsCert',
    kind: 'text',
    initial: '/etc/slipway/server-cert.pem',
    placeholder: 'path',
    help: 'Certificate of the engine',
    check: absolute,
  },
  {
    flag: 'tlskey',
    key: 'tlskey',
    of: 'tlsKey',
    kind: 'text',
    initial: '/etc/slipway/server-key.pem',
    placeholder: 'path',
    help: 'Key of that certificate',
    check: absolute,
  },
  {
    flag: 'tlsverify',
    key: 'tlsverify',
    of: 'tlsVerify',
    kind: 'switch',
    initial: false,
    help: 'TLS on tcp addresses, and clients must show a certificate',
  },
  {
    flag: 'userns-remap',
    key: 'userns-remap',
    of: 'usernsRemap',
    kind: 'text',
    initial: '',
    placeholder: 'user[:group]',
    help: 'Run containers in user namespaces with the ids of /etc/subuid and /etc/subgid; or default',
  },
];
