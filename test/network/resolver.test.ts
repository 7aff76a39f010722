/** The name server at 127.0.0.11 on the wire: what it says about names of containers, and how it asks servers outside. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import packet from 'dns-packet';
import { bindInNamespace } from '../../src/platform/namespace-socket.ts';
import { eventually, must, sleep } from '../support/command.ts';
import { addressRecord, alwaysSays, answer, ask, DnsServer, gist, question } from '../support/dns.ts';
import { load } from '../support/dns-load.ts';
import { TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';
import { Netns } from '../support/netns.ts';

let engine: TestEngine;
let netns: Netns;
/** Two name servers next door, 10.99.0.2 and 10.99.0.3. */
let one: DnsServer;
let two: DnsServer;
let neighbour: Netns;
const undo: (() => unknown)[] = [];

before(async () => {
  // The machine's own resolv.conf, for this test's processes only.
  const file = path.join(fs.mkdtempSync('/tmp/resolver-'), 'resolv.conf');
  undo.push(() => fs.rmSync(path.dirname(file), { recursive: true }));
  fs.writeFileSync(file, 'nameserver 127.0.0.1\nsearch host.example\n');
  await must(['mount', '--bind', file, '/etc/resolv.conf']);
  undo.push(() => must(['umount', '--lazy', '/etc/resolv.conf']));
  netns = await Netns.create();
  const next = await netns.attachNeighbour({ defaultRoute: true });
  neighbour = next.netns;
  undo.push(() => {
    netns.close();
    neighbour.close();
  });
  await neighbour.must(['ip', 'address', 'add', '10.99.0.3/24', 'dev', 'eth0']);
  engine = await TestEngine.start({ netns });
  undo.push(() => engine.close());
  await importBusybox(engine);
  await docker('network', 'create', 'front');
  await docker('network', 'create', 'rear');
  await docker('network', 'create', '--ipv6', '--subnet', 'fd00:77::/64', 'six');
  await start('web', '--network', 'front', '--network-alias', 'Shop');
  for (const network of ['rear', 'six']) await docker('network', 'connect', network, 'web');
  await start('asker', '--network', 'front', '--dns', '10.99.0.2', '--dns', '10.99.0.3');
  for (const network of ['rear', 'six']) await docker('network', 'connect', network, 'asker');
  one = new DnsServer(neighbour.path, '10.99.0.2', alwaysSays('192.0.2.1'));
  two = new DnsServer(neighbour.path, '10.99.0.3', alwaysSays('192.0.2.2'));
  undo.push(() => {
    one.close();
    two.close();
  });
});

after(async () => {
  for (const each of undo.reverse()) await each();
});

beforeEach(() => {
  one.says = alwaysSays('192.0.2.1');
  two.says = alwaysSays('192.0.2.2');
});

const docker = (...args: string[]): Promise<string> => engine.mustDocker(args);
const start = (name: string, ...args: string[]): Promise<string> =>
  docker('run', '-d', '--name', name, ...args, 'busybox', 'sleep', '1000');
const inspect = async (name: string) => (await engine.api('GET', `/v1.26/containers/${name}/json`)).json();
const inside = async (name: string): Promise<string> => `/proc/${(await inspect(name)).State.Pid}/ns/net`;
const addressIn = async (name: string, network: string, key = 'IPAddress'): Promise<string> =>
  (await inspect(name)).NetworkSettings.Networks[network][key];
const says = async (name: string, type = 'A', from = 'asker'): Promise<string> =>
  gist(await ask(await inside(from), question(name, type)));

const reverse = (address: string): string => `${address.split('.').reverse().join('.')}.in-addr.arpa`;

test('a name of ours: id, flags, spelling and time to live are dockerd’s', async () => {
  const asked = question('wEB.fRONT');
  const answered = await ask(await inside('asker'), asked);
  assert(answered);
  assert.deepEqual(answered.subarray(0, 2), asked.subarray(0, 2));
  assert.equal(answered.readUInt16BE(2), 0x8180); // response, recursion desired and available
  assert.deepEqual(answered.subarray(12, asked.length), asked.subarray(12));
  const { answers = [] } = packet.decode(answered);
  const data = await addressIn('web', 'front');
  assert.deepEqual(answers, [{ type: 'A', name: 'wEB.fRONT', ttl: 600, class: 'IN', flush: false, data }]);
});

