/** `/networks` as clients see it: answers, refusals, filters, events; what connect, disconnect and restart make of a container. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { startEngine, type TestEngine } from '../support/engine.ts';
import type { Answer, Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

let engine: TestEngine;

before(async (t) => {
  engine = await startEngine(t as never);
  await importBusybox(engine);
});

const api = (method: string, path: string, body?: object): Promise<Answer> => engine.api(method, `/v1.26${path}`, body);
const call = (method: string, path: string, body?: object): Promise<Loose> =>
  engine.call(method, `/v1.26${path}`, body);
const create = (Name: string, more: object = {}): Promise<Answer> => api('POST', '/networks/create', { Name, ...more });
const inspect = (name: string): Promise<Loose> => call('GET', `/networks/${name}`);
const remove = (name: string): Promise<Answer> => api('DELETE', `/networks/${name}`);
const query = (filters: object): string => `filters=${encodeURIComponent(JSON.stringify(filters))}`;

async function listed(filters: object): Promise<string> {
  const rows: Loose[] = await call('GET', `/networks?${query(filters)}`);
  return rows
    .map(({ Name }) => Name)
    .sort()
    .join();
}

async function refused(answer: Promise<Answer>, status: number, text: RegExp): Promise<void> {
  const { status: got, text: message } = await answer;
  assert.equal(got, status, message);
  assert.match(JSON.parse(message).message, text);
}

async function container(name: string, more: object = {}): Promise<void> {
  await call('POST', `/containers/create?name=${name}`, { Image: 'busybox', Cmd: ['sleep', '1000'], ...more });
}

const connect = (network: string, Container: string, EndpointConfig: object = {}): Promise<Answer> =>
  api('POST', `/networks/${network}/connect`, { Container, EndpointConfig });
const disconnect = (network: string, Container: string): Promise<Answer> =>
  api('POST', `/networks/${network}/disconnect`, { Container });
const networksOf = async (name: string): Promise<Loose> =>
  (await call('GET', `/containers/${name}/json`)).NetworkSettings.Networks;
const inside = (name: string, script: string): Promise<string> => engine.mustDocker(['exec', name, 'sh', '-c', script]);
const pings = async (from: string, address: string): Promise<boolean> =>
  (await engine.docker(['exec', from, 'ping', '-c1', '-W1', address])).code === 0;

test('inspect tells what was given as it was given, and what was chosen where nothing was', async () => {
  const config = {
    Subnet: '10.40.0.5/24',
    IPRange: '10.40.0.128/25',
    Gateway: '10.40.0.9',
    AuxiliaryAddresses: { router: '10.40.0.200' },
  };
  const { json } = await create('given', {
    CheckDuplicate: true,
    Internal: true,
    Attachable: true,
    EnableIPv6: true,
    IPAM: { Driver: 'default', Options: { foo: 'bar' }, Config: [{ Subnet: 'fd00:40::/64' }, config] },
    Options: { unknown: 'x' },
    Labels: { a: 'b' },
  });
  const { Created, ...rest } = await inspect('given');
  assert.match(Created, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  assert.deepEqual(rest, {
    Name: 'given',
    Id: (json as () => Loose)().Id,
    Scope: 'local',
    Driver: 'bridge',
    EnableIPv6: true,
    IPAM: { Driver: 'default', Options: { foo: 'bar' }, Config: [config, { Subnet: 'fd00:40::/64' }] },
    Internal: true,
    Attachable: true,
    Containers: {},
    Options: { unknown: 'x' },
    Labels: { a: 'b' },
  });
  await create('six', { EnableIPv6: true, IPAM: { Config: [{ Subnet: 'fd00:41::/64' }] } });
  const [first, second] = (await inspect('six')).IPAM.Config;
  assert.match(first.Gateway, /^172\.\d+\.0\.1$/);
  assert.deepEqual(second, { Subnet: 'fd00:41::/64' });
  await create('chosen', { EnableIPv6: true });
  assert.match(JSON.stringify((await inspect('chosen')).IPAM.Config), /"172\.[^ ]+"fdd5:1f2a:7c00::\/64"/);
  for (const name of ['given', 'six', 'chosen']) assert.equal((await remove(name)).status, 204);
});

test('what cannot be is refused, in words that name it, and leaves nothing', async () => {
  const ipam = (Config: object[], more: object = {}): Promise<Answer> => create('bad', { IPAM: { Config }, ...more });
  const net = { Subnet: '10.9.0.0/24' };
  await refused(create(''), 400, /name is empty/);
  await refused(create('bridge'), 403, /operation is not permitted on predefined bridge network /);
  await refused(create('x', { Driver: 'null' }), 403, /only one instance of "null" network is allowed/);
  await refused(create('x', { Driver: 'overlay' }), 404, /plugin "overlay" not found/);
  await refused(create('x', { IPAM: { Driver: 'nope' } }), 404, /plugin "nope" not found/);
  await refused(create('x', { Scope: 'swarm' }), 403, /cannot create a swarm scoped network when swarm is not active/);
  await refused(create('x', { Ingress: true }), 403, /Ingress network can only be global scope network/);
  await refused(create('x', { ConfigFrom: { Network: 'foo' } }), 404, /configuration network "foo" does not exist/);
  await refused(ipam([{ Subnet: 'foo' }]), 400, /Invalid subnet foo : invalid CIDR address: foo/);
  await refused(ipam([{ Subnet: '10.9.0.0/33' }]), 400, /invalid CIDR address/);
  await refused(ipam([{ Gateway: '10.9.0.1' }]), 400, /a subnet must be given/);
  await refused(ipam([{ ...net, Gateway: 'x' }]), 400, /invalid gateway address x in Ipam configuration/);
  await refused(
    ipam([{ ...net, Gateway: '10.9.1.1' }]),
    400,
    /allocate gateway \(10\.9\.1\.1\): Requested address is out of/,
  );
  await refused(ipam([{ ...net, Gateway: '10.9.0.255' }]), 403, /gateway \(10\.9\.0\.255\): Address already in use/);
  await refused(ipam([{ ...net, IPRange: '10.8.0.0/15' }]), 400, /invalid IP range 10\.8\.0\.0\/15: not within/);
  await refused(ipam([{ ...net, AuxiliaryAddresses: { a: 'x' } }]), 400, /non parsable secondary ip address \(a:x\)/);
  await refused(
    ipam([{ ...net, AuxiliaryAddresses: { a: '10.9.1.1' } }]),
    403,
    /auxiliary address: \(a:10\.9\.1\.1\) must belong to the master pool: 10\.9\.0\.0\/24/,
  );
  await refused(ipam([net, { Subnet: '10.9.1.0/24' }]), 403, /bridge driver doesn't support multiple subnets/);
  await refused(ipam([net, { Subnet: '10.9.0.0/25' }]), 403, /Pool overlaps with other one on this address space/);
  await refused(ipam([{ Subnet: '10.9.0.0/31' }]), 400, /No available addresses on this pool/);
  await refused(ipam([{ Subnet: '127.3.0.0/16' }]), 403, /Pool overlaps.* a route of the host through lo/);
  const option = (name: string, value: string): Promise<Answer> =>
    create('bad', { Options: { [`com.docker.network.${name}`]: value } });
  await refused(option('bridge.enable_icc', 'x'), 400, /failed to parse com.docker.network.bridge.enable_icc value: x/);
  await refused(option('bridge.host_binding_ipv4', 'x'), 400, /host_binding_ipv4 value: x/);
  await refused(option('driver.mtu', '-1'), 400, /driver\.mtu value: -1/);
  await refused(option('driver.mtu', '99999'), 400, /driver\.mtu value: 99999/);
  await refused(option('bridge.name', 'toolongnameforalink'), 400, /invalid bridge name: toolongnameforalink/);
  await refused(option('bridge.name', 'a"b'), 400, /invalid bridge name/);
  await refused(option('bridge.name', 'lo'), 403, /existing interface lo is not a bridge/);
  await refused(option('container_iface_prefix', 'a/b'), 400, /container_iface_prefix value/);
  assert.equal((await engine.inNetns(['ip', 'link', 'show', 'lo'])).code, 0, 'nobody else loses an interface');
  assert.equal(await listed({ type: ['custom'] }), '');
  assert.doesNotMatch((await engine.inNetns(['ip', '-br', 'link'])).stdout, /^br-/m);
});

test('of many creates of one name exactly one wins; its refusals come before those of the subnet', async () => {
  const same = { IPAM: { Config: [{ Subnet: '10.44.0.0/24' }] } };
  const answers = await Promise.all(Array.from({ length: 8 }, () => create('once', same)));
  assert.deepEqual(answers.map(({ status }) => status).sort(), [201, ...Array(7).fill(409)]);
  await refused(create('once', same), 409, /network with name once already exists/);
  assert.equal((await remove('once')).status, 204);
  await refused(remove('once'), 404, /network once not found/);
});

test('a bridge that was there before is used and outlives the network', async () => {
  for (const args of ['link add br9 type bridge', 'addr add 192.0.2.1/24 dev br9', 'link set br9 up'])
    assert.equal((await engine.inNetns(['ip', ...args.split(' ')])).code, 0);
  const settings = {
    Options: { 'com.docker.network.bridge.name': 'br9' },
    IPAM: { Config: [{ Subnet: '10.45.0.0/24' }] },
  };
  assert.equal((await create('foreign', settings)).status, 201);
  await refused(
    create('twice', { ...settings, IPAM: { Config: [{ Subnet: '10.46.0.0/24' }] } }),
    403,
    /bridge br9 belongs to network foreign/,
  );
  const addresses = async (): Promise<string> => (await engine.inNetns(['ip', '-br', 'address'])).stdout;
  assert.match(await addresses(), /^br9 .*192\.0\.2\.1\/24.*10\.45\.0\.1\/24/m);
  await engine.kill9();
  await engine.launch();
  assert.match(await addresses(), /^br9 .*192\.0\.2\.1\/24.*10\.45\.0\.1\/24/m);
  assert.equal((await remove('foreign')).status, 204);
  assert.match(await addresses(), /^br9 .*192\.0\.2\.1\/24/m);
});

test('filters of list, prune and ps', async () => {
  const { Id } = (await create('alpha', { Labels: { a: '1', b: '2' } })).json();
  await create('alphabet', { Labels: { a: '2' } });
  await create('beta');
  await container('member', { HostConfig: { NetworkMode: 'beta' } });
  await call('POST', '/containers/member/start');
  const expected: [object, string][] = [
    [{ name: ['alpha'] }, 'alpha,alphabet'],
    [{ name: ['^alpha$'] }, 'alpha'],
    [{ name: ['al.*t', 'eta'] }, 'alphabet,beta'],
    [{ name: ['('] }, ''],
    [{ id: [Id.slice(0, 9)] }, 'alpha'],
    [{ id: [Id.slice(5, 30)] }, 'alpha'],
    [{ driver: ['null', 'host'] }, 'host,none'],
    [{ driver: ['bri'] }, ''],
    [{ type: ['custom'] }, 'alpha,alphabet,beta'],
    [{ type: ['builtin'] }, 'bridge,host,none'],
    [{ label: ['a'] }, 'alpha,alphabet'],
    [{ label: ['a=1', 'b'] }, 'alpha'],
    [{ scope: ['local'], label: ['a=2'] }, 'alphabet'],
    [{ dangling: ['true'] }, 'alpha,alphabet'],
    [{ dangling: ['0'] }, 'beta,bridge,host,none'],
    [{ name: { beta: true } }, 'beta'],
  ];
  for (const [filters, names] of expected) assert.equal(await listed(filters), names, JSON.stringify(filters));
  await refused(api('GET', `/networks?${query({ foo: ['x'] })}`), 400, /Invalid filter 'foo'/);
  await refused(api('GET', `/networks?${query({ type: ['x'] })}`), 400, /invalid filter: 'type'='x'/);
  await refused(api('GET', `/networks?${query({ dangling: ['x'] })}`), 400, /invalid value for filter 'dangling'/);
  for (const value of ['beta', (await inspect('beta')).Id]) {
    const rows = await call('GET', `/containers/json?${query({ network: [value] })}`);
    assert.deepEqual(
      rows.map((row: Loose) => row.Names),
      [['/member']],
    );
  }
  const prune = async (filters: object): Promise<Loose> =>
    (await call('POST', `/networks/prune?${query(filters)}`)).NetworksDeleted;
  await refused(api('POST', `/networks/prune?${query({ until: ['1h', '2h'] })}`), 400, /more than one until filter/);
  assert.equal(await prune({ until: ['1h'] }), null);
  assert.deepEqual(await prune({ label: ['a=1'] }), ['alpha']);
  assert.deepEqual(await prune({ 'label!': ['b'] }), ['alphabet']);
  assert.equal(await prune({}), null);
  await call('DELETE', '/containers/member?force=1');
  assert.deepEqual(await prune({}), ['beta']);
});

test('an endpoint gets what it asks for, or words why not', async () => {
  await create('ep', {
    EnableIPv6: true,
    IPAM: { Config: [{ Subnet: '10.50.0.0/24' }, { Subnet: 'fd00:50::/64' }] },
  });
  await create('auto');
  await container('cc');
  await call('POST', '/containers/cc/start');
  const wish = {
    Aliases: ['x'],
    DriverOpts: { a: 'b' },
    MacAddress: '02:00:00:00:00:77',
    IPAMConfig: { IPv4Address: '10.50.0.77', IPv6Address: 'fd00:50::77', LinkLocalIPs: ['169.254.3.4', 'fe80::3:4'] },
  };
  assert.equal((await connect('ep', 'cc', wish)).status, 200);
  const { ep } = await networksOf('cc');
  assert.deepEqual(ep.IPAMConfig, wish.IPAMConfig);
  assert.deepEqual(ep.DriverOpts, wish.DriverOpts);
  assert.deepEqual(
    [ep.IPAddress, ep.GlobalIPv6Address, ep.GlobalIPv6PrefixLen, ep.MacAddress],
    ['10.50.0.77', 'fd00:50::77', 64, '02:00:00:00:00:77'],
  );
  const addresses = await inside('cc', 'ip address show eth1');
  for (const each of ['02:00:00:00:00:77', '10.50.0.77/24', 'fd00:50::77/64', '169.254.3.4/16', 'fe80::3:4/64'])
    assert.ok(addresses.includes(each), `${each} in ${addresses}`);
  const member: Loose = Object.values((await inspect('ep')).Containers)[0];
  assert.deepEqual([member.Name, member.IPv4Address, member.IPv6Address], ['cc', '10.50.0.77/24', 'fd00:50::77/64']);
  // A neighbour over IPv6, by the address asked for.
  await engine.mustDocker([
    'run',
    '-d',
    '--name',
    'nn',
    '--network',
    'ep',
    '--ip6',
    'fd00:50::99',
    'busybox',
    'sleep',
    '99',
  ]);
  assert.equal(await pings('nn', 'fd00:50::77'), true);
  assert.equal(await pings('cc', 'fd00:50::99'), true);
  await engine.mustDocker(['rm', '-f', 'nn']);

  await disconnect('ep', 'cc');
  const ask = (IPAMConfig: object, network = 'ep'): Promise<Answer> => connect(network, 'cc', { IPAMConfig });
  await refused(ask({ IPv4Address: '10.51.0.1' }), 400, /no configured subnet/);
  await refused(ask({ IPv4Address: '10.50.0.1' }), 403, /Address already in use: 10\.50\.0\.1 .*the gateway/);
  for (const own of ['10.50.0.0', '10.50.0.255'])
    await refused(ask({ IPv4Address: own }), 403, /Address already in use/);
  await refused(ask({ IPv4Address: 'x' }), 400, /invalid IPv4 address: x/i);
  await refused(ask({ LinkLocalIPs: ['8.8.8.8'] }), 400, /invalid link local IP address: 8\.8\.8\.8/);
  await refused(ask({ IPv4Address: '172.18.0.9' }, 'auto'), 400, /user configured subnets/);
  await refused(ask({ IPv6Address: 'fd00::9' }, 'auto'), 400, /user configured subnets/);
  await refused(connect('ep', 'cc', { MacAddress: 'x' }), 400, /invalid MAC address: x/);
  await refused(connect('ep', 'nobody'), 404, /No such container: nobody/);
  await refused(connect('nowhere', 'cc'), 404, /network nowhere not found/);
  await refused(api('POST', '/networks/ep/connect', {}), 400, /invalid name or ID supplied: ""/);
  await refused(disconnect('ep', 'cc'), 403, /container [0-9a-f]{64} is not connected to network ep/);
  await refused(disconnect('none', 'cc'), 403, /is not connected to network none/);
});

test('disconnected from everything it stays without networks, also over a restart, until it is connected again', async () => {
  await disconnect('bridge', 'cc');
  assert.deepEqual(await networksOf('cc'), {});
  await call('POST', '/containers/cc/restart?t=0');
  assert.deepEqual(await networksOf('cc'), {});
  assert.doesNotMatch(await inside('cc', 'ip link'), /eth/);
  assert.equal((await connect('auto', 'cc')).status, 200);
  assert.match(await inside('cc', 'ip route'), /default via 172/);
});

test('paused and stopped containers are connected too; what was asked for first stays', async () => {
  await call('POST', '/containers/cc/pause');
  assert.equal((await connect('ep', 'cc')).status, 200);
  assert.equal((await disconnect('ep', 'cc')).status, 200);
  await call('POST', '/containers/cc/unpause');
  await call('POST', '/containers/cc/stop?t=0');
  assert.equal((await connect('ep', 'cc', { IPAMConfig: { IPv4Address: '10.50.0.9' } })).status, 200);
  assert.equal((await connect('ep', 'cc')).status, 200);
  await call('POST', '/containers/cc/start');
  assert.equal((await networksOf('cc')).ep.IPAddress, '10.50.0.9');
});

test('a container between two attempts of its restart policy is connected from the next one on', async () => {
  await create('later');
  await container('again', {
    Cmd: ['sh', '-c', 'sleep 0.3; exit 1'],
    HostConfig: { RestartPolicy: { Name: 'always' } },
  });
  await call('POST', '/containers/again/start');
  const stateOf = async (): Promise<string> => (await call('GET', '/containers/again/json')).State.Status;
  await eventually(async () => assert.equal(await stateOf(), 'restarting'), 20_000);
  assert.equal((await connect('later', 'again')).status, 200);
  await eventually(async () => assert.notEqual((await networksOf('again')).later.IPAddress, ''), 20_000);
  await call('DELETE', '/containers/again?force=1');
  await remove('later');
});

test('a network that went while the container rested: the start says so; made anew, or taken away, it starts', async () => {
  await refused(remove('auto'), 403, /network auto id [0-9a-f]{64} has active endpoints/);
  await call('POST', '/containers/cc/stop?t=0');
  assert.equal((await remove('auto')).status, 204);
  await refused(api('POST', '/containers/cc/start'), 404, /network auto not found/);
  await create('auto');
  await call('POST', '/containers/cc/start');
  assert.equal((await networksOf('cc')).auto.NetworkID, (await inspect('auto')).Id);
  await call('POST', '/containers/cc/stop?t=0');
  await remove('auto');
  assert.equal((await disconnect('auto', 'cc')).status, 200);
  await call('POST', '/containers/cc/start');
  assert.deepEqual(Object.keys(await networksOf('cc')), ['ep']);
  await call('DELETE', '/containers/cc?force=1');
  await remove('ep');
});

test('options of bridges: name, MTU, interface names, containers kept apart, no masquerading, binding address', async () => {
  const option = (name: string): string => `com.docker.network.${name}`;
  await create('opts', {
    Options: {
      [option('bridge.name')]: 'brx',
      [option('driver.mtu')]: '1400',
      [option('container_iface_prefix')]: 'lan',
      [option('bridge.enable_icc')]: 'false',
      [option('bridge.host_binding_ipv4')]: '127.0.0.1',
    },
  });
  await engine.mustDocker([
    'run',
    '-d',
    '--name',
    'aa',
    '--network',
    'opts',
    '-p',
    '8081:80',
    'busybox',
    'httpd',
    '-f',
    '-h',
    '/etc',
  ]);
  await engine.mustDocker(['run', '-d', '--name', 'bb', '--network', 'opts', 'busybox', 'sleep', '1000']);
  const { opts: a } = await networksOf('aa');
  const { opts: b } = await networksOf('bb');
  assert.match(await inside('aa', 'ip link show lan0'), /mtu 1400/);
  assert.match((await engine.inNetns(['ip', 'link', 'show', 'brx'])).stdout, /brx/);
  // Apart, also by way of the host's address of the bridge and with a route of their own.
  assert.equal(await pings('bb', a.IPAddress), false);
  await engine.mustDocker([
    'run',
    '-d',
    '--privileged',
    '--name',
    'pp',
    '--network',
    'opts',
    'busybox',
    'sleep',
    '1000',
  ]);
  await inside('pp', `ip route add ${a.IPAddress}/32 via ${a.Gateway}`);
  assert.equal(await pings('pp', a.IPAddress), false);
  assert.equal(await pings('aa', a.Gateway), true);
  const ports: Loose = (await call('GET', '/containers/aa/json')).NetworkSettings.Ports;
  assert.deepEqual(ports, { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '8081' }] });
  assert.equal((await engine.inNetns(['wget', '-qO-', '-T3', 'http://127.0.0.1:8081/hostname'])).code, 0);

  await create('bare', { Options: { [option('bridge.enable_ip_masquerade')]: 'false' } });
  const table = (await engine.inNetns(['nft', 'list', 'set', 'inet', 'slipway', 'masqueraded'])).stdout;
  assert.ok(table.includes((await inspect('opts')).IPAM.Config[0].Subnet), table);
  assert.ok(!table.includes((await inspect('bare')).IPAM.Config[0].Subnet), table);
  assert.ok(b.IPAddress !== '');
  await engine.mustDocker(['rm', '-f', 'aa', 'bb', 'pp']);
  await engine.mustDocker(['network', 'rm', 'opts', 'bare']);
});

test('events: one of each kind, none for what was refused', async () => {
  const since = Date.now() / 1000;
  const { Id } = (await create('ev')).json();
  await create('ev');
  await create('refused', { Options: { 'com.docker.network.bridge.name': 'lo' } });
  await container('ee', { HostConfig: { NetworkMode: 'none' } });
  await disconnect('none', 'ee');
  await call('POST', '/containers/ee/start');
  await connect('ev', 'ee');
  await disconnect('ev', 'ee');
  await call('DELETE', '/containers/ee?force=1');
  await call('POST', '/networks/prune');
  const until = (Date.now() / 1000 + 0.01).toFixed(3);
  const lines = (await api('GET', `/events?since=${since.toFixed(3)}&until=${until}&${query({ type: ['network'] })}`))
    .text;
  const events = lines
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    events.map(({ Action, Actor }) => [Action, Actor.Attributes.name ?? '', Actor.Attributes.type ?? '']),
    [
      ['create', 'ev', 'bridge'],
      ['connect', 'ev', 'bridge'],
      ['disconnect', 'ev', 'bridge'],
      ['destroy', 'ev', 'bridge'],
      ['prune', '', ''],
    ],
  );
  assert.equal(events[0].Actor.ID, Id);
  assert.match(events[1].Actor.Attributes.container, /^[0-9a-f]{64}$/);
  assert.deepEqual(events[4].Actor.Attributes, { reclaimed: '0' });
});
