/**
 * Every option that create honours, seen from inside a real container (or on its cgroup). `docs/compatibility.md` names
 * these tests.
 *
 * test-timeout-seconds: 300
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { TestEngine } from '../support/engine.ts';
import { demultiplex, type Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
});
after(() => engine?.close());

const MiB = 1024 * 1024;

interface Ran {
  readonly id: string;
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly warnings: readonly string[];
}

async function create(body: object, name = ''): Promise<Loose> {
  return await engine.call('POST', `/containers/create?name=${name}`, { Image: 'busybox', ...body });
}

/** Creates, starts, waits, and reads what was printed. */
async function run(script: string, body: object = {}, host: object = {}): Promise<Ran> {
  const { Id, Warnings } = await create({ Cmd: ['sh', '-c', script], ...body, HostConfig: host });
  await engine.call('POST', `/containers/${Id}/start`);
  const { StatusCode } = await engine.call('POST', `/containers/${Id}/wait`);
  const logs = await engine.api('GET', `/containers/${Id}/logs?stdout=1&stderr=1`);
  const tty = 'Tty' in body && body.Tty === true;
  const output = tty ? { stdout: logs.text, stderr: '' } : demultiplex(logs.body);
  return { id: Id, code: StatusCode, ...output, warnings: Warnings };
}

async function prints(script: string, expected: string, body: object = {}, host: object = {}): Promise<Ran> {
  const ran = await run(script, body, host);
  assert.equal(ran.stdout.trim(), expected, ran.stderr);
  assert.equal(ran.code, 0, ran.stderr);
  return ran;
}

async function refused(body: object, status: number, text: RegExp): Promise<void> {
  const answer = await engine.api('POST', '/containers/create', { Image: 'busybox', Cmd: ['true'], ...body });
  assert.equal(answer.status, status, answer.text);
  assert.match(answer.json().message, text);
}

