/**
 * The `changes` of an import or a commit: single Dockerfile instructions that alter a config. Only those that need no
 * container. Grammar: the Dockerfile reference.
 */
import { invalid } from '../lib/errors.ts';
import { parseDuration } from '../lib/time.ts';
import type { Healthcheck, RunConfig } from './types.ts';
import { lookupIn, wordsOf } from './words.ts';

interface Building {
  readonly config: RunConfig;
  /** A CMD came before in the same changes: an ENTRYPOINT then leaves it. */
  readonly hasCmd: boolean;
}

type Change = (config: RunConfig, rest: string, building: Building) => RunConfig;

const instructions: Readonly<Record<string, Change>> = {
  CMD: (config, rest) => ({ ...config, Cmd: commandOf(config, rest) }),
  // A command that was meant for another entrypoint makes no sense to this one.
  ENTRYPOINT: (config, rest, { hasCmd }) => {
    const entrypoint = commandOf(config, rest);
    return {
      ...config,
      Entrypoint: entrypoint.length === 0 ? null : entrypoint,
      Cmd: hasCmd ? config.Cmd : null,
    };
  },
  ENV: (config, rest) => ({ ...config, Env: merged(config.Env ?? [], pairsOf('ENV', rest, config)) }),
  LABEL: (config, rest) => ({
    ...config,
    Labels: { ...config.Labels, ...Object.fromEntries(pairsOf('LABEL', rest, config)) },
  }),
  EXPOSE: (config, rest) => ({ ...config, ExposedPorts: { ...config.ExposedPorts, ...portsOf(words(config, rest)) } }),
  VOLUME: (config, rest) => ({ ...config, Volumes: { ...config.Volumes, ...asSet(listOf(config, rest)) } }),
  USER: (config, rest) => ({ ...config, User: oneWord('USER', config, rest) }),
  WORKDIR: (config, rest) => ({
    ...config,
    WorkingDir: directoryFrom(config.WorkingDir, oneWord('WORKDIR', config, rest)),
  }),
  ONBUILD: (config, rest) => ({ ...config, OnBuild: [...(config.OnBuild ?? []), triggerOf(rest)] }),
  STOPSIGNAL: (config, rest) => ({ ...config, StopSignal: oneWord('STOPSIGNAL', config, rest) }),
  HEALTHCHECK: (config, rest) => ({ ...config, Healthcheck: healthcheckOf(rest) }),
};

/** A line goes on after a backslash at its end, as in a Dockerfile. */
const linesOf = (change: string) => change.replace(/\\[ \t]*\r?\n/g, '').split('\n');

/** Throws 'invalid' for an instruction that is unknown or malformed, and for changes without any. */
export function applyChanges(config: RunConfig, changes: readonly string[]): RunConfig {
  let building: Building = { config, hasCmd: false };
  let applied = 0;
  for (const line of changes.flatMap(linesOf)) {
    const text = line.trim();
    if (text === '' || text.startsWith('#')) continue;
    const [, word = '', rest = ''] = /^(\S+)\s*([\s\S]*)$/.exec(text) ?? [];
    const name = word.toUpperCase();
    const change = Object.hasOwn(instructions, name) ? instructions[name] : undefined;
    if (change === undefined) throw invalid(`${word.toLowerCase()} is not a valid change command`);
    if (rest === '' && name !== 'CMD' && name !== 'ENTRYPOINT') throw missing(name);
    building = { config: change(building.config, rest, building), hasCmd: building.hasCmd || name === 'CMD' };
    applied++;
  }
  if (changes.length > 0 && applied === 0) throw invalid('file with no instructions');
  return building.config;
}

const exactlyOne = new Set(['USER', 'WORKDIR', 'STOPSIGNAL']);
const missing = (name: string) =>
  invalid(`${name} requires ${exactlyOne.has(name) ? 'exactly' : 'at least'} one argument`);

/** `["a", "b"]`; null for what is no JSON list. */
function jsonList(text: string): string[] | null {
  if (!text.startsWith('[')) return null;
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch {
    return null;
  }
  if (!Array.isArray(list)) return null;
  if (!list.every((item) => typeof item === 'string'))
    throw invalid('when using JSON array syntax, arrays must be comprised of strings only');
  return list;
}

/** A list is the command itself, anything else a line for the shell. */
function commandOf({ Shell: shell }: RunConfig, rest: string): string[] {
  const list = jsonList(rest);
  if (list !== null || rest === '') return list ?? [];
  return [...(shell?.length ? shell : ['/bin/sh', '-c']), rest];
}

const words = (config: RunConfig, rest: string): string[] => wordsOf(rest, lookupIn(config.Env));
const listOf = (config: RunConfig, rest: string): string[] =>
  jsonList(rest)?.map((word) => wordsOf(word, lookupIn(config.Env), true)[0] ?? '') ?? words(config, rest);
const asSet = (names: readonly string[]) => Object.fromEntries(names.map((name) => [name, {}]));

function oneWord(name: string, config: RunConfig, rest: string): string {
  const [word, ...more] = words(config, rest);
  if (word === undefined || more.length > 0) throw invalid(`${name} requires exactly one argument`);
  return word;
}

/** `a=1 b="2 3"`, or the old form `name the rest is the value`. */
function pairsOf(name: string, rest: string, config: RunConfig): [key: string, value: string][] {
  const lookup = lookupIn(config.Env);
  if (!/^("[^"]*"|[^\s=])*=/.test(rest)) {
    const [, key = '', value] = /^(\S+)\s+([\s\S]+)$/.exec(rest) ?? [];
    if (value === undefined) throw invalid(`${name} must have two arguments`);
    return [[wordsOf(key, lookup)[0] ?? '', wordsOf(value, lookup, true)[0] ?? '']];
  }
  return wordsOf(rest, lookup).map((word) => {
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

const healthOption = /^--([a-z-]+)=(\S*)\s*/;
const healthDurations: Readonly<Record<string, string>> = {
  interval: 'Interval',
  timeout: 'Timeout',
  'start-period': 'StartPeriod',
};

function healthcheckOf(rest: string): Healthcheck {
  const amounts: Record<string, number> = {};
  let left = rest;
  for (let option = healthOption.exec(left); option !== null; option = healthOption.exec(left)) {
    const [whole, name = '', value = ''] = option;
    left = left.slice(whole.length);
    if (name === 'retries') {
      if (!/^\d+$/.test(value)) throw invalid(`HEALTHCHECK: --retries must be a number, not "${value}"`);
      amounts.Retries = Number(value);
    } else if (Object.hasOwn(healthDurations, name)) {
      const duration = parseDuration(value);
      if (duration === undefined || duration < 0n) throw invalid(`HEALTHCHECK: --${name}: invalid duration "${value}"`);
      amounts[healthDurations[name] ?? ''] = Number(duration);
    } else throw invalid(`Unknown flag: ${name}`);
  }
  const [, type = '', command = ''] = /^(\S*)\s*([\s\S]*)$/.exec(left) ?? [];
  if (type.toUpperCase() === 'NONE' && command === '') return { Test: ['NONE'] };
  if (type.toUpperCase() !== 'CMD') throw invalid(`Unknown type "${type.toUpperCase()}" in HEALTHCHECK (try CMD)`);
  if (command === '') throw invalid('Missing command after HEALTHCHECK CMD');
  const list = jsonList(command);
  return { Test: list === null ? ['CMD-SHELL', command] : ['CMD', ...list], ...amounts };
}
