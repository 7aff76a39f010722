/** The store as `types.ts` promises it: records in memory, one writer thread behind (see `worker.ts`). */
import fs from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import type { EngineEvent, NewEvent } from '../event/types.ts';
import { conflict, EngineError, internal, invariant, messageOf, unavailable } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { nowNano } from '../lib/time.ts';
import { tryLock } from '../platform/flock.ts';
import { deepFreeze } from './freeze.ts';
import type { Collection, RecordBase, RecordKind, Store, Write } from './types.ts';
import type { DamagedRow, Envelope, Opened, Operation, Question, Reply, StoredEvent, StoredRow } from './worker.ts';

/** Commits waiting for the disk; beyond, callers are told instead of queued. */
const pendingMax = 10_000;
/** Commits that share one sync. */
const batchMax = 500;
/** Events kept in memory for readers that keep up; both bounds hold. */
const recentEventsMax = 2000;
const recentBytesMax = 4 * 1024 * 1024;

/** What a `Write` really is; `apply` shows it to readers. */
interface PendingWrite {
  readonly operation: Operation;
  readonly apply: () => void;
}

interface Commit {
  readonly writes: readonly PendingWrite[];
  readonly events: readonly NewEvent[];
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/**
 * Opens (or makes) the store in `dir`. Throws 'conflict' when another process has it open: the lock is on `<dir>/lock`
 * and dies with its holder. Must be closed, otherwise its thread keeps the process alive.
 */
export async function openStore(options: { readonly dir: string; readonly log: Log }): Promise<Store> {
  const { dir, log } = options;
  fs.mkdirSync(dir, { recursive: true, mode: 0o700 });
  const lock = tryLock(path.join(dir, 'lock'));
  if ('heldBy' in lock) {
    throw conflict(`the data in ${dir} is in use by another slipwayd (pid ${lock.heldBy || 'unknown'})`);
  }
  const writer = new Writer(path.join(dir, 'records.db'));
  try {
    const opened = (await writer.ask({ ask: 'open', recentEvents: recentEventsMax })) as Opened;
    syncDirectory(dir);
    return new SqliteStore(writer, opened, log, () => lock.release());
  } catch (error) {
    await writer.end();
    lock.release();
    throw error;
  }
}

/** The names of new files are durable only when their directory is. */
function syncDirectory(dir: string): void {
  const fd = fs.openSync(dir, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Questions to the writer thread and its answers, in order. */
class Writer {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve: (answer: unknown) => void; reject: (error: Error) => void }>();
  readonly #exited: Promise<void>;
  #number = 0;
  #dead: Error | null = null;

  constructor(file: string) {
    this.#worker = new Worker(new URL('./worker.ts', import.meta.url), {
      workerData: { file },
      execArgv: ['--disable-warning=ExperimentalWarning'],
    });
    this.#worker.on('message', (reply: Reply) => {
      const waiting = this.#waiting.get(reply.number);
      this.#waiting.delete(reply.number);
      if ('error' in reply) waiting?.reject(reply.error);
      else waiting?.resolve(reply.answer);
    });
    this.#worker.on('error', (error) => this.#fail(error));
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        this.#fail(new Error('the writer of the store has ended'));
        resolve();
      });
    });
  }

  ask(question: Question): Promise<unknown> {
    if (this.#dead) return Promise.reject(this.#dead);
    const number = ++this.#number;
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject });
      this.#worker.postMessage({ number, question } satisfies Envelope);
    });
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
    await this.#exited;
  }

  #fail(error: Error): void {
    this.#dead ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#dead);
    this.#waiting.clear();
  }
}

class SqliteStore implements Store {
  readonly damaged: DamagedRow[];
  readonly #writer: Writer;
  readonly #log: Log;
  readonly #release: () => void;
  /** Rows read at start whose collection has not been asked for yet. */
  readonly #unclaimed: Map<string, StoredRow[]>;
  readonly #claimed = new Set<string>();
  readonly #listeners = new Set<(events: readonly EngineEvent[]) => void>();
  readonly #recent = new RecentEvents();
  #pending: Commit[] = [];
  #busy = false;
  #scheduled = false;
  #lastSeq: number;
  #idle: (() => void) | null = null;
  #closed = false;

