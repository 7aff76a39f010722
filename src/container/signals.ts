/** Signals by name or number, as `docker kill -s` and `StopSignal` take them. */
import os from 'node:os';
import { invalid } from '../lib/errors.ts';

export const SIGKILL = 9;
export const SIGTERM = 15;

const realtimeMin = 34;
const realtimeMax = 64;

const signals: Readonly<Record<string, number | undefined>> = os.constants.signals;

/** The signal's number. `KILL`, `SIGKILL`, `9`, `RTMIN+3`. Throws `Invalid signal: X`. */
export function parseSignal(text: string): number {
  const refuse = () => invalid(`Invalid signal: ${text}`);
  if (/^\d+$/.test(text)) {
    const number = Number(text);
    if (number < 1 || number > realtimeMax) throw refuse();
    return number;
  }
  const name = text.toUpperCase().replace(/^SIG/, '');
  const realtime = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name);
  if (realtime) {
    const offset = Number(realtime[3] ?? 0) * (realtime[2] === '-' ? -1 : 1);
    const number = (realtime[1] === 'MIN' ? realtimeMin : realtimeMax) + offset;
    if (number < realtimeMin || number > realtimeMax) throw refuse();
    return number;
  }
  const number = name === 'CLD' ? os.constants.signals.SIGCHLD : signals[`SIG${name}`];
  if (number === undefined) throw refuse();
  return number;
}
