/** Time as the API has it: nanoseconds since the epoch as bigint, RFC 3339 with nine digits. */

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
