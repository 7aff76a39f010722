/** Syslog: RFC 3164 (with or without a host name) and RFC 5424, over udp, tcp, TLS and unix sockets. */
import fs from 'node:fs';
import { invalid } from '../../lib/errors.ts';
import { parseTag } from '../tag.ts';
import type { LogOptions, LogSubject } from '../types.ts';
import { type Address, existingSocket, hostOrLocal, parseUrl } from './address.ts';
import { openDatagrams, openStream, type TlsFiles } from './connection.ts';
import type { Driver, LogLine, Sender } from './types.ts';

const portDefault = '514';
/** Where a machine's own syslog listens, as tried one after the other. */
const localSockets = ['/dev/log', '/var/run/syslog', '/var/run/log'];
/** Longer lines go out as several datagrams. */
const datagramTextMax = 16 * 1024;
const severity = { stdout: 6, stderr: 3 } as const;
const facilities = `kern user mail daemon auth syslog lpr news uucp cron authpriv ftp . . . .
  local0 local1 local2 local3 local4 local5 local6 local7`.split(/\s+/);

const months = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ');
const two = (value: number): string => String(value).padStart(2, '0');

/** Null: the machine's own syslog. */
function addressOf(options: LogOptions): Address | null {
  const text = options['syslog-address'] ?? '';
  if (text === '') return null;
  const url = parseUrl(text, ['tcp', 'tcp+tls', 'udp', 'unix', 'unixgram']);
  if (url === null) throw invalid(`syslog-address should be in form proto://address, got ${text}`);
  if (url.scheme === 'unix' || url.scheme === 'unixgram') return { kind: url.scheme, path: existingSocket(url.path) };
  const kind = url.scheme === 'tcp+tls' ? 'tls' : (url.scheme as 'tcp' | 'udp');
  return { kind, host: hostOrLocal(url.host), port: Number(url.port || portDefault) };
}

function facilityOf(options: LogOptions): number {
  const text = options['syslog-facility'] ?? '';
  if (text === '') return facilities.indexOf('daemon');
  const number = /^\d+$/.test(text) ? Number(text) : facilities.indexOf(text);
  if (text === '.' || number < 0 || number > 23) throw invalid('invalid syslog facility');
  return number;
}

type Format = '' | 'rfc3164' | 'rfc5424' | 'rfc5424micro';

function formatOf(options: LogOptions): Format {
  const text = options['syslog-format'] ?? '';
  if (!['', 'rfc3164', 'rfc5424', 'rfc5424micro'].includes(text)) throw invalid('Invalid syslog format');
  return text as Format;
}

export const syslog: Driver = {
  name: 'syslog',
  options: [
    ...['env', 'env-regex', 'labels', 'labels-regex', 'tag', 'syslog-address', 'syslog-facility', 'syslog-format'],
    ...['syslog-tls-ca-cert', 'syslog-tls-cert', 'syslog-tls-key', 'syslog-tls-skip-verify'],
  ],
  unknown: (option) => `unknown log opt '${option}' for syslog log driver`,
  check(options) {
    addressOf(options);
    facilityOf(options);
    formatOf(options);
  },
  forward: { retryMs: () => 250, repeats: true, connect },
};

async function connect(options: LogOptions, subject: LogSubject, signal: AbortSignal): Promise<Sender> {
  const address = addressOf(options);
  if (address === null) return connectLocal(options, subject, signal);
  const format = formatOf(options);
  const encode = encoder(format, facilityOf(options), parseTag(options.tag || '{{.ID}}')(subject), subject.hostname);
  return open(address, options, encode, address.kind === 'tls' && format.startsWith('rfc5424'), signal);
}

/** dockerd sends no empty lines. */
const isFilled = ({ text }: LogLine): boolean => text.length > 0;

type Encode = (line: LogLine, text: Buffer) => readonly Buffer[];

async function open(
  address: Address,
  options: LogOptions,
  encode: Encode,
  counted: boolean,
  signal: AbortSignal,
): Promise<Sender> {
  if (address.kind === 'udp' || address.kind === 'unixgram') {
    const datagrams = await openDatagrams(address, signal);
    return {
      send: (lines) =>
        datagrams.send(
          lines.filter(isFilled).flatMap((line) => cut(line.text).map((text) => Buffer.concat(encode(line, text)))),
        ),
      onBroken: null,
      close: () => datagrams.close(),
    };
  }
  const stream = await openStream(address, address.kind === 'tls' ? tlsFiles(options) : null, signal);
  const sender: Sender = {
    send: async (lines) => {
      const parts = lines.filter(isFilled).flatMap((line) => framed(encode(line, line.text), counted));
      if (parts.length > 0) await stream.write(Buffer.concat(parts));
    },
    onBroken: null,
    close: () => stream.close(),
  };
  stream.onBroken = (error) => sender.onBroken?.(error);
  return sender;
}

