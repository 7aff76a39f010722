/** What a create request means, as tables: no daemon, no kernel. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { CreateBody } from '../../src/container/api.ts';
import {
  checkConfig,
  checkHostConfig,
  decodeConfig,
  decodeHostConfig,
  mergeConfig,
} from '../../src/container/decode.ts';
import { DetachScanner, parseDetachKeys } from '../../src/container/detach.ts';
import { humanDuration } from '../../src/container/duration.ts';
import { planMounts } from '../../src/container/mounts.ts';
import { checkName, inventName } from '../../src/container/names.ts';
import { checkOptions } from '../../src/container/options.ts';
import { parseSignal } from '../../src/container/signals.ts';
import { parsePs } from '../../src/container/top.ts';
import { checkLogConfig, logPlan } from '../../src/log/options.ts';

const defaults = { logDriver: 'json-file', logOpts: {}, runtime: 'crun', runtimes: ['crun', 'runc'] };
const host = (given: NonNullable<CreateBody['HostConfig']> = {}) => decodeHostConfig(given, defaults);
const refuses = (work: () => unknown, text: string | RegExp, kind = 'invalid') =>
  assert.throws(work, (error: Error & { kind?: string }) => {
    if (typeof text === 'string') assert.equal(error.message, text);
    else assert.match(error.message, text);
    assert.equal(error.kind, kind);
    return true;
  });

describe('a create request on top of an image', () => {
  const image = decodeConfig({
    Cmd: ['sh'],
    Entrypoint: ['/init'],
    Env: ['PATH=/bin', 'A=image'],
    Labels: { from: 'image', both: 'image' },
    ExposedPorts: { '80/tcp': {} },
    WorkingDir: '/srv',
    User: 'app',
  });
  const merge = (body: CreateBody) => mergeConfig(decodeConfig(body), image);

  it('takes what the user left out from the image', () => {
    const merged = merge({});
    assert.deepEqual(
      [merged.Cmd, merged.Entrypoint, merged.WorkingDir, merged.User],
      [['sh'], ['/init'], '/srv', 'app'],
    );
  });
  it('keeps the entrypoint and replaces Cmd', () => {
    assert.deepEqual(merge({ Cmd: ['ls', '-l'] }).Cmd, ['ls', '-l']);
    assert.deepEqual(merge({ Cmd: ['ls'] }).Entrypoint, ['/init']);
  });
  it("drops the image's Cmd when the entrypoint is the user's", () => {
    assert.equal(merge({ Entrypoint: ['/bin/true'] }).Cmd, null);
  });
  it('clears the entrypoint by one empty word', () => {
    const merged = merge({ Entrypoint: [''], Cmd: ['ls'] });
    assert.deepEqual(
      [merged.Entrypoint, merged.Cmd],
      [[], ['ls']],
      'null would be the image’s, made anew of an inspect',
    );
  });
  it('merges Env and Labels by key, the user first', () => {
    const merged = merge({ Env: ['A=user', 'B=1'], Labels: { both: 'user' } });
    assert.deepEqual(merged.Env, ['A=user', 'B=1', 'PATH=/bin']);
    assert.deepEqual({ ...merged.Labels }, { from: 'image', both: 'user' });
  });
  it('needs a command', () => {
    refuses(() => checkConfig(decodeConfig({})), 'No command specified');
  });
  it('refuses a relative working directory and a null byte', () => {
    refuses(() => checkConfig(decodeConfig({ Cmd: ['a'], WorkingDir: 'x' })), /needs to be an absolute path/);
    refuses(() => checkConfig(decodeConfig({ Cmd: ['a\0b'] })), /null byte/);
  });
});

describe('HostConfig', () => {
  const refusals: readonly (readonly [NonNullable<CreateBody['HostConfig']>, string])[] = [
    [{ RestartPolicy: { Name: 'sometimes' as 'no', MaximumRetryCount: 0 } }, "invalid restart policy 'sometimes'"],
    [
      { RestartPolicy: { Name: 'always', MaximumRetryCount: 3 } },
      "maximum retry count cannot be used with restart policy 'always'",
    ],
    [{ RestartPolicy: { Name: 'on-failure', MaximumRetryCount: -1 } }, 'maximum retry count cannot be negative'],
    [
      { AutoRemove: true, RestartPolicy: { Name: 'always', MaximumRetryCount: 0 } },
      "can't create 'AutoRemove' container with restart policy",
    ],
    [{ Runtime: 'kata' }, 'Unknown runtime specified kata'],
    [
      { LogConfig: { Type: 'carrier-pigeon', Config: {} } },
      "logger: no log driver named 'carrier-pigeon' is registered",
    ],
    [
      { LogConfig: { Type: 'json-file', Config: { colour: 'red' } } },
      "unknown log opt 'colour' for json-file log driver",
    ],
  ];
  for (const [given, text] of refusals) {
    it(`refuses ${JSON.stringify(given)}`, () => refuses(() => checkHostConfig(host(given), defaults), text));
  }
  it('accepts what its own inspect shows', () => {
    const once = host({ Memory: 64_000_000, CapAdd: ['NET_ADMIN'], Binds: ['/a:/b'] });
    const again = host(once as NonNullable<CreateBody['HostConfig']>);
    assert.deepEqual(again, once);
    assert.doesNotThrow(() => checkHostConfig(again, defaults));
  });
  it('refuses by name what it cannot do', () => {
    refuses(
      () => checkOptions(decodeConfig({}), host({ Cgroup: 'x' })),
      /^HostConfig\.Cgroup is not supported/,
      'not-implemented',
    );
    assert.deepEqual(checkOptions(decodeConfig({}), host({ SecurityOpt: ['no-new-privileges'] })), []);
  });
  it('limits logs unless told otherwise', () => {
    const limits = (Config: Record<string, string>) => logPlan({ Type: 'json-file', Config }).limits;
    const check = (Config: Record<string, string>) => checkLogConfig({ Type: 'json-file', Config });
    assert.deepEqual(limits({}), { maxSize: 20_000_000, maxFiles: 5, compress: false });
    assert.deepEqual(limits({ 'max-size': '10k', 'max-file': '3' }), { maxSize: 10_000, maxFiles: 3, compress: false });
    assert.deepEqual(limits({ 'max-size': '-1' }), { maxSize: 0, maxFiles: 1, compress: false });
    refuses(() => check({ 'max-size': 'plenty' }), /invalid size: 'plenty'/);
    refuses(() => check({ 'max-file': '0' }), /max-file cannot be less than 1/);
  });
});

describe('mounts', () => {
  const plan = (binds: readonly string[], volumes: Record<string, Record<string, never>> = {}) =>
    planMounts(decodeConfig({ Volumes: volumes }), host({ Binds: binds }), {
      mountsOf: () => [],
      dataRoot: '/var/lib/slipway',
    }).map(({ mount }) => mount);

  it('reads binds, named and anonymous volumes', () => {
    const mounts = plan(['/host:/a:ro', 'data:/b', '/x/../y:/c/:rslave'], { '/b': {}, '/d': {} });
    assert.deepEqual(
      mounts.map((m) => [m.type, m.name ?? m.source, m.destination, m.writable, m.propagation, m.anonymous ?? false]),
      [
        ['bind', '/host', '/a', false, 'rprivate', false],
        ['volume', 'data', '/b', true, '', false],
        ['bind', '/y', '/c', true, 'rslave', false],
        ['volume', '', '/d', true, '', true],
      ],
    );
  });
  for (const [bind, text] of [
    ['a', /invalid volume specification: 'a'/],
    ['/', /destination can't be '\/'/],
    ['/a:b', /mount path must be absolute/],
    ['/a:/', /destination can't be '\/'/],
    ['/a:/b:rw,fast', /invalid mode: rw,fast/],
    ['/a:/b:ro:x', /invalid volume specification/],
  ] as const) {
    it(`refuses ${bind}`, () => refuses(() => plan([bind]), text));
  }
  it('refuses two mounts at one place', () => refuses(() => plan(['/a:/x', '/b:/x/']), 'Duplicate mount point: /x'));
});

describe('small words', () => {
  it('knows signals by name and number', () => {
    assert.deepEqual(['KILL', 'sigterm', '9', 'RTMIN+3', 'SIGRTMAX-1'].map(parseSignal), [9, 15, 9, 37, 63]);
    for (const bad of ['0', '65', 'NOPE', '-1', 'RTMAX+1', ''])
      refuses(() => parseSignal(bad), `Invalid signal: ${bad}`);
  });
  it('checks and invents names', () => {
    assert.equal(checkName('/web.1'), 'web.1');
    for (const bad of ['', '/', '-a', 'a b', 'ä', 'a']) refuses(() => checkName(bad), /Invalid container name/);
    const taken = new Set<string>();
    for (let i = 0; i < 20_000; i++) {
      const name = inventName((n) => taken.has(n));
      assert.equal(checkName(name), name);
      assert.ok(!taken.has(name));
      taken.add(name);
    }
  });
  it('finds detach keys across pieces and gives back what was none', () => {
    const scanner = new DetachScanner(parseDetachKeys(''));
    const pass = (bytes: number[]) => [...scanner.scan(Uint8Array.from(bytes)).pass];
    assert.deepEqual(pass([97, 16]), [97]);
    assert.deepEqual(pass([98]), [16, 98]);
    assert.deepEqual(pass([16, 16]), [16]);
    assert.equal(scanner.scan(Uint8Array.of(17, 99)).detached, true);
    assert.deepEqual([...parseDetachKeys('ctrl-a,x,ctrl-@')], [1, 120, 0]);
    refuses(() => parseDetachKeys('ctrl-ab'), 'Invalid escape keys (ctrl-ab) provided');
  });
  it('says durations as docker ps does', () => {
    const cases: readonly (readonly [number, string])[] = [
      [0, 'Less than a second'],
      [1, '1 second'],
      [59, '59 seconds'],
      [60, 'About a minute'],
      [3599, '59 minutes'],
      [3600, 'About an hour'],
      [47 * 3600, '47 hours'],
      [13 * 86400, '13 days'],
      [20 * 86400, '2 weeks'],
      [90 * 86400, '3 months'],
      [800 * 86400, '2 years'],
    ];
    for (const [seconds, text] of cases) assert.equal(humanDuration(seconds * 1000), text);
  });
  it('picks the rows of a container out of ps, the command with its blanks', () => {
    const output = 'UID   PID CMD\nroot    1 init -x\nroot   12 sleep  10\n';
    assert.deepEqual(parsePs(output, new Set([12])), {
      Titles: ['UID', 'PID', 'CMD'],
      Processes: [['root', '12', 'sleep 10']],
    });
    refuses(() => parsePs('A B\n', new Set()), "Couldn't find PID field in ps output");
  });
});
