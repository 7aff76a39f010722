/** `WWW-Authenticate` (RFC 9110, section 11.6.1): a list of schemes, each with parameters. */

export interface Challenge {
  /** Lower case: `basic`, `bearer`. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: Readonly<Record<string, string>>;
}

const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const parameter = new RegExp(`\\s*(${token})\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|(${token}))\\s*,?`, 'y');
const scheme = new RegExp(`\\s*,*\\s*(${token})(?:\\s+|$|(?=,))`, 'y');
const headerLengthMax = 8192;

/** What a header (or several) asks for, in its order. Whatever cannot be read ends the list. */
export function parseChallenges(header: string | readonly string[] | undefined): Challenge[] {
  const texts = header === undefined ? [] : typeof header === 'string' ? [header] : header;
  return texts.flatMap((text) => parseOne(text.slice(0, headerLengthMax)));
}

function parseOne(text: string): Challenge[] {
  const challenges: Challenge[] = [];
  let at = 0;
  for (;;) {
    scheme.lastIndex = at;
    const named = scheme.exec(text);
    if (!named) return challenges;
    at = scheme.lastIndex;
    const parameters: Record<string, string> = {};
    for (;;) {
      parameter.lastIndex = at;
      const found = parameter.exec(text);
      if (!found) break;
      at = parameter.lastIndex;
      const [, name = '', quoted, plain] = found;
      parameters[name.toLowerCase()] = quoted?.replaceAll(/\\(.)/g, '$1') ?? plain ?? '';
    }
    challenges.push({ scheme: (named[1] ?? '').toLowerCase(), parameters });
  }
}
