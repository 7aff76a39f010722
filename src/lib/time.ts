/** Time as the API has it: nanoseconds since the epoch as bigint, RFC 3339 as Go prints it. */
import { invalid } from './errors.ts';

let offset = 0n;

/**
 * Nanoseconds since the epoch. Follows the system clock like `Date.now()`, with the digits below a millisecond
 * taken from the monotonic clock, so that two calls in a row differ.
 */
export function nowNano(): bigint {
  const ticks = process.hrtime.bigint();
  const clock = BigInt(Date.now()) * 1_000_000n;
  const now = offset + ticks;
  if (now >= clock && now - clock < 2_000_000n) return now;
  offset = clock - ticks;
  return clock;
}

/** RFC 3339 in UTC with as many fraction digits as needed, as Go's `RFC3339Nano`: what records and answers hold. */
export function rfc3339Nano(nano: bigint): string {
  return rfc3339NanoFixed(nano).replace(/\.?0+Z$/, 'Z');
}

/** RFC 3339 in UTC with nine fraction digits: what stands before lines of a log. */
export function rfc3339NanoFixed(nano: bigint): string {
  const seconds = floorDivide(nano, 1_000_000_000n);
  const fraction = String(nano - seconds * 1_000_000_000n).padStart(9, '0');
  return `${new Date(Number(seconds) * 1000).toISOString().slice(0, 19)}.${fraction}Z`;
}

const floorDivide = (a: bigint, b: bigint): bigint => (a >= 0n || a % b === 0n ? a / b : a / b - 1n);

const pattern = {
  rfc3339: /^(\d{4})-(\d\d)-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?)?(Z|z|[+-]\d\d:\d\d)?$/,
  unix: /^(\d{1,12})(?:\.(\d{1,9})\d*)?$/,
  duration: /^([+-]?)((?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)$/,
};

const nanosOfUnit: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** Nanoseconds as Go prints a duration: `1m30s`, `1.5s`, `300ms`. */
export function goDuration(nanos: number): string {
  if (nanos === 0) return '0s';
  for (const [unit, scale] of [
    ['ns', 1],
    ['µs', 1e3],
    ['ms', 1e6],
  ] as const)
    if (Math.abs(nanos) < scale * 1000) return `${nanos / scale}${unit}`;
  const seconds = nanos / 1e9;
  const [hours, minutes] = [Math.trunc(seconds / 3600), Math.trunc((seconds % 3600) / 60)];
  const rest = `${Number((seconds % 60).toFixed(9))}s`;
  return hours > 0 ? `${hours}h${minutes}m${rest}` : minutes > 0 ? `${minutes}m${rest}` : rest;
}

/** A Go duration (`1h30m`, `-1.5s`, `300ms`, `0`) in nanoseconds; undefined if it is none. */
export function parseDuration(text: string): bigint | undefined {
  if (/^[+-]?0$/.test(text)) return 0n;
  const [, sign, parts] = pattern.duration.exec(text) ?? [];
  if (parts === undefined) return undefined;
  let nanos = 0n;
  for (const [, whole = '', fraction = '', unit = ''] of parts.matchAll(/(\d*)\.?(\d*)(ns|us|µs|μs|ms|s|m|h)/g)) {
    const scale = nanosOfUnit[unit] ?? 0;
    nanos += BigInt(whole || '0') * BigInt(scale) + BigInt(Math.floor(Number(`0.${fraction || '0'}`) * scale));
  }
  return sign === '-' ? -nanos : nanos;
}

/**
 * RFC 3339 in nanoseconds since the epoch; undefined if it is none. Seconds, minutes, hours or the whole time of day may be
 * missing; without a zone it is the machine's local time.
 */
export function parseRfc3339(text: string): bigint | undefined {
  const match = pattern.rfc3339.exec(text);
  if (!match) return undefined;
  const [, year = '', month = '', day = '', hour = '00', minute = '00', second = '00', fraction = '', zone = ''] =
    match;
  const wall = `${year}-${month}-${day}T${hour}:${minute}:${second}`;
  const ms = Date.parse(wall + zone.toUpperCase());
  // Date rolls the 31st of a short month over instead of refusing it.
  if (Number.isNaN(ms) || !new Date(`${wall}Z`).toISOString().startsWith(wall)) return undefined;
  return BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, '0'));
}

/**
 * A point in time as `since` and `until` give it: Unix seconds with or without a fraction, RFC 3339 (whole or cut short),
 * or a Go duration counted back from `now`. Throws 'invalid' for anything else.
 */
export function parseTime(text: string, now: bigint = nowNano()): bigint {
  const [, seconds, fraction = ''] = pattern.unix.exec(text) ?? [];
  if (seconds !== undefined) return BigInt(seconds) * 1_000_000_000n + BigInt(fraction.padEnd(9, '0'));
  const duration = parseDuration(text);
  const nano = duration !== undefined ? now - duration : parseRfc3339(text);
  if (nano === undefined) throw invalid(`failed to parse value as time or duration: ${JSON.stringify(text)}`);
  return nano;
}
