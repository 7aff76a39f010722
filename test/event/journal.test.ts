import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createEventJournal, matches } from '../../src/event/journal.ts';
import type { EngineEvent, EventQuery, NewEvent } from '../../src/event/types.ts';
import { parseFilters } from '../../src/lib/filters.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nowNano } from '../../src/lib/time.ts';
import { openStore } from '../../src/store/store.ts';

async function opened(t: TestContext, dir = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-event-'))) {
  const store = await openStore({ dir, log: silentLog });
  t.after(async () => {
    await store.close();
    fs.rmSync(dir, { recursive: true, force: true });
  });
  return { store, journal: createEventJournal(store), dir };
}

const event = (action: string, more: Partial<NewEvent> = {}): NewEvent => ({
  type: 'container',
  action,
  id: 'c'.repeat(64),
  attributes: { name: 'web', image: 'busybox:1.36' },
  ...more,
});
const all: EventQuery = { filters: new Map() };
const unsignalled = new AbortController().signal;

async function actions(events: AsyncIterable<EngineEvent>): Promise<string[]> {
  const seen: string[] = [];
  for await (const { action } of events) seen.push(action);
  return seen;
}

describe('journal', () => {
  it('gives what happens from the moment of the call, and ends with its signal', async (t) => {
    const { store, journal } = await opened(t);
    await store.commit([], [event('before')]);
    const abort = new AbortController();
    const reading = journal.read(all, abort.signal);
    await store.commit([], [event('one'), event('two')]);
    const seen = actions(reading);
    await store.commit([], [event('three')]);
    await sleep(20);
    assert.equal(journal.readers, 1);
    abort.abort();
    assert.deepEqual(await seen, ['one', 'two', 'three']);
    assert.equal(journal.readers, 0);
  });

  it('gives the past over a restart, between since and until, both included', async (t) => {
    const first = await opened(t);
    await first.store.commit(
      [],
      [1n, 2n, 3n, 4n].map((timeNano) => event(`at ${timeNano}`, { timeNano })),
    );
    await first.store.close();
    const { journal } = await opened(t, first.dir);
    assert.deepEqual(await actions(journal.read({ ...all, since: 2n, until: 3n }, unsignalled)), ['at 2', 'at 3']);
    assert.deepEqual(await actions(journal.read({ ...all, since: 0n, until: 10n }, unsignalled)), [
      'at 1',
      'at 2',
      'at 3',
      'at 4',
    ]);
    assert.throws(() => journal.read({ ...all, since: 5n, until: 4n }, unsignalled), {
      kind: 'invalid',
      message: '`since` time (0.000000005) cannot be after `until` time (0.000000004)',
    });
  });

  it('ends by itself when until has come', async (t) => {
    const { store, journal } = await opened(t);
    const seen = actions(journal.read({ ...all, until: nowNano() + 150_000_000n }, unsignalled));
    await store.commit([], [event('in time')]);
    await sleep(200);
    await store.commit([], [event('too late')]);
    assert.deepEqual(await seen, ['in time']);
  });

  it('lets a reader sleep through 50 000 events and miss none, beside one that keeps up', async (t) => {
    const { store, journal } = await opened(t);
    const abort = new AbortController();
    const sleeper = journal.read(all, abort.signal)[Symbol.asyncIterator]();
    const keeper = actions(journal.read(all, abort.signal));
    await store.commit([], [event('0')]);
    assert.equal((await sleeper.next()).value?.action, '0');
    for (let round = 0; round < 500; round++) {
      await store.commit(
        [],
        Array.from({ length: 100 }, (_, index) => event(`${round * 100 + index + 1}`)),
      );
    }
    for (let expected = 1; expected <= 50_000; expected++) {
      assert.equal((await sleeper.next()).value?.action, String(expected));
    }
    abort.abort();
    assert.equal((await keeper).length, 50_001);
    await sleeper.return?.();
    assert.equal(journal.readers, 0);
  });
});

describe('filters of events', () => {
  const container = { ...event('start'), seq: 1, timeNano: 1n };
  const labelled = { ...container, attributes: { ...container.attributes, tier: 'front' } };
  const exec = { ...container, action: 'exec_create: sh -c ls' };
  const health = { ...container, action: 'health_status: healthy' };
  const image: EngineEvent = {
    ...container,
    type: 'image',
    action: 'pull',
    id: 'reg.example:5000/app:1.0',
    attributes: { name: 'reg.example:5000/app:1.0' },
  };
  const network: EngineEvent = {
    ...container,
    type: 'network',
    action: 'connect',
    id: 'n1',
    attributes: { name: 'bridge' },
  };
  for (const [subject, filters, expected] of [
    [container, {}, true],
    [container, { container: ['web'] }, true],
    [container, { container: ['cccccccccccc'] }, true],
    [container, { container: ['other'] }, false],
    [network, { container: ['bridge'] }, false],
    [container, { container: ['other', 'web'] }, true],
    [container, { event: ['start', 'die'] }, true],
    [container, { event: ['die'] }, false],
    [exec, { event: ['exec_create'] }, true],
    [exec, { event: ['exec_create: sh -c ls'] }, true],
    [health, { event: ['health_status'] }, true],
    [health, { event: ['health_status: unhealthy'] }, false],
    [container, { type: ['container'] }, true],
    [image, { type: ['container'] }, false],
    [container, { image: ['busybox'] }, true],
    [container, { image: ['busybox:1.36'] }, true],
    [container, { image: ['busybox:1.35'] }, false],
    [image, { image: ['reg.example:5000/app'] }, true],
    [image, { image: ['reg.example:5000/app:1.0'] }, true],
    [labelled, { label: ['tier'] }, true],
    [labelled, { label: ['tier=front'] }, true],
    [labelled, { label: ['tier=back'] }, false],
    [container, { label: ['tier'] }, false],
    [network, { network: ['bridge'] }, true],
    [network, { network: ['host'] }, false],
    [container, { scope: ['local'] }, true],
    [container, { scope: ['swarm'] }, false],
    [container, { container: ['web'], event: ['start'], type: ['network'] }, false],
  ] as const) {
    it(`${subject.type} ${subject.action} ${expected ? 'passes' : 'is stopped by'} ${JSON.stringify(filters)}`, () => {
      assert.equal(matches(subject as EngineEvent, parseFilters(JSON.stringify(filters))), expected);
    });
  }
});
