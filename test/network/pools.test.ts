import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Address, formatAddress, formatSubnet, parseAddress, parseSubnet } from '../../src/lib/ip.ts';
import { parseBridgeAddress } from '../../src/network/bridge.ts';
import { Addresses, chooseSubnet, defaultPools, defaultPools6, poolOf } from '../../src/network/pools.ts';
import type { IpamConfig } from '../../src/network/types.ts';

const ip = (text: string): Address => parseAddress(text) ?? assert.fail(text);
const subnet = (text: string) => parseSubnet(text) ?? assert.fail(text);
const owner = (name: string) => ({ id: name, name: `container ${name}` });

test('a bridge address is a host in a subnet with room', () => {
  const pool = { subnet: '10.1.2.0/24', range: '10.1.2.0/24', gateway: '10.1.2.3', reserved: {} };
  assert.deepEqual(parseBridgeAddress('10.1.2.3/24'), pool);
  for (const bip of ['', '10.1.2.3', '10.1.2.0/24', '10.1.2.255/24', '10.1.2.3/31', '10.1.2.3/32', 'fd00::1/64'])
    assert.throws(() => parseBridgeAddress(bip), { kind: 'invalid' }, bip);
});

test('the first free subnet of the pools is chosen', () => {
  const chosen = (...used: string[]) =>
    formatSubnet(
      chooseSubnet(
        defaultPools,
        4,
        used.map((text) => ({ subnet: subnet(text), holder: `holder of ${text}` })),
      ),
    );
  assert.equal(chosen(), '172.17.0.0/16');
  assert.equal(chosen('10.0.0.0/8', '172.17.3.0/24'), '172.18.0.0/16');
  assert.equal(chosen('172.16.0.0/12'), '192.168.0.0/20');
  assert.equal(chosen('172.16.0.0/12', '192.168.1.0/24'), '192.168.16.0/20');
  assert.equal(chosen('172.16.0.0/12', '192.168.0.0/16', '10.192.0.0/15'), '10.194.0.0/20');
  assert.equal(chosen('fd00::/8'), '172.17.0.0/16');
  assert.throws(
    () => chosen('128.0.0.0/1', '0.0.0.0/1'),
    /taken by holder of 128\.0\.0\.0\/1, holder of 0\.0\.0\.0\/1$/,
  );
  assert.equal(formatSubnet(chooseSubnet(defaultPools6, 6, [])), 'fdd5:1f2a:7c00::/64');
});

test('more than a thousand networks fit, none overlapping', () => {
  const taken: { subnet: ReturnType<typeof subnet>; holder: string }[] = [];
  for (let index = 0; index < 1050; index++) {
    const next = chooseSubnet(defaultPools, 4, taken);
    taken.push({ subnet: next, holder: String(index) });
  }
  assert.equal(new Set(taken.map((each) => formatSubnet(each.subnet))).size, 1050);
});

test('range, gateway and auxiliary addresses of a pool', () => {
  const pool = (config: IpamConfig) => poolOf(config, subnet('10.5.0.0/24'), true);
  assert.equal(pool({}).gateway, '10.5.0.1');
  assert.equal(pool({ auxiliaryAddresses: { router: '10.5.0.1' } }).gateway, '10.5.0.2');
  assert.equal(pool({ gateway: '10.5.0.77' }).gateway, '10.5.0.77');
  assert.equal(pool({ ipRange: '10.5.0.128/25' }).range, '10.5.0.128/25');
  for (const bad of [
    { ipRange: '10.6.0.0/25' },
    { ipRange: '10.5.0.0/16' },
    { gateway: '10.6.0.1' },
    { gateway: 'x' },
    { auxiliaryAddresses: { a: 'x' } },
  ])
    assert.throws(() => pool(bad), { kind: 'invalid' }, JSON.stringify(bad));
  // Neither the subnet's own address, nor everybody's, nor one given twice.
  for (const bad of [
    { gateway: '10.5.0.0' },
    { gateway: '10.5.0.255' },
    { auxiliaryAddresses: { a: '10.6.0.1' } },
    { auxiliaryAddresses: { a: '10.5.0.255' } },
    { auxiliaryAddresses: { a: '10.5.0.9', b: '10.5.0.9' } },
    { gateway: '10.5.0.9', auxiliaryAddresses: { a: '10.5.0.9' } },
  ])
    assert.throws(() => pool(bad), { kind: 'forbidden' }, JSON.stringify(bad));
  for (const narrow of ['10.5.0.0/31', '10.5.0.0/32', 'fd00::1/128'])
    assert.throws(() => poolOf({}, subnet(narrow), true), /No available addresses on this pool/, narrow);
});

test('addresses go round, skip the gateway, and are given back by their holder only', () => {
  const pool = poolOf({ gateway: '10.0.0.3' }, subnet('10.0.0.0/29'), true);
  const addresses = new Addresses('n', pool);
  const next = (name: string) => formatAddress(addresses.allocate(owner(name))).slice(7);
  assert.deepEqual(['a', 'b', 'c'].map(next), ['1', '2', '4']);
  addresses.release(ip('10.0.0.2'), 'b');
  addresses.release(ip('10.0.0.4'), 'b');
  assert.deepEqual(['d', 'e', 'f'].map(next), ['5', '6', '2'], '10.0.0.2 only after the others');
  assert.throws(() => next('g'), {
    kind: 'internal',
    message: "no available IPv4 addresses on this network's address pools: n",
  });
  addresses.release(ip('10.0.0.5'), 'd');
  assert.equal(next('g'), '5');

  const again = new Addresses('n', poolOf({}, subnet('10.0.0.0/29'), true));
  again.take(ip('10.0.0.4'), owner('a'));
  again.take(ip('10.0.0.4'), owner('a'));
  assert.throws(() => again.take(ip('10.0.0.4'), owner('b')), {
    kind: 'forbidden',
    message: 'Address already in use: 10.0.0.4 of n belongs to container a',
  });
  assert.throws(() => again.allocate(owner('b'), ip('10.0.0.1')), /belongs to the gateway$/);
  assert.throws(() => again.allocate(owner('b'), ip('10.0.1.1')), { kind: 'invalid' });
  assert.equal(formatAddress(again.allocate(owner('c'))), '10.0.0.5');

  const six = new Addresses('n', poolOf({ ipRange: 'fd00::100/120' }, subnet('fd00::/64'), true));
  assert.equal(formatAddress(six.allocate(owner('a'))), 'fd00::101', 'the gateway has fd00::100');
});
