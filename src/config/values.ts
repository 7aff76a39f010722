/** Settings from text (flags) and from JSON (daemon.json). Messages say what is wrong; callers name the setting. */
import { invalid } from '../lib/errors.ts';
import { parseSubnet } from '../lib/ip.ts';
import type { Kind } from './options.ts';

/** Settings as given, by key of daemon.json. */
export type Given = ReadonlyMap<string, unknown>;

function pair(text: string, shape: string): [name: string, value: string] {
  const at = text.indexOf('=');
  if (at < 1) throw invalid(`expected ${shape}`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function ulimit(text: string): [string, object] {
  const [name, limits] = pair(text, 'name=soft[:hard]');
  const [soft = '', hard = soft, ...more] = limits.split(':');
  if (![soft, hard].every((limit) => /^-?\d+$/.test(limit)) || more.length > 0)
    throw invalid('expected name=soft[:hard]');
  return [name, checkUlimit({ Name: name, Soft: Number(soft), Hard: Number(hard) })];
}

function checkUlimit(limit: { Name: string; Soft: number; Hard: number }): object {
  if (limit.Hard !== -1 && (limit.Soft === -1 || limit.Soft > limit.Hard)) {
    throw invalid(`ulimit soft limit must be less than or equal to hard limit: ${limit.Soft} > ${limit.Hard}`);
  }
  return limit;
}

function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw invalid('expected a whole number');
  return Number(text);
}

function truth(text: string): boolean {
  if (/^(1|t|true)$/i.test(text)) return true;
  if (/^(0|f|false)$/i.test(text)) return false;
  throw invalid('expected true or false');
}

/** The value of a flag; `before` is what earlier uses of the same flag have made. */
export function fromText(kind: Kind, text: string, before: unknown): unknown {
  switch (kind) {
    case 'text':
      return text;
    case 'switch':
      return truth(text);
    case 'number':
      return wholeNumber(text);
    case 'list':
      return [...((before as string[] | undefined) ?? []), text];
    case 'map':
      return Object.fromEntries([...entriesOf(before), pair(text, 'key=value')]);
    case 'ulimits':
      return Object.fromEntries([...entriesOf(before), ulimit(text)]);
    case 'pools':
      return [...((before as object[] | undefined) ?? []), poolFromText(text)];
    case 'runtimes': {
      const [name, path] = pair(text, 'name=path');
      return Object.fromEntries([...entriesOf(before), [name, { path, runtimeArgs: [] }]]);
    }
  }
}

const entriesOf = (value: unknown): [string, unknown][] => Object.entries((value as object | undefined) ?? {});

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isTextList = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((item) => typeof item === 'string');

/** The value of a key in the file. */
export function fromJson(kind: Kind, value: unknown): unknown {
  switch (kind) {
    case 'text':
      if (typeof value === 'string') return value;
      throw wrong('a string', value);
    case 'switch':
      if (typeof value === 'boolean') return value;
      throw wrong('true or false', value);
    case 'number':
      if (Number.isSafeInteger(value)) return value;
      throw wrong('a whole number', value);
    case 'list':
      if (isTextList(value)) return value;
      throw wrong('a list of strings', value);
    case 'map':
      if (isObject(value) && Object.values(value).every((item) => typeof item === 'string')) return value;
      throw wrong('an object of strings', value);
    case 'ulimits':
      if (!isObject(value)) throw wrong('an object', value);
      return Object.fromEntries(Object.entries(value).map(([name, limit]) => [name, ulimitFromJson(name, limit)]));
    case 'pools':
      if (!Array.isArray(value)) throw wrong('a list of objects', value);
      return value.map(checkPool);
    case 'runtimes':
      if (!isObject(value)) throw wrong('an object', value);
      return Object.fromEntries(Object.entries(value).map(([name, runtime]) => [name, runtimeFromJson(name, runtime)]));
  }
}

function ulimitFromJson(name: string, limit: unknown): object {
  if (!isObject(limit) || !Number.isSafeInteger(limit.Soft) || !Number.isSafeInteger(limit.Hard)) {
    throw invalid(`expected {"Name": "${name}", "Soft": number, "Hard": number} for "${name}"`);
  }
  return checkUlimit({ Name: name, Soft: Number(limit.Soft), Hard: Number(limit.Hard) });
}

/** `base=10.10.0.0/16,size=24` */
function poolFromText(text: string): object {
  const parts = Object.fromEntries(text.split(',').map((part) => pair(part, 'base=CIDR,size=number')));
  return checkPool({ ...parts, ...('size' in parts ? { size: wholeNumber(String(parts.size)) } : {}) });
}

function checkPool(pool: unknown): object {
  const expected = 'expected {"base": CIDR, "size": prefix length of each network}';
  if (!isObject(pool) || typeof pool.base !== 'string' || typeof pool.size !== 'number') throw invalid(expected);
  const { base, size, ...others } = pool;
  const subnet = parseSubnet(base);
  if (Object.keys(others).length > 0 || subnet === undefined) throw invalid(expected);
  const largest = subnet.family === 4 ? 30 : 126;
  if (!Number.isInteger(size) || size < subnet.prefixLength || size > largest)
    throw invalid(`size ${size} of pool ${base} is not between ${subnet.prefixLength} and ${largest}`);
  return { base, size };
}

function runtimeFromJson(name: string, runtime: unknown): object {
  if (!isObject(runtime) || typeof runtime.path !== 'string' || runtime.path === '') {
    throw invalid(`expected {"path": string, "runtimeArgs": [string]} for "${name}"`);
  }
  const { path, runtimeArgs = [], ...others } = runtime;
  const [other] = Object.keys(others);
  if (other !== undefined) throw invalid(`"${other}" of runtime "${name}" is not known`);
  if (!isTextList(runtimeArgs)) throw invalid(`"runtimeArgs" of runtime "${name}" must be a list of strings`);
  return { path, runtimeArgs };
}

function wrong(expected: string, value: unknown) {
  return invalid(`expected ${expected}, not ${JSON.stringify(value)}`);
}
