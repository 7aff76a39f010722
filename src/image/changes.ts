/**
 * The `changes` of an import or a commit: single Dockerfile instructions that alter a config. Only those that need no
 * container. Grammar: the Dockerfile reference.
 */
import { invalid } from '../lib/errors.ts';
import { parseDuration } from '../lib/time.ts';
import type { Healthcheck, RunConfig } from './types.ts';

type Change = (config: RunConfig, rest: string) => RunConfig;

const instructions: Readonly<Record<string, Change>> = {
  CMD: (config, rest) => ({ ...config, Cmd: commandOf(rest) }),
  ENTRYPOINT: (config, rest) => ({ ...config, Entrypoint: commandOf(rest) }),
  ENV: (config, rest) => ({ ...config, Env: merged(config.Env ?? [], pairsOf('ENV', rest)) }),
  LABEL: (config, rest) => ({ ...config, Labels: { ...config.Labels, ...Object.fromEntries(pairsOf('LABEL', rest)) } }),
  EXPOSE: (config, rest) => ({ ...config, ExposedPorts: { ...config.ExposedPorts, ...portsOf(wordsOf(rest)) } }),
  VOLUME: (config, rest) => ({ ...config, Volumes: { ...config.Volumes, ...asSet(listOf(rest)) } }),
  USER: (config, rest) => ({ ...config, User: oneWord('USER', rest) }),
  WORKDIR: (config, rest) => ({ ...config, WorkingDir: directoryFrom(config.WorkingDir, oneWord('WORKDIR', rest)) }),
  ONBUILD: (config, rest) => ({ ...config, OnBuild: [...(config.OnBuild ?? []), triggerOf(rest)] }),
  STOPSIGNAL: (config, rest) => ({ ...config, StopSignal: oneWord('STOPSIGNAL', rest) }),
  HEALTHCHECK: (config, rest) => ({ ...config, Healthcheck: healthcheckOf(rest) }),
};

/** Throws 'invalid' for an instruction that is unknown or malformed. */
export function applyChanges(config: RunConfig, changes: readonly string[]): RunConfig {
  let result = config;
  for (const line of changes.flatMap((change) => change.split('\n'))) {
    const text = line.trim();
    if (text === '' || text.startsWith('#')) continue;
    const [, word = '', rest = ''] = /^(\S+)\s*([\s\S]*)$/.exec(text) ?? [];
    const name = word.toUpperCase();
    const change = Object.hasOwn(instructions, name) ? instructions[name] : undefined;
    if (change === undefined) throw invalid(`${word} is not a valid change command`);
    if (rest === '' && name !== 'CMD' && name !== 'ENTRYPOINT') throw missing(name);
    result = change(result, rest);
  }
  return result;
}

const missing = (name: string) => invalid(`${name} requires at least one argument`);

/** `["a", "b"]`; null when it is not a JSON list of strings. */
function jsonList(text: string): string[] | null {
  if (!text.startsWith('[')) return null;
  try {
    const list: unknown = JSON.parse(text);
    return Array.isArray(list) && list.every((item) => typeof item === 'string') ? list : null;
  } catch {
    return null;
  }
}

/** A list is the command itself, anything else a line for the shell. */
const commandOf = (rest: string): string[] => jsonList(rest) ?? (rest === '' ? [] : ['/bin/sh', '-c', rest]);
const listOf = (rest: string): string[] => jsonList(rest) ?? wordsOf(rest);
const asSet = (names: readonly string[]) => Object.fromEntries(names.map((name) => [name, {}]));

/** Words between blanks; quotes keep blanks, a backslash takes the meaning from what follows. */
function wordsOf(text: string): string[] {
  const words: string[] = [];
  let word: string | null = null;
  let quote = '';
  for (let at = 0; at < text.length; at++) {
    const char = text[at] as string;
    if (char === '\\' && quote !== "'" && at + 1 < text.length) word = (word ?? '') + text[++at];
    else if (char === quote) quote = '';
    else if (quote === '' && (char === '"' || char === "'")) {
      quote = char;
      word ??= '';
    } else if (quote === '' && /\s/.test(char)) {
      if (word !== null) words.push(word);
      word = null;
    } else word = (word ?? '') + char;
  }
  if (quote !== '') throw invalid(`unterminated quote in ${text}`);
  if (word !== null) words.push(word);
  return words;
}

