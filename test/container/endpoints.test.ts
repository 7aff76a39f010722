/**
 * Endpoints of containers in their corners: filters of the list and of prune, `top` with any arguments, stats, resize, wait,
 * exec, names. What holds on dockerd 20.10 too is asked there as well.
 *
 * test-timeout-seconds: 240
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { type EngineKind, TestEngine } from '../support/engine.ts';
import type { Answer, Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

const sleeper = { Image: 'busybox', Cmd: ['sleep', '1000'] };

async function populate(engine: TestEngine): Promise<void> {
  await importBusybox(engine);
  const make = async (name: string, body: object, start = true) => {
    await engine.call('POST', `/v1.26/containers/create?name=${name}`, body);
    if (start) await engine.call('POST', `/containers/${name}/start`);
  };
  await make('one', {
    ...sleeper,
    Labels: { a: '1', b: '2' },
    ExposedPorts: { '80/tcp': {}, '53/udp': {} },
    HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '18080' }] } },
  });
  await make('two', {
    ...sleeper,
    Labels: { a: '2' },
    Volumes: { '/vol': {} },
    HostConfig: { NetworkMode: 'none', Binds: ['/tmp:/mnt', 'named:/nv'] },
  });
  await make('three', { Image: 'busybox', Cmd: ['sh', '-c', 'exit 3'] });
  await engine.call('POST', '/containers/three/wait');
  await engine.call('POST', '/commit?container=three&repo=child');
  await make('zero', { Image: 'child', Cmd: ['true'] });
  await engine.call('POST', '/containers/zero/wait');
  await make('made', sleeper, false);
  await make('still', sleeper);
  await engine.call('POST', '/containers/still/pause');
}

const everyone = 'made one still three two zero';
/** Filters, the containers they let through (all of them asked), or the status and text of the refusal. */
const lists: readonly (readonly [
  filter: object | string,
  expected: string | readonly [number, string],
  only?: 'slipway',
])[] = [
  [{}, everyone],
  [{ ancestor: ['busybox'] }, everyone],
  [{ ancestor: ['child'] }, 'zero'],
  [{ ancestor: ['nosuch'] }, ''],
  [{ ancestor: ['nosuch', 'child'] }, 'zero'],
  [{ before: ['three'] }, 'one two'],
  [{ since: ['three'] }, 'made still zero'],
  [{ before: ['nosuch'] }, [404, 'No such container: nosuch'], 'slipway'],
  [{ expose: ['80'] }, 'one'],
  [{ expose: ['50-60/udp'] }, 'one'],
  [{ expose: ['80/udp'] }, ''],
  [{ expose: ['x'] }, [400, "Invalid filter 'expose=x': not a port or a range"], 'slipway'],
  [{ expose: ['99999'] }, [400, "Invalid filter 'expose=99999': not a port or a range"], 'slipway'],
  [{ publish: ['18080'] }, 'one'],
  [{ publish: ['18000-19000/tcp'] }, 'one'],
  [{ publish: ['80'] }, ''],
  [{ publish: ['9-1'] }, [400, "Invalid filter 'publish=9-1': not a port or a range"], 'slipway'],
  [{ exited: ['3'] }, 'three'],
  [{ exited: ['3', '0'] }, 'three zero'],
  [{ exited: ['x'] }, [400, "Invalid filter 'exited=x'"], 'slipway'],
  [{ health: ['none'] }, everyone],
  [{ health: ['healthy', 'starting', 'unhealthy'] }, ''],
  [{ health: ['bad'] }, [400, 'Unrecognised filter value for health: bad']],
  [{ id: ['ONE'] }, 'one'],
  [{ id: ['nosuch'] }, ''],
  [{ id: [''] }, ''],
  [{ isolation: ['default'] }, everyone],
  [{ 'is-task': ['false'] }, everyone],
  [{ 'is-task': ['true'] }, ''],
  [{ 'is-task': ['x'] }, [400, "Invalid filter 'is-task=[x]'"]],
  // dockerd says them in any order.
  [{ 'is-task': ['1', '0'] }, [400, "Invalid filter 'is-task=[1 0]'"], 'slipway'],
  [{ label: ['a'] }, 'one two'],
  [{ label: ['a=1', 'b'] }, 'one'],
  [{ label: ['a=1', 'a=2'] }, ''],
  [{ label: ['a='] }, ''],
  [{ name: ['e$'] }, 'made one three'],
  [{ name: ['^/one$'] }, 'one'],
  [{ name: ['^one$', 'two'] }, 'one two'],
  [{ name: ['['] }, ''],
  [{ network: ['none'] }, 'two'],
  [{ network: ['bridge'] }, 'made one still three zero'],
  [{ network: ['nosuch'] }, ''],
  [{ status: ['running'] }, 'one two'],
  [{ status: ['exited', 'created'] }, 'made three zero'],
  [{ status: ['paused'] }, 'still'],
  [{ status: ['dead', 'removing', 'restarting'] }, ''],
  [{ status: ['bad'] }, [400, "Invalid filter 'status=bad'"]],
  [{ volume: ['/vol'] }, 'two'],
  [{ volume: ['named'] }, 'two'],
  [{ volume: ['/tmp'] }, 'two'],
  [{ volume: ['name'] }, ''],
  [{ label: ['a'], name: ['one'], status: ['running'] }, 'one'],
  ['{"label":{"a":true}}', 'one two'],
  ['null', everyone],
  [{ nosuch: ['x'] }, [400, "Invalid filter 'nosuch'"]],
  [{ nosuch: [] }, [400, "Invalid filter 'nosuch'"]],
  [{ 'label!': ['a'] }, [400, "Invalid filter 'label!'"]],
  [{ until: ['1h'] }, [400, "Invalid filter 'until'"]],
];

