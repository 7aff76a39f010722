/** Who reaches whom: between networks, out of internal ones, within one without communication, from neighbours with routes of their own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addIPv6, bridgeName, eventually, type Guest, network, request, run, World } from './support.ts';

const path = (sandbox: { namespacePath: string }): string => sandbox.namespacePath;

/** Answers to many questions asked at once, by the name of each. */
async function all(questions: Readonly<Record<string, Promise<string>>>): Promise<Record<string, string>> {
  const entries = Object.entries(questions).map(async ([name, answer]) => [name, await answer] as const);
  return Object.fromEntries(await Promise.all(entries));
}

const pings = (world: World, from: string, address: string): Promise<string> =>
  world.run(from, ['busybox', 'ping', '-c1', '-W1', address]).then((code) => (code === 0 ? 'answer' : 'nothing'));

test('networks are apart, each from each, in both families and with routes of their own; published ports are there for all', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const names = ['a', 'b', 'c'];
  for (const [n, name] of names.entries())
    await network(t, networks, request(name, {}, [`10.20.${n}.0/24`, `fd00:20:${n}::/64`]));
  const guests: Guest[] = [];
  for (const [n, name] of ['bridge', ...names].entries()) {
    const guest = await world.join(networks, name, { '80/tcp': [{ HostPort: `${8080 + n}` }] }, name);
    await world.serve(path(guest), 'tcp', 80, name, name === 'bridge' ? '0.0.0.0' : '::');
    await world.serve(path(guest), 'udp', 54, name);
    guests.push(guest);
  }
  const refused: Record<string, Promise<string>> = {};
  const allowed: Record<string, Promise<string>> = {};
  const expected: Record<string, string> = {};
  for (const from of guests) {
    for (const [n, to] of guests.entries()) {
      const [one, other] = [from.containerName, to.containerName];
      const { ipv4 = '', ipv6 = '' } = to.joined ?? {};
      if (from !== to) {
        refused[`${one} to ${other}, tcp`] = world.ask(path(from), 'tcp', ipv4, 80);
        refused[`${one} to ${other}, udp`] = world.ask(path(from), 'udp', ipv4, 54);
        refused[`${one} to ${other}, icmp`] = pings(world, path(from), ipv4);
        if (ipv6 && from.joined?.ipv6) {
          refused[`${one} to ${other}, tcp, IPv6`] = world.ask(path(from), 'tcp', ipv6, 80);
          refused[`${one} to ${other}, icmp, IPv6`] = pings(world, path(from), ipv6);
        }
      }
      allowed[`${one} to the port of ${other}`] = world.ask(path(from), 'tcp', from.joined?.gateway ?? '', 8080 + n);
      const seen = from === to ? from.joined?.gateway : from.joined?.ipv4;
      expected[`${one} to the port of ${other}`] = `${other} ${other === 'bridge' ? '' : '::ffff:'}${seen} hello`;
    }
  }
  assert.deepEqual(await all(allowed), expected);
  for (const [name, answer] of Object.entries(await all(refused))) assert.equal(answer, 'nothing', name);
});

