import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hostnameFile, hostsFile, resolvConf, resolvConfOfHostNetwork } from '../../src/network/files.ts';

const none = { dns: [], dnsSearch: [], dnsOptions: [] };
const host = `# made by hand
domain old.test
search example.test corp.test
nameserver 127.0.0.1
nameserver 10.0.0.53 ; main
nameserver fd00::53
nameserver 10.0.0.54
options edns0
options rotate ndots:2
`;

test("resolv.conf: the host's, without what a container cannot reach", () => {
  assert.equal(
    resolvConf(host, none),
    'search example.test corp.test\nnameserver 10.0.0.53\nnameserver 10.0.0.54\noptions edns0 rotate ndots:2\n',
  );
});

test('resolv.conf: public servers where none is left', () => {
  const expected = 'nameserver 8.8.8.8\nnameserver 8.8.4.4\n';
  for (const text of ['', 'nameserver 127.0.0.53\n', 'nameserver ::1', 'nameserver\n'])
    assert.equal(resolvConf(text, none), expected);
});

test('resolv.conf: options win one by one; a search of "." is none', () => {
  assert.equal(
    resolvConf(host, { ...none, dns: ['127.0.0.1', '2001:db8::1'] }),
    'search example.test corp.test\nnameserver 127.0.0.1\nnameserver 2001:db8::1\noptions edns0 rotate ndots:2\n',
  );
  assert.equal(
    resolvConf(host, { dns: ['1.2.3.4'], dnsSearch: ['.'], dnsOptions: ['ndots:5'] }),
    'nameserver 1.2.3.4\noptions ndots:5\n',
  );
  assert.match(
    resolvConf(host, { ...none, dnsSearch: ['a.test', 'b.test'] }),
    /^search a\.test b\.test\nnameserver 10\.0\.0\.53\n/,
  );
});

test("resolv.conf in the host's network: as it is, loopback servers included, unless options are given", () => {
  assert.equal(resolvConfOfHostNetwork(host, none), host);
  assert.equal(
    resolvConfOfHostNetwork(host, { ...none, dnsOptions: ['debug'] }),
    'search example.test corp.test\nnameserver 127.0.0.1\nnameserver 10.0.0.53\nnameserver fd00::53\nnameserver 10.0.0.54\noptions debug\n',
  );
});

const local =
  '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\n' +
  'ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n';
const me = { addresses: ['172.17.0.2'], hostname: 'web', domainname: '', extraHosts: [], gateway: '172.17.0.1' };

test('hosts: local names, extra hosts, the container last', () => {
  assert.equal(hostsFile(me), `${local}172.17.0.2\tweb\n`);
  assert.equal(hostsFile({ ...me, domainname: 'example.test' }), `${local}172.17.0.2\tweb.example.test web\n`);
  assert.equal(
    hostsFile({ ...me, extraHosts: ['db:10.0.0.1', 'six:2001:db8::1', 'other:[fd00::2]', 'up:host-gateway'] }),
    `${local}10.0.0.1\tdb\n2001:db8::1\tsix\nfd00::2\tother\n172.17.0.1\tup\n172.17.0.2\tweb\n`,
  );
});

test("hosts without an own address, and in the host's network", () => {
  assert.equal(hostsFile({ ...me, addresses: [] }), local);
  assert.equal(
    hostsFile({ ...me, addresses: [], base: '127.0.0.1 localhost\n127.0.1.1 box', extraHosts: ['db:10.0.0.1'] }),
    '127.0.0.1 localhost\n127.0.1.1 box\n10.0.0.1\tdb\n',
  );
});

test('hostname', () => assert.equal(hostnameFile('web'), 'web\n'));
