import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, it } from 'node:test';
import { EngineError } from '../../src/lib/errors.ts';
import { newId } from '../../src/lib/ids.ts';
import { allCapabilities, capabilitiesOf, defaultCapabilities } from '../../src/runtime/capabilities.ts';
import { detectLayout, type KernelLimits, statsV2 } from '../../src/runtime/cgroup.ts';
import { devicesOf } from '../../src/runtime/devices.ts';
import { createFailure, execFailure } from '../../src/runtime/failure.ts';
import { ownHardLimits, resourceLimits, resourcesOf } from '../../src/runtime/resources.ts';
import { defaultSeccomp } from '../../src/runtime/seccomp.ts';
import { parseSecurityOptions } from '../../src/runtime/security.ts';
import { nothingShared, type Shared } from '../../src/runtime/sharing.ts';
import { buildSpec, capabilitySets, encodeSpec, environment, type Host } from '../../src/runtime/spec.ts';
import { resolveUser } from '../../src/runtime/user.ts';
import { hostConfig, launchSpec, makeRootfs } from './support.ts';

const all = new Set(allCapabilities);
const everyLimit: KernelLimits = {
  memory: true,
  memoryReservation: true,
  swap: true,
  swappiness: true,
  kernelMemory: true,
  oomKillDisable: true,
  cpuShares: true,
  cpuQuota: true,
  cpuRealtime: true,
  cpuset: true,
  pids: true,
  blkioWeight: true,
  blkioWeightDevice: true,
  blkioThrottle: true,
};
const noLimit = Object.fromEntries(Object.keys(everyLimit).map((key) => [key, false])) as unknown as KernelLimits;
const host: Host = {
  limits: everyLimit,
  cgroupVersion: 1,
  held: all,
  hardLimits: null,
  oomScoreAdjMin: -1000,
  apparmor: false,
  noNewPrivileges: false,
  seccomp: 'builtin',
};
const root = { uid: 0, gid: 0, additionalGids: [0], home: '/root' };

const specOf = (
  { shared = nothingShared, init, ...options }: Parameters<typeof launchSpec>[2] & { shared?: Shared; init?: string },
  at: Host = host,
) => buildSpec(launchSpec('/nowhere', newId(), options), root, at, shared, init);

describe('capabilities', () => {
  const cases: readonly [string, Parameters<typeof capabilitiesOf>[0], (set: readonly string[]) => boolean][] = [
    ['default', { Privileged: false, CapAdd: null, CapDrop: null }, (set) => set.length === 14],
    [
      'privileged',
      { Privileged: true, CapAdd: null, CapDrop: ['ALL'] },
      (set) => set.length === allCapabilities.length,
    ],
    ['added', { Privileged: false, CapAdd: ['net_admin'], CapDrop: null }, (set) => set.includes('CAP_NET_ADMIN')],
    ['dropped', { Privileged: false, CapAdd: null, CapDrop: ['CAP_CHOWN'] }, (set) => !set.includes('CAP_CHOWN')],
    [
      'all but one',
      { Privileged: false, CapAdd: ['all'], CapDrop: ['SYS_TIME'] },
      (set) => set.length === allCapabilities.length - 1 && !set.includes('CAP_SYS_TIME'),
    ],
    [
      'only one',
      { Privileged: false, CapAdd: ['KILL'], CapDrop: ['ALL'] },
      (set) => set.length === 1 && set[0] === 'CAP_KILL',
    ],
  ];
  for (const [name, options, holds] of cases) it(name, () => assert.ok(holds(capabilitiesOf(options, all))));

  it('refuses unknown names in dockerd’s words', () => {
    assert.throws(() => capabilitiesOf({ Privileged: false, CapAdd: ['flying'], CapDrop: null }, all), {
      kind: 'invalid',
      message: 'invalid CapAdd: unknown capability: "CAP_FLYING"',
    });
    assert.throws(() => capabilitiesOf({ Privileged: false, CapAdd: null, CapDrop: ['x'] }, all), {
      message: 'invalid CapDrop: unknown capability: "CAP_X"',
    });
  });

  it('leaves out of "all" what cannot be given, and refuses it by name', () => {
    const held = new Set(allCapabilities.filter((name) => name !== 'CAP_SYS_RESOURCE'));
    assert.equal(
      capabilitiesOf({ Privileged: true, CapAdd: null, CapDrop: null }, held).includes('CAP_SYS_RESOURCE'),
      false,
    );
    assert.throws(
      () => capabilitiesOf({ Privileged: false, CapAdd: ['SYS_RESOURCE'], CapDrop: null }, held),
      EngineError,
    );
  });

  it('gives a user other than root nothing but a bound', () => {
    assert.deepEqual(capabilitySets(['CAP_KILL'], 1000), {
      bounding: ['CAP_KILL'],
      effective: [],
      permitted: [],
      inheritable: [],
    });
  });
});