describe('Config', () => {
  test('Cmd and Entrypoint', async () => {
    await prints('', 'a b', { Entrypoint: ['echo'], Cmd: ['a', 'b'] });
    await prints('', 'only', { Entrypoint: ['echo', 'only'], Cmd: null });
  });
  test('Env, with the defaults around it', async () => {
    const { stdout } = await run('env', { Env: ['COLOUR=blue', 'EMPTY='], Hostname: 'box' });
    const env = new Map(
      stdout
        .trim()
        .split('\n')
        .map((line) => [line.split('=', 1)[0], line.slice(line.indexOf('=') + 1)]),
    );
    assert.equal(env.get('COLOUR'), 'blue');
    assert.equal(env.get('EMPTY'), '');
    assert.equal(env.get('HOSTNAME'), 'box');
    assert.equal(env.get('HOME'), '/root');
    assert.equal(env.get('PATH'), '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin');
  });
  test('WorkingDir, made when missing', () =>
    prints('pwd', '/srv/deep/er', { WorkingDir: '/srv/deep/er' }).then(() => undefined));
  test('User by number, name and group', async () => {
    await prints('id -u; id -g', '1234\n0', { User: '1234' });
    await prints('id -u; id -g', '7\n8', { User: '7:8' });
    await prints('id -un; id -gn', 'root\nroot', { User: 'root' });
    const { Id } = await create({ Cmd: ['true'], User: 'stranger' });
    const answer = await engine.api('POST', `/containers/${Id}/start`);
    assert.equal(answer.status, 400, answer.text);
    assert.match(answer.json().message, /unable to find user stranger: no matching entries in passwd file/);
  });
  test('Hostname and Domainname', async () => {
    await prints('hostname; cat /etc/hostname; grep -c "box.example box" /etc/hosts', 'box\nbox.example\n1', {
      Hostname: 'box',
      Domainname: 'example',
    });
    const { id, stdout } = await run('hostname');
    assert.equal(stdout.trim(), id.slice(0, 12));
  });
  test('Labels are told and can be searched for', async () => {
    const { Id } = await create({ Cmd: ['true'], Labels: { tier: 'front', empty: '' } });
    assert.deepEqual((await engine.call('GET', `/containers/${Id}/json`)).Config.Labels, { tier: 'front', empty: '' });
    const filters = encodeURIComponent(JSON.stringify({ label: ['tier=front'] }));
    const rows = await engine.call('GET', `/containers/json?all=1&filters=${filters}`);
    assert.deepEqual(
      rows.map((row: Loose) => row.Id),
      [Id],
    );
  });
  test('Tty', async () => {
    const { stdout } = await run('tty; echo end', { Tty: true });
    assert.equal(stdout, '/dev/pts/0\r\nend\r\n');
  });
  test('OpenStdin and StdinOnce', async () => {
    const outcome = await engine.docker(['run', '-i', '--rm', 'busybox', 'wc', '-c'], { input: 'x'.repeat(200_000) });
    assert.equal(outcome.stdout, '200000\n');
    // Without OpenStdin there is nothing to read.
    await prints('cat; echo end', 'end');
  });
  test('StopSignal and StopTimeout', async () => {
    const { Id } = await create({
      Cmd: ['sh', '-c', 'trap "echo asked; exit 5" USR1; while :; do sleep 0.05; done'],
      StopSignal: 'SIGUSR1',
    });
    await engine.call('POST', `/containers/${Id}/start`);
    await engine.call('POST', `/containers/${Id}/stop?t=10`);
    assert.equal((await engine.call('GET', `/containers/${Id}/json`)).State.ExitCode, 5);

    const stubborn = await create({ Cmd: ['sh', '-c', 'trap "" TERM; while :; do sleep 0.05; done'], StopTimeout: 1 });
    await engine.call('POST', `/containers/${stubborn.Id}/start`);
    const began = Date.now();
    await engine.call('POST', `/containers/${stubborn.Id}/stop`);
    assert.ok(Date.now() - began >= 1000 && Date.now() - began < 6000, `took ${Date.now() - began} ms`);
    assert.equal((await engine.call('GET', `/containers/${stubborn.Id}/json`)).State.ExitCode, 137);
  });
  test('Volumes: anonymous, filled from the image, removed with v=1', async () => {
    const { id, stdout } = await run('cat /etc/passwd | head -1; echo new > /etc/mark; mount | grep -c " /etc "', {
      Volumes: { '/etc': {} },
    });
    assert.match(stdout, /^root:.*\n1\n$/);
    const [mount] = (await engine.call('GET', `/containers/${id}/json`)).Mounts;
    assert.deepEqual([mount.Type, mount.Destination, mount.Driver, mount.RW], ['volume', '/etc', 'local', true]);
    assert.equal(fs.readFileSync(path.join(mount.Source, 'mark'), 'utf8'), 'new\n');
    await engine.call('DELETE', `/containers/${id}?v=1`);
    await eventually(() => !fs.existsSync(mount.Source));
  });
});

describe('HostConfig: files', () => {
  test('Binds, read-only and not, directories and files', async () => {
    const dir = path.join(engine.paths.directory, 'bound');
    fs.mkdirSync(dir);
    fs.writeFileSync(path.join(dir, 'file'), 'content');
    const { code } = await run(
      'echo new > /b/made && cat /b/file && ! touch /ro/x 2>/dev/null && cat /one',
      {},
      { Binds: [`${dir}:/b`, `${dir}:/ro:ro`, `${dir}/file:/one:ro`] },
    );
    assert.equal(code, 0);
    assert.equal(fs.readFileSync(path.join(dir, 'made'), 'utf8'), 'new\n');
  });
  test('Binds of named volumes are shared and outlive containers', async () => {
    const host = { Binds: ['shared:/data'] };
    const { id } = await run('echo kept > /data/file', {}, host);
    await engine.call('DELETE', `/containers/${id}?v=1`);
    await prints('cat /data/file', 'kept', {}, host);
  });
  test('Tmpfs with options', async () => {
    await prints(
      'mount | grep " /scratch " | grep -o "size=[0-9]*k"; stat -c %a /scratch',
      'size=1024k\n700',
      {},
      { Tmpfs: { '/scratch': 'size=1m,mode=700' } },
    );
  });
  test('ReadonlyRootfs', async () => {
    const { code, stderr } = await run('echo x > /x', {}, { ReadonlyRootfs: true });
    assert.notEqual(code, 0);
    assert.match(stderr, /Read-only file system/);
  });
  test('ShmSize', () =>
    prints('mount | grep " /dev/shm " | grep -o "size=[0-9]*k"', 'size=8192k', {}, { ShmSize: 8 * MiB }).then(
      () => undefined,
    ));
});

