/** Ports as clients write them: `80`, `80/tcp`, `8000-8010/udp`. */
import { isIP } from 'node:net';
import { invalid } from '../lib/errors.ts';
import type { PortBinding, PublishedPort } from './types.ts';

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

export interface ContainerPorts extends PortRange {
  readonly protocol: PublishedPort['protocol'];
}

const protocols: readonly string[] = ['tcp', 'udp', 'sctp'] satisfies readonly PublishedPort['protocol'][];

const failure = (text: string) => invalid(`invalid port specification: "${text}"`);

/** `80` or `8000-8010`. Throws dockerd's words. */
export function parsePortRange(text: string): PortRange {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (match === null) throw failure(text);
  const first = Number(match[1]);
  const last = Number(match[2] ?? match[1]);
  if (first > 65535 || last > 65535 || last < first) throw failure(text);
  return { first, last };
}

/** `80/tcp`; tcp unless said. Throws dockerd's words. */
export function parseContainerPorts(text: string): ContainerPorts {
  const [ports = '', protocol = 'tcp', ...rest] = text.split('/');
  const known = protocol === '' ? 'tcp' : protocol.toLowerCase();
  if (rest.length > 0 || !protocols.includes(known)) throw failure(text);
  return { ...parsePortRange(ports), protocol: known as PublishedPort['protocol'] };
}

/** What a create request says about ports, as the API has it. */
export interface PortOptions {
  readonly exposedPorts: Readonly<Record<string, unknown>> | null;
  readonly portBindings: Readonly<Record<string, readonly Partial<PortBinding>[] | null>> | null;
  readonly publishAllPorts: boolean;
}

/**
 * The ports to publish, for a `JoinRequest`: `80/tcp` to its bindings. Keys have lost their spelling variants, bindings have
 * both keys. Ports with a number on the host come first, so that a free one is not searched among those.
 * Throws `invalid port specification: "…"` also for what would not be published, so it serves to validate a create.
 */
export function portsToPublish(options: PortOptions): Map<string, PortBinding[]> {
  const bindings = new Map<string, PortBinding[]>();
  for (const [key, requested] of Object.entries(options.portBindings ?? {})) {
    const { first, last, protocol } = parseContainerPorts(key);
    if (first !== last || first === 0) throw failure(key.split('/')[0] ?? key);
    const wrong = requested?.find(({ HostIp }) => HostIp && isIP(HostIp) === 0);
    if (wrong) throw invalid(`invalid IP address: ${wrong.HostIp}`);
    const complete = (requested ?? []).map(({ HostIp, HostPort }) => ({
      HostIp: HostIp ?? '',
      HostPort: normalHostPort(HostPort ?? ''),
    }));
    const name = `${first}/${protocol}`;
    bindings.set(name, [...(bindings.get(name) ?? []), ...complete]);
  }
  for (const key of Object.keys(options.exposedPorts ?? {})) {
    const { first, last, protocol } = parseContainerPorts(key);
    if (!options.publishAllPorts) continue;
    for (let port = first; port <= last; port++) {
      const name = `${port}/${protocol}`;
      if (!bindings.has(name)) bindings.set(name, []);
    }
  }
  if (options.publishAllPorts) {
    for (const list of bindings.values()) if (list.length === 0) list.push({ HostIp: '', HostPort: '' });
  }
  const numbered = (list: readonly PortBinding[]): number => (list.some(({ HostPort }) => HostPort !== '') ? 0 : 1);
  return new Map(
    [...bindings]
      .filter(([, list]) => list.length > 0)
      .sort(([a, left], [b, right]) => numbered(left) - numbered(right) || parseInt(a, 10) - parseInt(b, 10)),
  );
}

/** As `portsToPublish`, and exposed ports that are not published, without bindings: drivers of plugins are told of them. */
export function portsToJoin(options: PortOptions): Map<string, readonly PortBinding[]> {
  const ports = new Map<string, readonly PortBinding[]>(portsToPublish(options));
  for (const key of Object.keys(options.exposedPorts ?? {})) {
    const { first, last, protocol } = parseContainerPorts(key);
    for (let port = first; port <= last; port++) {
      const name = `${port}/${protocol}`;
      if (!ports.has(name)) ports.set(name, []);
    }
  }
  return ports;
}

/** `0` asks for any port, as none does. */
function normalHostPort(text: string): string {
  if (text === '') return '';
  const { first, last } = parsePortRange(text.replace(/\/(tcp|udp|sctp)$/i, ''));
  if (first === 0) return '';
  return first === last ? String(first) : `${first}-${last}`;
}
