/** Labels and variables of a container that go with each of its lines: options `labels`, `labels-regex`, `env`, `env-regex`. */
import { invalid, messageOf } from '../lib/errors.ts';
import { Pattern } from '../lib/pattern.ts';
import { parseTag } from './tag.ts';
import type { LogOptions, LogSubject } from './types.ts';

/** Throws 'invalid' for what JavaScript does not know as a regular expression; `(?i)` in front is Go's for any case. */
export function parseRegex(text: string): Pattern {
  const [, flags = '', rest = text] = /^\(\?([ims]+)\)(.*)$/s.exec(text) ?? [];
  try {
    return new Pattern(rest, flags);
  } catch (error) {
    throw invalid(`error parsing regexp: ${messageOf(error)}`);
  }
}

/** `rename` makes a driver's own key of a name; what comes later under the same key wins. */
export function attributesOf(
  options: LogOptions,
  { labels, env }: LogSubject,
  rename: (name: string) => string = (name) => name,
): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const variables: Record<string, string> = {};
  for (const variable of env) {
    const equals = variable.indexOf('=');
    if (equals > 0) variables[variable.slice(0, equals)] = variable.slice(equals + 1);
  }
  for (const [all, list, pattern] of [
    [labels, options.labels, options['labels-regex']],
    [variables, options.env, options['env-regex']],
  ] as const) {
    const regex = pattern ? parseRegex(pattern) : null;
    const names = [
      ...(list ? list.split(',').filter((name) => Object.hasOwn(all, name)) : []),
      ...(regex ? Object.keys(all).filter((name) => regex.test(name)) : []),
    ];
    for (const name of names) found.set(rename(name), all[name] as string);
  }
  return found;
}

/** What `logs?details=1` puts before a line: `key=value,…` in order of the keys, escaped as in a query, and a space. */
export function detailsOf(options: LogOptions, subject: LogSubject): string {
  const attributes = new Map(attributesOf(options, subject));
  if (options.tag) attributes.set('tag', parseTag(options.tag)(subject));
  const pairs = [...attributes].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return `${pairs.map(([key, value]) => `${queryEscape(key)}=${queryEscape(value)}`).join(',')} `;
}

/** As Go's `url.QueryEscape`. */
const queryEscape = (text: string): string =>
  encodeURIComponent(text.toWellFormed())
    .replaceAll('%20', '+')
    .replace(/[!'()*]/g, (each) => `%${each.charCodeAt(0).toString(16).toUpperCase()}`);
