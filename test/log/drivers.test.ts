/**
 * Log drivers without an engine: a log file written by the test, real sinks, what arrives there byte by byte.
 *
 * test-timeout-seconds: 120
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync, inflateSync } from 'node:zlib';
import { silentLog } from '../../src/lib/log.ts';
import { detailsOf } from '../../src/log/attributes.ts';
import { createLogs } from '../../src/log/logs.ts';
import { checkLogConfig, mergeLogConfig } from '../../src/log/options.ts';
import { parseTag } from '../../src/log/tag.ts';
import { type Certificates, makeCertificates } from '../api/helper.ts';
import { eventually, Output, start } from '../support/command.ts';
import { startSink } from '../support/log-sink.ts';
import { unpack } from '../support/msgpack.ts';
import { Netns } from '../support/netns.ts';
import { sourceOf, subject } from './support.ts';

const here = Netns.own();
const never = new Promise<never>(() => undefined);

function scratch(t: TestContext): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-drivers-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  return path.join(dir, 'c.log');
}

const line = (text: string, stream: 'stdout' | 'stderr' = 'stdout', flag: 'F' | 'P' = 'F', second = 1) =>
  `2026-11-20T23:00:${String(second).padStart(2, '0')}.123456789+00:00 ${stream} ${flag} ${text}\n`;

/** A log of a running container whose lines go to a sink. */
function forwarding(
  t: TestContext,
  file: string,
  Type: string,
  Config: Record<string, string>,
  limits = { maxSize: 0, maxFiles: 1 },
) {
  const logs = createLogs({ log: silentLog });
  const reopen = (): void => fs.closeSync(fs.openSync(file, 'a'));
  const log = logs.open('c', file, sourceOf({ config: { Type, Config }, limits, reopen }));
  const end = logs.watch('c');
  t.after(() => logs.close());
  return { logs, log, end, print: (text: string) => fs.appendFileSync(file, text) };
}

