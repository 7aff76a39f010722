/**
 * Volumes of plugins. The driver has the volume; our record of it has labels, options and the driver's name, and is made for
 * what is created or first used through us. Where the two disagree the driver is right.
 */
import { conflict, EngineError, messageOf, notFound } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { PluginUnreached } from '../plugin/errors.ts';
import type { Plugins } from '../plugin/types.ts';
import type { Store } from '../store/types.ts';
import { DriverMounts } from './driver-mounts.ts';
import { Drivers } from './drivers.ts';
import type { Known } from './list.ts';
import type { VolumeRecord, VolumeRequest } from './types.ts';

/** As dockerd shows a time that nobody knows. */
const unknownTime = '0001-01-01T00:00:00Z';

export class ForeignVolumes {
  readonly drivers: Drivers;
  readonly mounts: DriverMounts;
  readonly #log: Log;
  /** Volumes without a record, made for a container that is not committed or on their way out → driver. */
  readonly #loose = new Map<string, string>();

  constructor(
    plugins: Plugins,
    store: Store,
    log: Log,
    inLane: (volume: string, work: () => Promise<void>) => Promise<void>,
  ) {
    this.drivers = new Drivers(plugins);
    this.mounts = new DriverMounts(this.drivers, store, log, inLane);
    this.#log = log;
  }

  /** Finds the volume at its driver or has it made. The record is yet to be committed. In the volume's lane. */
  async obtain(driver: string, name: string, request: VolumeRequest, now: string): Promise<VolumeRecord> {
    return this.#as(`create ${name}`, async () => {
      await this.drivers.check(driver);
      const there = await this.drivers.get(driver, name);
      if (there === null) await this.drivers.create(driver, name, request.options ?? null);
      if (!request.name) this.#loose.set(name, driver);
      const { labels = null, options = null } = request;
      return { id: name, created: there?.created ?? now, driver, labels, options };
    });
  }

  /**
   * Whether a volume that has a record is still what it was when it is asked for again by `driver`. Throws the conflict with
   * another driver's, and with containers that have one that is gone.
   */
  async isThere(record: VolumeRecord, driver: string, users: readonly string[]): Promise<boolean> {
    const { id } = record;
    return this.#as(`create ${id}`, async () => {
      if (driver !== '' && driver !== 'local' && driver !== record.driver) await this.drivers.check(driver);
      const unique = 'volume name must be unique';
      const there =
        record.driver === 'local' ||
        (await this.drivers.get(record.driver, id, { expected: true }).catch((error: unknown) => {
          throw conflict(
            `found reference to volume '${id}' in driver '${record.driver}', but got an error while checking the driver: ${messageOf(error)}: ${unique}`,
          );
        })) !== null;
      if (there && driver !== '' && driver !== record.driver)
        throw conflict(`driver '${record.driver}' already has volume '${id}': ${unique}`);
      if (!there && users.length > 0)
        throw conflict(
          `found references to volume '${id}' in driver '${record.driver}' but the volume was not found in the driver -- you may need to remove containers referencing this volume or force remove the volume to re-create it: ${unique}`,
        );
      return there;
    });
  }

  /** Null when its driver has it no more. Throws when the driver does not answer. */
  async look({ id, driver }: VolumeRecord): Promise<Known | null> {
    try {
      const there = await this.drivers.get(driver, id, { once: true });
      return there === null ? null : { ...there, scope: await this.drivers.scope(driver) };
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      const what = `error while checking if volume ${JSON.stringify(id)} exists in driver ${JSON.stringify(driver)}`;
      throw new EngineError('internal', `get ${id}: ${what}: ${error.message}`, { cause: error });
    }
  }

  /** One that has no record, of whichever driver has it. */
  async find(name: string): Promise<VolumeRecord | undefined> {
    const driver = await this.drivers.ownerOf(name);
    return driver === undefined ? undefined : unrecorded(name, driver);
  }

  /** All volumes of all drivers; of those that are silent what the records say. */
  async list(records: ReadonlyMap<string, VolumeRecord>) {
    const { volumes, failed } = await this.drivers.list();
    const known = new Map<VolumeRecord, Known>();
    const named = new Set<string>();
    for (const volume of volumes) {
      const record = records.get(volume.name);
      const own = record?.driver === volume.driver ? record : unrecorded(volume.name, volume.driver);
      known.set(own, { ...volume, scope: await this.drivers.scope(volume.driver), status: undefined });
    }
    const answered = new Set((await this.drivers.names()).filter((driver) => !failed.has(driver)));
    for (const record of records.values()) {
      if (record.driver === 'local' || answered.has(record.driver)) continue;
      known.set(record, { mountpoint: '', scope: this.drivers.knownScope(record.driver) });
      if (!failed.has(record.driver)) named.add(record.driver);
    }
    const silent = [...named].map((driver) => `list ${driver}: plugin ${JSON.stringify(driver)} does not answer`);
    return { known, warnings: [...failed.values(), ...silent] };
  }

  /** Has the driver delete a volume nobody uses. */
  async remove({ id, driver }: VolumeRecord): Promise<void> {
    await this.#as(`remove ${id}`, () => this.drivers.remove(driver, id));
  }

  /** The record goes: `discard` removes the volume at its driver, `keep` takes that back. */
  loosen(record: VolumeRecord): void {
    if (record.driver !== 'local') this.#loose.set(record.id, record.driver);
  }

  keep(name: string): void {
    this.#loose.delete(name);
  }

  /** Removes at its driver what has no record any more; true when that was a driver's. */
  async discard(name: string): Promise<boolean> {
    const driver = this.#loose.get(name);
    if (driver === undefined) return false;
    this.#loose.delete(name);
    await this.drivers.remove(driver, name).catch((error: unknown) => {
      this.#log.error({ volume: name, driver, error }, 'a volume nobody uses stays with its driver');
    });
    return true;
  }

  async #as<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof Error) error.message = `${what}: ${error.message}`;
      throw error;
    }
  }
}

const unrecorded = (name: string, driver: string): VolumeRecord => ({
  id: name,
  created: unknownTime,
  driver,
  labels: null,
  options: null,
});

export const isSilent = (error: unknown): boolean =>
  error instanceof PluginUnreached || (error instanceof EngineError && error.cause instanceof PluginUnreached);

export const noSuchVolume = (name: string): EngineError => notFound(`get ${name}: no such volume`);
