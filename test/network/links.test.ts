/** Links on the default bridge, fixed hardware addresses, and what a create request may say about its network. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { environmentOf, parseLink } from '../../src/container/links.ts';
import { withLinkAddress } from '../../src/network/files.ts';
import { parseMac } from '../../src/network/mac.ts';
import { eventually } from '../support/command.ts';
import { clis, engineKind, TestEngine } from '../support/engine.ts';
import { hijack, type Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

const onSlipway = { skip: engineKind === 'dockerd' ? 'dockerd does otherwise' : false };

test('links as they are written', () => {
  assert.deepEqual(parseLink('db'), { ref: 'db', alias: 'db' });
  assert.deepEqual(parseLink('db:data'), { ref: 'db', alias: 'data' });
  assert.deepEqual(parseLink('/db:/web/data'), { ref: 'db', alias: 'data' });
  for (const text of ['a:b:c', 'db:', 'db:a b', 'db:a\nb', 'db:a/b']) {
    assert.throws(() => parseLink(text), { message: `bad format for links: ${text}` });
  }
});

test('variables of a link: ports in a row are told as a range, too', () => {
  const env = environmentOf(
    '/web/data-base',
    '172.17.0.9',
    ['FOO=a=b', 'HOME=/x', 'PATH=/y', 'NONE'],
    ['53/udp', '8000-8002/tcp'],
  );
  assert.deepEqual(env, [
    'DATA_BASE_PORT=udp://172.17.0.9:53',
    'DATA_BASE_PORT_8000_TCP_START=tcp://172.17.0.9:8000',
    'DATA_BASE_PORT_8000_TCP_PORT_START=8000',
    'DATA_BASE_PORT_8000_TCP_END=tcp://172.17.0.9:8002',
    'DATA_BASE_PORT_8000_TCP_PORT_END=8002',
    ...['53/udp', '8000/tcp', '8001/tcp', '8002/tcp'].flatMap((port) => {
      const [number, protocol = ''] = port.split('/');
      const name = `DATA_BASE_PORT_${number}_${protocol.toUpperCase()}`;
      return [
        `${name}=${protocol}://172.17.0.9:${number}`,
        `${name}_ADDR=172.17.0.9`,
        `${name}_PORT=${number}`,
        `${name}_PROTO=${protocol}`,
      ];
    }),
    'DATA_BASE_NAME=/web/data-base',
    'DATA_BASE_ENV_FOO=a=b',
  ]);
  assert.deepEqual(environmentOf('/a/b', '1.2.3.4', null, []), ['B_NAME=/a/b']);
  // Two in a row are no range.
  assert.ok(!environmentOf('/a/b', '1.2.3.4', null, ['80/tcp', '81/tcp']).some((line) => line.includes('START')));
});

test('a hosts file gets another address for a link, and nothing else', () => {
  const file = '127.0.0.1\tlocalhost\n172.17.0.2\tdb 0123 d.b\n172.17.0.2\tdbx\n10.0.0.1 db\n# db\n';
  assert.equal(withLinkAddress(file, 'db', '172.17.0.7'), file.replace('172.17.0.2\tdb ', '172.17.0.7\tdb '));
  assert.equal(withLinkAddress(file, 'd.b', '172.17.0.7'), file);
});

test('hardware addresses in their spellings', () => {
  for (const text of ['02:42:AC:11:00:99', '02-42-ac-11-00-99', '0242.ac11.0099']) {
    assert.equal(parseMac(text), '02:42:ac:11:00:99');
  }
  for (const text of ['', 'zz', '02:42:ac:11:00', '02:42-ac:11:00:99', '01:00:5e:00:00:01', '00:00:00:00:00:00']) {
    assert.throws(() => parseMac(text), /^\w*Error: invalid MAC address: /);
  }
});

let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
});
after(() => engine?.close());

const api = (method: string, path: string, body?: unknown) => engine.api(method, `/v1.26${path}`, body);
const inspect = (name: string): Promise<Loose> => engine.call('GET', `/v1.26/containers/${name}/json`);

async function create(name: string, more: object = {}): Promise<string> {
  const body = { Image: 'busybox', Cmd: ['sleep', '1000'], ...more };
  return (await engine.call('POST', `/v1.26/containers/create?name=${name}`, body)).Id;
}
const linked = (...Links: string[]) => ({ HostConfig: { Links } });
const start = (name: string) => engine.call('POST', `/v1.26/containers/${name}/start`);
const stop = (name: string) => engine.call('POST', `/v1.26/containers/${name}/stop?t=0`);

async function exec(name: string, ...Cmd: string[]): Promise<string> {
  const { Id } = await engine.call('POST', `/v1.26/containers/${name}/exec`, { AttachStdout: true, Tty: true, Cmd });
  const { socket, rest } = await hijack(engine.paths.socket, `/v1.26/exec/${Id}/start`, { Tty: true });
  const parts = [rest];
  for await (const part of socket) parts.push(part as Buffer);
  return Buffer.concat(parts).toString().replaceAll('\r\n', '\n');
}
const addressOf = async (name: string): Promise<string> => (await inspect(name)).NetworkSettings.IPAddress;

for (const cli of clis) {
  test(`${cli.name}: a service is reached by its alias`, async (t) => {
    t.after(() => engine.removeAll());
    const docker = (...args: string[]) => engine.mustDocker(args, { cli });
    const serve = 'while true; do echo pong | nc -l -p 6379; done';
    await docker('run', '-d', '--name', 'redis', '--expose', '6379', '-e', 'COLOR=red', 'busybox', 'sh', '-c', serve);
    const web = ['run', '-d', '--name', 'web', '--link', 'redis:db', 'busybox', 'sleep', '1000'];
    await docker(...web);
    await eventually(async () => {
      assert.equal(await docker('exec', 'web', 'nc', 'db', '6379'), 'pong\n');
    });
    const id = (await docker('inspect', '-f', '{{.Id}}', 'redis')).trim();
    const address = await addressOf('redis');
    assert.match(
      await docker('exec', 'web', 'cat', '/etc/hosts'),
      new RegExp(`^${address}\tdb ${id.slice(0, 12)} redis$`, 'm'),
    );
    const env = await docker('run', '--rm', '--name', 'other', '--link', `${id}:db`, 'busybox', 'env');
    for (const line of [
      `DB_PORT=tcp://${address}:6379`,
      `DB_PORT_6379_TCP=tcp://${address}:6379`,
      `DB_PORT_6379_TCP_ADDR=${address}`,
      'DB_PORT_6379_TCP_PORT=6379',
      'DB_PORT_6379_TCP_PROTO=tcp',
      'DB_NAME=/other/db',
      'DB_ENV_COLOR=red',
    ]) {
      assert.ok(env.split('\n').includes(line), `${line} is not in\n${env}`);
    }
    assert.equal(await docker('inspect', '-f', '{{json .HostConfig.Links}}', 'web'), '["/redis:/web/db"]\n');
    assert.match(await docker('ps', '--no-trunc', '--format', '{{.Names}}'), /^redis,web\/db$/m);
    await docker('rm', '--link', 'web/db');
    assert.equal(await docker('inspect', '-f', '{{json .HostConfig.Links}}', 'web'), 'null\n');
    assert.doesNotMatch(await docker('ps', '--no-trunc', '--format', '{{.Names}}'), /web\/db/);
  });
}

describe('the life of a link', () => {
  before(async () => {
    await create('db', { ExposedPorts: { '80/tcp': {} }, Env: ['A=b'] });
    await create('hosty', { HostConfig: { NetworkMode: 'host' } });
    await create('nony', { HostConfig: { NetworkMode: 'none' } });
    await create('viadb', { HostConfig: { NetworkMode: 'container:db' } });
  });
  after(() => engine.removeAll());

  test('what cannot be linked is refused in words that name it', async () => {
    const hostWords =
      "conflicting options: host type networking can't be used with links. This would result in undefined behavior";
    const cases: readonly (readonly [object, string])[] = [
      [linked('nosuch:x'), 'could not get container for nosuch: No such container: nosuch'],
      [linked('self:x'), 'could not get container for self: No such container: self'],
      [linked('hosty:x'), hostWords],
      [{ HostConfig: { Links: ['db'], NetworkMode: 'host' } }, hostWords],
      [
        { HostConfig: { Links: ['db'], NetworkMode: 'container:db' } },
        "conflicting options: container type network can't be used with links. This would result in undefined behavior",
      ],
      ...(engineKind === 'dockerd'
        ? []
        : ([
            [linked(''), 'empty string specified for links'],
            [linked('a:b:c'), 'bad format for links: a:b:c'],
            [linked('db:a b'), 'bad format for links: db:a b'],
          ] as const)),
    ];
    for (const [more, message] of cases) {
      const answer = await api('POST', '/containers/create?name=self', { Image: 'busybox', ...more });
      assert.deepEqual([answer.status, answer.json().message], [400, message]);
    }
  });

  test('it can only be followed to a container that runs on the same network', async () => {
    await create('early', linked('db:x'));
    const answer = await api('POST', '/containers/early/start');
    const message = 'Cannot link to a non running container: /db AS /early/x';
    assert.deepEqual([answer.status, answer.json().message], [500, message]);
    const { State } = await inspect('early');
    assert.deepEqual([State.Status, State.ExitCode, State.Error], ['created', 128, message]);
    await create('tonone', linked('nony:x'));
    await start('nony');
    const refused = await api('POST', '/containers/tonone/start');
    assert.deepEqual(
      [refused.status, refused.json().message],
      [500, 'Cannot link to /nony, as it does not belong to the default network'],
    );
    await start('db');
    await start('early');
    // Through a container in another's network, the other is meant.
    await create('through', linked('viadb:v'));
    await start('through');
    assert.match(await exec('through', 'cat', '/etc/hosts'), new RegExp(`^${await addressOf('db')}\tv \\w+ db$`, 'm'));
    await create('nowhere', { HostConfig: { Links: ['db:x'], NetworkMode: 'none' } });
    await start('nowhere');
  });

  test('the name of a link stands for the container it leads to', async () => {
    const { Id } = await inspect('db');
    for (const name of ['early/x', 'early%2Fx']) {
      assert.equal((await inspect(name)).Id, Id);
    }
    assert.equal((await api('GET', '/containers/early/y/json')).status, 404);
    const rows: Loose[] = await engine.call('GET', '/v1.26/containers/json');
    const names: string[] = rows.find((row) => row.Id === Id).Names;
    assert.deepEqual([...names].sort(), ['/db', '/early/x', '/nowhere/x', '/through/v']);
  });

  test('renaming either end keeps it', async () => {
    await engine.call('POST', '/v1.26/containers/early/rename?name=web');
    assert.deepEqual((await inspect('web')).HostConfig.Links, ['/db:/web/x']);
    await engine.call('POST', '/v1.26/containers/db/rename?name=dbx');
    assert.deepEqual((await inspect('web')).HostConfig.Links, ['/dbx:/web/x']);
    assert.equal((await inspect('web/x')).Name, '/dbx');
    assert.equal((await api('GET', '/containers/early/x/json')).status, 404);
    await engine.call('POST', '/v1.26/containers/dbx/rename?name=db');
  });

  test('what inspect shows of it makes the same link', async () => {
    const { HostConfig } = await inspect('web');
    await create('copy', { HostConfig });
    assert.deepEqual((await inspect('copy')).HostConfig.Links, ['/db:/copy/x']);
    await start('copy');
    assert.match(await exec('copy', 'env'), /^X_PORT_80_TCP=tcp/m);
  });

  test('an exec has the variables, and is not refused when the other rests', onSlipway, async () => {
    assert.match(await exec('web', 'env'), /^X_ENV_A=b$/m);
    await stop('db');
    assert.match(await exec('web', 'env'), /^X_NAME=\/early\/x$/m);
  });

  test('another address of a restarted container reaches those who run and link to it', onSlipway, async () => {
    const line = (address: string) => new RegExp(`^${address}\tx \\w+ db$`, 'm');
    const hosts = () => exec('web', 'cat', '/etc/hosts');
    await exec('web', 'sh', '-c', 'echo 10.9.8.7 mine >> /etc/hosts');
    await start('db');
    const first = await addressOf('db');
    assert.match(await hosts(), line(first));
    await stop('db');
    await start('db');
    const second = await addressOf('db');
    assert.notEqual(second, first);
    assert.match(await hosts(), line(second));
    assert.match(await hosts(), /^10\.9\.8\.7 mine$/m);
    // A daemon that dies takes none of it along.
    await engine.kill9();
    await engine.launch();
    assert.deepEqual((await inspect('web')).HostConfig.Links, ['/db:/web/x']);
    assert.match(await hosts(), line(second));
  });

  test('a link is removed by its name', async () => {
    await create('doubly', linked('db:one', 'db:two', 'nony:three'));
    const answer = await api('DELETE', '/containers/doubly?link=1');
    if (engineKind === 'slipway') {
      assert.deepEqual(
        [answer.status, answer.json().message],
        [409, 'Conflict, cannot remove the default name of the container'],
      );
    }
    const unknown = await api('DELETE', '/containers/doubly/four?link=1');
    assert.deepEqual([unknown.status, unknown.json().message], [404, 'No such container: doubly/four']);
    assert.equal((await api('DELETE', '/containers/doubly/one?link=1')).status, 204);
    assert.deepEqual((await inspect('doubly')).HostConfig.Links.sort(), ['/db:/doubly/two', '/nony:/doubly/three']);
    assert.equal((await api('GET', '/containers/doubly/one/json')).status, 404);
    assert.equal((await api('GET', '/containers/db/json')).status, 200);
  });

  test('a removed container is missed, until there is one of its name', onSlipway, async () => {
    await engine.call('POST', '/v1.26/containers/db/rename?name=other');
    await engine.call('DELETE', '/v1.26/containers/other?force=1');
    await stop('web');
    const answer = await api('POST', '/containers/web/start');
    assert.equal(answer.json().message, 'Cannot link to a non running container: /other AS /web/x');
    await create('other');
    await start('other');
    await start('web');
    assert.match(
      await exec('web', 'cat', '/etc/hosts'),
      new RegExp(`^${await addressOf('other')}\tx \\w+ other$`, 'm'),
    );
    const rows: Loose[] = await engine.call('GET', '/v1.26/containers/json');
    assert.ok(rows.some((row) => row.Names.includes('/web/x') && row.Names.includes('/other')));
  });
});

test('when the daemon starts, a container waits for those it links to', onSlipway, async (t) => {
  t.after(() => engine.removeAll());
  const RestartPolicy = { Name: 'always', MaximumRetryCount: 0 };
  await create('a-db', { HostConfig: { RestartPolicy } });
  await create('b-web', { HostConfig: { RestartPolicy, Links: ['a-db:db'] } });
  await create('c-edge', { HostConfig: { RestartPolicy, Links: ['b-web:web'] } });
  for (const name of ['a-db', 'b-web', 'c-edge']) await start(name);
  const pids = await Promise.all(['c-edge', 'b-web', 'a-db'].map(async (name) => (await inspect(name)).State.Pid));
  await engine.kill9();
  for (const pid of pids) process.kill(pid, 'SIGKILL');
  await engine.launch();
  await eventually(async () => {
    const states = await Promise.all(['a-db', 'b-web', 'c-edge'].map(async (name) => (await inspect(name)).State));
    assert.deepEqual(
      states.map(({ Status, Pid }, i) => [Status, Pid !== pids[2 - i]]),
      Array(3).fill(['running', true]),
    );
  }, 15_000);
  assert.match(await exec('c-edge', 'cat', '/etc/hosts'), new RegExp(`^${await addressOf('b-web')}\tweb `, 'm'));
});

describe('hardware addresses', () => {
  after(() => engine.removeAll());
  const inside = (name: string) => exec(name, 'cat', '/sys/class/net/eth0/address');

  test('a fixed one is seen inside and in inspect, at each start', async () => {
    await create('fixed', { MacAddress: '02:42:AC:11:77:99' });
    for (let round = 0; round < 2; round++) {
      await start('fixed');
      assert.equal((await inside('fixed')).trim(), '02:42:ac:11:77:99');
      const { Config, NetworkSettings } = await inspect('fixed');
      assert.equal(Config.MacAddress, '02:42:AC:11:77:99');
      assert.equal(NetworkSettings.MacAddress, '02:42:ac:11:77:99');
      assert.equal(NetworkSettings.Networks.bridge.MacAddress, '02:42:ac:11:77:99');
      await stop('fixed');
    }
    // A newer client asks for a newer API before it sends one.
    const cli = clis.find(({ name }) => name === 'docker20');
    const args = ['run', '--rm', '--mac-address', '02:42:ac:11:77:98', 'busybox', 'ip', 'link'];
    if (cli) assert.match(await engine.mustDocker(args, { cli }), /02:42:ac:11:77:98/);
  });

  test('one of an endpoint counts, a copy of what inspect shows does not', onSlipway, async () => {
    const endpoint = (settings: object) => ({ NetworkingConfig: { EndpointsConfig: { bridge: settings } } });
    await create('own', endpoint({ MacAddress: '02:42:ac:11:77:97' }));
    await start('own');
    assert.equal((await inside('own')).trim(), '02:42:ac:11:77:97');
    const { NetworkSettings } = await inspect('own');
    const { IPAMConfig: _, ...shown } = NetworkSettings.Networks.bridge;
    await create('copied', endpoint(shown));
    await start('copied');
    assert.notEqual((await inside('copied')).trim(), '02:42:ac:11:77:97');
    const both = await api('POST', '/containers/create', {
      Image: 'busybox',
      MacAddress: '02:42:ac:11:77:96',
      ...endpoint({ MacAddress: '02:42:ac:11:77:97' }),
    });
    assert.equal(both.status, 400);
  });
});

describe('options of the network', () => {
  before(async () => {
    await create('owner');
  });
  after(() => engine.removeAll());
  const mode = (NetworkMode: string, more: object = {}) => ({ HostConfig: { NetworkMode, ...more } });
  const endpoints = (EndpointsConfig: object) => ({ NetworkingConfig: { EndpointsConfig } });
  const MacAddress = '02:42:ac:11:00:99';
  const shared = 'container:owner';
  const format = 'Invalid network mode: invalid container format container:<name|id>';
  const publish = 'conflicting options: port publishing and the container type network mode';
  const macWords = 'conflicting options: mac-address and the network mode';

  const refusals: readonly (readonly [object, string, 'dockerd too' | 'here'])[] = [
    [{ Hostname: 'h', ...mode(shared) }, 'conflicting options: hostname and the network mode', 'dockerd too'],
    [mode(shared, { Dns: ['1.1.1.1'] }), 'conflicting options: dns and the network mode', 'dockerd too'],
    [
      mode(shared, { ExtraHosts: ['a:1.1.1.1'] }),
      'conflicting options: custom host-to-IP mapping and the network mode',
      'dockerd too',
    ],
    [{ MacAddress, ...mode(shared) }, macWords, 'dockerd too'],
    [{ MacAddress, ...mode('host') }, macWords, 'dockerd too'],
    [mode(shared, { PortBindings: { '80/tcp': [{ HostPort: '80' }] } }), publish, 'dockerd too'],
    [mode(shared, { PublishAllPorts: true }), publish, 'dockerd too'],
    [
      { ExposedPorts: { '80/tcp': {} }, ...mode(shared) },
      'conflicting options: port exposing and the container type network mode',
      'dockerd too',
    ],
    [mode('container:'), format, 'dockerd too'],
    [mode('container'), format, 'dockerd too'],
    [{ HostConfig: { ExtraHosts: ['nocolon'] } }, 'bad format for add-host: "nocolon"', 'dockerd too'],
    [{ HostConfig: { ExtraHosts: [':1.1.1.1'] } }, 'bad format for add-host: ":1.1.1.1"', 'dockerd too'],
    [{ HostConfig: { ExtraHosts: ['a:999.1.1.1'] } }, 'invalid IP address in add-host: "999.1.1.1"', 'dockerd too'],
    [{ HostConfig: { Dns: ['x'] } }, 'x is not an ip address', 'here'],
    [{ HostConfig: { DnsSearch: ['a b'] } }, 'a b is not a valid domain', 'here'],
    [{ MacAddress: 'zz' }, 'invalid MAC address: zz', 'here'],
    [endpoints({ bridge: { MacAddress: 'zz' } }), 'invalid MAC address: zz', 'here'],
    [endpoints({ bridge: null }), 'no EndpointSettings for bridge', 'dockerd too'],
    [
      endpoints({ bridge: {}, host: {} }),
      'Container cannot be created with multiple network endpoints: bridge, host',
      'here',
    ],
    [endpoints({ bridge: { IPAMConfig: { IPv4Address: 'x' } } }), 'invalid IPv4 address: x', 'dockerd too'],
    [endpoints({ bridge: { IPAMConfig: { IPv6Address: '1.1.1.1' } } }), 'invalid IPv6 address: 1.1.1.1', 'dockerd too'],
    // dockerd answers the same when the container is started.
    [
      endpoints({ bridge: { IPAMConfig: { IPv4Address: '172.17.0.77' } } }),
      'user specified IP address is supported on user defined networks only',
      'here',
    ],
    [
      endpoints({ bridge: { Aliases: ['x'] } }),
      'network-scoped alias is supported only for containers in user defined networks',
      'here',
    ],
    [
      { ...mode('host'), ...endpoints({ bridge: {} }) },
      'conflicting options: the network mode host and an endpoint on network bridge',
      'here',
    ],
  ];
  for (const [more, message, where] of refusals) {
    test(`${message} (${JSON.stringify(more)})`, where === 'here' ? onSlipway : {}, async () => {
      const answer = await api('POST', '/containers/create', { Image: 'busybox', ...more });
      assert.deepEqual([answer.status, answer.json().message], [400, message]);
    });
  }

  test('what is no contradiction is taken', async () => {
    for (const more of [
      { HostConfig: { ExtraHosts: ['a:host-gateway', 'six:::1', 'b:10.0.0.1'], Dns: ['1.1.1.1', 'fd00::1'] } },
      endpoints({ bridge: {} }),
      endpoints({ bridge: { IPAMConfig: {}, Aliases: null, Links: ['owner:ignored'] } }),
      { Hostname: 'h', ...mode('host') },
      mode('host', { PublishAllPorts: true }),
      { MacAddress, ...mode('none') },
      { NetworkDisabled: true, HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '8080' }] } } },
    ]) {
      const answer = await api('POST', '/containers/create', { Image: 'busybox', Cmd: ['true'], ...more });
      assert.equal(answer.status, 201, `${JSON.stringify(more)}: ${answer.text}`);
      await start(answer.json().Id);
    }
  });

  test('an endpoint names the network where the mode leaves it open', async () => {
    for (const [network, shown] of [
      ['host', 'host'],
      ['none', 'none'],
      ['default', 'bridge'],
    ]) {
      const id = await create(`on-${network}`, endpoints({ [network as string]: {} }));
      await start(id);
      assert.deepEqual(Object.keys((await inspect(id)).NetworkSettings.Networks), [shown]);
    }
  });

  test('without a network there is loopback only, and no network in inspect', async () => {
    await create('alone', { NetworkDisabled: true });
    await start('alone');
    assert.equal((await exec('alone', 'ls', '--color=never', '/sys/class/net')).trim(), 'lo');
    assert.deepEqual((await inspect('alone')).NetworkSettings.Networks, {});
  });
});
