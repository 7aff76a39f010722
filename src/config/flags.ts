import { invalid, messageOf } from '../lib/errors.ts';
import { type Option, options } from './options.ts';
import { fromText, type Given } from './values.ts';

export interface Flags {
  readonly given: Given;
  /** Undefined: the default place, which may be absent. */
  readonly configFile: string | undefined;
  readonly action: 'run' | 'help' | 'version';
}

const byFlag: ReadonlyMap<string, Option> = new Map(
  options.flatMap((option) => [
    [`--${option.flag}`, option] as [string, Option],
    ...(option.letter ? [[`-${option.letter}`, option] as [string, Option]] : []),
  ]),
);

/** `--flag value`, `--flag=value`, `-F value`, `-F=value`, `-Fvalue`; a switch needs no value. */
export function parseFlags(argv: readonly string[]): Flags {
  const given = new Map<string, unknown>();
  let configFile: string | undefined;
  const rest = argv[Symbol.iterator]();
  for (const argument of rest) {
    const [, flag = '', glued] = /^(--[^=]*|-[^-=])=?(.*)$/s.exec(argument) ?? [];
    const hasValue = argument.length > flag.length;
    const value = (): string => {
      if (hasValue) return glued ?? '';
      const next = rest.next();
      if (next.done) throw invalid(`flag needs an argument: ${flag}`);
      return next.value;
    };
    if (flag === '--help' || flag === '-h') return { given, configFile, action: 'help' };
    if (flag === '--version' || flag === '-v') return { given, configFile, action: 'version' };
    if (flag === '--config-file') {
      configFile = value();
      continue;
    }
    if (flag === '') throw invalid(`slipwayd takes no arguments, only flags: "${argument}"`);
    const option = byFlag.get(flag);
    if (!option) throw invalid(`unknown flag: ${flag}`);
    const text = option.kind === 'switch' && !hasValue ? 'true' : value();
    try {
      given.set(option.key, fromText(option.kind, text, given.get(option.key)));
    } catch (error) {
      throw invalid(`invalid argument "${text}" for ${flag}: ${messageOf(error)}`);
    }
  }
  return { given, configFile, action: 'run' };
}
