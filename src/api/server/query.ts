/** Query parameters as Docker reads them. */
import { invalid } from '../../lib/errors.ts';

/** False is absent, empty, `0`, `no`, `false`, `none`; anything else is true (W-35). */
export function flag(query: URLSearchParams, name: string, absent = false): boolean {
  const value = query.get(name);
  if (value === null) return absent;
  return !['', '0', 'no', 'false', 'none'].includes(value.trim().toLowerCase());
}

/** Undefined when absent or empty; a 400 naming the parameter for anything but a whole number. */
export function integer(query: URLSearchParams, name: string): number | undefined {
  const value = query.get(name);
  if (value === null || value === '') return undefined;
  const number = Number(value);
  if (!/^[-+]?\d+$/.test(value) || !Number.isSafeInteger(number)) {
    throw invalid(`invalid value of ${name}: parsing "${value}": invalid syntax`);
  }
  return number;
}

/** `seconds[.fraction]` since the epoch, as nanoseconds. Undefined when absent or empty. */
export function timestamp(query: URLSearchParams, name: string): bigint | undefined {
  const value = query.get(name);
  if (value === null || value === '') return undefined;
  const parts = /^(-?\d{1,12})(?:\.(\d*))?$/.exec(value);
  if (parts === null) return dateToNanoseconds(name, value);
  const fraction = BigInt((parts[2] ?? '').slice(0, 9).padEnd(9, '0'));
  return BigInt(parts[1] as string) * 1_000_000_000n + fraction;
}

/** Clients should send seconds; RFC 3339 is understood as well. */
function dateToNanoseconds(name: string, value: string): bigint {
  const milliseconds = /^\d{4}-\d\d-\d\dT/.test(value) ? Date.parse(value) : Number.NaN;
  if (Number.isNaN(milliseconds)) throw invalid(`invalid value of ${name}: "${value}" is not a Unix time in seconds`);
  const fraction = /\.(\d+)/.exec(value)?.[1] ?? '';
  return BigInt(Math.floor(milliseconds / 1000)) * 1_000_000_000n + BigInt(fraction.slice(0, 9).padEnd(9, '0'));
}

const noFilters: ReadonlyMap<string, readonly string[]> = new Map();

/** `filters`: `{"name":["a"]}` (W-80) or `{"name":{"a":true}}` (W-81). Names are checked by whoever applies them. */
export function filters(query: URLSearchParams): ReadonlyMap<string, readonly string[]> {
  const text = query.get('filters');
  if (text === null || text === '') return noFilters;
  const found = new Map<string, readonly string[]>();
  for (const [name, values] of Object.entries(parseFilters(text))) found.set(name, valuesOf(name, values));
  return found;
}

function parseFilters(text: string): object {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalid(`invalid filters: ${error instanceof Error ? error.message : error}`);
  }
  if (value === null) return {};
  if (typeof value !== 'object' || Array.isArray(value)) throw invalid('invalid filters: not a JSON object');
  return value;
}

function valuesOf(name: string, values: unknown): readonly string[] {
  if (Array.isArray(values) && values.every((value) => typeof value === 'string')) return values;
  if (typeof values === 'object' && values !== null && !Array.isArray(values)) {
    const entries = Object.entries(values);
    if (entries.every(([, on]) => typeof on === 'boolean')) return entries.filter(([, on]) => on).map(([key]) => key);
  }
  throw invalid(`invalid filters: the values of "${name}" are neither a list of strings nor a map to true`);
}

export const filterError = (name: string) => invalid(`Invalid filter '${name}'`);
