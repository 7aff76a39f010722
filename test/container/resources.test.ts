/**
 * Limits of containers: what create says about each, and what the kernel holds of it. The refusals and warnings hold for
 * dockerd 20.10 too (SLIPWAY_TEST_ENGINE=dockerd), but where a comment says otherwise.
 *
 * test-timeout-seconds: 300
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import { after, before, describe, test } from 'node:test';
import { engineKind, TestEngine } from '../support/engine.ts';
import { demultiplex, type Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';
import { cgroupDirectories, cgroupValue, cpuShares, isUnified } from './cgroups.ts';

let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
});
after(() => engine?.close());

const MiB = 1024 * 1024;
/** The kernel of scripts/other-kernel.sh does not tell ps when it was started. */
const hasPs = spawnSync('ps', ['-ef']).status === 0;
const ours = engineKind === 'slipway';
const cpus = os.cpus().length;
/** Of v1, or v2 with the controller. */
const hasCpusets = !isUnified || fs.readFileSync('/sys/fs/cgroup/cgroup.controllers', 'latin1').includes('cpuset');

async function create(host: object, cmd: readonly string[] = ['sleep', '1000']): Promise<Loose> {
  const body = { Image: 'busybox', Cmd: cmd, HostConfig: { NetworkMode: 'none', ...host } };
  return engine.call('POST', '/v1.26/containers/create', body);
}

const remove = (id: string) => engine.call('DELETE', `/v1.26/containers/${id}?force=1`);
const inspect = (id: string): Promise<Loose> => engine.call('GET', `/v1.26/containers/${id}/json`);

/** Runs a script to its end: its exit code and output. */
async function run(script: string, host: object): Promise<{ readonly code: number; readonly output: string }> {
  const { Id } = await create(host, ['sh', '-c', script]);
  await engine.call('POST', `/v1.26/containers/${Id}/start`);
  const { StatusCode } = await engine.call('POST', `/v1.26/containers/${Id}/wait`);
  const logs = demultiplex((await engine.api('GET', `/v1.26/containers/${Id}/logs?stdout=1&stderr=1`)).body);
  await remove(Id);
  return { code: StatusCode, output: (logs.stdout + logs.stderr).trim() };
}

/** Starts a sleeping container with these limits and compares files of its cgroup. */
async function limits(host: object, files: Readonly<Record<string, string>>): Promise<void> {
  const { Id } = await create(host);
  try {
    await engine.call('POST', `/v1.26/containers/${Id}/start`);
    const { Pid } = (await inspect(Id)).State;
    for (const [file, expected] of Object.entries(files)) assert.equal(cgroupValue(Pid, file), expected, file);
  } finally {
    await remove(Id);
  }
}

async function refused(host: object, message: string | RegExp, status = 400): Promise<void> {
  const body = { Image: 'busybox', Cmd: ['true'], HostConfig: { NetworkMode: 'none', ...host } };
  const answer = await engine.api('POST', '/v1.26/containers/create', body);
  assert.equal(answer.status, status, answer.text);
  if (typeof message === 'string') assert.equal(answer.json().message, message);
  else assert.match(answer.json().message, message);
}

async function startFails(host: object, message: RegExp): Promise<void> {
  const { Id } = await create(host);
  const answer = await engine.api('POST', `/v1.26/containers/${Id}/start`);
  assert.equal(answer.status, 500, answer.text);
  assert.match(answer.json().message, message);
  await remove(Id);
}

