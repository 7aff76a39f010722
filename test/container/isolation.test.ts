/**
 * Namespaces shared and not, capabilities, seccomp, sysctls and the rest of a container's isolation, seen from inside.
 * Texts and statuses are those of dockerd 20.10, except where it finds out at start what can be told at create.
 *
 * test-timeout-seconds: 240
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

interface Ran {
  readonly id: string;
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const create = async (cmd: readonly string[], host: object = {}, body: object = {}, on = engine): Promise<string> =>
  (await on.call('POST', '/containers/create', { Image: 'busybox', Cmd: cmd, ...body, HostConfig: host })).Id;

async function begin(host: object = {}, cmd: readonly string[] = ['sleep', '1000'], on = engine): Promise<string> {
  const id = await create(cmd, host, {}, on);
  await on.call('POST', `/containers/${id}/start`);
  return id;
}

async function run(script: string, host: object = {}, body: object = {}, on = engine): Promise<Ran> {
  const id = await create(['sh', '-c', script], host, body, on);
  await on.call('POST', `/containers/${id}/start`);
  const { StatusCode } = await on.call('POST', `/containers/${id}/wait`);
  const { body: logs } = await on.api('GET', `/containers/${id}/logs?stdout=1&stderr=1`);
  return { id, code: StatusCode, ...demultiplex(logs) };
}

async function prints(script: string, expected: string | RegExp, host: object = {}, body: object = {}, on = engine) {
  const { stdout, stderr } = await run(script, host, body, on);
  if (typeof expected === 'string') assert.equal(stdout.trim(), expected, stderr);
  else assert.match(stdout, expected, stderr);
}

async function refusesCreate(host: object, status: number, text: string | RegExp, body: object = {}): Promise<void> {
  const answer = await engine.api('POST', '/containers/create', {
    Image: 'busybox',
    Cmd: ['true'],
    ...body,
    HostConfig: host,
  });
  const { message } = answer.json();
  if (typeof text === 'string') assert.equal(message, text);
  else assert.match(message, text);
  assert.equal(answer.status, status, message);
}

async function refusesStart(id: string, status: number, text: string | RegExp): Promise<void> {
  const answer = await engine.api('POST', `/containers/${id}/start`);
  const message = answer.text === '' ? '' : answer.json().message;
  if (typeof text === 'string') assert.equal(message, text);
  else assert.match(message, text);
  assert.equal(answer.status, status, message);
}

async function exec(id: string, script: string, options: object = {}): Promise<string> {
  const { Id } = await engine.call('POST', `/containers/${id}/exec`, {
    Cmd: ['sh', '-c', script],
    AttachStdout: true,
    AttachStderr: true,
    ...options,
  });
  const { body } = await engine.api('POST', `/exec/${Id}/start`, {});
  return demultiplex(body).stdout.trim();
}

const inspect = (id: string): Promise<Loose> => engine.call('GET', `/containers/${id}/json`);
const namespaceOf = (pid: number | string, type: string) => fs.readlinkSync(`/proc/${pid}/ns/${type}`);
/** pids whose command line holds a word that only this test knows. */
const processesWith = (word: string) =>
  fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0').includes(word);
      } catch {
        return false;
      }
    });

