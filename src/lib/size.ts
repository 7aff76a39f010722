/** Sizes as people write them: `10m`, `1.5GB`, `512`. */
import { invalid } from './errors.ts';

const exponents: Readonly<Record<string, number>> = { '': 0, k: 1, m: 2, g: 3, t: 4, p: 5 };

function parse(text: string, base: number): number {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?$/i.exec(text.trim()) ?? [];
  const bytes = Math.floor(Number(number) * base ** (exponents[unit.toLowerCase()] ?? 0));
  if (number === undefined || !Number.isSafeInteger(bytes)) throw invalid(`invalid size: '${text}'`);
  return bytes;
}

/** In powers of 1024, whatever the unit is called: memory, `--shm-size`. */
export const parseMemorySize = (text: string): number => parse(text, 1024);

/** In powers of 1000: sizes of files, `max-size` of a log. */
export const parseFileSize = (text: string): number => parse(text, 1000);
