/**
 * `POST /containers/{id}/update`: the record, the kernel and the answer say the same, also after a restart and a crash. Statuses and
 * texts hold for dockerd 20.10 too, but where a comment says otherwise.
 *
 * test-timeout-seconds: 300
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { clis, engineKind, TestEngine } from '../support/engine.ts';
import type { Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';
import { cgroupDirectories, cgroupValue, cpuShares, isUnified } from './cgroups.ts';

const ours = engineKind === 'slipway';
const MiB = 1024 * 1024;
let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
});
after(() => engine?.close());

async function create(host: object = {}, cmd: readonly string[] = ['sleep', '1000']): Promise<string> {
  const body = { Image: 'busybox', Cmd: cmd, HostConfig: { NetworkMode: 'none', ...host } };
  return (await engine.call('POST', '/v1.26/containers/create', body)).Id;
}

async function start(host: object = {}, cmd?: readonly string[]): Promise<string> {
  const id = await create(host, cmd);
  await engine.call('POST', `/v1.26/containers/${id}/start`);
  return id;
}

const inspect = (id: string): Promise<Loose> => engine.call('GET', `/v1.26/containers/${id}/json`);
const hostConfig = async (id: string): Promise<Loose> => (await inspect(id)).HostConfig;
const remove = (id: string) => engine.call('DELETE', `/v1.26/containers/${id}?force=1`);
const update = (id: string, body: object | null) =>
  engine.api('POST', `/v1.26/containers/${id}/update`, body as object);
const updated = async (id: string, body: object): Promise<Loose> => {
  const answer = await update(id, body);
  assert.equal(answer.status, 200, answer.text);
  return answer.json();
};
const held = async (id: string, file: string): Promise<string> => cgroupValue((await inspect(id)).State.Pid, file);

/** What is asked for, and what the cgroup says then. */
interface Case {
  readonly from?: object;
  readonly to: object;
  readonly files: Readonly<Record<string, string>>;
  /** dockerd leaves it as it was. */
  readonly oursAlone?: boolean;
  readonly v1Alone?: boolean;
}

const rate = (Path: string, Rate: number) => [{ Path, Rate }];
const cases: readonly Case[] = [
  {
    from: { Memory: 64 * MiB },
    to: { Memory: 256 * MiB, MemorySwap: 512 * MiB },
    files: {
      'memory.limit_in_bytes': String(256 * MiB),
      'memory.memsw.limit_in_bytes': String(512 * MiB),
    },
  },
  {
    from: { Memory: 256 * MiB },
    to: { Memory: 64 * MiB, MemorySwap: 64 * MiB },
    files: { 'memory.limit_in_bytes': String(64 * MiB), 'memory.memsw.limit_in_bytes': String(64 * MiB) },
  },
  {
    to: { Memory: 64 * MiB, MemorySwap: 96 * MiB },
    files: { 'memory.limit_in_bytes': String(64 * MiB), 'memory.memsw.limit_in_bytes': String(96 * MiB) },
  },
  {
    from: { Memory: 64 * MiB },
    to: { MemorySwap: -1 },
    files: { 'memory.memsw.limit_in_bytes': '9223372036854771712' },
    oursAlone: true,
  },
  { to: { MemoryReservation: 32 * MiB }, files: { 'memory.soft_limit_in_bytes': String(32 * MiB) } },
  { to: { MemorySwappiness: 10 }, files: { 'memory.swappiness': '10' }, oursAlone: true, v1Alone: true },
  { to: { CpuShares: 300 }, files: { 'cpu.shares': cpuShares(300) } },
  {
    to: { CpuPeriod: 50_000, CpuQuota: 20_000 },
    files: { 'cpu.cfs_quota_us': '20000', 'cpu.cfs_period_us': '50000' },
  },
  { from: { CpuQuota: 20_000 }, to: { CpuQuota: -1 }, files: { 'cpu.cfs_quota_us': '-1' } },
  { from: { NanoCpus: 1e9 }, to: { NanoCpus: 5e8 }, files: { 'cpu.cfs_quota_us': '50000' } },
  {
    to: { CpuRealtimePeriod: 500_000, CpuRealtimeRuntime: 2000 },
    files: { 'cpu.rt_period_us': '500000', 'cpu.rt_runtime_us': '2000' },
    oursAlone: true,
    v1Alone: true,
  },
  { to: { CpusetCpus: '0', CpusetMems: '0' }, files: { 'cpuset.cpus': '0', 'cpuset.mems': '0' }, v1Alone: true },
  { to: { PidsLimit: 20 }, files: { 'pids.max': '20' }, oursAlone: true },
  { from: { PidsLimit: 20 }, to: { PidsLimit: -1 }, files: { 'pids.max': 'max' }, oursAlone: true },
  {
    from: { BlkioDeviceReadBps: rate('/dev/loop0', MiB) },
    to: {
      BlkioDeviceReadBps: rate('/dev/loop1', MiB),
      BlkioDeviceWriteBps: rate('/dev/loop0', MiB),
      BlkioDeviceReadIOps: rate('/dev/loop0', 10),
      BlkioDeviceWriteIOps: rate('/dev/loop0', 20),
    },
    files: {
      'blkio.throttle.read_bps_device': `7:1 ${MiB}`,
      'blkio.throttle.write_bps_device': `7:0 ${MiB}`,
      'blkio.throttle.read_iops_device': '7:0 10',
      'blkio.throttle.write_iops_device': '7:0 20',
    },
    oursAlone: true,
  },
];

