/**
 * Mounts that drivers of plugins hold for containers. Each has a record from before the driver is asked until after it has
 * given it back, so that a daemon that is killed in between knows what to unmount.
 */
import { createHash } from 'node:crypto';
import { messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { PluginRefusal } from '../plugin/errors.ts';
import type { Collection, Store } from '../store/types.ts';
import type { Drivers } from './drivers.ts';

export interface MountRecord {
  /** Of the mount, as the driver knows it: 64 hex digits, the same for the same volume and holder. */
  readonly id: string;
  readonly volume: string;
  readonly driver: string;
  /** Id of a container, with more behind it for a mount outside its run. */
  readonly holder: string;
}

/** After so long drivers that were silent are asked again to unmount; twice as long each time, up to the second. */
const againMs = 10_000;
const againMsMax = 600_000;

/** Runs work in the lane of a volume. */
type InLane = (volume: string, work: () => Promise<void>) => Promise<void>;

export class DriverMounts {
  readonly #drivers: Drivers;
  readonly #store: Store;
  readonly #log: Log;
  readonly #records: Collection<MountRecord>;
  /** Mount → path on the host, of those made since the daemon began. */
  readonly #paths = new Map<string, string>();

  readonly #inLane: InLane;
  /** Mounts that could not be given back. */
  readonly #left = new Set<string>();
  #again: NodeJS.Timeout | null = null;
  #againMs = againMs;

  constructor(drivers: Drivers, store: Store, log: Log, inLane: InLane) {
    this.#drivers = drivers;
    this.#store = store;
    this.#log = log;
    this.#inLane = inLane;
    this.#records = store.collection<MountRecord>({ kind: 'volume-mount', schema: 1 });
  }

  /** Path on the host. In the volume's lane. Doing it twice for the same holder is not an error. */
  async mount(driver: string, volume: string, holder: string): Promise<string> {
    const id = idOf(volume, holder);
    const record = { id, volume, driver, holder };
    const known = this.#paths.get(id);
    if (known !== undefined) return known;
    // One that could not be given back earlier.
    if (this.#records.get(id) !== undefined) await this.#giveBack(record, true);
    await this.#store.commit([this.#records.put(record)]);
    try {
      const path = await this.#drivers.mount(driver, volume, id);
      this.#paths.set(id, path);
      return path;
    } catch (error) {
      // Silence may mean that it was mounted.
      await this.#giveBack(record, true);
      throw error;
    }
  }

  has(volume: string, holder: string): boolean {
    return this.#records.get(idOf(volume, holder)) !== undefined;
  }

  /** In the volume's lane. What cannot be given back keeps its record, and is tried again from time to time. */
  async unmount(volume: string, holder: string): Promise<void> {
    const record = this.#records.get(idOf(volume, holder));
    if (record !== undefined) await this.#giveBack(record, false);
  }

  /** Those of holders that do not run. */
  left(isHeld: (mount: MountRecord) => boolean): readonly MountRecord[] {
    return [...this.#records.values()].filter((record) => !isHeld(record));
  }

  async #giveBack(record: MountRecord, once: boolean): Promise<void> {
    const { driver, volume, id } = record;
    this.#paths.delete(id);
    try {
      await this.#drivers.unmount(driver, volume, id, once ? { once, timeoutMs: 5000 } : { expected: true });
    } catch (error) {
      this.#log.warn({ error, volume, driver }, `unmounting a volume: ${messageOf(error)}`);
      // A driver that answers knows best; one that is silent is asked again.
      if (!(error instanceof PluginRefusal)) {
        this.#tryLater(id);
        return;
      }
    }
    this.#againMs = againMs;
    await this.#store.commit([this.#records.remove(id)]);
  }

  #tryLater(id: string): void {
    this.#left.add(id);
    this.#again ??= setTimeout(() => {
      this.#again = null;
      this.#againMs = Math.min(this.#againMs * 2, againMsMax);
      const records = [...this.#left].flatMap((each) => this.#records.get(each) ?? []);
      this.#left.clear();
      for (const record of records) {
        const work = async (): Promise<void> => {
          // Mounted anew, it is in use; given back meanwhile, it has no record.
          const isLeft = this.#records.get(record.id) !== undefined && !this.#paths.has(record.id);
          if (isLeft) await this.#giveBack(record, true);
        };
        this.#inLane(record.volume, work).catch((error: unknown) => this.#log.error({ error }, messageOf(error)));
      }
    }, this.#againMs).unref();
  }
}

const idOf = (volume: string, holder: string): string =>
  createHash('sha256').update(`${volume}\0${holder}`).digest('hex');
