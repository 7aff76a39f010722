import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { describe, it, type TestContext } from 'node:test';
import { EngineError } from '../../src/lib/errors.ts';
import { silentLog } from '../../src/lib/log.ts';
import { mount, unmount } from '../../src/platform/mount.ts';
import { openStore } from '../../src/store/store.ts';
import type { Store } from '../../src/store/types.ts';

interface Thing {
  readonly id: string;
  readonly count: number;
  readonly nested?: { readonly list: readonly string[] };
}
const things = { kind: 'thing', schema: 1 } as const;

function scratch(t: TestContext): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-store-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  return dir;
}

async function opened(t: TestContext, dir: string): Promise<Store> {
  const store = await openStore({ dir, log: silentLog });
  t.after(() => store.close());
  return store;
}

const event = (action: string) => ({ type: 'container' as const, action, id: 'c1', attributes: { name: 'web' } });

describe('store', () => {
  it('gives records and events back after a restart, and continues the numbers of events', async (t) => {
    const dir = scratch(t);
    const first = await opened(t, dir);
    const collection = first.collection<Thing>(things);
    await first.commit([collection.put({ id: 'a', count: 1, nested: { list: ['x'] } })], [event('create')]);
    await first.commit([collection.put({ id: 'b', count: 2 }), collection.remove('a')], [event('start'), event('die')]);
    await first.close();

    const second = await opened(t, dir);
    const again = second.collection<Thing>(things);
    assert.deepEqual([...again.values()], [{ id: 'b', count: 2 }]);
    await second.commit([], [{ ...event('destroy'), timeNano: 1_700_000_000_123_456_789n }]);
    const events = await second.readEvents(0, 10);
    assert.deepEqual(
      events.map(({ seq, action }) => [seq, action]),
      [
        [1, 'create'],
        [2, 'start'],
        [3, 'die'],
        [4, 'destroy'],
      ],
    );
    assert.equal(events[3]?.timeNano, 1_700_000_000_123_456_789n);
    assert.equal(second.lastSeq, 4);
    assert.deepEqual(second.damaged, []);
  });

  it('is read by nobody else, also one that could be once', async (t) => {
    const directory = scratch(t);
    const file = `${directory}/records.db`;
    fs.writeFileSync(file, '', { mode: 0o644 });
    const store = await opened(t, directory);
    await store.commit([store.collection<Thing>(things).put({ id: 'a', count: 1 })]);
    for (const each of [file, `${file}-wal`]) assert.equal(fs.statSync(each).mode & 0o777, 0o600, each);
  });

  it('shows a change only when it is durable, in the order of the calls, and frozen', async (t) => {
    const store = await opened(t, scratch(t));
    const collection = store.collection<Thing>(things);
    const record = { id: 'a', count: 1, nested: { list: ['x'] } };
    const seen: string[] = [];
    store.onEvents((events) => seen.push(...events.map(({ action }) => `${action}:${collection.get('a')?.count}`)));
    const commits = [
      store.commit([collection.put(record)], [event('one')]),
      store.commit([collection.put({ ...record, count: 2 })], [event('two')]),
    ];
    assert.equal(collection.get('a'), undefined);
    await Promise.all(commits);
    assert.deepEqual(seen, ['one:2', 'two:2']);
    const read = collection.get('a');
    assert.ok(Object.isFrozen(read) && Object.isFrozen(read?.nested?.list));
    assert.throws(() => record.nested.list.push('y'));
  });

  it('refuses values that a restart would change', async (t) => {
    const store = await opened(t, scratch(t));
    const collection = store.collection<{ id: string; value: unknown }>(things);
    for (const value of [new Date(), new Map(), 1n, Number.NaN, () => 1]) {
      assert.throws(() => collection.put({ id: 'a', value }), /cannot keep/);
    }
  });

  it('refuses a second opener and names the holder; a child does not keep the lock', async (t) => {
    const dir = scratch(t);
    const first = await opened(t, dir);
    const child = spawn('sleep', ['60']);
    t.after(() => child.kill('SIGKILL'));
    await assert.rejects(openStore({ dir, log: silentLog }), (error) => {
      assert.ok(error instanceof EngineError && error.kind === 'conflict');
      assert.match(error.message, new RegExp(`pid ${process.pid}\\b`));
      return true;
    });
    await first.close();
    await opened(t, dir);
  });

  it('answers commits after close with an error', async (t) => {
    const store = await opened(t, scratch(t));
    await store.close();
    await assert.rejects(store.commit([], [event('late')]), /closed/);
  });

  it('rejects and shows nothing when the disk is full, and goes on when it no longer is', async (t) => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-store-'));
    mount('tmpfs', dir, 'tmpfs', 0, 'size=512k');
    const store = await openStore({ dir, log: silentLog });
    t.after(async () => {
      await store.close();
      unmount(dir);
      fs.rmdirSync(dir);
    });
    const collection = store.collection<Thing>(things);
    await store.commit([collection.put({ id: 'a', count: 1 })]);
    fs.writeFileSync(path.join(dir, 'filler'), '');
    try {
      for (;;) fs.appendFileSync(path.join(dir, 'filler'), Buffer.alloc(4096));
    } catch {
      // Full now.
    }
    const outcomes = await Promise.allSettled([
      store.commit([collection.put({ id: 'b', count: 1 }), collection.put({ id: 'a', count: 2 })]),
      store.commit([], [event('beside')]),
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['rejected', 'rejected'],
    );
    assert.equal(collection.get('a')?.count, 1);
    assert.equal(collection.get('b'), undefined);
    fs.rmSync(path.join(dir, 'filler'));
    await store.commit([collection.put({ id: 'a', count: 3 })], [event('after')]);
    assert.equal(collection.get('a')?.count, 3);
    assert.deepEqual(
      (await store.readEvents(0, 10)).map(({ seq, action }) => [seq, action]),
      [[1, 'after']],
    );
  });

  it('upgrades older records and refuses newer ones', async (t) => {
    const dir = scratch(t);
    const first = await opened(t, dir);
    await first.commit([first.collection<Thing>(things).put({ id: 'a', count: 1 })]);
    await first.close();
    const second = await opened(t, dir);
    const upgraded = second.collection<Thing>({
      kind: 'thing',
      schema: 2,
      upgrade: (body, schema) => ({ ...(body as Thing), count: 10 * schema }),
    });
    assert.equal(upgraded.get('a')?.count, 10);
    await second.commit([upgraded.put({ id: 'a', count: 5 })]);
    await second.close();
    const third = await opened(t, dir);
    assert.throws(() => third.collection<Thing>(things), /newer/);
  });

  it('keeps at least 100 000 events, reads old ones from disk, and lets older ones go', async (t) => {
    const dir = scratch(t);
    const store = await opened(t, dir);
    const burst = Array.from({ length: 5000 }, (_, index) => event(`${index}`));
    for (let round = 0; round < 25; round++) await store.commit([], burst);
    const oldest = await store.readEvents(0, 1);
    assert.ok(oldest[0] && oldest[0].seq <= 25_001 && oldest[0].seq > 20_000, `oldest is ${oldest[0]?.seq}`);
    let cursor = oldest[0].seq - 1;
    for (;;) {
      const page = await store.readEvents(cursor, 1000);
      if (page.length === 0) break;
      for (const { seq } of page) assert.equal(seq, ++cursor);
    }
    assert.equal(cursor, 125_000);
  });
});