describe('seccomp', () => {
  const allows = (profile: ReturnType<typeof defaultSeccomp>, name: string): boolean =>
    profile.syscalls.some((rule) => rule.action === 'SCMP_ACT_ALLOW' && !rule.args && rule.names.includes(name));

  it('follows the capabilities', () => {
    const usual = defaultSeccomp(defaultCapabilities, 'x64');
    const admin = defaultSeccomp([...defaultCapabilities, 'CAP_SYS_ADMIN'], 'x64');
    assert.equal(allows(usual, 'mount'), false);
    assert.equal(allows(admin, 'mount'), true);
    assert.equal(allows(usual, 'chroot'), true);
    assert.equal(allows(usual, 'reboot'), false);
    assert.equal(allows(usual, 'keyctl'), false);
  });

  it('answers clone3 with ENOSYS and lets clone make no namespaces', () => {
    const usual = defaultSeccomp(defaultCapabilities, 'x64');
    const clone3 = usual.syscalls.find((rule) => rule.names.includes('clone3'));
    assert.deepEqual([clone3?.action, clone3?.errnoRet], ['SCMP_ACT_ERRNO', 38]);
    const clone = usual.syscalls.find((rule) => rule.names.includes('clone'));
    assert.equal(clone?.args?.[0]?.op, 'SCMP_CMP_MASKED_EQ');
    assert.equal(clone?.args?.[0]?.value, 2114060288);
  });

  it('knows the architecture', () => {
    assert.equal(allows(defaultSeccomp([], 'x64'), 'arch_prctl'), true);
    assert.equal(allows(defaultSeccomp([], 'arm64'), 'arch_prctl'), false);
    assert.deepEqual(defaultSeccomp([], 'arm64').architectures, ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM']);
  });

  it('names each syscall once per rule', () => {
    for (const { names } of defaultSeccomp(allCapabilities, 'x64').syscalls) {
      assert.equal(new Set(names).size, names.length);
    }
  });
});

describe('environment', () => {
  const facts = { hostname: 'box', tty: false, home: '/root' };
  const path0 = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  const cases: readonly [readonly string[], boolean, readonly string[]][] = [
    [[], false, [path0, 'HOSTNAME=box', 'HOME=/root']],
    [[], true, [path0, 'HOSTNAME=box', 'TERM=xterm', 'HOME=/root']],
    [['A=1', 'PATH=/x'], false, ['PATH=/x', 'HOSTNAME=box', 'A=1', 'HOME=/root']],
    [['HOME=/h', 'A=b=c'], false, [path0, 'HOSTNAME=box', 'HOME=/h', 'A=b=c']],
    [['HOSTNAME'], false, [path0, 'HOME=/root']],
    [['A=1', 'A=2', 'E='], false, [path0, 'HOSTNAME=box', 'A=2', 'E=', 'HOME=/root']],
  ];
  for (const [own, tty, expected] of cases) {
    it(JSON.stringify(own), () => assert.deepEqual(environment(own, { ...facts, tty }), expected));
  }
});

describe('user', () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-user-'));
  makeRootfs(directory);
  const cases: readonly [string, readonly string[] | null, object][] = [
    ['', null, { uid: 0, gid: 0, additionalGids: [0, 44], home: '/root' }],
    ['anna', null, { uid: 1000, gid: 1000, additionalGids: [1000, 29, 44], home: '/home/anna' }],
    ['1000', null, { uid: 1000, gid: 1000, additionalGids: [1000, 29, 44], home: '/home/anna' }],
    ['anna:audio', null, { uid: 1000, gid: 29, additionalGids: [29], home: '/home/anna' }],
    ['4242', null, { uid: 4242, gid: 0, additionalGids: [0], home: '/' }],
    ['4242:4343', ['video', '7'], { uid: 4242, gid: 4343, additionalGids: [4343, 44, 7], home: '/' }],
  ];
  for (const [user, add, expected] of cases) {
    it(user || 'nobody named', () => assert.deepEqual(resolveUser(directory, user, add), expected));
  }
  const failures: readonly [string, readonly string[] | null, string][] = [
    ['otto', null, 'unable to find user otto: no matching entries in passwd file'],
    ['anna:otto', null, 'unable to find group otto: no matching entries in group file'],
    ['', ['otto'], 'Unable to find group otto: no matching entries in group file'],
    ['4294967296', null, 'uids and gids must be in range 0-2147483647'],
  ];
  for (const [user, add, message] of failures) {
    it(message, () => assert.throws(() => resolveUser(directory, user, add), { message }));
  }

  it('follows links of the image inside the image only', () => {
    const other = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-user-'));
    fs.mkdirSync(`${other}/etc`);
    fs.writeFileSync(`${other}/passwd`, 'inside:x:5:5::/:/\n');
    fs.symlinkSync('../../../../passwd', `${other}/etc/passwd`);
    assert.equal(resolveUser(other, 'inside', null).uid, 5);
    fs.rmSync(`${other}/etc/passwd`);
    // A FIFO must not make the engine wait for a writer.
    fs.mkdirSync(`${other}/etc/passwd`);
    assert.throws(() => resolveUser(other, 'inside', null), /no matching entries/);
    fs.rmSync(other, { recursive: true });
  });
  it('cleans up', () => fs.rmSync(directory, { recursive: true }));
});

