import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { createEventJournal, matches } from '../../src/event/journal.ts';
import type { EngineEvent, NewEvent } from '../../src/event/types.ts';
import { silentLog } from '../../src/lib/log.ts';
import { nowNano } from '../../src/lib/time.ts';
import { openStore } from '../../src/store/store.ts';
import type { Store } from '../../src/store/types.ts';

async function openJournal(t: TestContext) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'journal-'));
  const store = await openStore({ dir, log: silentLog });
  t.after(async () => {
    await store.close();
    fs.rmSync(dir, { recursive: true });
  });
  return { dir, store, journal: createEventJournal(store) };
}

const event = (action: string): NewEvent => ({ type: 'container', action, id: 'c1', attributes: { name: 'web' } });
const all = { filters: new Map<string, readonly string[]>() };
const never = new AbortController().signal;

async function actions(source: AsyncIterable<EngineEvent>, count = Number.POSITIVE_INFINITY): Promise<string[]> {
  const seen: string[] = [];
  for await (const { action } of source) {
    seen.push(action);
    if (seen.length === count) break;
  }
  return seen;
}

test('gives the past from `since`, ends at `until`, and begins with now without either', async (t) => {
  const { store, journal } = await openJournal(t);
  await store.commit([], [event('old')]);
  const middle = nowNano();
  await store.commit([], [event('a'), event('b')]);
  assert.deepEqual(await actions(journal.read({ ...all, since: 0n, until: nowNano() }, never)), ['old', 'a', 'b']);
  assert.deepEqual(await actions(journal.read({ ...all, since: middle, until: nowNano() }, never)), ['a', 'b']);
  assert.deepEqual(await actions(journal.read({ ...all, since: 0n, until: middle }, never)), ['old']);

  const live = actions(journal.read(all, never), 1);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(journal.readers, 1);
  await store.commit([], [event('new')]);
  assert.deepEqual(await live, ['new']);
  assert.equal(journal.readers, 0);
});

test('a future `until` ends a waiting reader, and so does its signal', async (t) => {
  const { journal } = await openJournal(t);
  const began = performance.now();
  assert.deepEqual(await actions(journal.read({ ...all, until: nowNano() + 100_000_000n }, never)), []);
  assert.ok(performance.now() - began >= 95);
  const gone = new AbortController();
  const reading = actions(journal.read(all, gone.signal));
  setTimeout(() => gone.abort(), 20);
  assert.deepEqual(await reading, []);
});

test('a reader that sleeps through a burst misses nothing', async (t) => {
  const { store, journal } = await openJournal(t);
  const reader = journal.read(all, never)[Symbol.asyncIterator]();
  const first = reader.next();
  await new Promise((resolve) => setImmediate(resolve));
  const total = 5000;
  await Promise.all(Array.from({ length: total }, (_, i) => store.commit([], [event(`e${i}`)])));
  const seen = [(await first).value?.action];
  while (seen.length < total) seen.push((await reader.next()).value?.action);
  await reader.return?.(undefined);
  assert.deepEqual(
    seen,
    Array.from({ length: total }, (_, i) => `e${i}`),
  );
});

test('events are there after the store was opened anew', async (t) => {
  const { dir, store } = await openJournal(t);
  await store.commit([], [event('before')]);
  await store.close();
  const again: Store = await openStore({ dir, log: silentLog });
  const seen = await actions(createEventJournal(again).read({ ...all, since: 0n, until: nowNano() }, never));
  await again.close();
  assert.deepEqual(seen, ['before']);
});

test('since later than until is refused', async (t) => {
  const { journal } = await openJournal(t);
  await assert.rejects(actions(journal.read({ ...all, since: 2_000_000_000n, until: 1_500_000_000n }, never)), {
    message: '`since` time (2.000000000) cannot be after `until` time (1.500000000)',
    kind: 'invalid',
  });
});

test('filters mean what dockerd means', () => {
  const base = { seq: 1, timeNano: 1n };
  const die: EngineEvent = {
    ...base,
    type: 'container',
    action: 'die',
    id: 'abcdef123',
    attributes: { name: 'web', image: 'nginx:1.2', tier: 'front' },
  };
  const exec: EngineEvent = { ...die, action: 'exec_create: sh -c x' };
  const pull: EngineEvent = {
    ...base,
    type: 'image',
    action: 'pull',
    id: 'sha256:99aa',
    attributes: { name: 'nginx:1.2' },
  };
  const cases: readonly (readonly [EngineEvent, Record<string, string[]>, boolean])[] = [
    [die, {}, true],
    [die, { type: ['image', 'container'] }, true],
    [die, { type: ['image'] }, false],
    [die, { event: ['die'] }, true],
    [exec, { event: ['exec_create'] }, true],
    [exec, { event: ['exec'] }, false],
    [die, { container: ['web'] }, true],
    [die, { container: ['abcdef'] }, true],
    [die, { container: ['other'] }, false],
    [pull, { container: ['web'] }, false],
    [die, { image: ['nginx'] }, true],
    [die, { image: ['nginx:1.2'] }, true],
    [pull, { image: ['nginx'] }, true],
    [pull, { image: ['sha256:99aa'] }, true],
    [pull, { image: ['redis'] }, false],
    [die, { label: ['tier=front', 'tier'] }, true],
    [die, { label: ['tier=front', 'absent'] }, false],
    [die, { event: ['die'], container: ['other'] }, false],
  ];
  for (const [subject, filters, expected] of cases) {
    assert.equal(
      matches(subject, new Map(Object.entries(filters))),
      expected,
      JSON.stringify([subject.action, filters]),
    );
  }
});