describe('options', () => {
  for (const [Type, Config, message] of [
    ['nope', {}, "logger: no log driver named 'nope' is registered"],
    ['json-file', { x: '1' }, "unknown log opt 'x' for json-file log driver"],
    ['json-file', { 'cache-disabled': 'x' }, 'invalid value for option cache-disabled: x'],
    ['json-file', { mode: 'x' }, 'logger: logging mode not supported: x'],
    [
      'json-file',
      { 'max-buffer-size': '1m' },
      "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
    ],
    [
      'json-file',
      { mode: 'non-blocking', 'max-buffer-size': 'x' },
      "error parsing option max-buffer-size: invalid size: 'x'",
    ],
    ['json-file', { 'max-size': 'x' }, "invalid size: 'x'"],
    ['json-file', { 'max-file': '0' }, 'max-file cannot be less than 1'],
    ['json-file', { compress: 'x' }, 'strconv.ParseBool: parsing "x": invalid syntax'],
    ['json-file', { compress: 'true' }, 'compress cannot be true when max-file is less than 2 or max-size is not set'],
    ['json-file', { 'env-regex': '(' }, /^error parsing regexp: /],
    ['local', { tag: 'x' }, "unknown log opt 'tag' for log driver local"],
    ['local', { 'max-file': '1' }, 'compression cannot be enabled when max file count is 1'],
    ['syslog', { x: '1' }, "unknown log opt 'x' for syslog log driver"],
    ['syslog', { 'syslog-address': 'x' }, 'syslog-address should be in form proto://address, got x'],
    ['syslog', { 'syslog-address': 'tcp://h:x' }, 'parse "tcp://h:x": invalid port ":x" after host'],
    ['syslog', { 'syslog-address': 'udp://h%zz' }, 'parse "udp://h%zz": invalid URL escape "%zz"'],
    ['syslog', { 'syslog-address': 'unix:///nope' }, 'stat /nope: no such file or directory'],
    ['syslog', { 'syslog-facility': '24' }, 'invalid syslog facility'],
    ['syslog', { 'syslog-facility': 'x' }, 'invalid syslog facility'],
    ['syslog', { 'syslog-format': 'x' }, 'Invalid syslog format'],
    ['syslog', { 'cache-max-size': 'x' }, "invalid size: 'x'"],
    ['gelf', {}, 'gelf-address is a required parameter'],
    ['gelf', { 'gelf-address': 'udp://h:1', x: '1' }, 'unknown log opt "x" for gelf log driver'],
    ['gelf', { 'gelf-address': 'http://h:1' }, 'gelf-address should be in form proto://address, got http://h:1'],
    ['gelf', { 'gelf-address': 'unix:///x' }, 'gelf: endpoint needs to be TCP or UDP'],
    ['gelf', { 'gelf-address': 'udp://h' }, 'gelf: please provide gelf-address as proto://host:port'],
    [
      'gelf',
      { 'gelf-address': 'udp://h:1', 'gelf-compression-level': '10' },
      'unknown value "10" for log opt "gelf-compression-level" for gelf log driver',
    ],
    ['gelf', { 'gelf-address': 'tcp://h:1', 'gelf-compression-type': 'gzip' }, 'compression is only supported on UDP'],
    [
      'gelf',
      { 'gelf-address': 'udp://h:1', 'gelf-tcp-max-reconnect': '1' },
      '"gelf-tcp-max-reconnect" is only valid for TCP',
    ],
    [
      'gelf',
      { 'gelf-address': 'tcp://h:1', 'gelf-tcp-reconnect-delay': '-1' },
      '"gelf-tcp-reconnect-delay" must be a positive integer',
    ],
    ['fluentd', { x: '1' }, "unknown log opt 'x' for fluentd log driver"],
    [
      'fluentd',
      { 'fluentd-address': 'tcp://h:x' },
      'invalid fluentd-address tcp://h:x: parse "tcp://h:x": invalid port ":x" after host',
    ],
    [
      'fluentd',
      { 'fluentd-address': 'a:b:c' },
      'invalid fluentd-address a:b:c: address a:b:c: too many colons in address',
    ],
    ['fluentd', { 'fluentd-request-ack': 'x' }, 'strconv.ParseBool: parsing "x": invalid syntax'],
    ['fluentd', { 'fluentd-retry-wait': 'x' }, 'time: invalid duration "x"'],
    ['fluentd', { 'fluentd-max-retries': 'x' }, 'strconv.ParseUint: parsing "x": invalid syntax'],
    [
      'fluentd',
      { 'fluentd-async': 'true', 'fluentd-async-connect': 'true' },
      "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect",
    ],
    ['journald', { x: '1' }, "unknown log opt 'x' for journald log driver"],
    ['syslog', { tag: '{{' }, 'template: log-tag:1: unclosed action'],
    [
      'syslog',
      { tag: '{{upper .Name}}' },
      /^template: log-tag: \{\{upper \.Name\}\} is not supported; a tag may hold \{\{\.ID\}\}/,
    ],
  ] as readonly [string, Record<string, string>, string | RegExp][]) {
    it(`${Type} ${JSON.stringify(Config)} is refused`, () => {
      assert.throws(() => checkLogConfig({ Type, Config }), { kind: 'invalid', message });
    });
  }

  it('takes what dockerd takes', () => {
    for (const [Type, Config] of [
      ['none', { x: '1' }],
      [
        'json-file',
        { 'max-size': '1m', 'max-file': '2', compress: 'true', mode: 'non-blocking', 'max-buffer-size': '4m' },
      ],
      ['local', { compress: 'false', 'max-file': '1' }],
      ['syslog', { 'syslog-address': 'tcp+tls://[::1]:6514', 'syslog-facility': 'local7', 'cache-disabled': 'true' }],
      ['gelf', { 'gelf-address': 'udp://h:1', 'gelf-compression-level': '-1', tag: '{{ .Name }}-{{.FullID}}' }],
      ['fluentd', { 'fluentd-address': 'h', 'fluentd-retry-wait': '1.5s', 'fluentd-buffer-limit': '8MB' }],
      ['journald', { labels: 'a', 'labels-regex': '^b', 'env-regex': '(?i)^c' }],
    ] as const) {
      checkLogConfig({ Type, Config });
    }
  });

  it("fills in the daemon's options for its own driver only, and those of the cache for all", () => {
    const defaults = { Type: 'syslog', Config: { tag: 'd', 'cache-max-file': '2' } };
    assert.deepEqual(mergeLogConfig(null, defaults), defaults);
    assert.deepEqual(mergeLogConfig({ Type: 'syslog', Config: { tag: 'own' } }, defaults).Config, {
      tag: 'own',
      'cache-max-file': '2',
    });
    assert.deepEqual(mergeLogConfig({ Type: 'gelf', Config: {} }, defaults).Config, { 'cache-max-file': '2' });
  });

  it('writes tags and attributes', () => {
    for (const [template, expected] of [
      ['{{.ID}}|{{.FullID}}', `${subject.id.slice(0, 12)}|${subject.id}`],
      ['{{.Name}} {{ .FullName }} {{.ContainerName}}', 'web web /web'],
      ['{{.ImageName}} {{.ImageID}} {{.ImageFullID}}', `busybox:latest sha256:cdcdc ${subject.imageId}`],
      ['{{.DaemonName}}: {{.Command}}', 'docker: sh -c true'],
      ['{{index .ContainerLabels "l.2"}} }}', 'z= }}'],
      ['plain', 'plain'],
    ] as const) {
      assert.equal(parseTag(template)(subject), expected);
    }
    assert.equal(
      detailsOf(
        { labels: 'l1,none', 'labels-regex': '^l\\.', env: 'E2', 'env-regex': '(?i)^e1', tag: '{{.Name}}' },
        subject,
      ),
      'E1=v+1,E2=%C3%BC,l.2=z%3D,l1=x%2Cy,tag=web ',
    );
    assert.equal(detailsOf({}, subject), ' ');
  });
});

