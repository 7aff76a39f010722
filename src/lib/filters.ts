/** The `filters` parameter of lists, prunes and events. */
import { invalid, messageOf } from './errors.ts';
import { Pattern } from './pattern.ts';

export type Filters = ReadonlyMap<string, readonly string[]>;

/**
 * Reads `{"name": {"value": true}}` and the older `{"name": ["value"]}`; empty or undefined: no filters. Throws 'invalid' for
 * anything else and, with `accepted`, for a name that is not among them.
 */
export function parseFilters(text: string | undefined, accepted?: ReadonlySet<string>): Filters {
  const filters = new Map<string, readonly string[]>();
  if (!text) return filters;
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw invalid(`invalid filter: ${messageOf(error)}`);
  }
  if (parsed === null) return filters;
  if (typeof parsed !== 'object' || Array.isArray(parsed)) throw invalid('invalid filter: not a JSON object');
  for (const [name, values] of Object.entries(parsed)) {
    if (accepted && !accepted.has(name)) throw invalid(`Invalid filter '${name}'`);
    filters.set(name, valuesOf(name, values));
  }
  return filters;
}

function valuesOf(name: string, values: unknown): readonly string[] {
  if (values === null) return [];
  if (Array.isArray(values) && values.every((value) => typeof value === 'string')) return values;
  if (typeof values === 'object' && !Array.isArray(values)) {
    const entries = Object.entries(values);
    if (entries.every(([, wanted]) => typeof wanted === 'boolean')) {
      return entries.filter(([, wanted]) => wanted).map(([value]) => value);
    }
  }
  throw invalid(`invalid filter '${name}': values must be strings`);
}

/** True when no value is given for `name` or one of them satisfies `test`. */
export function someValue(filters: Filters, name: string, test: (value: string) => boolean): boolean {
  const values = filters.get(name);
  return values === undefined || values.length === 0 || values.some(test);
}

/** Filter `label`: every value, `key` or `key=value`, must be there. */
export function matchesLabels(filters: Filters, labels: Readonly<Record<string, string>> | null): boolean {
  return (filters.get('label') ?? []).every((wanted) => {
    const [key = '', ...value] = wanted.split('=');
    const have = labels && Object.hasOwn(labels, key) ? labels[key] : undefined;
    return have !== undefined && (value.length === 0 || have === value.join('='));
  });
}

/** A name filter is a regular expression; one that is none matches as text. */
export function compilePattern(value: string): Pattern {
  try {
    return new Pattern(value);
  } catch {
    return new Pattern(value.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  }
}
