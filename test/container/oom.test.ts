/** Kills for want of memory: `OOMKilled`, the event, whoever was killed. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { Cgroup } from '../../src/runtime/cgroup.ts';
import { eventually } from '../support/command.ts';
import { startEngine, type TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

test('the counter of a v2 group is read from memory.events; a group that has gone has none', () => {
  const root = new URL('../runtime/fixtures', import.meta.url).pathname;
  const layout = { version: 2, hybrid: false, controllers: new Map(), roots: [root] } as const;
  assert.equal(new Cgroup(layout, '/cgroup-v2').oomKills(), 1);
  assert.equal(new Cgroup(layout, '/gone').oomKills(), 0);
});

describe('out of memory', () => {
  const cleanUps: (() => Promise<void>)[] = [];
  let engine: TestEngine;
  before(async () => {
    engine = await startEngine({ after: (cleanUp) => cleanUps.push(cleanUp) });
    await importBusybox(engine);
  });
  after(async () => {
    for (const cleanUp of cleanUps.reverse()) await cleanUp();
  });

  /** `tail` keeps what has no line end in memory. */
  const glutton = 'head -c 200000000 /dev/zero | tail > /dev/null';
  const limits = { Memory: 32 << 20, MemorySwap: 32 << 20, NetworkMode: 'none' };

  async function run(script: string, host: object = {}): Promise<string> {
    const body = { Image: 'busybox', Cmd: ['sh', '-c', script], HostConfig: { ...limits, ...host } };
    const { Id } = await engine.call('POST', '/v1.26/containers/create', body);
    await engine.call('POST', `/v1.26/containers/${Id}/start`);
    return Id;
  }
  const state = async (id: string) => (await engine.call('GET', `/v1.26/containers/${id}/json`)).State;
  const actions = async (id: string): Promise<string[]> =>
    (await engine.api('GET', `/v1.26/events?since=0&until=${Math.ceil(Date.now() / 1000) + 1}`)).text
      .split('\n')
      .filter((line) => line.includes(`"id":"${id}"`))
      .map((line) => JSON.parse(line).Action);
  const ooms = async (id: string) => (await actions(id)).filter((action) => action === 'oom').length;

  test('the first process is killed: 137, OOMKilled, one event before die', async () => {
    const id = await run('exec tail < /dev/zero > /dev/null');
    assert.equal((await engine.call('POST', `/v1.26/containers/${id}/wait`)).StatusCode, 137);
    const { OOMKilled, ExitCode, Status } = await state(id);
    assert.deepEqual([OOMKilled, ExitCode, Status], [true, 137, 'exited']);
    const told = (await actions(id)).filter((action) => action === 'oom' || action === 'die');
    assert.deepEqual(told, ['oom', 'die']);
  });

  test('a child is killed: the event comes while the container runs on, each kill once', async () => {
    const id = await run(`${glutton}; sleep 1; while [ ! -e /again ]; do sleep 0.1; done; ${glutton}; sleep 1000`);
    await eventually(async () => assert.equal(await ooms(id), 1), 15_000);
    const { OOMKilled, Running } = await state(id);
    assert.deepEqual([OOMKilled, Running], [true, true]);
    await engine.mustDocker(['exec', id, 'touch', '/again']);
    await eventually(async () => assert.equal(await ooms(id), 2), 15_000);
    await engine.call('POST', `/v1.26/containers/${id}/stop?t=0`);
    assert.equal((await state(id)).OOMKilled, true);
    assert.equal(await ooms(id), 2);
    await engine.call('POST', `/v1.26/containers/${id}/start`);
    assert.equal((await state(id)).OOMKilled, false);
    await engine.call('DELETE', `/v1.26/containers/${id}?force=1`);
  });

  test('a child killed while no daemon is there is told by the next one', async () => {
    const id = await run(`while [ ! -e /now ]; do sleep 0.1; done; ${glutton}; sleep 1000`);
    const { Pid } = await state(id);
    await engine.kill9();
    fs.writeFileSync(`/proc/${Pid}/root/now`, '');
    const counter = () =>
      Number(
        /oom_kill (\d+)/.exec(fs.readFileSync(`/sys/fs/cgroup/memory/slipway/${id}/memory.oom_control`, 'utf8'))?.[1],
      );
    await eventually(() => assert.equal(counter(), 1), 15_000);
    await engine.launch();
    await eventually(async () => assert.equal(await ooms(id), 1), 15_000);
    assert.equal((await state(id)).OOMKilled, true);
    await engine.call('DELETE', `/v1.26/containers/${id}?force=1`);
  });

  test('one that ends well in time is not called killed', async () => {
    const id = await run('true');
    await engine.call('POST', `/v1.26/containers/${id}/wait`);
    assert.equal((await state(id)).OOMKilled, false);
    assert.equal(await ooms(id), 0);
  });

  test('five kills of first processes at once, none missed', async () => {
    const ids = await Promise.all(Array.from({ length: 5 }, () => run('exec tail < /dev/zero > /dev/null')));
    for (const id of ids) {
      assert.equal((await engine.call('POST', `/v1.26/containers/${id}/wait`)).StatusCode, 137);
      assert.equal((await state(id)).OOMKilled, true);
      assert.equal(await ooms(id), 1);
    }
  });
});