describe('resources', () => {
  it('translates every limit', () => {
    const { resources, warnings } = resourcesOf(
      {
        ...hostConfig,
        Memory: 64 << 20,
        MemoryReservation: 32 << 20,
        MemorySwappiness: 10,
        OomKillDisable: true,
        CpuShares: 512,
        NanoCpus: 1.5e9,
        CpusetCpus: '0',
        PidsLimit: 50,
        BlkioWeight: 300,
      },
      everyLimit,
    );
    assert.deepEqual(warnings, []);
    assert.deepEqual(resources, {
      memory: { limit: 64 << 20, swap: 128 << 20, reservation: 32 << 20, swappiness: 10, disableOOMKiller: true },
      cpu: { shares: 512, period: 100_000, quota: 150_000, cpus: '0' },
      pids: { limit: 50 },
      blockIO: { weight: 300 },
    });
  });

  it('drops what the kernel lacks, with a warning each', () => {
    const { resources, warnings } = resourcesOf(
      { ...hostConfig, Memory: 64 << 20, CpuShares: 2, PidsLimit: 5, BlkioWeight: 10, OomKillDisable: true },
      noLimit,
    );
    assert.deepEqual(resources, {});
    assert.equal(warnings.length, 5);
    assert.ok(
      warnings.includes(
        'Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.',
      ),
    );
  });

  it('takes -1 as no limit of swap and 0 and -1 as none of pids', () => {
    const swap = resourcesOf({ ...hostConfig, Memory: 1 << 20, MemorySwap: -1 }, everyLimit);
    assert.deepEqual(swap.resources, { memory: { limit: 1 << 20, swap: -1 } });
    assert.deepEqual(resourcesOf({ ...hostConfig, PidsLimit: -1 }, everyLimit).resources, {});
  });

  it('lowers a hard limit that it may not raise', () => {
    const own = ownHardLimits(
      'Limit                     Soft Limit           Hard Limit           Units     \n' +
        'Max open files            1024                 4096                 files     \n' +
        'Max locked memory         8388608              unlimited            bytes     \n',
    );
    assert.equal(own.get('RLIMIT_NOFILE'), 4096);
    const ulimits = [
      { Name: 'nofile', Soft: 5000, Hard: 9000 },
      { Name: 'memlock', Soft: -1, Hard: -1 },
    ];
    const { limits, warnings } = resourceLimits(ulimits, own);
    assert.deepEqual(limits, [
      { type: 'RLIMIT_NOFILE', hard: 4096, soft: 4096 },
      { type: 'RLIMIT_MEMLOCK', hard: -1, soft: -1 },
    ]);
    assert.equal(warnings.length, 1);
    assert.deepEqual(resourceLimits(ulimits, null).warnings, []);
  });
});

