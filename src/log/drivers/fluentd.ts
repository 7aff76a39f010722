/** The forward protocol of fluentd: MessagePack over tcp, TLS or a unix socket, acknowledged if asked for. */
import { randomBytes } from 'node:crypto';
import { invalid, messageOf } from '../../lib/errors.ts';
import { parseMemorySize } from '../../lib/size.ts';
import { parseDuration } from '../../lib/time.ts';
import { attributesOf } from '../attributes.ts';
import { parseTag } from '../tag.ts';
import type { LogOptions, LogSubject } from '../types.ts';
import { type Address, hostOrLocal, parseBool, parseUrl, portOf } from './address.ts';
import { openStream } from './connection.ts';
import * as msgpack from './msgpack.ts';
import type { Driver, LogLine, Sender } from './types.ts';

const portDefault = 24224;
const retryWaitMsDefault = 1000;
const ackPatienceMs = 30_000;
/** Answers are a few bytes; a sink that says more is none. */
const ackLengthMax = 64 * 1024;
const switches = [
  ...['fluentd-async', 'fluentd-async-connect', 'fluentd-request-ack', 'fluentd-sub-second-precision'],
] as const;

function addressOf(options: LogOptions): Address {
  const text = options['fluentd-address'] ?? '';
  if (text === '') return { kind: 'tcp', host: '127.0.0.1', port: portDefault };
  const wrong = (why: string): Error => invalid(`invalid fluentd-address ${text}: ${why}`);
  try {
    const url = parseUrl(text, ['tcp', 'tls', 'tcp+tls', 'udp', 'unix', 'unixgram']);
    if (url?.scheme === 'unix') return { kind: 'unix', path: url.path };
    if (url?.scheme === 'udp' || url?.scheme === 'unixgram')
      throw invalid('the forward protocol needs tcp, tls or unix');
    if (url !== null)
      return {
        kind: url.scheme === 'tcp' ? 'tcp' : 'tls',
        host: hostOrLocal(url.host),
        port: Number(url.port || portDefault),
      };
  } catch (error) {
    throw wrong(messageOf(error));
  }
  const [, bracketed, plain = '', port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(.*))?$/s.exec(text) ?? [];
  if (port?.includes(':')) throw wrong(`address ${text}: too many colons in address`);
  const digits = port ?? String(portDefault);
  const number = portOf(digits, () => wrong(`strconv.Atoi: parsing ${JSON.stringify(digits)}: invalid syntax`).message);
  return { kind: 'tcp', host: hostOrLocal(bracketed ?? plain), port: number };
}

export const fluentd: Driver = {
  name: 'fluentd',
  options: [
    ...['env', 'env-regex', 'labels', 'labels-regex', 'tag', 'fluentd-address', 'fluentd-buffer-limit'],
    ...['fluentd-max-retries', 'fluentd-retry-wait', 'fluentd-async-reconnect-interval', ...switches],
  ],
  unknown: (option) => `unknown log opt '${option}' for fluentd log driver`,
  check(options) {
    addressOf(options);
    const limit = options['fluentd-buffer-limit'];
    if (limit) parseMemorySize(limit);
    for (const key of ['fluentd-retry-wait', 'fluentd-async-reconnect-interval'])
      if (options[key] && parseDuration(options[key]) === undefined)
        throw invalid(`time: invalid duration ${JSON.stringify(options[key])}`);
    const retries = options['fluentd-max-retries'];
    if (retries && !/^\d{1,18}$/.test(retries))
      throw invalid(`strconv.ParseUint: parsing ${JSON.stringify(retries)}: invalid syntax`);
    if (options['fluentd-async'] && options['fluentd-async-connect'])
      throw invalid("conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect");
    for (const key of switches) parseBool(options[key]);
  },
  forward: {
    retryMs: (options) =>
      options['fluentd-retry-wait']
        ? Number(parseDuration(options['fluentd-retry-wait']) ?? 0n) / 1e6
        : retryWaitMsDefault,
    repeats: true,
    connect,
  },
};

