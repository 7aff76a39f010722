/**
 * Who holds which port of the host. Known from the live sandboxes alone, and enforced by a socket on each port
 * (`relay.ts`), so that also other programs and we can't take the same one.
 */
import fs from 'node:fs';
import { type EngineError, internal, invalid, messageOf } from '../lib/errors.ts';
import { type Address, parseAddress } from '../lib/ip.ts';
import type { Log } from '../lib/log.ts';
import { isErrno } from '../platform/libc.ts';
import type { Owner } from './pools.ts';
import { type PortRange, parsePortRange } from './ports.ts';
import { type Held, holdBoth, holdPort, type Target, TcpRelay } from './relay.ts';
import type { PortBinding, PublishedPort } from './types.ts';

interface Reservation {
  readonly owner: Owner;
  readonly hostIp: string;
  readonly target: Target;
  socket: Held | null;
}

type Protocol = PublishedPort['protocol'];

export class Reservations {
  readonly #log: Log;
  /** `tcp 8080` to its holders, one per address. */
  readonly #ports = new Map<string, Reservation[]>();
  /** Where the search for a free port goes on, by the range's first port, so that a port just given back rests. */
  readonly #next = new Map<number, number>();
  readonly #relay = new TcpRelay((address, port) => this.#targetOf(address, port));

  constructor(log: Log) {
    this.#log = log;
  }

  /** Where connections by IPv6 are relayed to containers without such an address; 0: nowhere. */
  get relayPort(): number {
    return this.#relay.port;
  }

  /**
   * Reserves one binding of a container's port: on all addresses, IPv4 and IPv6, if it names none. Returns what it became.
   * A failure has dockerd's words (after `driver failed programming external connectivity on endpoint …: `) and
   * reserves nothing.
   */
  async reserve(
    owner: Owner,
    protocol: Protocol,
    containerPort: number,
    binding: PortBinding,
    containerAddress: string,
  ): Promise<PublishedPort[]> {
    const addresses = hostAddresses(binding.HostIp);
    const fixed = binding.HostPort === '' ? null : parsePortRange(binding.HostPort);
    const range = fixed ?? ephemeralRange();
    const target = { address: containerAddress, port: containerPort };
    if (fixed !== null && fixed.first === fixed.last) {
      return await this.#reserveAll(owner, protocol, addresses, fixed.first, target);
    }
    for (const port of this.#candidates(range)) {
      if (addresses.some((address) => this.#holder(protocol, address, port) !== undefined)) continue;
      try {
        return await this.#reserveAll(owner, protocol, addresses, port, target);
      } catch (error) {
        if (!(error instanceof Error && isErrno(error.cause, 'EADDRINUSE'))) throw error;
      }
    }
    throw internal('all ports are allocated');
  }

  /**
   * Reserves again what a live container has according to its record; `both`: it has the port on all addresses of both families. A port
   * somebody took meanwhile is only reported.
   */
  async adopt(owner: Owner, published: PublishedPort, containerAddress: string, both: boolean): Promise<void> {
    const holder = this.#holder(published.protocol, published.hostIp, published.hostPort);
    if (holder?.owner.id === owner.id && holder.hostIp === published.hostIp && holder.socket !== null) return;
    const target = { address: containerAddress, port: published.containerPort };
    const reservation: Reservation = holder ?? this.#enter(owner, published, target);
    try {
      reservation.socket = await this.#hold(owner, published, reservation.target, both);
    } catch (error) {
      this.#log.warn(
        { error, container: owner.name, port: published.hostPort, protocol: published.protocol },
        'a published port could not be reserved again; it still leads to the container',
      );
    }
  }

  /** New connections through a container's ports lead to another address of it. */
  retarget(ownerId: string, address: string): void {
    for (const holders of this.#ports.values())
      for (const { owner, target } of holders) if (owner.id === ownerId) target.address = address;
  }

  /** Gives back all ports of a container. */
  release(ownerId: string): void {
    const targets = new Set<Target>();
    for (const [key, holders] of this.#ports) {
      const kept = holders.filter((holder) => holder.owner.id !== ownerId);
      if (kept.length === holders.length) continue;
      for (const holder of holders) {
        if (holder.owner.id !== ownerId) continue;
        holder.socket?.close();
        targets.add(holder.target);
      }
      if (kept.length > 0) this.#ports.set(key, kept);
      else this.#ports.delete(key);
    }
    if (targets.size > 0) this.#relay.end(targets);
  }

  close(): void {
    for (const holder of [...this.#ports.values()].flat()) holder.socket?.close();
    this.#ports.clear();
    this.#relay.close();
  }

  *#candidates({ first, last }: PortRange): Generator<number> {
    const size = last - first + 1;
    const start = this.#next.get(first) ?? first;
    for (let step = 0; step < size; step++) {
      const port = first + ((start - first + step) % size);
      this.#next.set(first, port >= last ? first : port + 1);
      yield port;
    }
  }

  /** The same port on each of the addresses, or none. */
  async #reserveAll(
    owner: Owner,
    protocol: Protocol,
    addresses: readonly string[],
    hostPort: number,
    target: Target,
  ): Promise<PublishedPort[]> {
    const ports = addresses.map((hostIp) => ({ protocol, containerPort: target.port, hostIp, hostPort }));
    for (const { hostIp } of ports) {
      const holder = this.#holder(protocol, hostIp, hostPort);
      if (holder !== undefined) {
        const place = `${bracketed(hostIp)}:${hostPort}`;
        throw internal(`Bind for ${place} failed: port is already allocated (held by container ${holder.owner.name})`);
      }
    }
    // All entered before the first await, so that two joins at the same time can't both find one free.
    const entered = ports.map((port) => ({ port, reservation: this.#enter(owner, port, { ...target }) }));
    const published: PublishedPort[] = [];
    try {
      for (const { port, reservation } of entered) {
        try {
          reservation.socket = await this.#hold(owner, port, reservation.target, ports.length === 2);
          published.push(port);
        } catch (error) {
          const noIPv6 = port.hostIp === '::' && isErrno(error, 'EAFNOSUPPORT', 'EADDRNOTAVAIL');
          if (!noIPv6 || ports.length === 1) throw bindFailure(port, error);
          this.#leave(port, reservation);
        }
      }
      return published;
    } catch (error) {
      for (const { port, reservation } of entered) this.#leave(port, reservation);
      throw error;
    }
  }

  #holder(protocol: Protocol, hostIp: string, hostPort: number): Reservation | undefined {
    return this.#ports.get(`${protocol} ${hostPort}`)?.find((holder) => collide(holder.hostIp, hostIp));
  }

  /** Node has no SCTP sockets: such a port is only guarded against our own containers. */
  async #hold(owner: Owner, port: PublishedPort, target: Target, both: boolean): Promise<Held | null> {
    const address = parseAddress(port.hostIp);
    if (both && port.protocol === 'tcp' && port.hostIp === '0.0.0.0') {
      const held = holdBoth(port.hostPort);
      if (held !== null) return held;
    }
    if (port.protocol === 'sctp' || address === undefined) return null;
    if (port.protocol === 'tcp' && address.family === 6 && this.#relay.port === 0) await this.#relay.listen();
    if (both && this.#isHeldWithIPv4(owner, port)) return { close: () => undefined };
    return await holdPort(port.protocol, address, port.hostPort, target);
  }

  #isHeldWithIPv4(owner: Owner, { protocol, hostPort, hostIp }: PublishedPort): boolean {
    const holders = this.#ports.get(`${protocol} ${hostPort}`) ?? [];
    return hostIp === '::' && holders.some((holder) => holder.owner.id === owner.id && holder.socket?.both === true);
  }

  #targetOf(address: Address, port: number): Target | undefined {
    return this.#ports.get(`tcp ${port}`)?.find(({ hostIp }) => {
      const held = parseAddress(hostIp);
      return held?.family === 6 && (held.value === 0n || held.value === address.value);
    })?.target;
  }

  #enter(owner: Owner, { protocol, hostPort, hostIp }: PublishedPort, target: Target): Reservation {
    const reservation: Reservation = { owner, hostIp, target, socket: null };
    const key = `${protocol} ${hostPort}`;
    this.#ports.set(key, [...(this.#ports.get(key) ?? []), reservation]);
    return reservation;
  }