describe('spec', () => {
  it('has dockerd’s mounts, paths and namespaces by default', () => {
    const { spec } = specOf({ cmd: ['true'], spec: { networkNamespace: '/run/netns/x' } });
    assert.deepEqual(
      spec.mounts.map((mount) => mount.destination),
      ['/proc', '/dev', '/dev/pts', '/sys', '/sys/fs/cgroup', '/dev/mqueue', '/dev/shm'],
    );
    assert.deepEqual(
      spec.linux.namespaces.map(({ type, path: at }) => (at ? `${type}=${at}` : type)),
      ['mount', 'pid', 'ipc', 'uts', 'network=/run/netns/x'],
    );
    assert.ok(spec.linux.maskedPaths.includes('/proc/kcore'));
    assert.ok(spec.linux.readonlyPaths.includes('/proc/sys'));
    assert.ok(spec.linux.seccomp);
    assert.equal(spec.linux.sysctl['net.ipv4.ip_unprivileged_port_start'], '0');
    assert.equal(spec.hostname, 'box');
    assert.deepEqual(spec.linux.resources.devices?.[0], { allow: false, access: 'rwm' });
  });

  it('opens everything for a privileged container', () => {
    const { spec } = specOf({ cmd: ['true'], host: { Privileged: true } });
    assert.deepEqual(spec.linux.maskedPaths, []);
    assert.equal(spec.linux.seccomp, undefined);
    assert.ok(spec.linux.devices.some((device) => device.path === '/dev/null'));
    for (const at of ['/sys', '/sys/fs/cgroup']) {
      assert.equal(spec.mounts.find((mount) => mount.destination === at)?.options.includes('ro'), false);
    }
  });

  it('shares namespaces, and leaves out the host’s', () => {
    const { spec } = specOf({
      cmd: ['true'],
      host: { PidMode: 'host', UTSMode: 'host', IpcMode: 'container:x' },
      shared: { ...nothingShared, ipcNamespace: '/proc/12/ns/ipc' },
    });
    assert.deepEqual(spec.linux.namespaces, [{ type: 'mount' }, { type: 'ipc', path: '/proc/12/ns/ipc' }]);
    assert.equal(spec.hostname, undefined);
    assert.deepEqual(spec.linux.sysctl, {});
  });

  it('orders mounts by depth, lets the user’s replace the standard ones and keeps engine files behind them', () => {
    const mount = { type: 'bind' as const, mode: '', writable: true, propagation: '' };
    const { spec } = specOf({
      cmd: ['true'],
      host: { ReadonlyRootfs: true, Tmpfs: {} },
      spec: {
        hosts: '/e/hosts',
        resolvConf: '/e/resolv',
        mounts: [
          { ...mount, source: '/b', destination: '/a/b/c', writable: false, propagation: 'rslave' },
          { ...mount, source: '/a', destination: '/a' },
          { ...mount, source: '/r', destination: '/etc/resolv.conf' },
          { ...mount, source: '', type: 'tmpfs', destination: '/dev/shm', tmpfsOptions: 'size=1m,exec' },
        ],
      },
    });
    assert.deepEqual(
      spec.mounts.slice(6).map((each) => [each.destination, each.source, each.options.join()]),
      [
        ['/a', '/a', 'rbind,rprivate'],
        ['/etc/resolv.conf', '/r', 'rbind,rprivate'],
        ['/dev/shm', 'tmpfs', 'size=1m,exec'],
        ['/etc/hosts', '/e/hosts', 'rbind,ro,rprivate'],
        ['/a/b/c', '/b', 'rbind,ro,rslave'],
      ],
    );
    assert.equal(spec.linux.rootfsPropagation, 'rslave');
    assert.equal(spec.root.readonly, true);
  });

  it('writes unlimited as the kernel’s number', () => {
    const { spec } = specOf({ cmd: ['true'], host: { Ulimits: [{ Name: 'core', Soft: -1, Hard: -1 }] } });
    assert.match(encodeSpec(spec), /"hard":18446744073709551615,"soft":18446744073709551615/);
  });

  it('runs the command under an init', () => {
    const { spec } = specOf({ cmd: ['echo', 'x'], init: '/usr/bin/tini-static' });
    assert.deepEqual(spec.process.args, ['/sbin/docker-init', '--', 'echo', 'x']);
    assert.ok(
      spec.mounts.some(
        ({ source, destination }) => destination === '/sbin/docker-init' && source.endsWith('tini-static'),
      ),
    );
  });

  it('maps the ids of a user namespace', () => {
    const ranges = [{ inside: 0, outside: 100_000, size: 1000 }];
    const { spec } = specOf({
      cmd: ['true'],
      spec: { networkNamespace: '/n', userNamespace: { path: '/u', ids: { users: ranges, groups: ranges } } },
    });
    assert.deepEqual(spec.linux.uidMappings, [{ containerID: 0, hostID: 100_000, size: 1000 }]);
    assert.ok(spec.linux.namespaces.some(({ type, path: at }) => type === 'user' && at === '/u'));
    assert.equal(spec.linux.sysctl['net.ipv4.ping_group_range'], '0 999');
  });

  it('takes the daemon’s defaults, which a container can turn off', () => {
    const strict: Host = { ...host, noNewPrivileges: true, seccomp: 'unconfined' };
    const { spec } = specOf({ cmd: ['true'] }, strict);
    assert.deepEqual([spec.process.noNewPrivileges, spec.linux.seccomp], [true, undefined]);
    const SecurityOpt = ['no-new-privileges=false', 'seccomp=builtin'];
    const own = specOf({ cmd: ['true'], host: { SecurityOpt } }, strict).spec;
    assert.equal(own.process.noNewPrivileges, false);
    assert.equal(own.linux.seccomp?.defaultAction, 'SCMP_ACT_ERRNO');
  });

  it('keeps every digit of the numbers of a seccomp profile', () => {
    const rule = {
      names: ['x'],
      action: 'SCMP_ACT_ERRNO',
      args: [{ index: 1, value: 1, valueTwo: 2, op: 'SCMP_CMP_MASKED_EQ' }],
    };
    const text = JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule] }).replace(
      '"valueTwo":2',
      '"valueTwo":18446744073709551615',
    );
    const { spec } = specOf({ cmd: ['true'], host: { SecurityOpt: [`seccomp=${text}`] } });
    assert.match(encodeSpec(spec), /"valueTwo":18446744073709551615/);
    assert.throws(
      () => parseSecurityOptions([`seccomp=${text.replace('615', '616')}`]),
      /valueTwo is not a whole number/,
    );
  });

  it('reads security options', () => {
    assert.equal(parseSecurityOptions(['no-new-privileges']).noNewPrivileges, true);
    assert.equal(parseSecurityOptions(['no-new-privileges:false']).noNewPrivileges, false);
    assert.equal(parseSecurityOptions(['seccomp=unconfined']).seccomp, 'unconfined');
    assert.equal(parseSecurityOptions(['seccomp:unconfined', 'label:disable']).seccomp, 'unconfined');
    assert.equal(typeof parseSecurityOptions(['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']).seccomp, 'function');
    assert.throws(() => parseSecurityOptions(['magic=1']), { message: 'invalid --security-opt 2: "magic=1"' });
  });
});

