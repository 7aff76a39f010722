/** Networks of driver macvlan: containers with cards of their own on a wire of the host's. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { startEngine, type TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

let engine: TestEngine;

const ip = async (...args: string[]): Promise<string> => {
  const { code, stdout, stderr } = await engine.inNetns(['ip', ...args]);
  assert.equal(code, 0, stderr);
  return stdout;
};

before(async (t) => {
  engine = await startEngine(t as never);
  await importBusybox(engine);
  // A wire from the host to a neighbour, who is the gateway of the outside network.
  await ip('link', 'add', 'par0', 'type', 'veth', 'peer', 'name', 'wire');
  await ip('netns', 'add', 'lan');
  await ip('link', 'set', 'wire', 'netns', 'lan');
  await ip('addr', 'add', '10.77.0.200/24', 'dev', 'par0');
  await ip('link', 'set', 'par0', 'up');
  for (const args of ['addr add 10.77.0.1/24 dev wire', 'addr add fd00:77::1/64 dev wire nodad', 'link set wire up'])
    await ip('-n', 'lan', ...args.split(' '));
});

const docker = (...args: string[]): Promise<string> => engine.mustDocker(args);
const pings = async (from: string, address: string): Promise<boolean> =>
  (await engine.docker(['exec', from, 'ping', '-c1', '-W1', address])).code === 0;
const onWire = ['-d', 'macvlan', '-o', 'parent=par0', '--subnet', '10.77.0.0/24', '--ip-range', '10.77.0.64/26'];
const links = (): Promise<string> => ip('-br', 'link');

test('containers are on the wire with addresses of its own subnet, the neighbour is their gateway', async () => {
  // The host itself is in that subnet, which a bridge could not have.
  await docker('network', 'create', ...onWire, '--gateway', '10.77.0.1', '--ipv6', '--subnet', 'fd00:77::/64', 'wire');
  await docker('run', '-d', '--name', 'one', '--network', 'wire', '-p', '8085:80', 'busybox', 'sleep', '1000');
  await docker('run', '-d', '--name', 'two', '--network', 'wire', '--ip', '10.77.0.99', 'busybox', 'sleep', '1000');
  assert.match(await docker('exec', 'one', 'ip', 'address', 'show', 'eth0'), /10\.77\.0\.6\d\/24/);
  assert.match(await docker('exec', 'one', 'ip', 'route'), /default via 10\.77\.0\.1 dev eth0/);
  assert.equal(await pings('one', '10.77.0.1'), true);
  assert.equal(await pings('one', 'fd00:77::1'), true);
  assert.equal(await pings('one', '10.77.0.99'), true);
  assert.equal(await pings('one', '10.77.0.200'), false, 'the parent is deaf to its children');
  const neighbour = await ip('-n', 'lan', 'neigh', 'show', '10.77.0.64');
  const mac = /ether (\S+)/.exec(await docker('exec', 'one', 'ip', 'link', 'show', 'eth0'))?.[1] ?? '';
  assert.ok(neighbour === '' || neighbour.includes(mac), 'its own hardware address');
  const { NetworkSettings } = (await engine.api('GET', '/v1.26/containers/one/json')).json();
  assert.deepEqual(NetworkSettings.Ports, { '80/tcp': null }, 'no ports of the host lead there');
  const network = (await engine.api('GET', '/v1.26/networks/wire')).json();
  assert.equal(network.Driver, 'macvlan');
  assert.deepEqual(network.Options, { parent: 'par0' });
  assert.equal(Object.keys(network.Containers).length, 2);
  // Names work there, too.
  assert.match(await docker('exec', 'one', 'nslookup', 'two', '127.0.0.11'), /10\.77\.0\.99/);
});

test('live connect and disconnect beside a bridge; a restart of the engine changes nothing', async () => {
  await docker('run', '-d', '--name', 'three', '-p', '8086:80', 'busybox', 'httpd', '-f', '-h', '/etc');
  await docker('network', 'connect', '--ip', '10.77.0.88', 'wire', 'three');
  assert.equal(await pings('three', '10.77.0.99'), true);
  assert.match(await docker('exec', 'three', 'ip', 'route'), /default via 172\.17/);
  await engine.kill9();
  await engine.launch();
  assert.equal(await pings('three', '10.77.0.99'), true);
  const taken = await engine.docker(['run', '--rm', '--network', 'wire', '--ip', '10.77.0.88', 'busybox', 'true']);
  assert.match(taken.stderr, /Address already in use: 10\.77\.0\.88/);
  await docker('network', 'disconnect', 'wire', 'three');
  assert.doesNotMatch(await docker('exec', 'three', 'ip', 'link'), /eth1/);
  assert.equal((await engine.inNetns(['wget', '-qO-', '-T3', 'http://127.0.0.1:8086/hostname'])).code, 0);
});

test('what cannot be a parent, or a mode, is refused', async () => {
  const refused = async (options: Record<string, string>, text: RegExp): Promise<void> => {
    const body = { Name: 'bad', Driver: 'macvlan', Options: options, IPAM: { Config: [{ Subnet: '10.78.0.0/24' }] } };
    const answer = await engine.api('POST', '/v1.26/networks/create', body);
    assert.ok(answer.status >= 400 && answer.status < 500, answer.text);
    assert.match(answer.json().message, text);
  };
  await refused({ parent: 'par0' }, /network wire \(\w+\) is already using parent interface par0/);
  await refused({ parent: 'nope' }, /invalid subinterface vlan name nope, example formatting is eth0.10/);
  await refused({ parent: 'nope.10' }, /parent interface was not found on the host: nope/);
  await refused({ parent: 'par0.x' }, /unable to parse a valid vlan id from: x/);
  await refused({ parent: 'par0.4095' }, /unable to parse a valid vlan id from: 4095/);
  await refused({ parent: 'lo' }, /loopback interface is not a valid macvlan parent link/);
  await refused({ macvlan_mode: 'x' }, /requested macvlan mode 'x' is not valid/);
});

test('each mode comes up; in private mode neighbours on one parent do not hear each other', async () => {
  await docker('rm', '-f', 'one', 'two');
  await docker('network', 'rm', 'wire');
  for (const [mode, heard] of [
    ['private', false],
    ['vepa', false],
    ['passthru', null],
    ['bridge', true],
  ] as const) {
    await docker('network', 'create', ...onWire, '-o', `macvlan_mode=${mode}`, `in-${mode}`);
    await docker(
      'run',
      '-d',
      '--name',
      'xx',
      '--network',
      `in-${mode}`,
      '--ip',
      '10.77.0.70',
      'busybox',
      'sleep',
      '1000',
    );
    assert.equal(await pings('xx', '10.77.0.1'), true, mode);
    if (heard !== null) {
      await docker(
        'run',
        '-d',
        '--name',
        'yy',
        '--network',
        `in-${mode}`,
        '--ip',
        '10.77.0.71',
        'busybox',
        'sleep',
        '1000',
      );
      assert.equal(await pings('xx', '10.77.0.71'), heard, mode);
      await docker('rm', '-f', 'yy');
    }
    await docker('rm', '-f', 'xx');
    await docker('network', 'rm', `in-${mode}`);
  }
  assert.match(await links(), /^par0/m, 'the parent is the host’s and stays');
});

test('without a parent containers see each other and nothing else; its interface goes with the network', async () => {
  await docker('network', 'create', '-d', 'macvlan', 'alone');
  assert.match(await links(), /^dm-/m);
  await docker('run', '-d', '--name', 'pp', '--network', 'alone', 'busybox', 'sleep', '1000');
  await docker('run', '-d', '--name', 'qq', '--network', 'alone', 'busybox', 'sleep', '1000');
  const { IPAddress } = (await engine.api('GET', '/v1.26/containers/qq/json')).json().NetworkSettings.Networks.alone;
  assert.equal(await pings('pp', IPAddress), true);
  assert.doesNotMatch(await docker('exec', 'pp', 'ip', 'route'), /default/);
  await engine.kill9();
  await engine.launch();
  await docker('rm', '-f', 'pp', 'qq');
  await docker('network', 'rm', 'alone');
  assert.doesNotMatch(await links(), /^dm-/m);
});

test('a sub-interface is made for the network and goes with it', async (t) => {
  const { code } = await engine.inNetns([
    'ip',
    'link',
    'add',
    'link',
    'par0',
    'name',
    'probe',
    'type',
    'vlan',
    'id',
    '9',
  ]);
  if (code !== 0) return t.skip('this kernel has no 802.1Q');
  await ip('link', 'del', 'probe');
  await docker('network', 'create', '-d', 'macvlan', '-o', 'parent=par0.10', '--subnet', '10.79.0.0/24', 'tagged');
  assert.match(await ip('-d', 'link', 'show', 'par0.10'), /802\.1Q id 10/);
  await docker('run', '--rm', '--network', 'tagged', 'busybox', 'true');
  await docker('network', 'rm', 'tagged');
  assert.doesNotMatch(await links(), /par0\.10/);
});