function oneWord(name: string, rest: string): string {
  const [word, ...more] = wordsOf(rest);
  if (word === undefined || more.length > 0) throw invalid(`${name} requires exactly one argument`);
  return word;
}

/** `a=1 b="2 3"`, or the old form `name the rest is the value`. */
function pairsOf(name: string, rest: string): [key: string, value: string][] {
  if (!/^[^\s=]+=/.test(rest)) {
    const [, key = '', value] = /^(\S+)\s+([\s\S]+)$/.exec(rest) ?? [];
    if (value === undefined) throw invalid(`${name} must have two arguments`);
    return [[wordsOf(key)[0] ?? '', value]];
  }
  return wordsOf(rest).map((word) => {
    const equals = word.indexOf('=');
    if (equals < 0) throw invalid(`Syntax error - can't find = in "${word}". Must be of the form: name=value`);
    if (equals === 0) throw invalid(`${name} names can not be blank`);
    return [word.slice(0, equals), word.slice(equals + 1)];
  });
}

/** A variable set again keeps its place. */
function merged(env: readonly string[], pairs: readonly (readonly [string, string])[]): string[] {
  const all = new Map(env.map((line) => [line.split('=', 1)[0] ?? '', line]));
  for (const [key, value] of pairs) all.set(key, `${key}=${value}`);
  return [...all.values()];
}

function portsOf(words: readonly string[]): Record<string, Record<string, never>> {
  const ports: Record<string, Record<string, never>> = {};
  for (const word of words) {
    const [, first = '', last = first, protocol = 'tcp'] = /^(\d+)(?:-(\d+))?(?:\/(tcp|udp|sctp))?$/i.exec(word) ?? [];
    const [low, high] = [Number(first), Number(last)];
    if (first === '' || low < 1 || high > 65535 || high < low) throw invalid(`Invalid containerPort: ${word}`);
    for (let port = low; port <= high; port++) ports[`${port}/${protocol.toLowerCase()}`] = {};
  }
  return ports;
}

function directoryFrom(current: string, next: string): string {
  const parts = (next.startsWith('/') ? next : `${current}/${next}`).split('/');
  const clean: string[] = [];
  for (const part of parts) {
    if (part === '..') clean.pop();
    else if (part !== '' && part !== '.') clean.push(part);
  }
  return `/${clean.join('/')}`;
}

function triggerOf(rest: string): string {
  const name = rest.split(/\s/, 1)[0]?.toUpperCase() ?? '';
  if (name === 'ONBUILD') throw invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
  if (name === 'MAINTAINER' || name === 'FROM') throw invalid(`${name} isn't allowed as an ONBUILD trigger`);
  return rest;
}

function healthcheckOf(rest: string): Healthcheck {
  const amounts: Record<string, number> = {};
  let left = rest;
  for (let option = /^--([a-z]+)=(\S*)\s*/.exec(left); option !== null; option = /^--([a-z]+)=(\S*)\s*/.exec(left)) {
    const [whole, name = '', value = ''] = option;
    left = left.slice(whole.length);
    if (name === 'retries') {
      if (!/^\d+$/.test(value)) throw invalid(`HEALTHCHECK: --retries must be a number, not "${value}"`);
      amounts.Retries = Number(value);
    } else if (name === 'interval' || name === 'timeout') {
      const duration = parseDuration(value);
      if (duration === undefined || duration < 0n) throw invalid(`HEALTHCHECK: --${name}: invalid duration "${value}"`);
      amounts[name === 'interval' ? 'Interval' : 'Timeout'] = Number(duration);
    } else throw invalid(`Unknown flag: ${name}`);
  }
  const [, type = '', command = ''] = /^(\S*)\s*([\s\S]*)$/.exec(left) ?? [];
  if (type.toUpperCase() === 'NONE' && command === '') return { Test: ['NONE'] };
  if (type.toUpperCase() !== 'CMD') throw invalid(`Unknown type "${type}" in HEALTHCHECK (try CMD)`);
  if (command === '') throw invalid('Missing command after HEALTHCHECK CMD');
  const list = jsonList(command);
  return { Test: list === null ? ['CMD-SHELL', command] : ['CMD', ...list], ...amounts };
}
