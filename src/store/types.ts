/**
 * Durable records (DESIGN: State). Records are frozen objects held in memory; a commit makes any number of writes and
 * events durable together (SQLite, WAL, synchronous=FULL, in a worker thread) and only then shows them to readers.
 */
import type { EngineEvent, NewEvent } from '../event/types.ts';

export interface RecordBase {
  readonly id: string;
}

/**
 * How records of one kind are read back. `upgrade` gets a parsed body of an older `schema` number; without it such
 * records count as damaged.
 */
export interface RecordKind<T extends RecordBase> {
  readonly kind: string;
  readonly schema: number;
  upgrade?(body: unknown, schema: number): T;
}

declare const write: unique symbol;
/** One pending change of one record; made by a `Collection`, given to `Store.commit`. */
export interface Write {
  readonly [write]: true;
}

/** All committed records of one kind. Reading is synchronous and takes no lock. */
export interface Collection<T extends RecordBase> {
  get(id: string): T | undefined;
  values(): IterableIterator<T>;
  readonly size: number;
  put(record: T): Write;
  remove(id: string): Write;
}

export interface Store {
  /** Asked for once per kind. Throws when its records were written by a newer version of the engine. */
  collection<T extends RecordBase>(kind: RecordKind<T>): Collection<T>;
  /**
   * Resolves when all of it is on disk and visible to readers; commits become visible in the order of the calls.
   * Commits asked for at the same time share one sync. Rejects (and shows nothing) when the disk refuses.
   */
  commit(writes: readonly Write[], events?: readonly NewEvent[]): Promise<void>;
  /** Records that could not be read at start: set aside, reported, never deleted. */
  readonly damaged: readonly { readonly kind: string; readonly id: string; readonly reason: string }[];
  /** Position of the newest committed event; 0 before the first. */
  readonly lastSeq: number;
  /**
   * Committed events after `afterSeq` in order, at most `limit`. With `sinceNano` it may skip those before the first
   * that is not older; later ones can still be older, since an event may carry a time of its own.
   */
  readEvents(afterSeq: number, limit: number, sinceNano?: bigint): Promise<readonly EngineEvent[]>;
  /** Calls back after each commit that carried events. Returns the function that ends it. */
  onEvents(listener: (events: readonly EngineEvent[]) => void): () => void;
  close(): Promise<void>;
}
