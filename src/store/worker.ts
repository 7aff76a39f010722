/**
 * The one writer of the store's database; runs in a worker thread, so that a slow disk never stalls the API.
 *
 * Tables: `record` (one row per record), `event` (the journal), `damaged` (rows that could not be read, kept for a
 * human). Each row carries a CRC-32 over all of its columns; SQLite itself would hand out a flipped bit without a word.
 */
import fs from 'node:fs';
import path from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { crc32 } from 'node:zlib';
import { commitsBehindDamage } from './wal.ts';

export interface StoredRow {
  readonly kind: string;
  readonly id: string;
  readonly schema: number;
  readonly body: string;
}

export interface StoredEvent {
  readonly seq: number;
  readonly timeNano: bigint;
  /** JSON of everything but seq and time. */
  readonly body: string;
}

export interface DamagedRow {
  readonly kind: string;
  readonly id: string;
  readonly reason: string;
}

export type Operation =
  | ({ readonly do: 'put' } & StoredRow)
  | { readonly do: 'remove'; readonly kind: string; readonly id: string }
  | { readonly do: 'set-aside'; readonly kind: string; readonly id: string; readonly reason: string };

export type Question =
  | { readonly ask: 'open'; readonly recentEvents: number }
  /** One transaction, durable when answered. */
  | { readonly ask: 'write'; readonly operations: readonly Operation[]; readonly events: readonly StoredEvent[] }
  | { readonly ask: 'events'; readonly afterSeq: number; readonly sinceNano: bigint; readonly limit: number }
  | { readonly ask: 'close' };

export interface Opened {
  readonly rows: readonly StoredRow[];
  readonly damaged: readonly DamagedRow[];
  /** The newest events, oldest first. */
  readonly events: readonly StoredEvent[];
  readonly lastSeq: number;
}

export interface Envelope {
  readonly number: number;
  readonly question: Question;
}
export type Reply = { readonly number: number } & ({ readonly answer: unknown } | { readonly error: Error });

/** Events kept at least; rows beyond are deleted in batches, so that a commit rarely pays for it. */
const journalLength = 100_000;
const trimBatch = 1000;

const layoutVersion = 1;
const layout = `
  CREATE TABLE IF NOT EXISTS record (
    kind TEXT NOT NULL, id TEXT NOT NULL, schema INTEGER NOT NULL, checksum INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (kind, id));
  CREATE TABLE IF NOT EXISTS event (
    seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, checksum INTEGER NOT NULL, body TEXT NOT NULL);
  CREATE INDEX IF NOT EXISTS event_time ON event (time);
  CREATE TABLE IF NOT EXISTS damaged (
    kind, id, schema, checksum, body BLOB, reason TEXT NOT NULL, found TEXT NOT NULL);
  PRAGMA user_version = ${layoutVersion};
`;

const recordChecksum = (kind: string, id: string, schema: number, body: string) =>
  crc32(`${kind}\0${id}\0${schema}\0${body}`);
const eventChecksum = (seq: number, timeNano: bigint, body: string) => crc32(`${seq}\0${timeNano}\0${body}`);

class Database {
  readonly #sqlite: DatabaseSync;
  readonly #put: StatementSync;
  readonly #remove: StatementSync;
  readonly #setAside: StatementSync;
  readonly #insertEvent: StatementSync;
  readonly #trimEvents: StatementSync;
  readonly #selectEvents: StatementSync;
  readonly #firstSeqSince: StatementSync;
  #firstSeq: number;

