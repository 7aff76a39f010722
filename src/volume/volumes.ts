/**
 * Volumes: local ones, directories `<data-root>/volume/<name>/_data` that outlive containers, with the file systems mounted on
 * those that have driver options; and those of plugins (`foreign.ts`). Who uses a volume is derived from the containers' mounts, never counted. See docs/volumes.md.
 *
 * What concerns one volume runs in its lane, so a server that does not answer delays only who wants that volume.
 */
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NewEvent } from '../event/types.ts';
import { conflict, messageOf } from '../lib/errors.ts';
import { newId } from '../lib/ids.ts';
import { Lanes } from '../lib/lanes.ts';
import type { Log } from '../lib/log.ts';
import type { Plugins } from '../plugin/types.ts';
import type { Collection, Store, Write } from '../store/types.ts';
import { copyUp } from './copy-up.ts';
import { ForeignVolumes, isSilent, noSuchVolume } from './foreign.ts';
import { hasOptions, listed, prunable, type Users, view } from './list.ts';
import { bytesBelow, LocalFiles } from './local-files.ts';
import { mountLocal, type Patience, patienceDefault, unmountLocal } from './local-mount.ts';
import { checkDriverOptions, checkName } from './rules.ts';
import type { Claim, VolumeRecord, VolumeRequest, VolumesApi } from './types.ts';

export interface VolumesOptions {
  /** `<data-root>/volume` */
  readonly dir: string;
  readonly store: Store;
  readonly plugins: Plugins;
  readonly log: Log;
  readonly now: () => string;
  /** Containers by the volumes they have. */
  readonly users: () => Users;
  /** Resolves when records and disk agree. */
  readonly ready: () => Promise<void>;
  readonly patience?: Patience;
}

/** So long the end of a container waits for a driver to unmount; it goes on behind. */
const releaseMs = 10_000;

export class Volumes implements VolumesApi {
  readonly #options: VolumesOptions;
  readonly #files: LocalFiles;
  readonly #patience: Patience;
  readonly #records: Collection<VolumeRecord>;
  readonly #lanes: Lanes;
  readonly #foreign: ForeignVolumes;
  /** Volumes of containers that are being made. */
  readonly #claims = new Map<string, number>();
  /** Volumes whose removal is being committed. */
  readonly #going = new Set<string>();
  /** Volume with options → running containers that have it. */
  readonly #holders = new Map<string, Set<string>>();