/** RFC 5425 puts the length before each message; elsewhere a newline ends it. */
function framed(parts: readonly Buffer[], counted: boolean): readonly Buffer[] {
  if (!counted) return parts;
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return [Buffer.from(`${length} `), ...parts];
}

async function connectLocal(options: LogOptions, subject: LogSubject, signal: AbortSignal): Promise<Sender> {
  const encode = encoder(
    formatOf(options),
    facilityOf(options),
    parseTag(options.tag || '{{.ID}}')(subject),
    subject.hostname,
  );
  for (const path of localSockets) {
    for (const kind of ['unixgram', 'unix'] as const) {
      try {
        return await open({ kind, path }, options, encode, false, signal);
      } catch {
        signal.throwIfAborted();
      }
    }
  }
  throw new Error('no syslog of this machine listens');
}

function tlsFiles(options: LogOptions): TlsFiles {
  const read = (key: string): Buffer | undefined => {
    const file = options[key];
    return file ? fs.readFileSync(file) : undefined;
  };
  return {
    ca: read('syslog-tls-ca-cert'),
    cert: read('syslog-tls-cert'),
    key: read('syslog-tls-key'),
    skipVerify: options['syslog-tls-skip-verify'] !== undefined,
  };
}

function cut(text: Buffer): readonly Buffer[] {
  if (text.length <= datagramTextMax) return [text];
  const pieces: Buffer[] = [];
  for (let at = 0; at < text.length; at += datagramTextMax) pieces.push(text.subarray(at, at + datagramTextMax));
  return pieces;
}

const lineEnd = Buffer.from('\n');

/** What stands before the text of a line, the text, a newline. Lines of one second mostly share the first. */
function encoder(format: Format, facility: number, tag: string, hostname: string): Encode {
  const clocks: Record<Format, (line: LogLine) => string> = {
    '': stamp,
    rfc3164: stamp,
    rfc5424: (line) => rfc3339(line, ''),
    rfc5424micro: (line) => rfc3339(line, `.${String(Math.floor(line.nanoseconds / 1000)).padStart(6, '0')}`),
  };
  const heads: Record<Format, (priority: number, time: string) => string> = {
    '': (priority, time) => `<${priority}>${time} ${tag}[${process.pid}]: `,
    rfc3164: (priority, time) => `<${priority}>${time} ${hostname} ${tag}[${process.pid}]: `,
    rfc5424: (priority, time) => `<${priority}>1 ${time} ${hostname} ${tag} ${process.pid} ${tag} - `,
    rfc5424micro: (priority, time) => `<${priority}>1 ${time} ${hostname} ${tag} ${process.pid} ${tag} - `,
  };
  const clock = clocks[format];
  const write = heads[format];
  const last = { stdout: { at: Number.NaN, head: lineEnd }, stderr: { at: Number.NaN, head: lineEnd } };
  return (line, text) => {
    const known = last[line.stream];
    if (known.at !== line.seconds || format === 'rfc5424micro') {
      known.at = line.seconds;
      known.head = Buffer.from(write(facility * 8 + severity[line.stream], clock(line)));
    }
    return [known.head, text, lineEnd];
  };
}

/** `Nov  1 13:29:02`, in the machine's time. */
function stamp({ seconds }: LogLine): string {
  const date = new Date(seconds * 1000);
  const day = String(date.getDate()).padStart(2, ' ');
  return `${months[date.getMonth()]} ${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

function rfc3339({ seconds }: LogLine, fraction: string): string {
  const offset = -new Date(seconds * 1000).getTimezoneOffset();
  const wall = new Date((seconds + offset * 60) * 1000).toISOString().slice(0, 19);
  const minutes = Math.abs(offset);
  const zone = offset === 0 ? 'Z' : `${offset < 0 ? '-' : '+'}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
  return `${wall}${fraction}${zone}`;
}
