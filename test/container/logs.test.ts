/**
 * Log drivers of real containers: what reaches a sink, what a client reads, and what a sink cannot do to an engine.
 *
 * test-timeout-seconds: 240
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { eventually, sleep } from '../support/command.ts';
import { repository, TestEngine } from '../support/engine.ts';
import { demultiplex } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';
import { startSink } from '../support/log-sink.ts';
import { unpack } from '../support/msgpack.ts';
import { Netns } from '../support/netns.ts';

const here = Netns.own();
let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start({ netns: here, kind: 'slipway' });
  await importBusybox(engine);
});
after(() => engine?.close());

type Options = Readonly<Record<string, string>>;

async function create(
  Type: string,
  Config: Options,
  script: string,
  body: object = {},
  host: object = {},
  on = engine,
) {
  const { Id } = await on.call('POST', '/v1.26/containers/create', {
    Image: 'busybox',
    Cmd: ['sh', '-c', script],
    ...body,
    HostConfig: { LogConfig: { Type, Config }, ...host },
  });
  return Id as string;
}

async function start(...args: Parameters<typeof create>): Promise<string> {
  const id = await create(...args);
  await (args[5] ?? engine).call('POST', `/v1.26/containers/${id}/start`);
  return id;
}

const wait = (id: string) => engine.call('POST', `/v1.26/containers/${id}/wait`);
const logs = (id: string, query = '') => engine.api('GET', `/v1.26/containers/${id}/logs?stdout=1&stderr=1${query}`);
const syslogTo = (port: number): Options => ({
  'syslog-address': `tcp://127.0.0.1:${port}`,
  'syslog-format': 'rfc3164',
});
const counted = (count: number, from = 0) => Array.from({ length: count }, (_, index) => from + index);

/** Numbers in the order they came first. */
function numbers(text: string): number[] {
  return [...new Set([...text.matchAll(/\]: n(\d+)\n/g)].map(([, digits]) => Number(digits)))];
}

describe('what a client reads', () => {
  test('with any driver but none, the lines come back', async (t) => {
    const sink = await startSink(t, here, { kind: 'tcp' });
    for (const [type, options] of [
      ['json-file', {}],
      ['local', {}],
      ['syslog', syslogTo(sink.port)],
      ['gelf', { 'gelf-address': 'udp://127.0.0.1:9' }],
      ['fluentd', { 'fluentd-address': '127.0.0.1:9' }],
      ['journald', {}],
    ] as const) {
      const id = await start(type, options, 'echo err >&2; sleep 0.1; echo out; echo last');
      await wait(id);
      const { status, body } = await logs(id);
      assert.equal(status, 200);
      assert.deepEqual(demultiplex(body), { stdout: 'out\nlast\n', stderr: 'err\n' }, type);
      assert.equal(demultiplex((await logs(id, '&tail=1')).body).stdout, 'last\n');
      const { LogPath, HostConfig } = await engine.call('GET', `/v1.26/containers/${id}/json`);
      assert.deepEqual(HostConfig.LogConfig, { Type: type, Config: options });
      assert.equal(LogPath !== '', type === 'json-file');
    }
  });

  test('none and a disabled cache cannot be read, but attached to', async () => {
    for (const [type, options] of [
      ['none', {}],
      ['gelf', { 'gelf-address': 'udp://127.0.0.1:9', 'cache-disabled': 'true' }],
    ] as const) {
      const id = await start(type, options, 'echo out');
      await wait(id);
      const answer = await logs(id);
      assert.equal(answer.status, 501, answer.text);
      assert.equal(answer.json().message, 'configured logging driver does not support reading');
    }
    const flags = ['--log-driver', 'none'];
    assert.equal(await engine.mustDocker(['run', '--rm', ...flags, 'busybox', 'echo', 'seen']), 'seen\n');
  });

  test('details are attributes as a query, before the text and behind the stamp', async () => {
    const id = await start(
      'json-file',
      { labels: 'l1,l.2,none', env: 'E1', tag: '{{.Name}}' },
      'echo one; yes abcdefghijklmnopqrstuvwxyz | head -5000; sleep 0.1; echo two >&2',
      { Env: ['E1=v 1', 'E2=x'], Labels: { l1: 'x,y', 'l.2': 'z=' } },
    );
    await wait(id);
    const name = (await engine.call('GET', `/v1.26/containers/${id}/json`)).Name.slice(1);
    const attributes = `E1=v+1,l.2=z%3D,l1=x%2Cy,tag=${name} `;
    const { stdout, stderr } = demultiplex((await logs(id, '&details=1')).body);
    assert.equal(stderr, `${attributes}two\n`);
    assert.equal(stdout, [`${attributes}one\n`, `${attributes}abcdefghijklmnopqrstuvwxyz\n`.repeat(5000)].join(''));
    const stamped = demultiplex((await logs(id, '&details=1&timestamps=1&tail=1')).body).stderr;
    assert.match(stamped, /^2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z E1=v\+1,/);
    const plain = await start('json-file', {}, 'echo one');
    await wait(plain);
    assert.equal(demultiplex((await logs(plain, '&details=1')).body).stdout, ' one\n');
  });

  test('a follower of a container that has not begun gets all of it', async () => {
    const id = await create('local', {}, 'for i in 1 2 3; do echo $i; sleep 0.1; done');
    const following = logs(id, '&follow=1');
    await sleep(200);
    await engine.call('POST', `/v1.26/containers/${id}/start`);
    assert.equal(demultiplex((await following).body).stdout, '1\n2\n3\n');
  });

  test('a follower and a sink see each line once while compressed files come and go', async (t) => {
    const sink = await startSink(t, here, { kind: 'tcp' });
    const script = 'i=0; while [ $i -lt 12000 ]; do echo n$i; i=$((i+1)); done';
    const options = { 'cache-max-size': '30k', 'cache-max-file': '3' };
    const id = await create('syslog', { ...syslogTo(sink.port), ...options }, script);
    const following = logs(id, '&follow=1');
    await sleep(100);
    await engine.call('POST', `/v1.26/containers/${id}/start`);
    await wait(id);
    const seen = [...demultiplex((await following).body).stdout.matchAll(/n(\d+)\n/g)].map(([, n]) => Number(n));
    assert.deepEqual(seen, counted(12_000));
    await sink.until((text) => text.includes('n11999\n'));
    assert.deepEqual(numbers(sink.text()), counted(12_000));
    assert.equal(sink.text().split('\n').length - 1, 12_000);
  });

  test('a line of 1 MB comes back whole, here and there', async (t) => {
    const sink = await startSink(t, here, { kind: 'tcp' });
    const id = await start('syslog', syslogTo(sink.port), 'head -c 1000000 /dev/zero | tr "\\0" x; echo; echo end');
    await wait(id);
    const { stdout } = demultiplex((await logs(id)).body);
    assert.ok(stdout === `${'x'.repeat(1_000_000)}\nend\n`, `${stdout.length} bytes`);
    await sink.until((text) => text.endsWith('end\n'));
    assert.deepEqual(
      sink
        .text()
        .split('\n')
        .map((line) => line.replace(/^.*?\]: /, '').length),
      [1_000_000, 3, 0],
    );
  });
});