describe('PidMode', () => {
  test("host: sees the host's processes", async () => {
    await prints('readlink /proc/self/ns/pid', namespaceOf('self', 'pid'), { PidMode: 'host' });
  });
  test('container: is resolved to an id, joins, and sees the other', async () => {
    const donor = await begin({}, ['sleep', '4711']);
    const { Name } = await inspect(donor);
    const id = await create(['ps', '-o', 'pid,args'], { PidMode: `container:${Name.slice(1)}` });
    assert.equal((await inspect(id)).HostConfig.PidMode, `container:${donor}`);
    await engine.call('POST', `/containers/${donor}/rename?name=somebody-else`);
    await engine.call('POST', `/containers/${id}/start`);
    await engine.call('POST', `/containers/${id}/wait`);
    const logs = await engine.api('GET', `/containers/${id}/logs?stdout=1`);
    assert.match(demultiplex(logs.body).stdout, /^ +1 sleep 4711$/m);
    await engine.call('DELETE', `/containers/${donor}?force=1`);
    await refusesStart(id, 409, `cannot join PID of a non running container: ${donor}: No such container: ${donor}`);
  });
  test('what it cannot be', async () => {
    await refusesCreate({ PidMode: 'junk' }, 400, 'Invalid PID mode: junk');
    await refusesCreate({ PidMode: 'container:' }, 400, 'Invalid PID mode: container:');
    await refusesCreate({ PidMode: 'container:nobody' }, 400, 'No such container: nobody');
    const donor = await create(['true']);
    const id = await create(['true'], { PidMode: `container:${donor}` });
    await refusesStart(
      id,
      409,
      `cannot join PID of a non running container: ${donor}: container ${donor} is not running`,
    );
    assert.match((await inspect(id)).State.Error, /non running container/);
  });
  for (const mode of ['host', 'container']) {
    for (const [how, end] of [
      ['stop', (id: string) => engine.call('POST', `/containers/${id}/stop?t=5`)],
      ['kill', (id: string) => engine.call('POST', `/containers/${id}/kill`)],
      ['remove', (id: string) => engine.call('DELETE', `/containers/${id}?force=1`)],
    ] as const) {
      test(`${mode}: ${how} leaves no process behind`, async () => {
        const donor = mode === 'container' ? await begin() : null;
        const word = `${31_000 + Math.floor(Math.random() * 1e6)}.25`;
        // Children that ignore what ends their parent, one of them in a session of its own.
        const script = `(trap "" TERM HUP; setsid sleep ${word}) & (trap "" TERM HUP; sleep ${word}) & trap "exit 0" TERM; while :; do sleep .1; done`;
        const id = await begin({ PidMode: donor ? `container:${donor}` : 'host' }, ['sh', '-c', script]);
        await eventually(() => processesWith(word).length === 2);
        await end(id);
        assert.deepEqual(processesWith(word), []);
        if (donor) assert.equal((await inspect(donor)).State.Running, true);
      });
    }
  }
  test('the end of the owner ends those that joined it', async () => {
    const donor = await begin();
    const id = await begin({ PidMode: `container:${donor}` });
    await engine.call('POST', `/containers/${donor}/kill`);
    await eventually(async () => !(await inspect(id)).State.Running);
    assert.equal((await inspect(id)).State.ExitCode, 137);
  });
  test('exec and top work in a shared namespace', async () => {
    const donor = await begin();
    const id = await begin({ PidMode: `container:${donor}` }, ['sleep', '2222']);
    assert.equal(await exec(id, 'readlink /proc/self/ns/pid'), await exec(donor, 'readlink /proc/self/ns/pid'));
    const { Processes } = await engine.call('GET', `/containers/${id}/top`);
    assert.match(JSON.stringify(Processes), /sleep 2222/);
  });
});

