import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Lanes } from '../../src/lib/lanes.ts';
import { type Log, silentLog } from '../../src/lib/log.ts';

describe('lanes', () => {
  it('keeps the order within a key and none between keys', async () => {
    const lanes = new Lanes(silentLog);
    const trace: string[] = [];
    const work = (name: string, ms: number) => async () => {
      trace.push(`+${name}`);
      await sleep(ms);
      trace.push(`-${name}`);
    };
    await Promise.all([
      lanes.enter('a', work('a1', 30)),
      lanes.enter('a', work('a2', 1)),
      lanes.enter('b', work('b1', 10)),
    ]);
    assert.deepEqual(trace, ['+a1', '+b1', '-b1', '-a1', '+a2', '-a2']);
  });

  it('passes results and errors on; a failure does not stop the lane; idle lanes go', async () => {
    const lanes = new Lanes(silentLog);
    const failed = lanes.enter('a', () => Promise.reject(new Error('no')));
    const thrown = lanes.enter('a', () => {
      throw new Error('at once');
    });
    const fine = lanes.enter('a', async () => 7);
    assert.equal(lanes.size, 1);
    await assert.rejects(failed, /no/);
    await assert.rejects(thrown, /at once/);
    assert.equal(await fine, 7);
    await sleep(0);
    assert.equal(lanes.size, 0);
  });

  it('refuses more than its bound, and takes work again later', async () => {
    const lanes = new Lanes(silentLog, { lengthMax: 2 });
    const gate = Promise.withResolvers<void>();
    const first = lanes.enter('a', () => gate.promise);
    const second = lanes.enter('a', async () => undefined);
    await assert.rejects(
      lanes.enter('a', async () => undefined),
      { kind: 'unavailable' },
    );
    await lanes.enter('b', async () => undefined);
    gate.resolve();
    await Promise.all([first, second]);
    await lanes.enter('a', async () => undefined);
  });

  it('reports work that outlives its deadline and still keeps the order', async () => {
    const warnings: string[] = [];
    const log: Log = { ...silentLog, warn: (_, message) => warnings.push(message) };
    const lanes = new Lanes(log);
    const trace: number[] = [];
    await Promise.all([
      lanes.enter('a', () => sleep(60).then(() => trace.push(1)), { deadlineMs: 10 }),
      lanes.enter('a', async () => trace.push(2), { deadlineMs: 1000 }),
    ]);
    assert.deepEqual(trace, [1, 2]);
    assert.equal(warnings.length, 2);
  });
});