describe('HostConfig: rights', () => {
  const capabilities = 'grep CapEff /proc/self/status | cut -f2';
  test('the default capabilities are those of dockerd', () =>
    prints(capabilities, '00000000a80425fb').then(() => undefined));
  test('CapAdd and CapDrop', async () => {
    await prints(capabilities, '0000000000000400', {}, { CapDrop: ['ALL'], CapAdd: ['NET_BIND_SERVICE'] });
    await prints(capabilities, '00000000a80435fb', {}, { CapAdd: ['CAP_NET_ADMIN'] });
    await prints(capabilities, '00000000a80425fa', {}, { CapDrop: ['chown'] });
    await refusedAtCreateOrStart(
      { HostConfig: { CapAdd: ['FLYING'] } },
      /invalid CapAdd: unknown capability: "CAP_FLYING"/,
    );
  });
  test('Privileged', async () => {
    const { stdout } = await run(
      `${capabilities}; ls /dev | wc -l; mount | grep -c "sysfs.*rw"; grep Seccomp: /proc/self/status`,
      {},
      { Privileged: true },
    );
    const [caps = '', devices, sys, seccomp] = stdout.trim().split('\n');
    assert.equal(BigInt(`0x${caps}`) & 0x200000n, 0x200000n, 'CAP_SYS_ADMIN');
    assert.ok(Number(devices) > 20, `${devices} devices`);
    assert.equal(sys, '1');
    assert.match(seccomp ?? '', /0$/);
  });
  test('masked and read-only paths, seccomp', async () => {
    const { stdout } = await run(
      'cat /proc/kcore | wc -c; (echo 1 > /proc/sys/kernel/panic) 2>&1 | grep -o "Read-only"; grep Seccomp: /proc/self/status | cut -f2; unshare -m true 2>&1 | grep -o "not permitted"',
    );
    assert.equal(stdout.trim(), '0\nRead-only\n2\nnot permitted');
  });
  test('SecurityOpt: no-new-privileges, seccomp=unconfined', async () => {
    await prints('grep NoNewPrivs /proc/self/status | cut -f2', '1', {}, { SecurityOpt: ['no-new-privileges'] });
    await prints('grep Seccomp: /proc/self/status | cut -f2', '0', {}, { SecurityOpt: ['seccomp=unconfined'] });
  });
  test('GroupAdd', () => prints('id -G', '0 10 4242', {}, { GroupAdd: ['10', '4242'] }).then(() => undefined));
  test('OomScoreAdj', () =>
    prints('cat /proc/self/oom_score_adj', '500', {}, { OomScoreAdj: 500 }).then(() => undefined));
});