test('types: A, AAAA where there is IPv6, PTR of both; nothing of any other, and nobody outside is asked', async () => {
  const v6 = await addressIn('web', 'six', 'GlobalIPv6Address');
  const v4 = await addressIn('web', 'rear');
  assert.equal(await says('shop'), `NOERROR ${await addressIn('web', 'front')}`);
  assert.equal(await says('web', 'AAAA'), `NOERROR ${v6}`);
  assert.equal(await says(reverse(v4), 'PTR'), 'NOERROR web.rear');
  const nibbles = `${'fd000077'.split('').join('')}${'0'.repeat(16)}${v6.split('::')[1]?.padStart(8, '0')}`;
  assert.equal(await says(`${nibbles.split('').reverse().join('.')}.ip6.arpa`, 'PTR'), 'NOERROR web.six');
  for (const type of ['TXT', 'MX', 'SRV', 'NS', 'SOA', 'CNAME', 'HINFO', 'ANY', 'PTR'])
    assert.equal(await says('web', type), 'NOERROR', type);
  await start('plain', '--network', 'front');
  assert.equal(await says('plain', 'AAAA'), 'NOERROR', 'known, but without IPv6');
  assert.deepEqual([one.asked('web'), one.asked('plain')], [[], []]);
});

test('several answers take turns, by name', async () => {
  for (const name of ['many1', 'many2', 'many3']) await start(name, '--network', 'front', '--network-alias', 'many');
  const firsts: string[] = [];
  for (let round = 0; round < 6; round++) {
    const [, first = '', ...others] = (await says('many')).split(' ');
    firsts.push(first);
    assert.equal(new Set([first, ...others]).size, 3);
    await says('web'); // another name in between changes nothing
  }
  assert.equal(new Set(firsts.slice(0, 3)).size, 3);
  assert.deepEqual(firsts.slice(0, 3), firsts.slice(3));
});

test('what does not fit is cut off with TC over UDP, and is whole over TCP and with EDNS', async () => {
  const path = await inside('asker');
  const aliases = Array.from({ length: 4 }, (_, index) => `--network-alias=${'x'.repeat(60)}${index}`);
  for (let index = 0; index < 28; index++)
    await start(`crowd${index}`, '--network', 'front', '--network-alias', 'crowd', ...aliases);
  const name = `crowd.front`;
  const long = await ask(path, question(name));
  assert(long && long.length <= 512);
  const asked = packet.decode(long);
  const count = (answered: Buffer | null): number => (answered ? (packet.decode(answered).answers?.length ?? 0) : -1);
  assert.equal(count(await ask(path, question(name), { by: 'tcp' })), 28);
  assert.equal(count(long), 28, 'just fits');
  const padded = `${'x'.repeat(60)}0.front`;
  const cut = await ask(path, question(padded));
  assert(cut && cut.length <= 512 && cut.readUInt16BE(2) & packet.TRUNCATED_RESPONSE);
  assert(count(cut) < 28 && count(cut) > 20);
  const options = { type: 'OPT', name: '.', udpPayloadSize: 1232, flags: 0, options: [] } as unknown as packet.Answer;
  const whole = await ask(path, question(padded, 'A', { additionals: [options] }));
  assert.equal(count(whole), 28);
  assert.equal(whole && packet.decode(whole).additionals?.[0]?.type, 'OPT');
  assert.equal(count(await ask(path, question(padded), { by: 'tcp' })), 28);
  assert.equal(asked.type, 'response');
});

test('what is no proper question', async () => {
  const path = await inside('asker');
  const changed = (change: (message: Buffer) => void, of = question('web')): Buffer => {
    change(of);
    return of;
  };
  const codeOf = async (message: Buffer): Promise<number | null> => {
    const answered = await ask(path, message, { timeoutMs: 500 });
    return answered && answered.readUInt8(3) & 15;
  };
  const header = question('web').subarray(0, 12);
  const twice = packet.encode({
    ...{ type: 'query', id: 5, questions: [question_('web'), question_('shop')] },
  });
  const version1 = { type: 'OPT', name: '.', udpPayloadSize: 512, flags: 0, ednsVersion: 1, options: [] };
  const badVersion = await ask(path, question('web', 'A', { additionals: [version1 as unknown as packet.Answer] }));
  assert(badVersion);
  assert.equal(badVersion.readUInt8(badVersion.length - 6), 1, 'BADVERS');
  for (const [message, code] of [
    [twice, 1],
    [changed((each) => each.writeUInt16BE(0, 4)), 1], // no question
    [Buffer.concat([header, Buffer.from('3f6162', 'hex')]), 1], // a label that ends too early
    [Buffer.concat([header, Buffer.from('c00c00010001', 'hex')]), 1], // a name that points at itself
    [Buffer.concat([header, Buffer.from('0377656200', 'hex')]), 1], // no type
    [Buffer.concat([header, Buffer.alloc(300, 'a\x01'), Buffer.alloc(5)]), 1], // too long
    [changed((each) => each.writeUInt16BE(1, 10)), 1], // a record less than it says
    [changed((each) => each.writeUInt16BE(0x1100, 2)), 4], // STATUS
    [changed((each) => each.writeUInt16BE(0x2900, 2)), 4], // UPDATE
    [changed((each) => each.writeUInt16BE(0x8100, 2)), null], // an answer
    [Buffer.of(0, 1, 1), null],
  ] as const)
    assert.equal(await codeOf(message), code, message.toString('hex'));
  // Of another class there are no names here; whoever is outside may know.
  const chaos = changed((each) => each.writeUInt16BE(3, each.length - 2));
  assert.equal(gist(await ask(path, chaos)), 'NOERROR 192.0.2.1');
  assert.equal(await says('web'), `NOERROR ${await addressIn('web', 'front')}`, 'and goes on answering');
});

