import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  addressOfBytes,
  bytesOf,
  contains,
  formatAddress,
  formatSubnet,
  lastOf,
  macOf,
  overlap,
  parseAddress,
  parseCidr,
  parseSubnet,
  type Subnet,
  subnetOf,
} from '../../src/lib/ip.ts';

const ip = (text: string) => {
  const address = parseAddress(text);
  assert.ok(address !== undefined, text);
  return address;
};
const subnet = (text: string): Subnet => {
  const parsed = parseSubnet(text);
  assert.ok(parsed !== undefined, text);
  return parsed;
};

test('IPv4 texts', () => {
  fc.assert(fc.property(fc.ipV4(), (text) => assert.equal(formatAddress(ip(text)), text)));
  for (const text of ['', '1.2.3', '1.2.3.4.5', '1.2.3.256', '01.2.3.4', '1.2.3.-4', '1.2.3.4 '])
    assert.equal(parseAddress(text), undefined, text);
  for (const text of ['1.2.3.4', '1.2.3.4/33', '1.2.3.4/', '1.2.3.4/8/8', 'x/8', 'fd00::/129', '::1'])
    assert.equal(parseCidr(text), undefined, text);
  assert.equal(macOf(ip('172.17.0.2')), '02:42:ac:11:00:02');
  assert.equal(macOf(ip('10.0.0.255')), '02:42:0a:00:00:ff');
  assert.equal(formatSubnet(subnet('255.255.255.255/1')), '128.0.0.0/1');
  assert.equal(lastOf(subnet('0.0.0.0/0')), 0xffffffffn);
});

test('IPv6 texts: what Node takes for an address is read, and written as RFC 5952 says', () => {
  fc.assert(fc.property(fc.ipV6(), (text) => assert.equal(parseAddress(text) !== undefined, net.isIPv6(text), text)));
  fc.assert(
    fc.property(fc.ipV6(), (text) => {
      const canonical = formatAddress(ip(text));
      assert.equal(formatAddress(ip(canonical)), canonical);
      assert.deepEqual(addressOfBytes(bytesOf(ip(text))), ip(text));
    }),
  );
  for (const [text, canonical] of [
    ['::', '::'],
    ['0:0:0:0:0:0:0:1', '::1'],
    ['2001:DB8::0:1', '2001:db8::1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'],
    ['1:0:0:2:3:0:0:4', '1::2:3:0:0:4'],
    ['::ffff:1.2.3.4', '::ffff:102:304'],
  ] as const)
    assert.equal(formatAddress(ip(text)), canonical);
  for (const text of [
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    'g::',
    '12345::',
    '::1%eth0',
    '::1.2.3',
  ])
    assert.equal(parseAddress(text), undefined, text);
  assert.equal(formatSubnet(subnet('fd00:1:2::ffff/48')), 'fd00:1:2::/48');
});

test('two subnets overlap when one holds the base of the other', () => {
  const anySubnet = fc.oneof(
    fc.tuple(fc.ipV4(), fc.integer({ min: 0, max: 32 })),
    fc.tuple(fc.ipV6(), fc.integer({ min: 0, max: 128 })),
  );
  fc.assert(
    fc.property(anySubnet, anySubnet, ([a, aLength], [b, bLength]) => {
      const [one, two] = [subnetOf(ip(a), aLength), subnetOf(ip(b), bLength)];
      const base = ({ family, base: value }: Subnet) => ({ family, value });
      assert.equal(overlap(one, two), contains(one, base(two)) || contains(two, base(one)));
    }),
  );
});