describe('devices', () => {
  const base = { Privileged: false, Devices: null, DeviceCgroupRules: null };
  it('maps one, under another name and with its rule', () => {
    const { devices, rules } = devicesOf({
      ...base,
      Devices: [{ PathOnHost: '/dev/zero', PathInContainer: '/dev/nought', CgroupPermissions: 'r' }],
    });
    assert.deepEqual(
      devices.map(({ path: at, type, major, minor }) => [at, type, major, minor]),
      [['/dev/nought', 'c', 1, 5]],
    );
    assert.deepEqual(rules.at(-1), { allow: true, type: 'c', major: 1, minor: 5, access: 'r' });
  });
  it('says what is wrong with one', () => {
    const mapped = (PathOnHost: string) => ({
      ...base,
      Devices: [{ PathOnHost, PathInContainer: '', CgroupPermissions: '' }],
    });
    assert.throws(
      () => devicesOf(mapped('/dev/nothing')),
      /error gathering device information while adding custom device "\/dev\/nothing": no such file or directory/,
    );
    assert.throws(() => devicesOf(mapped('/etc/passwd')), /not a device node/);
  });
  it('reads rules', () => {
    assert.deepEqual(devicesOf({ ...base, DeviceCgroupRules: ['c 7:* rmw'] }).rules.at(-1), {
      allow: true,
      type: 'c',
      major: 7,
      access: 'rmw',
    });
    assert.throws(() => devicesOf({ ...base, DeviceCgroupRules: ['x'] }), {
      message: "invalid device cgroup rule format: 'x'",
    });
  });
});

