/** Words of a Dockerfile instruction: quotes, escapes and variables, as the Dockerfile reference has them. */
import { invalid } from '../lib/errors.ts';

/** What a variable is set to; undefined when it is not set. */
export type Lookup = (name: string) => string | undefined;

/** `NAME=value` lines as a lookup; the last of a name counts. */
export function lookupIn(env: readonly string[] | null): Lookup {
  const values = new Map(
    (env ?? []).map((line) => {
      const equals = line.indexOf('=');
      return equals < 0 ? [line, ''] : [line.slice(0, equals), line.slice(equals + 1)];
    }),
  );
  return (name) => values.get(name);
}

/**
 * Words between blanks. Quotes keep blanks, a backslash takes the meaning from what follows, and variables stand for their
 * values except in single quotes. With `whole` blanks do not separate: there is one word.
 */
export function wordsOf(text: string, lookup: Lookup, whole = false): string[] {
  const words: string[] = [];
  let word: string | null = null;
  let quote = '';
  for (let at = 0; at < text.length; at++) {
    const char = text[at] as string;
    if (char === '\\' && quote !== "'" && at + 1 < text.length) {
      const next = text[++at] as string;
      // Within double quotes a backslash is itself, unless what follows would mean something.
      word = (word ?? '') + (quote === '"' && !'"$\\'.includes(next) ? `\\${next}` : next);
    } else if (char === quote) quote = '';
    else if (quote === '' && (char === '"' || char === "'")) {
      quote = char;
      word ??= '';
    } else if (char === '$' && quote !== "'") {
      const [value, length] = variableAt(text.slice(at), lookup);
      word = (word ?? '') + value;
      at += length - 1;
    } else if (quote === '' && !whole && /\s/.test(char)) {
      if (word !== null) words.push(word);
      word = null;
    } else word = (word ?? '') + char;
  }
  if (quote !== '')
    throw invalid(
      'unexpected end of statement while looking for matching '.concat(quote === '"' ? 'double-quote' : 'single-quote'),
    );
  if (word !== null) words.push(word);
  return words;
}

/** `$NAME`, `${NAME}`, `${NAME:-absent}` or `${NAME:+present}` at the beginning of `text`; any other `$` is itself. */
function variableAt(text: string, lookup: Lookup): readonly [value: string, length: number] {
  const plain = /^\$([A-Za-z_]\w*|\d|[@*#])/.exec(text);
  if (plain !== null) return [lookup(plain[1] ?? '') ?? '', plain[0].length];
  if (!text.startsWith('${')) return ['$', 1];
  const end = closingBrace(text);
  const [, name, modifier = '', rest = ''] = /^(\w+)(?::(.)([\s\S]*))?$/.exec(text.slice(2, end)) ?? [];
  if (end < 0 || name === undefined)
    throw invalid('failed to process '.concat(JSON.stringify(text), ': bad substitution'));
  const value = lookup(name) ?? '';
  if (modifier === '') return [value, end + 1];
  if (modifier !== '-' && modifier !== '+')
    throw invalid(`failed to process ${JSON.stringify(text)}: unsupported modifier (${modifier}) in substitution`);
  const other = wordsOf(rest, lookup, true)[0] ?? '';
  if (modifier === '-') return [value === '' ? other : value, end + 1];
  return [value === '' ? '' : other, end + 1];
}

/** Of the brace at the beginning (`${`); -1 without one. */
function closingBrace(text: string): number {
  let depth = 0;
  for (let at = 1; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === '{') depth++;
    else if (text[at] === '}' && --depth === 0) return at;
  }
  return -1;
}