describe('damage', () => {
  async function filled(t: TestContext, count: number): Promise<string> {
    const dir = scratch(t);
    const store = await opened(t, dir);
    const collection = store.collection<Thing>(things);
    const list = ['some', 'text', 'that', 'takes', 'place', '.'.repeat(1500)];
    await store.commit(
      Array.from({ length: count }, (_, index) =>
        collection.put({ id: `id-${index}`, count: index, nested: { list } }),
      ),
    );
    await store.close();
    return dir;
  }

  it('sets a row with flipped bits aside, reports it at every start, and keeps it', async (t) => {
    const dir = await filled(t, 50);
    const file = path.join(dir, 'records.db');
    const bytes = fs.readFileSync(file);
    const at = bytes.indexOf('"id":"id-17","count":17');
    assert.ok(at > 0);
    bytes[at + 20] = (bytes[at + 20] ?? 0) ^ 1;
    fs.writeFileSync(file, bytes);

    for (let start = 0; start < 2; start++) {
      const store = await opened(t, dir);
      const collection = store.collection<Thing>(things);
      assert.equal(collection.size, 49);
      assert.equal(collection.get('id-17'), undefined);
      assert.deepEqual(
        store.damaged.map(({ kind, id }) => [kind, id]),
        [['thing', 'id-17']],
      );
      await store.close();
    }
    const sqlite = new DatabaseSync(file, { readOnly: true });
    t.after(() => sqlite.close());
    assert.match(
      Buffer.from(sqlite.prepare('SELECT body FROM damaged').get()?.body as Uint8Array).toString(),
      /^{"id":"id-17"/,
    );
  });

  it('sets a record aside whose body its kind cannot read', async (t) => {
    const dir = await filled(t, 3);
    const store = await opened(t, dir);
    const collection = store.collection<Thing>({
      kind: 'thing',
      schema: 2,
      upgrade: (body) => {
        if ((body as Thing).count === 1) throw new Error('count 1 is not understood');
        return body as Thing;
      },
    });
    assert.equal(collection.size, 2);
    assert.deepEqual(store.damaged, [{ kind: 'thing', id: 'id-1', reason: 'count 1 is not understood' }]);
    await store.commit([collection.put({ id: 'id-1', count: 7 })]);
    await store.close();
    const again = await opened(t, dir);
    assert.equal(again.collection<Thing>({ ...things, schema: 2, upgrade: (b) => b as Thing }).get('id-1')?.count, 7);
    assert.equal(again.damaged.length, 1);
  });

  it('moves a broken database aside and salvages what is readable', async (t) => {
    const dir = await filled(t, 200);
    const file = path.join(dir, 'records.db');
    const bytes = fs.readFileSync(file);
    // A whole page in the middle becomes noise: the tree itself is broken.
    const page = Math.floor(bytes.length / 4096 / 2);
    bytes.fill(0xa5, page * 4096, (page + 1) * 4096);
    fs.writeFileSync(file, bytes);
    const store = await opened(t, dir);
    const collection = store.collection<Thing>(things);
    assert.ok(collection.size >= 190 && collection.size < 200, `${collection.size} of 200`);
    assert.ok(store.damaged.length >= 1);
    const aside = fs.readdirSync(dir).filter((name) => name.startsWith('damaged-'));
    assert.equal(aside.length, 1);
    assert.deepEqual(fs.readFileSync(path.join(dir, aside[0] ?? '', 'records.db')), bytes);
    await store.commit([collection.put({ id: 'new', count: 1 })]);
  });

  it('reports commits that a flipped bit in the write-ahead log cuts off, and not the torn end of a crash', async (t) => {
    const dir = scratch(t);
    const store = await opened(t, dir);
    const collection = store.collection<Thing>(things);
    for (let index = 0; index < 20; index++) await store.commit([collection.put({ id: `id-${index}`, count: index })]);
    // As a crash leaves it: the log has not been folded into the database.
    const crashed = scratch(t);
    for (const name of ['records.db', 'records.db-wal'])
      fs.copyFileSync(path.join(dir, name), path.join(crashed, name));
    const log = fs.readFileSync(path.join(crashed, 'records.db-wal'));

    const torn = scratch(t);
    fs.copyFileSync(path.join(crashed, 'records.db'), path.join(torn, 'records.db'));
    fs.writeFileSync(path.join(torn, 'records.db-wal'), log.subarray(0, log.length - 1000));
    const afterCrash = await opened(t, torn);
    assert.deepEqual(afterCrash.damaged, []);
    assert.equal(afterCrash.collection<Thing>(things).size, 19);

    const middle = Math.floor(log.length / 2);
    log[middle] = (log[middle] ?? 0) ^ 4;
    fs.writeFileSync(path.join(crashed, 'records.db-wal'), log);
    const damaged = await opened(t, crashed);
    const { size } = damaged.collection<Thing>(things);
    assert.ok(size > 5 && size < 15, `${size} of 20`);
    assert.deepEqual(
      damaged.damaged.map(({ reason }) => reason),
      [`${20 - size} commits stood in the write-ahead log behind damage`],
    );
    const aside = fs.readdirSync(crashed).find((name) => name.startsWith('damaged-')) ?? '';
    assert.deepEqual(fs.readFileSync(path.join(crashed, aside, 'records.db-wal')), log);
  });

  it('starts anew beside a file that is no database at all', async (t) => {
    const dir = scratch(t);
    fs.writeFileSync(path.join(dir, 'records.db'), 'not a database '.repeat(1000));
    const store = await opened(t, dir);
    assert.equal(store.damaged.length, 1);
    assert.equal(store.collection<Thing>(things).size, 0);
  });
});

describe('kill -9', () => {
  it('loses no acknowledged commit', async (t) => {
    const dir = scratch(t);
    let acknowledged = 0;
    for (let round = 0; round < 8; round++) {
      const child = spawn(process.execPath, [path.join(import.meta.dirname, 'committer.ts'), dir, String(round)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const ids: string[] = [];
      createInterface({ input: child.stdout }).on('line', (line) => {
        if (ids.push(line) === 1) setTimeout(() => child.kill('SIGKILL'), 20 + Math.random() * 200);
      });
      await once(child, 'close');
      assert.equal(child.signalCode, 'SIGKILL');
      acknowledged += ids.length;

      const store = await openStore({ dir, log: silentLog });
      try {
        const collection = store.collection<Thing>(things);
        assert.deepEqual(store.damaged, []);
        const events = await store.readEvents(store.lastSeq - Math.min(store.lastSeq, 50_000), 50_000);
        const actions = new Set(events.map(({ action }) => action));
        for (const id of ids) {
          assert.ok(collection.get(id), `${id} was acknowledged`);
          assert.ok(actions.has(id), `the event of ${id} was acknowledged`);
        }
        // Record and event of a commit are there together or not at all.
        assert.equal(collection.size, events.length);
      } finally {
        await store.close();
      }
    }
    assert.ok(acknowledged > 20, `${acknowledged} commits`);
    t.diagnostic(`${acknowledged} acknowledged commits`);
  });
});