test('an internal network: nothing in, nothing out, whatever routes somebody makes', async (t) => {
  const world = new World(t);
  const left = world.neighbour('left', '10.1.0');
  addIPv6(world, left, 'left', 'fd77');
  const networks = await world.networks();
  const subnets = ['10.30.0.0/24', 'fd00:30::/64'];
  await network(t, networks, request('inner', { internal: true }, subnets));
  const web = await world.join(networks, 'web', { '80/tcp': [{ HostPort: '8080' }] });
  const [one, two] = [await world.join(networks, 'one', {}, 'inner'), await world.join(networks, 'two', {}, 'inner')];
  for (const [guest, name] of [
    [web, 'web'],
    [two, 'two'],
  ] as const) {
    await world.serve(path(guest), 'tcp', 80, name, name === 'web' ? '0.0.0.0' : '::');
    await world.serve(path(guest), 'udp', 54, name);
  }
  await world.serve(left, 'tcp', 70, 'outside', '::');
  await world.serve(left, 'udp', 54, 'outside', '::');
  await world.serve(null, 'tcp', 60, 'host', '::');
  const { ipv4 = '', ipv6 = '' } = two.joined ?? {};
  assert.equal(await world.ask(path(one), 'tcp', ipv4, 80), 'two ::ffff:10.30.0.2 hello');
  assert.equal(await world.ask(path(one), 'tcp', ipv6, 80), 'two fd00:30::2 hello');
  assert.equal(await world.ask(path(one), 'tcp', '10.30.0.1', 60), 'host ::ffff:10.30.0.2 hello', 'the host, in it');

  world.inside(path(one), 'ip', 'route', 'add', 'default', 'via', '10.30.0.1');
  world.inside(path(one), 'ip', 'route', 'add', 'default', 'via', 'fd00:30::1');
  world.inside(left, 'ip', 'route', 'add', '10.30.0.0/24', 'via', '10.1.0.1');
  const answers = await all({
    'to the world, tcp': world.ask(path(one), 'tcp', '10.1.0.2', 70),
    'to the world, udp': world.ask(path(one), 'udp', '10.1.0.2', 54),
    'to the world, icmp': pings(world, path(one), '10.1.0.2'),
    'to the world, tcp, IPv6': world.ask(path(one), 'tcp', 'fd77::2', 70),
    'to the world, udp, IPv6': world.ask(path(one), 'udp', 'fd77::2', 54),
    'to the world, icmp, IPv6': pings(world, path(one), 'fd77::2'),
    'to another network': world.ask(path(one), 'tcp', web.joined?.ipv4 ?? '', 80),
    'to another address of the host': world.ask(path(one), 'tcp', '10.1.0.1', 60),
    'to another address of the host, icmp': pings(world, path(one), '10.1.0.1'),
    'to another address of the host, IPv6': world.ask(path(one), 'tcp', 'fd77::1', 60),
    'to the default bridge': world.ask(path(one), 'tcp', '172.17.0.1', 60),
    'to a published port': world.ask(path(one), 'tcp', '10.30.0.1', 8080),
    'to a published port at another address': world.ask(path(one), 'tcp', '10.1.0.1', 8080),
    'from the world': world.ask(left, 'tcp', ipv4, 80),
    'from the world, udp': world.ask(left, 'udp', ipv4, 54),
    'from the world, icmp': pings(world, left, ipv4),
    'from the world, IPv6': world.ask(left, 'tcp', ipv6, 80),
    'from another network': world.ask(path(web), 'tcp', ipv4, 80),
  });
  for (const [name, answer] of Object.entries(answers)) assert.equal(answer, 'nothing', name);
  // A relayed port is refused rather than relayed.
  assert.equal(await world.ask(path(one), 'tcp', 'fd00:30::1', 8080), 'ECONNREFUSED');
});

test('without communication between containers they reach each other through published ports only, also by way of the host', async (t) => {
  const world = new World(t);
  const left = world.neighbour('left', '10.1.0');
  const networks = await world.networks();
  const options = { 'com.docker.network.bridge.enable_icc': 'false' };
  await network(t, networks, request('quiet', { options }, ['10.40.0.0/24']));
  const one = await world.join(networks, 'one', {}, 'quiet');
  const two = await world.join(networks, 'two', { '80/tcp': [{ HostPort: '8080' }] }, 'quiet');
  await world.serve(path(two), 'tcp', 80, 'two');
  await world.serve(left, 'tcp', 70, 'outside');
  const { ipv4 = '' } = two.joined ?? {};
  for (const callsNetfilter of ['0', '1']) {
    run('sysctl', '-qw', `net.bridge.bridge-nf-call-iptables=${callsNetfilter}`);
    assert.match(await world.ask(path(one), 'tcp', ipv4, 80), /nothing|EHOSTUNREACH/);
    // Where bridged frames pass the rules of routed ones, the bridge takes the rewritten frame for one between containers.
    const published = callsNetfilter === '0' ? 'two 10.40.0.1 hello' : 'nothing';
    assert.equal(await world.ask(path(one), 'tcp', '10.40.0.1', 8080), published);
    assert.equal(await world.ask(left, 'tcp', '10.1.0.1', 8080), 'two 10.1.0.2 hello');
    assert.equal(await world.ask(path(one), 'tcp', '10.1.0.2', 70), 'outside 10.1.0.1 hello');
  }
  // Each sends the host what is meant for the other.
  world.inside(path(one), 'ip', 'route', 'add', `${ipv4}/32`, 'via', '10.40.0.1');
  world.inside(path(two), 'ip', 'route', 'add', `${one.joined?.ipv4}/32`, 'via', '10.40.0.1');
  assert.equal(await world.ask(path(one), 'tcp', ipv4, 80), 'nothing');
});