describe('the daemon', () => {
  test('lists its drivers, and fills in its own options', async (t) => {
    const sink = await startSink(t, here, { kind: 'tcp' });
    const own = await TestEngine.start({
      netns: here,
      kind: 'slipway',
      config: {
        bip: '10.201.0.1/24',
        'log-driver': 'syslog',
        'log-opts': { ...syslogTo(sink.port), tag: '{{.Name}}' },
      },
    });
    t.after(() => own.close());
    await importBusybox(own);
    const info = await own.call('GET', '/v1.26/info');
    assert.equal(info.LoggingDriver, 'syslog');
    assert.deepEqual(info.Plugins.Log, ['fluentd', 'gelf', 'journald', 'json-file', 'local', 'none', 'syslog']);
    await own.mustDocker(['run', '--rm', '--name', 'web', '--network', 'none', 'busybox', 'echo', 'by default']);
    await sink.until((text) => / web\[\d+\]: by default\n$/.test(text));
    // What the file says next counts for the next container; what is wrong changes nothing.
    const write = (config: object) => fs.writeFileSync(own.paths.configFile, JSON.stringify(config));
    write({ bip: '10.201.0.1/24', 'log-driver': 'carrier-pigeon' });
    process.kill(own.pid, 'SIGHUP');
    await eventually(() =>
      assert.match(own.log, /failed to set log opts: logger: no log driver named 'carrier-pigeon'/),
    );
    assert.equal((await own.call('GET', '/v1.26/info')).LoggingDriver, 'syslog');
    write({ bip: '10.201.0.1/24', 'log-driver': 'local' });
    process.kill(own.pid, 'SIGHUP');
    await eventually(async () => assert.equal((await own.call('GET', '/v1.26/info')).LoggingDriver, 'local'));
    await own.stop();
    await assert.rejects(
      own.launch(['--log-opt', 'x=1']),
      /failed to set log opts: unknown log opt 'x' for log driver local/,
    );
  });

  test('refuses at create what dockerd refuses', async () => {
    for (const [Type, Config, message] of [
      ['nope', {}, "logger: no log driver named 'nope' is registered"],
      ['gelf', {}, 'gelf-address is a required parameter'],
      ['syslog', { 'syslog-format': 'x' }, 'Invalid syslog format'],
    ] as const) {
      const answer = await engine.api('POST', '/v1.26/containers/create', {
        Image: 'busybox',
        HostConfig: { LogConfig: { Type, Config } },
      });
      assert.deepEqual([answer.status, answer.json().message], [400, message]);
    }
  });
});

