/** Networks that users define, through real clients: several per container, live connect and disconnect, what survives. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { before, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { startEngine, type TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

let engine: TestEngine;

before(async (t) => {
  engine = await startEngine(t as never);
  await importBusybox(engine);
});

const docker = (...args: string[]): Promise<string> => engine.mustDocker(args);
const inside = (name: string, script: string): Promise<string> => docker('exec', name, 'sh', '-c', script);
const pings = async (from: string, address: string): Promise<boolean> =>
  (await engine.docker(['exec', from, 'ping', '-c1', '-W1', address])).code === 0;
interface Place {
  readonly IPAddress: string;
  readonly Gateway: string;
  readonly GlobalIPv6Address: string;
  readonly MacAddress: string;
  readonly Aliases: readonly string[] | null;
}
const placeOf = async (name: string, network: string): Promise<Place> => {
  const answer = await engine.api('GET', `/v1.26/containers/${name}/json`);
  return (answer.json() as { NetworkSettings: { Networks: Record<string, Place> } }).NetworkSettings.Networks[
    network
  ] as Place;
};

test('two networks: who shares one talks, who does not is apart; a member of both sees both', async () => {
  await docker('network', 'create', 'front');
  await docker('network', 'create', '--subnet', '10.5.0.0/24', '--gateway', '10.5.0.9', 'back');
  await docker('run', '-d', '--name', 'web', '--network', 'front', '-p', '8080:80', 'busybox', 'sleep', '1000');
  await docker('run', '-d', '--name', 'db', '--network', 'back', '--ip', '10.5.0.77', 'busybox', 'sleep', '1000');
  const web = await placeOf('web', 'front');
  const db = await placeOf('db', 'back');
  assert.equal(db.IPAddress, '10.5.0.77');
  assert.equal(db.Gateway, '10.5.0.9');
  assert.equal(await pings('web', db.IPAddress), false);
  assert.equal(await pings('db', web.IPAddress), false);

  await docker('network', 'connect', '--alias', 'shop', 'back', 'web');
  assert.equal(await pings('web', db.IPAddress), true);
  const second = await placeOf('web', 'back');
  assert.deepEqual(second.Aliases?.[0], 'shop');
  assert.match(await inside('web', 'ip -4 addr show eth1'), new RegExp(`inet ${second.IPAddress}/24`));
  assert.match(await inside('web', 'cat /etc/hosts'), new RegExp(`^${second.IPAddress}\t`, 'm'));
  assert.equal((await inside('web', 'ip route')).match(/^default/gm)?.length, 1, 'one default route');
});

test('a network in use stays; its members and wishes that cannot be met are told', async () => {
  const answer = await engine.api('GET', '/v1.26/networks/back');
  const { Containers } = answer.json() as { Containers: Record<string, { Name: string; IPv4Address: string }> };
  assert.deepEqual(
    Object.values(Containers)
      .map(({ Name }) => Name)
      .sort(),
    ['db', 'web'],
  );
  const refused = async (method: string, path: string, body: unknown, status: number, text: RegExp) => {
    const answer = await engine.api(method, `/v1.26${path}`, body);
    assert.equal(answer.status, status, answer.text);
    assert.match(answer.text, text);
  };
  await refused('DELETE', '/networks/back', undefined, 403, /network back id [0-9a-f]{64} has active endpoints/);
  await refused('DELETE', '/networks/bridge', undefined, 403, /bridge is a pre-defined network and cannot be removed/);
  await refused('DELETE', '/networks/nowhere', undefined, 404, /network nowhere not found/);
  await refused('POST', '/networks/create', { Name: 'back' }, 409, /network with name back already exists/);
  await refused(
    'POST',
    '/networks/create',
    { Name: 'host' },
    403,
    /operation is not permitted on predefined host network /,
  );
  await refused('POST', '/networks/create', { Name: 'x', Driver: 'nodriver' }, 404, /plugin \\"nodriver\\" not found/);
  const overlapping = { Name: 'x', IPAM: { Config: [{ Subnet: '10.5.0.128/25' }] } };
  await refused(
    'POST',
    '/networks/create',
    overlapping,
    403,
    /Pool overlaps with other one on this address space.*network back/,
  );
  const connect = (network: string, settings: object) =>
    ['POST', `/networks/${network}/connect`, { Container: 'db', EndpointConfig: settings }] as const;
  await refused(...connect('back', {}), 403, /endpoint with name db already exists in network back/);
  await refused(...connect('front', { IPAMConfig: { IPv4Address: '172.18.0.9' } }), 400, /user configured subnets/);
  await refused(
    ...connect('host', {}),
    400,
    /container cannot be disconnected from host network or connected to host network/,
  );
  assert.equal(
    (await engine.docker(['run', '--rm', '--network', 'back', '--ip', '10.5.0.77', 'busybox', 'true'])).code,
    125,
  );
});

test('the published port follows the default route; a restart of the engine changes nothing', async () => {
  await docker('exec', '-d', 'web', 'httpd', '-p', '80', '-h', '/etc');
  const asks = async () => (await engine.inNetns(['wget', '-qO-', '-T', '3', 'http://127.0.0.1:8080/hosts'])).stdout;
  // Detached, it may not listen yet.
  for (let tries = 0; (await asks()) === '' && tries < 100; tries++)
    await new Promise((resolve) => setTimeout(resolve, 50));
  assert.match(await asks(), /localhost/);
  await docker('network', 'disconnect', 'back', 'web');
  assert.match(await asks(), /localhost/);
  await docker('network', 'connect', 'back', 'web');
  await engine.kill9();
  await engine.launch();
  assert.equal(await pings('web', '10.5.0.77'), true);
  assert.match(await asks(), /localhost/);
  await docker('network', 'disconnect', 'front', 'web');
  await docker('network', 'rm', 'front');
  assert.match(await asks(), /localhost/);
});

test('an internal network has no way out; IPv6 has addresses and routes', async () => {
  await docker('network', 'create', '--internal', 'inner');
  await docker('network', 'create', '--ipv6', '--subnet', 'fd00:1::/64', 'six');
  await docker('run', '-d', '--name', 'in', '--network', 'inner', 'busybox', 'sleep', '1000');
  await docker('run', '-d', '--name', 'v6', '--network', 'six', 'busybox', 'sleep', '1000');
  assert.doesNotMatch(await inside('in', 'ip route'), /default/);
  const { GlobalIPv6Address } = await placeOf('v6', 'six');
  assert.match(GlobalIPv6Address, /^fd00:1::/);
  assert.match(await inside('v6', 'ip -6 route'), /default via fd00:1::1 dev eth0/);
  assert.equal((await engine.docker(['exec', 'v6', 'ping', '-6', '-c1', '-W2', 'fd00:1::1'])).code, 0);
  // Also not with a route of its own through the bridge.
  await docker('run', '-d', '--privileged', '--name', 'liar', '--network', 'inner', 'busybox', 'sleep', '1000');
  const bridge = (await engine.inNetns(['ip', '-4', '-br', 'address'])).stdout;
  const gateway = /^br-\S+ +\S+ +(172\.\d+\.0\.1)\/16/m.exec(bridge)?.[1] ?? '';
  await inside('liar', `ip route add default via ${gateway}`);
  assert.equal(await pings('liar', '10.5.0.77'), false);
});

test('SIGHUP lays flushed rules down again and reads what is to become of the policy of the host', async () => {
  const ruleset = async () => (await engine.inNetns(['nft', 'list', 'ruleset'])).stdout;
  const hangUp = (settings: object) => {
    fs.writeFileSync(engine.paths.configFile, JSON.stringify(settings));
    process.kill(engine.pid, 'SIGHUP');
  };
  await engine.inNetns(['nft', 'flush ruleset']);
  await engine.inNetns(['iptables', '-P', 'FORWARD', 'DROP']);
  hangUp({});
  const back = [/slipway: in slipway0/, /table inet slipway/];
  await eventually(async () => {
    const rules = await ruleset();
    return back.every((each) => each.test(rules));
  }, 3000);
  hangUp({ 'host-forward-policy': 'obey' });
  await eventually(async () => assert.doesNotMatch(await ruleset(), /slipway: in/), 3000);
  await engine.inNetns(['iptables', '-P', 'FORWARD', 'ACCEPT']);
});

test('prune takes what nothing is joined to, and leaves no bridge behind', async () => {
  const removed = await docker('rm', '-f', 'web', 'db', 'in', 'v6', 'liar');
  assert.equal(removed.trim().split('\n').length, 5);
  assert.match(await docker('network', 'prune', '-f'), /Deleted Networks:\nback\ninner\nsix\n/);
  const links = (await engine.inNetns(['ip', '-br', 'link'])).stdout;
  assert.doesNotMatch(links, /^br-/m);
  assert.equal((await docker('network', 'ls', '-q')).trim().split('\n').length, 3);
});