const three = line('one') + line('two', 'stderr') + line('thr', 'stdout', 'P') + line('ee');
const pid = process.pid;
const id = subject.id.slice(0, 12);

describe('syslog', () => {
  let tls: Certificates;
  before(() => {
    tls = makeCertificates();
  });
  after(() => fs.rmSync(tls.directory, { recursive: true }));
  const pem = (file: string) => fs.readFileSync(file, 'utf8');

  for (const [format, facility, head] of [
    ['', '', [`<30>Nov 20 23:00:01 ${id}[${pid}]: `, `<27>Nov 20 23:00:01 ${id}[${pid}]: `]],
    [
      'rfc3164',
      'local3',
      [`<158>Nov 20 23:00:01 machine ${id}[${pid}]: `, `<155>Nov 20 23:00:01 machine ${id}[${pid}]: `],
    ],
    [
      'rfc5424',
      '0',
      [
        `<6>1 2026-11-20T23:00:01Z machine ${id} ${pid} ${id} - `,
        `<3>1 2026-11-20T23:00:01Z machine ${id} ${pid} ${id} - `,
      ],
    ],
    [
      'rfc5424micro',
      'daemon',
      [
        `<30>1 2026-11-20T23:00:01.123456Z machine ${id} ${pid} ${id} - `,
        `<27>1 2026-11-20T23:00:01.123456Z machine ${id} ${pid} ${id} - `,
      ],
    ],
  ] as const) {
    for (const kind of ['tcp', 'udp', 'unix', 'unixgram'] as const) {
      it(`${format || 'as programs write'} over ${kind}`, async (t) => {
        const file = scratch(t);
        const socket = `${file}.sock`;
        const sink = await startSink(t, here, kind.startsWith('unix') ? { kind, path: socket } : { kind });
        const address = kind.startsWith('unix') ? `${kind}://${socket}` : `${kind}://127.0.0.1:${sink.port}`;
        const { print } = forwarding(t, file, 'syslog', {
          'syslog-address': address,
          'syslog-format': format,
          'syslog-facility': facility,
        });
        print(three);
        const expected = [`${head[0]}one\n`, `${head[1]}two\n`, `${head[0]}three\n`];
        await sink.until((text) => text.includes('three'));
        assert.equal(sink.text(), expected.join(''));
        if (kind === 'udp' || kind === 'unixgram') assert.deepEqual(sink.messages.map(String), expected);
      });
    }
  }

  it('over TLS counts the bytes of each message, and shows its certificate', async (t) => {
    const file = scratch(t);
    const sink = await startSink(t, here, { kind: 'tls', key: pem(tls.key), cert: pem(tls.cert), ca: pem(tls.ca) });
    const { print } = forwarding(t, file, 'syslog', {
      'syslog-address': `tcp+tls://127.0.0.1:${sink.port}`,
      'syslog-format': 'rfc5424',
      'syslog-tls-ca-cert': tls.ca,
      'syslog-tls-cert': tls.clientCert,
      'syslog-tls-key': tls.clientKey,
    });
    print(three);
    await sink.until((text) => text.includes('three'));
    const [first] = sink.text().split('\n');
    const expected = `<30>1 2026-11-20T23:00:01Z machine ${id} ${pid} ${id} - one`;
    assert.equal(first, `${expected.length + 1} ${expected}`);
  });

  it('does not talk to a server that nobody vouches for, unless told to', async (t) => {
    const sink = await startSink(t, here, { kind: 'tls', key: pem(tls.key), cert: pem(tls.cert) });
    const address = { 'syslog-address': `tcp+tls://127.0.0.1:${sink.port}` };
    const careful = forwarding(t, scratch(t), 'syslog', address);
    careful.print(line('secret'));
    await sleep(400);
    assert.equal(sink.text(), '');
    const careless = forwarding(t, scratch(t), 'syslog', { ...address, 'syslog-tls-skip-verify': 'true' });
    careless.print(line('public'));
    await sink.until((text) => text.includes('public'));
    assert.ok(!sink.text().includes('secret'));
  });

  it('cuts what a datagram does not hold, and sends 900 KiB whole over a stream', async (t) => {
    const text = Array.from({ length: 115 }, (_, index) => String(index % 10).repeat(8192));
    const pieces = text.map((each, index) => line(each, 'stdout', index === 114 ? 'F' : 'P')).join('');
    const udp = await startSink(t, here, { kind: 'udp' });
    const tcp = await startSink(t, here, { kind: 'tcp' });
    for (const [kind, sink] of [['udp', udp] as const, ['tcp', tcp] as const]) {
      const { print } = forwarding(t, scratch(t), 'syslog', { 'syslog-address': `${kind}://127.0.0.1:${sink.port}` });
      print(pieces);
    }
    await tcp.until((got) => got.endsWith('\n'));
    assert.equal(tcp.text(), `<30>Nov 20 23:00:01 ${id}[${pid}]: ${text.join('')}\n`);
    await udp.until((got) => got.length >= text.join('').length);
    const texts = udp.messages.map((each) => each.toString().slice(`<30>Nov 20 23:00:01 ${id}[${pid}]: `.length, -1));
    assert.equal(texts.join(''), text.join(''));
    assert.ok(texts.every((each) => each.length <= 16_384));
  });
});