const question_ = (name: string): packet.Question => ({ type: 'A', name });

test('other names are asked outside and come back as they were asked, whatever the server makes of the spelling', async () => {
  one.says = ({ name }, asked) =>
    answer({ ...asked, questions: [question_(name.toLowerCase())] }, [addressRecord(name, '192.0.2.9')]);
  const asked = question('wWw.eXample');
  const answered = await ask(await inside('asker'), asked);
  assert.equal(gist(answered), 'NOERROR 192.0.2.9');
  assert.deepEqual(answered?.subarray(0, 2), asked.subarray(0, 2));
  assert.deepEqual(answered?.subarray(12, asked.length), asked.subarray(12));
  assert.deepEqual(two.asked('www.example'), []);
  assert.equal(await says('lonely'), 'NOERROR 192.0.2.9', 'a single label too, as dockerd');
  await start('dotted', '--network', 'front', '--dns', '10.99.0.2', '--dns-opt', 'ndots:2');
  assert.equal(await says('lonely2', 'A', 'dotted'), 'NOERROR', 'unless ndots says it will be asked with a domain');
  assert.deepEqual(one.asked('lonely2'), []);
});

test('which answers of the first server make the second be asked', async () => {
  const { AUTHORITATIVE_ANSWER } = packet;
  for (const [flags, expected, name] of [
    [2, 'NOERROR 192.0.2.2', 'servfail.example'],
    [5, 'NOERROR 192.0.2.2', 'refused.example'],
    [3, 'NOERROR 192.0.2.2', 'nxdomain.example'],
    [3 | AUTHORITATIVE_ANSWER, 'NXDOMAIN', 'authority.example'],
    [0, 'NOERROR', 'empty.example'],
  ] as const) {
    one.says = (_, asked) => answer(asked, [], flags);
    assert.equal(await says(name), expected, name);
  }
  one.says = (_, asked) => answer(asked, [], 3);
  two.says = (_, asked) => answer(asked, [], 2);
  assert.equal(await says('both.example'), 'NXDOMAIN', 'the better of two that do not help');
});

test('a server that does not answer is overtaken, then asked last, until it is back', async () => {
  const path = await inside('asker');
  one.answering = false;
  const timed = async (name: string): Promise<number> => {
    const begun = performance.now();
    assert.equal(gist(await ask(path, question(name))), 'NOERROR 192.0.2.2');
    return performance.now() - begun;
  };
  assert((await timed('first.example')) < 1000);
  for (let index = 0; index < 20; index++) await timed(`later${index}.example`);
  assert(one.heard.filter(({ name }) => name.startsWith('later')).length <= 2, 'it is left alone but for a try');
  one.says = (_, asked) => answer(asked, [], 3);
  two.says = (_, asked) => answer(asked, [], 3);
  const begun = performance.now();
  assert.equal(await says('nowhere.example'), 'NXDOMAIN');
  assert(performance.now() - begun < 1000, 'nobody waits for the dead one to confirm that there is no such name');
  one.answering = true;
  one.says = alwaysSays('192.0.2.1');
  two.says = alwaysSays('192.0.2.2');
  await eventually(async () => assert.equal(await says(`back${Date.now()}.example`), 'NOERROR 192.0.2.1'), 15_000, 200);
});