describe('IpcMode', () => {
  test("host: the host's /dev/shm and message queues", async () => {
    const name = `slipway-${process.pid}`;
    fs.writeFileSync(`/dev/shm/${name}`, 'seen');
    try {
      await prints(`cat /dev/shm/${name}; readlink /proc/self/ns/ipc`, `seen${namespaceOf('self', 'ipc')}`, {
        IpcMode: 'host',
      });
    } finally {
      fs.rmSync(`/dev/shm/${name}`);
    }
  });
  test('container: shares memory and namespace, in a chain, and outlives its owner', async () => {
    const donor = await begin({ ShmSize: 1 << 20 });
    assert.equal((await inspect(donor)).HostConfig.IpcMode, 'shareable');
    await exec(donor, 'echo hello > /dev/shm/note');
    const second = await begin({ IpcMode: `container:${donor}` });
    const third = await begin({ IpcMode: `container:${second}` });
    assert.equal(await exec(third, 'cat /dev/shm/note; df -k /dev/shm | tail -1 | awk "{print \\$2}"'), 'hello\n1024');
    assert.equal(
      await exec(third, 'grep " /dev/shm " /proc/mounts | cut -d" " -f4 | cut -d, -f1-4'),
      'rw,nosuid,nodev,noexec',
    );
    const [a, b] = [await inspect(donor), await inspect(third)];
    assert.equal(namespaceOf(a.State.Pid, 'ipc'), namespaceOf(b.State.Pid, 'ipc'));
    await engine.call('DELETE', `/containers/${donor}?force=1`);
    assert.equal(await exec(third, 'cat /dev/shm/note'), 'hello');
    await engine.call('DELETE', `/containers/${second}?force=1`);
    // Removal of a container that shares memory takes the mount away, not what is in it.
    assert.equal(await exec(third, 'cat /dev/shm/note'), 'hello');
    await engine.call('DELETE', `/containers/${third}?force=1`);
    await engine.assertNoLeaks();
  });
  test('a failed start leaves the memory of the other alone', async () => {
    const donor = await begin();
    await exec(donor, 'echo kept > /dev/shm/note');
    const id = await create(['/no/such/command'], { IpcMode: `container:${donor}` });
    await refusesStart(id, 400, /no such file/);
    assert.equal(await exec(donor, 'cat /dev/shm/note'), 'kept');
  });
  test('private and none', async () => {
    await prints('test -e /dev/shm || echo none', 'none', { IpcMode: 'none' });
    for (const mode of ['private', 'none']) {
      const donor = await begin({ IpcMode: mode });
      const id = await create(['true'], { IpcMode: `container:${donor}` });
      const text = `can't join IPC of container ${donor}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`;
      await refusesStart(id, 409, text);
    }
  });
  test('what it cannot be', async () => {
    await refusesCreate({ IpcMode: 'junk' }, 400, 'Invalid IPC mode: junk');
    await refusesCreate({ IpcMode: 'container:' }, 400, 'Invalid IPC mode: container:');
    const donor = await create(['true']);
    const id = await create(['true'], { IpcMode: `container:${donor}` });
    await refusesStart(id, 409, `can't join IPC of container ${donor}: container ${donor} is not running`);
  });
});

describe('UTSMode', () => {
  test("host: the host's name", async () => {
    const name = fs.readFileSync('/proc/sys/kernel/hostname', 'utf8').trim();
    await prints(
      'hostname; cat /etc/hostname; readlink /proc/self/ns/uts',
      `${name}\n${name}\n${namespaceOf('self', 'uts')}`,
      {
        UTSMode: 'host',
      },
    );
  });
  test('conflicts', async () => {
    const host = { UTSMode: 'host' };
    await refusesCreate(host, 400, 'conflicting options: hostname and the UTS mode', { Hostname: 'x' });
    await refusesCreate(host, 400, 'conflicting options: domainname and the UTS mode', { Domainname: 'x' });
    await refusesCreate({ UTSMode: 'junk' }, 400, 'Invalid UTS mode: junk');
  });
  test('what inspect returns, create accepts', async () => {
    const { Config, HostConfig } = await inspect(await create(['true'], { UTSMode: 'host', PidMode: 'host' }));
    const { Id } = await engine.call('POST', '/containers/create', { ...Config, HostConfig });
    assert.deepEqual((await inspect(Id)).HostConfig, HostConfig);
    assert.deepEqual(HostConfig.SecurityOpt, ['label=disable']);
  });
});