  constructor(writer: Writer, opened: Opened, log: Log, release: () => void) {
    this.#writer = writer;
    this.#log = log;
    this.#release = release;
    this.#unclaimed = Map.groupBy(opened.rows, (row) => row.kind);
    this.#lastSeq = opened.lastSeq;
    this.damaged = [...opened.damaged];
    for (const event of opened.events) this.#recent.add(revive(event), event.body.length);
  }

  collection<T extends RecordBase>(kind: RecordKind<T>): Collection<T> {
    invariant(!this.#claimed.has(kind.kind), `collection ${kind.kind} is opened once`);
    const rows = this.#unclaimed.get(kind.kind) ?? [];
    const newer = rows.find((row) => row.schema > kind.schema);
    if (newer) {
      throw conflict(
        `records of kind ${kind.kind} were written by a newer slipwayd (schema ${newer.schema}, this one reads up to ${kind.schema})`,
      );
    }
    this.#claimed.add(kind.kind);
    this.#unclaimed.delete(kind.kind);
    const records = new Map<string, T>();
    const unreadable: PendingWrite[] = [];
    for (const row of rows) {
      try {
        records.set(row.id, deepFreeze(read(kind, row)));
      } catch (error) {
        const damage = { kind: row.kind, id: row.id, reason: messageOf(error) };
        this.damaged.push(damage);
        this.#log.error(damage, 'a record could not be read and was set aside');
        unreadable.push({ operation: { do: 'set-aside', ...damage }, apply: () => undefined });
      }
    }
    if (unreadable.length > 0) {
      this.#enqueue(unreadable, []).catch((error: unknown) => {
        this.#log.error({ error }, 'unreadable records could not be set aside; they stay where they are');
      });
    }
    return new MemoryCollection(kind, records);
  }

  commit(writes: readonly Write[], events: readonly NewEvent[] = []): Promise<void> {
    return this.#enqueue(writes as unknown as readonly PendingWrite[], events);
  }

  async readEvents(afterSeq: number, limit: number, sinceNano = 0n): Promise<readonly EngineEvent[]> {
    const recent = this.#recent.after(afterSeq, limit);
    if (recent) return recent;
    const rows = (await this.#writer.ask({ ask: 'events', afterSeq, sinceNano, limit })) as StoredEvent[];
    return rows.map(revive);
  }

  get lastSeq(): number {
    return this.#lastSeq;
  }

  onEvents(listener: (events: readonly EngineEvent[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Waits for the commits already asked for. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#busy || this.#pending.length > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    try {
      await this.#writer.ask({ ask: 'close' });
    } finally {
      await this.#writer.end();
      this.#release();
    }
  }

  #enqueue(writes: readonly PendingWrite[], events: readonly NewEvent[]): Promise<void> {
    if (this.#closed) return Promise.reject(unavailable('the store is closed'));
    if (this.#pending.length >= pendingMax)
      return Promise.reject(unavailable('the disk is too slow: too many commits'));
    return new Promise((resolve, reject) => {
      this.#pending.push({ writes, events, resolve, reject });
      this.#schedule();
    });
  }

  /** A microtask later, so that commits asked for in one go share the first sync too. */
  #schedule(): void {
    if (this.#busy || this.#scheduled || this.#pending.length === 0) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      void this.#writeBatch();
    });
  }

  async #writeBatch(): Promise<void> {
    this.#busy = true;
    const batch = this.#pending.splice(0, batchMax);
    const operations = batch.flatMap((commit) => commit.writes.map((write) => write.operation));
    const events: EngineEvent[] = [];
    const stored: StoredEvent[] = [];
    for (const event of batch.flatMap((commit) => commit.events)) {
      const { timeNano = nowNano(), ...rest } = event;
      const seq = this.#lastSeq + events.length + 1;
      events.push(deepFreezeEvent({ ...rest, seq, timeNano }));
      stored.push({ seq, timeNano, body: JSON.stringify(rest) });
    }
    try {
      await this.#writer.ask({ ask: 'write', operations, events: stored });
    } catch (error) {
      const refused = new EngineError('internal', `the change could not be written: ${messageOf(error)}`, {
        cause: error,
      });
      this.#log.error({ error }, 'a commit failed');
      for (const commit of batch) commit.reject(refused);
      this.#finish();
      return;
    }
    this.#lastSeq += events.length;
    for (const [index, event] of events.entries()) this.#recent.add(event, stored[index]?.body.length ?? 0);
    for (const commit of batch) {
      for (const write of commit.writes) write.apply();
      commit.resolve();
    }
    this.#finish();
    if (events.length > 0) this.#tell(events);
  }

  #finish(): void {
    this.#busy = false;
    this.#schedule();
    if (this.#pending.length === 0) this.#idle?.();
  }

  #tell(events: readonly EngineEvent[]): void {
    for (const listener of this.#listeners) {
      try {
        listener(events);
      } catch (error) {
        this.#log.error({ error }, 'a listener of events failed');
      }
    }
  }
}