test('IPv6: clients keep their address, what is not published is out of reach, the host reaches all', async (t) => {
  const world = new World(t);
  const left = world.neighbour('left', '10.1.0');
  addIPv6(world, left, 'left', 'fd77');
  const networks = await world.networks();
  await network(t, networks, request('six', {}, ['10.50.0.0/24', '2001:db8:5::/64']));
  await network(t, networks, request('local', {}, ['10.51.0.0/24', 'fd00:51::/64']));
  const ports = {
    '80/tcp': [{ HostPort: '8080' }, { HostIp: 'fd77::1', HostPort: '8081' }, { HostIp: '::1', HostPort: '8082' }],
    '54/udp': [{ HostPort: '5353' }],
  };
  const web = await world.join(networks, 'web', ports, 'six');
  const other = await world.join(networks, 'other', {}, 'six');
  const local = await world.join(networks, 'local', {}, 'local');
  for (const port of [80, 99]) await world.serve(path(web), 'tcp', port, `web${port}`, '::');
  await world.serve(path(web), 'udp', 54, 'names', '::');
  await world.serve(left, 'tcp', 70, 'outside', '::');
  const ipv6 = web.joined?.ipv6 ?? '';
  world.inside(left, 'ip', 'route', 'add', '2001:db8:5::/64', 'via', 'fd77::1');

  assert.deepEqual(
    await all({
      'a neighbour': world.ask(left, 'tcp', 'fd77::1', 8080),
      'at one address': world.ask(left, 'tcp', 'fd77::1', 8081),
      udp: world.ask(left, 'udp', 'fd77::1', 5353),
      'by IPv4': world.ask(left, 'tcp', '10.1.0.1', 8080),
      'the host': world.ask(null, 'tcp', 'fd77::1', 8080),
      'the host, ::1': world.ask(null, 'tcp', '::1', 8080),
      'published at ::1': world.ask(null, 'tcp', '::1', 8082),
      'udp, ::1': world.ask(null, 'udp', '::1', 5353),
      'the container itself': world.ask(path(web), 'tcp', '2001:db8:5::1', 8080),
      'its neighbour': world.ask(path(other), 'tcp', '2001:db8:5::1', 8080),
      'another network': world.ask(path(local), 'tcp', 'fd77::1', 8080),
      'out, with an address the world knows': world.ask(path(web), 'tcp', 'fd77::2', 70),
      'out, with an address of its own': world.ask(path(local), 'tcp', 'fd77::2', 70),
      'not published': world.ask(left, 'tcp', ipv6, 99),
      'published, behind the host': world.ask(left, 'tcp', ipv6, 80),
      icmp: pings(world, left, ipv6),
      'at ::1 only': world.ask(left, 'tcp', 'fd77::1', 8082),
    }),
    {
      'a neighbour': 'web80 fd77::2 hello',
      'at one address': 'web80 fd77::2 hello',
      udp: 'names fd77::2 hello',
      'by IPv4': 'web80 ::ffff:10.1.0.2 hello',
      'the host': 'web80 fd77::1 hello',
      'the host, ::1': 'web80 ::ffff:10.50.0.1 hello',
      'published at ::1': 'web80 ::ffff:10.50.0.1 hello',
      'udp, ::1': 'names ::ffff:10.50.0.1 hello',
      'the container itself': 'web80 2001:db8:5::1 hello',
      'its neighbour': 'web80 2001:db8:5::1 hello',
      'another network': `web80 ${local.joined?.ipv6} hello`,
      'out, with an address the world knows': `outside ${ipv6} hello`,
      'out, with an address of its own': 'outside fd77::1 hello',
      'not published': 'nothing',
      'published, behind the host': 'nothing',
      icmp: 'nothing',
      'at ::1 only': 'ECONNREFUSED',
    },
  );
});

test('ports on loopback and ports that are not published stay out of reach after somebody flushed the rules', async (t) => {
  const world = new World(t);
  const left = world.neighbour('left', '10.1.0');
  const networks = await world.networks();
  const web = await world.join(networks, 'web', { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '8080' }] });
  const other = await world.join(networks, 'other');
  for (const port of [80, 99]) await world.serve(path(web), 'tcp', port, 'web');
  for (const [from, gateway, own] of [
    [left, '10.1.0.1', '10.1.0.2'],
    [path(other), '172.17.0.1', '172.17.0.3'],
  ] as const) {
    world.inside(from, 'sysctl', '-qw', 'net.ipv4.conf.all.route_localnet=1');
    world.inside(from, 'ip', 'address', 'delete', '127.0.0.1/8', 'dev', 'lo');
    world.inside(from, 'ip', 'route', 'add', '127.0.0.0/8', 'via', gateway, 'src', own);
  }
  run('sysctl', '-qw', 'net.ipv4.conf.left.route_localnet=1');
  const probe = async (when: string): Promise<void> => {
    const answers = await all({
      'a neighbour, to loopback': world.ask(left, 'tcp', '127.0.0.1', 8080),
      'a container, to loopback': world.ask(path(other), 'tcp', '127.0.0.1', 8080),
      'a neighbour, to what is published on loopback': world.ask(left, 'tcp', '172.17.0.2', 80),
      'a neighbour, to what is not published': world.ask(left, 'tcp', '172.17.0.2', 99),
    });
    for (const [name, answer] of Object.entries(answers)) assert.equal(answer, 'nothing', `${when}: ${name}`);
  };
  await probe('before');
  run('nft', 'flush', 'ruleset');
  await eventually(() => run('nft', 'list', 'ruleset').includes(bridgeName));
  await probe('after');
  assert.equal(await world.ask(null, 'tcp', '127.0.0.1', 8080), 'web 172.17.0.1 hello');
});
