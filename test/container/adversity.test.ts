/**
 * What must not go wrong when everything else does: commands that meet in the middle, monitors that are killed or hang, a
 * full disk, a reboot.
 *
 * test-timeout-seconds: 300
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { eventually, run, sleep } from '../support/command.ts';
import { startEngine, TestEngine } from '../support/engine.ts';
import { hijack, type Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';
import { powerCut } from '../support/reboot.ts';

async function start(engine: TestEngine, name: string, cmd: readonly string[], more: object = {}): Promise<string> {
  const body = { Image: 'busybox', Cmd: cmd, ...more };
  const { Id } = await engine.call('POST', `/containers/create?name=${name}`, body);
  await engine.call('POST', `/containers/${Id}/start`);
  return Id;
}

const stateOf = async (engine: TestEngine, id: string): Promise<Loose> =>
  (await engine.call('GET', `/containers/${id}/json`)).State;

const runPolicy = (Name: string) => ({ HostConfig: { RestartPolicy: { Name } } });
const pidIn = (file: string): number => Number(fs.readFileSync(file, 'latin1'));
const complaints = (log: string): string[] => log.split('\n').filter((line) => line.includes('"level":"error"'));

describe('commands that meet', () => {
  let engine: TestEngine;
  before(async () => {
    engine = await TestEngine.start();
    await importBusybox(engine);
  });
  after(() => engine?.close());

  test('a client that stays behind does not end the stdin of the next run', async () => {
    const config = { Image: 'busybox', Cmd: ['sh', '-c', 'read a; echo got $a'], OpenStdin: true, StdinOnce: true };
    await engine.call('POST', '/containers/create?name=reader', config);
    const attach = () => hijack(engine.paths.socket, '/containers/reader/attach?stream=1&stdin=1&stdout=1');
    const one = await attach();
    await engine.call('POST', '/containers/reader/start');
    one.socket.write('first\n');
    await engine.call('POST', '/containers/reader/wait');
    one.socket.resume();
    one.socket.end();
    await sleep(100);

    const two = await attach();
    two.socket.resume();
    await engine.call('POST', '/containers/reader/start');
    await sleep(200);
    two.socket.write('second\n');
    await engine.call('POST', '/containers/reader/wait');
    const { text } = await engine.api('GET', '/containers/reader/logs?stdout=1');
    assert.match(text, /got first[\s\S]*got second/);
  });

  test('a container in a restart loop that was stopped stays so', async () => {
    for (let i = 0; i < 8; i++) {
      const id = await start(engine, `loop${i}`, ['usleep', '30000'], runPolicy('always'));
      await sleep(20 + Math.random() * 60);
      const { status, text } = await engine.api('POST', `/containers/${id}/stop?t=1`);
      assert.ok(status === 204 || status === 304, text);
      const { StartedAt } = await stateOf(engine, id);
      await sleep(300);
      const state = await stateOf(engine, id);
      assert.equal(state.Status, 'exited');
      assert.equal(state.StartedAt, StartedAt);
      await engine.call('DELETE', `/containers/${id}`);
    }
  });

  test('a removal that meets starts leaves nothing behind', async () => {
    for (let i = 0; i < 12; i++) {
      const id = await start(engine, `meet${i}`, ['usleep', '40000']);
      await sleep(30 + Math.random() * 30);
      const answers = await Promise.all([
        engine.api('POST', `/containers/${id}/start`),
        engine.api('DELETE', `/containers/${id}?force=1`),
        engine.api('POST', `/containers/${id}/start`),
        engine.api('POST', `/containers/${id}/restart?t=0`),
        engine.api('DELETE', `/containers/${id}?force=1`),
      ]);
      for (const { status, text } of answers) assert.ok(status < 500, text);
    }
    await engine.removeAll();
    await engine.assertNoLeaks();
  });

  test('patience of a month is not patience of a millisecond', async () => {
    const id = await start(engine, 'patient', ['sh', '-c', 'trap "" TERM; while :; do sleep 0.1; done']);
    const stopped = engine.api('POST', `/containers/${id}/stop?t=3000000`);
    await sleep(500);
    assert.equal((await stateOf(engine, id)).Running, true);
    await engine.call('POST', `/containers/${id}/kill`);
    assert.equal((await stopped).status, 204);
  });

  test('a restart does not remove a container with AutoRemove, its end does', async () => {
    const id = await start(engine, 'again', ['sleep', '1000'], { HostConfig: { AutoRemove: true } });
    await engine.call('POST', `/containers/${id}/restart?t=0`);
    assert.equal((await stateOf(engine, id)).Running, true);
    await engine.call('POST', `/containers/${id}/kill`);
    await eventually(async () => assert.equal((await engine.api('GET', `/containers/${id}/json`)).status, 404));
  });

  test('two prunes at once share the work', async () => {
    for (let i = 0; i < 10; i++) await engine.call('POST', '/containers/create', { Image: 'busybox' });
    const answers = await Promise.all([1, 2].map(() => engine.call('POST', '/containers/prune')));
    const deleted = answers.flatMap((answer) => answer.ContainersDeleted ?? []);
    assert.equal(new Set(deleted).size, deleted.length);
    assert.deepEqual(await engine.call('GET', '/containers/json?all=1'), []);
  });
});

describe('monitors that tell nothing', () => {
  let engine: TestEngine;
  before(async () => {
    engine = await TestEngine.start();
    await importBusybox(engine);
  });
  after(() => engine?.close());
  const monitorOf = (id: string) => pidIn(`${engine.paths.execRoot}/container/${id}/monitor.pid`);

  for (const signal of ['SIGKILL', 'SIGSTOP'] as const) {
    test(`a container whose monitor got ${signal} can be stopped and removed`, async () => {
      const id = await start(engine, `silent${signal}`, ['sleep', '1000']);
      process.kill(monitorOf(id), signal);
      await engine.call('POST', `/containers/${id}/stop?t=0`);
      const { Running, ExitCode } = await stateOf(engine, id);
      assert.deepEqual([Running, ExitCode], [false, 137]);
      await engine.call('DELETE', `/containers/${id}`);
      await engine.assertNoLeaks();
    });
  }

  test('an end without a monitor is noticed', async () => {
    const id = await start(engine, 'unseen', ['sleep', '1']);
    process.kill(monitorOf(id), 'SIGKILL');
    await eventually(async () => assert.equal((await stateOf(engine, id)).Running, false), 40_000);
    assert.match((await stateOf(engine, id)).Error, /monitor of the container was lost/);
  });

  test('running, paused and unknowingly frozen containers are taken over without a complaint', async () => {
    const names = ['plain', 'paused', 'frozen'];
    const [plain = '', paused = '', frozen = ''] = await Promise.all(
      names.map((name) => start(engine, name, ['sleep', '1000'])),
    );
    await engine.call('POST', `/containers/${paused}/pause`);
    // As after a crash between freezing and recording it.
    const [freezer] = fs.globSync(`/sys/fs/cgroup{/freezer,}/slipway/${frozen}/{freezer.state,cgroup.freeze}`);
    fs.writeFileSync(freezer ?? '', freezer?.endsWith('state') ? 'FROZEN' : '1');
    await engine.kill9();
    const before = engine.log.length;
    await engine.launch();
    await eventually(() => assert.match(engine.log.slice(before), /records and kernel agree/));
    assert.deepEqual(complaints(engine.log.slice(before)), []);
    assert.equal((await stateOf(engine, paused)).Status, 'paused');
    await engine.call('POST', `/containers/${paused}/unpause`);
    for (const id of [plain, paused, frozen]) await engine.call('POST', `/containers/${id}/stop?t=0`);
  });
});

test('on a full disk containers can be stopped, and ends are recorded when there is room again', async (t) => {
  const disk = fs.mkdtempSync('/tmp/disk-');
  await run(['mount', '-t', 'tmpfs', '-o', 'size=40m', 'disk', disk]);
  t.after(async () => {
    await run(['umount', '--lazy', disk]);
    fs.rmdirSync(disk);
  });
  const engine = await startEngine(t, { flags: ['--data-root', disk] });
  await importBusybox(engine);
  const ends = await start(engine, 'ends', ['sh', '-c', 'sleep 1; exit 7']);
  const stays = await start(engine, 'stays', ['sleep', '1000']);
  const pid = (await stateOf(engine, stays)).Pid;
  await run(['sh', '-c', `dd if=/dev/zero of=${disk}/a bs=64k; dd if=/dev/zero of=${disk}/b bs=1k; true`]);
  await sleep(1500);
  assert.equal((await engine.api('POST', `/containers/${stays}/stop?t=0`)).status, 500);
  assert.equal(fs.existsSync(`/proc/${pid}`), false, 'the process was ended all the same');
  fs.rmSync(`${disk}/a`);
  fs.rmSync(`${disk}/b`);
  await eventually(async () => assert.equal((await stateOf(engine, ends)).ExitCode, 7), 10_000);
  await eventually(async () => assert.equal((await stateOf(engine, stays)).Running, false), 10_000);
});

test('after a reboot restart policies hold, also of containers that share a network', async (t) => {
  const engine = await startEngine(t);
  await importBusybox(engine);
  const sleeper = ['sleep', '1000'];
  const HostConfig = { RestartPolicy: { Name: 'always' }, PortBindings: { '80/tcp': [{ HostPort: '8085' }] } };
  const ids = {
    owner: await start(engine, 'owner', sleeper, { HostConfig }),
    sharer: await start(engine, 'sharer', sleeper, {
      HostConfig: { RestartPolicy: { Name: 'always' }, NetworkMode: 'container:owner' },
    }),
    plain: await start(engine, 'plain', sleeper),
    removed: await start(engine, 'removed', sleeper, { HostConfig: { AutoRemove: true } }),
    stopped: await start(engine, 'stopped', sleeper, runPolicy('unless-stopped')),
  };
  await engine.call('POST', '/containers/stopped/stop?t=0');
  const pids = await Promise.all(Object.values(ids).map(async (id) => (await stateOf(engine, id)).Pid));
  await engine.kill9();
  await powerCut(engine, pids);
  await engine.launch();

  // Until records and kernel agree, answers tell of the time before.
  await eventually(async () => {
    const { Running, ExitCode } = await stateOf(engine, ids.plain);
    assert.deepEqual([Running, ExitCode], [false, 255]);
  }, 10_000);
  await eventually(async () => {
    for (const id of [ids.owner, ids.sharer]) assert.equal((await stateOf(engine, id)).Running, true);
  }, 10_000);
  assert.equal((await stateOf(engine, ids.stopped)).Running, false);
  await eventually(async () => assert.equal((await engine.api('GET', `/containers/${ids.removed}/json`)).status, 404));
});