describe('gelf', () => {
  const expected = (level: number, text: string) => ({
    version: '1.1',
    host: 'machine',
    short_message: text,
    timestamp: Date.parse('2026-11-20T23:00:01.123Z') / 1000,
    level,
    _command: 'sh -c true',
    _container_id: subject.id,
    _container_name: 'web',
    _created: subject.created,
    _image_id: subject.imageId,
    _image_name: 'busybox:latest',
    _tag: 'web',
    _l1: 'x,y',
    _E2: 'ü',
  });
  const all = [expected(6, 'one'), expected(3, 'two'), expected(6, 'three')];
  const options = { tag: '{{.Name}}', labels: 'l1', env: 'E2' };

  for (const [type, inflate] of [
    ['gzip', gunzipSync],
    ['zlib', inflateSync],
    ['none', (bytes: Buffer) => bytes],
  ] as const) {
    it(`udp, ${type}`, async (t) => {
      const sink = await startSink(t, here, { kind: 'udp' });
      const { print } = forwarding(t, scratch(t), 'gelf', {
        'gelf-address': `udp://127.0.0.1:${sink.port}`,
        'gelf-compression-type': type,
        ...options,
      });
      print(three);
      await eventually(() => assert.equal(sink.messages.length, 3));
      assert.deepEqual(
        sink.messages.map((each) => JSON.parse(inflate(each).toString())),
        all,
      );
    });
  }

  it('cuts a long message into chunks, and a longer one into messages', async (t) => {
    const sink = await startSink(t, here, { kind: 'udp' });
    const { print } = forwarding(t, scratch(t), 'gelf', {
      'gelf-address': `udp://127.0.0.1:${sink.port}`,
      'gelf-compression-type': 'none',
    });
    const text = 'abcdefgh'.repeat(1024);
    print(line(text, 'stdout', 'P').repeat(39) + line(text));
    const joined = () => {
      const found = new Map<string, Buffer[]>();
      for (const datagram of sink.messages) {
        assert.ok(datagram.length <= 1420);
        assert.equal(datagram.readUInt16BE(0), 0x1e0f);
        const name = datagram.toString('hex', 2, 10);
        const chunks = found.get(name) ?? Array.from({ length: datagram[11] as number }, () => Buffer.alloc(0));
        chunks[datagram[10] as number] = datagram.subarray(12);
        found.set(name, chunks);
      }
      return [...found.values()].map((chunks) => JSON.parse(Buffer.concat(chunks).toString()).short_message).join('');
    };
    await eventually(() => assert.equal(joined(), text.repeat(40)));
  });

  it('tcp ends each message with a zero byte', async (t) => {
    const sink = await startSink(t, here, { kind: 'tcp' });
    const { print } = forwarding(t, scratch(t), 'gelf', { 'gelf-address': `tcp://127.0.0.1:${sink.port}`, ...options });
    print(three);
    await eventually(() => assert.equal(sink.bytes().filter((byte) => byte === 0).length, 3));
    assert.deepEqual(
      sink
        .bytes()
        .toString()
        .split('\0')
        .slice(0, 3)
        .map((each) => JSON.parse(each)),
      all,
    );
  });
});