class MemoryCollection<T extends RecordBase> implements Collection<T> {
  readonly #kind: RecordKind<T>;
  readonly #records: Map<string, T>;

  constructor(kind: RecordKind<T>, records: Map<string, T>) {
    this.#kind = kind;
    this.#records = records;
  }

  get size(): number {
    return this.#records.size;
  }

  get(id: string): T | undefined {
    return this.#records.get(id);
  }

  values(): IterableIterator<T> {
    return this.#records.values();
  }

  put(record: T): Write {
    deepFreeze(record);
    const { kind, schema } = this.#kind;
    return pending({
      operation: { do: 'put', kind, id: record.id, schema, body: JSON.stringify(record) },
      apply: () => this.#records.set(record.id, record),
    });
  }

  remove(id: string): Write {
    return pending({
      operation: { do: 'remove', kind: this.#kind.kind, id },
      apply: () => this.#records.delete(id),
    });
  }
}

const pending = (write: PendingWrite): Write => write as unknown as Write;

function read<T extends RecordBase>(kind: RecordKind<T>, row: StoredRow): T {
  const body: unknown = JSON.parse(row.body);
  let record = body as T;
  if (row.schema < kind.schema) {
    if (!kind.upgrade) throw internal(`schema ${row.schema} is no longer read`);
    record = kind.upgrade(body, row.schema);
  }
  if (record?.id !== row.id) throw internal('its body has another id');
  return record;
}

function revive({ seq, timeNano, body }: StoredEvent): EngineEvent {
  return deepFreezeEvent({ ...(JSON.parse(body) as NewEvent), seq, timeNano });
}

function deepFreezeEvent(event: EngineEvent): EngineEvent {
  deepFreeze(event.attributes);
  return Object.freeze(event);
}

/** The newest events without gaps. */
class RecentEvents {
  #events: { readonly event: EngineEvent; readonly bytes: number }[] = [];
  #bytes = 0;

  add(event: EngineEvent, bytes: number): void {
    // A row lost to damage leaves a gap; what lies before it is read from disk.
    const last = this.#events.at(-1);
    if (last && event.seq !== last.event.seq + 1) {
      this.#events = [];
      this.#bytes = 0;
    }
    this.#events.push({ event, bytes });
    this.#bytes += bytes;
    // Dropped in halves: shifting one by one would move the whole array for each event.
    if (this.#events.length <= recentEventsMax && this.#bytes <= recentBytesMax) return;
    const dropped = this.#events.splice(0, Math.ceil(this.#events.length / 2));
    for (const { bytes: gone } of dropped) this.#bytes -= gone;
  }

  /** Undefined when events after `seq` are no longer all here. */
  after(seq: number, limit: number): readonly EngineEvent[] | undefined {
    const first = this.#events[0]?.event.seq;
    if (first === undefined || seq < first - 1) return undefined;
    const start = seq - first + 1;
    return this.#events.slice(start, start + limit).map(({ event }) => event);
  }
}
