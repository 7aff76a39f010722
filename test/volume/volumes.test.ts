/** `/volumes` and the local driver, through the socket and the docker CLI. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { eventually, run } from '../support/command.ts';
import { engineKind, TestEngine } from '../support/engine.ts';
import type { Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
});
after(() => engine?.close());

afterEach(async () => {
  await engine.removeAll();
  for (const name of await names()) await engine.api('DELETE', `/volumes/${name}`);
});

const v = '/v1.26';
const slipway = { skip: engineKind === 'dockerd' };

async function names(filters: object = {}): Promise<string[]> {
  const query = encodeURIComponent(JSON.stringify(filters));
  const { Volumes } = await engine.call('GET', `${v}/volumes?filters=${query}`);
  return (Volumes ?? []).map((volume: Loose) => volume.Name).sort();
}

const make = (body: object): Promise<Loose> => engine.call('POST', `${v}/volumes/create`, body);

async function container(host: object, cmd = 'sleep 1000', body: object = {}): Promise<string> {
  const request = { Image: 'busybox', Cmd: ['sh', '-c', cmd], ...body, HostConfig: host };
  const { Id } = await engine.call('POST', `${v}/containers/create`, request);
  return Id;
}
const start = (id: string) => engine.call('POST', `${v}/containers/${id}/start`);
const remove = (id: string, query = 'force=1') => engine.call('DELETE', `${v}/containers/${id}?${query}`);

/** Runs a script to its end; resolves with what it printed. */
async function ran(script: string, host: object): Promise<string> {
  const id = await container(host, script, { Tty: true });
  await start(id);
  await engine.call('POST', `${v}/containers/${id}/wait`);
  const { text } = await engine.api('GET', `${v}/containers/${id}/logs?stdout=1&stderr=1`);
  await remove(id);
  return text.replaceAll('\r', '').trim();
}

async function refused(
  method: string,
  apiPath: string,
  body: object | undefined,
  status: number,
  text: string | RegExp,
) {
  const answer = await engine.api(method, v + apiPath, body);
  assert.equal(answer.status, status, answer.text);
  if (typeof text === 'string') assert.equal(answer.json().message, text);
  else assert.match(answer.json().message, text);
}

/** Where the daemon has something mounted below its directory, as `<volume>`. */
const mounted = async () => {
  const { stdout } = await run(['cat', `/proc/${engine.pid}/mountinfo`]);
  return [...stdout.matchAll(/ \S+\/volumes?\/([\w.-]+)\/_data /g)].map(([, name]) => name as string);
};