describe('limits of a running container: kernel and record, also after it was started again', () => {
  for (const { from = {}, to, files, oursAlone = false, v1Alone = false } of cases) {
    test(`${JSON.stringify(from)} → ${JSON.stringify(to)}`, {
      skip: (oursAlone && !ours) || (v1Alone && isUnified),
    }, async () => {
      const id = await start(from);
      const check = async (when: string) => {
        for (const [file, value] of Object.entries(files)) assert.equal(await held(id, file), value, `${file} ${when}`);
      };
      const before = await hostConfig(id);
      const { Warnings } = await updated(id, to);
      assert.deepEqual(Warnings ?? [], []);
      assert.deepEqual(await hostConfig(id), { ...before, ...to }, 'what was not named stays');
      await check('at once');
      await engine.call('POST', `/v1.26/containers/${id}/restart?t=0`);
      await check('after a restart of the container');
      assert.deepEqual(await hostConfig(id), { ...before, ...to });
      await remove(id);
    });
  }
  // dockerd does not change it.
  test('OomKillDisable, there and back', { skip: !ours || isUnified }, async () => {
    const id = await start({ Memory: 64 * MiB });
    for (const wanted of [true, false]) {
      await updated(id, { OomKillDisable: wanted });
      assert.match(await held(id, 'memory.oom_control'), new RegExp(`^oom_kill_disable ${Number(wanted)}$`, 'm'));
      assert.equal((await hostConfig(id)).OomKillDisable, wanted);
    }
    await remove(id);
  });
  test('a paused container', async () => {
    const id = await start();
    await engine.call('POST', `/v1.26/containers/${id}/pause`);
    await updated(id, { CpuShares: 77 });
    assert.equal(await held(id, 'cpu.shares'), cpuShares(77));
    assert.equal((await inspect(id)).State.Status, 'paused');
    await remove(id);
  });
  test('a container that does not run gets them when it starts', async () => {
    const id = await create({ Memory: 64 * MiB, CpuShares: 100 });
    await updated(id, { CpuShares: 200 });
    await engine.call('POST', `/v1.26/containers/${id}/start`);
    assert.equal(await held(id, 'cpu.shares'), cpuShares(200));
    assert.equal(await held(id, 'memory.limit_in_bytes'), String(64 * MiB));
    await remove(id);
  });
  // In dockerd the record and the kernel may each keep another one.
  test('twenty at once leave what the last of them said', { skip: !ours }, async () => {
    const id = await start();
    await Promise.all(Array.from({ length: 20 }, (_, index) => updated(id, { CpuShares: 100 + index })));
    assert.equal(cpuShares((await hostConfig(id)).CpuShares), await held(id, 'cpu.shares'));
    await remove(id);
  });
  // dockerd passes over them in silence.
  test('what a running container cannot be given is for its next start', { skip: !ours }, async () => {
    const id = await start();
    const Devices = [{ PathOnHost: '/dev/loop0', PathInContainer: '/dev/x', CgroupPermissions: 'rwm' }];
    const body = { Ulimits: [{ Name: 'nofile', Soft: 50, Hard: 60 }], Devices, CgroupParent: `/update${process.pid}` };
    const { Warnings } = await updated(id, body);
    assert.deepEqual(Warnings, [
      'CgroupParent takes effect with the next start of the container.',
      'Devices takes effect with the next start of the container.',
      'Ulimits takes effect with the next start of the container.',
    ]);
    assert.equal((await engine.docker(['exec', id, 'test', '-e', '/dev/x'])).code, 1);
    await engine.call('POST', `/v1.26/containers/${id}/restart?t=0`);
    const outcome = await engine.docker(['exec', id, 'sh', '-c', 'ls /dev/x; ulimit -n']);
    assert.equal(outcome.stdout, '/dev/x\n50\n');
    const [directory = ''] = cgroupDirectories((await inspect(id)).State.Pid);
    assert.ok(directory.endsWith(`/update${process.pid}/${id}`), directory);
    await remove(id);
  });
});

