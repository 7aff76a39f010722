/**
 * The daemon is killed with -9 at random moments while containers run, print, end and are being made and removed. After each new
 * start every running container is the same process, no line is missing or doubled, ends are known with code and time,
 * restart policies go on, old containers can be attached to and entered, and in the end nothing is left.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sleep } from '../support/command.ts';
import { startEngine, type TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

const rounds = Number(process.env.SLIPWAY_CRASH_ROUNDS ?? 12);

const random = (max: number) => Math.floor(Math.random() * max);

async function run(engine: TestEngine, name: string, script: string, host: object = {}): Promise<string> {
  const { Id } = await engine.call('POST', `/containers/create?name=${name}`, {
    Image: 'busybox',
    Cmd: ['sh', '-c', script],
    HostConfig: host,
  });
  await engine.call('POST', `/containers/${Id}/start`);
  return Id;
}

async function lines(engine: TestEngine, id: string): Promise<string[]> {
  const { stdout } = await engine.docker(['logs', id]);
  return stdout.split('\n').slice(0, -1);
}

test('containers outlive a daemon that is killed at any moment', { timeout: 300_000 }, async (t) => {
  const engine = await startEngine(t);
  await importBusybox(engine);

  const ticker = await run(engine, 'ticker', 'i=0; while :; do echo $i; i=$((i+1)); usleep 3000; done');
  const web = await run(engine, 'web', 'echo here > /index.html; exec httpd -f -p 80 -h /', {
    PortBindings: { '80/tcp': [{ HostPort: '8099' }] },
  });
  const phoenix = await run(engine, 'phoenix', 'sleep 0.3; exit 3', { RestartPolicy: { Name: 'always' } });
  const pidOf = async (id: string): Promise<number> => (await engine.call('GET', `/containers/${id}/json`)).State.Pid;
  const [tickerPid, webPid] = [await pidOf(ticker), await pidOf(web)];

  for (let round = 0; round < rounds; round++) {
    // Ends while nobody looks, at a moment around the crash.
    const code = 1 + random(120);
    const mortal = await run(engine, `mortal${round}`, `sleep 0.${1 + random(8)}; echo last words; exit ${code}`);
    const before = Date.now();
    // Creations that were acknowledged and whose removal was not even asked for.
    const promised = new Set<string>();
    const activity = (async () => {
      for (let i = 0; ; i++) {
        const AutoRemove = random(2) === 0;
        const body = { Image: 'busybox', Cmd: ['true'], HostConfig: { AutoRemove } };
        const { Id } = await engine.call('POST', `/containers/create?name=busy${round}_${i}`, body);
        if (!AutoRemove) promised.add(Id);
        await engine.call('POST', `/containers/${Id}/start`);
        await engine.call('POST', `/containers/${Id}/wait`);
        promised.delete(Id);
        const { status, text } = await engine.api('DELETE', `/containers/${Id}?force=1`);
        assert.ok(status === 204 || status === 404, text);
      }
    })().catch((error: unknown) => {
      // The daemon's death ends it; an answer that was wrong is another matter.
      if (error instanceof assert.AssertionError) throw error;
    });
    await sleep(random(400));
    await engine.kill9();
    await activity;
    await sleep(random(500));
    await engine.launch();

    const known = new Set((await engine.call('GET', '/containers/json?all=1')).map((row: { Id: string }) => row.Id));
    for (const id of promised) assert.ok(known.has(id), `the acknowledged container ${id} is still known`);
    assert.equal(await pidOf(ticker), tickerPid);
    assert.equal(await pidOf(web), webPid);

    const { StatusCode } = await engine.call('POST', `/containers/${mortal}/wait`);
    assert.equal(StatusCode, code, `exit code of round ${round}`);
    assert.deepEqual(await lines(engine, mortal), ['last words']);
    const { State } = await engine.call('GET', `/containers/${mortal}/json`);
    const finished = Date.parse(State.FinishedAt);
    assert.ok(
      finished >= before && finished <= before + 3000,
      `ended at ${State.FinishedAt}, started about ${new Date(before).toISOString()}`,
    );

    const seen = await lines(engine, ticker);
    assert.deepEqual(
      seen,
      seen.map((_, i) => String(i)),
      `log of the ticker in round ${round}`,
    );

    const fetched = await engine.inNetns(['curl', '-s', '--max-time', '5', 'http://127.0.0.1:8099/']);
    assert.equal(fetched.stdout, 'here\n');
    assert.equal(await engine.mustDocker(['exec', 'ticker', 'echo', 'inside']), 'inside\n');
  }

  const { RestartCount, State } = await engine.call('GET', `/containers/${phoenix}/json`);
  assert.ok(RestartCount > 0, 'the restart policy went on');
  assert.ok(['running', 'restarting'].includes(State.Status), State.Status);
  await engine.removeAll();
  await engine.assertNoLeaks();
});

test('a container typed into outlives the daemon, and can be typed into again', { timeout: 60_000 }, async (t) => {
  const engine = await startEngine(t);
  await importBusybox(engine);
  const id = (
    await engine.mustDocker(['run', '-d', '-i', 'busybox', 'sh', '-c', 'while read line; do echo "got $line"; done'])
  ).trim();
  await engine.kill9();
  await engine.launch();
  const attached = engine.spawnDocker(['attach', id]);
  attached.stdin?.write('hello\n');
  let output = '';
  attached.stdout?.on('data', (data: Buffer) => {
    output += data.toString();
  });
  for (const until = Date.now() + 10_000; !output.includes('got hello') && Date.now() < until; ) await sleep(20);
  attached.kill();
  assert.equal(output, 'got hello\n');
});

test('a monitor that dies with its container is noticed', { timeout: 60_000 }, async (t) => {
  const engine = await startEngine(t);
  await importBusybox(engine);
  const id = (await engine.mustDocker(['run', '-d', 'busybox', 'sleep', '1000'])).trim();
  const { Pid } = (await engine.call('GET', `/containers/${id}/json`)).State;
  await engine.kill9();
  process.kill(Pid, 'SIGKILL');
  await sleep(100);
  await engine.launch();
  const { StatusCode } = await engine.call('POST', `/containers/${id}/wait`);
  assert.equal(StatusCode, 137);
});
