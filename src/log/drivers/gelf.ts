/** GELF 1.1: JSON over udp (compressed, in chunks if large) or tcp (each message ended by a zero byte). */
import { randomBytes } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { deflateSync, gzipSync } from 'node:zlib';
import { invalid } from '../../lib/errors.ts';
import { attributesOf } from '../attributes.ts';
import { parseTag } from '../tag.ts';
import type { LogOptions, LogSubject } from '../types.ts';
import { hostOrLocal, type NetAddress, parseUrl } from './address.ts';
import { openDatagrams, openStream } from './connection.ts';
import type { Driver, LogLine, Sender } from './types.ts';

const level = { stdout: 6, stderr: 3 } as const;
/** A datagram that fits the frames of an Ethernet; its chunk header takes twelve bytes. */
const datagramMax = 1420;
const chunkHeaderLength = 12;
const chunksMax = 128;
const payloadMax = (datagramMax - chunkHeaderLength) * chunksMax;
/** Compression takes the main thread no longer than this at once. */
const turnMs = 4;
const reconnectDelaySecondsDefault = 1;

function addressOf(options: LogOptions): NetAddress & { readonly kind: 'tcp' | 'udp' } {
  const text = options['gelf-address'] ?? '';
  if (text === '') throw invalid('gelf-address is a required parameter');
  const url = parseUrl(text, ['tcp', 'tcp+tls', 'udp', 'unix', 'unixgram']);
  if (url === null) throw invalid(`gelf-address should be in form proto://address, got ${text}`);
  if (url.scheme !== 'udp' && url.scheme !== 'tcp') throw invalid('gelf: endpoint needs to be TCP or UDP');
  if (url.port === '') throw invalid('gelf: please provide gelf-address as proto://host:port');
  return { kind: url.scheme, host: hostOrLocal(url.host), port: Number(url.port) };
}

export const gelf: Driver = {
  name: 'gelf',
  options: [
    ...['env', 'env-regex', 'labels', 'labels-regex', 'tag', 'gelf-address', 'gelf-compression-level'],
    ...['gelf-compression-type', 'gelf-tcp-max-reconnect', 'gelf-tcp-reconnect-delay'],
  ],
  unknown: (option) => `unknown log opt "${option}" for gelf log driver`,
  check(options) {
    const { kind } = addressOf(options);
    for (const [key, value] of Object.entries(options)) {
      const unknownValue = invalid(`unknown value "${value}" for log opt "${key}" for gelf log driver`);
      if (key.startsWith('gelf-compression-')) {
        if (kind !== 'udp') throw invalid('compression is only supported on UDP');
        if (!(key.endsWith('level') ? /^(-1|[0-9])$/ : /^(gzip|zlib|none)$/).test(value)) throw unknownValue;
      } else if (key.startsWith('gelf-tcp-')) {
        if (kind !== 'tcp') throw invalid(`"${key}" is only valid for TCP`);
        if (!/^\d+$/.test(value)) throw invalid(`"${key}" must be a positive integer`);
      }
    }
  },
  forward: {
    retryMs: (options) => 1000 * Number(options['gelf-tcp-reconnect-delay'] ?? reconnectDelaySecondsDefault),
    repeats: true,
    connect,
  },
};

/** GELF has no empty messages. */
const isFilled = ({ text }: LogLine): boolean => text.length > 0;

async function connect(options: LogOptions, subject: LogSubject, signal: AbortSignal): Promise<Sender> {
  const address = addressOf(options);
  const encode = encoder(options, subject);
  if (address.kind === 'tcp') {
    const stream = await openStream(address, null, signal);
    const sender: Sender = {
      send: async (all) => {
        const lines = all.filter(isFilled);
        if (lines.length > 0)
          await stream.write(Buffer.from(lines.map((line) => `${encode(line, line.text)}\0`).join('')));
      },
      onBroken: null,
      close: () => stream.close(),
    };
    stream.onBroken = (error) => sender.onBroken?.(error);
    return sender;
  }
  const datagrams = await openDatagrams(address, signal);
  const compress = compression(options);
  /** A message too large for its protocol goes out in halves. */
  const messagesOf = (line: LogLine, text: Buffer): readonly Buffer[] => {
    const payload = compress(Buffer.from(encode(line, text)));
    if (payload.length <= payloadMax) return chunksOf(payload);
    const half = Math.ceil(text.length / 2);
    return [...messagesOf(line, text.subarray(0, half)), ...messagesOf(line, text.subarray(half))];
  };
  return {
    async send(lines) {
      let messages: Buffer[] = [];
      let began = performance.now();
      for (const line of lines.filter(isFilled)) {
        messages.push(...messagesOf(line, line.text));
        if (performance.now() - began < turnMs) continue;
        await datagrams.send(messages);
        await turn();
        messages = [];
        began = performance.now();
      }
      await datagrams.send(messages);
    },
    onBroken: null,
    close: () => datagrams.close(),
  };
}

function encoder(options: LogOptions, subject: LogSubject): (line: LogLine, text: Buffer) => string {
  const about = {
    _command: subject.command,
    _container_id: subject.id,
    _container_name: subject.name,
    _created: subject.created,
    _image_id: subject.imageId,
    _image_name: subject.imageName,
    _tag: parseTag(options.tag || '{{.ID}}')(subject),
    ...Object.fromEntries(attributesOf(options, subject, (name) => (name.startsWith('_') ? name : `_${name}`))),
  };
  const head = `{"version":"1.1","host":${JSON.stringify(subject.hostname)},"short_message":`;
  const tail = `,${JSON.stringify(about).slice(1)}`;
  return (line, text) => {
    const milliseconds = line.seconds * 1000 + Math.floor(line.nanoseconds / 1e6);
    const message = JSON.stringify(text.toString());
    return `${head}${message},"timestamp":${milliseconds / 1000},"level":${level[line.stream]}${tail}`;
  };
}

function compression(options: LogOptions): (message: Buffer) => Buffer {
  const type = options['gelf-compression-type'] ?? 'gzip';
  const settings = { level: Number(options['gelf-compression-level'] ?? 1) };
  if (type === 'none') return (message) => message;
  return type === 'zlib' ? (message) => deflateSync(message, settings) : (message) => gzipSync(message, settings);
}

/** `1e 0f`, eight bytes that name the message, number and count of the chunk. */
function chunksOf(payload: Buffer): readonly Buffer[] {
  if (payload.length <= datagramMax) return [payload];
  const size = datagramMax - chunkHeaderLength;
  const count = Math.ceil(payload.length / size);
  const head = Buffer.concat([Buffer.from([0x1e, 0x0f]), randomBytes(8)]);
  return Array.from({ length: count }, (_, index) =>
    Buffer.concat([head, Buffer.from([index, count]), payload.subarray(index * size, (index + 1) * size)]),
  );
}
