/** The configuration: flags and daemon.json together, checked, frozen. */
import fs from 'node:fs';
import { invalid, messageOf } from '../lib/errors.ts';
import { isErrno } from '../platform/libc.ts';
import { parseFlags } from './flags.ts';
import { defaultConfigFile, type Option, options } from './options.ts';
import type { Config } from './types.ts';
import { fromJson, type Given } from './values.ts';

/** Runtimes that need no `--add-runtime`. */
const builtInRuntimes = ['crun', 'runc'];
/** Keys that may stand in both places; the flag's entries win. */
const mergedKeys = new Set(['runtimes']);

/** Reads flags and the file they name. Throws 'invalid' naming each offending flag or key. */
export function loadConfig(argv: readonly string[]): Config {
  const { given: flags, configFile } = parseFlags(argv);
  const file = configFile ?? defaultConfigFile;
  const inFile = readFile(file, configFile !== undefined);
  refuseConflicts(flags, inFile, file);

  const entries = options.map((option) => [option.of, settingOf(option, flags, inFile, file)] as const);
  const config = { ...Object.fromEntries(entries), configFile: file } as unknown as Config;
  const { defaultRuntime, runtimes } = config;
  if (!builtInRuntimes.includes(defaultRuntime) && !Object.hasOwn(runtimes, defaultRuntime)) {
    throw invalid(`default-runtime: specified default runtime '${defaultRuntime}' does not exist`);
  }
  return deepFreeze(config);
}

export interface Reloaded {
  readonly config: Config;
  /** Keys that have changed and take effect. */
  readonly changed: readonly string[];
  /** Keys that have changed in the file and need a restart; the old values stay. */
  readonly needRestart: readonly string[];
}

/** Reads the file again. Throws what `loadConfig` throws: the old configuration then goes on unchanged. */
export function reloadConfig(current: Config, argv: readonly string[]): Reloaded {
  const next = loadConfig(argv);
  const differing = options.filter(({ of }) => JSON.stringify(next[of]) !== JSON.stringify(current[of]));
  const reloaded = differing.filter(({ reloads }) => reloads);
  return {
    config: Object.freeze({ ...current, ...Object.fromEntries(reloaded.map(({ of }) => [of, next[of]])) }),
    changed: reloaded.map(({ key }) => key),
    needRestart: differing.filter(({ reloads }) => !reloads).map(({ key }) => key),
  };
}

function settingOf(option: Option, flags: Given, inFile: Given, file: string): unknown {
  const { key, flag, kind, initial } = option;
  const source = flags.has(key) ? `--${flag}` : `"${key}" in ${file}`;
  const check = option.check as ((value: unknown) => unknown) | undefined;
  try {
    const fromFile = inFile.has(key) ? fromJson(kind, inFile.get(key)) : undefined;
    const value =
      mergedKeys.has(key) && flags.has(key)
        ? { ...(fromFile as object | undefined), ...(flags.get(key) as object) }
        : (flags.get(key) ?? fromFile ?? initial);
    return check ? check(value) : value;
  } catch (error) {
    throw invalid(`${source}: ${messageOf(error)}`);
  }
}

function readFile(file: string, isRequired: boolean): Given {
  const failed = (why: string) => invalid(`unable to configure slipwayd with file ${file}: ${why}`);
  let text: string;
  try {
    text = fs.readFileSync(file, 'utf8');
  } catch (error) {
    if (!isRequired && isErrno(error, 'ENOENT')) return new Map();
    throw failed(messageOf(error));
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw failed(messageOf(error));
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw failed('it is not a JSON object');
  const given = new Map(Object.entries(parsed));
  const known = new Set(options.map(({ key }) => key));
  const unknown = [...given.keys()].filter((key) => !known.has(key));
  if (unknown.length > 0) {
    throw failed(`the following directives don't match any configuration option: ${unknown.join(', ')}`);
  }
  return given;
}

function refuseConflicts(flags: Given, inFile: Given, file: string): void {
  const both = [...flags.keys()].filter((key) => inFile.has(key) && !mergedKeys.has(key));
  if (both.length === 0) return;
  const list = both.map((key) => `${key}: (from flag: ${show(flags.get(key))}, from file: ${show(inFile.get(key))})`);
  throw invalid(
    `unable to configure slipwayd with file ${file}: ` +
      `the following directives are specified both as a flag and in the configuration file: ${list.join(', ')}`,
  );
}

const show = (value: unknown): string =>
  Array.isArray(value) ? `[${value.join(' ')}]` : typeof value === 'object' ? JSON.stringify(value) : String(value);

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const part of Object.values(value)) deepFreeze(part);
    Object.freeze(value);
  }
  return value;
}
