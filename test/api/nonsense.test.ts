/** What no client should send, and what a real engine makes of it: a 4xx that says why, at once, and nothing left behind. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
});
after(() => engine?.close());

const body = (host: object = {}, config: object = {}) => ({
  Image: 'busybox',
  Cmd: ['sleep', '1000'],
  ...config,
  HostConfig: host,
});

/** The answer to a create, or else to the start of what was made; the container is gone afterwards. */
async function attempt(host: object, config: object = {}): Promise<readonly [status: number, message: string]> {
  const created = await engine.api('POST', '/containers/create', body(host, config));
  if (created.status !== 201) return [created.status, created.json().message];
  const { Id } = created.json();
  const started = await engine.api('POST', `/containers/${Id}/start`, undefined, { timeoutMs: 20_000 });
  await engine.call('DELETE', `/containers/${Id}?force=1`);
  return [started.status, started.text === '' ? '' : started.json().message];
}

const wrong = 'invalid JSON: HostConfig.';
const cases: readonly (readonly [what: string, host: object, config: object, message: RegExp])[] = [
  ['a number that no limit can be', { Memory: 1e308 }, {}, /^invalid JSON: HostConfig.Memory must be integer$/],
  ['more shares than 64 bits', { CpuShares: 2 ** 64 }, {}, new RegExp(`^${wrong}CpuShares must be integer$`)],
  ['a null byte in a path', { Binds: ['/tmp\0/x:/y'] }, {}, new RegExp(`^${wrong}Binds.0 holds a null byte$`)],
  ['a null byte in a name', { Sysctls: { 'net.\0': '1' } }, {}, new RegExp(`^${wrong}Sysctls holds a null byte$`)],
  ['a null byte in a word', {}, { Cmd: ['a\0b'] }, /^invalid JSON: Cmd.0 holds a null byte$/],
  ['a cgroup with a long name', { CgroupParent: 'x'.repeat(100_000) }, {}, /^CgroupParent is no path of a cgroup$/],
  ['a cgroup of two lines', { CgroupParent: 'a\nb' }, {}, /^CgroupParent is no path of a cgroup$/],
  ['more processes than the kernel counts', { PidsLimit: 2 ** 32 }, {}, /writing file `pids.max`: invalid argument/],
  ['a rate of no disk', { BlkioDeviceReadBps: [{ Path: '/dev/null', Rate: 1 }] }, {}, /read_bps_device/],
  [
    'a device at the root',
    { Devices: [{ PathOnHost: '/dev/null', PathInContainer: '/..' }] },
    {},
    /^invalid device path/,
  ],
  [
    'a device with a long name',
    { Devices: [{ PathOnHost: '/dev/null', PathInContainer: `/${'x'.repeat(300)}` }] },
    {},
    /^invalid device path/,
  ],
  ['a kernel parameter of two lines', { Sysctls: { 'net.a\nb': '1' } }, {}, /is not a name$/],
  [
    'a disk full of files as devices',
    { Devices: [{ PathOnHost: '/', PathInContainer: '/dev/all' }] },
    {},
    /not looked through for devices/,
  ],
  ['a command that is too long to be a file', {}, { Cmd: ['x'.repeat(100_000)] }, /file name too long/],
  ['a command of a line feed', {}, { Cmd: ['\n'] }, /executable file not found in \$PATH/],
];
for (const [what, host, config, message] of cases) {
  test(`${what} is refused`, async () => {
    const [status, text] = await attempt(host, config);
    assert.match(text, message);
    assert.equal(status, 400, text);
  });
}

test('the largest number of 64 bits is one of 63', async () => {
  assert.deepEqual(await attempt({ Memory: '9223372036854775807' }), [400, `${wrong}Memory must be integer`]);
  const text = JSON.stringify(body({ Memory: 0 })).replace('"Memory":0', '"Memory":9223372036854775807');
  const headers = { 'content-type': 'application/json' };
  const { Id } = (await engine.api('POST', '/containers/create', text, { headers })).json();
  await engine.call('POST', `/containers/${Id}/start`);
  await engine.call('DELETE', `/containers/${Id}?force=1`);
});

test('half a character in a cgroup is the same everywhere: nothing of it stays', async () => {
  assert.deepEqual(await attempt({ CgroupParent: `half-${process.pid}-\ud800` }), [204, '']);
  await engine.assertNoLeaks();
});