describe('refusals', () => {
  const conflicts: readonly (readonly [object, object, string])[] = [
    [
      { Memory: 64 * MiB },
      { Memory: 256 * MiB },
      'Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time',
    ],
    [
      {},
      { Memory: 64 * MiB },
      'Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time',
    ],
    [
      { CpuPeriod: 50_000 },
      { NanoCpus: 1e9 },
      'Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set',
    ],
    [
      { CpuQuota: 50_000 },
      { NanoCpus: 1e9 },
      'Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set',
    ],
    [
      { NanoCpus: 1e9 },
      { CpuPeriod: 50_000 },
      'Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set',
    ],
    [
      { NanoCpus: 1e9 },
      { CpuQuota: 50_000 },
      'Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set',
    ],
    [
      { AutoRemove: true },
      { RestartPolicy: { Name: 'always' } },
      'Restart policy cannot be updated because AutoRemove is enabled for the container',
    ],
  ];
  for (const [from, to, text] of conflicts) {
    test(`409: ${JSON.stringify(from)} → ${JSON.stringify(to)}`, async () => {
      const id = await create(from);
      const before = await hostConfig(id);
      const answer = await update(id, to);
      assert.equal(answer.status, 409, answer.text);
      assert.equal(answer.json().message, `Cannot update container ${id}: ${text}`);
      assert.deepEqual(await hostConfig(id), before);
      await remove(id);
    });
  }
  const wrong: readonly (readonly [object, string])[] = [
    [{ Memory: 1 }, 'Minimum memory limit allowed is 6MB'],
    [{ CpusetCpus: 'x' }, 'Invalid value x for cpuset cpus: invalid format: x'],
    [{ CpuPeriod: 1 }, 'CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)'],
    [{ RestartPolicy: { Name: 'foo' } }, "invalid restart policy 'foo'"],
    [
      { RestartPolicy: { Name: 'always', MaximumRetryCount: 3 } },
      "maximum retry count cannot be used with restart policy 'always'",
    ],
  ];
  test('400: what create refuses too', async () => {
    const id = await create();
    for (const [to, text] of wrong) {
      const answer = await update(id, to);
      assert.equal(answer.status, 400, answer.text);
      assert.ok(answer.json().message.startsWith(text), answer.text);
    }
    await remove(id);
  });
  // dockerd asks the kernel first (500), or records it and fails the next start.
  test('400: swap that does not hold the memory', { skip: !ours }, async () => {
    for (const make of [create, start]) {
      const id = await make({ Memory: 64 * MiB });
      const answer = await update(id, { MemorySwap: 32 * MiB });
      assert.equal(answer.status, 400);
      assert.equal(answer.json().message, 'Minimum memoryswap limit should be larger than memory limit, see usage');
      await remove(id);
    }
  });
  test('404: no such container', async () => {
    const answer = await update('nobody', { CpuShares: 2 });
    assert.deepEqual([answer.status, answer.json().message], [404, 'No such container: nobody']);
  });
  test('warnings for what the kernel lacks, and nothing to do is no error', async () => {
    const id = await start();
    const info: Loose = await engine.call('GET', '/v1.26/info');
    const { Warnings } = await updated(id, { BlkioWeight: 300 });
    if (info.Warnings?.includes('WARNING: No blkio weight support')) assert.match(Warnings[0], /Weight discarded\.$/);
    assert.equal((await update(id, {})).status, 200);
    await remove(id);
  });
  test('500: what the kernel refuses is taken back', { skip: !ours }, async () => {
    const script = 'head -c 40000000 /dev/zero > /dev/shm/x; echo full; sleep 1000';
    const id = await start({ Memory: 128 * MiB, MemorySwap: 128 * MiB }, ['sh', '-c', script]);
    await eventually(async () => {
      assert.match((await engine.api('GET', `/v1.26/containers/${id}/logs?stdout=1`)).text, /full/);
    });
    const answer = await update(id, { Memory: 8 * MiB, MemorySwap: 8 * MiB, CpuShares: 55 });
    assert.equal(answer.status, 500, answer.text);
    assert.match(answer.json().message, new RegExp(`^Cannot update container ${id}: .*memory`));
    assert.doesNotMatch(answer.json().message, /shim/);
    const { Memory, MemorySwap, CpuShares } = await hostConfig(id);
    assert.deepEqual([Memory, MemorySwap, CpuShares], [128 * MiB, 128 * MiB, 0]);
    assert.equal(await held(id, 'memory.limit_in_bytes'), String(128 * MiB));
    assert.equal(await held(id, 'cpu.shares'), cpuShares(1024));
    await remove(id);
  });
});