  constructor(file: string) {
    // Environments of containers are in it, and passwords in those; its directory may be open to all.
    fs.closeSync(fs.openSync(file, 'a', 0o600));
    for (const each of [file, `${file}-wal`]) if (fs.existsSync(each)) fs.chmodSync(each, 0o600);
    this.#sqlite = new DatabaseSync(file);
    const sqlite = this.#sqlite;
    sqlite.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
    sqlite.exec('PRAGMA journal_size_limit = 16777216');
    const version = Number(sqlite.prepare('PRAGMA user_version').get()?.user_version ?? 0);
    if (version > layoutVersion) throw new Error(`${file} was written by a newer version (layout ${version})`);
    if (version < layoutVersion) sqlite.exec(layout);
    this.#put = sqlite.prepare(
      `INSERT INTO record (kind, id, schema, checksum, body) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (kind, id) DO UPDATE SET schema = excluded.schema, checksum = excluded.checksum, body = excluded.body`,
    );
    this.#remove = sqlite.prepare('DELETE FROM record WHERE kind = ? AND id = ?');
    this.#setAside = sqlite.prepare(
      `INSERT INTO damaged SELECT kind, id, schema, checksum, CAST(body AS BLOB), ?, ?
       FROM record WHERE kind = ? AND id = ?`,
    );
    this.#insertEvent = sqlite.prepare('INSERT INTO event (seq, time, checksum, body) VALUES (?, ?, ?, ?)');
    this.#trimEvents = sqlite.prepare('DELETE FROM event WHERE seq < ?');
    this.#selectEvents = sqlite.prepare(
      'SELECT seq, time, checksum, body FROM event WHERE seq > ? ORDER BY seq LIMIT ?',
    );
    this.#selectEvents.setReadBigInts(true);
    this.#firstSeqSince = sqlite.prepare('SELECT min(seq) AS seq FROM event WHERE time >= ?');
    this.#firstSeq = Number(sqlite.prepare('SELECT min(seq) AS seq FROM event').get()?.seq ?? 0);
  }

  load(recentEvents: number): Opened {
    const rows: StoredRow[] = [];
    const broken: { rowid: number; reason: string }[] = [];
    for (const row of this.#sqlite.prepare('SELECT rowid, kind, id, schema, checksum, body FROM record').iterate()) {
      const { rowid, kind, id, schema, checksum, body } = row;
      const intact =
        typeof kind === 'string' &&
        typeof id === 'string' &&
        typeof schema === 'number' &&
        typeof body === 'string' &&
        recordChecksum(kind, id, schema, body) === checksum;
      if (intact) rows.push({ kind, id, schema, body });
      else broken.push({ rowid: Number(rowid), reason: 'its checksum does not match' });
    }
    if (broken.length > 0) {
      this.#transaction(() => {
        const keep = this.#sqlite.prepare(
          `INSERT INTO damaged SELECT kind, id, schema, checksum, CAST(body AS BLOB), ?, ? FROM record WHERE rowid = ?`,
        );
        const remove = this.#sqlite.prepare('DELETE FROM record WHERE rowid = ?');
        for (const { rowid, reason } of broken) {
          keep.run(reason, new Date().toISOString(), rowid);
          remove.run(rowid);
        }
      });
    }
    const damaged = this.#sqlite
      .prepare('SELECT kind, id, reason FROM damaged ORDER BY rowid')
      .all()
      .map((row) => ({ kind: String(row.kind), id: String(row.id), reason: String(row.reason) }));
    const lastSeq = Number(this.#sqlite.prepare('SELECT max(seq) AS seq FROM event').get()?.seq ?? 0);
    return { rows, damaged, events: this.events(lastSeq - recentEvents, 0n, recentEvents), lastSeq };
  }

  write(operations: readonly Operation[], events: readonly StoredEvent[]): void {
    this.#transaction(() => {
      for (const operation of operations) {
        const { kind, id } = operation;
        if (operation.do === 'put') {
          const { schema, body } = operation;
          this.#put.run(kind, id, schema, recordChecksum(kind, id, schema, body), body);
          continue;
        }
        if (operation.do === 'set-aside') this.#setAside.run(operation.reason, new Date().toISOString(), kind, id);
        this.#remove.run(kind, id);
      }
      for (const { seq, timeNano, body } of events) {
        this.#insertEvent.run(seq, timeNano, eventChecksum(seq, timeNano, body), body);
      }
      const last = events.at(-1)?.seq ?? 0;
      if (last - this.#firstSeq >= journalLength + trimBatch) {
        this.#firstSeq = last - journalLength;
        this.#trimEvents.run(this.#firstSeq);
      }
    });
  }

  /**
   * Events after `afterSeq`, beginning with the first that is not older than `sinceNano`. Rows whose checksum does not
   * match stay where they are and are left out: an event cannot be mended.
   */
  events(afterSeq: number, sinceNano: bigint, limit: number): StoredEvent[] {
    const first = sinceNano > 0n ? this.#firstSeqSince.get(sinceNano)?.seq : 0;
    if (typeof first !== 'number') return [];
    const events: StoredEvent[] = [];
    for (const { seq, time, checksum, body } of this.#selectEvents.iterate(Math.max(afterSeq, first - 1), limit)) {
      if (typeof time !== 'bigint' || typeof body !== 'string') continue;
      const event = { seq: Number(seq), timeNano: time, body };
      if (eventChecksum(event.seq, time, body) === Number(checksum)) events.push(event);
    }
    return events;
  }

  /** Copies what is readable of a broken database: from the front to the first bad page, then from the back. */
  salvage(file: string, reason: string): void {
    const old = new DatabaseSync(file, { readOnly: true });
    const copy = (table: string, columns: string): void => {
      const insert = this.#sqlite.prepare(
        `INSERT OR IGNORE INTO ${table} (rowid, ${columns}) VALUES (?${', ?'.repeat(columns.split(',').length)})`,
      );
      for (const order of ['ASC', 'DESC']) {
        try {
          const select = old.prepare(`SELECT rowid AS at, ${columns} FROM ${table} NOT INDEXED ORDER BY at ${order}`);
          select.setReadBigInts(true);
          for (const row of select.iterate()) insert.run(...Object.values(row));
          return;
        } catch {
          // The page that stops us is why we are here; the other direction may reach what lies behind it.
        }
      }
    };
    this.#transaction(() => {
      copy('record', 'kind, id, schema, checksum, body');
      copy('event', 'seq, time, checksum, body');
      copy('damaged', 'kind, id, schema, checksum, body, reason, found');
      this.report(path.dirname(file), reason);
    });
    try {
      old.close();
    } catch {
      // It stays where it is.
    }
  }

  /** Notes damage that is not a record's; the files are in `place`. */
  report(place: string, reason: string): void {
    this.#sqlite
      .prepare('INSERT INTO damaged VALUES (?, ?, 0, 0, NULL, ?, ?)')
      .run('database', place, reason, new Date().toISOString());
  }

  close(): void {
    this.#sqlite.close();
  }

  #transaction(work: () => void): void {
    this.#sqlite.exec('BEGIN IMMEDIATE');
    try {
      work();
      this.#sqlite.exec('COMMIT');
    } catch (error) {
      if (this.#sqlite.isTransaction) this.#sqlite.exec('ROLLBACK');
      throw error;
    }
  }
}

