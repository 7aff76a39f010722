import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Addresses } from '../../src/network/addresses.ts';
import { chooseBridgeAddress, parseBridgeAddress } from '../../src/network/bridge.ts';
import {
  formatIPv4,
  formatSubnet,
  lastOf,
  macOf,
  overlap,
  parseCidr,
  parseIPv4,
  subnetOf,
} from '../../src/network/ipv4.ts';

const ip = (text: string): number => {
  const address = parseIPv4(text);
  assert.ok(address !== undefined, text);
  return address;
};
const subnet = (text: string) => {
  const parsed = parseCidr(text);
  assert.ok(parsed !== undefined, text);
  return subnetOf(parsed.address, parsed.prefixLength);
};

test('IPv4 texts', () => {
  fc.assert(fc.property(fc.ipV4(), (text) => assert.equal(formatIPv4(ip(text)), text)));
  for (const text of ['', '1.2.3', '1.2.3.4.5', '1.2.3.256', '01.2.3.4', '1.2.3.-4', '1.2.3.4 ', '::1']) {
    assert.equal(parseIPv4(text), undefined, text);
  }
  for (const text of ['1.2.3.4', '1.2.3.4/33', '1.2.3.4/', '1.2.3.4/8/8', 'x/8'])
    assert.equal(parseCidr(text), undefined, text);
  assert.equal(macOf(ip('172.17.0.2')), '02:42:ac:11:00:02');
  assert.equal(macOf(ip('10.0.0.255')), '02:42:0a:00:00:ff');
  assert.equal(formatSubnet(subnet('255.255.255.255/1')), '128.0.0.0/1');
  assert.equal(formatIPv4(lastOf(subnet('0.0.0.0/0'))), '255.255.255.255');
});

test('two subnets overlap when one holds the base of the other', () => {
  const anySubnet = fc
    .tuple(fc.nat(0xffffffff), fc.integer({ min: 0, max: 32 }))
    .map(([base, length]) => subnetOf(base, length));
  const holds = (outer: ReturnType<typeof subnetOf>, address: number) =>
    address >= outer.base && address <= lastOf(outer);
  fc.assert(
    fc.property(anySubnet, anySubnet, (a, b) => {
      assert.equal(overlap(a, b), holds(a, b.base) || holds(b, a.base));
    }),
  );
});

test('a bridge address is a host in a subnet with room', () => {
  assert.deepEqual(parseBridgeAddress('10.1.2.3/24'), { gateway: ip('10.1.2.3'), subnet: subnet('10.1.2.0/24') });
  for (const bip of ['', '10.1.2.3', '10.1.2.0/24', '10.1.2.255/24', '10.1.2.3/31', '10.1.2.3/32', 'fd00::1/64']) {
    assert.throws(() => parseBridgeAddress(bip), { kind: 'invalid' }, bip);
  }
});

test('the first free pool is chosen', () => {
  const chosen = (...used: string[]) => formatSubnet(chooseBridgeAddress(used.map(subnet)).subnet);
  assert.equal(chosen(), '172.17.0.0/16');
  assert.equal(chosen('10.0.0.0/8', '172.17.3.0/24'), '172.18.0.0/16');
  assert.equal(chosen('172.16.0.0/12'), '192.168.0.0/20');
  assert.equal(chosen('172.16.0.0/12', '192.168.1.0/24'), '192.168.16.0/20');
  assert.throws(() => chosen('128.0.0.0/1'), /set one with --bip/);
});

test('addresses go round, skip the gateway, and are given back by their holder only', () => {
  const addresses = new Addresses('n', subnet('10.0.0.0/29'), ip('10.0.0.3'));
  const next = (owner: string) => formatIPv4(addresses.allocate(owner)).slice(7);
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

  const again = new Addresses('n', subnet('10.0.0.0/29'), ip('10.0.0.1'));
  again.take(ip('10.0.0.4'), 'a');
  again.take(ip('10.0.0.4'), 'a');
  assert.throws(() => again.take(ip('10.0.0.4'), 'b'), { kind: 'conflict' });
  assert.equal(formatIPv4(again.allocate('c')), '10.0.0.5');
});