describe('restart policy', () => {
  test('holds for the next exit', async () => {
    const id = await start({}, ['sh', '-c', 'sleep 0.5; exit 3']);
    await updated(id, { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 2 } });
    await eventually(async () => assert.ok((await inspect(id)).RestartCount > 0));
    await updated(id, { RestartPolicy: { Name: 'no' } });
    await eventually(async () => assert.equal((await inspect(id)).State.Status, 'exited'));
    const { HostConfig } = await inspect(id);
    assert.deepEqual(HostConfig.RestartPolicy, { Name: 'no', MaximumRetryCount: 0 });
    await remove(id);
  });
});

test('the update event', async () => {
  const since = Math.floor(Date.now() / 1000) - 1;
  const id = await start();
  await updated(id, { CpuShares: 99 });
  const filters = encodeURIComponent(JSON.stringify({ event: ['update'], container: [id] }));
  const until = Math.ceil(Date.now() / 1000) + 1;
  const events = (await engine.api('GET', `/v1.26/events?since=${since}&until=${until}&filters=${filters}`)).text;
  const [event, ...more] = events
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Loose);
  assert.deepEqual([event?.Type, event?.Action, event?.Actor.ID, more.length], ['container', 'update', id, 0]);
  await remove(id);
});

describe('docker update', () => {
  for (const cli of clis) {
    // At API 1.26 the clients themselves refuse --pids-limit and --cpus.
    test(`${cli.name}: every flag`, { skip: !ours || isUnified }, async () => {
      const id = await start();
      const flags = {
        memory: '64m',
        'memory-swap': '128m',
        'memory-reservation': '32m',
        'cpu-shares': '300',
        'cpu-period': '50000',
        'cpu-quota': '20000',
        'cpuset-cpus': '0',
        'cpuset-mems': '0',
        'cpu-rt-period': '500000',
        'cpu-rt-runtime': '1000',
        'blkio-weight': '300',
        restart: 'on-failure:4',
        ...(cli.name === 'docker20' && { 'kernel-memory': '50m' }),
      };
      const words = Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
      const outcome = await engine.docker(['update', ...words, id], { cli });
      assert.equal(outcome.code, 0, outcome.stderr);
      assert.ok(outcome.stdout.startsWith(`${id}\n`), outcome.stdout);
      const after = await hostConfig(id);
      assert.deepEqual(
        [after.Memory, after.MemorySwap, after.MemoryReservation, after.CpuShares, after.CpuPeriod, after.CpuQuota],
        [64 * MiB, 128 * MiB, 32 * MiB, 300, 50_000, 20_000],
      );
      assert.deepEqual(
        [after.CpusetCpus, after.CpusetMems, after.CpuRealtimePeriod, after.CpuRealtimeRuntime, after.RestartPolicy],
        ['0', '0', 500_000, 1000, { Name: 'on-failure', MaximumRetryCount: 4 }],
      );
      assert.equal(await held(id, 'memory.limit_in_bytes'), String(64 * MiB));
      await remove(id);
    });
  }
});