  #leave({ protocol, hostPort }: PublishedPort, leaving: Reservation): void {
    leaving.socket?.close();
    const key = `${protocol} ${hostPort}`;
    const kept = this.#ports.get(key)?.filter((holder) => holder !== leaving) ?? [];
    if (kept.length > 0) this.#ports.set(key, kept);
    else this.#ports.delete(key);
  }
}

function collide(a: string, b: string): boolean {
  if (a.includes(':') !== b.includes(':')) return false;
  const everywhere = a.includes(':') ? '::' : '0.0.0.0';
  return a === b || a === everywhere || b === everywhere;
}

function hostAddresses(hostIp: string): string[] {
  if (hostIp === '') return ['0.0.0.0', '::'];
  if (parseAddress(hostIp) === undefined) throw invalid(`invalid IP address: ${hostIp}`);
  return [hostIp];
}

const bracketed = (address: string): string => (address.includes(':') ? `[${address}]` : address);

/** dockerd's words for a port that another program holds, which clients show and some look for. */
function bindFailure(port: PublishedPort, error: unknown): EngineError {
  const family = port.hostIp.includes(':') ? 6 : 4;
  let reason = messageOf(error);
  if (isErrno(error, 'EADDRINUSE')) reason = 'address already in use';
  if (isErrno(error, 'EADDRNOTAVAIL')) reason = 'cannot assign requested address';
  if (isErrno(error, 'EACCES')) reason = 'permission denied';
  const place = `${port.protocol}${family} ${bracketed(port.hostIp)}:${port.hostPort}`;
  return internal(`Error starting userland proxy: listen ${place}: bind: ${reason}`, { cause: error });
}

/** Where dockerd, too, takes ports from that nobody asked for by number. */
function ephemeralRange(): PortRange {
  try {
    const [first = 0, last = 0] = fs
      .readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8')
      .trim()
      .split(/\s+/)
      .map(Number);
    if (first > 0 && last > first) return { first, last };
  } catch {
    // No such file where IPv4 is not to be changed: dockerd's own range then.
  }
  return { first: 49153, last: 65535 };
}
