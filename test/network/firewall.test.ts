/** What the firewall keeps apart and together, whatever others do to the rules, and on hosts that forward nothing by default. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import { addIPv6, bridgeName, eventually, type Guest, network, request, run, World } from './support.ts';

const path = (sandbox: { namespacePath: string }): string => sandbox.namespacePath;

const table = (): string => run('nft', 'list', 'table', 'inet', 'slipway').replace(/\s+/g, ' ');
const ruleset = (): string => run('nft', 'list', 'ruleset');
/** In the order of nothing in particular, as sets are listed. */
const words = (text: string): string[] => text.split(/[\s,{}]+/).sort();

test('a table that somebody flushed, deleted or changed is back within two seconds; connections live on', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const left = world.neighbour('left', '10.1.0');
  const gone = await networks.create(request('gone'));
  const web = await world.join(networks, 'web', {
    '80/tcp': [{ HostPort: '8080' }, { HostIp: '127.0.0.1', HostPort: '8082' }],
  });
  await world.serve(path(web), 'tcp', 80, 'web');
  await networks.remove('gone');
  const before = words(table());
  const connection = net.connect(8080, '10.1.0.1').setEncoding('utf8');
  await once(connection, 'connect');
  connection.write('before ');
  run('nft', 'add table ip theirs; add chain ip theirs c { type filter hook forward priority 5; policy accept; }');

  const damages = [
    'flush ruleset',
    'delete table inet slipway',
    'flush table inet slipway',
    'flush chain inet slipway forward',
    'flush set inet slipway bridges',
    'flush set inet slipway own',
    'delete element inet slipway published { tcp . 8080 }',
    'add element inet slipway published { tcp . 99 : 172.17.0.2 . 99 }',
    'insert rule inet slipway forward accept',
  ];
  for (const damage of damages) {
    run('nft', damage);
    assert.notDeepEqual(ruleset().includes('slipway') ? words(table()) : [], before, damage);
    await eventually(() => ruleset().includes('table inet slipway') && same(words(table()), before));
    assert.equal(await world.ask(left, 'tcp', '10.1.0.1', 8080), 'web 10.1.0.2 hello', damage);
    assert.equal(await world.ask(left, 'tcp', '172.17.0.2', 80), 'nothing', damage);
  }
  assert.doesNotMatch(ruleset(), new RegExp(gone.bridgeName), 'no ghosts');
  connection.end('after');
  assert.equal((await connection.toArray()).join(''), 'web 10.1.0.1 before after');
});

const same = (a: readonly string[], b: readonly string[]): boolean => a.join() === b.join();

test('a refresh brings everything back; rules of others stay as they are', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  await world.join(networks, 'web', { '80/tcp': [{ HostPort: '8080' }] });
  const before = words(table());
  run('nft', 'flush ruleset; add table ip theirs; add chain ip theirs c; add rule ip theirs c counter drop');
  run('ip', 'link', 'delete', bridgeName);
  const theirs = run('nft', 'list', 'table', 'ip', 'theirs');
  await networks.refresh({ hostForwardPolicy: 'overrule' });
  assert.deepEqual(words(table()), before);
  assert.match(run('ip', 'address', 'show', bridgeName), /172\.17\.0\.1\/16/);
  assert.equal(run('nft', 'list', 'table', 'ip', 'theirs'), theirs);
});

test('rules churned by others cost no start a failure', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  run('nft', 'add table ip theirs; add chain ip theirs c');
  const churn = setInterval(() => run('nft', 'add rule ip theirs c counter'), 20);
  t.after(() => clearInterval(churn));
  const joined = await Promise.all(
    Array.from({ length: 50 }, (_, n) => world.join(networks, `c${n}`, { '80/tcp': [{ HostPort: `${9000 + n}` }] })),
  );
  const last = joined[49] as Guest;
  await world.serve(path(last), 'tcp', 80, 'last');
  assert.equal(await world.ask(null, 'tcp', '127.0.0.1', 9049), 'last 172.17.0.1 hello');
});

// ---- hosts that drop what they forward

const accepts = (program: string): string[] =>
  run(program, '-S', 'FORWARD')
    .split('\n')
    .filter((line) => line.includes('slipway'));

for (const [kind, four, six] of [
  ['iptables-nft', 'iptables-nft', 'ip6tables-nft'],
  ['iptables-legacy', 'iptables-legacy', 'ip6tables-legacy'],
] as const) {
  test(`policy DROP of FORWARD (${kind}): published ports and the way out work, or the policy is obeyed`, async (t) => {
    t.after(() => {
      for (const program of [four, six]) {
        run(program, '-P', 'FORWARD', 'ACCEPT');
        run(program, '-F');
      }
    });
    const world = new World(t);
    const left = world.neighbour('left', '10.1.0');
    addIPv6(world, left, 'left', 'fd77');
    for (const program of [four, six]) run(program, '-P', 'FORWARD', 'DROP');
    run(four, '-A', 'FORWARD', '-p', 'tcp', '--dport', '81', '-j', 'DROP');
    const untouched = run(four, '-S');
    const networks = await world.networks();
    const six0 = await network(t, networks, request('six', {}, ['fd00:6::/64']));
    const web = await world.join(networks, 'web', {
      '80/tcp': [{ HostPort: '8080' }],
      '81/tcp': [{ HostPort: '8081' }],
    });
    const both = await world.join(networks, 'both', { '80/tcp': [{ HostPort: '8086' }] }, 'six');
    for (const port of [80, 81]) await world.serve(path(web), 'tcp', port, 'web');
    await world.serve(path(both), 'tcp', 80, 'six', '::');
    await world.serve(left, 'tcp', 70, 'outside', '::');
    assert.equal(await world.ask(left, 'tcp', '10.1.0.1', 8080), 'web 10.1.0.2 hello');
    assert.equal(await world.ask(path(web), 'tcp', '10.1.0.2', 70), 'outside ::ffff:10.1.0.1 hello');
    assert.equal(await world.ask(left, 'tcp', 'fd77::1', 8086), 'six fd77::2 hello');
    assert.equal(await world.ask(path(both), 'tcp', 'fd77::2', 70), 'outside fd77::1 hello');
    assert.equal(await world.ask(left, 'tcp', '10.1.0.1', 8081), 'nothing', "the host's own rules decide first");
    assert.equal(await world.ask(left, 'tcp', '172.17.0.2', 80), 'nothing', 'our table decides as ever');
    assert.equal(accepts(four).length, 4, accepts(four).join('\n'));
    assert.equal(accepts(six).length, 4);

    // With the network; with the policy; when obeyed; when somebody removed them.
    await networks.leave(both.containerId, both);
    await networks.remove('six');
    assert.doesNotMatch(accepts(four).join(), new RegExp(six0));
    assert.equal(accepts(four).length, 2);
    run(four, '-P', 'FORWARD', 'ACCEPT');
    await eventually(() => accepts(four).length === 0);
    run(four, '-P', 'FORWARD', 'DROP');
    await eventually(() => accepts(four).length === 2);
    run('sh', '-c', `${four} ${(accepts(four)[0] ?? '').replace('-A', '-D')}`);
    assert.equal(accepts(four).length, 1);
    await eventually(() => accepts(four).length === 2);
    await networks.refresh({ hostForwardPolicy: 'obey' });
    assert.equal(run(four, '-S'), untouched);
    assert.equal(await world.ask(left, 'tcp', '10.1.0.1', 8080), 'nothing');
    await networks.refresh({ hostForwardPolicy: 'overrule' });
    assert.equal(await world.ask(left, 'tcp', '10.1.0.1', 8080), 'web 10.1.0.2 hello');
  });
}
