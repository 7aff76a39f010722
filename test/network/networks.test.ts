/** The default bridge as containers, neighbours and the host itself see it. Needs root and namespaces of its own. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import { test } from 'node:test';
import { bridgeName, eventually, run, World } from './support.ts';

const path = (sandbox: { namespacePath: string }): string => sandbox.namespacePath;

test('two containers get addresses and talk; each sees the real address of the other', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const one = await world.join(networks, 'one');
  const two = await world.join(networks, 'two');
  assert.equal(one.joined?.ipv4, '172.17.0.2');
  assert.equal(two.joined?.ipv4, '172.17.0.3');
  assert.equal(two.joined?.mac, '02:42:ac:11:00:03');
  assert.equal(two.joined?.gateway, '172.17.0.1');
  assert.match(two.joined?.endpointId ?? '', /^[0-9a-f]{64}$/);
  assert.match(
    world.inside(path(two), 'ip', 'address', 'show', 'eth0'),
    /link\/ether 02:42:ac:11:00:03[\s\S]*172\.17\.0\.3\/16/,
  );
  assert.match(world.inside(path(two), 'ip', 'route'), /default via 172\.17\.0\.1 dev eth0/);
  assert.doesNotMatch(world.inside(path(two), 'ip', 'address', 'show', 'eth0'), /inet6/);

  await world.serve(path(one), 'tcp', 80, 'web');
  await world.serve(path(one), 'udp', 53, 'names');
  assert.equal(await world.ask(path(two), 'tcp', '172.17.0.2', 80), 'web 172.17.0.3 hello');
  assert.equal(await world.ask(path(two), 'udp', '172.17.0.2', 53), 'names 172.17.0.3 hello');
  assert.equal(await world.ask(null, 'tcp', '172.17.0.2', 80), 'web 172.17.0.1 hello');
  assert.equal(await world.ask(path(one), 'tcp', '127.0.0.1', 80), 'web 127.0.0.1 hello');

  const counters = networks.counters(two.sandbox);
  assert.deepEqual(Object.keys(counters), ['eth0']);
  assert.ok((counters.eth0?.rx_packets ?? 0) > 3 && (counters.eth0?.tx_bytes ?? 0) > 200);
});

test('a container without network has loopback only', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const sandbox = await world.join(networks, 'alone', {}, 'none');
  assert.equal(sandbox.joined?.ipv4, '');
  assert.match(world.inside(path(sandbox), 'ip', '-brief', 'link'), /^lo .*UP/);
  assert.equal(world.inside(path(sandbox), 'ip', '-brief', 'link').trim().split('\n').length, 1);
  assert.deepEqual(networks.counters(sandbox.sandbox), {});
});

test('neighbours reach published ports, keep their address, and reach nothing else', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const left = world.neighbour('left', '10.1.0');
  const web = await world.join(networks, 'web', {
    '80/tcp': [
      { HostPort: '8080' },
      { HostIp: '10.1.0.1', HostPort: '8081' },
      { HostIp: '127.0.0.1', HostPort: '8082' },
    ],
    '53/udp': [{ HostPort: '5353' }],
    '90/tcp': [{ HostIp: '127.0.0.1', HostPort: '8090' }],
  });
  assert.deepEqual(
    web.published.map(
      ({ protocol, containerPort, hostIp, hostPort }) => `${containerPort}/${protocol} ${hostIp} ${hostPort}`,
    ),
    [
      '80/tcp 0.0.0.0 8080',
      '80/tcp :: 8080',
      '80/tcp 10.1.0.1 8081',
      '80/tcp 127.0.0.1 8082',
      '53/udp 0.0.0.0 5353',
      '53/udp :: 5353',
      '90/tcp 127.0.0.1 8090',
    ],
  );
  for (const port of [80, 90, 99]) await world.serve(path(web), 'tcp', port, `web${port}`);
  await world.serve(path(web), 'udp', 53, 'names');

  const fromNeighbour = (port: number, address = '10.1.0.1') => world.ask(left, 'tcp', address, port);
  assert.equal(await fromNeighbour(8080), 'web80 10.1.0.2 hello');
  assert.equal(await fromNeighbour(8081), 'web80 10.1.0.2 hello');
  assert.equal(await world.ask(left, 'udp', '10.1.0.1', 5353), 'names 10.1.0.2 hello');
  assert.equal(await fromNeighbour(8082), 'ECONNREFUSED', 'published on the loopback address only');

  // Forged routes: to the containers' subnet (the default route has it already) and to the host's loopback.
  assert.equal(await fromNeighbour(99, '172.17.0.2'), 'nothing', 'not published');
  assert.equal(await fromNeighbour(80, '172.17.0.2'), 'nothing', 'published, but asked for behind the host');
  world.inside(left, 'sysctl', '-qw', 'net.ipv4.conf.wire.route_localnet=1');
  world.inside(left, 'ip', 'address', 'delete', '127.0.0.1/8', 'dev', 'lo');
  world.inside(left, 'ip', 'route', 'add', '127.0.0.0/8', 'via', '10.1.0.1', 'src', '10.1.0.2');
  assert.equal(await fromNeighbour(8090, '127.0.0.1'), 'nothing');
  // … also on a host where somebody else let the wire carry loopback addresses.
  run('sysctl', '-qw', 'net.ipv4.conf.left.route_localnet=1');
  assert.equal(await fromNeighbour(8090, '127.0.0.1'), 'nothing');

  assert.equal(await world.ask(null, 'tcp', '127.0.0.1', 8090), 'web90 172.17.0.1 hello');
});

test('the host reaches published ports at every address of its own, IPv6 included', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  world.neighbour('left', '10.1.0');
  const web = await world.join(networks, 'web', { '80/tcp': [{ HostPort: '8080' }], '53/udp': [{ HostPort: '5353' }] });
  await world.serve(path(web), 'tcp', 80, 'web');
  await world.serve(path(web), 'udp', 53, 'names');
  assert.equal(await world.ask(null, 'tcp', '127.0.0.1', 8080), 'web 172.17.0.1 hello');
  assert.equal(await world.ask(null, 'tcp', '127.1.2.3', 8080), 'web 172.17.0.1 hello');
  assert.equal(await world.ask(null, 'tcp', '10.1.0.1', 8080), 'web 10.1.0.1 hello');
  assert.equal(await world.ask(null, 'udp', '127.0.0.1', 5353), 'names 172.17.0.1 hello');
  assert.equal(await world.ask(null, 'tcp', '::1', 8080), 'web 172.17.0.1 hello');
  assert.equal(await world.ask(null, 'udp', '::1', 5353), 'names 172.17.0.1 hello');
});

test("a container reaches published ports through the host: its own, a neighbour's, and the world outside", async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const left = world.neighbour('left', '10.1.0');
  const web = await world.join(networks, 'web', {
    '80/tcp': [{ HostPort: '8080' }, { HostIp: '127.0.0.1', HostPort: '8082' }],
  });
  const other = await world.join(networks, 'other');
  await world.serve(path(web), 'tcp', 80, 'web');
  await world.serve(left, 'tcp', 70, 'outside');
  await world.serve(null, 'tcp', 60, 'host', '127.0.0.1');
  for (const callsNetfilter of ['1', '0']) {
    run('sysctl', '-qw', `net.bridge.bridge-nf-call-iptables=${callsNetfilter}`);
    for (const address of ['172.17.0.1', '10.1.0.1']) {
      assert.equal(await world.ask(path(web), 'tcp', address, 8080), 'web 172.17.0.1 hello', 'itself');
      assert.equal(await world.ask(path(other), 'tcp', address, 8080), 'web 172.17.0.1 hello', 'another');
    }
    assert.equal(await world.ask(path(other), 'tcp', '10.1.0.2', 70), 'outside 10.1.0.1 hello', 'masqueraded');
  }
  assert.equal(await world.ask(path(other), 'tcp', '172.17.0.1', 8082), 'ECONNREFUSED', 'loopback only');
  world.inside(path(other), 'ip', 'address', 'delete', '127.0.0.1/8', 'dev', 'lo');
  world.inside(path(other), 'sysctl', '-qw', 'net.ipv4.conf.all.route_localnet=1');
  world.inside(path(other), 'ip', 'route', 'add', '127.0.0.0/8', 'via', '172.17.0.1', 'src', '172.17.0.3');
  assert.equal(await world.ask(path(other), 'tcp', '127.0.0.1', 60), 'nothing', "the host's own loopback");
});

test("a taken port is refused with dockerd's words and the name of its holder; nothing is left behind", async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const first = await world.join(networks, 'first', { '80/tcp': [{ HostPort: '8080' }] });
  const before = {
    links: run('ip', 'link'),
    rules: run('nft', 'list', 'ruleset'),
    spaces: fs.readdirSync(`${world.directory}/netns`),
  };
  const failure = (text: string) => ({
    kind: 'internal',
    message: new RegExp(
      `^driver failed programming external connectivity on endpoint second \\([0-9a-f]{64}\\): ${text}$`,
    ),
  });
  await assert.rejects(
    world.join(networks, 'second', {
      '90/tcp': [{ HostPort: '9090' }],
      '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '8080' }],
    }),
    failure('Bind for 127\\.0\\.0\\.1:8080 failed: port is already allocated \\(held by container first\\)'),
  );
  await assert.rejects(
    world.join(networks, 'second', { '80/tcp': [{ HostPort: '8080' }] }),
    failure('Bind for 0\\.0\\.0\\.0:8080 failed: port is already allocated \\(held by container first\\)'),
  );
  const foreign = net.createServer().listen(7070, '127.0.0.1');
  await once(foreign, 'listening');
  t.after(() => foreign.close());
  await assert.rejects(
    world.join(networks, 'second', { '80/tcp': [{ HostPort: '7070' }] }),
    failure('Error starting userland proxy: listen tcp4 0\\.0\\.0\\.0:7070: bind: address already in use'),
  );
  await assert.rejects(
    world.join(networks, 'second', { '80/udp': [{ HostIp: '10.99.0.1', HostPort: '80' }] }),
    failure('Error starting userland proxy: listen udp4 10\\.99\\.0\\.1:80: bind: cannot assign requested address'),
  );
  assert.deepEqual(
    {
      links: run('ip', 'link'),
      rules: run('nft', 'list', 'ruleset'),
      spaces: fs.readdirSync(`${world.directory}/netns`),
    },
    before,
  );
  // The same number of the other protocol is another port, and so is 8080 once the first has left.
  await world.join(networks, 'udp', { '80/udp': [{ HostPort: '8080' }] });
  await networks.leave(first.containerId, first);
  await world.join(networks, 'second', { '80/tcp': [{ HostPort: '8080' }], '90/tcp': [{ HostPort: '9090' }] });
});

test('of two joins at once for one port exactly one gets it', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const outcomes = await Promise.allSettled(
    ['a', 'b', 'c'].map((name) => world.join(networks, name, { '80/tcp': [{ HostPort: '8080' }] })),
  );
  assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected', 'rejected']);
});

test('ports without a number and from a range are found free', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const foreign = net.createServer().listen(8001, '0.0.0.0');
  t.after(() => foreign.close());
  const hostPorts = async (name: string, HostPort: string) =>
    (await world.join(networks, name, { '80/tcp': [{ HostPort }] })).published.map(({ hostPort }) => hostPort);
  assert.deepEqual(await hostPorts('a', '8000-8003'), [8000, 8000]);
  assert.deepEqual(await hostPorts('b', '8000-8003'), [8002, 8002], "8001 is somebody else's");
  assert.deepEqual(await hostPorts('c', '8000-8003'), [8003, 8003]);
  await assert.rejects(hostPorts('d', '8000-8003'), /: all ports are allocated$/);
  const [any = 0, same] = await hostPorts('e', '');
  assert.ok(any >= 32768 && any <= 60999 && any === same);
  assert.notEqual((await hostPorts('f', ''))[0], any);
});

test('leaving gives everything back, can be repeated, and an address rests before it is used again', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const keeper = await world.join(networks, 'keeper', { '80/tcp': [{ HostPort: '8081' }] });
  const rules = run('nft', 'list', 'table', 'inet', 'slipway');
  const gone = await world.join(networks, 'gone', {
    '80/tcp': [{ HostPort: '8080' }, { HostIp: '127.0.0.1', HostPort: '99' }],
  });
  assert.notEqual(run('nft', 'list', 'table', 'inet', 'slipway'), rules);
  await networks.leave(gone.containerId, gone);
  await networks.leave(gone.containerId, gone);
  await networks.leave(gone.containerId, null);
  assert.equal(run('nft', 'list', 'table', 'inet', 'slipway'), rules);
  assert.equal(fs.existsSync(gone.namespacePath), false);
  assert.ok(!fs.readFileSync('/proc/self/mounts', 'utf8').includes(gone.containerId));
  await eventually(() => !run('ip', 'link').includes(gone.joined?.hostInterface ?? ''));
  assert.equal(run('ip', 'link').includes(keeper.joined?.hostInterface ?? ''), true);
  const next = await world.join(networks, 'next', { '80/tcp': [{ HostPort: '8080' }] });
  assert.equal(next.joined?.ipv4, '172.17.0.4');
  // A late repetition takes nothing from who has the port now.
  await networks.leave(gone.containerId, gone);
  await world.serve(path(next), 'tcp', 80, 'next');
  assert.equal(await world.ask(null, 'tcp', '127.0.0.1', 8080), 'next 172.17.0.1 hello');
});

test('a UDP client that goes on sending reaches the next holder of the port', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const left = world.neighbour('left', '10.1.0');
  for (const name of ['first', 'second']) {
    const sandbox = await world.join(networks, name, { '53/udp': [{ HostPort: '5353' }] });
    await world.serve(path(sandbox), 'udp', 53, name);
    assert.equal(await world.ask(left, 'udp', '10.1.0.1', 5353, '40000'), `${name} 10.1.0.2 hello`);
    await networks.leave(sandbox.containerId, sandbox);
  }
});

test('the veth goes also when a process keeps the namespace', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const web = await world.join(networks, 'web');
  await world.serve(path(web), 'tcp', 80, 'web');
  await networks.leave(web.containerId, web);
  await eventually(() => !run('ip', 'link').includes(web.joined?.hostInterface ?? ''));
});

test('a new engine takes over what runs: connections live on, ports stay held, a wiped table and bridge are rebuilt', async (t) => {
  const world = new World(t);
  const before = await world.networks();
  const left = world.neighbour('left', '10.1.0');
  const web = await world.join(before, 'web', { '80/tcp': [{ HostPort: '8080' }] });
  const dead = await world.join(before, 'dead', { '80/tcp': [{ HostPort: '9090' }] });
  await world.serve(path(web), 'tcp', 80, 'web');
  const ids = before.list().map(({ id }) => id);
  const connection = net.connect(8080, '10.1.0.1').setEncoding('utf8');
  connection.write('before ');
  await new Promise((resolve) => setTimeout(resolve, 50));
  await before.close(); // its sockets; the kernel keeps the rest, as after a crash

  assert.equal(await world.ask(left, 'tcp', '10.1.0.1', 8080), 'web 10.1.0.2 hello', 'works without an engine');
  run('ip', 'link', 'add', 'foreign0', 'type', 'veth', 'peer', 'name', 'foreign1');
  t.after(() => run('ip', 'link', 'delete', 'foreign0'));
  run('nft', 'add table ip theirs; add chain ip theirs c { type filter hook forward priority 5; policy accept; }');
  const after = await world.networks({}, [web]);

  connection.end('after');
  assert.equal((await connection.toArray()).join(''), 'web 10.1.0.1 before after');
  assert.deepEqual(
    after.list().map(({ id }) => id),
    ids,
  );
  assert.equal(await world.ask(left, 'tcp', '10.1.0.1', 8080), 'web 10.1.0.2 hello');
  assert.equal(await world.ask(null, 'tcp', '::1', 8080), 'web 172.17.0.1 hello', 'relayed again');
  await assert.rejects(world.join(after, 'x', { '80/tcp': [{ HostPort: '8080' }] }), /held by container web/);
  assert.equal(fs.existsSync(dead.namespacePath), false);
  await eventually(() => !run('ip', 'link').includes(dead.joined?.hostInterface ?? ''));
  assert.match(run('ip', 'link'), /foreign0/);
  assert.match(run('nft', 'list', 'ruleset'), /table ip theirs/);
  const fresh = await world.join(after, 'fresh', { '80/tcp': [{ HostPort: '9090' }] });
  assert.notEqual(fresh.joined?.ipv4, web.joined?.ipv4);

  // Somebody flushes everything: the next change lays the table down anew …
  run('nft', 'flush', 'ruleset');
  await networksLeaveAndJoin(world, after, fresh);
  assert.equal(await world.ask(left, 'tcp', '10.1.0.1', 8080), 'web 10.1.0.2 hello');
  // … and takes the bridge away: reconciling brings it back with its ports.
  run('ip', 'link', 'delete', bridgeName);
  await after.reconcile([web]);
  assert.equal(await world.ask(left, 'tcp', '10.1.0.1', 8080), 'web 10.1.0.2 hello');
});

async function networksLeaveAndJoin(
  world: World,
  networks: Awaited<ReturnType<World['networks']>>,
  old: Awaited<ReturnType<World['join']>>,
) {
  await networks.leave(old.containerId, old);
  await world.join(networks, 'another', { '80/tcp': [{ HostPort: '9090' }] });
}

test('the bridge avoids subnets the host uses, keeps its choice, and obeys bip', async (t) => {
  const world = new World(t);
  run('ip', 'link', 'add', 'left', 'type', 'bridge');
  run('ip', 'link', 'set', 'left', 'up');
  run('ip', 'address', 'add', '172.17.200.1/24', 'dev', 'left');
  run('ip', 'route', 'add', '172.18.0.0/15', 'dev', 'left');
  const first = await world.networks();
  assert.deepEqual(first.get('bridge')?.ipam.config, [{ subnet: '172.20.0.0/16', gateway: '172.20.0.1' }]);
  assert.match(run('ip', 'address', 'show', bridgeName), /172\.20\.0\.1\/16/);
  run('ip', 'link', 'delete', 'left');
  const second = await world.networks();
  assert.equal(second.get('bridge')?.ipam.config[0]?.subnet, '172.20.0.0/16');
  const third = await world.networks({ bip: '10.9.8.1/29' });
  assert.equal(third.get('bridge')?.id, first.get('bridge')?.id);
  assert.doesNotMatch(run('ip', 'address', 'show', bridgeName), /172\.20/);
  const joined = await Promise.all([1, 2, 3, 4, 5].map((n) => world.join(third, `c${n}`)));
  assert.deepEqual(
    joined.map((each) => each.joined?.ipv4),
    [2, 3, 4, 5, 6].map((n) => `10.9.8.${n}`),
  );
  await assert.rejects(
    world.join(third, 'late'),
    /^EngineError: no available IPv4 addresses on this network's address pools: bridge/,
  );
  await assert.rejects(world.networks({ bip: '10.9.8.0/29' }), /does not name a host/);
});

test("records are like dockerd's", async (t) => {
  const world = new World(t);
  const networks = await world.networks({ mtu: 1400 });
  assert.deepEqual(
    networks.list().map(({ name, driver, scope }) => [name, driver, scope]),
    [
      ['bridge', 'bridge', 'local'],
      ['host', 'host', 'local'],
      ['none', 'null', 'local'],
    ],
  );
  const bridge = networks.get('bridge');
  assert.equal(bridge?.options['com.docker.network.bridge.name'], bridgeName);
  assert.equal(networks.get(bridge?.id.slice(0, 12) ?? ''), bridge);
  assert.equal(networks.get(''), undefined);
  const sandbox = await world.join(networks, 'small');
  assert.match(world.inside(path(sandbox), 'ip', 'link', 'show', 'eth0'), /mtu 1400/);
});

test('a hundred joins with ports at once share transactions and all work', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const joined = await Promise.all(
    Array.from({ length: 100 }, (_, n) =>
      world.join(networks, `c${n}`, { '80/tcp': [{ HostPort: String(10_000 + n) }] }),
    ),
  );
  assert.equal(new Set(joined.map((each) => each.joined?.ipv4)).size, 100);
  const last = joined[99];
  assert.ok(last);
  await world.serve(path(last), 'tcp', 80, 'last');
  assert.equal(await world.ask(null, 'tcp', '127.0.0.1', 10_099), 'last 172.17.0.1 hello');
  await Promise.all(joined.map((each) => networks.leave(each.containerId, each)));
  assert.doesNotMatch(run('nft', 'list', 'ruleset'), /(map published\w*|set loopback_only) \{[^}]*elements/);
});
