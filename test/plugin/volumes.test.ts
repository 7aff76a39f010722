/** Volume drivers that are processes of their own: found, activated, used, gone wrong, restarted. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { eventually, sleep } from '../support/command.ts';
import { clis, TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';
import { makeCertificates } from '../support/registry.ts';
import { TestPlugin } from './support.ts';

const v = '/v1.26';
let engine: TestEngine;
let plugin: TestPlugin;
let sockets: string;
let specs: string;

before(async () => {
  sockets = fs.mkdtempSync(path.join(os.tmpdir(), 'sockets-'));
  specs = fs.mkdtempSync(path.join(os.tmpdir(), 'specs-'));
  plugin = await TestPlugin.start({ program: 'volume-plugin', listen: `${sockets}/one.sock` });
  engine = await TestEngine.start({ flags: ['--plugin-sockets', sockets, '--plugin-specs', specs] });
  await importBusybox(engine);
});
after(async () => {
  await engine?.close();
  await plugin?.close();
  for (const directory of [sockets, specs]) fs.rmSync(directory, { recursive: true, force: true });
});
afterEach(async () => {
  plugin.misbehave({});
  await engine.removeAll();
  for (const { Name } of (await engine.call('GET', `${v}/volumes`)).Volumes)
    await engine.api('DELETE', `${v}/volumes/${encodeURIComponent(Name)}?force=1`);
  plugin.forgetCalls();
});

const make = (body: object) => engine.api('POST', `${v}/volumes/create`, body);
async function made(Name: string, body: object = {}): Promise<void> {
  const answer = await make({ Name, Driver: 'one', ...body });
  assert.equal(answer.status, 201, answer.text);
}
async function container(host: object, cmd = 'sleep 1000', body: object = {}): Promise<string> {
  const request = { Image: 'busybox', Cmd: ['sh', '-c', cmd], StopTimeout: 0, ...body, HostConfig: host };
  return (await engine.call('POST', `${v}/containers/create`, request)).Id;
}
const start = (id: string) => engine.api('POST', `${v}/containers/${id}/start`);
const stop = (id: string) => engine.call('POST', `${v}/containers/${id}/stop?t=0`);
const mounts = () => plugin.files('mounts');
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

describe('a driver is used', () => {
  test('create with options, inspect with status, list, remove', async () => {
    await engine.mustDocker(['volume', 'create', '-d', 'one', '-o', 'size=5', '--label', 'a=b', 'data']);
    const inspected = await engine.call('GET', `${v}/volumes/data`);
    const { Driver, Labels, Mountpoint, Options, Scope, Status } = inspected;
    assert.deepEqual(
      { Driver, Labels, Mountpoint, Options, Scope, Status },
      {
        Driver: 'one',
        Labels: { a: 'b' },
        Mountpoint: `${plugin.state}/volumes/data`,
        Options: { size: '5' },
        Scope: 'global',
        Status: { Options: { size: '5' } },
      },
    );
    fs.mkdirSync(`${plugin.state}/volumes/theirs`);
    const { Volumes, Warnings } = await engine.call('GET', `${v}/volumes`);
    assert.deepEqual(
      Volumes.map((volume: { Name: string; Driver: string }) => [volume.Name, volume.Driver]),
      [
        ['data', 'one'],
        ['theirs', 'one'],
      ],
    );
    assert.equal(Warnings, null);
    assert.equal((await engine.call('GET', `${v}/volumes/theirs`)).CreatedAt, '0001-01-01T00:00:00Z');
    await engine.mustDocker(['volume', 'rm', 'data', 'theirs']);
    assert.deepEqual(plugin.files('volumes'), []);
    const [{ type } = { type: '' }] = plugin.calls('VolumeDriver.Create');
    assert.equal(type, 'application/vnd.docker.plugins.v1.2+json');
  });

  test('a container has the volume mounted while it runs, each container under an id of its own', async () => {
    await made('data');
    const first = await container({ Binds: ['data:/x'], VolumeDriver: 'one' }, 'echo hi > /x/f; sleep 1000');
    const second = await container({
      Mounts: [{ Type: 'volume', Source: 'data', Target: '/y', VolumeOptions: { DriverConfig: { Name: 'one' } } }],
    });
    assert.equal((await start(first)).status, 204);
    assert.equal((await start(second)).status, 204);
    assert.equal(mounts().length, 2);
    await eventually(() => assert.equal(fs.readFileSync(`${plugin.state}/volumes/data/f`, 'utf8'), 'hi\n'));
    assert.equal(await engine.mustDocker(['exec', second, 'cat', '/y/f']), 'hi\n');
    const [{ Name, Driver, Source, Mode }] = (await engine.call('GET', `${v}/containers/${first}/json`)).Mounts;
    assert.deepEqual([Name, Driver, Source, Mode], ['data', 'one', `${plugin.state}/volumes/data`, '']);
    await refused('DELETE', '/volumes/data', undefined, 409, /^remove data: volume is in use - \[/);
    await stop(first);
    await eventually(() => assert.equal(mounts().length, 1));
    await stop(second);
    await eventually(() => assert.deepEqual(mounts(), []));
    const { text } = await engine.api('GET', `${v}/events?since=0&until=${Math.ceil(Date.now() / 1000)}`);
    const told = text.split('\n').filter((line) => line.includes('"driver":"one"') && line.includes(first));
    assert.deepEqual(
      told.map((line) => JSON.parse(line).Action),
      ['mount', 'unmount'],
    );
  });

  test('a volume gets what the image has at its place, and docker cp reaches it at rest', async () => {
    const id = await container({ Binds: ['etc:/etc'], VolumeDriver: 'one' }, 'true');
    assert.ok(fs.readdirSync(`${plugin.state}/volumes/etc`).includes('passwd'));
    assert.deepEqual(mounts(), []);
    const { status } = await engine.api('GET', `${v}/containers/${id}/archive?path=/etc/passwd`);
    assert.equal(status, 200);
    await eventually(() => assert.deepEqual(mounts(), []));
  });

  for (const cli of clis) {
    test(`${cli.name} names driver and options with --mount and with -v`, async () => {
      const mount = 'type=volume,source=data,target=/y,volume-driver=one,volume-opt=size=5';
      const words = ['run', '--rm', '--mount', mount, '--volume-driver', 'one', '-v', 'more:/x', 'busybox'];
      await engine.mustDocker([...words, 'sh', '-c', 'echo hi > /y/f; echo ho > /x/f'], { cli });
      assert.equal(fs.readFileSync(`${plugin.state}/volumes/data/f`, 'utf8'), 'hi\n');
      assert.equal(fs.readFileSync(`${plugin.state}/volumes/more/f`, 'utf8'), 'ho\n');
      const made = plugin.calls('VolumeDriver.Create').map(({ body }) => body);
      assert.deepEqual(made, [
        { Name: 'more', Opts: null },
        { Name: 'data', Opts: { size: '5' } },
      ]);
      const listed = await engine.mustDocker(
        ['volume', 'ls', '-f', 'driver=one', '--format', '{{.Driver}} {{.Name}}'],
        { cli },
      );
      assert.deepEqual(listed.trim().split('\n'), ['one data', 'one more']);
      await eventually(() => assert.deepEqual(mounts(), []));
    });
  }

  test('an anonymous volume goes with its container', async () => {
    const id = await container({ Binds: ['/x'], VolumeDriver: 'one' });
    assert.equal(plugin.files('volumes').length, 1);
    await engine.call('DELETE', `${v}/containers/${id}?v=1`);
    assert.deepEqual(plugin.files('volumes'), []);
  });

  test('a volume that only its driver knows is found without naming the driver', async () => {
    fs.mkdirSync(`${plugin.state}/volumes/theirs`);
    const id = await container({ Binds: ['theirs:/x'] });
    const [{ Driver }] = (await engine.call('GET', `${v}/containers/${id}/json`)).Mounts;
    assert.equal(Driver, 'one');
    assert.equal(plugin.calls('VolumeDriver.Create').length, 0);
  });

  test('prune leaves volumes of plugins alone', async () => {
    await made('kept');
    await engine.call('POST', `${v}/volumes/prune`);
    assert.deepEqual(plugin.files('volumes'), ['kept']);
  });

  test('info names it', async () => {
    const { Plugins } = await engine.call('GET', `${v}/info`);
    assert.deepEqual(Plugins.Volume, ['local', 'one']);
    assert.ok(!Plugins.Network.includes('one'));
  });
});

describe('what cannot be', () => {
  test('unknown drivers, names that are paths, other kinds of plugins', async () => {
    await refused(
      'POST',
      '/volumes/create',
      { Name: 'qq', Driver: 'nope' },
      404,
      'create qq: error looking up volume plugin nope: plugin "nope" not found',
    );
    for (const Driver of ['../one', `..${sockets}/one`, 'one.sock/../one', '.']) {
      const { status, text } = await make({ Name: 'qq', Driver });
      assert.equal(status, 404, text);
    }
    await refused('POST', '/networks/create', { Name: 'qq', Driver: 'nope' }, 404, 'plugin "nope" not found');
  });

  test('one name, one driver', async () => {
    await made('data');
    await refused(
      'POST',
      '/volumes/create',
      { Name: 'data', Driver: 'local' },
      409,
      "create data: driver 'one' already has volume 'data': volume name must be unique",
    );
    assert.equal((await make({ Name: 'mine', Driver: 'local' })).status, 201);
    await refused(
      'POST',
      '/volumes/create',
      { Name: 'mine', Driver: 'one' },
      409,
      "create mine: driver 'local' already has volume 'mine': volume name must be unique",
    );
  });

  test('errors of the driver are told in its words', async () => {
    plugin.misbehave({ 'VolumeDriver.Create': { Err: 'no such luck' } });
    await refused('POST', '/volumes/create', { Name: 'data', Driver: 'one' }, 500, 'create data: no such luck');
    plugin.misbehave({});
    await made('data');
    plugin.misbehave({ 'VolumeDriver.Remove': { Err: 'stuck' } });
    await refused('DELETE', '/volumes/data?force=1', undefined, 500, 'remove data: stuck');
    plugin.misbehave({ 'VolumeDriver.Mount': { Err: 'no disk' } });
    const id = await container({ Binds: ['data:/x'] });
    await refused('POST', `/containers/${id}/start`, undefined, 500, "error while mounting volume 'data': no disk");
  });

  test('a volume that its driver deleted is gone, and force clears it', async () => {
    await made('data');
    const id = await container({ Binds: ['data:/x'] });
    fs.rmSync(`${plugin.state}/volumes/data`, { recursive: true });
    await refused('GET', '/volumes/data', undefined, 404, 'get data: no such volume');
    await refused(
      'POST',
      '/volumes/create',
      { Name: 'data', Driver: 'one' },
      409,
      /^create data: found references to volume 'data' in driver 'one' but the volume was not found/,
    );
    await engine.call('DELETE', `${v}/containers/${id}`);
    await refused('DELETE', '/volumes/data', undefined, 404, 'get data: no such volume');
    assert.equal((await engine.api('DELETE', `${v}/volumes/data?force=1`)).status, 204);
    assert.equal((await make({ Name: 'data', Driver: 'local' })).status, 201);
  });
});

describe('a plugin that goes wrong harms who uses it', () => {
  test('garbage, floods and paths that are none are refused', async () => {
    await made('data');
    const id = await container({ Binds: ['data:/x'] });
    const cases: [string | object, RegExp][] = [
      ['garbage', /the answer is no JSON object/],
      ['huge', /the answer has more than 8388608 bytes/],
      [{ Mountpoint: '' }, /the answer has no absolute path/],
      [{ Mountpoint: ['/etc'] }, /the answer has no absolute path/],
    ];
    for (const [misdeed, message] of cases) {
      plugin.misbehave({ 'VolumeDriver.Mount': misdeed });
      await refused('POST', `/containers/${id}/start`, undefined, 500, message);
    }
    plugin.misbehave({ 'VolumeDriver.List': 'huge' });
    const { Volumes, Warnings } = await engine.call('GET', `${v}/volumes`);
    assert.deepEqual([Volumes.length, Warnings.length], [1, 1]);
    plugin.misbehave({ 'VolumeDriver.List': { Volumes: [null, 3, {}, { Name: 7 }, { Name: 'data', Mountpoint: 4 }] } });
    assert.equal((await engine.call('GET', `${v}/volumes`)).Volumes.length, 1);
    assert.equal((await engine.api('GET', `${v}/_ping`)).status, 200);
  });

  test('while it hangs, others work', async () => {
    await made('data');
    const other = await container({ Binds: ['mine:/x'] });
    const id = await container({ Binds: ['data:/x'] });
    plugin.misbehave({ 'VolumeDriver.Mount': 'hang', 'VolumeDriver.List': 'hang' });
    const starting = start(id).catch(() => null);
    await eventually(() => assert.equal(plugin.calls('VolumeDriver.Mount').length, 1));
    const began = performance.now();
    assert.equal((await start(other)).status, 204);
    for (let i = 0; i < 20; i++) await engine.call('GET', `${v}/containers/json?all=1`);
    assert.ok(performance.now() - began < 3000, 'a hung driver holds up other containers');
    const { Volumes, Warnings } = await engine.call('GET', `${v}/volumes`);
    assert.deepEqual(Volumes.map(({ Name }: { Name: string }) => Name).sort(), ['data', 'mine']);
    assert.match(Warnings[0], /^list one: .*no answer within 3 seconds/);
    // Silent once, it is not asked again for a while by those who ask all.
    const again = performance.now();
    await engine.call('GET', `${v}/volumes`);
    assert.ok(performance.now() - again < 1000, 'a driver known to be silent was asked again');
    plugin.misbehave({});
    await plugin.stop();
    await plugin.start();
    assert.equal((await starting)?.status, 204);
    assert.equal(mounts().length, 1);
  });

  test('its restart is survived, also in the middle of a call', async () => {
    await made('data');
    const id = await container({ Binds: ['data:/x'] });
    plugin.misbehave({ 'VolumeDriver.Mount': 'die' });
    const starting = start(id);
    await eventually(() => assert.equal(plugin.calls('VolumeDriver.Mount').length, 1));
    await plugin.stop();
    plugin.misbehave({});
    await plugin.start();
    assert.equal((await starting).status, 204);
    assert.equal(mounts().length, 1);
    // Restarted, it introduces itself anew.
    assert.equal(plugin.calls('Plugin.Activate').length, 1);
    await stop(id);
    await eventually(() => assert.deepEqual(mounts(), []));
  });

  test('one that comes up after the engine is waited for', async () => {
    await made('data');
    const id = await container({ Binds: ['data:/x'] });
    await plugin.stop();
    fs.rmSync(`${sockets}/one.sock`);
    await engine.restart();
    const starting = start(id);
    await eventually(() => assert.match(engine.log, /a plugin cannot be reached: plugin \\*"one\\*" not found/));
    await plugin.start();
    assert.equal((await starting).status, 204);
  });

  test('dying again and again in the middle of calls, it and the engine agree in the end', async () => {
    await made('data');
    const ids = await Promise.all([1, 2, 3].map(() => container({ Binds: ['data:/x'] })));
    let isOver = false;
    const trouble = (async () => {
      const kinds = ['VolumeDriver.Mount', 'VolumeDriver.Unmount'];
      for (let round = 0; !isOver; round++) {
        plugin.misbehave({ [kinds[round % 2] ?? '']: ['die', 'drop', 'late'][round % 3] ?? '' });
        await sleep(200);
        plugin.misbehave({});
        await plugin.stop();
        await plugin.start();
        await sleep(700);
      }
    })();
    try {
      for (let round = 0; round < 3; round++) {
        for (const answer of await Promise.all(ids.map(start))) assert.equal(answer.status, 204, answer.text);
        assert.equal(mounts().length, 3);
        await Promise.all(ids.map(stop));
        await eventually(() => assert.deepEqual(mounts(), []), 60_000);
      }
    } finally {
      isOver = true;
      await trouble;
    }
  });

  test('one that is gone for good leaves volumes that force removes', async () => {
    const socket = `${sockets}/two.sock`;
    const two = await TestPlugin.start({ program: 'volume-plugin', listen: socket });
    await made('left', { Driver: 'two' });
    await two.close();
    fs.rmSync(socket, { force: true });
    await refused(
      'GET',
      '/volumes/left',
      undefined,
      500,
      /^get left: error while checking if volume "left" exists in driver "two": /,
    );
    const { Volumes, Warnings } = await engine.call('GET', `${v}/volumes`);
    assert.deepEqual([Volumes.length, Warnings.length], [1, 1]);
    await refused('DELETE', '/volumes/left', undefined, 500, /error while checking/);
    assert.equal((await engine.api('DELETE', `${v}/volumes/left?force=1`)).status, 204);
  });
});

describe('mounts outlive the daemon', () => {
  test('those of running containers stay; those of others are given back', async () => {
    await made('data');
    const runs = await container({ Binds: ['data:/x'] });
    const ends = await container({ Binds: ['data:/x'] }, 'sleep 1000');
    await start(runs);
    await start(ends);
    assert.equal(mounts().length, 2);
    const { State } = await engine.call('GET', `${v}/containers/${ends}/json`);
    // Killed while a third one waits for its mount, which the driver has made.
    const waits = await container({ Binds: ['data:/x'] });
    plugin.misbehave({ 'VolumeDriver.Mount': 'hang' });
    void start(waits).catch(() => null);
    await eventually(() => assert.equal(plugin.calls('VolumeDriver.Mount').length, 3));
    const hanging = plugin.calls('VolumeDriver.Mount').at(-1)?.body.ID;
    fs.mkdirSync(path.join(plugin.state, 'mounts', String(hanging)));
    await engine.kill9();
    process.kill(State.Pid, 'SIGKILL');
    plugin.misbehave({});
    await engine.launch();
    await eventually(() => assert.equal(mounts().length, 1));
    assert.deepEqual(mounts(), [plugin.calls('VolumeDriver.Mount')[0]?.body.ID]);
    await stop(runs);
    await eventually(() => assert.deepEqual(mounts(), []));
  });
});

describe('discovery', () => {
  test('a directory deep, by spec file, by JSON file over TLS; replaced while the daemon runs', async () => {
    const certificates = makeCertificates();
    fs.mkdirSync(`${sockets}/deep`);
    const deep = await TestPlugin.start({ program: 'volume-plugin', listen: `${sockets}/deep/deep.sock` });
    const far = await TestPlugin.start({ program: 'volume-plugin', listen: `${specs}/elsewhere.sock` });
    const tls = await TestPlugin.start({
      program: 'volume-plugin',
      listen: '7070',
      netns: engine.netns,
      tls: certificates,
    });
    const plain = await TestPlugin.start({ program: 'volume-plugin', listen: '7071', netns: engine.netns });
    try {
      fs.writeFileSync(`${specs}/far.spec`, `unix://${specs}/elsewhere.sock\n`);
      fs.writeFileSync(`${specs}/plain.spec`, 'tcp://127.0.0.1:7071');
      const TLSConfig = { CAFile: certificates.ca, CertFile: certificates.certificate, KeyFile: certificates.key };
      fs.writeFileSync(
        `${specs}/safe.json`,
        JSON.stringify({ Name: 'safe', Addr: 'https://127.0.0.1:7070/x', TLSConfig }),
      );
      const CAFile = certificates.certificate;
      fs.writeFileSync(
        `${specs}/strange.json`,
        JSON.stringify({ Addr: 'https://127.0.0.1:7070', TLSConfig: { ...TLSConfig, CAFile } }),
      );
      fs.writeFileSync(`${specs}/broken.json`, '{"Addr": 5');
      for (const [name, each] of [
        ['deep', deep],
        ['far', far],
        ['plain', plain],
        ['safe', tls],
      ] as const) {
        await made(`v-${name}`, { Driver: name });
        assert.deepEqual(each.files('volumes'), [`v-${name}`]);
      }
      await refused(
        'POST',
        '/volumes/create',
        { Name: 'bb', Driver: 'broken' },
        400,
        /^create bb: error looking up volume plugin broken: plugin file .*broken\.json: /,
      );
      const { Plugins } = await engine.call('GET', `${v}/info`);
      assert.deepEqual(Plugins.Volume, ['local', 'deep', 'far', 'one', 'plain', 'safe']);
      fs.writeFileSync(`${specs}/far.spec.new`, 'tcp://127.0.0.1:7071');
      fs.renameSync(`${specs}/far.spec.new`, `${specs}/far.spec`);
      await made('moved', { Driver: 'far' });
      assert.deepEqual(plain.files('volumes'), ['moved', 'v-plain']);
    } finally {
      for (const each of [deep, far, tls, plain]) await each.close();
      for (const file of fs.readdirSync(specs)) fs.rmSync(path.join(specs, file));
      fs.rmSync(`${sockets}/deep`, { recursive: true });
      fs.rmSync(certificates.directory, { recursive: true });
    }
  });
});
