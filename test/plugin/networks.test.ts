/** Network and IPAM drivers that are processes of their own; they make real bridges and veths. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { TestEngine } from '../support/engine.ts';
import type { Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';
import { TestPlugin } from './support.ts';

const v = '/v1.26';
let engine: TestEngine;
let plugin: TestPlugin;
let sockets: string;

before(async () => {
  sockets = fs.mkdtempSync(path.join(os.tmpdir(), 'sockets-'));
  engine = await TestEngine.start({ flags: ['--plugin-sockets', sockets, '--plugin-specs', sockets] });
  plugin = await TestPlugin.start({ program: 'network-plugin', listen: `${sockets}/net.sock`, netns: engine.netns });
  await importBusybox(engine);
});
after(async () => {
  await engine?.close();
  await plugin?.close();
  fs.rmSync(sockets, { recursive: true, force: true });
});
afterEach(async () => {
  plugin.misbehave({});
  await engine.removeAll();
  for (const { Id, Name } of await engine.call('GET', `${v}/networks`))
    if (!['bridge', 'host', 'none'].includes(Name)) await engine.call('DELETE', `${v}/networks/${Id}`);
  assert.deepEqual(known(), { networks: {}, endpoints: {}, pools: {} }, 'the plugin was not given back everything');
  plugin.forgetCalls();
});

const known = (): Loose => {
  const file = path.join(plugin.state, 'known.json');
  return fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : { networks: {}, endpoints: {}, pools: {} };
};
const methods = () => plugin.calls().map(({ method }) => method.replace('Driver.', '.'));
const create = (Name: string, body: object = {}) =>
  engine.api('POST', `${v}/networks/create`, { Name, Driver: 'net', ...body });
const subnet = { IPAM: { Config: [{ Subnet: '10.66.0.0/24', Gateway: '10.66.0.1' }] } };
async function runs(network: string, body: object = {}, host: object = {}): Promise<string> {
  const request = { Image: 'busybox', Cmd: ['sleep', '1000'], ...body, HostConfig: { NetworkMode: network, ...host } };
  const { Id } = await engine.call('POST', `${v}/containers/create`, request);
  await engine.call('POST', `${v}/containers/${Id}/start`);
  return Id;
}
const remove = (id: string) => engine.call('DELETE', `${v}/containers/${id}?force=1`);
const inside = (id: string, ...words: string[]) => engine.mustDocker(['exec', id, ...words]);
const place = async (id: string, network: string): Promise<Loose> =>
  (await engine.call('GET', `${v}/containers/${id}/json`)).NetworkSettings.Networks[network];

describe('a network driver', () => {
  test('a network is made with its options and pools, shown and removed', async () => {
    const Options = { colour: 'blue' };
    assert.equal((await create('mine', { ...subnet, Options, Internal: true })).status, 201);
    const { Driver, Scope, IPAM, Id } = await engine.call('GET', `${v}/networks/mine`);
    assert.deepEqual([Driver, Scope, IPAM.Config[0].Subnet], ['net', 'local', '10.66.0.0/24']);
    const [{ body } = { body: {} }] = plugin.calls('NetworkDriver.CreateNetwork');
    assert.deepEqual(body, {
      NetworkID: Id,
      Options: {
        'com.docker.network.enable_ipv6': false,
        'com.docker.network.generic': Options,
        'com.docker.network.internal': true,
      },
      IPv4Data: [{ AddressSpace: 'LocalDefault', Pool: '10.66.0.0/24', Gateway: '10.66.0.1/24' }],
      IPv6Data: [],
    });
    const { Plugins } = await engine.call('GET', `${v}/info`);
    assert.ok(Plugins.Network.includes('net') && !Plugins.Volume.includes('net'));
  });

  test('containers get its interface with address, hardware address, gateway and routes, and reach each other', async () => {
    await create('mine', subnet);
    const first = await runs(
      'mine',
      { ExposedPorts: { '80/tcp': {}, '90/udp': {} } },
      { PortBindings: { '80/tcp': [{ HostPort: '8080' }] } },
    );
    const second = await runs('mine');
    const { IPAddress, IPPrefixLen, MacAddress, Gateway, EndpointID, NetworkID } = await place(first, 'mine');
    assert.deepEqual(
      [IPAddress, IPPrefixLen, MacAddress, Gateway],
      ['10.66.0.2', 24, '02:aa:bb:cc:dd:ee', '10.66.0.1'],
    );
    const link = await inside(first, 'ip', 'addr', 'show', 'plug0');
    assert.match(link, /10\.66\.0\.2\/24/);
    assert.match(link, /02:aa:bb:cc:dd:ee/);
    const routes = await inside(first, 'ip', 'route');
    assert.match(routes, /default via 10\.66\.0\.1 dev plug0/);
    assert.match(routes, /10\.200\.0\.0\/16 via 10\.66\.0\.1 dev plug0/);
    assert.match(routes, /10\.201\.0\.0\/16 dev plug0 scope link/);
    await inside(second, 'ping', '-c', '1', '-W', '2', '10.66.0.1');
    assert.deepEqual(methods().slice(2, 8), [
      'Network.CreateEndpoint',
      'Network.Join',
      'Network.EndpointOperInfo',
      'Network.ProgramExternalConnectivity',
      'Network.CreateEndpoint',
      'Network.Join',
    ]);
    const [{ body } = { body: {} }] = plugin.calls('NetworkDriver.ProgramExternalConnectivity');
    assert.deepEqual(body, {
      NetworkID,
      EndpointID,
      Options: {
        'com.docker.network.endpoint.exposedports': [
          { Proto: 6, Port: 80 },
          { Proto: 17, Port: 90 },
        ],
        'com.docker.network.portmap': [{ Proto: 6, IP: '', Port: 80, HostIP: '', HostPort: 8080, HostPortEnd: 8080 }],
      },
    });
    plugin.forgetCalls();
    await remove(first);
    await remove(second);
    assert.deepEqual(methods().slice(0, 3), [
      'Network.RevokeExternalConnectivity',
      'Network.Leave',
      'Network.DeleteEndpoint',
    ]);
    await engine.assertNoLeaks();
  });

  test('names are answered there', async () => {
    await create('mine', subnet);
    await engine.mustDocker(['run', '-d', '--name', 'web', '--network', 'mine', 'busybox', 'sleep', '1000']);
    const { stdout } = await engine.docker(['run', '--rm', '--network', 'mine', 'busybox', 'nslookup', 'web']);
    assert.match(stdout, /10\.66\.0\.2/);
  });

  test('connect and disconnect while it runs; the default route follows', async () => {
    await create('zzz', subnet);
    const id = await runs('bridge');
    await engine.call('POST', `${v}/networks/zzz/connect`, { Container: id });
    assert.match(await inside(id, 'ip', 'addr', 'show', 'plug0'), /10\.66\.0\.2\/24/);
    assert.match(await inside(id, 'ip', 'route'), /default via \S+ dev eth0/);
    await engine.call('POST', `${v}/networks/bridge/disconnect`, { Container: id });
    assert.match(await inside(id, 'ip', 'route'), /default via 10\.66\.0\.1 dev plug0/);
    await engine.call('POST', `${v}/networks/zzz/disconnect`, { Container: id });
    assert.doesNotMatch(await inside(id, 'ip', 'addr'), /plug0/);
    assert.deepEqual(known().endpoints, {});
  });

  test('without pools of ours the driver gives the address', async () => {
    assert.equal((await create('bare', { IPAM: { Driver: 'null' } })).status, 201);
    const id = await runs('bare');
    assert.equal((await place(id, 'bare')).IPAddress, '10.99.0.7');
    assert.match(await inside(id, 'ip', 'addr', 'show', 'plug0'), /10\.99\.0\.7\/24/);
    assert.doesNotMatch(await inside(id, 'ip', 'route'), /default/);
  });
});

describe('an IPAM driver', () => {
  test('gives pools, gateways and addresses to a bridge network, and gets all of it back', async () => {
    const made = await create('two', {
      Driver: 'bridge',
      EnableIPv6: true,
      IPAM: { Driver: 'net', Options: { a: 'b' } },
    });
    assert.equal(made.status, 201, made.text);
    const { IPAM } = await engine.call('GET', `${v}/networks/two`);
    assert.deepEqual(IPAM, {
      Driver: 'net',
      Options: { a: 'b' },
      Config: [
        { Subnet: '10.77.1.0/24', Gateway: '10.77.1.1' },
        { Subnet: 'fd77:1::/64', Gateway: 'fd77:1::1' },
      ],
    });
    const [{ body } = { body: {} }] = plugin.calls('IpamDriver.RequestPool');
    assert.deepEqual(body, { AddressSpace: 'here', Pool: '', SubPool: '', Options: { a: 'b' }, V6: false });
    const [gateway] = plugin.calls('IpamDriver.RequestAddress');
    assert.deepEqual(gateway?.body.Options, { RequestAddressType: 'com.docker.network.gateway' });
    const id = await runs('two');
    const { IPAddress, GlobalIPv6Address, Gateway, MacAddress } = await place(id, 'two');
    assert.deepEqual([IPAddress, GlobalIPv6Address, Gateway], ['10.77.1.2', 'fd77:1::2', '10.77.1.1']);
    assert.match(await inside(id, 'ip', 'addr', 'show', 'eth0'), /10\.77\.1\.2\/24[\s\S]*fd77:1::2\/64/);
    await inside(id, 'ping', '-c', '1', '-W', '2', '10.77.1.1');
    const asked = plugin.calls('IpamDriver.RequestAddress').at(-1)?.body.Options;
    assert.match(String((asked as Loose)['com.docker.network.endpoint.macaddress']), /^02:/);
    assert.match(MacAddress, /^02:/);
    await remove(id);
    assert.deepEqual(known().pools['here/10.77.1.0/24'].addresses, ['10.77.1.1']);
  });

  test('a fixed address and a subnet of the user, and both plugins at once', async () => {
    const IPAM = { Driver: 'net', Config: [{ Subnet: '10.88.0.0/24', AuxiliaryAddresses: { printer: '10.88.0.9' } }] };
    assert.equal((await create('both', { IPAM })).status, 201);
    assert.deepEqual(known().pools['here/10.88.0.0/24'].addresses, ['10.88.0.1', '10.88.0.9']);
    const id = await runs('both', {
      NetworkingConfig: { EndpointsConfig: { both: { IPAMConfig: { IPv4Address: '10.88.0.50' } } } },
    });
    assert.match(await inside(id, 'ip', 'addr', 'show', 'plug0'), /10\.88\.0\.50\/24/);
  });

  test('one that forgets is told again after a restart of the daemon', async () => {
    await create('two', { Driver: 'bridge', IPAM: { Driver: 'net' } });
    const id = await runs('two');
    plugin.forgetCalls();
    fs.writeFileSync(path.join(plugin.state, 'known.json'), JSON.stringify({ networks: {}, endpoints: {}, pools: {} }));
    await engine.restart();
    await eventually(() => assert.deepEqual(known().pools['here/10.77.1.0/24']?.addresses, ['10.77.1.1', '10.77.1.2']));
    await remove(id);
    assert.deepEqual(known().pools['here/10.77.1.0/24'].addresses, ['10.77.1.1']);
  });
});

describe('drivers that go wrong', () => {
  async function refused(body: object, status: number, text: string | RegExp): Promise<void> {
    const answer = await create('bad', body);
    assert.equal(answer.status, status, answer.text);
    if (typeof text === 'string') assert.equal(answer.json().message, text);
    else assert.match(answer.json().message, text);
    assert.equal((await engine.api('GET', `${v}/networks/bad`)).status, 404);
  }

  test('a network that its driver refuses, or whose answers make no sense, is not there', async () => {
    await refused({ Driver: 'nope' }, 404, 'plugin "nope" not found');
    await refused({ Driver: 'bridge', IPAM: { Driver: 'nope' } }, 404, 'plugin "nope" not found');
    plugin.misbehave({ 'NetworkDriver.CreateNetwork': { Err: 'not today' } });
    await refused({ IPAM: { Driver: 'net' } }, 500, 'remote: not today');
    plugin.misbehave({ 'NetworkDriver.GetCapabilities': { Scope: 'galactic' } });
    await refused({}, 500, "invalid capability: expecting 'local' or 'global', got galactic");
    plugin.misbehave({ 'IpamDriver.RequestPool': { PoolID: 'x', Pool: 'everything' } });
    await refused({ IPAM: { Driver: 'net' } }, 500, /RequestPool: the driver's Pool makes no sense: "everything"/);
    plugin.misbehave({ 'IpamDriver.RequestAddress': { Address: 7 } });
    await refused({ IPAM: { Driver: 'net' } }, 500, /RequestAddress: the driver's Address makes no sense/);
  });

  test('a start that a driver fails leaves nothing; the container starts when it is well again', async () => {
    await create('mine', subnet);
    const { Id } = await engine.call('POST', `${v}/containers/create`, {
      Image: 'busybox',
      Cmd: ['sleep', '1000'],
      HostConfig: { NetworkMode: 'mine' },
    });
    const cases: [Record<string, string | object>, RegExp][] = [
      [
        { 'NetworkDriver.CreateEndpoint': { Err: 'full' } },
        /failed to create endpoint \S+ on network mine: remote: full/,
      ],
      [
        { 'NetworkDriver.CreateEndpoint': { Interface: { Address: '1.2.3.4/8' } } },
        /changes Address from 10\.66\.0\.\d\/24 to 1\.2\.3\.4\/8/,
      ],
      [{ 'NetworkDriver.CreateEndpoint': { Interface: { MacAddress: 'x; reboot' } } }, /MacAddress makes no sense/],
      [{ 'NetworkDriver.Join': { Err: 'no room' } }, /remote: no room/],
      [{ 'NetworkDriver.Join': 'garbage' }, /the answer is no JSON object/],
      [
        { 'NetworkDriver.Join': { InterfaceName: { SrcName: 'nowhere', DstPrefix: 'x' } } },
        /interface nowhere is not there/,
      ],
      [{ 'NetworkDriver.Join': { InterfaceName: { SrcName: '../../etc', DstPrefix: 'x' } } }, /SrcName makes no sense/],
      [
        { 'NetworkDriver.Join': { StaticRoutes: [{ Destination: 'all', RouteType: 0 }] } },
        /StaticRoutes makes no sense/,
      ],
    ];
    for (const [misdeeds, message] of cases) {
      plugin.misbehave(misdeeds);
      const answer = await engine.api('POST', `${v}/containers/${Id}/start`);
      assert.equal(answer.status, 500, answer.text);
      assert.match(answer.json().message, message);
      assert.deepEqual(known().endpoints, {});
    }
    plugin.misbehave({});
    await engine.call('POST', `${v}/containers/${Id}/start`);
    assert.match(await inside(Id, 'ip', 'addr', 'show', 'plug0'), /10\.66\.0\./);
  });

  test('while it hangs, others start and stop, and its own containers end', async () => {
    await create('mine', subnet);
    const own = await runs('mine');
    plugin.misbehave({ 'NetworkDriver.Join': 'hang', 'NetworkDriver.Leave': 'hang' });
    const starting = runs('mine').catch(() => null);
    await eventually(() => assert.equal(plugin.calls('NetworkDriver.Join').length, 2));
    const began = performance.now();
    await remove(await runs('bridge'));
    assert.ok(performance.now() - began < 3000, 'a hung driver holds up other containers');
    await remove(own);
    plugin.misbehave({});
    await plugin.stop();
    await plugin.start();
    assert.ok(await starting, 'the start did not survive the restart of the plugin');
  });
});

describe('the daemon is killed', () => {
  test('endpoints of living containers stay; others are taken back', async () => {
    await create('mine', { IPAM: { Driver: 'net' } });
    const stays = await runs('mine');
    const goes = await runs('mine');
    const { State } = await engine.call('GET', `${v}/containers/${goes}/json`);
    const { EndpointID } = await place(stays, 'mine');
    // Killed also while a third one waits for its driver, which has made the endpoint.
    plugin.misbehave({ 'NetworkDriver.Join': 'hang' });
    void runs('mine').catch(() => null);
    await eventually(() => assert.equal(plugin.calls('NetworkDriver.Join').length, 3));
    assert.equal(Object.keys(known().endpoints).length, 3);
    await engine.kill9();
    process.kill(State.Pid, 'SIGKILL');
    plugin.misbehave({});
    await engine.launch();
    await eventually(() => assert.deepEqual(Object.keys(known().endpoints), [EndpointID]));
    await eventually(() => assert.equal(known().pools['here/10.77.1.0/24'].addresses.length, 2));
    await inside(stays, 'ping', '-c', '1', '-W', '2', '10.77.1.1');
    await engine.call('POST', `${v}/containers/${goes}/start`);
    await inside(goes, 'ping', '-c', '1', '-W', '2', '10.77.1.1');
  });
});
