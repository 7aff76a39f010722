/** What all operations on containers share: the records, who waits for what, and one lane per container. */
import os from 'node:os';
import path from 'node:path';
import type { NewEvent } from '../event/types.ts';
import type { ImageMaker } from '../image/types.ts';
import type { LayerStore } from '../layer/types.ts';
import { conflict, messageOf, unavailable } from '../lib/errors.ts';
import type { ContainerId } from '../lib/ids.ts';
import { Lanes } from '../lib/lanes.ts';
import type { Log } from '../lib/log.ts';
import { forwards, logPlan } from '../log/options.ts';
import type { ContainerLog, LogSubject, Logs } from '../log/types.ts';
import type { Joined, Networks, Sandbox } from '../network/types.ts';
import type { Runtime } from '../runtime/types.ts';
import type { Collection, Store, Write } from '../store/types.ts';
import type { Volumes } from '../volume/volumes.ts';
import type { HostDefaults } from './decode.ts';
import { ContainerIndex } from './find.ts';
import { Graves } from './graves.ts';
import { LiveContainer } from './live.ts';
import type { ContainerRecord } from './types.ts';

/** What containers are made of; each part is handed in by the daemon. */
export interface ContainerParts {
  readonly store: Store;
  readonly layers: LayerStore;
  readonly images: ImageMaker;
  readonly networks: Networks;
  readonly runtime: Runtime;
  readonly logs: Logs;
  readonly volumes: Volumes;
  readonly log: Log;
  /** `<data-root>/container` */
  readonly dir: string;
  /** The daemon's configuration as far as it reaches into containers; changes with a reload. */
  readonly defaults: () => ContainerDefaults;
}

export interface ContainerDefaults extends HostDefaults {
  readonly dns: readonly string[];
  readonly dnsOptions: readonly string[];
  readonly dnsSearch: readonly string[];
  readonly ulimits: Readonly<Record<string, { readonly Name: string; readonly Soft: number; readonly Hard: number }>>;
}

export class ContainerSet {
  readonly parts: ContainerParts;
  readonly records: Collection<ContainerRecord>;
  readonly index: ContainerIndex;
  readonly graves: Graves;
  readonly #lanes: Lanes;
  readonly #live = new Map<ContainerId, LiveContainer>();
  readonly #logs = new Map<ContainerId, ContainerLog>();
  /** Resolves when records and kernel agree; commands wait for it, reads do not. */
  readonly #reconciled = Promise.withResolvers<void>();
  /** Why the gate for commands stays closed. */
  #unable: unknown = null;

  constructor(parts: ContainerParts) {
    this.parts = parts;
    this.records = parts.store.collection<ContainerRecord>({ kind: 'container', schema: 2, upgrade });
    this.graves = new Graves(parts.store);
    this.index = new ContainerIndex(this.records);
    this.#lanes = new Lanes(parts.log);
  }

  /** Opens the gate for commands. */
  becomeReady(): void {
    this.#reconciled.resolve();
  }

  /** Records and kernel cannot be brought together: commands, also those that wait already, fail with the reason. */
  giveUp(reason: unknown): void {
    this.#unable = reason;
    this.#reconciled.resolve();
  }

