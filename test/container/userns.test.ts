/**
 * `userns-remap`: root of a container is nobody on the machine, while images and containers keep plain ids on the disk.
 * The ranges come from an /etc of the test's own.
 *
 * test-timeout-seconds: 180
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { readRemap } from '../../src/runtime/remap.ts';
import { run as command, eventually } from '../support/command.ts';
import { clis, TestEngine } from '../support/engine.ts';
import { demultiplex, type Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

const first = 300_000;
const firstGroup = 500_000;
const size = 65_536;

let directory: string;
let engine: TestEngine;

async function must(argv: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await command(argv);
  assert.equal(code, 0, `${argv.join(' ')}: ${stderr}`);
  return stdout;
}

before(async () => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'userns-'));
  for (const name of ['upper', 'work']) fs.mkdirSync(path.join(directory, name));
  const options = `lowerdir=/etc,upperdir=${directory}/upper,workdir=${directory}/work`;
  await must(['mount', '-t', 'overlay', 'overlay', '-o', options, '/etc']);
  fs.writeFileSync('/etc/subuid', `daemon:${first}:${size}\n`);
  fs.writeFileSync('/etc/subgid', `daemon:${firstGroup}:${size}\n`);
  engine = await TestEngine.start({ flags: ['--userns-remap', 'daemon'] });
  await importBusybox(engine);
});
after(async () => {
  await engine?.close();
  await command(['umount', '--lazy', '/etc']);
  fs.rmSync(directory, { recursive: true, force: true });
});

const create = async (cmd: readonly string[], host: object = {}, body: object = {}): Promise<string> =>
  (await engine.call('POST', '/containers/create', { Image: 'busybox', Cmd: cmd, ...body, HostConfig: host })).Id;

async function begin(host: object = {}, body: object = {}): Promise<string> {
  const id = await create(['sleep', '1000'], host, body);
  await engine.call('POST', `/containers/${id}/start`);
  return id;
}

async function run(script: string, host: object = {}, body: object = {}) {
  const id = await create(['sh', '-c', script], host, body);
  await engine.call('POST', `/containers/${id}/start`);
  const { StatusCode } = await engine.call('POST', `/containers/${id}/wait`);
  const { body: logs } = await engine.api('GET', `/containers/${id}/logs?stdout=1&stderr=1`);
  return { id, code: StatusCode as number, ...demultiplex(logs) };
}

async function prints(script: string, expected: string, host: object = {}, body: object = {}): Promise<string> {
  const { stdout, stderr, id } = await run(script, host, body);
  assert.equal(stdout.trim(), expected, stderr);
  return id;
}

const inspect = (id: string): Promise<Loose> => engine.call('GET', `/containers/${id}/json`);

async function exec(id: string, script: string, options: object = {}): Promise<string> {
  const { Id } = await engine.call('POST', `/containers/${id}/exec`, {
    Cmd: ['sh', '-c', script],
    AttachStdout: true,
    AttachStderr: true,
    ...options,
  });
  const { body } = await engine.api('POST', `/exec/${Id}/start`, {});
  const { stdout, stderr } = demultiplex(body);
  return (stdout + stderr).trim();
}

test('root inside is somebody else outside', async () => {
  const id = await begin();
  const { State } = await inspect(id);
  const status = fs.readFileSync(`/proc/${State.Pid}/status`, 'utf8');
  assert.match(status, new RegExp(`^Uid:\\t${first}\\t`, 'm'));
  assert.match(status, new RegExp(`^Gid:\\t${firstGroup}\\t`, 'm'));
  assert.equal(await exec(id, 'id -u; cat /proc/self/uid_map | tr -s " "'), `0\n 0 ${first} ${size}`);
  assert.notEqual(fs.readlinkSync(`/proc/${State.Pid}/ns/user`), fs.readlinkSync('/proc/self/ns/user'));
  const other = await inspect(await begin());
  assert.notEqual(
    fs.readlinkSync(`/proc/${State.Pid}/ns/user`),
    fs.readlinkSync(`/proc/${other.State.Pid}/ns/user`),
    'each container has one of its own',
  );
  const info = await engine.call('GET', '/info');
  assert.ok(info.SecurityOptions.includes('name=userns'), info.SecurityOptions);
});

test('files have plain ids on the disk, and inside', async () => {
  const id = await prints(
    'touch /mine; touch /theirs; chown 7:8 /theirs; rm /etc/passwd; mkdir /d; stat -c "%u %g" /mine /theirs /bin/busybox',
    '0 0\n7 8\n0 0',
  );
  const { UpperDir } = (await inspect(id)).GraphDriver.Data;
  const owner = (name: string) => `${fs.statSync(`${UpperDir}/${name}`).uid} ${fs.statSync(`${UpperDir}/${name}`).gid}`;
  assert.deepEqual([owner('mine'), owner('theirs'), owner('d')], ['0 0', '7 8', '0 0']);
  await engine.call('POST', `/containers/${id}/start`); // again, on the same tree
});

test('the machine is out of reach', async () => {
  const secret = path.join(directory, 'secret');
  fs.mkdirSync(secret);
  fs.writeFileSync(`${secret}/file`, 'x', { mode: 0o600 });
  fs.chmodSync(directory, 0o755);
  const { stdout } = await run('cat /s/file 2>/dev/null || echo denied; touch /s/new 2>/dev/null || echo denied', {
    Binds: [`${secret}:/s`],
    CapAdd: ['ALL'],
  });
  assert.equal(stdout.trim(), 'denied\ndenied');
});

test('users, groups, working directory and streams', async () => {
  await prints(
    'id -u; id -g; pwd; stat -c "%u %g" .; echo out > /dev/stdout',
    '7\n8\n/srv/w\n7 8\nout',
    {},
    {
      User: '7:8',
      WorkingDir: '/srv/w',
    },
  );
  await prints('echo root > /dev/stdout', 'root');
});

test('names and network', async () => {
  const id = await begin({ ExtraHosts: ['some:1.2.3.4'] }, { Hostname: 'box' });
  assert.match(await exec(id, 'cat /etc/hosts'), /1\.2\.3\.4\s+some/);
  assert.equal(await exec(id, 'hostname; stat -c "%u %g" /etc/hosts /etc/resolv.conf'), 'box\n0 0\n0 0');
  assert.equal(await exec(id, 'echo "9.9.9.9 nine" >> /etc/hosts && tail -n 1 /etc/hosts'), '9.9.9.9 nine');
  const { IPAddress } = (await inspect(id)).NetworkSettings;
  const client = await run(
    `ping -c 1 -W 5 ${IPAddress} >/dev/null && echo reached; ip link add d type dummy && echo made`,
    {
      CapAdd: ['NET_ADMIN'],
    },
  );
  assert.match(client.stdout, /^reached/, client.stderr);
  const server = await begin({ PortBindings: { '80/tcp': [{ HostPort: '18080' }] } }, { User: '7' });
  await exec(server, 'mkdir -p /tmp/w && echo page > /tmp/w/index.html && httpd -p 80 -h /tmp/w', { User: '0' });
  await eventually(async () => {
    const { stdout } = await engine.inNetns(['curl', '-fsS', 'http://127.0.0.1:18080/index.html']);
    return stdout === 'page\n';
  });
});

test('proc, sys, devices, tmpfs and limits', async () => {
  const script =
    '(echo x > /proc/sys/kernel/domainname) 2>/dev/null && echo bad; echo x > /dev/null && head -c 4 /dev/zero | wc -c; stat -c "%u" /t; touch /t/x; df -k /dev/shm | tail -n 1 | awk "{print \\$2}"; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null';
  await prints(script, '4\n5\n2048\n33554432', { Tmpfs: { '/t': 'uid=5' }, ShmSize: 2 << 20, Memory: 32 << 20 });
  await prints('cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward', '777\n1', {
    Sysctls: { 'kernel.msgmax': '777', 'net.ipv4.ip_forward': '1' },
  });
  const id = await begin({
    Devices: [{ PathOnHost: '/dev/kmsg', PathInContainer: '/dev/log0', CgroupPermissions: 'r' }],
  });
  assert.equal(await exec(id, 'test -c /dev/log0 && echo there'), 'there');
  const stats = await engine.call('GET', `/containers/${id}/stats?stream=0`);
  assert.ok(stats.memory_stats.usage > 0);
  const { Processes } = await engine.call('GET', `/containers/${id}/top`);
  assert.match(JSON.stringify(Processes), /sleep/);
});

test('a terminal', { skip: clis.length === 0 }, async () => {
  const terminal = engine.terminal([
    'run',
    '--rm',
    '-it',
    'busybox',
    'sh',
    '-c',
    'tty; echo hi > $(tty); stat -c "%u" $(tty)',
  ]);
  await terminal.output.waitFor(/\/dev\/pts\/0[\s\S]*hi[\s\S]*\n0/);
});

test('volumes belong to root inside, also with what the image has there', async () => {
  const image = await begin();
  await exec(image, 'mkdir /data && echo x > /data/f && chown 7:8 /data/f && chown 9:9 /data');
  await engine.call('POST', `/commit?container=${image}&repo=with-data`);
  const id = await begin({ Binds: ['fresh:/fresh', 'filled:/data'] }, { Image: 'with-data' });
  assert.equal(await exec(id, 'stat -c "%u %g" /fresh /data /data/f; touch /fresh/x && echo ok'), '0 0\n9 9\n7 8\nok');
});

test('commit, export, changes and copies know nothing of it', async () => {
  const id = await begin();
  await exec(id, 'mkdir /made && echo content > /made/f && chown 7:8 /made/f && rm /etc/group');
  const changes = (await engine.call('GET', `/containers/${id}/changes`)).map(({ Path }: Loose) => Path);
  assert.ok(changes.includes('/made/f') && changes.includes('/etc/group'), changes);
  await engine.call('POST', `/commit?container=${id}&repo=committed`);
  const committed = { Image: 'committed' };
  await prints('stat -c "%u %g" /made /made/f; test -e /etc/group || echo gone', '0 0\n7 8\ngone', {}, committed);
  await prints('stat -c "%u %g" /made/f', '7 8', { UsernsMode: 'host' }, committed);

  const owners = async (archive: Buffer): Promise<string> => {
    const file = path.join(directory, 'archive.tar');
    fs.writeFileSync(file, archive);
    return must(['tar', '--numeric-owner', '-tvf', file]);
  };
  assert.match(await owners((await engine.api('GET', `/containers/${id}/export`)).body), / 7\/8 +\d+ .* made\/f/);
  const copy = (await engine.api('GET', `/containers/${id}/archive?path=/made`)).body;
  assert.match(await owners(copy), / 7\/8 +\d+ .* made\/f/);
  for (const how of ['running', 'resting']) {
    if (how === 'resting') await engine.call('POST', `/containers/${id}/kill`);
    const answer = await engine.api('PUT', `/containers/${id}/archive?path=/tmp`, copy);
    assert.equal(answer.status, 200, answer.text);
    const again = await owners((await engine.api('GET', `/containers/${id}/archive?path=/tmp/made`)).body);
    assert.match(again, / 7\/8 +\d+ .* made\/f/, how);
  }
  await engine.call('POST', `/containers/${id}/start`);
  assert.equal(await exec(id, 'stat -c "%u %g" /tmp/made /tmp/made/f'), '0 0\n7 8');
});

describe('namespaces', () => {
  test('are shared together with the user namespace', async () => {
    const donor = await begin();
    const shared = await begin({
      PidMode: `container:${donor}`,
      IpcMode: `container:${donor}`,
      NetworkMode: `container:${donor}`,
    });
    const pidOf = async (id: string) => (await inspect(id)).State.Pid;
    const [a, b] = [await pidOf(donor), await pidOf(shared)];
    for (const type of ['user', 'pid', 'ipc', 'net'])
      assert.equal(fs.readlinkSync(`/proc/${a}/ns/${type}`), fs.readlinkSync(`/proc/${b}/ns/${type}`), type);
    await exec(donor, 'echo hello > /dev/shm/note');
    assert.equal(await exec(shared, 'cat /dev/shm/note'), 'hello');
    await prints('cat /dev/shm/note', 'hello', { IpcMode: `container:${donor}` });
    const outside = await begin({ UsernsMode: 'host' });
    const mixed = await create(['true'], { PidMode: `container:${outside}` });
    const answer = await engine.api('POST', `/containers/${mixed}/start`);
    assert.equal(answer.status, 409, answer.text);
    assert.match(answer.json().message, /it is in the host's user namespace/);
  });
  test("UsernsMode host is the machine's", async () => {
    await prints('cat /proc/self/uid_map | tr -s " "', '0 0 4294967295', { UsernsMode: 'host' });
    await prints('id -u', '0', { UsernsMode: 'host', Privileged: true, PidMode: 'host', NetworkMode: 'host' });
  });
  test('conflicts, in dockerd’s words', async () => {
    const refusals: readonly [object, string][] = [
      [
        { Privileged: true },
        'privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode',
      ],
      [{ NetworkMode: 'host' }, "cannot share the host's network namespace when user namespaces are enabled"],
      [{ PidMode: 'host' }, 'cannot share the host PID namespace when user namespaces are enabled'],
    ];
    for (const [HostConfig, text] of refusals) {
      const answer = await engine.api('POST', '/containers/create', { Image: 'busybox', Cmd: ['true'], HostConfig });
      assert.equal(answer.json().message, text);
      assert.equal(answer.status, 400);
    }
  });
  test('init, read-only root and the other runtime', async () => {
    await prints('cat /proc/1/comm; id -u', 'docker-init\n0', { Init: true });
    await prints('touch /x 2>/dev/null || echo ro', 'ro', { ReadonlyRootfs: true });
    const id = await prints(
      'id -u; cat /proc/self/uid_map | tr -s " "; stat -c "%u" /bin/busybox',
      `0\n 0 ${first} ${size}\n0`,
      {
        Runtime: 'runc',
      },
    );
    assert.equal((await inspect(id)).HostConfig.Runtime, 'runc');
  });
});

test('containers live on under the next daemon, and leave nothing behind', async () => {
  const id = await begin();
  await engine.restart('SIGKILL');
  assert.equal(await exec(id, 'touch /new && stat -c "%u" /new'), '0');
  await engine.call('POST', `/containers/${id}/stop?t=0`);
  await engine.call('POST', `/containers/${id}/start`);
  assert.equal(await exec(id, 'stat -c "%u" /new'), '0');
  await engine.removeAll();
  await engine.assertNoLeaks();
});

describe('userns-remap', () => {
  const files = () => {
    const at = (name: string, text: string) => {
      const file = path.join(directory, name);
      fs.writeFileSync(file, text);
      return file;
    };
    return {
      passwd: at('p', 'root:x:0:0::/:\nanna:x:1000:1001::/:\n'),
      group: at('g', 'root:x:0:\nanna:x:1000:\nstaff:x:50:\n'),
      subuid: at('su', '# a comment\nanna:100000:1000\nother:200000:65536\nanna:300000:10\n'),
      subgid: at('sg', 'anna:400000:65536\nstaff:600000:65536\n'),
    };
  };
  const users = [
    { inside: 0, outside: 100_000, size: 1000 },
    { inside: 1000, outside: 300_000, size: 10 },
  ];
  const groups = (outside: number) => [{ inside: 0, outside, size: 65_536 }];

  test('user, group, numbers', () => {
    assert.deepEqual(readRemap('anna', files()), { users, groups: groups(400_000) });
    assert.deepEqual(readRemap('1000', files()), { users, groups: groups(400_000) });
    assert.deepEqual(readRemap('anna:staff', files()), { users, groups: groups(600_000) });
    assert.deepEqual(readRemap('1000:50', files()), { users, groups: groups(600_000) });
  });
  test('default sets ranges apart, once', () => {
    const given = files();
    const map = readRemap('default', given);
    assert.deepEqual(map, {
      users: [{ inside: 0, outside: 300_010, size: 65_536 }],
      groups: groups(665_536),
    });
    assert.deepEqual(readRemap('default', given), map);
  });
  for (const [setting, text] of [
    ['nobody-here', /Error during uid lookup for "nobody-here"/],
    ['4711', /Uid 4711 has no entry/],
    ['anna:nobody-here', /Error during gid lookup for "nobody-here"/],
    ['root', /no subuid ranges found for user "root"/],
    ['a:b:c', /Invalid user\/group specification in --userns-remap: "a:b:c"/],
    ['anna:', /Invalid user\/group specification in --userns-remap: "anna:"/],
  ] as const)
    test(`${setting} is refused`, () => assert.throws(() => readRemap(setting, files()), text));
});
