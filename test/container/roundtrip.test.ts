/**
 * What inspect returns, create accepts: containers of random configurations are made, inspected, removed, made again of what
 * inspect said, and must look the same. Plus cases that chance seldom meets.
 *
 * test-timeout-seconds: 240
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { TestEngine } from '../support/engine.ts';
import type { Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
  await importBusybox(engine, 'rich:latest', [
    'ENV PATH=/bin RICH=1',
    'LABEL from=image',
    'EXPOSE 8080 53/udp',
    'VOLUME /image-volume',
    'WORKDIR /image/dir',
    'ENTRYPOINT ["env"]',
    'CMD ["true"]',
    'USER 7',
    'STOPSIGNAL SIGINT',
    'HEALTHCHECK --interval=7s CMD true',
  ]);
  await engine.call('POST', '/containers/create?name=other', { Image: 'busybox', Cmd: ['sleep', '1000'] });
  await engine.call('POST', '/containers/other/start');
});
after(() => engine?.close());

/** Bodies that a client can send: any property may be absent. */
const some = <T extends object>(properties: { readonly [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record(properties, { requiredKeys: [] });

const word = fc.stringMatching(/^[a-z][a-z0-9_-]{0,8}$/);
const line = fc.string({ maxLength: 12 }).map((text) => text.replaceAll('\0', ''));
const directory = fc.array(word, { minLength: 1, maxLength: 3 }).map((parts) => `/${parts.join('/')}`);
const words = fc.array(line, { minLength: 1, maxLength: 3 });
const port = fc
  .tuple(fc.integer({ min: 1, max: 65_535 }), fc.constantFrom('tcp', 'udp'))
  .map(([number, protocol]) => `${number}/${protocol}`);
const megabytes = (min: number, max: number) => fc.integer({ min, max }).map((count) => count * 1024 * 1024);
const address = fc.integer({ min: 1, max: 254 }).map((last) => `10.9.8.${last}`);
const setOf = (key: fc.Arbitrary<string>) => fc.dictionary(key, fc.constant({}), { maxKeys: 3 });

const config = some({
  Hostname: word,
  Domainname: word,
  User: fc.constantFrom('', 'root', '1000', '1000:1000', 'nobody:nogroup'),
  AttachStdin: fc.boolean(),
  AttachStdout: fc.boolean(),
  AttachStderr: fc.boolean(),
  ExposedPorts: setOf(port),
  Tty: fc.boolean(),
  OpenStdin: fc.boolean(),
  StdinOnce: fc.boolean(),
  Env: fc.array(
    fc.tuple(word, line).map(([name, value]) => `${name}=${value}`),
    { maxLength: 4 },
  ),
  Cmd: words,
  Healthcheck: fc.constantFrom<object>(
    {},
    { Test: ['NONE'] },
    { Test: [] },
    { Test: ['CMD', 'true'], Interval: 5_000_000_000, Retries: 2 },
    { Test: ['CMD-SHELL', 'exit 0'], Timeout: 1_000_000_000 },
  ),
  ArgsEscaped: fc.boolean(),
  Image: fc.constantFrom('busybox', 'rich'),
  Volumes: setOf(directory),
  WorkingDir: directory,
  Entrypoint: fc.oneof(words, fc.constant([''])),
  OnBuild: fc.array(fc.constantFrom('RUN true', 'ENV a=b'), { maxLength: 2 }),
  Labels: fc.dictionary(line, line, { maxKeys: 3 }),
  StopSignal: fc.constantFrom('', 'SIGUSR1', 'USR2', '15', 'SIGRTMIN+3'),
  StopTimeout: fc.integer({ min: 0, max: 100 }),
  Shell: words,
});

const hostConfig = some({
  Binds: fc.array(
    fc
      .tuple(fc.constantFrom('/tmp', 'kept-volume'), directory, fc.constantFrom('', ':ro', ':rw'))
      .map((p) => `${p[0]}:/b${p[1]}${p[2]}`),
    { maxLength: 2 },
  ),
  LogConfig: fc.constantFrom<object>(
    {},
    { Type: 'none' },
    { Type: 'json-file' },
    { Type: 'json-file', Config: { 'max-size': '1m', 'max-file': '2' } },
    { Type: 'local', Config: { mode: 'non-blocking' } },
    { Type: 'syslog', Config: { 'syslog-address': 'udp://127.0.0.1:514', tag: '{{.Name}}' } },
  ),
  RestartPolicy: fc.constantFrom<object>(
    { Name: '' },
    { Name: 'no' },
    { Name: 'always' },
    { Name: 'unless-stopped' },
    { Name: 'on-failure', MaximumRetryCount: 3 },
  ),
  CapAdd: fc.subarray(['NET_ADMIN', 'CAP_SYS_TIME', 'sys_nice']),
  CapDrop: fc.subarray(['MKNOD', 'CAP_CHOWN', 'ALL']),
  Dns: fc.array(address, { maxLength: 2 }),
  DnsOptions: fc.subarray(['ndots:2', 'use-vc']),
  DnsSearch: fc.array(word, { maxLength: 2 }),
  ExtraHosts: fc.array(
    fc.tuple(word, address).map(([name, ip]) => `${name}:${ip}`),
    { maxLength: 2 },
  ),
  GroupAdd: fc.subarray(['1', '99']),
  IpcMode: fc.constantFrom('', 'private', 'shareable', 'none'),
  OomScoreAdj: fc.integer({ min: -1000, max: 1000 }),
  Privileged: fc.boolean(),
  ReadonlyRootfs: fc.boolean(),
  SecurityOpt: fc.subarray(['no-new-privileges', 'seccomp=unconfined']),
  Tmpfs: fc.dictionary(
    directory.map((path) => `/t${path}`),
    fc.constantFrom('', 'size=1m', 'ro,mode=700'),
    { maxKeys: 2 },
  ),
  ShmSize: megabytes(1, 100),
  Runtime: fc.constantFrom('', 'runc'),
  ConsoleSize: fc.tuple(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 0, max: 200 })),
  Isolation: fc.constantFrom('', 'default'),
  Init: fc.boolean(),
  PidMode: fc.constantFrom('', 'host', 'container:other'),
  UsernsMode: fc.constantFrom('', 'host'),
  Sysctls: fc
    .subarray(['kernel.msgmax', 'fs.mqueue.msg_max'])
    .map((names) => Object.fromEntries(names.map((n) => [n, '100']))),
  CgroupParent: fc.constantFrom('', '/slipway-roundtrip'),
  Devices: fc.subarray([
    { PathOnHost: '/dev/null', PathInContainer: '/dev/nothing', CgroupPermissions: 'rwm' },
    { PathOnHost: '/dev/zero' },
  ]),
  DeviceCgroupRules: fc.subarray(['c 1:3 rwm', 'a *:* r']),
  VolumesFrom: fc.subarray(['other', 'other:ro'], { maxLength: 1 }),
  VolumeDriver: fc.constantFrom('', 'local'),
  Mounts: fc.subarray<object>([
    { Type: 'bind', Source: '/tmp', Target: '/m/bind', ReadOnly: true },
    { Type: 'bind', Source: '/etc', Target: '/m/shared', BindOptions: { Propagation: 'rslave' } },
    { Type: 'volume', Source: 'kept-volume', Target: '/m/named', VolumeOptions: { NoCopy: true, Labels: { a: 'b' } } },
    { Type: 'volume', Target: '/m/made' },
    { Type: 'tmpfs', Target: '/m/memory', TmpfsOptions: { SizeBytes: 65_536, Mode: 0o700 } },
  ]),
  CpuShares: fc.integer({ min: 2, max: 10_000 }),
  CpusetCpus: fc.constantFrom('', '0'),
  CpusetMems: fc.constantFrom('', '0'),
  MemoryReservation: megabytes(6, 15),
  OomKillDisable: fc.boolean(),
  PidsLimit: fc.integer({ min: -1, max: 1000 }),
  Ulimits: fc.subarray([
    { Name: 'nofile', Soft: 10, Hard: 20 },
    { Name: 'core', Soft: 0, Hard: 0 },
  ]),
  BlkioWeight: fc.constantFrom(0, 10, 500),
});

/** Options that exclude each other: one of each row. */
const memory = fc.oneof(
  fc.constant({}),
  fc.record({ Memory: megabytes(20, 100) }),
  fc.record({ Memory: megabytes(20, 100), MemorySwap: fc.constantFrom(-1, 200 * 1024 * 1024) }),
  fc.record({ Memory: megabytes(20, 100), MemorySwappiness: fc.integer({ min: -1, max: 100 }) }),
);
const cpu = fc.oneof(
  fc.constant({}),
  fc.record({ NanoCpus: fc.integer({ min: 1, max: 10 }).map((tenths) => tenths * 1e8) }),
  fc.record({ CpuPeriod: fc.integer({ min: 1000, max: 100_000 }), CpuQuota: fc.integer({ min: 1000, max: 100_000 }) }),
);
const network = fc.oneof(
  fc.record({
    HostConfig: some({ NetworkMode: fc.constantFrom('', 'default', 'bridge') }),
    NetworkingConfig: fc.constantFrom<object>({}, { EndpointsConfig: { bridge: {} } }),
  }),
  fc.record({
    HostConfig: some({
      PortBindings: fc.dictionary(
        port,
        fc.constantFrom<object[] | null>(null, [], [{ HostPort: '' }], [{ HostIp: '127.0.0.1', HostPort: '7000' }]),
        { maxKeys: 2 },
      ),
      PublishAllPorts: fc.boolean(),
    }),
  }),
  fc.constantFrom<object>(
    { HostConfig: { NetworkMode: 'none' } },
    { HostConfig: { NetworkMode: 'host' } },
    {
      HostConfig: {
        NetworkMode: 'container:other',
        ExtraHosts: undefined,
        Dns: undefined,
        DnsOptions: undefined,
        DnsSearch: undefined,
      },
      ExposedPorts: undefined,
      Hostname: undefined,
    },
    { HostConfig: { UTSMode: 'host' }, Hostname: undefined, Domainname: undefined },
    { HostConfig: { Links: ['other', 'other:alias'] } },
    { MacAddress: '02:42:ac:11:00:99' },
    { NetworkDisabled: true },
  ),
);
const removal = fc.constantFrom<object>({}, {}, { AutoRemove: true, RestartPolicy: undefined });

const body = fc.tuple(config, hostConfig, memory, cpu, network, removal).map(([own, host, ...more]) => {
  const [limits, share, where, end] = more as Loose[];
  const { HostConfig: connection = {}, ...rest } = where;
  const request = {
    Image: 'busybox',
    Cmd: ['true'],
    ...own,
    ...rest,
    HostConfig: { ...host, ...limits, ...share, ...connection, ...end },
  };
  // Empty words clear an image's command as well as its entrypoint.
  if (request.Image === 'busybox' && request.Entrypoint?.join('') === '' && request.Cmd.length === 0)
    request.Cmd = ['true'];
  return JSON.parse(JSON.stringify(request));
});

async function made(request: object): Promise<Loose> {
  const answer = await engine.api('POST', '/v1.26/containers/create', request);
  assert.equal(answer.status, 201, answer.text);
  return engine.call('GET', `/v1.26/containers/${answer.json().Id}/json`);
}

const again = ({ Config, HostConfig, NetworkSettings }: Loose) => ({
  ...Config,
  HostConfig,
  NetworkingConfig: { EndpointsConfig: NetworkSettings.Networks },
});

/** Without what belongs to one container only: ids, times, made-up names. */
function comparable(inspected: Loose): Loose {
  const { Id, Created, Name, GraphDriver, Mounts, State, NetworkSettings, RestartCount, ...rest } = inspected;
  return JSON.parse(
    JSON.stringify({
      ...rest,
      // A volume made for the container has a name of its own.
      Mounts: Mounts.map(({ Name: volume = '', Source, ...mount }: Loose) =>
        /^[0-9a-f]{64}$/.test(volume) ? mount : { ...mount, Name: volume, Source },
      ).sort((a: Loose, b: Loose) => (a.Destination < b.Destination ? -1 : 1)),
      Networks: Object.keys(NetworkSettings.Networks),
    })
      .replaceAll(Id, 'ID')
      // Links are told by the names of both.
      .replaceAll(`:${Name}/`, ':/NAME/'),
  );
}

async function roundTrip(request: object): Promise<void> {
  const first = await made(request);
  await engine.call('DELETE', `/containers/${first.Id}?v=1`);
  const second = await made(again(first));
  await engine.call('DELETE', `/containers/${second.Id}?v=1`);
  assert.deepEqual(comparable(second), comparable(first));
}

test('containers of random configurations can be made again of what inspect shows', async () => {
  await fc.assert(fc.asyncProperty(body, roundTrip), {
    numRuns: 200,
    interruptAfterTimeLimit: 90_000,
    markInterruptAsFailure: false,
  });
});

for (const [title, request] of Object.entries<object>({
  'nothing but an image': { Image: 'rich' },
  'an entrypoint cleared': { Image: 'rich', Entrypoint: [''], Cmd: ['true'] },
  'the host’s network': { Image: 'busybox', HostConfig: { NetworkMode: 'host' } },
  'another’s network': { Image: 'busybox', HostConfig: { NetworkMode: 'container:other' } },
  'empty instead of absent': {
    Image: 'busybox',
    Env: [],
    Volumes: {},
    ExposedPorts: {},
    Labels: {},
    OnBuild: [],
    HostConfig: { Tmpfs: {}, Sysctls: {}, StorageOpt: {}, Mounts: [], PortBindings: {} },
  },
  'sets with null': { Image: 'busybox', ExposedPorts: { '80/tcp': null }, Volumes: { '/v': null } },
})) {
  test(title, () => roundTrip(request));
}

test('of one that ran and ended, too', async () => {
  const before = await made({
    Image: 'busybox',
    Cmd: ['true'],
    ExposedPorts: { '80/tcp': {} },
    HostConfig: { PublishAllPorts: true },
  });
  await engine.call('POST', `/containers/${before.Id}/start`);
  await engine.call('POST', `/containers/${before.Id}/wait`);
  const first = await engine.call('GET', `/v1.26/containers/${before.Id}/json`);
  const second = await made(again(first));
  for (const part of ['Config', 'HostConfig']) assert.deepEqual(second[part], first[part]);
});

test('of one that runs, too: its address and its hardware address belong to it alone', async () => {
  const before = await made({ Image: 'busybox', Cmd: ['sleep', '1000'] });
  await engine.call('POST', `/containers/${before.Id}/start`);
  const first = await engine.call('GET', `/v1.26/containers/${before.Id}/json`);
  assert.notEqual(first.NetworkSettings.Networks.bridge.IPAddress, '');
  const second = await made(again(first));
  for (const part of ['Config', 'HostConfig']) assert.deepEqual(second[part], first[part]);
  await engine.call('POST', `/containers/${second.Id}/start`);
  const { NetworkSettings } = await engine.call('GET', `/v1.26/containers/${second.Id}/json`);
  assert.notEqual(NetworkSettings.IPAddress, first.NetworkSettings.IPAddress);
});