  get ready(): Promise<void> {
    return this.#reconciled.promise.then(() => {
      if (this.#unable !== null) throw unavailable(`the engine cannot work: ${messageOf(this.#unable)}`);
    });
  }

  /** Work on one container, one at a time, in order of arrival. */
  inLane<T>(id: ContainerId, work: () => Promise<T>): Promise<T> {
    return this.#lanes.enter(id, work);
  }

  /** The record as it is now; inside a lane, after earlier work may have removed it. Throws `No such container`. */
  current(id: ContainerId): ContainerRecord {
    return this.index.resolve(id);
  }

  live(id: ContainerId): LiveContainer {
    let live = this.#live.get(id);
    if (live === undefined) {
      live = new LiveContainer();
      this.#live.set(id, live);
    }
    return live;
  }

  dirOf(id: ContainerId): string {
    return path.join(this.parts.dir, id);
  }

  logPath(id: ContainerId): string {
    return path.join(this.dirOf(id), `${id}.log`);
  }

  logOf(record: ContainerRecord): ContainerLog {
    let log = this.#logs.get(record.id);
    if (log === undefined) {
      log = this.parts.logs.open(record.id, this.logPath(record.id), {
        plan: logPlan(record.hostConfig.LogConfig),
        subject: () => logSubject(this.records.get(record.id) ?? record),
        reopen: () => this.parts.runtime.reopenLog(record.id),
      });
      this.#logs.set(record.id, log);
    }
    return log;
  }

  /** Sends on what is left of the log of a container that does not run. */
  drainLog(record: ContainerRecord): void {
    if (!forwards(record.logDriver)) return;
    this.logOf(record);
    this.parts.logs.drain(record.id);
  }

  /** Makes the record and its events durable and visible together. */
  async commit(
    record: ContainerRecord,
    events: readonly NewEvent[] = [],
    more: readonly Write[] = [],
  ): Promise<ContainerRecord> {
    await this.parts.store.commit([this.records.put(record), ...more], events);
    return record;
  }

  /** Publishes an event of what lives in memory only (a stream, an exec): it promises nothing that could be lost, so no answer waits for the disk. */
  announce(event: NewEvent): void {
    this.parts.store.commit([], [event]).catch((error: unknown) => {
      this.parts.log.error({ error }, `an event could not be kept: ${event.action}`);
    });
  }

  /** Forgets what memory holds of a container that has been removed. */
  forget(record: ContainerRecord): void {
    const live = this.#live.get(record.id);
    live?.cancelRestart();
    live?.unwatchLog?.();
    this.#live.delete(record.id);
    this.#logs.delete(record.id);
    this.index.release(record.name, record.id);
  }

  /** Takes a name or throws dockerd's refusal (the full id of the holder is read by some clients). */
  reserveName(name: string, id: ContainerId): void {
    const holder = this.index.holderOf(name);
    if (holder !== undefined) {
      throw conflict(
        `Conflict. The container name "/${name}" is already in use by container "${holder}". You have to remove (or rename) that container to be able to reuse that name.`,
      );
    }
    this.index.reserve(name, id);
  }

  /** Containers by the volumes they have. */
  volumeUsers(): ReadonlyMap<string, readonly ContainerId[]> {
    const users = new Map<string, ContainerId[]>();
    for (const { id, mounts } of this.records.values()) {
      for (const name of new Set(mounts.flatMap((mount) => mount.name ?? []))) {
        const known = users.get(name);
        if (known) known.push(id);
        else users.set(name, [id]);
      }
    }
    return users;
  }

  /** Containers that use a volume. */
  usersOfVolume(name: string): readonly ContainerId[] {
    return [...this.records.values()].filter((r) => r.mounts.some((m) => m.name === name)).map((r) => r.id);
  }
}

/** What log drivers tell about a container. */
export function logSubject(record: ContainerRecord): LogSubject {
  const { id, name, created, imageId, config } = record;
  return {
    id,
    name,
    created,
    imageId,
    imageName: config.Image,
    command: [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])].join(' '),
    env: config.Env ?? [],
    labels: config.Labels ?? {},
    hostname: os.hostname(),
  };
}

/** Schema 1 had one place for all networks, in the sandbox. */
function upgrade(body: unknown): ContainerRecord {
  const old = body as ContainerRecord & { readonly sandbox: (Sandbox & { readonly joined?: Joined | null }) | null };
  const { joined = null, ...sandbox } = old.sandbox ?? { namespacePath: '', published: [] };
  const endpoints = Object.entries(old.endpoints).map(([name, endpoint]) => [
    name,
    { ...endpoint, joined: joined && { ...joined, interfaceName: 'eth0' } },
  ]);
  return { ...old, endpoints: Object.fromEntries(endpoints), sandbox: old.sandbox && sandbox };
}

/** An event of a container with the attributes all of them carry: image, name and labels. */
export function containerEvent(
  record: ContainerRecord,
  action: string,
  attributes: Readonly<Record<string, string>> = {},
): NewEvent {
  return {
    type: 'container',
    action,
    id: record.id,
    attributes: { ...record.config.Labels, image: record.config.Image, name: record.name, ...attributes },
  };
}