describe('fluentd', () => {
  const record = (source: string, log: string) => ({
    container_id: subject.id,
    container_name: '/web',
    source,
    log,
    l1: 'x,y',
  });
  const seconds = Date.parse('2026-11-20T23:00:01Z') / 1000;

  it('sends a message per line', async (t) => {
    const sink = await startSink(t, here, { kind: 'tcp' });
    const { print } = forwarding(t, scratch(t), 'fluentd', {
      'fluentd-address': `127.0.0.1:${sink.port}`,
      labels: 'l1',
    });
    print(three + line('x'.repeat(8000), 'stdout', 'P').repeat(10) + line(''));
    await sink.until((text) => text.length > 80_000);
    assert.deepEqual(unpack(sink.bytes()), [
      [id, seconds, record('stdout', 'one'), {}],
      [id, seconds, record('stderr', 'two'), {}],
      [id, seconds, record('stdout', 'three'), {}],
      [id, seconds, record('stdout', 'x'.repeat(80_000)), {}],
    ]);
  });

  it('tells the nanosecond if asked to, over a unix socket', async (t) => {
    const file = scratch(t);
    const sink = await startSink(t, here, { kind: 'unix', path: `${file}.sock` });
    const { print } = forwarding(t, file, 'fluentd', {
      'fluentd-address': `unix://${file}.sock`,
      'fluentd-sub-second-precision': 'true',
      tag: '{{.Name}}',
    });
    print(line('one'));
    await sink.until((text) => text.includes('one'));
    const [[tag, time]] = unpack(sink.bytes()) as [[string, object]];
    assert.deepEqual([tag, time], ['web', { type: 0, seconds, nanoseconds: 123_456_789 }]);
  });

  it('waits for acknowledgements: what a sink has not confirmed is sent again', async (t) => {
    const silent = await startSink(t, here, { kind: 'tcp' });
    const { print } = forwarding(t, scratch(t), 'fluentd', {
      'fluentd-address': `127.0.0.1:${silent.port}`,
      'fluentd-request-ack': 'true',
      'fluentd-retry-wait': '100ms',
    });
    print(line('one'));
    await silent.until((text) => text.includes('one'));
    print(line('two'));
    await sleep(200);
    assert.ok(!silent.text().includes('two'), 'nothing more goes out before the first is confirmed');
    await silent.close();
    const kind = await startSink(t, here, { kind: 'tcp', port: silent.port, acknowledges: true });
    await kind.until((text) => text.includes('two'));
    const entries = (unpack(kind.bytes()) as [string, [number, { log: string }][]][]).flatMap(([, list]) => list);
    assert.deepEqual(
      entries.map(([, { log }]) => log),
      ['one', 'two'],
    );
  });
});