describe('a sink', () => {
  test('misses nothing of a container that is removed by itself, or while no engine runs', async (t) => {
    const sink = await startSink(t, here, { kind: 'tcp' });
    const flags = Object.entries(syslogTo(sink.port)).flatMap(([key, value]) => ['--log-opt', `${key}=${value}`]);
    for (let round = 0; round < 5; round++)
      await engine.mustDocker(['run', '--rm', '--log-driver', 'syslog', ...flags, 'busybox', 'echo', `n${round}`]);
    await sink.until((text) => numbers(text).length === 5);
    const kept = await start('syslog', syslogTo(sink.port), 'sleep 0.5; echo n5');
    await start('syslog', syslogTo(sink.port), 'sleep 0.5; echo n6', {}, { AutoRemove: true });
    await engine.kill9();
    await sleep(1200);
    assert.equal(numbers(sink.text()).length, 5);
    await engine.launch();
    await sink.until((text) => numbers(text).length === 7);
    await engine.call('DELETE', `/v1.26/containers/${kept}`);
  });

  test('gets every line over a kill -9 in full stream, and few twice', async (t) => {
    const sink = await startSink(t, here, { kind: 'tcp' });
    const script = 'i=0; while [ $i -lt 60000 ]; do echo n$i; i=$((i+1)); done';
    const id = await start('syslog', syslogTo(sink.port), script);
    for (let round = 0; round < 3; round++) {
      const seen = sink.messages.length;
      await eventually(() => sink.messages.length > seen, 5000).catch(() => undefined);
      await engine.kill9();
      await engine.launch();
    }
    await wait(id);
    await sink.until((text) => text.includes('n59999\n'));
    const lines = sink.text().split('\n').length - 1;
    t.diagnostic(`${lines} lines for 60000`);
    assert.deepEqual(new Set(numbers(sink.text())), new Set(counted(60_000)));
    await engine.call('DELETE', `/v1.26/containers/${id}`);
  });

  test('that never reads slows neither container nor daemon, and is told of what it missed', async (t) => {
    const sink = await startSink(t, here, { kind: 'tcp', paused: true });
    const script =
      'yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 60000000; echo done';
    const time = async (type: string, options: Options) => {
      const began = performance.now();
      const id = await start(type, options, script, {}, { NetworkMode: 'none' });
      const pings: number[] = [];
      const ended = wait(id);
      let over = false;
      void ended.then(() => {
        over = true;
      });
      while (!over) {
        const asked = performance.now();
        await engine.api('GET', '/_ping');
        pings.push(performance.now() - asked);
        await sleep(10);
      }
      pings.sort((a, b) => a - b);
      return { id, ms: performance.now() - began, worst: pings[Math.floor(pings.length * 0.95)] ?? 0 };
    };
    const limits = { 'max-size': '5m', 'max-file': '2' };
    const plain = await time('json-file', limits);
    const stalled = await time('syslog', {
      ...syslogTo(sink.port),
      'cache-max-size': '5m',
      'cache-max-file': '2',
      mode: 'non-blocking',
      'max-buffer-size': '1m',
    });
    t.diagnostic(
      `60 MB: ${plain.ms.toFixed(0)} ms, with a stalled sink ${stalled.ms.toFixed(0)} ms; ping p95 ${plain.worst.toFixed(1)} and ${stalled.worst.toFixed(1)} ms`,
    );
    assert.ok(stalled.ms < plain.ms * 3 + 1000, `${stalled.ms} against ${plain.ms} ms`);
    sink.command('resume');
    await sink.until((text) => text.endsWith('done\n'), 20_000);
    const { Warnings } = await engine.call('GET', '/v1.26/info');
    assert.match(Warnings.join('\n'), /the log sink of container \S+ has missed \d{7,} bytes of its log/);
    assert.match(engine.log, /the sink of a log has missed lines/);
    for (const { id } of [plain, stalled]) await engine.call('DELETE', `/v1.26/containers/${id}`);
  });

  test('that nobody can reach lets its container start, end and go', async () => {
    const began = performance.now();
    for (const options of [
      { 'syslog-address': 'tcp://127.0.0.1:9' },
      { 'syslog-address': 'tcp://nobody.invalid:514' },
      { 'syslog-address': 'tcp+tls://127.0.0.1:9', 'syslog-tls-ca-cert': '/nope' },
    ]) {
      const id = await start('syslog', options, 'echo hi; sleep 100');
      await eventually(async () => assert.equal(demultiplex((await logs(id)).body).stdout, 'hi\n'));
      assert.equal((await engine.api('DELETE', `/v1.26/containers/${id}?force=1`)).status, 204);
    }
    assert.ok(performance.now() - began < 15_000);
    assert.match(engine.log, /the log cannot be forwarded; it waits in its file/);
  });
});

