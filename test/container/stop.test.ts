/** Stopping and signals: every way to name one, patience, paused containers, and what is left of one that removes itself. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { startEngine, type TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

const cleanUps: (() => Promise<void>)[] = [];
let engine: TestEngine;
before(async () => {
  engine = await startEngine({ after: (cleanUp) => cleanUps.push(cleanUp) });
  await importBusybox(engine);
});
after(async () => {
  for (const cleanUp of cleanUps.reverse()) await cleanUp();
});

const ask = (id: string, action: string) => engine.api('POST', `/v1.26/containers/${id}/${action}`);
const state = async (id: string) => (await engine.call('GET', `/v1.26/containers/${id}/json`)).State;
const create = (more: object, host: object = {}) =>
  engine.api('POST', '/v1.26/containers/create', {
    Image: 'busybox',
    HostConfig: { NetworkMode: 'none', ...host },
    ...more,
  });

/** Ends with the number of the first signal among these; has its traps set when this resolves. */
const trapped = [1, 2, 3, 10, 12, 15, 34, 37, 64];
async function listener(more: object = {}, host: object = {}): Promise<string> {
  const traps = trapped.map((number) => `trap "exit ${number}" ${number}`).join('; ');
  const Cmd = ['sh', '-c', `${traps}; touch /ready; while :; do sleep 0.05; done`];
  const id = (await create({ Cmd, ...more }, host)).json().Id;
  assert.equal((await ask(id, 'start')).status, 204);
  const { Pid } = await state(id);
  await eventually(() => assert.ok(fs.existsSync(`/proc/${Pid}/root/ready`)));
  return id;
}
const endsWith = (id: string, code: number, what: string) =>
  eventually(async () => {
    const { Status, ExitCode } = await state(id);
    assert.deepEqual([Status, ExitCode], ['exited', code], what);
  }, 10_000);

describe('kill', () => {
  for (const [text, code] of [
    ['', 137],
    ['KILL', 137],
    ['9', 137],
    ['sigkill', 137],
    ['TERM', 15],
    ['15', 15],
    ['SIGHUP', 1],
    ['int', 2],
    ['SIGUSR1', 10],
    ['12', 12],
    ['34', 34],
    ['RTMIN', 34],
    ['SIGRTMIN+3', 37],
    ['rtmax', 64],
    ['RTMAX-27', 37],
  ] as const) {
    test(`signal "${text}"`, async () => {
      const id = await listener();
      assert.equal((await ask(id, `kill?signal=${encodeURIComponent(text)}`)).status, 204);
      await endsWith(id, code, text);
    });
  }

  for (const text of ['0', '-1', '65', 'FOO', 'SIG9', '9x', ' ', 'RTMIN+31', 'RTMAX-31', 'SIG', 'RTMIN3']) {
    test(`refuses "${text}", at kill and as StopSignal`, async () => {
      const id = (await create({ Cmd: ['true'] })).json().Id;
      const refused = await ask(id, `kill?signal=${encodeURIComponent(text)}`);
      assert.deepEqual([refused.status, refused.json().message], [400, `Invalid signal: ${text}`]);
      const stop = await create({ Cmd: ['true'], StopSignal: text });
      assert.deepEqual([stop.status, stop.json().message], [400, `Invalid signal: ${text}`]);
    });
  }
});

describe('stop', () => {
  test('sends the stop signal: by name, by number, a realtime one', async () => {
    for (const [StopSignal, code] of [
      ['SIGUSR1', 10],
      ['12', 12],
      ['RTMIN+3', 37],
    ] as const) {
      const id = await listener({ StopSignal });
      assert.equal((await ask(id, 'stop')).status, 204);
      await endsWith(id, code, StopSignal);
      assert.equal((await ask(id, 'stop')).status, 304);
    }
  });

  test('kills after t seconds, else after StopTimeout; a negative t waits for ever', async () => {
    const deaf = async (more: object) => {
      const id = (await create({ Cmd: ['sleep', '1000'], ...more })).json().Id;
      await ask(id, 'start');
      return id;
    };
    const took = async (id: string, action: string) => {
      const started = performance.now();
      assert.equal((await ask(id, action)).status, 204);
      return performance.now() - started;
    };
    assert.ok((await took(await deaf({}), 'stop?t=0')) < 900);
    const own = await took(await deaf({ StopTimeout: 1 }), 'stop');
    assert.ok(own >= 1000 && own < 5000, `${own}`);
    const asked = await took(await deaf({ StopTimeout: 100 }), 'stop?t=1');
    assert.ok(asked >= 1000 && asked < 5000, `${asked}`);
    const id = await deaf({ StopTimeout: 0 });
    const patient = ask(id, 'stop?t=-1');
    assert.equal(await Promise.race([patient, new Promise((resolve) => setTimeout(resolve, 1500, 'waits'))]), 'waits');
    assert.equal((await state(id)).Running, true);
    assert.equal((await ask(id, 'kill')).status, 204);
    assert.equal((await patient).status, 204);
    const wrong = await ask(id, 'stop?t=abc');
    assert.equal(wrong.status, 400);
  });

  test('a paused container meets its stop signal; others wait until it goes on', async () => {
    const stopped = await listener();
    await ask(stopped, 'pause');
    assert.equal((await ask(stopped, 'stop?t=5')).status, 204);
    await endsWith(stopped, 15, 'stop');
    const killed = await listener();
    await ask(killed, 'pause');
    assert.equal((await ask(killed, 'kill')).status, 204);
    await endsWith(killed, 137, 'kill');
    const told = await listener();
    await ask(told, 'pause');
    assert.equal((await ask(told, 'kill?signal=USR1')).status, 204);
    assert.equal((await state(told)).Status, 'paused');
    await ask(told, 'unpause');
    await endsWith(told, 10, 'USR1');
    const refused = await ask(told, 'unpause');
    assert.deepEqual([refused.status, refused.json().message], [500, `Container ${told} is not paused`]);
  });
});

test('what removes itself: wait answers afterwards by id, prefix and name; its anonymous volumes are gone', async () => {
  const body = {
    Image: 'busybox',
    Cmd: ['sh', '-c', 'exit 42'],
    Volumes: { '/data': {} },
    HostConfig: { AutoRemove: true },
  };
  const { Id } = await engine.call('POST', '/v1.26/containers/create?name=brief', body);
  const [volume] = (await engine.call('GET', `/v1.26/containers/${Id}/json`)).Mounts;
  assert.ok(fs.existsSync(volume.Source));
  await ask(Id, 'start');
  await eventually(async () => assert.equal((await engine.api('GET', `/v1.26/containers/${Id}/json`)).status, 404));
  for (const ref of [Id, Id.slice(0, 12), 'brief', 'after a crash']) {
    if (ref === 'after a crash') {
      await engine.kill9();
      await engine.launch();
    }
    const answer = await ask(ref === 'after a crash' ? 'brief' : ref, 'wait');
    assert.deepEqual([answer.status, answer.json()], [200, { StatusCode: 42 }], ref);
  }
  await eventually(() => assert.equal(fs.existsSync(volume.Source), false));
  assert.equal((await ask('never-there', 'wait')).status, 404);
  await engine.removeAll();
  await engine.assertNoLeaks();
});