describe('HostConfig: network', () => {
  test('NetworkMode none', () => prints('ip -o link | wc -l', '1', {}, { NetworkMode: 'none' }).then(() => undefined));
  test('NetworkMode host', async () => {
    const inside = await run('readlink /proc/self/ns/net', {}, { NetworkMode: 'host' });
    assert.equal(inside.stdout, await engine.netns.must(['readlink', '/proc/self/ns/net']));
  });
  test('NetworkMode container:', async () => {
    const other = await create({ Cmd: ['sleep', '100'], Hostname: 'first' }, 'first');
    await engine.call('POST', `/containers/${other.Id}/start`);
    const { IPAddress } = (await engine.call('GET', '/containers/first/json')).NetworkSettings;
    await prints(
      'hostname; ip -o -4 addr show eth0 | grep -o "inet [0-9.]*" | cut -d" " -f2',
      `first\n${IPAddress}`,
      {},
      { NetworkMode: 'container:first' },
    );
    await engine.call('DELETE', '/containers/first?force=1');
  });
  test('Dns, DnsSearch, DnsOptions', async () => {
    await prints(
      'cat /etc/resolv.conf',
      'search example.org\nnameserver 192.0.2.1\noptions ndots:3',
      {},
      { Dns: ['192.0.2.1'], DnsSearch: ['example.org'], DnsOptions: ['ndots:3'] },
    );
  });
  test('ExtraHosts', () =>
    prints('grep friend /etc/hosts', '192.0.2.9\tfriend', {}, { ExtraHosts: ['friend:192.0.2.9'] }).then(
      () => undefined,
    ));
  test('ExposedPorts, PortBindings, PublishAllPorts', async () => {
    const web = {
      Cmd: ['sh', '-c', 'echo here > /index.html; exec httpd -f -h /'],
      ExposedPorts: { '80/tcp': {}, '443/tcp': {} },
    };
    const { Id } = await create({ ...web, HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '8123' }] } } });
    await engine.call('POST', `/containers/${Id}/start`);
    const { Ports } = (await engine.call('GET', `/containers/${Id}/json`)).NetworkSettings;
    assert.equal(Ports['80/tcp'][0].HostPort, '8123');
    assert.equal(Ports['443/tcp'], null);
    await eventually(async () =>
      assert.equal(await engine.netns.must(['curl', '-s', 'http://127.0.0.1:8123/']), 'here\n'),
    );

    const taken = await create({ ...web, HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '8123' }] } } });
    const conflict = await engine.api('POST', `/containers/${taken.Id}/start`);
    assert.equal(conflict.status, 500);
    assert.match(conflict.json().message, /Bind for 0\.0\.0\.0:8123 failed: port is already allocated/);

    const all = await create({ ...web, HostConfig: { PublishAllPorts: true } });
    await engine.call('POST', `/containers/${all.Id}/start`);
    const published = (await engine.call('GET', `/containers/${all.Id}/json`)).NetworkSettings.Ports;
    for (const key of ['80/tcp', '443/tcp']) assert.match(published[key][0].HostPort, /^\d+$/);
    for (const id of [Id, taken.Id, all.Id]) await engine.call('DELETE', `/containers/${id}?force=1`);
  });
  // What passes through such ports is tested with the networks, where both ends speak UDP: busybox does not.
  test('UDP ports and ranges, chosen by the user and by the engine', async () => {
    const bindings = { '7001/udp': [{ HostPort: '7001' }], '7002/udp': [{ HostPort: '7100-7110' }], '7003/udp': [{}] };
    const { Id } = await create({ Cmd: ['sleep', '100'], HostConfig: { PortBindings: bindings } });
    await engine.call('POST', `/containers/${Id}/start`);
    const { Ports } = (await engine.call('GET', `/containers/${Id}/json`)).NetworkSettings;
    assert.equal(Ports['7001/udp'][0].HostPort, '7001');
    const ranged = Number(Ports['7002/udp'][0].HostPort);
    assert.ok(ranged >= 7100 && ranged <= 7110, String(ranged));
    assert.match(Ports['7003/udp'][0].HostPort, /^\d+$/);
    // The same number is free for TCP, and taken for UDP.
    for (const [protocol, status] of [
      ['tcp', 204],
      ['udp', 500],
    ] as const) {
      const other = { PortBindings: { [`7001/${protocol}`]: [{ HostPort: '7001' }] } };
      const second = await create({ Cmd: ['sleep', '100'], HostConfig: other });
      assert.equal((await engine.api('POST', `/containers/${second.Id}/start`)).status, status, protocol);
      await engine.call('DELETE', `/containers/${second.Id}?force=1`);
    }
    await engine.call('DELETE', `/containers/${Id}?force=1`);
  });
});