describe('the daemon', { skip: !ours }, () => {
  test('limits hold over its restart and its death', async () => {
    const id = await start();
    await updated(id, { Memory: 64 * MiB, MemorySwap: 64 * MiB, PidsLimit: 40 });
    for (const end of [() => engine.restart(), () => engine.kill9().then(() => engine.launch())]) {
      await end();
      assert.equal((await hostConfig(id)).Memory, 64 * MiB);
      assert.equal(await held(id, 'memory.limit_in_bytes'), String(64 * MiB));
      assert.equal(await held(id, 'pids.max'), '40');
    }
    await engine.call('POST', `/v1.26/containers/${id}/restart?t=0`);
    assert.equal(await held(id, 'pids.max'), '40');
    await remove(id);
  });
  for (const [when, works] of [
    ['finished', true],
    ['taken back', false],
  ] as const) {
    test(`an update that a crash cuts short is ${when}`, async () => {
      const directory = fs.mkdtempSync(path.join(engine.paths.directory, 'slow-'));
      const script = path.join(directory, 'slow');
      const write = (onUpdate: string) =>
        fs.writeFileSync(
          script,
          `#!/bin/sh\nfor word; do [ "$word" = update ] && { ${onUpdate}; }; done\nexec /usr/bin/crun "$@"\n`,
          { mode: 0o755 },
        );
      write(`touch ${directory}/asked; exec sleep 1000`);
      const flag = ['--add-runtime', `slow=${script}`];
      await engine.stop();
      await engine.launch(flag);
      const id = await start({ Runtime: 'slow', CpuShares: 100 });
      const answer = update(id, { CpuShares: 200 }).catch(() => null);
      await eventually(() => assert.ok(fs.existsSync(`${directory}/asked`)));
      assert.equal((await hostConfig(id)).CpuShares, 100, 'nothing is told before the kernel agrees');
      await engine.kill9();
      await answer;
      write(works ? ':' : 'echo no >&2; exit 1');
      await engine.launch(flag);
      const expected = works ? 200 : 100;
      await eventually(async () => assert.equal((await hostConfig(id)).CpuShares, expected));
      assert.equal(await held(id, 'cpu.shares'), cpuShares(expected));
      assert.equal((await inspect(id)).State.Running, true);
      await remove(id);
    });
  }
});