describe('create, inspect, list', () => {
  test('a volume has the fields of the document', async () => {
    const made = await make({ Name: 'fields', Labels: { a: '1' } });
    assert.deepEqual(Object.keys(made).sort(), [
      'CreatedAt',
      'Driver',
      'Labels',
      'Mountpoint',
      'Name',
      'Options',
      'Scope',
    ]);
    assert.match(made.CreatedAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$/);
    assert.deepEqual(
      [made.Driver, made.Labels, made.Name, made.Options, made.Scope],
      ['local', { a: '1' }, 'fields', null, 'local'],
    );
    assert.ok(fs.statSync(made.Mountpoint).isDirectory());
    assert.deepEqual(await engine.call('GET', `${v}/volumes/fields`), made);
    assert.deepEqual((await engine.call('GET', `${v}/volumes`)).Volumes, [made]);
  });

  test('a second create of a name gives back the first', async () => {
    const first = await make({ Name: 'again', Labels: { a: '1' } });
    assert.deepEqual(
      await make({ Name: 'again', Labels: { b: '2' }, DriverOpts: { type: 'tmpfs', device: 'x' } }),
      first,
    );
    const [, , together] = await Promise.all(['one', 'one', 'one'].map((Name) => make({ Name })));
    assert.equal(together?.Name, 'one');
  });

  test('without a name it gets 64 hex digits', async () => {
    assert.match((await make({})).Name, /^[0-9a-f]{64}$/);
    assert.equal((await make({ Labels: {} })).Driver, 'local');
  });

  for (const [name, text] of [
    ['x', 'create x: volume name is too short, names should be at least two alphanumeric characters'],
    [
      'a b',
      /^create a b: "a b" includes invalid characters for a local volume name, only "\[a-zA-Z0-9\]\[a-zA-Z0-9_.-\]" are allowed/,
    ],
    ['../up', /^create ..\/up: "..\/up" includes invalid characters/],
    ['-x', /includes invalid characters/],
    ['.x', /includes invalid characters/],
  ] as const) {
    test(`the name ${name} is refused`, () => refused('POST', '/volumes/create', { Name: name }, 400, text));
  }
  test('names have 255 characters at most', slipway, async () => {
    assert.equal((await make({ Name: 'n'.repeat(255) })).Name.length, 255);
    await refused('POST', '/volumes/create', { Name: 'n'.repeat(256) }, 400, /volume name is too long/);
  });

  test('a driver that is not there', () =>
    refused(
      'POST',
      '/volumes/create',
      { Name: 'dd', Driver: 'nope' },
      404,
      'create dd: error looking up volume plugin nope: plugin "nope" not found',
    ));

  for (const [options, text] of [
    [{ foo: 'x' }, 'create oo: invalid option: "foo"'],
    [{ type: 'nfs' }, 'create oo: missing required option: "device"'],
    [{ device: '/x' }, 'create oo: missing required option: "type"'],
    [{ size: '1m' }, 'create oo: quota size requested but no quota support'],
  ] as const) {
    test(`the options ${JSON.stringify(options)} are refused`, () =>
      refused('POST', '/volumes/create', { Name: 'oo', DriverOpts: options }, 400, text));
  }

  test('filters', async () => {
    for (const [Name, Labels] of [
      ['apple', { kind: 'fruit' }],
      ['apricot', { kind: 'fruit', sour: '' }],
      ['bread', {}],
    ] as const)
      await make({ Name, Labels });
    await container({ Binds: ['bread:/b'] });
    for (const [filters, expected] of [
      [{ name: ['ap'] }, ['apple', 'apricot']],
      [{ name: ['^b', 'cot$'] }, ['apricot', 'bread']],
      [{ label: ['kind'] }, ['apple', 'apricot']],
      [{ label: ['kind=fruit', 'sour'] }, ['apricot']],
      [{ label: ['kind=bread'] }, []],
      [{ dangling: ['true'] }, ['apple', 'apricot']],
      [{ dangling: ['0'] }, ['bread']],
      [{ driver: ['local'], name: ['e'] }, ['apple', 'bread']],
      [{ driver: ['other'] }, []],
    ] as const)
      assert.deepEqual(await names(filters), expected, JSON.stringify(filters));
    const bad = (filters: object) => `/volumes?filters=${encodeURIComponent(JSON.stringify(filters))}`;
    await refused('GET', bad({ colour: ['red'] }), undefined, 400, "Invalid filter 'colour'");
    await refused('GET', bad({ dangling: ['maybe'] }), undefined, 400, "Invalid filter 'dangling=[maybe]'");
  });
});