describe('HostConfig: life', () => {
  test('RestartPolicy on-failure counts its attempts', async () => {
    const { Id } = await create({
      Cmd: ['sh', '-c', 'exit 9'],
      HostConfig: { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 2 } },
    });
    await engine.call('POST', `/containers/${Id}/start`);
    await eventually(async () => {
      const { State, RestartCount } = await engine.call('GET', `/containers/${Id}/json`);
      assert.deepEqual([State.Status, RestartCount, State.ExitCode], ['exited', 2, 9]);
    });
  });
  test('RestartPolicy always, until it is stopped', async () => {
    const { Id } = await create({ Cmd: ['sh', '-c', 'sleep 0.05'], HostConfig: { RestartPolicy: { Name: 'always' } } });
    await engine.call('POST', `/containers/${Id}/start`);
    await eventually(async () => assert.ok((await engine.call('GET', `/containers/${Id}/json`)).RestartCount >= 2));
    await engine.api('POST', `/containers/${Id}/stop`);
    const stopped = await engine.call('GET', `/containers/${Id}/json`);
    assert.equal(stopped.State.Status, 'exited');
    await new Promise((resolve) => setTimeout(resolve, 700));
    assert.equal((await engine.call('GET', `/containers/${Id}/json`)).RestartCount, stopped.RestartCount);
  });
  test('AutoRemove; wait answers afterwards', async () => {
    const { Id } = await create({ Cmd: ['sh', '-c', 'exit 42'], HostConfig: { AutoRemove: true } });
    await engine.call('POST', `/containers/${Id}/start`);
    await eventually(async () => (await engine.api('GET', `/containers/${Id}/json`)).status === 404);
    assert.equal((await engine.call('POST', `/containers/${Id}/wait`)).StatusCode, 42);
  });
  test('LogConfig json-file with max-size and max-file, and none', async () => {
    const { stdout, id } = await run(
      'i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done',
      {},
      { LogConfig: { Type: 'json-file', Config: { 'max-size': '10k', 'max-file': '3' } } },
    );
    const seen = stdout.trim().split('\n');
    assert.equal(seen.at(-1), 'line 2999');
    const first = Number(seen[0]?.split(' ')[1]);
    assert.deepEqual(
      seen,
      Array.from({ length: 3000 - first }, (_, i) => `line ${first + i}`),
    );
    const { LogPath } = await engine.call('GET', `/containers/${id}/json`);
    const files = fs.readdirSync(path.dirname(LogPath)).filter((name) => name.startsWith(path.basename(LogPath)));
    assert.ok(files.length <= 3, files.join());

    const silent = await create({ Cmd: ['echo', 'x'], HostConfig: { LogConfig: { Type: 'none' } } });
    await engine.call('POST', `/containers/${silent.Id}/start`);
    await engine.call('POST', `/containers/${silent.Id}/wait`);
    const answer = await engine.api('GET', `/containers/${silent.Id}/logs?stdout=1`);
    assert.equal(answer.status, 501, answer.text);
  });
});

async function refusedAtCreateOrStart(body: object, text: RegExp): Promise<void> {
  let answer = await engine.api('POST', '/containers/create', { Image: 'busybox', Cmd: ['true'], ...body });
  if (answer.status === 201) answer = await engine.api('POST', `/containers/${answer.json().Id}/start`);
  assert.equal(answer.status, 400, answer.text);
  assert.match(answer.json().message, text);
}

describe('what is not honoured', () => {
  for (const [property, host] of Object.entries({
    'HostConfig.Cgroup': { Cgroup: 'x' },
  })) {
    test(`${property} is refused by name`, () =>
      refused({ HostConfig: host }, 501, new RegExp(`^${property.replace('.', '\\.')} is not supported`)));
  }
  test('an unknown property is ignored, a wrong type is not', async () => {
    const { Id } = await create({ Cmd: ['true'], Frobnicate: 1, HostConfig: { Frob: 2 } });
    assert.match(Id, /^[0-9a-f]{64}$/);
    await refused({ Cmd: 5 }, 400, /Cmd/);
    await refused({ HostConfig: { Memory: 'much' } }, 400, /Memory/);
  });
});