/** Queries without `all`, and how many or who is listed. */
const selections: readonly (readonly [query: string, expected: string])[] = [
  ['', 'one still two'],
  ['all=0', 'one still two'],
  ['all=true', everyone],
  ['limit=2', 'made still'],
  ['limit=0', 'one still two'],
  ['limit=-1', 'one still two'],
  ['limit=100', everyone],
  ['limit=1&filters={"label":["a"]}', 'two'],
  ['filters={"status":["exited"]}', 'three zero'],
  ['filters={"exited":["3"]}', ''],
  ['filters={"before":["made"]}', 'one two'],
  ['filters={"name":["made"]}', ''],
];

const namesIn = (rows: Loose): string =>
  rows
    .map(({ Names }: Loose) => Names.map((name: string) => name.slice(1)).join('+'))
    .sort()
    .join(' ');

for (const kind of ['slipway', 'dockerd'] as const satisfies readonly EngineKind[]) {
  describe(`lists of ${kind}`, () => {
    let engine: TestEngine;
    let id = '';
    before(async () => {
      engine = await TestEngine.start({ kind });
      await populate(engine);
      id = (await engine.call('GET', '/containers/one/json')).Id;
    });
    after(() => engine?.close());

    for (const [filter, expected, only] of lists) {
      if (only !== undefined && only !== kind) continue;
      const text = typeof filter === 'string' ? filter : JSON.stringify(filter);
      test(text, async () => {
        const filters = encodeURIComponent(text.replace('ONE', id.slice(0, 10)));
        const answer = await engine.api('GET', `/v1.26/containers/json?all=1&filters=${filters}`);
        if (typeof expected === 'string') assert.equal(namesIn(answer.json()), expected);
        else assert.deepEqual([answer.status, answer.json().message], expected);
      });
    }
    for (const [query, expected] of selections) {
      test(`?${query}`, async () => {
        const asked = query.replace(/(?<=filters=).*/, encodeURIComponent);
        assert.equal(namesIn(await engine.call('GET', `/v1.26/containers/json?${asked}`)), expected);
      });
    }
    test('rows', async () => {
      const rows = await engine.call('GET', '/v1.26/containers/json?all=1&size=1');
      assert.deepEqual(
        rows.map(({ Names }: Loose) => Names),
        [['/still'], ['/made'], ['/zero'], ['/three'], ['/two'], ['/one']],
        'the newest first',
      );
      const [still, made, zero, three, , one] = rows;
      assert.equal(three.Command, "sh -c 'exit 3'");
      assert.deepEqual([still.State, made.State, zero.State], ['paused', 'created', 'exited']);
      assert.match(still.Status, /^Up .* \(Paused\)$/);
      assert.equal(made.Status, 'Created');
      assert.match(three.Status, /^Exited \(3\) /);
      assert.equal(zero.Image, 'child');
      assert.ok(one.SizeRootFs > 1_000_000);
      assert.ok(!('SizeRw' in one), 'nothing was written');
      assert.deepEqual(one.HostConfig, { NetworkMode: 'default' });
      const published = one.Ports.filter(({ PublicPort }: Loose) => PublicPort === 18080);
      assert.ok(
        published.length >= 1 && published.every((port: Loose) => port.PrivatePort === 80 && port.Type === 'tcp'),
      );
      assert.ok(
        one.Ports.some((port: Loose) => port.PrivatePort === 53 && port.Type === 'udp' && !('PublicPort' in port)),
      );
      const [row] = await engine.call('GET', '/v1.26/containers/json');
      assert.ok(!('SizeRootFs' in row), 'only when asked for');
    });
    test('an image that lost its name is shown by its id', async () => {
      await engine.call('POST', '/commit?container=three&repo=moving');
      await engine.call('POST', '/containers/create?name=left', { Image: 'moving', Cmd: ['true'] });
      await engine.call('POST', '/commit?container=three&repo=moving');
      const [row] = await engine.call('GET', '/containers/json?all=1&filters={"name":["left"]}');
      assert.equal(row.Image, row.ImageID);
    });
  });
}