describe('remove and prune', () => {
  test('a volume that is not there', async () => {
    await refused('GET', '/volumes/ghost', undefined, 404, 'get ghost: no such volume');
    await refused('DELETE', '/volumes/ghost', undefined, 404, 'get ghost: no such volume');
    assert.equal((await engine.api('DELETE', `${v}/volumes/ghost?force=1`)).status, 204);
  });

  test('one in use stays, whether its container runs or not, forced or not', async () => {
    const { Mountpoint } = await make({ Name: 'used' });
    const id = await container({ Binds: ['used:/u'] });
    await refused('DELETE', '/volumes/used', undefined, 409, `remove used: volume is in use - [${id}]`);
    await refused('DELETE', '/volumes/used?force=1', undefined, 409, /volume is in use/);
    await start(id);
    await refused('DELETE', '/volumes/used', undefined, 409, /volume is in use/);
    await remove(id);
    assert.equal((await engine.api('DELETE', `${v}/volumes/used`)).status, 204);
    assert.equal(fs.existsSync(Mountpoint), false);
  });

  test('prune takes what nobody has, and says how much that was', async () => {
    await ran('head -c 4096 /dev/zero > /d/zeros; ln /d/zeros /d/again', { Binds: ['full:/d'] });
    await make({ Name: 'kept', Labels: { keep: '' } });
    await make({ Name: 'options', DriverOpts: { type: 'tmpfs', device: 'tmpfs' } });
    await container({ Binds: ['used:/u', '/anonymous'] });
    const filters = encodeURIComponent('{"label!":["keep"]}');
    assert.deepEqual(await engine.call('POST', `${v}/volumes/prune?filters=${filters}`), {
      VolumesDeleted: ['full'],
      SpaceReclaimed: 4096,
    });
    assert.deepEqual(await engine.call('POST', `${v}/volumes/prune`), { VolumesDeleted: ['kept'], SpaceReclaimed: 0 });
    assert.deepEqual(
      (await names()).filter((name) => name.length < 64),
      ['options', 'used'],
    );
    await refused(
      'POST',
      `/volumes/prune?filters=${encodeURIComponent('{"until":["1h"]}')}`,
      undefined,
      400,
      "Invalid filter 'until'",
    );
  });

  test('a create that races with removal and prune has its volume, or is told', slipway, async () => {
    for (let round = 0; round < 15; round++) {
      await make({ Name: 'raced' });
      const request = { Image: 'busybox', Cmd: ['true'], HostConfig: { Binds: ['raced:/r'] } };
      const [made] = await Promise.all([
        engine.api('POST', `${v}/containers/create`, request),
        engine.api('DELETE', `${v}/volumes/raced`),
        engine.api('POST', `${v}/volumes/prune`),
      ]);
      assert.equal(made.status, 201, made.text);
      assert.deepEqual(await names(), ['raced']);
      await start(made.json().Id);
      await remove(made.json().Id);
    }
  });
});

test('events', async () => {
  const since = Date.now() / 1000;
  await make({ Name: 'told' });
  const id = await container({ Binds: ['told:/a:ro'] }, 'true');
  await start(id);
  await engine.call('POST', `${v}/containers/${id}/wait`);
  await eventually(async () => {
    const events = await eventsSince(since);
    assert.ok(events.some((event) => event.Action === 'unmount'));
  });
  await remove(id);
  await engine.call('DELETE', `${v}/volumes/told`);
  await engine.call('POST', `${v}/volumes/prune`);
  const driver = 'local';
  const events = await eventsSince(since);
  assert.deepEqual(
    // dockerd tells of the creation once more when a container finds the volume.
    events.filter((event, index) => !(event.Action === 'create' && index > 0)),
    [
      { Action: 'create', ID: 'told', Attributes: { driver } },
      {
        Action: 'mount',
        ID: 'told',
        Attributes: { driver, container: id, destination: '/a', 'read/write': 'false', propagation: '' },
      },
      { Action: 'unmount', ID: 'told', Attributes: { driver, container: id } },
      { Action: 'destroy', ID: 'told', Attributes: { driver } },
      { Action: 'prune', ID: '', Attributes: { reclaimed: '0' } },
    ],
  );
});

async function eventsSince(since: number): Promise<Loose[]> {
  const until = (Date.now() / 1000 + 0.01).toFixed(3);
  const filters = encodeURIComponent('{"type":["volume"]}');
  const { text } = await engine.api('GET', `${v}/events?since=${since.toFixed(3)}&until=${until}&filters=${filters}`);
  return text
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
    .map(({ Action, Actor }) => ({ Action, ...Actor }));
}

