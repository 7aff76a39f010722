/**
 * Links on the default bridge: one container knows another by an alias, in `/etc/hosts` and in its environment.
 *
 * A link is part of the record of the container that has it; the name `self/alias` stands for the other container wherever one is named.
 * Names of variables and texts: dockerd 20.10.
 */
import fs from 'node:fs';
import path from 'node:path';
import { conflict, internal, invalid, notFound } from '../lib/errors.ts';
import type { ContainerId } from '../lib/ids.ts';
import { withLinkAddress } from '../network/files.ts';
import { parseContainerPorts } from '../network/ports.ts';
import { isRunning } from './running.ts';
import type { ContainerSet } from './set.ts';
import type { ContainerLink, ContainerRecord } from './types.ts';

/** `name`, `name:alias`, an id instead of the name, or what inspect shows: `/name:/self/alias`. */
export function parseLink(text: string): { readonly ref: string; readonly alias: string } {
  if (text === '') throw invalid('empty string specified for links');
  const [ref = '', alias = ref, ...rest] = text.split(':');
  const last = ref.startsWith('/') ? path.posix.basename(alias) : alias;
  // The alias becomes a line of /etc/hosts and the name of a variable.
  if (rest.length > 0 || !/^[a-zA-Z0-9_.-]+$/.test(last)) throw invalid(`bad format for links: ${text}`);
  return { ref: ref.replace(/^\//, ''), alias: last };
}

/** What `HostConfig.Links` of a create request leads to. An alias given twice counts once. */
export function resolveLinks(set: ContainerSet, links: readonly string[] | null): readonly ContainerLink[] {
  const found = new Map<string, ContainerLink>();
  for (const text of links ?? []) {
    const { ref, alias } = parseLink(text);
    const target = networkOwner(set, ref);
    if (target.hostConfig.NetworkMode === 'host') throw hostNetworkAndLinks();
    if (!found.has(alias)) found.set(alias, { alias, target: target.id, name: target.name });
  }
  return [...found.values()];
}

export const hostNetworkAndLinks = () =>
  invalid(
    "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
  );

/** A container in another's network is reached where that one is. */
function networkOwner(set: ContainerSet, ref: string): ContainerRecord {
  let target = ref === '' ? undefined : set.index.find(ref);
  while (target?.hostConfig.NetworkMode.startsWith('container:')) {
    target = set.index.find(target.hostConfig.NetworkMode.slice('container:'.length));
  }
  if (target === undefined) throw invalid(`could not get container for ${ref}: No such container: ${ref}`);
  return target;
}

/** `HostConfig.Links` as inspect shows it. */
export function linksJson(set: ContainerSet, record: ContainerRecord): readonly string[] | null {
  const links = record.links ?? [];
  if (links.length === 0) return null;
  return links.map((link) => `/${set.index.targetOf(link)?.name ?? link.name}:/${record.name}/${link.alias}`);
}

/** For each container that others link to, their names for it: `/self/alias`. */
export function linkNames(set: ContainerSet): ReadonlyMap<string, readonly string[]> {
  const names = new Map<string, string[]>();
  for (const record of set.records.values()) {
    for (const link of record.links ?? []) {
      const id = set.index.targetOf(link)?.id;
      if (id !== undefined) names.set(id, [...(names.get(id) ?? []), `/${record.name}/${link.alias}`].sort());
    }
  }
  return names;
}

interface Linked {
  readonly link: ContainerLink;
  readonly target: ContainerRecord;
  readonly address: string;
}

/** A container's address on the default bridge, while it runs there. */
const addressOf = (record: ContainerRecord | undefined) => record?.endpoints.bridge?.joined?.ipv4;

/** Throws unless all that a container which is to start links to runs on the default bridge. */
export function checkLinks(set: ContainerSet, record: ContainerRecord): void {
  if (!('bridge' in record.endpoints)) return;
  for (const link of record.links ?? []) {
    const target = set.index.targetOf(link);
    const name = `/${target?.name ?? link.name}`;
    if (target === undefined || !isRunning(target)) {
      throw internal(`Cannot link to a non running container: ${name} AS /${record.name}/${link.alias}`);
    }
    if (!addressOf(target)) throw internal(`Cannot link to ${name}, as it does not belong to the default network`);
  }
}

/** What it links to and can be reached now. */
function linkedOf(set: ContainerSet, record: ContainerRecord): readonly Linked[] {
  if (!('bridge' in record.endpoints)) return [];
  return (record.links ?? []).flatMap((link) => {
    const target = set.index.targetOf(link);
    const address = addressOf(target);
    return target && address ? [{ link, target, address }] : [];
  });
}

/** Lines of `/etc/hosts`: the alias, the other's host name, and its name unless that is the alias. */
export function linkHosts(
  set: ContainerSet,
  record: ContainerRecord,
): readonly { readonly address: string; readonly names: string }[] {
  return linkedOf(set, record).map(({ link, target, address }) => ({
    address,
    names: [link.alias, target.config.Hostname, target.name === link.alias ? '' : target.name]
      .filter(Boolean)
      .join(' '),
  }));
}

export function linkEnvironment(set: ContainerSet, record: ContainerRecord): readonly string[] {
  return linkedOf(set, record).flatMap(({ link, target, address }) =>
    environmentOf(
      `/${record.name}/${link.alias}`,
      address,
      target.config.Env,
      Object.keys(target.config.ExposedPorts ?? {}),
    ),
  );
}

interface Port {
  readonly number: number;
  readonly protocol: string;
}

/** Variables of old, all with the alias in capitals before them. `name`: `/self/alias`. */
export function environmentOf(
  name: string,
  address: string,
  env: readonly string[] | null,
  exposed: readonly string[],
): readonly string[] {
  const prefix = path.posix.basename(name).toUpperCase().replaceAll('-', '_');
  const ports = sortedPorts(exposed);
  const url = ({ protocol, number }: Port) => `${protocol}://${address}:${number}`;
  const variables: string[] = [];
  const [lowest] = ports;
  if (lowest) variables.push(`${prefix}_PORT=${url(lowest)}`);
  for (const [first, last] of runsOf(ports)) {
    const start = `${prefix}_PORT_${first.number}_${first.protocol.toUpperCase()}`;
    const end = `${prefix}_PORT_${first.number}_${last.protocol.toUpperCase()}`;
    variables.push(`${start}_START=${url(first)}`, `${start}_PORT_START=${first.number}`);
    variables.push(`${end}_END=${url(last)}`, `${end}_PORT_END=${last.number}`);
  }
  for (const port of ports) {
    const each = `${prefix}_PORT_${port.number}_${port.protocol.toUpperCase()}`;
    variables.push(`${each}=${url(port)}`, `${each}_ADDR=${address}`);
    variables.push(`${each}_PORT=${port.number}`, `${each}_PROTO=${port.protocol}`);
  }
  variables.push(`${prefix}_NAME=${name}`);
  for (const variable of env ?? []) {
    // Every image sets these two; they say nothing of the other container.
    if (variable.includes('=') && !/^(HOME|PATH)=/.test(variable)) variables.push(`${prefix}_ENV_${variable}`);
  }
  return variables;
}

/** By number, tcp before others. Ranges are taken apart. */
function sortedPorts(exposed: readonly string[]): readonly Port[] {
  const ports = exposed.flatMap((key) => {
    const { first, last, protocol } = parseContainerPorts(key);
    return Array.from({ length: last - first + 1 }, (_, i) => ({ number: first + i, protocol }));
  });
  const rank = ({ protocol }: Port) => (protocol === 'tcp' ? 0 : 1);
  return ports.sort((a, b) => a.number - b.number || rank(a) - rank(b));
}

/** Three or more ports in a row. */
function runsOf(ports: readonly Port[]): readonly (readonly [Port, Port])[] {
  const runs: (readonly [Port, Port])[] = [];
  for (let i = 0; i < ports.length; ) {
    let j = i;
    while (j + 1 < ports.length && (ports[j + 1] as Port).number <= (ports[i] as Port).number + (j + 1 - i)) j++;
    if (j > i + 1) runs.push([ports[i] as Port, ports[j] as Port]);
    i = j > i + 1 ? j + 1 : i + 1;
  }
  return runs;
}

/** A hosts file is the container's to write: what is larger than this is not read. */
const hostsBytesMax = 1024 * 1024;

/**
 * Brings the hosts files of running containers up to date that link to this one, and its own: another may have got a new address since
 * its file was written. In place and at once, since the file is mounted in the container and may have been edited there.
 */
export function refreshHosts(set: ContainerSet, changed: ContainerRecord): void {
  for (const record of set.records.values()) {
    if (!record.links?.length || !isRunning(record)) continue;
    for (const link of record.links) {
      const target = set.index.targetOf(link);
      const address = addressOf(target);
      if (address === undefined || (record.id !== changed.id && target?.id !== changed.id)) continue;
      const file = path.join(set.dirOf(record.id), 'hosts');
      try {
        if (fs.statSync(file).size > hostsBytesMax) continue;
        const before = fs.readFileSync(file, 'utf8');
        const after = withLinkAddress(before, link.alias, address);
        if (after !== before) fs.writeFileSync(file, after);
      } catch (error) {
        set.parts.log.warn({ error, container: record.id }, 'the address of a linked container could not be updated');
      }
    }
  }
}

/** `DELETE /containers/self/alias?link=1` */
export async function removeLink(set: ContainerSet, ref: string): Promise<void> {
  set.index.resolve(ref);
  const name = ref.replace(/^\//, '');
  const slash = name.lastIndexOf('/');
  if (slash < 0) throw conflict('Conflict, cannot remove the default name of the container');
  const parent = set.index.holderOf(name.slice(0, slash));
  if (parent === undefined) throw notFound(`Cannot get parent /${name.slice(0, slash)} for name /${name}`);
  await set.inLane(parent, async () => {
    const record = set.current(parent);
    const alias = name.slice(slash + 1);
    const links = (record.links ?? []).filter((link) => link.alias !== alias);
    if (links.length === record.links?.length) throw notFound(`No such container: ${ref}`);
    await set.commit({ ...record, links });
  });
}

/** Links know a container by its new name after a rename, for the time after its removal. Not from within a lane. */
export async function renameInLinks(set: ContainerSet, id: ContainerId, name: string): Promise<void> {
  const leadsThere = (link: ContainerLink) => link.target === id;
  const holders = [...set.records.values()].filter(({ links }) => links?.some(leadsThere));
  await Promise.all(
    holders.map((holder) =>
      set.inLane(holder.id, async () => {
        const record = set.records.get(holder.id);
        if (record === undefined) return;
        await set.commit({
          ...record,
          links: record.links?.map((link) => (leadsThere(link) ? { ...link, name } : link)),
        });
      }),
    ),
  );
}

/** Whether something a container links to is about to run, as after the start of the daemon. */
export function linksAreComing(set: ContainerSet, record: ContainerRecord): boolean {
  return (record.links ?? []).some((link) => {
    const target = set.index.targetOf(link);
    if (target === undefined || isRunning(target) || target.stoppedByUser) return false;
    return target.hostConfig.RestartPolicy.Name !== 'no';
  });
}