describe('endpoints', () => {
  let engine: TestEngine;
  before(async () => {
    engine = await TestEngine.start();
    await importBusybox(engine);
    await engine.call('POST', '/containers/create?name=runs', {
      Image: 'busybox',
      Cmd: ['sh', '-c', 'sleep 1000 & sleep 1001; true'],
    });
    await engine.call('POST', '/containers/runs/start');
    await engine.call('POST', '/containers/create?name=ended', { Image: 'busybox', Cmd: ['sh', '-c', 'exit 3'] });
    await engine.call('POST', '/containers/ended/start');
    await engine.call('POST', '/containers/ended/wait');
  });
  after(() => engine?.close());

  const refusal = (answer: Answer) => [answer.status, answer.json().message] as const;
  const top = (args: string) => engine.api('GET', `/v1.26/containers/runs/top?ps_args=${encodeURIComponent(args)}`);

  test('prune takes what its filters let through, by label and age', async () => {
    const make = async (name: string, Labels: object = {}) =>
      engine.call('POST', `/containers/create?name=${name}`, { Image: 'busybox', Labels });
    const prune = async (filters: object) =>
      (await engine.call('POST', `/v1.26/containers/prune?filters=${encodeURIComponent(JSON.stringify(filters))}`))
        .ContainersDeleted ?? [];
    const a = await make('pa', { kind: 'a' });
    const b = await make('pb', { kind: 'b' });
    const now = Date.now() / 1000;
    for (const until of [
      '1h',
      '1h30m',
      '2001-02-03',
      '2001-02-03T04:05',
      '2001-02-03T04:05:06.5Z',
      '2001-02-03T04:05:06+02:00',
      '981173106',
      String(now - 3600),
    ]) {
      assert.deepEqual(await prune({ until: [until] }), [], until);
    }
    assert.deepEqual(await prune({ label: ['nosuch'] }), []);
    assert.deepEqual(await prune({ 'label!': ['kind=b'], label: ['kind'] }), [a.Id]);
    assert.deepEqual(await prune({ label: ['kind=b'], until: [String(now + 60)] }), [b.Id]);
    for (const [filters, message] of [
      [{ until: ['x'] }, 'failed to parse value as time or duration: "x"'],
      [{ until: ['1h', '2h'] }, 'more than one until filter specified'],
      [{ until: [] }, "Invalid filter 'until': no time is given"],
      [{ nosuch: ['x'] }, "Invalid filter 'nosuch'"],
      [{ name: ['ended'] }, "Invalid filter 'name'"],
    ] as const) {
      const query = encodeURIComponent(JSON.stringify(filters));
      assert.deepEqual(refusal(await engine.api('POST', `/containers/prune?filters=${query}`)), [400, message]);
    }
    assert.equal((await engine.call('GET', '/containers/ended/json')).State.Status, 'exited');
  });

  test('top with any arguments shows the container’s processes, and only those', async () => {
    for (const [args, titles] of [
      ['', 'UID PID PPID C STIME TTY TIME CMD'],
      ['-ef', 'UID PID PPID C STIME TTY TIME CMD'],
      ['aux', 'USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND'],
      ['-o pid,cmd', 'PID CMD'],
      ['o pid,comm', 'PID COMMAND'],
      ['-o comm,pid -o args', 'COMMAND PID COMMAND'],
      ['axo pid:20,user,args', 'PID USER COMMAND'],
    ] as const) {
      const { Titles, Processes } = (await top(args)).json();
      assert.equal(Titles.join(' '), titles, args);
      assert.equal(Processes.length, 3, args);
      for (const process of Processes) assert.equal(process.length, Titles.length);
      if (/CMD|args/.test(args + titles))
        assert.ok(
          Processes.some((row: string[]) => row.at(-1) === 'sleep 1001'),
          args,
        );
    }
    for (const [args, message] of [
      ['-o cmd', "Couldn't find PID field in ps output"],
      ['-o pid=', "Couldn't find PID field in ps output"],
      ['--bad', 'ps: error: unknown gnu long option'],
      ['; ls', 'ps: error: garbage option'],
      ['--ppid 1', 'bad ps args: --ppid 1'],
    ] as const) {
      assert.deepEqual(refusal(await top(args)), [400, message]);
    }
  });

  test('stats of what does not run are zeros, at once', async () => {
    const { name, read, pids_stats, memory_stats, cpu_stats, ...rest } = await engine.call(
      'GET',
      '/v1.26/containers/ended/stats?stream=0',
    );
    assert.deepEqual([name, read, pids_stats, memory_stats], ['/ended', '0001-01-01T00:00:00Z', {}, {}]);
    assert.equal(cpu_stats.cpu_usage.total_usage, 0);
    assert.ok(!('networks' in rest));
    const now = await engine.call('GET', '/v1.26/containers/runs/stats?stream=0');
    assert.ok(now.memory_stats.usage > 0 && now.pids_stats.current === 3);
    assert.ok(Date.parse(now.preread) < Date.parse(now.read), 'one before it, for rates');
    assert.ok('eth0' in now.networks);
  });

  test('wait answers at once for what has ended, whatever condition is asked', async () => {
    for (const query of ['', '?condition=not-running', '?condition=bogus'])
      assert.equal((await engine.call('POST', `/v1.26/containers/ended/wait${query}`)).StatusCode, 3);
  });

  test('resize', async () => {
    const { Id } = await engine.call('GET', '/containers/ended/json');
    assert.equal((await engine.api('POST', '/containers/runs/resize?h=10&w=20')).status, 200);
    assert.deepEqual(refusal(await engine.api('POST', '/containers/ended/resize?h=1&w=1')), [
      409,
      `Container ${Id} is not running`,
    ]);
    for (const query of ['', 'h=1', 'h=x&w=1', 'h=1&w=-1', 'h=70000&w=1'])
      assert.equal((await engine.api('POST', `/containers/runs/resize?${query}`)).status, 400, query);
  });

  test('an exec from its creation to its end', async () => {
    const create = (body: object) => engine.api('POST', '/v1.26/containers/runs/exec', body);
    const body = { Cmd: ['sh', '-c', 'exit 5'], AttachStdout: true, User: '0', DetachKeys: 'ctrl-a', Env: ['A=1'] };
    const { Id } = (await create(body)).json();
    const container = (await engine.call('GET', '/containers/runs/json')).Id;
    const expected = {
      ID: Id,
      Running: false,
      ExitCode: null,
      ProcessConfig: { tty: false, entrypoint: 'sh', arguments: ['-c', 'exit 5'], privileged: false, user: '0' },
      OpenStdin: false,
      OpenStderr: false,
      OpenStdout: true,
      CanRemove: false,
      ContainerID: container,
      DetachKeys: 'AQ==',
      Pid: 0,
    };
    assert.deepEqual(await engine.call('GET', `/v1.26/exec/${Id}/json`), expected);
    assert.equal((await engine.api('POST', `/exec/${Id}/resize?h=1&w=1`)).status, 200, 'kept for the start');
    assert.equal((await engine.api('POST', `/exec/${Id}/start`, { Detach: true })).status, 200);
    await eventually(async () => assert.equal((await engine.call('GET', `/exec/${Id}/json`)).ExitCode, 5));
    const { Pid, ...ended } = await engine.call('GET', `/v1.26/exec/${Id}/json`);
    assert.deepEqual(ended, {
      ...Object.fromEntries(Object.entries(expected).filter(([key]) => key !== 'Pid')),
      ExitCode: 5,
      CanRemove: true,
    });
    assert.ok(Pid > 0);
    const again = `Error: Exec command ${Id} has already run`;
    assert.deepEqual(refusal(await engine.api('POST', `/exec/${Id}/start`, { Detach: true })), [409, again]);
    assert.deepEqual(refusal(await engine.api('POST', `/exec/${Id}/resize?h=1&w=1`)), [409, again]);
    assert.deepEqual(refusal(await engine.api('GET', `/exec/${Id.slice(0, 12)}/json`)), [
      404,
      `No such exec instance: ${Id.slice(0, 12)}`,
    ]);
    assert.deepEqual(refusal(await create({ Cmd: ['true'], DetachKeys: 'bad-keys' })), [
      400,
      'Invalid escape keys (bad-keys) provided',
    ]);
  });

  test('an exec that cannot be started says why, with exit code 126', async () => {
    for (const [body, text] of [
      [{ Cmd: ['nosuch'] }, /exec: "nosuch": executable file not found in \$PATH/],
      [{ Cmd: [''] }, /exec: "": executable file not found in \$PATH/],
      [{ Cmd: ['/etc'] }, /exec: "\/etc": permission denied/],
      [{ Cmd: ['true'], User: 'nosuch' }, /^unable to find user nosuch: no matching entries in passwd file$/],
      [
        { Cmd: ['true'], WorkingDir: '/nosuch' },
        /chdir to cwd \("\/nosuch"\) set in config\.json failed: no such file or directory/,
      ],
    ] as const) {
      const { Id } = await engine.call('POST', '/containers/runs/exec', body);
      const answer = await engine.api('POST', `/exec/${Id}/start`, { Detach: true });
      assert.equal(answer.status, 400, answer.text);
      assert.match(answer.json().message, text);
      const { Running, ExitCode } = await engine.call('GET', `/exec/${Id}/json`);
      assert.deepEqual([Running, ExitCode], [false, 126]);
    }
  });

  test('names', async () => {
    for (const name of ['/slash', 'a.b-c_d', '0ab', 'x'.repeat(300)]) {
      await engine.call('POST', `/containers/create?name=${encodeURIComponent(name)}`, sleeper);
      const bare = name.replace(/^\//, '');
      assert.equal((await engine.call('GET', `/containers/${bare}/json`)).Name, `/${bare}`);
      await engine.call('DELETE', `/containers/${bare}`);
    }
    const { Id } = await engine.call('POST', '/containers/create?name=before', sleeper);
    await engine.call('POST', `/containers/before/rename?name=${encodeURIComponent('/later')}`);
    assert.equal((await engine.call('GET', '/containers/later/json')).Id, Id);
    assert.equal((await engine.api('GET', '/containers/before/json')).status, 404);
    await engine.call('POST', '/containers/create?name=before', sleeper);
    await engine.call('DELETE', '/containers/before');
    await engine.call('POST', '/containers/runs/rename?name=walks');
    await engine.call('POST', '/containers/walks/rename?name=runs');
    const { Id: invented } = await engine.call('POST', '/containers/create', sleeper);
    assert.match((await engine.call('GET', `/containers/${invented}/json`)).Name, /^\/[a-z]+_[a-z]+\d*$/);
  });
});