test('null bytes in queries are refused', async () => {
  const { Id } = await engine.call('POST', '/containers/create', body());
  await engine.call('POST', `/containers/${Id}/start`);
  for (const [method, path] of [
    ['GET', `/containers/${Id}/archive?path=/etc/a%00b`],
    ['PUT', `/containers/${Id}/archive?path=a%00b`],
    ['GET', `/containers/${Id}/top?ps_args=a%00b`],
    ['POST', '/containers/create?name=a%00b'],
  ] as const) {
    const answer = await engine.api(method, path, method === 'GET' ? undefined : {});
    assert.match(answer.json().message, /holds a null byte$/, path);
    assert.equal(answer.status, 400, path);
  }
  await engine.call('DELETE', `/containers/${Id}?force=1`);
});

test('a working directory of an exec that cannot be is the client’s mistake', async () => {
  const { Id } = await engine.call('POST', '/containers/create', body());
  await engine.call('POST', `/containers/${Id}/start`);
  for (const WorkingDir of ['x:y', 'a\nb', `/${'x'.repeat(300)}`]) {
    const exec = await engine.call('POST', `/containers/${Id}/exec`, { Cmd: ['true'], WorkingDir });
    const answer = await engine.api('POST', `/exec/${exec.Id}/start`, { Detach: true });
    assert.match(answer.json().message, /chdir to cwd/);
    assert.equal(answer.status, 400);
  }
  await engine.call('DELETE', `/containers/${Id}?force=1`);
});

test('networks that no machine can have', async () => {
  const option = (name: string, value: string) => ({ Options: { [`com.docker.network.${name}`]: value } });
  const subnet = (Subnet: string, more: object = {}) => ({ IPAM: { Config: [{ Subnet, ...more }] } });
  const refused: readonly (readonly [object, RegExp])[] = [
    ...['.', '..', 'all', 'default', 'br%d', 'äöüäöüäöü'].map(
      (name) => [option('bridge.name', name), /^invalid bridge name: /] as const,
    ),
    [option('driver.mtu', '65536'), /not an MTU/],
    [subnet('10.77.0.0/31'), /failed to allocate gateway/],
    [subnet('10.77.0.0/32'), /failed to allocate gateway/],
    [subnet('224.0.0.0/16'), /no machine can have its addresses/],
    [subnet('0.1.0.0/16'), /no machine can have its addresses/],
    [subnet('10.77.0.0/24', { Gateway: '10.78.0.1' }), /out of range/],
  ];
  for (const [asked, message] of refused) {
    const answer = await engine.api('POST', '/networks/create', { Name: 'nonsense', ...asked });
    assert.match(answer.json().message, message, JSON.stringify(asked));
    assert.equal(answer.status, 400, JSON.stringify(asked));
  }
  await engine.call('POST', '/networks/create', { Name: 'small', ...subnet('10.77.0.0/29') });
  for (const IPv4Address of ['10.77.0.0', '10.77.0.7', '10.77.0.1']) {
    const { Id } = await engine.call('POST', '/containers/create', {
      ...body({ NetworkMode: 'small' }),
      NetworkingConfig: { EndpointsConfig: { small: { IPAMConfig: { IPv4Address } } } },
    });
    const answer = await engine.api('POST', `/containers/${Id}/start`);
    assert.match(answer.json().message, /^Address already in use/);
    assert.equal(answer.status, 403);
    await engine.call('DELETE', `/containers/${Id}`);
  }
});

test('expressions that JavaScript would search for ever hold up nobody', async () => {
  const Labels = { [`${'a'.repeat(60)}!`]: 'v' };
  const LogConfig = { Type: 'json-file', Config: { 'labels-regex': '(a+)+$' } };
  const { Id } = await engine.call('POST', '/containers/create', {
    ...body({ LogConfig }),
    Cmd: ['echo', 'x'],
    Labels,
  });
  await engine.call('POST', `/containers/${Id}/start`);
  await engine.call('POST', `/containers/${Id}/wait`);
  const soon = { timeoutMs: 10_000 };
  assert.match((await engine.api('GET', `/containers/${Id}/logs?stdout=1&details=1`, undefined, soon)).text, / x\n$/);
  await engine.call('POST', `/containers/${Id}/rename?name=${'a'.repeat(60)}_`);
  const filters = encodeURIComponent(JSON.stringify({ name: ['^(a+)+$'] }));
  assert.deepEqual(await engine.call('GET', `/containers/json?all=1&filters=${filters}`, undefined, soon), []);
  await engine.call('DELETE', `/containers/${Id}`);
});