describe('file systems of volumes', () => {
  test('mounted for the first container, gone after the last', async () => {
    await make({ Name: 'mem', DriverOpts: { type: 'tmpfs', device: 'tmpfs', o: 'size=1m,uid=7,mode=700' } });
    const [a, b] = [await container({ Binds: ['mem:/m'] }), await container({ Binds: ['mem:/m:ro'] })];
    assert.deepEqual(await mounted(), []);
    await start(a);
    await start(b);
    assert.deepEqual(await mounted(), ['mem']);
    const seen = await run(
      engine.dockerCommand(['exec', a, 'sh', '-c', 'touch /m/x; stat -c "%u %a" /m; df -k /m | tail -1']),
      {
        env: engine.clientEnv,
      },
    );
    assert.match(seen.stdout, /^7 700\ntmpfs +1024 /);
    assert.equal(await engine.mustDocker(['exec', b, 'ls', '/m']), 'x\n');
    await remove(a);
    assert.deepEqual(await mounted(), ['mem']);
    assert.equal(await engine.mustDocker(['exec', b, 'ls', '/m']), 'x\n');
    await remove(b);
    await eventually(async () => assert.deepEqual(await mounted(), []));
  });

  test('a directory of the host by o=bind, read-only when it says so', async () => {
    const host = fs.mkdtempSync(path.join(engine.paths.directory, 'host-'));
    await make({ Name: 'rw', DriverOpts: { type: 'none', device: host, o: 'bind' } });
    await make({ Name: 'ro', DriverOpts: { type: 'none', device: host, o: 'bind,ro' } });
    assert.equal(await ran('echo hello > /h/x; cat /h/x', { Binds: ['rw:/h'] }), 'hello');
    assert.equal(fs.readFileSync(path.join(host, 'x'), 'utf8'), 'hello\n');
    assert.match(await ran('echo more >> /h/x; cat /h/x', { Binds: ['ro:/h'] }), /Read-only file system\nhello/);
    for (const name of ['rw', 'ro']) await engine.call('DELETE', `${v}/volumes/${name}`);
    assert.deepEqual(fs.readdirSync(host), ['x']);
  });

  test('copy-up into it, while nothing else mounts it', async () => {
    const host = fs.mkdtempSync(path.join(engine.paths.directory, 'host-'));
    await make({ Name: 'filled', DriverOpts: { type: 'none', device: host, o: 'bind' } });
    await container({ Binds: ['filled:/etc'] });
    assert.ok(fs.readdirSync(host).includes('passwd'));
    assert.deepEqual(await mounted(), []);
  });

  test('what cannot be mounted fails the start, with the reason', async () => {
    await make({ Name: 'broken', DriverOpts: { type: 'none', device: '/no/such/place', o: 'bind' } });
    const id = await container({ Binds: ['broken:/b'] });
    await refused(
      'POST',
      `/containers/${id}/start`,
      undefined,
      500,
      /^error while mounting volume '.*\/broken\/_data': failed to mount local volume: mount \/no\/such\/place:.*: no such file or directory$/,
    );
    assert.deepEqual(await mounted(), []);
  });

  test('a daemon that was killed finds them again', slipway, async () => {
    await make({ Name: 'kept', DriverOpts: { type: 'tmpfs', device: 'tmpfs' } });
    await make({ Name: 'left', DriverOpts: { type: 'tmpfs', device: 'tmpfs' } });
    const [a, b] = [await container({ Binds: ['kept:/m'] }), await container({ Binds: ['left:/m'] })];
    await start(a);
    await start(b);
    await engine.kill9();
    await run(['sh', '-c', `kill -9 $(cat ${engine.paths.execRoot}/container/${b}/pid)`]);
    await engine.launch();
    await eventually(async () => assert.deepEqual(await mounted(), ['kept']));
    await remove(a);
    await eventually(async () => assert.deepEqual(await mounted(), []));
  });
});