describe('Init', () => {
  test('runs the command as a child that is reaped', async () => {
    await prints(
      'cat /proc/1/cmdline | tr "\\0" " "',
      '/sbin/docker-init -- sh -c cat /proc/1/cmdline | tr "\\0" " "',
      {
        Init: true,
      },
    );
    const id = await begin({ Init: true }, ['sh', '-c', '(sleep 0.1 &) ; exec sleep 1000']);
    await eventually(async () => /^\S+ +sleep 1000$/m.test(await exec(id, 'ps -o stat,args')));
    await eventually(async () => !/^Z|sleep 0.1$/m.test(await exec(id, 'ps -o stat,args')));
    const began = Date.now();
    await engine.call('POST', `/containers/${id}/stop?t=30`);
    assert.ok(Date.now() - began < 15_000, 'the init passes SIGTERM on');
    assert.equal((await inspect(id)).State.ExitCode, 143);
  });
  test('exit codes pass through; inspect shows what was asked for', async () => {
    const { code, id } = await run('exit 42', { Init: true });
    assert.equal(code, 42);
    const { HostConfig, Path, Args } = await inspect(id);
    assert.deepEqual([HostConfig.Init, Path, Args], [true, 'sh', ['-c', 'exit 42']]);
    assert.equal((await run('exec nonsense', { Init: true })).code, 127);
  });
  test('none where process 1 is somebody else’s', async () => {
    await prints('tr "\\0" " " < /proc/$$/cmdline | cut -c1-5', 'sh -c', { Init: true, PidMode: 'host' });
  });
  test('with a read-only root, as a user', () =>
    prints('id -u; cat /proc/1/comm', '7\ndocker-init', { Init: true, ReadonlyRootfs: true }, { User: '7' }));
});

describe('Sysctls', () => {
  test('of namespaces of its own', async () => {
    const Sysctls = {
      'kernel.msgmax': '12345',
      'fs.mqueue.msg_max': '99',
      'net.ipv4.ip_forward': '1',
      'net/ipv4/tcp_syncookies': '0',
    };
    const script =
      'cd /proc/sys; cat kernel/msgmax fs/mqueue/msg_max net/ipv4/ip_forward net/ipv4/tcp_syncookies | tr "\\n" " "';
    await prints(script, '12345 99 1 0', { Sysctls });
    const { HostConfig } = await inspect(await create(['true'], { Sysctls }));
    assert.deepEqual(HostConfig.Sysctls, Sysctls);
  });
  const refusals: readonly [string, object, string][] = [
    ['vm.swappiness', {}, 'sysctl "vm.swappiness" is not in a separate kernel namespace'],
    ['kernel.panic', {}, 'sysctl "kernel.panic" is not in a separate kernel namespace'],
    ['kernel.shmnonsense', {}, 'sysctl "kernel.shmnonsense" is not in a separate kernel namespace'],
    ['kernel.msgmax', { IpcMode: 'host' }, 'sysctl "kernel.msgmax" is not allowed in the hosts ipc namespace'],
    ['fs.mqueue.msg_max', { IpcMode: 'host' }, 'sysctl "fs.mqueue.msg_max" is not allowed in the hosts ipc namespace'],
    [
      'net.ipv4.ip_forward',
      { NetworkMode: 'host' },
      'sysctl "net.ipv4.ip_forward" not allowed in host network namespace',
    ],
    ['kernel.hostname', {}, 'sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field'],
    ['net/../../kernel/panic', {}, 'sysctl "net/../../kernel/panic" is not a name'],
  ];
  for (const [name, host, text] of refusals) {
    test(`${name} ${JSON.stringify(host)} is refused`, () =>
      refusesCreate({ ...host, Sysctls: { [name]: '1' } }, 400, text));
  }
  test('one the kernel lacks, or a value it does not take, fails the start', async () => {
    const lacking = await create(['true'], { Sysctls: { 'net.ipv4.nonsense': '1' } });
    await refusesStart(lacking, 400, /\/proc\/sys\/net\/ipv4\/nonsense: no such file or directory/);
    const wrong = await create(['true'], { Sysctls: { 'kernel.msgmax': 'lots' } });
    await refusesStart(wrong, 400, /\/proc\/sys\/kernel\/msgmax: invalid argument/);
  });
});