async function connect(options: LogOptions, subject: LogSubject, signal: AbortSignal): Promise<Sender> {
  const address = addressOf(options);
  const noFiles = { ca: undefined, cert: undefined, key: undefined, skipVerify: false };
  const stream = await openStream(address, address.kind === 'tls' ? noFiles : null, signal);
  const tag = msgpack.text(parseTag(options.tag || '{{.ID}}')(subject));
  const record = recordEncoder(options, subject);
  const time = parseBool(options['fluentd-sub-second-precision']) ? msgpack.eventTime : msgpack.seconds;
  const sender: Sender = { send: () => Promise.resolve(), onBroken: null, close: () => stream.close() };
  stream.onBroken = (error) => sender.onBroken?.(error);

  const sendPlain = async (lines: readonly LogLine[]): Promise<void> => {
    if (lines.length === 0) return;
    const parts = lines.flatMap((line) => [msgpack.array(4), tag, time(line), ...record(line), msgpack.map(0)]);
    await stream.write(Buffer.concat(parts));
  };
  /** Many lines under one name, and nothing more is sent before the sink has said that it has them. */
  const sendAcknowledged = async (lines: readonly LogLine[]): Promise<void> => {
    if (lines.length === 0) return;
    const chunk = randomBytes(16).toString('base64');
    const entries = lines.flatMap((line) => [msgpack.array(2), time(line), ...record(line)]);
    const options_ = [msgpack.map(1), msgpack.text('chunk'), msgpack.text(chunk)];
    const acknowledged = awaitAck(stream, chunk);
    acknowledged.catch(() => undefined);
    await stream.write(Buffer.concat([msgpack.array(3), tag, msgpack.array(lines.length), ...entries, ...options_]));
    await acknowledged;
  };
  return Object.assign(sender, { send: parseBool(options['fluentd-request-ack']) ? sendAcknowledged : sendPlain });
}

function awaitAck(stream: Awaited<ReturnType<typeof openStream>>, chunk: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (why: string): void => {
      stream.onData = null;
      reject(new Error(why));
    };
    const patience = setTimeout(() => fail(`no acknowledgement within ${ackPatienceMs / 1000} seconds`), ackPatienceMs);
    const broken = stream.onBroken;
    stream.onBroken = (error) => {
      clearTimeout(patience);
      reject(error);
      broken?.(error);
    };
    let answer = Buffer.alloc(0);
    stream.onData = (data) => {
      answer = Buffer.concat([answer, data]);
      if (answer.length > ackLengthMax) fail('the answer is no acknowledgement');
      if (!answer.includes(chunk)) return;
      clearTimeout(patience);
      stream.onData = null;
      stream.onBroken = broken;
      resolve();
    };
  });
}

function recordEncoder(options: LogOptions, subject: LogSubject): (line: LogLine) => readonly Buffer[] {
  const about = new Map([
    ['container_id', subject.id],
    ['container_name', `/${subject.name}`],
    ...attributesOf(options, subject),
  ]);
  // A label of the name would win over the line itself in dockerd too.
  const free = (['source', 'log'] as const).filter((name) => !about.has(name));
  const head = Buffer.concat([
    msgpack.map(about.size + free.length),
    ...[...about].flatMap(([key, value]) => [msgpack.text(key), msgpack.text(value)]),
  ]);
  const source = (stream: string): Buffer =>
    free.includes('source') ? Buffer.concat([msgpack.text('source'), msgpack.text(stream)]) : Buffer.alloc(0);
  const heads = {
    stdout: Buffer.concat([head, source('stdout')]),
    stderr: Buffer.concat([head, source('stderr')]),
  };
  const key = msgpack.text('log');
  if (!free.includes('log')) return (line) => [heads[line.stream]];
  return (line) => [heads[line.stream], key, msgpack.textHead(line.text.length), line.text];
}
