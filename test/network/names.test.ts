/** Names in networks of the user's, asked by real resolvers inside containers. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { startEngine, type TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

let engine: TestEngine;

before(async (t) => {
  engine = await startEngine(t as never);
  await importBusybox(engine);
  await docker('network', 'create', 'front');
  await docker('network', 'create', 'back');
});

const docker = (...args: string[]): Promise<string> => engine.mustDocker(args);
const start = (name: string, ...args: string[]): Promise<string> =>
  docker('run', '-d', '--name', name, ...args, 'busybox', 'sleep', '1000');
/** Addresses of a name as a container finds them; [] when it finds none. */
async function lookUp(from: string, name: string): Promise<string[]> {
  const { stdout } = await engine.docker(['exec', from, 'nslookup', name]);
  const answers = stdout
    .split(/^Name:/m)
    .slice(1)
    .join('\n');
  return [...answers.matchAll(/^Address(?: \d+)?: (\S+)/gm)].map((match) => match[1] as string);
}
async function addressOf(name: string, network: string): Promise<string> {
  const answer = await engine.api('GET', `/v1.26/containers/${name}/json`);
  return answer.json().NetworkSettings.Networks[network].IPAddress as string;
}

test('names, aliases, short ids, name.network; nobody else’s', async () => {
  const id = await start('web', '--network', 'front', '--network-alias', 'shop');
  await start('client', '--network', 'front');
  await start('apart', '--network', 'back');
  const web = await addressOf('web', 'front');
  for (const name of ['web', 'WEB', 'shop', id.slice(0, 12), 'web.front', 'web.'])
    assert.deepEqual(await lookUp('client', name), [web], name);
  assert.deepEqual(await lookUp('apart', 'web'), []);
  assert.equal((await engine.docker(['exec', 'client', 'ping', '-c1', '-W1', 'shop'])).code, 0);
  const resolvConf = await docker('exec', 'client', 'cat', '/etc/resolv.conf');
  assert.match(resolvConf, /^nameserver 127\.0\.0\.11$/m);
  assert.match(resolvConf, /^options .*ndots:0$/m);
  assert.equal(resolvConf.match(/^nameserver/gm)?.length, 1, 'no server of the host leaks in');
});

test('reverse lookup, and a shared alias whose answers take turns', async () => {
  const web = await addressOf('web', 'front');
  const { stdout } = await engine.docker(['exec', 'client', 'nslookup', web]);
  assert.match(stdout, /name = web\.front/);
  await start('web2', '--network', 'front', '--network-alias', 'shop');
  const seen = new Set<string>();
  for (let round = 0; round < 4; round++) {
    const found = await lookUp('client', 'shop');
    assert.equal(found.length, 2);
    seen.add(found[0] as string);
  }
  assert.equal(seen.size, 2);
});

test('connect, disconnect, rename, restart of the container and of the engine are seen at once', async () => {
  await docker('network', 'connect', '--alias', 'box', 'front', 'apart');
  assert.deepEqual(await lookUp('client', 'box'), [await addressOf('apart', 'front')]);
  assert.deepEqual(await lookUp('apart', 'web'), [await addressOf('web', 'front')]);
  await docker('rename', 'apart', 'moved');
  assert.deepEqual(await lookUp('client', 'moved'), [await addressOf('moved', 'front')]);
  assert.deepEqual(await lookUp('client', 'apart'), []);
  await engine.kill9();
  await engine.launch();
  assert.deepEqual(await lookUp('client', 'moved'), [await addressOf('moved', 'front')]);
  await docker('network', 'disconnect', 'front', 'moved');
  assert.deepEqual(await lookUp('client', 'moved'), []);
  await docker('restart', '-t0', 'web2');
  assert.deepEqual(await lookUp('client', 'web2'), [await addressOf('web2', 'front')]);
  await docker('stop', '-t0', 'web2');
  assert.deepEqual(await lookUp('client', 'web2'), []);
  // From the default network into one with names: the file in the running container changes.
  await start('late');
  assert.doesNotMatch(await docker('exec', 'late', 'cat', '/etc/resolv.conf'), /127\.0\.0\.11/);
  await docker('network', 'connect', 'front', 'late');
  assert.deepEqual(await lookUp('late', 'web'), [await addressOf('web', 'front')]);
});

