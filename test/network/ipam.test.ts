/** Subnets and addresses under load: none is given twice, none is lost. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { overlap, parseSubnet, type Subnet } from '../../src/lib/ip.ts';
import { startEngine, type TestEngine } from '../support/engine.ts';
import type { Answer, Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

/** ipam.long.test.ts makes it a thousand. */
const many = Number(process.env.SLIPWAY_NETWORKS ?? 120);

let engine: TestEngine;

before(async (t) => {
  engine = await startEngine(t as never);
  await importBusybox(engine);
});

const call = (method: string, path: string, body?: object): Promise<Loose> =>
  engine.call(method, `/v1.26${path}`, body);
const api = (method: string, path: string, body?: object): Promise<Answer> => engine.api(method, `/v1.26${path}`, body);
const subnetOf = (text: string): Subnet => parseSubnet(text) ?? assert.fail(text);

/** Runs `work` for 0 … count - 1, `width` at a time. */
async function inParallel(count: number, width: number, work: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: width }, lane));
}

async function container(name: string, network: string): Promise<void> {
  await call('POST', `/containers/create?name=${name}`, {
    Image: 'busybox',
    Cmd: ['sleep', '1000'],
    HostConfig: { NetworkMode: network },
  });
}

test(`${many} networks by default: none overlaps another or a route of the host, before or after`, async () => {
  const ip = async (...args: string[]): Promise<void> =>
    assert.equal((await engine.inNetns(['ip', ...args])).code, 0, args.join(' '));
  await ip('link', 'add', 'out0', 'type', 'veth', 'peer', 'name', 'out1');
  await ip('link', 'set', 'out0', 'up');
  await ip('addr', 'add', '172.20.9.9/24', 'dev', 'out0');
  // As a VPN does.
  await ip('route', 'add', '172.24.0.0/13', 'dev', 'out0');
  await ip('route', 'add', '192.168.64.0/18', 'dev', 'out0');
  const foreign = ['172.20.9.0/24', '172.24.0.0/13', '192.168.64.0/18'].map(subnetOf);
  await inParallel(many, 10, (index) => call('POST', '/networks/create', { Name: `n${index}` }));
  const networks: Loose[] = await call('GET', '/networks?filters={"type":["custom"]}');
  // More networks than hexadecimal digits: some share the first.
  const digit = [...'0123456789abcdef'].find((each) => networks.filter(({ Id }) => Id.startsWith(each)).length > 1);
  const ambiguous = await api('GET', `/networks/${digit}`);
  assert.equal(ambiguous.status, 400);
  assert.match(ambiguous.text, /network \w is ambiguous \(\d+ matches found based on ID prefix\)/);
  const subnets = networks.map(({ IPAM }) => subnetOf(IPAM.Config[0].Subnet));
  assert.equal(subnets.length, many);
  const sorted = [...foreign, ...subnets].sort((a, b) => (a.base < b.base ? -1 : 1));
  for (const [index, subnet] of sorted.entries()) {
    const next = sorted[index + 1];
    if (next !== undefined) assert.ok(!overlap(subnet, next), `${JSON.stringify([subnet, next], (_, v) => String(v))}`);
  }
  await inParallel(many, 10, (index) => call('DELETE', `/networks/n${index}`));
  assert.doesNotMatch((await engine.inNetns(['ip', '-br', 'link'])).stdout, /^br-/m);
  // What was given back is given again, the smallest first.
  await call('POST', '/networks/create', { Name: 'again' });
  assert.equal((await call('GET', '/networks/again')).IPAM.Config[0].Subnet, '172.18.0.0/16');
  await call('DELETE', '/networks/again');
  await ip('link', 'del', 'out0');
});

for (const [subnet, room] of [
  ['10.60.0.0/30', 1],
  ['10.61.0.0/29', 5],
] as const) {
  test(`a ${subnet.slice(-3)} holds ${room}; the next is told so, and gets the first address given back`, async () => {
    const name = `narrow${room}`;
    await call('POST', '/networks/create', { Name: name, IPAM: { Config: [{ Subnet: subnet }] } });
    const ids = Array.from({ length: room }, (_, index) => `${name}-${index}`);
    await Promise.all([...ids, 'late'].map((each) => container(each, name)));
    // At the same time: the free addresses meet as many askers and one more.
    const starts = await Promise.all([...ids, 'late'].map((each) => api('POST', `/containers/${each}/start`)));
    const failed = starts.filter(({ status }) => status !== 204);
    assert.equal(failed.length, 1);
    assert.match(
      failed[0]?.text ?? '',
      new RegExp(`no available IPv4 addresses on this network's address pools: ${name}`),
    );
    const members: Loose = (await call('GET', `/networks/${name}`)).Containers;
    const addresses = Object.values(members).map((member) => (member as Loose).IPv4Address);
    assert.equal(new Set(addresses).size, room);
    const loser = [...ids, 'late'][starts.findIndex(({ status }) => status !== 204)] as string;
    const winner = [...ids, 'late'].find((each) => each !== loser) as string;
    const { IPAddress } = (await call('GET', `/containers/${winner}/json`)).NetworkSettings.Networks[name];
    await call('POST', `/networks/${name}/disconnect`, { Container: winner });
    await call('POST', `/containers/${loser}/start`);
    assert.equal((await call('GET', `/containers/${loser}/json`)).NetworkSettings.Networks[name].IPAddress, IPAddress);
    // A connect that fails for want of an address changes nothing.
    const refused = await api('POST', `/networks/${name}/connect`, { Container: winner });
    assert.equal(refused.status, 500, refused.text);
    assert.deepEqual((await call('GET', `/containers/${winner}/json`)).NetworkSettings.Networks, {});
    await engine.removeAll();
    await call('DELETE', `/networks/${name}`);
  });
}

test('connects at the same time: each once, each with an address of its own', async () => {
  await call('POST', '/networks/create', { Name: 'crowd', IPAM: { Config: [{ Subnet: '10.62.0.0/24' }] } });
  const names = Array.from({ length: 6 }, (_, index) => `crowd-${index}`);
  await Promise.all(names.map((name) => container(name, 'none')));
  await Promise.all(
    names.map(async (name) => {
      await call('POST', `/networks/none/disconnect`, { Container: name });
      await call('POST', `/containers/${name}/start`);
    }),
  );
  // Three askers for each container, one of them for an address that all want.
  const answers = await Promise.all(
    names.flatMap((Container) => [
      api('POST', '/networks/crowd/connect', {
        Container,
        EndpointConfig: { IPAMConfig: { IPv4Address: '10.62.0.99' } },
      }),
      api('POST', '/networks/crowd/connect', { Container }),
      api('POST', '/networks/crowd/connect', { Container }),
    ]),
  );
  assert.equal(answers.filter(({ status }) => status === 200).length, names.length);
  assert.ok(answers.every(({ status }) => status === 200 || status === 403));
  const members: Loose = (await call('GET', '/networks/crowd')).Containers;
  const addresses = Object.values(members).map((member) => (member as Loose).IPv4Address);
  assert.equal(new Set(addresses).size, names.length);
  assert.ok(addresses.includes('10.62.0.99/24'));
  await Promise.all(names.map((Container) => call('POST', '/networks/crowd/disconnect', { Container })));
  assert.deepEqual((await call('GET', '/networks/crowd')).Containers, {});
  await engine.removeAll();
  await call('DELETE', '/networks/crowd');
  await engine.assertNoLeaks();
});
