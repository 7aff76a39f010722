/** What a volume may be called and which options the local driver takes, with dockerd's words. */
import { invalid } from '../lib/errors.ts';
import type { Texts } from './types.ts';

/** A file name of Linux. */
const nameBytesMax = 255;

/** Of local volumes, whose names are those of directories. */
export function checkName(name: string): void {
  if (name.length === 1) {
    throw invalid(`create ${name}: volume name is too short, names should be at least two alphanumeric characters`);
  }
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name)) {
    throw invalid(
      `create ${name}: ${JSON.stringify(name)} includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
    );
  }
  if (name.length > nameBytesMax) {
    throw invalid(`create ${name}: volume name is too long, names have at most ${nameBytesMax} characters`);
  }
}

const known = ['type', 'device', 'o', 'size'];
/** Option → what it makes no sense without. */
const needs: Readonly<Record<string, readonly string[]>> = {
  type: ['device'],
  device: ['type'],
  o: ['device', 'type'],
};

export function checkDriverOptions(name: string, options: Texts | null | undefined): void {
  const given = options ?? {};
  for (const option of Object.keys(given)) {
    if (!known.includes(option)) throw invalid(`create ${name}: invalid option: ${JSON.stringify(option)}`);
  }
  if (given.size !== undefined) throw invalid(`create ${name}: quota size requested but no quota support`);
  for (const option of Object.keys(given)) {
    const missing = (needs[option] ?? []).find((other) => given[other] === undefined);
    if (missing !== undefined) throw invalid(`create ${name}: missing required option: ${JSON.stringify(missing)}`);
  }
}