test('a daemon killed in the middle of a create leaves the volume empty or whole', slipway, async () => {
  const script = 'mkdir /many; cd /many; for i in $(seq 3000); do echo $i > $i; done';
  const id = await container({}, script);
  await start(id);
  await engine.call('POST', `${v}/containers/${id}/wait`);
  await engine.call('POST', `${v}/commit?container=${id}&repo=many`);
  await remove(id);
  for (const delayMs of [20, 60, 100, 150]) {
    const request = { Image: 'many', Cmd: ['true'], HostConfig: { Binds: ['cut:/many', '/many/anonymous'] } };
    const made = engine.api('POST', `${v}/containers/create`, request).catch(() => null);
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    await engine.kill9();
    const answered = (await made) !== null;
    await engine.launch();
    await engine.call('POST', `${v}/volumes/create`, { Name: 'cut' }); // waits for the sweep
    const { Mountpoint } = await engine.call('GET', `${v}/volumes/cut`);
    const count = fs.readdirSync(Mountpoint).length;
    assert.ok(count === 3000 || (count === 0 && !answered), `${count} files, answered: ${answered}`);
    const again = await engine.call('POST', `${v}/containers/create`, request);
    assert.equal(fs.readdirSync(Mountpoint).length, 3000);
    await remove(again.Id, 'v=1');
    await engine.removeAll();
    await engine.call('DELETE', `${v}/volumes/cut`);
    const left = (await engine.call('GET', `${v}/volumes`)).Volumes.length;
    assert.equal(left, 0, 'anonymous volumes of nobody');
  }
  const entries = () => fs.readdirSync(path.join(engine.paths.dataRoot, 'volume'));
  await eventually(async () => assert.deepEqual(entries(), []));
});

test('stories of the docker CLI', async () => {
  assert.equal(await engine.mustDocker(['volume', 'create', '--label', 'a=b', 'cli']), 'cli\n');
  assert.match(await engine.mustDocker(['volume', 'ls']), /^DRIVER +VOLUME NAME\nlocal +cli\n$/);
  assert.equal(await engine.mustDocker(['volume', 'ls', '-q', '--filter', 'label=a=b']), 'cli\n');
  assert.equal(
    await engine.mustDocker(['volume', 'inspect', '-f', '{{.Name}} {{.Driver}} {{.Labels.a}}', 'cli']),
    'cli local b\n',
  );
  await engine.mustDocker(['run', '--rm', '-v', 'cli:/data', 'busybox', 'sh', '-c', 'echo kept > /data/x']);
  assert.equal(await engine.mustDocker(['run', '--rm', '-v', 'cli:/data:ro', 'busybox', 'cat', '/data/x']), 'kept\n');
  const busy = await engine.mustDocker(['create', '-v', 'cli:/data', 'busybox']);
  const refusal = await engine.docker(['volume', 'rm', 'cli']);
  assert.match(refusal.stderr, new RegExp(`remove cli: volume is in use - \\[${busy.trim()}\\]`));
  await engine.mustDocker(['rm', busy.trim()]);
  assert.equal(await engine.mustDocker(['volume', 'rm', 'cli']), 'cli\n');
  const options = ['--opt', 'type=tmpfs', '--opt', 'device=tmpfs', '--opt', 'o=size=2m'];
  await engine.mustDocker(['volume', 'create', ...options, 'mem']);
  assert.match(await engine.mustDocker(['run', '--rm', '-v', 'mem:/m', 'busybox', 'df', '-k', '/m']), / 2048 /);
  await engine.mustDocker(['run', '-v', '/anonymous', '--name', 'anon', 'busybox', 'true']);
  await engine.mustDocker(['rm', 'anon']);
  assert.match(
    await engine.mustDocker(['volume', 'prune', '-f']),
    /^Deleted Volumes:\n[0-9a-f]{64}\n\nTotal reclaimed space: 0B\n$/,
  );
});
