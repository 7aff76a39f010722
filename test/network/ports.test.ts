import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseContainerPorts, parsePortRange, portsToPublish } from '../../src/network/ports.ts';

const invalid = (text: string) => ({ kind: 'invalid', message: `invalid port specification: "${text}"` });

test('container ports are read with their variants', () => {
  const table: [string, object][] = [
    ['80', { first: 80, last: 80, protocol: 'tcp' }],
    ['80/', { first: 80, last: 80, protocol: 'tcp' }],
    ['80/TCP', { first: 80, last: 80, protocol: 'tcp' }],
    ['53/udp', { first: 53, last: 53, protocol: 'udp' }],
    ['9/sctp', { first: 9, last: 9, protocol: 'sctp' }],
    ['8000-8010/udp', { first: 8000, last: 8010, protocol: 'udp' }],
    ['65535', { first: 65535, last: 65535, protocol: 'tcp' }],
  ];
  for (const [text, expected] of table) assert.deepEqual(parseContainerPorts(text), expected, text);
});

test("what is no port is refused with dockerd's words", () => {
  for (const text of ['', 'http', '-1', '1-', '-', '65536', '80-70', '8 0', '0x50', '1e3', '999999']) {
    assert.throws(() => parsePortRange(text), invalid(text));
  }
  for (const text of ['80/icmp', '80/tcp/udp', 'tcp']) assert.throws(() => parseContainerPorts(text), invalid(text));
});

test('ports to publish: bindings, exposed ports, and all of them', () => {
  const any = { HostIp: '', HostPort: '' };
  const of = (
    portBindings: Parameters<typeof portsToPublish>[0]['portBindings'],
    exposed: readonly string[] = [],
    publishAllPorts = false,
  ) =>
    Object.fromEntries(
      portsToPublish({
        portBindings,
        exposedPorts: Object.fromEntries(exposed.map((key) => [key, {}])),
        publishAllPorts,
      }),
    );

  assert.deepEqual(of(null), {});
  assert.deepEqual(of({ '80': [{ HostPort: '8080' }] }, ['80/tcp', '90/tcp']), {
    '80/tcp': [{ HostIp: '', HostPort: '8080' }],
  });
  assert.deepEqual(of({ '80/tcp': [{}], '53/UDP': [{ HostIp: '127.0.0.1', HostPort: '0' }] }), {
    '53/udp': [{ HostIp: '127.0.0.1', HostPort: '' }],
    '80/tcp': [any],
  });
  assert.deepEqual(of({ '80/tcp': null, '81/tcp': [] }), {}, 'bindings of none');
  assert.deepEqual(of({ '80/tcp': [{ HostPort: '8000-8010' }, { HostPort: '9000-9000' }] }), {
    '80/tcp': [
      { HostIp: '', HostPort: '8000-8010' },
      { HostIp: '', HostPort: '9000' },
    ],
  });
  assert.deepEqual(of({ '80/tcp': [{ HostPort: '8080' }], '70/tcp': null }, ['80', '90-91/udp'], true), {
    '80/tcp': [{ HostIp: '', HostPort: '8080' }],
    '70/tcp': [any],
    '90/udp': [any],
    '91/udp': [any],
  });
  const order = portsToPublish({
    portBindings: { '10/tcp': [{}], '9/tcp': [{}], '99/tcp': [{ HostPort: '99' }] },
    exposedPorts: null,
    publishAllPorts: false,
  });
  assert.deepEqual([...order.keys()], ['99/tcp', '9/tcp', '10/tcp'], 'numbers before free choice');

  assert.throws(() => of({ '80-81/tcp': [{}] }), invalid('80-81'));
  assert.throws(() => of({ '0/tcp': [{}] }), invalid('0'));
  assert.throws(() => of({ '80/tcp': [{ HostPort: 'web' }] }), invalid('web'));
  assert.throws(() => of(null, ['http']), invalid('http'));
});