describe('journald', () => {
  it('sends entries in the journal’s own protocol, large ones as a file', async (t) => {
    // The sandbox has its own mounts: nothing of it is seen outside.
    fs.mkdirSync('/run/systemd/journal', { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', 'journal', '/run/systemd/journal']);
    const program = path.join(import.meta.dirname, '../support/journal-sink.py');
    const sink = start(['python3', program, '/run/systemd/journal/socket']);
    t.after(() => {
      sink.kill('SIGKILL');
      execFileSync('umount', ['--lazy', '/run/systemd/journal']);
    });
    const output = new Output(sink.stdout);
    await output.waitFor(/listening/);
    const { print } = forwarding(t, scratch(t), 'journald', { labels: 'l.2', tag: '{{.Name}}' });
    print(three + line('y'.repeat(8000), 'stderr', 'P').repeat(100) + line('', 'stderr'));
    const entries = () =>
      output.text
        .split('\n')
        .slice(0, -1)
        .filter((each) => /^(datagram|file) /.test(each))
        .map((each) => each.split(' ') as [string, string])
        .map(([how, hex]) => ({ how, text: Buffer.from(hex, 'hex').toString() }));
    await eventually(() => assert.equal(entries().length, 4));
    const fields = [
      `CONTAINER_ID=${id}`,
      `CONTAINER_ID_FULL=${subject.id}`,
      'CONTAINER_NAME=web',
      'CONTAINER_TAG=web',
      'IMAGE_NAME=busybox:latest',
      'SYSLOG_IDENTIFIER=web',
      'L_2=z=',
    ];
    const entry = (priority: number, message: string) =>
      `${[...fields, `PRIORITY=${priority}`, `MESSAGE=${message}`].join('\n')}\n`;
    const large = entries().pop();
    assert.equal(large?.how, 'file');
    assert.ok(large?.text === entry(3, 'y'.repeat(800_000)), `${large?.text.length} bytes`);
    assert.deepEqual(entries().slice(0, 3), [
      { how: 'datagram', text: entry(6, 'one') },
      { how: 'datagram', text: entry(3, 'two') },
      { how: 'datagram', text: entry(6, 'three') },
    ]);
  });
});

/** The numbers in what a sink got, in order, each once, although some may have come twice. */
function numbers(text: string): number[] {
  const seen = new Set<number>();
  for (const [, digits] of text.matchAll(/\]: n(\d+)\n/g)) seen.add(Number(digits));
  return [...seen];
}
const counted = (count: number, from = 0) => Array.from({ length: count }, (_, index) => from + index);
const numbered = (count: number, from = 0) =>
  counted(count, from)
    .map((each) => line(`n${each}`))
    .join('');

describe('sinks', () => {
  it('get both streams joined apart, whatever is in between', async (t) => {
    const sink = await startSink(t, here, { kind: 'tcp' });
    const { print, end } = forwarding(t, scratch(t), 'syslog', { 'syslog-address': `tcp://127.0.0.1:${sink.port}` });
    print(
      [
        line('a', 'stdout', 'P'),
        line('x', 'stderr', 'P'),
        line('torn').slice(0, 30),
        '\n',
        line('b', 'stdout', 'P'),
      ].join(''),
    );
    print(line('y', 'stderr') + line('whole', 'stderr') + line('c', 'stdout') + line('$ ', 'stdout', 'P'));
    await sink.until((text) => text.includes('abc'));
    end();
    await sink.until((text) => text.includes('$ '));
    const texts = sink
      .text()
      .split('\n')
      .slice(0, -1)
      .map((each) => each.replace(/^<(\d+)>.*?\]: /, '$1 '));
    assert.deepEqual(texts, ['27 xy', '27 whole', '30 abc', '30 $ ']);
  });

  it('that go and come back get every line, in order', async (t) => {
    const first = await startSink(t, here, { kind: 'tcp' });
    const address = { 'syslog-address': `tcp://127.0.0.1:${first.port}` };
    const { print } = forwarding(t, scratch(t), 'syslog', address);
    print(numbered(1000));
    await first.until((text) => text.includes('n999\n'));
    await first.close();
    print(numbered(1000, 1000));
    await sleep(300);
    const second = await startSink(t, here, { kind: 'tcp', port: first.port });
    print(numbered(1000, 2000));
    await second.until((text) => text.includes('n2999\n'));
    const got = new Set([...numbers(first.text()), ...numbers(second.text())]);
    assert.equal(got.size, 3000);
    assert.deepEqual(numbers(second.text()).slice(-2000), counted(2000, 1000));
  });

  it('are tried again and again while nobody listens, or the name is unknown', async (t) => {
    const port = await (async () => {
      const sink = await startSink(t, here, { kind: 'tcp' });
      await sink.close();
      return sink.port;
    })();
    const dead = forwarding(t, scratch(t), 'syslog', { 'syslog-address': `tcp://127.0.0.1:${port}` });
    const nameless = forwarding(t, scratch(t), 'gelf', { 'gelf-address': 'udp://nobody.invalid:12201' });
    dead.print(numbered(10));
    nameless.print(numbered(10));
    await sleep(700);
    const sink = await startSink(t, here, { kind: 'tcp', port });
    await sink.until((text) => numbers(text).length === 10, 20_000);
    assert.deepEqual(nameless.logs.warnings(), []);
  });

  it('go on where they were after the engine was killed', async (t) => {
    const file = scratch(t);
    const sink = await startSink(t, here, { kind: 'tcp' });
    const address = { 'syslog-address': `tcp://127.0.0.1:${sink.port}` };
    const before_ = forwarding(t, file, 'syslog', address);
    before_.print(numbered(5000) + line('half', 'stdout', 'P'));
    await sink.until((text) => text.includes('n4999\n'));
    before_.logs.close();
    before_.print(line(' done') + numbered(5000, 5000));
    sink.clear();
    const after = forwarding(t, file, 'syslog', address);
    await sink.until((text) => text.includes('n9999\n'));
    assert.equal(sink.text().match(/half done\n/g)?.length, 1, 'a line that was only begun comes whole');
    assert.deepEqual(numbers(sink.text()), counted(5000, 5000));
    after.end();
    await sleep(150);
    // A third engine finds nothing to do, and does not even connect.
    const connections = sink.connections();
    const third = createLogs({ log: silentLog });
    t.after(() => third.close());
    third.open('c', file, sourceOf({ config: { Type: 'syslog', Config: address } }));
    third.drain('c');
    await sleep(200);
    assert.equal(sink.connections(), connections);
  });

  it('begin anew where a torn position file does not tell, or cannot be written', async (t) => {
    for (const spoil of [(name: string) => fs.writeFileSync(name, 'gar'), (name: string) => fs.mkdirSync(name)]) {
      const file = scratch(t);
      const sink = await startSink(t, here, { kind: 'tcp' });
      spoil(`${file}.sent`);
      fs.writeFileSync(file, numbered(10));
      const { print } = forwarding(t, file, 'syslog', { 'syslog-address': `tcp://127.0.0.1:${sink.port}` });
      await sink.until((text) => numbers(text).length === 10);
      print(numbered(10, 10));
      await sink.until((text) => numbers(text).length === 20);
    }
  });

  it('see each line once over rotations, also when files are compressed meanwhile', async (t) => {
    const file = scratch(t);
    const sink = await startSink(t, here, { kind: 'tcp' });
    const limits = { maxSize: 20_000, maxFiles: 3, compress: true };
    const { print } = forwarding(t, file, 'syslog', { 'syslog-address': `tcp://127.0.0.1:${sink.port}` }, limits);
    for (let round = 0; round < 50; round++) {
      print(numbered(200, round * 200));
      await sleep(25);
    }
    await sink.until((text) => text.includes('n9999\n'));
    assert.deepEqual(numbers(sink.text()), counted(10_000));
    assert.equal(sink.text().match(/\n/g)?.length, 10_000, 'none twice');
    assert.ok(fs.existsSync(`${file}.1`) || fs.existsSync(`${file}.1.gz`));
  });

  it('that stall keep what they have not got, beyond what rotation would keep', async (t) => {
    const file = scratch(t);
    const sink = await startSink(t, here, { kind: 'tcp', paused: true });
    const limits = { maxSize: 100_000, maxFiles: 2 };
    const { print, logs } = forwarding(t, file, 'syslog', { 'syslog-address': `tcp://127.0.0.1:${sink.port}` }, limits);
    const filler = 'f'.repeat(7000);
    for (let round = 0; round < 60; round++) {
      print(
        counted(25, round * 25)
          .map((each) => line(filler) + line(`n${each}`))
          .join(''),
      );
      await sleep(25);
    }
    assert.ok(fs.readdirSync(path.dirname(file)).length > 20, 'files are kept');
    sink.command('resume');
    await sink.until((text) => text.endsWith('n1499\n'), 20_000);
    assert.deepEqual(numbers(sink.text()), counted(1500));
    assert.deepEqual(logs.warnings(), []);
    print(numbered(1));
    await eventually(() => {
      print(line(filler).repeat(20));
      assert.ok(fs.readdirSync(path.dirname(file)).length <= 5, 'and go when they have been sent');
    });
  });

  it('miss the oldest files when the disk would have to hold too much, and that is counted', async (t) => {
    const file = scratch(t);
    const sink = await startSink(t, here, { kind: 'tcp', paused: true, counts: true, awaits: ']: n1999\n' });
    const limits = { maxSize: 4_000_000, maxFiles: 2 };
    const { print, logs } = forwarding(t, file, 'syslog', { 'syslog-address': `tcp://127.0.0.1:${sink.port}` }, limits);
    const filler = line('f'.repeat(8000)).repeat(10);
    for (let round = 0; round < 40; round++) {
      print(
        counted(50, round * 50)
          .map((each) => filler + line(`n${each}`))
          .join(''),
      );
      await sleep(30);
    }
    const kept = fs
      .readdirSync(path.dirname(file))
      .map((name) => fs.statSync(path.join(path.dirname(file), name)).size);
    const bytes = kept.reduce((sum, size) => sum + size, 0);
    assert.ok(bytes > 120e6 && bytes < 145e6, `${bytes} bytes are kept`);
    const [, missed] = /has missed (\d+) bytes/.exec(logs.warnings().join()) ?? [];
    assert.ok(Number(missed) > 15e6, logs.warnings().join());
    sink.command('resume');
    await sink.complete;
    // All that was printed was sent or counted, give or take what the stamps of lines are longer than what is sent.
    const printed = 2000 * (filler.length + line('n1000').length);
    assert.ok(Math.abs(sink.counted() + Number(missed) - printed) < 0.02 * printed, `${sink.counted()} + ${missed}`);
    const saved = fs.readFileSync(`${file}.sent`, 'latin1');
    assert.equal(/ lost (\d+) /.exec(saved)?.[1], missed);
  });

  it('in mode non-blocking miss what is older than the buffer, and that is counted', async (t) => {
    const sink = await startSink(t, here, { kind: 'tcp', paused: true });
    const { print, logs } = forwarding(t, scratch(t), 'syslog', {
      'syslog-address': `tcp://127.0.0.1:${sink.port}`,
      mode: 'non-blocking',
      'max-buffer-size': '64k',
    });
    const filler = 'f'.repeat(7000);
    for (let round = 0; round < 30; round++)
      print(
        counted(100, round * 100)
          .map((each) => line(filler) + line(`n${each}`))
          .join(''),
      );
    await sleep(300);
    sink.command('resume');
    await sink.until((text) => text.includes('n2999\n'));
    const got = numbers(sink.text());
    assert.ok(got.length < 2500, `${got.length} of 3000`);
    assert.deepEqual(got.slice(-5), counted(5, 2995));
    assert.match(logs.warnings().join(), /^the log sink of container web has missed \d{6,} bytes of its log$/);
  });

  it('get the last lines of a container that has been removed', async (t) => {
    const file = scratch(t);
    const sink = await startSink(t, here, { kind: 'tcp', paused: true });
    const { print, end, log } = forwarding(t, file, 'syslog', { 'syslog-address': `tcp://127.0.0.1:${sink.port}` });
    const filler = 'f'.repeat(7000);
    print(line(filler).repeat(2000) + numbered(100));
    await sleep(100);
    end();
    await log.remove();
    assert.deepEqual(fs.readdirSync(path.dirname(file)), []);
    sink.command('resume');
    await sink.until((text) => text.includes('n99\n'));
    assert.deepEqual(numbers(sink.text()), counted(100));
  });
});