const corrupt = 11; // SQLITE_CORRUPT
const notADatabase = 26; // SQLITE_NOTADB
/** The structure of the file is broken, not just a row. */
const isCorrupt = (error: unknown): boolean =>
  error instanceof Error && 'errcode' in error && [corrupt, notADatabase].includes(Number(error.errcode) & 0xff);

/**
 * Opens the database. One whose structure is broken is moved aside whole, and what can still be read of it is copied
 * into a new one. A write-ahead log with commits behind damage is copied aside before SQLite forgets them.
 */
function openDatabase(file: string, recentEvents: number): { database: Database; opened: Opened } {
  const lost = commitsBehindDamage(`${file}-wal`);
  if (lost > 0) fs.copyFileSync(`${file}-wal`, path.join(makeAside(file), `${path.basename(file)}-wal`));
  let database: Database | undefined;
  try {
    database = new Database(file);
    if (lost > 0) database.report(path.dirname(file), `${lost} commits stood in the write-ahead log behind damage`);
    return { database, opened: database.load(recentEvents) };
  } catch (error) {
    try {
      database?.close();
    } catch {
      // A broken file may refuse its last checkpoint as well.
    }
    if (!isCorrupt(error)) throw error;
    const moved = path.join(makeAside(file), path.basename(file));
    for (const suffix of ['', '-wal', '-shm']) {
      if (fs.existsSync(file + suffix)) fs.renameSync(file + suffix, moved + suffix);
    }
    const fresh = new Database(file);
    fresh.salvage(moved, error instanceof Error ? error.message : String(error));
    return { database: fresh, opened: fresh.load(recentEvents) };
  }
}

function makeAside(file: string): string {
  const aside = path.join(path.dirname(file), `damaged-${new Date().toISOString()}`);
  fs.mkdirSync(aside, { mode: 0o700 });
  return aside;
}

function serve(file: string, port: MessagePort): void {
  port.on('message', ({ number, question }: Envelope) => {
    let reply: Reply;
    try {
      reply = { number, answer: answer(question) };
    } catch (error) {
      reply = { number, error: error instanceof Error ? error : new Error(String(error)) };
    }
    port.postMessage(reply);
    if (question.ask === 'close') port.close();
  });

  let database: Database | undefined;
  function answer(question: Question): unknown {
    if (question.ask === 'open') {
      const { database: ready, opened } = openDatabase(file, question.recentEvents);
      database = ready;
      return opened;
    }
    if (!database) throw new Error('the store is not open');
    switch (question.ask) {
      case 'write':
        return database.write(question.operations, question.events);
      case 'events':
        return database.events(question.afterSeq, question.sinceNano, question.limit);
      case 'close':
        return database.close();
    }
  }
}

if (parentPort) serve((workerData as { file: string }).file, parentPort);
