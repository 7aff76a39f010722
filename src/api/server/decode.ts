/** From bytes to a checked body. Names match in any case (W-40), null counts as absent, unknown properties are ignored. */
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { invalid } from '../../lib/errors.ts';
import { ClientGone, HttpError } from './errors.ts';

/** A create body with the longest environment Linux can pass to a process is below this; parsing it takes milliseconds. */
export const jsonBytesMax = 4 * 1024 * 1024;

/** Checks parsed JSON and gives it the type a route expects, or throws an 'invalid' that names the property (`at`). */
export type Decoder<T> = (value: unknown, at?: string) => T;
export type Decoded<D> = D extends Decoder<infer T> ? T : never;

const refuse = (at: string, expected: string) =>
  invalid(`invalid JSON: ${at === '' ? 'the body' : at} must be ${expected}`);
const below = (at: string, name: string) => (at === '' ? name : `${at}.${name}`);
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export const text: Decoder<string> = (value, at = '') => {
  if (typeof value !== 'string') throw refuse(at, 'string');
  // Half a character is not written down by everyone in the same way; this is Go's.
  return withoutNull(value, at).toWellFormed();
};

/** Linux takes a null byte nowhere: a path or a word would end there, each time somewhere else. */
function withoutNull(value: string, at: string): string {
  if (value.includes('\0')) throw invalid(`invalid JSON: ${at === '' ? 'the body' : at} holds a null byte`);
  return value;
}

/** Largest number below 2^63 that JSON's reader can tell from it; where clients say 2^63 - 1, they get this. */
const wholeMax = 2 ** 63 - 1024;

export const whole: Decoder<number> = (value, at = '') => {
  if (typeof value !== 'number' || !Number.isInteger(value) || Math.abs(value) > 2 ** 63) throw refuse(at, 'integer');
  return Math.min(value, wholeMax);
};

export const bool: Decoder<boolean> = (value, at = '') => {
  if (typeof value !== 'boolean') throw refuse(at, 'boolean');
  return value;
};

export const list =
  <T>(of: Decoder<T>): Decoder<readonly T[]> =>
  (value, at = '') => {
    if (!Array.isArray(value)) throw refuse(at, 'array');
    return value.map((item, index) => of(item, below(at, String(index))));
  };

export const map =
  <T>(to: Decoder<T>): Decoder<Readonly<Record<string, T>>> =>
  (value, at = '') => {
    if (!isObject(value)) throw refuse(at, 'object');
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [withoutNull(key, at).toWellFormed(), to(item, below(at, key))]),
    );
  };

export const orNull =
  <T>(decode: Decoder<T>): Decoder<T | null> =>
  (value, at) =>
    value === null ? null : decode(value, at);

/** One string where a list of words belongs is a list of one. */
export const words: Decoder<readonly string[]> = (value, at) =>
  typeof value === 'string' ? [value] : list(text)(value, at);

/** Every property may be absent. */
export function object<P extends Record<string, Decoder<unknown>>>(
  properties: P,
): Decoder<{ readonly [K in keyof P]?: Decoded<P[K]> }> {
  const known = new Map<string, string>();
  for (const name of Object.keys(properties)) {
    known.set(name, name);
    if (!known.has(name.toLowerCase())) known.set(name.toLowerCase(), name);
  }
  return (value, at = '') => {
    if (!isObject(value)) throw refuse(at, 'object');
    const decoded: Record<string, unknown> = {};
    for (const [key, content] of Object.entries(value)) {
      const name = known.get(key) ?? known.get(key.toLowerCase());
      if (name === undefined || content === null) continue;
      decoded[name] = properties[name]?.(content, below(at, name));
    }
    return decoded as { readonly [K in keyof P]?: Decoded<P[K]> };
  };
}

/** The whole body; 413 when it is longer than `limit`, the rest is then dropped as it comes. */
export async function readBody(source: Readable, limit = jsonBytesMax): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of source.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > limit) throw new HttpError(413, `request body too large: at most ${limit} bytes are accepted`);
      chunks.push(chunk);
    }
  } catch (error) {
    if (!(error instanceof HttpError)) throw new ClientGone('the client left within its request', { cause: error });
    source.resume();
    throw error;
  }
  return chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
}

/** Undefined for an empty body. */
export function parseJson(bytes: Buffer): unknown {
  if (bytes.length === 0) return undefined;
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw invalid(`invalid JSON: ${error instanceof Error ? error.message : error}`);
  }
}

export function checkContentType(request: Pick<IncomingMessage, 'headers'>, hasBody: boolean): void {
  const type = request.headers['content-type'] ?? '';
  if (type === '' && !hasBody) return;
  if (type.split(';', 1)[0]?.trim().toLowerCase() === 'application/json') return;
  throw invalid(`Content-Type specified (${type}) must be 'application/json'`);
}
