/** The journal of systemd, in its own protocol: one datagram per entry, or a sealed file in memory for a large one. */

import { attributesOf } from '../attributes.ts';
import { parseTag } from '../tag.ts';
import type { LogOptions, LogSubject } from '../types.ts';
import { UnixDatagrams } from './connection.ts';
import type { Driver, LogLine, Sender } from './types.ts';

const socketPath = '/run/systemd/journal/socket';
const priority = { stdout: 6, stderr: 3 } as const;

export const journald: Driver = {
  name: 'journald',
  options: ['labels', 'labels-regex', 'env', 'env-regex', 'tag'],
  unknown: (option) => `unknown log opt '${option}' for journald log driver`,
  check: () => undefined,
  forward: { retryMs: () => 250, repeats: false, connect },
};

async function connect(options: LogOptions, subject: LogSubject, signal: AbortSignal): Promise<Sender> {
  const datagrams = new UnixDatagrams(socketPath, signal);
  const head = fieldsOf(options, subject);
  return {
    send: async (lines) => {
      for (const line of lines) await datagrams.sendEntry(entryOf(head, line));
    },
    onBroken: null,
    close: () => datagrams.close(),
  };
}

/** All that is the same in each entry. */
function fieldsOf(options: LogOptions, subject: LogSubject): Buffer {
  const tag = parseTag(options.tag || '{{.ID}}')(subject);
  const fields = new Map([
    ['CONTAINER_ID', subject.id.slice(0, 12)],
    ['CONTAINER_ID_FULL', subject.id],
    ['CONTAINER_NAME', subject.name],
    ['CONTAINER_TAG', tag],
    ['IMAGE_NAME', subject.imageName],
    ['SYSLOG_IDENTIFIER', tag],
    ...attributesOf(options, subject, fieldName),
  ]);
  fields.delete('');
  return Buffer.concat([...fields].map(([name, value]) => field(name, Buffer.from(value))));
}

function entryOf(head: Buffer, { stream, text }: LogLine): Buffer {
  return Buffer.concat([head, Buffer.from(`PRIORITY=${priority[stream]}\n`), field('MESSAGE', text)]);
}

/** `NAME=value`, or for what holds newlines the name, the length in eight bytes, and the value. */
function field(name: string, value: Buffer): Buffer {
  if (!value.includes(10)) return Buffer.concat([Buffer.from(`${name}=`), value, Buffer.from('\n')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(value.length));
  return Buffer.concat([Buffer.from(`${name}\n`), length, value, Buffer.from('\n')]);
}

/** Fields are of capitals, digits and underscores, and begin with none of these last. */
const fieldName = (name: string): string =>
  name
    .replace(/[^a-zA-Z0-9]/g, '_')
    .toUpperCase()
    .replace(/^_+/, '');
