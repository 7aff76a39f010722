/** Health checks: what is asked for, what inspect, ps, filters and events say, and what they cost. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  checkHealthcheck,
  type Health,
  healthAfter,
  mergeHealthcheck,
  type ProbePlan,
  probePlan,
} from '../../src/container/health.ts';
import { eventually } from '../support/command.ts';
import { startEngine, type TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

const ms = 1e6;
const second = 1e9;

describe('health as a function', () => {
  const plan = probePlan({ Healthcheck: { Test: ['CMD', 'x'], Retries: 2, StartPeriod: 10 * second } }) as ProbePlan;
  const result = (ExitCode: number) => ({ Start: '', End: '', ExitCode, Output: '' });
  const fresh: Health = { status: 'starting', failingStreak: 0, log: [] };

  it('plans: none, a command, a shell command with the default shell or its own', () => {
    assert.equal(probePlan({}), null);
    assert.equal(probePlan({ Healthcheck: { Test: [] } }), null);
    assert.equal(probePlan({ Healthcheck: { Test: ['NONE'] } }), null);
    assert.equal(probePlan({ Healthcheck: { Test: ['ODD', 'x'] } }), null);
    const defaults = probePlan({ Healthcheck: { Test: ['CMD-SHELL', 'a b'] } });
    assert.deepEqual(defaults, {
      cmd: ['/bin/sh', '-c', 'a b'],
      intervalMs: 30_000,
      timeoutMs: 30_000,
      timeoutText: '30s',
      startPeriodMs: 0,
      retries: 3,
    });
    const own = { Healthcheck: { Test: ['CMD-SHELL', 'a b'], Timeout: 90 * second }, Shell: ['/bin/ash', '-ec'] };
    assert.deepEqual(probePlan(own)?.cmd, ['/bin/ash', '-ec', 'a b']);
    assert.equal(probePlan(own)?.timeoutText, '1m30s');
  });

  it("merges with the image's field by field", () => {
    const image = { Test: ['CMD', 'image'], Interval: 5 * second, Retries: 7 };
    assert.deepEqual(mergeHealthcheck(undefined, image), image);
    assert.deepEqual(mergeHealthcheck({ Timeout: second }, image), { ...image, Timeout: second });
    assert.deepEqual(mergeHealthcheck({ Test: ['NONE'] }, image)?.Test, ['NONE']);
    assert.equal(mergeHealthcheck({ Retries: 1, Interval: 0 }, image)?.Interval, 5 * second);
  });

  it('needs as many failures in a row as retries to be unhealthy, and one success to be healthy', () => {
    const sick = healthAfter(healthAfter({ ...fresh, status: 'healthy' }, result(1), plan, 1e6), result(1), plan, 1e6);
    assert.deepEqual([sick.status, sick.failingStreak], ['unhealthy', 2]);
    const once = healthAfter({ ...fresh, status: 'healthy' }, result(1), plan, 0);
    assert.deepEqual([once.status, once.failingStreak], ['healthy', 1]);
    const well = healthAfter(sick, result(0), plan, 1e6);
    assert.deepEqual([well.status, well.failingStreak], ['healthy', 0]);
  });

  it('does not count failures in the start period, until it has been healthy once', () => {
    const early = healthAfter(fresh, result(1), plan, 9_999);
    assert.deepEqual([early.status, early.failingStreak, early.log.length], ['starting', 0, 1]);
    assert.equal(healthAfter(fresh, result(1), plan, 10_000).failingStreak, 1);
    assert.equal(healthAfter({ ...fresh, status: 'healthy' }, result(1), plan, 5).failingStreak, 1);
  });

  it('keeps the last five results', () => {
    let health = fresh;
    for (let code = 0; code < 8; code += 1) health = healthAfter(health, result(code), plan, 0);
    assert.deepEqual(
      health.log.map((entry) => entry.ExitCode),
      [3, 4, 5, 6, 7],
    );
  });

  for (const [check, text] of [
    [{ Interval: 1 }, 'Interval in Healthcheck cannot be less than 1ms'],
    [{ Timeout: ms - 1 }, 'Timeout in Healthcheck cannot be less than 1ms'],
    [{ Interval: -1 }, 'Interval in Healthcheck cannot be less than 1ms'],
    [{ StartPeriod: 10 }, 'StartPeriod in Healthcheck cannot be less than 1ms'],
    [{ Retries: -1 }, 'Retries in Healthcheck cannot be negative'],
  ] as const) {
    it(`refuses ${JSON.stringify(check)}`, () => assert.throws(() => checkHealthcheck(check), { message: text }));
  }
});

describe('health checks of containers', () => {
  const cleanUps: (() => Promise<void>)[] = [];
  let engine: TestEngine;

  before(async () => {
    engine = await startEngine({ after: (cleanUp) => cleanUps.push(cleanUp) });
    await importBusybox(engine);
  });
  after(async () => {
    for (const cleanUp of cleanUps.reverse()) await cleanUp();
  });

  async function run(
    Healthcheck: object,
    more: object = {},
    cmd: readonly string[] = ['sleep', '1000'],
  ): Promise<string> {
    const body = { Image: 'busybox', Cmd: cmd, Healthcheck, HostConfig: { NetworkMode: 'none' }, ...more };
    const { Id } = await engine.call('POST', '/v1.26/containers/create', body);
    await engine.call('POST', `/v1.26/containers/${Id}/start`);
    return Id;
  }
  const state = async (id: string) => (await engine.call('GET', `/v1.26/containers/${id}/json`)).State;
  const remove = (id: string) => engine.call('DELETE', `/v1.26/containers/${id}?force=1`);
  const becomes = (id: string, status: string) =>
    eventually(async () => {
      const { Health } = await state(id);
      assert.equal(Health?.Status, status, JSON.stringify(Health));
    }, 10_000);
  /** Actions of a container's events so far. */
  const eventsOf = async (id: string): Promise<string[]> => {
    const text = (await engine.api('GET', `/v1.26/events?since=0&until=${Math.ceil(Date.now() / 1000) + 1}`)).text;
    return text
      .split('\n')
      .filter((line) => line.includes(`"id":"${id}"`))
      .map((line) => JSON.parse(line).Action);
  };
  const inside = async (id: string): Promise<string[]> =>
    (await engine.call('GET', `/v1.26/containers/${id}/top`)).Processes.map((row: string[]) => row.at(-1));

  it('starting, healthy, unhealthy and back: inspect, ps, filters; events only on change, none for the probes', async () => {
    const id = await run({ Test: ['CMD-SHELL', 'echo checked; test -e /well'], Interval: 300 * ms, Retries: 2 });
    const begins = await state(id);
    assert.deepEqual([begins.Health.Status, begins.Health.FailingStreak], ['starting', 0]);
    assert.match((await engine.call('GET', '/v1.26/containers/json'))[0].Status, /^Up .* \(health: starting\)$/);
    await becomes(id, 'unhealthy');
    const sick = (await state(id)).Health;
    assert.ok(sick.FailingStreak >= 2);
    const [first] = sick.Log;
    assert.deepEqual([first.ExitCode, first.Output], [1, 'checked\n']);
    assert.ok(Date.parse(first.Start) <= Date.parse(first.End));
    assert.match((await engine.call('GET', '/v1.26/containers/json'))[0].Status, / \(unhealthy\)$/);

    await engine.mustDocker(['exec', id, 'touch', '/well']);
    await becomes(id, 'healthy');
    assert.match((await engine.call('GET', '/v1.26/containers/json'))[0].Status, / \(healthy\)$/);
    const filtered = async (health: string) =>
      (await engine.call('GET', `/v1.26/containers/json?filters={"health":["${health}"]}`)).map(
        (r: { Id: string }) => r.Id,
      );
    assert.deepEqual(await filtered('healthy'), [id]);
    assert.deepEqual(await filtered('none'), []);
    await sleep(1000);
    const actions = await eventsOf(id);
    assert.deepEqual(
      actions.filter((action) => action.startsWith('health_status')),
      ['health_status: unhealthy', 'health_status: healthy'],
    );
    const execs = actions.filter((action) => action.startsWith('exec_'));
    assert.ok(
      execs.length <= 3 && execs.every((action) => action.endsWith('touch /well') || action === 'exec_die'),
      `${execs}`,
    );
    assert.equal((await state(id)).Health.Log.length, 5);
    assert.equal((await engine.call('GET', `/v1.26/containers/${id}/json`)).ExecIDs, null);
    await remove(id);
  });

  it('a command that is not there, long output, and the environment, user and directory of the container', async () => {
    const missing = await run({ Test: ['CMD', 'nix'], Interval: 100 * ms });
    const long = await run({ Test: ['CMD-SHELL', 'yes 0123456789 | head -c 100000; exit 4'], Interval: 100 * ms });
    const where = await run(
      { Test: ['CMD-SHELL', 'echo $WHO $(id -u) $(pwd)'], Interval: 100 * ms },
      { Env: ['WHO=me'], User: '7', WorkingDir: '/tmp' },
    );
    await eventually(async () => assert.ok((await state(long)).Health.Log.length >= 3));
    const [entry] = (await state(missing)).Health.Log;
    assert.equal(entry.ExitCode, -1);
    assert.match(entry.Output, /exec: "nix": executable file not found in \$PATH/);
    for (const { Output, ExitCode } of (await state(long)).Health.Log) {
      assert.equal(ExitCode, 4);
      assert.deepEqual([Output.length, Output.slice(-3)], [4099, '...']);
    }
    for (const { Output } of (await state(where)).Health.Log) assert.equal(Output, 'me 7 /tmp\n');
    for (const id of [missing, long, where]) await remove(id);
  });

  it('a probe that takes too long is ended with all its children, and the next one waits for it', async () => {
    const id = await run({
      Test: ['CMD-SHELL', 'sleep 77 & sleep 78'],
      Interval: 200 * ms,
      Timeout: 300 * ms,
      Retries: 1,
    });
    await becomes(id, 'unhealthy');
    const { Log } = (await state(id)).Health;
    assert.deepEqual([Log[0].ExitCode, Log[0].Output], [-1, 'Health check exceeded timeout (300ms)']);
    await eventually(async () => assert.ok((await state(id)).Health.Log.length >= 4));
    const sleeping = (await inside(id)).filter((command) => /^sleep 7/.test(command));
    assert.ok(sleeping.length <= 2, `${sleeping}`);
    await engine.call('POST', `/v1.26/containers/${id}/pause`);
    await engine.call('POST', `/v1.26/containers/${id}/unpause`);
    await remove(id);
  });

  it('probes stop with a pause and go on after it; a stop leaves unhealthy, a start begins anew', async () => {
    const id = await run({ Test: ['CMD', 'true'], Interval: 100 * ms }, { StopTimeout: 0 });
    await becomes(id, 'healthy');
    await engine.call('POST', `/v1.26/containers/${id}/pause`);
    const last = (await state(id)).Health.Log.at(-1).Start;
    await sleep(500);
    const paused = (await state(id)).Health;
    assert.deepEqual([paused.Status, paused.Log.at(-1).Start], ['healthy', last]);
    await engine.call('POST', `/v1.26/containers/${id}/unpause`);
    await eventually(async () => assert.notEqual((await state(id)).Health.Log.at(-1).Start, last));
    await engine.call('POST', `/v1.26/containers/${id}/stop?t=0`);
    const stopped = (await state(id)).Health;
    assert.equal(stopped.Status, 'unhealthy');
    await sleep(300);
    assert.deepEqual((await state(id)).Health, stopped);
    await engine.call('POST', `/v1.26/containers/${id}/start`);
    assert.equal((await state(id)).Health.Status, 'starting');
    await becomes(id, 'healthy');
    await engine.call('POST', `/v1.26/containers/${id}/restart?t=0`);
    await becomes(id, 'healthy');
    const changes = (await eventsOf(id)).filter((action) => action.startsWith('health_status'));
    assert.deepEqual(changes, Array(3).fill('health_status: healthy'));
    await remove(id);
  });

  it('over a daemon killed and started again the status stays and the probes go on', async () => {
    const id = await run({ Test: ['CMD', 'true'], Interval: 500 * ms });
    await becomes(id, 'healthy');
    await engine.kill9();
    await engine.launch();
    assert.equal((await state(id)).Health.Status, 'healthy');
    const known = (await state(id)).Health.Log.length;
    await eventually(async () => assert.ok((await state(id)).Health.Log.length > known));
    assert.equal((await eventsOf(id)).filter((action) => action.startsWith('health_status')).length, 1);
    await remove(id);
  });

  it('a shell that stays for frequent probes is started again when somebody kills it', async () => {
    const id = await run({ Test: ['CMD', 'true'], Interval: 100 * ms });
    const shells = async (): Promise<string[]> =>
      (await engine.call('GET', `/v1.26/containers/${id}/top`)).Processes.filter((row: string[]) =>
        row.at(-1)?.includes('slipway-health'),
      ).map((row: string[]) => row[1]);
    await eventually(async () => assert.equal((await shells()).length, 1));
    const [killed] = await shells();
    await engine.mustDocker([
      'exec',
      id,
      'sh',
      '-c',
      'cd /proc; for p in [0-9]*; do grep -q slipway-health $p/cmdline && [ $p != $$ ] && kill -9 $p; done; true',
    ]);
    await sleep(1000);
    const { Status, Log } = (await state(id)).Health;
    assert.equal(Status, 'healthy');
    assert.ok(
      Log.every((entry: { ExitCode: number }) => entry.ExitCode === 0),
      JSON.stringify(Log),
    );
    const [shell, ...more] = await shells();
    assert.ok(shell !== undefined && shell !== killed && more.length === 0, `${killed} ${shell} ${more}`);
    await remove(id);
  });

  it('an interval of dockerd’s kind is refused by its name; the config comes back from inspect', async () => {
    const refused = await engine.api('POST', '/v1.26/containers/create', {
      Image: 'busybox',
      Cmd: ['x'],
      Healthcheck: { Interval: 5 },
    });
    assert.deepEqual(
      [refused.status, refused.json().message],
      [400, 'Interval in Healthcheck cannot be less than 1ms'],
    );
    const check = { Test: ['CMD', 'true'], Interval: second, Timeout: 2 * second, StartPeriod: 3 * second, Retries: 4 };
    const id = await run(check);
    assert.deepEqual((await engine.call('GET', `/v1.26/containers/${id}/json`)).Config.Healthcheck, check);
    await remove(id);
    const none = await run({ Test: ['NONE'] });
    assert.equal((await state(none)).Health, undefined);
    await remove(none);
  });

  it('forty checks a second cost less than a fifth of a processor, daemon, runtime and probes together', async (t) => {
    const ids: string[] = [];
    for (let i = 0; i < 40; i += 1) ids.push(await run({ Test: ['CMD', 'true'], Interval: second }));
    await sleep(2500);
    const daemon = Number(fs.readFileSync(engine.paths.pidFile, 'latin1'));
    /** Seconds of the daemon, of what it has waited for, and of the containers. */
    const cpuSeconds = async () => {
      const fields = fs.readFileSync(`/proc/${daemon}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
      const own = fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks) / 100, 0);
      const samples = await Promise.all(ids.map((id) => engine.call('GET', `/v1.26/containers/${id}/stats?stream=0`)));
      return own + samples.reduce((sum, sample) => sum + sample.cpu_stats.cpu_usage.total_usage / 1e9, 0);
    };
    const started = performance.now();
    const before = await cpuSeconds();
    await sleep(5000);
    const after = await cpuSeconds();
    const cores = ((after - before) * 1000) / (performance.now() - started);
    t.diagnostic(`${cores.toFixed(3)} processors`);
    assert.ok(cores < 0.2, `${cores.toFixed(3)} processors`);
    for (const id of ids) assert.equal((await state(id)).Health.Status, 'healthy');
    await engine.removeAll();
    await engine.assertNoLeaks();
  });
});