test('a thousand questions a second, one of two servers dead: none is lost', async () => {
  one.answering = false;
  const result = await load(await inside('asker'), 'load*.example', 2000, 1000);
  one.answering = true;
  await eventually(async () => assert.equal(await says(`up${Date.now()}.example`), 'NOERROR 192.0.2.1'), 15_000, 200);
  assert.equal(result.answered, 2000, JSON.stringify(result));
  assert(result.p99Ms < 1000, JSON.stringify(result));
});

test('forged answers are not taken: another id, another question, another port', async () => {
  const forger = new DnsServer(neighbour.path, '10.99.0.2', () => null, { port: 5353, tcp: false });
  one.says = (heard, asked) => {
    const forged = answer(asked, [addressRecord(heard.name, '203.0.113.66')]);
    const otherId = Buffer.from(forged);
    otherId.writeUInt16BE(((asked.id ?? 0) + 1) & 0xffff);
    const otherName = answer({ ...asked, questions: [question_('other.example')] }, [
      addressRecord(heard.name, '203.0.113.67'),
    ]);
    const otherType = answer({ ...asked, questions: [{ type: 'AAAA', name: heard.name }] }, []);
    const noAnswer = Buffer.from(forged);
    noAnswer.writeUInt16BE(0x0100, 2);
    forger.udp.send(forged, heard.port, heard.from);
    const noQuestion = answer({ ...asked, questions: [] }, [addressRecord(heard.name, '203.0.113.68')]);
    return [
      otherId,
      otherName,
      otherType,
      noAnswer,
      noQuestion,
      Buffer.of(1),
      answer(asked, [addressRecord(heard.name, '192.0.2.1')]),
    ];
  };
  for (let index = 0; index < 5; index++) assert.equal(await says(`forged${index}.example`), 'NOERROR 192.0.2.1');
  assert(new Set(one.heard.map(({ message }) => message.readUInt16BE(0))).size > 5, 'ids of their own');
  forger.close();
});

test('an answer cut off comes cut off, and over TCP whole; also one of 40 kB, and from the second when the first is dead', async () => {
  const path = await inside('asker');
  const many = (name: string): packet.Answer[] =>
    Array.from({ length: 160 }, (_, index) => ({ type: 'TXT', name, data: `${'y'.repeat(240)}${index}` }));
  one.says = ({ by, name }, asked) =>
    by === 'udp' ? answer(asked, [], packet.TRUNCATED_RESPONSE) : answer(asked, many(name));
  const cut = await ask(path, question('big.example', 'TXT'));
  assert(cut && cut.readUInt16BE(2) & packet.TRUNCATED_RESPONSE);
  assert.equal(one.asked('big.example', 'tcp').length, 0);
  const whole = await ask(path, question('big.example', 'TXT'), { by: 'tcp' });
  assert.equal(whole && packet.decode(whole).answers?.length, 160);
  assert(whole && whole.length > 40_000);
  one.answering = false;
  const begun = performance.now();
  assert.equal(gist(await ask(path, question('other.example'), { by: 'tcp' })), 'NOERROR 192.0.2.2');
  assert(performance.now() - begun < 1000);
  one.answering = true;
});

test('a server in a container of the network, on all its addresses; one on loopback is asked inside', async () => {
  await start('ns', '--network', 'front');
  const inNs = await inside('ns');
  // 0.0.0.0:53 is free in every container: a name server can live in one.
  const server = new DnsServer(inNs, '0.0.0.0', alwaysSays('198.51.100.1'));
  await start('customer', '--network', 'front', '--dns', await addressIn('ns', 'front'));
  assert.equal(await says('x.example', 'A', 'customer'), 'NOERROR 198.51.100.1');
  assert.equal(await says('web', 'A', 'ns'), `NOERROR ${await addressIn('web', 'front')}`, 'beside its own server');
  assert.equal(server.heard.at(-1)?.from, await addressIn('customer', 'front'), 'asked from the container itself');
  await start('self', '--network', 'front', '--dns', '127.0.0.1', '--dns', '127.0.0.11');
  assert.equal(await says('x.example', 'A', 'self'), 'SERVFAIL', 'nobody there, and no endless loop');
  const own = new DnsServer(await inside('self'), '127.0.0.1', alwaysSays('198.51.100.2'));
  assert.equal(await says('y.example', 'A', 'self'), 'NOERROR 198.51.100.2');
  server.close();
  own.close();
});