describe('refused at create', () => {
  const loop = '/dev/loop0';
  const cases: readonly (readonly [object, string])[] = [
    [{ Memory: 1024 }, 'Minimum memory limit allowed is 6MB'],
    [{ Memory: -1 }, 'Minimum memory limit allowed is 6MB'],
    [{ MemorySwap: 10_000_000 }, 'You should always set the Memory limit when using Memoryswap limit, see usage'],
    [
      { Memory: 20_000_000, MemorySwap: 10_000_000 },
      'Minimum memoryswap limit should be larger than memory limit, see usage',
    ],
    [{ MemoryReservation: 1000 }, 'Minimum memory reservation allowed is 6MB'],
    [
      { Memory: 10_000_000, MemoryReservation: 20_000_000 },
      'Minimum memory limit can not be less than memory reservation limit, see usage',
    ],
    [{ MemorySwappiness: 101 }, 'Invalid value: 101, valid memory swappiness range is 0-100'],
    [{ KernelMemory: 5 }, 'Minimum kernel memory limit allowed is 6MB'],
    [{ NanoCpus: 1e9, CpuPeriod: 100_000 }, 'Conflicting options: Nano CPUs and CPU Period cannot both be set'],
    [{ NanoCpus: 1e9, CpuQuota: 5000 }, 'Conflicting options: Nano CPUs and CPU Quota cannot both be set'],
    [
      { NanoCpus: (cpus + 1) * 1e9 },
      `Range of CPUs is from 0.01 to ${cpus}.00, as there are only ${cpus} CPUs available`,
    ],
    [{ NanoCpus: -1 }, `Range of CPUs is from 0.01 to ${cpus}.00, as there are only ${cpus} CPUs available`],
    [{ CpuPeriod: 999 }, 'CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)'],
    [{ CpuQuota: 999 }, 'CPU cfs quota can not be less than 1ms (i.e. 1000)'],
    [{ CpusetCpus: '999' }, 'Requested CPUs are not available - requested 999, available: '],
    [{ CpusetCpus: 'a-b' }, 'Invalid value a-b for cpuset cpus: invalid format: a-b'],
    [{ CpusetCpus: '1-0' }, 'Invalid value 1-0 for cpuset cpus: invalid format: 1-0'],
    [{ CpusetCpus: '0,' }, 'Invalid value 0, for cpuset cpus: invalid format: 0,'],
    [{ CpusetCpus: '0-9999' }, 'Invalid value 0-9999 for cpuset cpus: value of out range, maximum is 8192'],
    [{ CpusetMems: '99' }, 'Requested memory nodes are not available - requested 99, available: '],
    [{ CpusetMems: 'x' }, 'Invalid value x for cpuset mems: invalid format: x'],
    [{ OomScoreAdj: 2000 }, 'Invalid value 2000, range for oom score adj is [-1000, 1000]'],
  ];
  for (const [host, message] of cases) {
    const needsCpusets = message.includes('not available');
    test(JSON.stringify(host), { skip: needsCpusets && !hasCpusets }, () =>
      refused(host, message.endsWith(': ') ? new RegExp(`^${message}[0-9,-]+$`) : message),
    );
  }
  // dockerd takes these, and the start fails; or answers 500.
  const earlier: readonly (readonly [object, RegExp])[] = [
    [{ CpuShares: -1 }, /^Invalid value: -1, CPU shares/],
    [{ CpuRealtimePeriod: 1000, CpuRealtimeRuntime: 2000 }, /real-time runtime 2000/],
    [{ BlkioDeviceReadBps: [{ Path: loop, Rate: -1 }] }, /^Invalid value: -1, the rate of BlkioDeviceReadBps/],
    [{ Devices: [{ PathOnHost: loop, PathInContainer: loop, CgroupPermissions: 'q' }] }, /^invalid device mode: q/],
    [{ DeviceCgroupRules: ['x 7:* rwm'] }, /^invalid device cgroup rule format: 'x 7:\* rwm'$/],
    [{ Ulimits: [{ Name: 'foo', Soft: 1, Hard: 2 }] }, /^invalid ulimit type: foo$/],
    [{ Ulimits: [{ Name: 'nofile', Soft: 3, Hard: 2 }] }, /^ulimit soft limit must be less than or equal to hard/],
    [
      { NetworkMode: 'bridge', PortBindings: { '80/sctp': [{ HostIp: 'nowhere', HostPort: '80' }] } },
      /^invalid IP address: nowhere$/,
    ],
    [{ IOMaximumIOps: 1 }, /^Invalid QoS settings: linux does not support configuration of maximum IOPs$/],
    [{ IOMaximumBandwidth: 1 }, /^Invalid QoS settings: linux does not support configuration of maximum bandwidth$/],
    [{ Isolation: 'process' }, /^Invalid isolation: "process" - linux only supports 'default'$/],
  ];
  for (const [host, message] of earlier) {
    test(JSON.stringify(host), { skip: !ours }, () => refused(host, message));
  }
  test('a host name that the kernel has no room for', { skip: !ours }, async () => {
    const ask = (Hostname: string) =>
      engine.api('POST', '/v1.26/containers/create', { Image: 'busybox', Cmd: ['true'], Hostname });
    assert.match((await ask('h'.repeat(65))).json().message, /^invalid hostname format: h{65}: longer than 64 bytes$/);
    const { Id } = (await ask('h'.repeat(64))).json();
    await engine.call('POST', `/containers/${Id}/start`);
  });
});