  constructor(options: VolumesOptions) {
    this.#options = options;
    this.#patience = options.patience ?? patienceDefault;
    this.#files = new LocalFiles(options.dir, this.#patience, options.log);
    this.#records = options.store.collection<VolumeRecord>({ kind: 'volume', schema: 1 });
    this.#lanes = new Lanes(options.log);
    this.#foreign = new ForeignVolumes(options.plugins, options.store, options.log, (name, work) =>
      this.#lanes.enter(name, work),
    );
  }

  pathOf(name: string): string {
    return this.#files.pathOf(name);
  }

  // The API ---------------------------------------------------------------------------------------------------------

  async list(filters: ReadonlyMap<string, readonly string[]>) {
    const all = new Map([...this.#records.values()].map((record) => [record.id, record]));
    // Filters are checked before anybody is asked.
    const local = listed([...all.values()].filter(isLocal), this.#options.users(), filters);
    const { known, warnings } = await this.#foreign.list(all);
    const records = listed([...local, ...known.keys()], this.#options.users(), filters);
    return {
      Volumes: records.map((record) => view(record, known.get(record) ?? this.#place(record))),
      Warnings: warnings.length > 0 ? warnings : null,
    };
  }

  /** Local volumes with the bytes in them and how many containers have them. */
  async usage(): Promise<readonly Readonly<Record<string, unknown>>[]> {
    const records = [...this.#records.values()].filter(isLocal).sort((a, b) => (a.id < b.id ? -1 : 1));
    const rows: Readonly<Record<string, unknown>>[] = [];
    // One after the other: a walk is the disk's work, not ours.
    for (const record of records) {
      const Size = await bytesBelow(this.pathOf(record.id));
      const RefCount = this.#options.users().get(record.id)?.length ?? 0;
      rows.push({ ...view(record, this.#place(record)), UsageData: { Size, RefCount } });
    }
    return rows;
  }

  async inspect(name: string) {
    const record = this.#records.get(name) ?? (await this.#foreign.find(name));
    if (record === undefined) throw noSuchVolume(name);
    const known = isLocal(record) ? this.#place(record) : await this.#foreign.look(record);
    if (known === null) throw noSuchVolume(name);
    return view(record, known);
  }

  async create(request: VolumeRequest) {
    await this.#options.ready();
    using claim = await this.obtain(request);
    if (claim.writes.length > 0) await this.#options.store.commit(claim.writes, claim.events);
    if (claim.driver === 'local') return this.inspect(claim.name);
    const scope = await this.#foreign.drivers.scope(claim.driver);
    return view(this.#existing(claim.name), { mountpoint: '', scope });
  }

  async remove(name: string, force: boolean): Promise<void> {
    await this.#options.ready();
    await this.#lanes.enter(name, async () => {
      const record = this.#records.get(name) ?? (await this.#foreign.find(name));
      if (record === undefined && force) return;
      if (record === undefined) throw noSuchVolume(name);
      if (!isLocal(record) && (await this.#isGone(record, force))) {
        if (!force) throw noSuchVolume(name);
        await this.#options.store.commit([this.#records.remove(name)]);
        return;
      }
      const users = this.#options.users().get(name) ?? [];
      if (users.length > 0 || this.#claims.has(name)) {
        throw conflict(`remove ${name}: volume is in use - [${users.join(', ')}]`);
      }
      await this.#remove(record);
    });
  }

  /** The driver has it no more. One that does not answer has nothing for those who insist. */
  async #isGone(record: VolumeRecord, force: boolean): Promise<boolean> {
    try {
      return (await this.#foreign.look(record)) === null;
    } catch (error) {
      if (force && isSilent(error)) return true;
      throw error;
    }
  }

  async prune(filters: ReadonlyMap<string, readonly string[]>) {
    await this.#options.ready();
    const removed: string[] = [];
    let reclaimed = 0;
    for (const { id } of prunable(this.#records.values(), this.#options.users(), filters)) {
      await this.#lanes.enter(id, async () => {
        const free = () => this.#isFree(id) && this.#records.get(id) !== undefined;
        if (!free()) return;
        const size = await bytesBelow(this.pathOf(id));
        const record = this.#records.get(id);
        if (!free() || record === undefined) return;
        await this.#remove(record);
        removed.push(id);
        reclaimed += size;
      });
    }
    await this.#options.store.commit(
      [],
      [{ type: 'volume', action: 'prune', id: '', attributes: { reclaimed: String(reclaimed) } }],
    );
    return { VolumesDeleted: removed, SpaceReclaimed: reclaimed };
  }

  // Containers that are made and removed ------------------------------------------------------------------------------

  /**
   * Finds the volume or makes it. A named one is durable when this resolves, an anonymous one with the commit of `writes`;
   * neither can be removed until the claim is given back.
   */
  async obtain(request: VolumeRequest): Promise<Claim> {
    const name = request.name || newId<string>();
    return this.#lanes.enter(name, async () => {
      const known = this.#records.get(name);
      if (known !== undefined) {
        const users = this.#options.users().get(name) ?? [];
        if (await this.#foreign.isThere(known, request.driver ?? '', users)) return this.claim(name);
        await this.#options.store.commit([this.#records.remove(name)]);
      }
      const driver =
        request.driver || (request.name ? await this.#foreign.drivers.ownerOf(name) : undefined) || 'local';
      const now = this.#options.now();
      const record: VolumeRecord =
        driver === 'local'
          ? await this.#makeLocal(name, request, now)
          : await this.#foreign.obtain(driver, name, request, now);
      const made = { writes: [this.#records.put(record)], events: [volumeEvent(name, 'create', driver)] };
      if (!request.name) return { ...this.#claimOf(record), ...made };
      await this.#options.store.commit(made.writes, made.events);
      return this.#claimOf(record);
    });
  }

  async #makeLocal(name: string, { labels = null, options = null }: VolumeRequest, created: string) {
    checkName(name);
    checkDriverOptions(name, options);
    await this.#files.make(name);
    return { id: name, created, driver: 'local', labels, options };
  }

  /** Holds on to a volume that exists; throws when it does not, or is just being removed. */
  claim(name: string): Claim {
    if (this.#going.has(name)) throw noSuchVolume(name);
    return this.#claimOf(this.#existing(name));
  }

  /**
   * The writes and events that forget those of the given volumes that nobody else has; their files go with `discard` once
   * that is committed. `keep` takes it back when it could not be committed.
   */
  forget(names: readonly string[], isLastUser: (name: string) => boolean) {
    const records = names.flatMap((name) => {
      const record = this.#records.get(name);
      const isFree = record !== undefined && !this.#going.has(name) && !this.#claims.has(name) && isLastUser(name);
      return isFree ? [record] : [];
    });
    const free = records.map(({ id }) => id);
    for (const record of records) {
      this.#going.add(record.id);
      this.#foreign.loosen(record);
    }
    return {
      names: free,
      writes: free.map((name): Write => this.#records.remove(name)),
      events: records.map(({ id, driver }) => volumeEvent(id, 'destroy', driver)),
      keep: () => {
        for (const name of free) {
          this.#going.delete(name);
          this.#foreign.keep(name);
        }
      },
    };
  }

  /** Deletes the files of volumes that no record names any more. Repeating it is not an error. */
  async discard(names: readonly string[]): Promise<void> {
    for (const name of names) {
      await this.#lanes.enter(name, async () => {
        this.#going.delete(name);
        if (this.#records.get(name) !== undefined) this.#foreign.keep(name);
        else if (!(await this.#foreign.discard(name))) await this.#files.remove(name);
      });
    }
  }

  /** Fills an empty volume with what is in the directory `from`. Throws when the volume's file system cannot be mounted. */
  async fill(claim: Claim, from: { readonly fd: number }): Promise<void> {
    const { name, driver, path: volume } = claim;
    await this.#lanes.enter(name, async () => {
      if (driver !== 'local') {
        const holder = newId<string>();
        const at = await this.#foreign.mounts.mount(driver, name, holder);
        try {
          await copyUp(from, at, { aside: null, whole: false, remote: true });
        } finally {
          await this.#foreign.mounts.unmount(name, holder);
        }
        return;
      }
      const options = this.#records.get(name)?.options ?? {};
      if (Object.keys(options).length === 0) {
        const alone = this.#claims.get(name) === 1 && !this.#options.users().has(name);
        await copyUp(from, volume, { aside: `${path.dirname(volume)}/_new`, whole: alone, remote: false });
        return;
      }
      await mountLocal(options, volume, this.#patience);
      try {
        await copyUp(from, volume, { aside: null, whole: false, remote: true });
      } finally {
        if (!this.#holders.has(name)) await unmountLocal(volume, this.#patience);
      }
    });
  }

  // Containers that run -----------------------------------------------------------------------------------------------

  /**
   * Mounts the volume's file system, if it has one, for a container about to run, or has its driver mount it; resolves with
   * its path on the host. Doing it twice is not an error.
   */
  async acquire(name: string, holder: string): Promise<string> {
    const record = this.#existing(name);
    const volume = this.pathOf(name);
    if (!isLocal(record)) {
      const mount = () => this.#foreign.mounts.mount(record.driver, name, holder);
      return this.#lanes.enter(name, mount).catch((error: unknown) => {
        if (error instanceof Error) error.message = `error while mounting volume '${name}': ${error.message}`;
        throw error;
      });
    }
    if (!hasOptions(record)) return volume;
    await this.#lanes.enter(name, async () => {
      await mountLocal(record.options ?? {}, volume, this.#patience).catch((error: unknown) => {
        if (error instanceof Error) error.message = `error while mounting volume '${volume}': ${error.message}`;
        throw error;
      });
      const holders = this.#holders.get(name) ?? new Set();
      this.#holders.set(name, holders.add(holder));
    });
    return volume;
  }

  /** The container has ended: unmounts after the last one. */
  async release(name: string, holder: string): Promise<void> {
    if (this.#foreign.mounts.has(name, holder)) {
      const work = this.#lanes.enter(name, () => this.#foreign.mounts.unmount(name, holder));
      work.catch((error: unknown) => this.#options.log.error({ volume: name, error }, messageOf(error)));
      await Promise.race([work, sleep(releaseMs, undefined, { ref: false })]);
      return;
    }
    if (this.#holders.get(name)?.has(holder) !== true) return;
    await this.#lanes.enter(name, async () => {
      const holders = this.#holders.get(name);
      holders?.delete(holder);
      if (holders === undefined || holders.size > 0) return;
      this.#holders.delete(name);
      await unmountLocal(this.pathOf(name), this.#patience);
    });
  }

  /**
   * At start: sweeps directories that a crash left between making and committing them, and takes over the file systems of
   * volumes that `running` containers have. Others are unmounted behind.
   */
  async reconcile(running: Iterable<{ readonly volume: string; readonly holder: string }>): Promise<void> {
    const { log } = this.#options;
    const held = new Set<string>();
    for (const { volume, holder } of running) {
      held.add(`${holder} ${volume}`);
      const record = this.#records.get(volume);
      if (record === undefined || !hasFileSystem(record)) continue;
      this.#holders.set(volume, (this.#holders.get(volume) ?? new Set()).add(holder));
    }
    const unclaimed = (await this.#files.names()).filter((name) => this.#records.get(name) === undefined);
    const unheld = [...this.#records.values()].filter((r) => hasFileSystem(r) && !this.#holders.has(r.id));
    for (const name of unclaimed) {
      await this.#files.remove(name).catch((error: unknown) => log.error({ volume: name, error }, 'sweeping failed'));
    }
    for (const { id } of unheld) {
      void this.#lanes
        .enter(id, async () => {
          if (!this.#holders.has(id)) await unmountLocal(this.pathOf(id), this.#patience);
        })
        .catch((error: unknown) => log.error({ volume: id, error }, 'a volume nobody uses stays mounted'));
    }
    for (const { volume, holder } of this.#foreign.mounts.left((each) => held.has(`${each.holder} ${each.volume}`))) {
      void this.#lanes
        .enter(volume, () => this.#foreign.mounts.unmount(volume, holder))
        .catch((error: unknown) => log.error({ volume, error }, 'a volume nobody uses stays mounted'));
    }
  }

  // -------------------------------------------------------------------------------------------------------------------

  #existing(name: string): VolumeRecord {
    const record = this.#records.get(name);
    if (record === undefined) throw noSuchVolume(name);
    return record;
  }

  #place = (record: VolumeRecord) => ({ mountpoint: isLocal(record) ? this.pathOf(record.id) : '' });

  #isFree(name: string): boolean {
    return !this.#claims.has(name) && !this.#going.has(name) && !this.#options.users().has(name);
  }

  #claimOf(record: VolumeRecord): Claim {
    const { id: name, driver } = record;
    this.#claims.set(name, (this.#claims.get(name) ?? 0) + 1);
    let held = true;
    return {
      name,
      driver,
      path: this.#place(record).mountpoint,
      writes: [],
      events: [],
      [Symbol.dispose]: () => {
        const count = this.#claims.get(name) ?? 0;
        if (held && count > 1) this.#claims.set(name, count - 1);
        else if (held) this.#claims.delete(name);
        held = false;
      },
    };
  }

  /** In the lane, of a volume nobody has. */
  async #remove(record: VolumeRecord): Promise<void> {
    const { id: name, driver } = record;
    this.#going.add(name);
    try {
      // A crash in between leaves a record of what is gone, which is none to clients.
      if (!isLocal(record)) await this.#foreign.remove(record);
      await this.#options.store.commit([this.#records.remove(name)], [volumeEvent(name, 'destroy', driver)]);
    } finally {
      this.#going.delete(name);
    }
    if (isLocal(record)) await this.#files.remove(name);
  }
}

/** An event of a volume, with the attributes all of them carry. */
export const volumeEvent = (
  name: string,
  action: 'create' | 'mount' | 'unmount' | 'destroy',
  driver: string,
  attributes: Readonly<Record<string, string>> = {},
): NewEvent => ({ type: 'volume', action, id: name, attributes: { ...attributes, driver } });

const isLocal = ({ driver }: VolumeRecord): boolean => driver === 'local';
const hasFileSystem = (record: VolumeRecord): boolean => isLocal(record) && hasOptions(record);
