import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { readCommandLine, usage } from '../../src/config/cli.ts';
import { loadConfig, reloadConfig } from '../../src/config/config.ts';
import { options } from '../../src/config/options.ts';

function file(t: TestContext, content: unknown): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-config-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const name = path.join(dir, 'daemon.json');
  fs.writeFileSync(name, typeof content === 'string' ? content : JSON.stringify(content));
  return name;
}

const load = (t: TestContext, argv: readonly string[], content: unknown = {}) =>
  loadConfig([...argv, '--config-file', file(t, content)]);

describe('configuration', () => {
  it('has defaults', (t) => {
    const config = load(t, []);
    assert.deepEqual(config.hosts, ['unix:///run/slipway/slipway.sock']);
    assert.equal(config.dataRoot, '/var/lib/slipway');
    assert.equal(config.execRoot, '/run/slipway');
    assert.equal(config.pidFile, '/run/slipway/slipway.pid');
    assert.equal(config.group, 'docker');
    assert.equal(config.logLevel, 'info');
    assert.equal(config.apiShape, 'open');
    assert.ok(Object.isFrozen(config) && Object.isFrozen(config.hosts));
  });

  it('takes flags in every spelling', (t) => {
    const config = load(t, [
      ...['-H', 'unix:///tmp/a.sock', '--host=tcp://127.0.0.1:2375', '-Hfd://', '-H=unix:///tmp/b.sock'],
      ...['-D', '--tls=false', '--tlsverify', '-l', 'warning', '-p', '', '--label', 'a=b', '--label=c=d=e'],
      ...[
        '--mtu',
        '1400',
        '--log-opt',
        'max-size=10m',
        '--log-opt',
        'max-file=3',
        '--default-ulimit',
        'nofile=1024:2048',
      ],
      ...['--add-runtime', 'gvisor=/usr/bin/runsc', '--default-runtime', 'gvisor', '--bip', '10.1.0.1/24'],
      ...['--registry-mirror', 'https://mirror.example', '--insecure-registry', '10.0.0.0/8', '--dns', '::1'],
    ]);
    assert.deepEqual(config.hosts, ['unix:///tmp/a.sock', 'tcp://127.0.0.1:2375', 'fd://', 'unix:///tmp/b.sock']);
    assert.equal(config.debug, true);
    assert.equal(config.tls, false);
    assert.equal(config.tlsVerify, true);
    assert.equal(config.logLevel, 'warn');
    assert.equal(config.pidFile, '');
    assert.deepEqual(config.labels, ['a=b', 'c=d=e']);
    assert.equal(config.mtu, 1400);
    assert.deepEqual(config.logOpts, { 'max-size': '10m', 'max-file': '3' });
    assert.deepEqual(config.defaultUlimits, { nofile: { Name: 'nofile', Soft: 1024, Hard: 2048 } });
    assert.deepEqual(config.runtimes, { gvisor: { path: '/usr/bin/runsc', runtimeArgs: [] } });
    assert.equal(config.defaultRuntime, 'gvisor');
    assert.deepEqual(config.registryMirrors, ['https://mirror.example/']);
  });

  it('takes pools of subnets from flags', (t) => {
    const pools = ['base=10.0.0.0/16,size=24', 'base=fd00::/48,size=64'];
    const config = load(
      t,
      pools.flatMap((pool) => ['--default-address-pool', pool]),
    );
    assert.deepEqual(config.defaultAddressPools, [
      { base: '10.0.0.0/16', size: 24 },
      { base: 'fd00::/48', size: 64 },
    ]);
  });

  it('takes the same from the file, and joins runtimes of both', (t) => {
    const config = load(t, ['--add-runtime', 'b=/b'], {
      hosts: ['unix:///tmp/a.sock'],
      debug: true,
      'max-concurrent-downloads': 2,
      'log-opts': { 'max-size': '1m' },
      runtimes: { a: { path: '/a', runtimeArgs: ['--x'] } },
      'default-ulimits': { nofile: { Name: 'nofile', Soft: 1, Hard: 2 } },
      'default-runtime': 'a',
    });
    assert.deepEqual(config.hosts, ['unix:///tmp/a.sock']);
    assert.equal(config.maxConcurrentDownloads, 2);
    assert.deepEqual(Object.keys(config.runtimes), ['a', 'b']);
    assert.deepEqual(config.defaultUlimits, { nofile: { Name: 'nofile', Soft: 1, Hard: 2 } });
  });

  const refused: readonly (readonly [string, readonly string[], unknown, RegExp])[] = [
    ['unknown flag', ['--nope'], {}, /^unknown flag: --nope$/],
    [
      'pool too small',
      ['--default-address-pool', 'base=10.0.0.0/16,size=8'],
      {},
      /size 8 of pool 10\.0\.0\.0\/16 is not/,
    ],
    ['pool without size', ['--default-address-pool', 'base=10.0.0.0/16'], {}, /expected \{"base": CIDR, "size"/],
    [
      'pool that is none',
      [],
      { 'default-address-pools': [{ base: 'x', size: 24 }] },
      /expected \{"base": CIDR, "size"/,
    ],
    ['address that is none', ['--ip', 'fd00::1'], {}, /fd00::1 is not an IPv4 address/],
    ['argument', ['run'], {}, /"run"/],
    ['value that is a flag', ['--bip'], {}, /slipwayd takes no arguments/],
    ['number', ['--mtu', 'big'], {}, /^invalid argument "big" for --mtu: expected a whole number$/],
    ['too small', ['--mtu', '1'], {}, /^--mtu: 1 is less than 68$/],
    ['switch', ['--tls=maybe'], {}, /^invalid argument "maybe" for --tls/],
    ['host', ['-H', 'http://x'], {}, /^--host: invalid address "http:\/\/x"/],
    ['label', ['--label', 'x'], {}, /^--label: bad attribute format: x/],
    ['bip', ['--bip', '10.0.0.1'], {}, /^--bip: invalid CIDR address: 10.0.0.1$/],
    ['dns', ['--dns', 'example'], {}, /^--dns: example is not an ip address$/],
    ['registry', ['--insecure-registry', 'http://x'], {}, /^--insecure-registry: .*should not contain/],
    ['mirror', ['--registry-mirror', 'x:5000'], {}, /^--registry-mirror: invalid mirror: "x:5000"/],
    ['ulimit', ['--default-ulimit', 'nofile=5:1'], {}, /--default-ulimit: ulimit soft limit must be/],
    ['runtime', ['--default-runtime', 'x'], {}, /'x' does not exist/],
    ['level', ['--log-level', 'loud'], {}, /^--log-level: "loud" is not one of/],
    [
      'unknown keys',
      [],
      { a: 1, hosts: [], b: 2 },
      /daemon.json: the following directives don't match any configuration option: a, b$/,
    ],
    [
      'wrong type',
      [],
      { hosts: 'unix:///x' },
      /"hosts" in .*daemon.json: expected a list of strings, not "unix:\/\/\/x"$/,
    ],
    ['wrong type', [], { debug: 'yes' }, /"debug" in .*: expected true or false/],
    ['wrong type', [], { mtu: 1.5 }, /"mtu" in .*: expected a whole number/],
    ['wrong type', [], { runtimes: { a: '/x' } }, /"runtimes" in .*: expected {"path": string/],
    ['wrong type', [], { 'log-opts': { 'max-file': 3 } }, /"log-opts" in .*: expected an object of strings/],
    ['not JSON', [], '{', /unable to configure slipwayd with file .*daemon.json: /],
    ['not an object', [], '[]', /not a JSON object/],
    [
      'flag and file',
      ['-H', 'unix:///a', '--debug'],
      { hosts: ['unix:///b'], debug: false },
      /daemon.json: the following directives are specified both as a flag and in the configuration file: hosts: \(from flag: \[unix:\/\/\/a\], from file: \[unix:\/\/\/b\]\), debug: \(from flag: true, from file: false\)$/,
    ],
  ];
  for (const [name, argv, content, message] of refused) {
    it(`refuses: ${name} ${JSON.stringify(argv.length > 0 ? argv : content)}`, (t) => {
      assert.throws(() => load(t, argv, content), { kind: 'invalid', message });
    });
  }

  it('needs the file only when it is named', () => {
    assert.throws(() => loadConfig(['--config-file']), /flag needs an argument: --config-file/);
    assert.throws(() => loadConfig(['--config-file', '/nonexistent/daemon.json']), /\/nonexistent\/daemon.json/);
  });

  it('reloads what can be reloaded and names the rest', (t) => {
    const name = file(t, { labels: ['a=1'], mtu: 1400 });
    const argv = ['--config-file', name, '--data-root', '/data'];
    const before = loadConfig(argv);
    fs.writeFileSync(name, JSON.stringify({ labels: ['a=2'], mtu: 1300, debug: true }));
    const { config, changed, needRestart } = reloadConfig(before, argv);
    assert.deepEqual(changed, ['debug', 'labels']);
    assert.deepEqual(needRestart, ['mtu']);
    assert.equal(config.mtu, 1400);
    assert.deepEqual(config.labels, ['a=2']);
    assert.equal(config.dataRoot, '/data');
    fs.writeFileSync(name, '{"labels": 5}');
    assert.throws(() => reloadConfig(config, argv), /"labels"/);
  });

  it('explains itself', () => {
    assert.deepEqual(readCommandLine(['--debug', '--help']), { is: 'help' });
    assert.deepEqual(readCommandLine(['-v']), { is: 'version' });
    const text = usage();
    for (const { flag } of options) assert.ok(text.includes(`--${flag}`));
    for (const line of text.split('\n')) assert.ok(line.length <= 165, line);
  });
});

describe('docs/configuration.md', () => {
  it('has a row for every setting', () => {
    const page = fs.readFileSync(path.join(import.meta.dirname, '../../docs/configuration.md'), 'utf8');
    for (const { flag, key, reloads } of options) {
      const row = page.split('\n').find((line) => line.includes(`\`--${flag}\` | \`${key}\` |`));
      assert.ok(row, `a row for --${flag}`);
      assert.equal(row.includes('| yes |'), reloads === true, `--${flag} reloads`);
    }
  });
});