describe('capabilities', () => {
  const of = (set: string) => `grep Cap${set} /proc/1/status | cut -f2`;
  const usual = '00000000a80425fb';
  const cases: readonly [string, object, object, string, string][] = [
    ['by default', {}, {}, 'Eff', usual],
    ['of a user', { User: '7' }, {}, 'Eff', '0000000000000000'],
    ['of a user, bounding', { User: '7' }, { CapAdd: ['SYS_NICE'] }, 'Bnd', '00000000a88425fb'],
    ['added, in every spelling', {}, { CapAdd: ['sys_nice', 'CAP_Net_Admin'] }, 'Eff', '00000000a88435fb'],
    ['dropped', {}, { CapDrop: ['MKNOD', 'cap_net_raw'] }, 'Eff', '00000000a00405fb'],
    ['all dropped but one', {}, { CapDrop: ['all'], CapAdd: ['chown'] }, 'Eff', '0000000000000001'],
    ['added and dropped', {}, { CapDrop: ['CHOWN'], CapAdd: ['CHOWN'] }, 'Eff', usual],
  ];
  for (const [what, body, host, set, expected] of cases) test(what, () => prints(of(set), expected, host, body));
  test('all, and privileged: what the daemon has', async () => {
    const mine = /^CapBnd:\s*(\w+)/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '';
    await prints(of('Eff'), mine, { CapAdd: ['ALL'] });
    await prints(of('Bnd'), mine, { Privileged: true, CapDrop: ['CHOWN'] });
    await prints(of('Eff'), '0000000000000000', { Privileged: true }, { User: '7' });
    const less = (BigInt(`0x${mine}`) & ~(1n << 27n)).toString(16).padStart(16, '0');
    await prints(of('Eff'), less, { CapAdd: ['ALL'], CapDrop: ['mknod'] });
    const id = await begin();
    assert.equal(await exec(id, 'grep CapEff /proc/self/status | cut -f2', { Privileged: true }), mine);
    assert.equal(await exec(id, 'grep CapEff /proc/self/status | cut -f2'), usual);
  });
  test('unknown ones are refused', async () => {
    await refusesCreate({ CapAdd: ['foo'] }, 400, 'invalid CapAdd: unknown capability: "CAP_FOO"');
    await refusesCreate({ CapDrop: ['CAP_foo'] }, 400, 'invalid CapDrop: unknown capability: "CAP_FOO"');
  });
});