describe('warnings of create', () => {
  test('the OOM killer off without a memory limit', { skip: isUnified }, async () => {
    const { Id, Warnings } = await create({ OomKillDisable: true });
    assert.deepEqual(Warnings, [
      'OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.',
    ]);
    await remove(Id);
    assert.deepEqual((await create({ OomKillDisable: true, Memory: 32 * MiB })).Warnings, []);
  });
  test('what the kernel lacks is taken out, and /info says so too', { skip: !ours }, async () => {
    const host = { KernelMemory: 64 * MiB, BlkioWeight: 300, BlkioWeightDevice: [{ Path: '/dev/loop0', Weight: 300 }] };
    const { Id, Warnings } = await create(host);
    const { HostConfig } = await inspect(Id);
    const info: Loose = await engine.call('GET', '/v1.26/info');
    const lacking: readonly (readonly [string, string, boolean])[] = [
      [
        'Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.',
        'WARNING: No kernel memory limit support',
        HostConfig.KernelMemory === 0,
      ],
      [
        'Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.',
        'WARNING: No blkio weight support',
        HostConfig.BlkioWeight === 0,
      ],
      [
        'Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.',
        'WARNING: No blkio weight_device support',
        HostConfig.BlkioWeightDevice.length === 0,
      ],
    ];
    for (const [warning, line, discarded] of lacking) {
      assert.equal(Warnings.includes(warning), discarded, warning);
      // Said on v1 alone: v2 has no such thing.
      if (info.Warnings.includes(line)) assert.ok(discarded, line);
    }
    assert.equal(info.KernelMemory, false);
    await engine.call('POST', `/v1.26/containers/${Id}/start`);
    await remove(Id);
  });
  test('what belongs to Windows', async () => {
    const { Id, Warnings } = await create({ CpuPercent: 10, ...(ours && { CpuCount: 1 }) });
    assert.ok(Warnings.includes('linux does not support CPU percent. Percent discarded.'), Warnings.join());
    assert.equal((await inspect(Id)).HostConfig.CpuPercent, 0);
    if (ours) assert.ok(Warnings.includes('linux does not support CPU count. Count discarded.'));
  });
  test('a ulimit above our own', { skip: !ours }, async () => {
    const status = fs.readFileSync('/proc/self/status', 'latin1');
    const mayRaise = (BigInt(`0x${/^CapEff:\s*(\w+)/m.exec(status)?.[1]}`) >> 24n) & 1n;
    const Ulimits = [{ Name: 'nofile', Soft: 900_000, Hard: 900_000 }];
    const { Warnings } = await create({ Ulimits });
    if (mayRaise === 0n) assert.match(Warnings[0], /^The hard limit of ulimit nofile was lowered to \d+/);
    assert.equal((await run('ulimit -n', { Ulimits })).code, 0);
  });
});