describe('compressed files', () => {
  it('are read as the others, from any end', async (t) => {
    const file = scratch(t);
    const { log, print } = forwarding(t, file, 'local', {}, { ...{ maxSize: 20_000, maxFiles: 4 }, compress: true } as {
      maxSize: number;
      maxFiles: number;
    });
    for (let round = 0; round < 12; round++) {
      print(numbered(150, round * 150));
      await sleep(40);
    }
    await eventually(() => assert.ok(fs.existsSync(`${file}.1.gz`) && fs.existsSync(`${file}.3.gz`)), 8000);
    assert.ok(!fs.existsSync(`${file}.1`));
    const query = { stdout: true, stderr: true, timestamps: false, framed: false, tty: false, follow: false };
    const read = async (more: object): Promise<number[]> => {
      let all = '';
      for await (const chunk of log.read({ ...query, ...more }, never, new AbortController().signal)) all += chunk;
      return [...all.matchAll(/n(\d+)\n/g)].map(([, digits]) => Number(digits));
    };
    const all = await read({});
    assert.ok(all.length > 500);
    assert.deepEqual(all, counted(all.length, 1800 - all.length));
    assert.deepEqual(await read({ tail: 700 }), counted(700, 1100));
    assert.deepEqual(await read({ since: 0n }), all);
    await log.remove();
    assert.deepEqual(fs.readdirSync(path.dirname(file)), []);
  });
});