describe('seccomp', () => {
  const denying = (more: object = {}, rule: object = {}) => ({
    SecurityOpt: [
      `seccomp=${JSON.stringify({
        defaultAction: 'SCMP_ACT_ALLOW',
        syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', ...rule }],
        ...more,
      })}`,
    ],
  });
  const tries = 'mkdir /made 2>/dev/null && echo made || echo denied';

  test('the default profile, none, and one from JSON', async () => {
    await prints(
      'grep Seccomp: /proc/1/status | cut -f2; unshare -m true 2>/dev/null && echo free || echo held',
      '2\nheld',
      {
        CapAdd: ['SYS_CHROOT'],
      },
    );
    for (const option of ['seccomp=unconfined', 'seccomp:unconfined', 'seccomp={}'])
      await prints('grep Seccomp: /proc/1/status | cut -f2', '0', { SecurityOpt: [option] });
    await prints('grep Seccomp: /proc/1/status | cut -f2', '2', { SecurityOpt: ['seccomp=builtin'] });
    await prints(tries, 'denied', denying());
    await prints(tries, 'made', { ...denying(), Privileged: true });
  });
  test('two profiles do not meet in the cache of compiled filters', async () => {
    for (const expected of ['denied', 'made', 'denied', 'made'])
      await prints(tries, expected, expected === 'denied' ? denying() : denying({}, { names: ['rmdir'] }));
  });
  test('conditions: capabilities, architecture, kernel', async () => {
    const arch = process.arch === 'arm64' ? 'arm64' : 'amd64';
    const cases: readonly [object, string][] = [
      [{ excludes: { caps: ['CAP_CHOWN'] } }, 'made'],
      [{ excludes: { caps: ['CAP_SYS_ADMIN'] } }, 'denied'],
      [{ includes: { caps: ['CAP_SYS_ADMIN'] } }, 'made'],
      [{ includes: { caps: ['CAP_CHOWN', 'CAP_MKNOD'] } }, 'denied'],
      [{ includes: { arches: [arch] } }, 'denied'],
      [{ includes: { arches: ['s390x'] } }, 'made'],
      [{ excludes: { arches: [arch] } }, 'made'],
      [{ includes: { minKernel: '3.1' } }, 'denied'],
      [{ includes: { minKernel: '99.0' } }, 'made'],
      [{ excludes: { minKernel: '3.1' } }, 'made'],
    ];
    for (const [rule, expected] of cases) await prints(tries, expected, denying({}, rule));
  });
  test('older name, errno, arguments and archMap', async () => {
    await prints('mkdir /made 2>&1', /Cannot allocate memory/, denying({}, { names: [], name: 'mkdir', errnoRet: 12 }));
    const mode = (value: number) => ({
      args: [{ index: 0, value, op: 'SCMP_CMP_EQ' }],
      names: ['personality'],
      errnoRet: 12,
    });
    await prints(tries, 'made', denying({}, mode(0)));
    const archMap = [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86', 'SCMP_ARCH_X32'] }];
    await prints(tries, 'denied', denying({ archMap }));
    await prints(tries, 'denied', denying({ architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_AARCH64'] }));
  });
  test('bad profiles are refused', async () => {
    const bad: readonly [string, RegExp][] = [
      ['{bad', /^Decoding seccomp profile failed: /],
      ['[]', /^Decoding seccomp profile failed: the profile is not an object/],
      ['{"defaultAction":5}', /^Decoding seccomp profile failed: defaultAction is not a string/],
      ['{"defaultAction":"NOPE"}', /^Decoding seccomp profile failed: string NOPE is not a valid action for seccomp/],
      [
        '{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}',
        /^'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or 'archMap'$/,
      ],
      [
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ERRNO"}]}',
        /^'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'$/,
      ],
      [
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","action":"SCMP_ACT_ERRNO","includes":{"minKernel":"x"}}]}',
        /invalid kernel version: "x", expected "<kernel>.<major>"/,
      ],
      [
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","action":"SCMP_ACT_ERRNO","args":[{"index":0,"op":"NO"}]}]}',
        /string NO is not a valid operator for seccomp/,
      ],
    ];
    for (const [profile, text] of bad) await refusesCreate({ SecurityOpt: [`seccomp=${profile}`] }, 400, text);
  });
});

describe('SecurityOpt', () => {
  test('no-new-privileges in every spelling', async () => {
    const held = 'grep NoNewPrivs /proc/1/status | cut -f2';
    for (const option of [
      'no-new-privileges',
      'no-new-privileges=true',
      'no-new-privileges:true',
      'no-new-privileges=1',
    ])
      await prints(held, '1', { SecurityOpt: [option] });
    await prints(held, '0', { SecurityOpt: ['no-new-privileges=false'] });
    const id = await begin({ SecurityOpt: ['no-new-privileges'] });
    assert.equal(await exec(id, 'grep NoNewPrivs /proc/self/status | cut -f2'), '1');
  });
  test('systempaths=unconfined opens what is masked and read-only', async () => {
    const script = 'grep -c " /proc/" /proc/mounts';
    await prints(script, '0', { SecurityOpt: ['systempaths=unconfined'] });
    await prints(script, /^[1-9]/);
  });
  test('AppArmor and SELinux options as dockerd takes them on a kernel without', async () => {
    for (const option of ['apparmor=some-profile', 'apparmor:some-profile']) {
      const { id, code } = await run('true', { SecurityOpt: [option] });
      const { AppArmorProfile, MountLabel, ProcessLabel } = await inspect(id);
      assert.deepEqual([code, AppArmorProfile, MountLabel, ProcessLabel], [0, 'some-profile', '', '']);
    }
    for (const option of ['label=disable', 'label:disable', 'label=type:svirt_apache_t', 'label=level:s0:c1,c2'])
      assert.equal((await run('true', { SecurityOpt: [option] })).code, 0);
  });
  test('others are refused', async () => {
    await refusesCreate({ SecurityOpt: ['junk'] }, 400, 'invalid --security-opt 1: "junk"');
    await refusesCreate({ SecurityOpt: ['junk=1'] }, 400, 'invalid --security-opt 2: "junk=1"');
    const text = 'invalid --security-opt 2: "no-new-privileges=junk"';
    await refusesCreate({ SecurityOpt: ['no-new-privileges=junk'] }, 400, text);
  });
});

describe('the rest', () => {
  test('read-only root with places that can be written', async () => {
    const script = 'touch /x 2>/dev/null || echo ro; touch /t/x /v/x /dev/shm/x && echo rw';
    await prints(script, 'ro\nrw', { ReadonlyRootfs: true, Tmpfs: { '/t': '' } }, { Volumes: { '/v': {} } });
  });
  test('privileged: devices, writable sysfs, nothing masked', async () => {
    const script =
      'test -e /dev/kmsg && echo devices; grep -c " /proc/" /proc/mounts; grep " /sys " /proc/mounts | cut -d" " -f4 | cut -d, -f1';
    await prints(script, 'devices\n0\nrw', { Privileged: true });
    assert.deepEqual((await inspect(await create(['true'], { Privileged: true }))).HostConfig.SecurityOpt, [
      'label=disable',
    ]);
  });
  test('GroupAdd by name and number', async () => {
    await prints('id -G', '7 7 0 777', { GroupAdd: ['root', '777'] }, { User: '7:7' }).catch(() =>
      prints('id -G', '7 0 777', { GroupAdd: ['root', '777'] }, { User: '7:7' }),
    );
    const id = await create(['true'], { GroupAdd: ['nobodys'] });
    await refusesStart(id, 400, 'Unable to find group nobodys: no matching entries in group file');
  });
  test('Isolation', async () => {
    await prints('echo ran', 'ran', { Isolation: 'default' });
    await refusesCreate({ Isolation: 'hyperv' }, 400, 'Invalid isolation: "hyperv" - linux only supports \'default\'');
    await refusesCreate({ UsernsMode: 'junk' }, 400, 'Invalid USER mode: junk');
    await prints('echo ran', 'ran', { UsernsMode: 'host' });
  });
  test('runc does the same', async () => {
    const runc = { Runtime: 'runc' };
    const donor = await begin(runc);
    await exec(donor, 'echo hello > /dev/shm/note');
    await prints('cat /dev/shm/note; cat /proc/1/comm', 'hello\nsleep', {
      ...runc,
      IpcMode: `container:${donor}`,
      PidMode: `container:${donor}`,
    });
    await prints('cat /proc/1/comm; cat /proc/sys/kernel/msgmax', 'docker-init\n777', {
      ...runc,
      Init: true,
      Sysctls: { 'kernel.msgmax': '777' },
    });
    const word = '8765.5';
    const id = await begin({ ...runc, PidMode: 'host' }, ['sh', '-c', `(trap "" TERM; sleep ${word}) & sleep 1000`]);
    await eventually(() => processesWith(word).length === 1);
    await engine.call('POST', `/containers/${id}/kill`);
    assert.deepEqual(processesWith(word), []);
    await refusesCreate({ Runtime: 'nonsense' }, 400, 'Unknown runtime specified nonsense');
  });
});

test('the daemon’s defaults, and its restart', async (t) => {
  const directory = fs.mkdtempSync('/tmp/isolation-');
  t.after(() => fs.rmSync(directory, { recursive: true }));
  const profile = path.join(directory, 'profile.json');
  fs.writeFileSync(
    profile,
    JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['mkdir'], action: 'SCMP_ACT_ERRNO' }] }),
  );
  const other = await TestEngine.start({
    flags: ['--init', '--no-new-privileges', '--seccomp-profile', profile, '--add-runtime', 'mine=/usr/sbin/runc'],
  });
  try {
    await importBusybox(other);
    const info = await other.call('GET', '/info');
    assert.ok(info.SecurityOptions.includes(`name=seccomp,profile=${profile}`), info.SecurityOptions);
    assert.ok(info.SecurityOptions.includes('name=no-new-privileges'));
    assert.match(info.InitBinary, /init|tini/);
    const script = 'cat /proc/1/comm; grep NoNewPrivs /proc/1/status | cut -f2; mkdir /x 2>/dev/null || echo denied';
    await prints(script, 'docker-init\n1\ndenied', {}, {}, other);
    await prints(script, 'docker-init\n1\ndenied', { Runtime: 'mine' }, {}, other);
    const own = { Init: false, SecurityOpt: ['no-new-privileges=false', 'seccomp=builtin'] };
    await prints(script, 'sh\n0', own, {}, other);

    // Containers that share namespaces live on under the next daemon, which can end all of them.
    const donor = await begin({}, ['sleep', '1000'], other);
    const id = await begin({ PidMode: `container:${donor}`, IpcMode: `container:${donor}` }, ['sleep', '777.7'], other);
    await other.restart('SIGKILL');
    await other.call('POST', `/containers/${id}/kill`);
    assert.deepEqual(processesWith('777.7'), []);
    await other.call('DELETE', `/containers/${id}`);
    await other.call('DELETE', `/containers/${donor}?force=1`);
    await other.assertNoLeaks();
  } finally {
    await other.close();
  }
  await assert.rejects(
    TestEngine.start({ flags: ['--seccomp-profile', '/no/such/profile'] }),
    /opening seccomp profile \(\/no\/such\/profile\) failed/,
  );
});