describe('what the kernel holds', () => {
  test('Memory, with as much swap', () =>
    limits(
      { Memory: 64 * MiB },
      { 'memory.limit_in_bytes': String(64 * MiB), 'memory.memsw.limit_in_bytes': String(128 * MiB) },
    ));
  test('MemorySwap, MemoryReservation, MemorySwappiness', () =>
    limits(
      { Memory: 64 * MiB, MemorySwap: 96 * MiB, MemoryReservation: 32 * MiB, MemorySwappiness: 20 },
      {
        'memory.memsw.limit_in_bytes': String(96 * MiB),
        'memory.soft_limit_in_bytes': String(32 * MiB),
        ...(!isUnified && { 'memory.swappiness': '20' }),
      },
    ));
  test('MemorySwap -1', async () => {
    const { Id } = await create({ Memory: 64 * MiB, MemorySwap: -1 });
    await engine.call('POST', `/v1.26/containers/${Id}/start`);
    assert.ok(Number(cgroupValue((await inspect(Id)).State.Pid, 'memory.memsw.limit_in_bytes')) > 2 ** 60);
    await remove(Id);
  });
  test('OomKillDisable', { skip: isUnified }, async () => {
    const { Id } = await create({ Memory: 64 * MiB, OomKillDisable: true });
    await engine.call('POST', `/v1.26/containers/${Id}/start`);
    assert.match(cgroupValue((await inspect(Id)).State.Pid, 'memory.oom_control'), /^oom_kill_disable 1$/m);
    await remove(Id);
  });
  test('CpuShares', () => limits({ CpuShares: 512 }, { 'cpu.shares': cpuShares(512) }));
  test('CpuQuota and CpuPeriod', () =>
    limits({ CpuQuota: 20_000, CpuPeriod: 50_000 }, { 'cpu.cfs_quota_us': '20000', 'cpu.cfs_period_us': '50000' }));
  test('CpuQuota -1', () => limits({ CpuQuota: -1 }, { 'cpu.cfs_quota_us': '-1' }));
  test('NanoCpus', () =>
    limits({ NanoCpus: 750_000_000 }, { 'cpu.cfs_quota_us': '75000', 'cpu.cfs_period_us': '100000' }));
  // dockerd wants a share for its own group on the command line; else the start fails.
  test('CpuRealtimePeriod and CpuRealtimeRuntime', { skip: !ours || isUnified }, () =>
    limits(
      { CpuRealtimePeriod: 500_000, CpuRealtimeRuntime: 5000 },
      { 'cpu.rt_period_us': '500000', 'cpu.rt_runtime_us': '5000' },
    ),
  );
  test('more real-time than there is: a start all the same', { skip: !ours }, async () => {
    const all = { CpuRealtimePeriod: 1_000_000, CpuRealtimeRuntime: 1_000_000 };
    assert.equal((await run('true', all)).code, 0);
  });
  test('CpusetCpus and CpusetMems', { skip: !hasCpusets || cpus < 2 }, () =>
    limits({ CpusetCpus: '1', CpusetMems: '0' }, { 'cpuset.cpus': '1', 'cpuset.mems': '0' }),
  );
  test('PidsLimit', async () => {
    await limits({ PidsLimit: 20 }, { 'pids.max': '20' });
    await limits({ PidsLimit: -1 }, { 'pids.max': 'max' });
    assert.match((await run('for i in $(seq 40); do sleep 1 & done; wait', { PidsLimit: 10 })).output, /can't fork/);
  });
  test('BlkioDevice{Read,Write}{Bps,IOps}', () => {
    const { rdev } = fs.statSync('/dev/loop0');
    const device = `${rdev >> 8}:${rdev & 0xff}`;
    const rate = (Rate: number) => [{ Path: '/dev/loop0', Rate }];
    return limits(
      {
        BlkioDeviceReadBps: rate(1 * MiB),
        BlkioDeviceWriteBps: rate(2 * MiB),
        BlkioDeviceReadIOps: rate(100),
        BlkioDeviceWriteIOps: rate(200),
      },
      {
        'blkio.throttle.read_bps_device': `${device} ${1 * MiB}`,
        'blkio.throttle.write_bps_device': `${device} ${2 * MiB}`,
        'blkio.throttle.read_iops_device': `${device} 100`,
        'blkio.throttle.write_iops_device': `${device} 200`,
      },
    );
  });
  test('a rate for a device that is not there fails the start', () =>
    startFails(
      { BlkioDeviceReadBps: [{ Path: '/dev/nope', Rate: 1 }] },
      /^stat \/dev\/nope: no such file or directory$/,
    ));
  test('Ulimits', async () => {
    const Ulimits = [
      { Name: 'nofile', Soft: 512, Hard: 1024 },
      { Name: 'core', Soft: -1, Hard: -1 },
    ];
    assert.equal((await run('ulimit -n; ulimit -Hn; ulimit -c', { Ulimits })).output, '512\n1024\nunlimited');
  });
  test('of two ulimits with one name the last counts', async () => {
    const Ulimits = [
      { Name: 'nofile', Soft: 100, Hard: 200 },
      { Name: 'nofile', Soft: 50, Hard: 60 },
    ];
    assert.equal((await run('ulimit -n; ulimit -Hn', { Ulimits })).output, '50\n60');
  });
  test('a container over its memory limit is killed and says so', async () => {
    const { Id } = await create({ Memory: 16 * MiB, MemorySwap: 16 * MiB }, ['tail', '/dev/zero']);
    await engine.call('POST', `/v1.26/containers/${Id}/start`);
    assert.equal((await engine.call('POST', `/v1.26/containers/${Id}/wait`)).StatusCode, 137);
    assert.equal((await inspect(Id)).State.OOMKilled, true);
    await remove(Id);
  });
});

describe('devices', () => {
  const device = (PathOnHost: string, PathInContainer: string, CgroupPermissions = 'rwm') => ({
    Devices: [{ PathOnHost, PathInContainer, CgroupPermissions }],
  });
  test('a node under another name, with its permissions', async () => {
    const script = 'ls -l /dev/x | grep -o "^[bc].*7, *0"; dd if=/dev/x bs=1 count=0 2>&1 | tail -1; (: > /dev/x) 2>&1';
    const { output } = await run(script, device('/dev/loop0', '/dev/x', 'r'));
    assert.match(output, /^b/);
    assert.match(output, /can't create \/dev\/x: Operation not permitted/);
    const both = await run('(: > /dev/x) 2>&1 && echo opened', device('/dev/loop0', '/dev/x', 'rw'));
    assert.equal(both.output, 'opened');
  });
  test('a directory of nodes', { skip: !fs.existsSync('/dev/net') }, async () => {
    const { output } = await run('ls /dev/net', device('/dev/net', '/dev/net'));
    assert.equal(output, fs.readdirSync('/dev/net').join('\n'));
  });
  test('what is missing, or no device, fails the start', async () => {
    const text = 'error gathering device information while adding custom device';
    await startFails(device('/dev/nope', '/dev/x'), new RegExp(`^${text} "/dev/nope": no such file or directory$`));
    await startFails(device('/etc/passwd', '/dev/x'), new RegExp(`^${text} "/etc/passwd": not a device node$`));
    await startFails(device('', ''), new RegExp(`^${text} "": no such file or directory$`));
  });
  test('DeviceCgroupRules', async () => {
    const script =
      'mknod /tmp/l b 7 0 2>/dev/null || { mkdir -p /tmp; mknod /tmp/l b 7 0; }; (: > /tmp/l) 2>&1 && echo opened';
    assert.equal((await run(script, { DeviceCgroupRules: ['b 7:* rwm'] })).output, 'opened');
    assert.match((await run(script, {})).output, /Operation not permitted/);
  });
});

// dockerd leaves the parents behind.
describe('CgroupParent', { skip: !ours }, () => {
  for (const parent of [`limits${process.pid}`, `/limits${process.pid}/deep/er`, `../../limits${process.pid}`]) {
    test(`${parent}: stats, top, pause, exec, kill follow it, and nothing stays`, async () => {
      const { Id } = await create({ CgroupParent: parent, Memory: 32 * MiB });
      await engine.call('POST', `/v1.26/containers/${Id}/start`);
      const expected = `/${parent.replaceAll('../', '').replace(/^\//, '')}/${Id}`;
      const { Pid } = (await inspect(Id)).State;
      assert.ok(
        cgroupDirectories(Pid).every((directory) => directory.endsWith(expected)),
        cgroupDirectories(Pid).join(),
      );
      const stats: Loose = await engine.call('GET', `/v1.26/containers/${Id}/stats?stream=false`);
      assert.equal(stats.memory_stats.limit, 32 * MiB);
      assert.equal(stats.pids_stats.current, 1);
      if (hasPs) assert.equal((await engine.call('GET', `/v1.26/containers/${Id}/top`)).Processes.length, 1);
      await engine.call('POST', `/v1.26/containers/${Id}/pause`);
      assert.equal(cgroupValue(Pid, 'freezer.state'), 'FROZEN');
      await engine.call('POST', `/v1.26/containers/${Id}/unpause`);
      assert.equal((await engine.docker(['exec', Id, 'true'])).code, 0);
      await engine.restart();
      if (hasPs) assert.equal((await engine.call('GET', `/v1.26/containers/${Id}/top`)).Processes.length, 1);
      await remove(Id);
      const left = hierarchies().filter((root) => fs.existsSync(`${root}/limits${process.pid}`));
      assert.deepEqual(left, []);
    });
  }
  test('two containers share a parent; it goes with the last', async () => {
    const CgroupParent = `/limits${process.pid}`;
    const [first, second] = [await create({ CgroupParent }), await create({ CgroupParent })];
    for (const { Id } of [first, second]) await engine.call('POST', `/v1.26/containers/${Id}/start`);
    await remove(first.Id);
    assert.ok(hierarchies().some((root) => fs.existsSync(root + CgroupParent)));
    await remove(second.Id);
    assert.ok(!hierarchies().some((root) => fs.existsSync(root + CgroupParent)));
  });
  test("an administrator's own stays, with its limits", async () => {
    const [root = ''] = hierarchies().filter((directory) => isUnified || directory.endsWith('/pids'));
    const directory = `${root}/limits${process.pid}`;
    fs.mkdirSync(directory);
    fs.writeFileSync(`${directory}/pids.max`, '77');
    try {
      assert.equal((await run('true', { CgroupParent: `/limits${process.pid}` })).code, 0);
      assert.equal(fs.readFileSync(`${directory}/pids.max`, 'latin1').trim(), '77');
    } finally {
      for (const other of hierarchies()) {
        const left = `${other}/limits${process.pid}`;
        if (fs.existsSync(left)) fs.rmdirSync(left);
      }
    }
  });
});

/** Where cgroup hierarchies with controllers are mounted. */
const hierarchies = (): readonly string[] =>
  fs
    .readFileSync('/proc/self/mountinfo', 'latin1')
    .split('\n')
    .filter((line) => / - cgroup2? /.test(line))
    .map((line) => line.split(' ')[4] ?? '');