describe('failures', () => {
  const create = 'failed to create shim task: OCI runtime create failed: unable to start container process: exec: ';
  const cases: readonly [string, string, string, number][] = [
    [
      'executable file `nosuch` not found in $PATH: No such file or directory\n',
      'nosuch',
      `${create}"nosuch": executable file not found in $PATH: unknown`,
      127,
    ],
    [
      'executable file `/nosuch` not found in $PATH: No such file or directory\n',
      '/nosuch',
      `${create}"/nosuch": stat /nosuch: no such file or directory: unknown`,
      127,
    ],
    ['open executable: Permission denied\n', '/etc/passwd', `${create}"/etc/passwd": permission denied: unknown`, 126],
    [
      'time="2026-11-21T02:00:00Z" level=error msg="runc create failed: unable to start container process: exec: \\"nosuch\\": executable file not found in $PATH"\n',
      'nosuch',
      `${create}"nosuch": executable file not found in $PATH: unknown`,
      127,
    ],
    ['something else\n', 'x', 'failed to create shim task: OCI runtime create failed: something else: unknown', 128],
  ];
  for (const [output, command, message, exitCode] of cases) {
    it(message, () => {
      const failure = createFailure(output, command);
      assert.equal(failure.message, message);
      assert.equal(failure.exitCode, exitCode);
      assert.equal(failure.kind, exitCode === 128 ? 'internal' : 'invalid');
    });
  }
  it('reads a JSON log', () => {
    const failure = execFailure(
      '{"msg":"executable file `x` not found in $PATH: No such file or directory","level":"error"}',
      'x',
    );
    assert.equal(
      failure.message,
      'OCI runtime exec failed: exec failed: unable to start container process: exec: "x": executable file not found in $PATH: unknown',
    );
    assert.equal(failure.exitCode, 127);
  });
});

describe('cgroup layouts', () => {
  it('v1, controllers mounted together, v2 beside it', () => {
    const layout = detectLayout(
      '32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n' +
        '40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n' +
        '41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n',
      () => assert.fail('not asked for on v1'),
    );
    assert.equal(layout.version, 1);
    assert.equal(layout.hybrid, true);
    assert.equal(layout.controllers.get('cpuacct'), '/sys/fs/cgroup/cpu,cpuacct');
    assert.deepEqual(layout.roots, ['/sys/fs/cgroup/cpu,cpuacct', '/sys/fs/cgroup/systemd']);
  });
  it('v2 alone', () => {
    const layout = detectLayout(
      '30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n',
      () => 'cpu io memory pids\n',
    );
    assert.equal(layout.version, 2);
    assert.equal(layout.hybrid, false);
    assert.deepEqual([...layout.controllers.keys()], ['cpu', 'io', 'memory', 'pids']);
  });
  it('reads the counters of v2', async () => {
    const stats = await statsV2(new URL('./fixtures/cgroup-v2', import.meta.url).pathname);
    assert.deepEqual(stats.pids_stats, { current: 3, limit: 100 });
    assert.equal(stats.memory_stats.usage, 8_192_000);
    assert.equal(stats.memory_stats.limit, 67_108_864);
    assert.equal(stats.memory_stats.stats?.anon, 4_096_000);
    assert.equal(stats.cpu.cpu_usage.total_usage, 1_234_567_000);
    assert.equal(stats.cpu.throttling_data.throttled_time, 52_000_000);
    assert.deepEqual(stats.blkio_stats.io_service_bytes_recursive, [
      { major: 8, minor: 0, op: 'read', value: 4096 },
      { major: 8, minor: 0, op: 'write', value: 8192 },
    ]);
    assert.ok(stats.cpu.system_cpu_usage > 0);
  });
});