const dockerd = path.join(repository, '.cache/peers/usr/sbin/dockerd');

test('on the wire, what dockerd sends', { skip: !fs.existsSync(dockerd) && 'no dockerd' }, async (t) => {
  const reference = await TestEngine.start({ kind: 'dockerd', netns: here });
  t.after(() => reference.close());
  await importBusybox(reference);
  const attributes = { labels: 'l1,l.2', env: 'E1', tag: '{{.Name}}/{{.ImageName}}/{{.Command}}' };
  const script = 'echo one; sleep 0.1; echo two >&2; sleep 0.1; echo "ünï <&>"; sleep 0.1; echo; sleep 0.2';
  const tcp = await startSink(t, here, { kind: 'tcp' });
  const udp = await startSink(t, here, { kind: 'udp' });
  const on = { tcp: `tcp://127.0.0.1:${tcp.port}`, udp: `udp://127.0.0.1:${udp.port}` };
  const cases: readonly [string, Options, typeof tcp, (bytes: Buffer) => string][] = [
    ['syslog', { 'syslog-address': on.tcp }, tcp, String],
    [
      'syslog',
      { 'syslog-address': on.udp, 'syslog-format': 'rfc3164', 'syslog-facility': 'local3', ...attributes },
      udp,
      String,
    ],
    ['syslog', { 'syslog-address': on.tcp, 'syslog-format': 'rfc5424', ...attributes }, tcp, String],
    ['syslog', { 'syslog-address': on.udp, 'syslog-format': 'rfc5424micro' }, udp, String],
    ['gelf', { 'gelf-address': on.udp, 'gelf-compression-type': 'none', ...attributes }, udp, sortedJson],
    ['gelf', { 'gelf-address': on.udp }, udp, (bytes) => sortedJson(gunzipSync(bytes))],
    [
      'gelf',
      { 'gelf-address': on.tcp },
      tcp,
      (bytes) =>
        String(bytes)
          .split('\0')
          .map((each) => each && sortedJson(each))
          .join('\0'),
    ],
    ['fluentd', { 'fluentd-address': on.tcp, ...attributes }, tcp, forwarded],
    ['fluentd', { 'fluentd-address': on.tcp, 'fluentd-sub-second-precision': 'true' }, tcp, forwarded],
  ];
  for (const [index, [type, options, sink, normal]] of cases.entries()) {
    const got: string[] = [];
    for (const each of [reference, engine]) {
      sink.clear();
      const body = { Env: ['E1=v 1'], Labels: { l1: 'x,y', 'l.2': 'z=' } };
      const { Id } = await each.call('POST', `/v1.26/containers/create?name=wire${index}`, {
        Image: 'busybox',
        Cmd: ['sh', '-c', script],
        ...body,
        HostConfig: { NetworkMode: 'none', LogConfig: { Type: type, Config: options } },
      });
      await each.call('POST', `/v1.26/containers/${Id}/start`);
      await each.call('POST', `/v1.26/containers/${Id}/wait`);
      await sleep(400);
      const { Image } = await each.call('GET', `/v1.26/containers/${Id}/json`);
      const parts = sink === udp ? sink.messages : [sink.bytes()];
      const text = parts.map(normal).join('\n=====\n');
      got.push(
        text
          .replaceAll(Id, 'ID')
          .replaceAll(Id.slice(0, 12), 'SHORT')
          .replaceAll(Image, 'IMAGE')
          .replace(/\w{3} +\d+ \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
          .replace(/"timestamp":[\d.]+/g, 'TIMESTAMP')
          .replace(/\[\d+\]|(?<=wire\d\S* |SHORT )\d+/g, 'PID')
          .replace(/(sh -c [^[]*? )\d+ (?=wire)/g, '$1PID '),
      );
    }
    assert.ok((got[0] ?? '').length > 0, `${type}: dockerd has sent something`);
    assert.equal(got[1], got[0], `${type} ${JSON.stringify(options)}`);
  }
});

function sortedJson(bytes: Buffer | string): string {
  const message = JSON.parse(String(bytes));
  return JSON.stringify(Object.fromEntries(Object.entries(message).sort(([a], [b]) => (a < b ? -1 : 1))));
}

/** Messages of the forward protocol without their clocks and chunk names. */
function forwarded(bytes: Buffer): string {
  const messages = unpack(bytes) as [string, unknown, Record<string, unknown>, Record<string, unknown>][];
  return messages
    .map(([tag, time, record, options]) =>
      [tag, typeof time, sortedJson(JSON.stringify(record)), ...Object.keys(options)].join(' '),
    )
    .join('\n');
}