test('the host’s own loopback server is asked on the host, and never shown inside', async () => {
  const host = new DnsServer(netns.path, '127.0.0.1', alwaysSays('198.51.100.3'));
  await start('hosted', '--network', 'front');
  assert.equal(await says('x.example', 'A', 'hosted'), 'NOERROR 198.51.100.3');
  assert.equal(host.heard.at(-1)?.from, '127.0.0.1');
  const file = await docker('exec', 'hosted', 'cat', '/etc/resolv.conf');
  assert.equal(file, 'search host.example\nnameserver 127.0.0.11\noptions ndots:0\n');
  host.close();
});

test('without a way out only a server within the network is asked', async () => {
  await docker('network', 'create', '--internal', 'inner');
  await start('vault', '--network', 'inner', '--dns', '10.99.0.2');
  const heard = one.heard.length;
  assert.equal(await says('secret.example', 'A', 'vault'), 'SERVFAIL');
  assert.equal(one.heard.length, heard);
  await start('innerns', '--network', 'inner');
  const server = new DnsServer(await inside('innerns'), '0.0.0.0', alwaysSays('198.51.100.4'));
  await start('vault2', '--network', 'inner', '--dns', '10.99.0.2', '--dns', await addressIn('innerns', 'inner'));
  assert.equal(await says('secret.example', 'A', 'vault2'), 'NOERROR 198.51.100.4');
  server.close();
});

test('connections that say nothing, or much, are bounded', async () => {
  const before = descriptors();
  const sockets = await Promise.all(
    Array.from({ length: 100 }, async () =>
      ask(await inside('asker'), Buffer.alloc(60_000), { by: 'tcp', timeoutMs: 300 }),
    ),
  );
  assert.equal(sockets.filter((each) => each !== null).length, 0);
  assert.equal(await says('web'), `NOERROR ${await addressIn('web', 'front')}`);
  await eventually(() => assert(descriptors() <= before + 10, `${before} descriptors before, ${descriptors()} now`));
});

const descriptors = (): number => fs.readdirSync(`/proc/${engine.pid}/fd`).length;

test('a container that ends takes its sockets and its namespace with it', async () => {
  await start('brief', '--network', 'front', '--dns', '10.99.0.2');
  assert.equal(await says('x.example', 'A', 'brief'), 'NOERROR 192.0.2.1');
  const { SandboxKey } = (await inspect('brief')).NetworkSettings;
  const namespaces = async (): Promise<number> =>
    (await engine.inNetns(['ip', '-json', 'link', 'show', 'type', 'veth'])).stdout.split('"ifname"').length;
  const before = { links: await namespaces(), descriptors: descriptors() };
  await docker('rm', '-f', 'brief');
  // The interface goes when the last socket inside has been closed.
  await eventually(async () => assert.equal(await namespaces(), before.links - 1), 5000);
  await eventually(() => assert(descriptors() < before.descriptors), 5000);
  assert.equal(fs.existsSync(SandboxKey), false);
});

test('after kill -9 a question that was asked meanwhile is answered when it is asked again', async () => {
  const path = await inside('asker');
  await engine.kill9();
  assert.equal(
    gist(await ask(path, question('web'), { timeoutMs: 300 })),
    'nothing',
    'no refusal, which clients would believe',
  );
  await engine.launch();
  const expected = `NOERROR ${await addressIn('web', 'front')}`;
  await eventually(
    async () => assert.equal(gist(await ask(path, question('web'), { timeoutMs: 200 })), expected),
    5000,
  );
  assert.equal(gist(await ask(path, question('web'), { by: 'tcp' })), expected);
  assert.equal(await says('x.example'), 'NOERROR 192.0.2.1');
});

// The last one: what waits is asked again for some seconds.
test('more questions than can wait are answered with ServFail at once, and names of containers still are', async () => {
  one.answering = false;
  two.answering = false;
  const path = await inside('asker');
  const socket = dgram.createSocket({ type: 'udp4', lookup: (host, _options, done) => done(null, host, 4) });
  socket.bind({ fd: bindInNamespace(path, 'udp', new Uint8Array(4), 0).fd, exclusive: true });
  socket.connect(53, '127.0.0.11');
  undo.push(() => socket.close());
  let refused = 0;
  socket.on('message', (answered) => {
    if ((answered.readUInt8(3) & 15) === 2) refused++;
  });
  const message = question('flood.example');
  const began = performance.now();
  for (let sent = 0; refused === 0 && performance.now() - began < 4000; sent++) {
    message.writeUInt16BE(sent & 0xffff, 0);
    socket.send(message);
    if (sent % 50 === 49) await sleep(1);
  }
  assert(refused > 0);
  assert.equal(await says('web'), `NOERROR ${await addressIn('web', 'front')}`);
});