test('links in a network of the user’s give another name to one container', async () => {
  await start('linker', '--network', 'front', '--link', 'web:database');
  assert.deepEqual(await lookUp('linker', 'database'), [await addressOf('web', 'front')]);
  assert.deepEqual(await lookUp('client', 'database'), []);
});

test('an internal network answers its own names and asks nobody outside', async () => {
  await docker('network', 'create', '--internal', 'inner');
  await start('one', '--network', 'inner', '--dns', '127.0.0.1');
  await start('two', '--network', 'inner');
  assert.deepEqual(await lookUp('one', 'two'), [await addressOf('two', 'inner')]);
  const { stdout, stderr } = await engine.docker(['exec', 'two', 'nslookup', 'outside.example']);
  assert.match(stdout + stderr, /SERVFAIL|can't find/);
});

const read = (name: string, file: string): Promise<string> => docker('exec', name, 'cat', file);

test('what a container wrote into its files stays through connect, disconnect and rename; a restart begins anew', async () => {
  await docker('network', 'create', 'side');
  await start('writer', '--hostname', 'scribe', '--add-host', 'fixed:192.0.2.7', '--add-host', 'host:host-gateway');
  await docker('exec', 'writer', 'sh', '-c', 'echo "192.0.2.8 mine" >> /etc/hosts; echo "# mine" >> /etc/resolv.conf');
  const hosts = await read('writer', '/etc/hosts');
  await docker('network', 'connect', 'side', 'writer');
  const address = await addressOf('writer', 'side');
  assert.equal(await read('writer', '/etc/hosts'), `${hosts}${address}\tscribe\n`);
  const resolvConf = await read('writer', '/etc/resolv.conf');
  assert.deepEqual(resolvConf.match(/^nameserver.*|^# mine$/gm), ['nameserver 127.0.0.11', '# mine']);
  await docker('rename', 'writer', 'author');
  await docker('network', 'disconnect', 'side', 'author');
  assert.equal(await read('author', '/etc/hosts'), hosts);
  assert.doesNotMatch(await read('author', '/etc/resolv.conf'), /127\.0\.0\.11/);
  assert.match(await read('author', '/etc/resolv.conf'), /^nameserver .*\n(.*\n)*# mine$/m);
  assert.equal(await read('author', '/etc/hostname'), 'scribe\n');
  await docker('restart', '-t0', 'author');
  for (const file of ['/etc/hosts', '/etc/resolv.conf']) assert.doesNotMatch(await read('author', file), /mine/);
  assert.match(await read('author', '/etc/hosts'), /^192\.0\.2\.7\tfixed$/m);
});

test('host-gateway in a network of the user’s is its gateway', async () => {
  await start('guest', '--network', 'front', '--add-host', 'host.docker.internal:host-gateway');
  const { Gateway } = (await engine.api('GET', '/v1.26/containers/guest/json')).json().NetworkSettings.Networks.front;
  assert.match(
    await read('guest', '/etc/hosts'),
    new RegExp(`^${Gateway.replaceAll('.', '\\.')}\thost.docker.internal$`, 'm'),
  );
  assert.equal((await engine.docker(['exec', 'guest', 'ping', '-c1', '-W1', 'host.docker.internal'])).code, 0);
});

test('files that the user mounted are not touched, and containers that share a network share its files', async () => {
  const own = path.join(engine.paths.directory, 'own-hosts');
  fs.writeFileSync(own, '127.0.0.1 localhost\n192.0.2.9 own\n');
  await start('mounted', '--network', 'front', '-v', `${own}:/etc/hosts`);
  await docker('network', 'connect', 'back', 'mounted');
  assert.equal(await read('mounted', '/etc/hosts'), '127.0.0.1 localhost\n192.0.2.9 own\n');
  assert.deepEqual(
    await lookUp('mounted', 'web'),
    [await addressOf('web', 'front')],
    'names are answered all the same',
  );
  await start('owner', '--network', 'front', '--hostname', 'landlord');
  await start('lodger', '--network', 'container:owner');
  await docker('exec', 'lodger', 'sh', '-c', 'echo "192.0.2.10 shared" >> /etc/hosts');
  for (const file of ['/etc/hosts', '/etc/hostname', '/etc/resolv.conf'])
    assert.equal(await read('lodger', file), await read('owner', file));
  assert.match(await read('owner', '/etc/hosts'), /shared/);
  await docker('network', 'connect', 'back', 'owner');
  assert.match(await read('lodger', '/etc/hosts'), new RegExp(`${await addressOf('owner', 'back')}\tlandlord`));
});