test('after a reboot a container waits for the one whose namespaces it shares', async () => {
  const always = { RestartPolicy: { Name: 'always' } };
  const donor = await begin(always);
  const id = await begin({ ...always, PidMode: `container:${donor}`, IpcMode: `container:${donor}` });
  await engine.kill9();
  // As a reboot leaves it: nothing runs, and the run directory has gone with the memory it was in.
  for (const { state } of [await pidsOf(donor), await pidsOf(id)]) for (const pid of state) killIfThere(pid);
  await eventually(async () => (await pidsOf(donor)).state.length + (await pidsOf(id)).state.length === 0);
  fs.rmSync(path.join(engine.paths.execRoot, 'exits'), { recursive: true });
  await engine.launch();
  // What inspect tells in the first moments is from before.
  await eventually(async () => {
    const [a, b] = [await inspect(donor), await inspect(id)];
    return namespaceOf(a.State.Pid, 'pid') === namespaceOf(b.State.Pid, 'pid');
  }, 15_000);
  await engine.removeAll();
  await engine.assertNoLeaks();
});

/** One that goes with another has gone by the time it is its turn. */
function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ESRCH');
  }
}

/** Processes and monitor of a container. */
async function pidsOf(id: string): Promise<{ readonly state: readonly number[] }> {
  const state = fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const text =
          fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1') + fs.readFileSync(`/proc/${pid}/cgroup`, 'latin1');
        return text.includes(id);
      } catch {
        return false;
      }
    });
  return { state: state.map(Number) };
}
