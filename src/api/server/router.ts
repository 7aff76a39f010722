/**
 * Which route answers a path. A tree of path segments; a `{name}` matches greedily and may span several segments
 * (VERSIONS.md W-04: names of containers, images and plugins may contain `/`). A path known only with another method is unknown (W-05).
 */

export interface Match<T> {
  readonly value: T;
  readonly params: Readonly<Record<string, string>>;
}

interface Node<T> {
  readonly literals: Map<string, Node<T>>;
  /** `{name}` at this place. One tree has one name per place. */
  name: { readonly key: string; readonly below: Node<T> } | null;
  readonly methods: Map<string, T>;
}

const newNode = <T>(): Node<T> => ({ literals: new Map(), name: null, methods: new Map() });

export class Router<T> {
  readonly #root = newNode<T>();

  add(method: string, pattern: string, value: T): void {
    let node = this.#root;
    for (const segment of pattern.slice(1).split('/')) {
      if (segment.startsWith('{')) {
        node.name ??= { key: segment.slice(1, -1), below: newNode() };
        if (node.name.key !== segment.slice(1, -1)) throw new Error(`two names for one place: ${pattern}`);
        node = node.name.below;
      } else {
        const next = node.literals.get(segment) ?? newNode<T>();
        node.literals.set(segment, next);
        node = next;
      }
    }
    if (node.methods.has(method)) throw new Error(`two routes for ${method} ${pattern}`);
    node.methods.set(method, value);
  }

  /** `path` is decoded and clean. Literals win over names, long names over short ones. */
  find(method: string, path: string): Match<T> | null {
    const segments = path.slice(1).split('/');
    if (segments.length > segmentsMax) return null;
    const params: Record<string, string> = {};
    const value = walk(this.#root, segments, 0, method, params);
    return value === undefined ? null : { value, params };
  }
}

/** Bounds the search: trying every length of a name is quadratic in the number of segments. */
const segmentsMax = 64;

function walk<T>(
  node: Node<T>,
  segments: readonly string[],
  at: number,
  method: string,
  params: Record<string, string>,
): T | undefined {
  if (at === segments.length) return node.methods.get(method);
  const literal = node.literals.get(segments[at] as string);
  if (literal !== undefined) {
    const found = walk(literal, segments, at + 1, method, params);
    if (found !== undefined) return found;
  }
  if (node.name !== null) {
    // A name that takes all the rest comes last: `/services/{id}/logs` before `/services/{id}`.
    for (const end of endsOf(at, segments.length)) {
      const found = walk(node.name.below, segments, end, method, params);
      if (found !== undefined) {
        params[node.name.key] = segments.slice(at, end).join('/');
        return found;
      }
    }
  }
  return undefined;
}

function* endsOf(at: number, length: number): Iterable<number> {
  for (let end = length - 1; end > at; end--) yield end;
  if (length > at) yield length;
}

/** Without empty segments, `.` and `..`; a final slash stays (W-07). Returns its argument when there is nothing to clean. */
export function cleanPath(path: string): string {
  if (path.startsWith('/') && !/\/\/|\/\.{1,2}(\/|$)/.test(path)) return path;
  const kept: string[] = [];
  const segments = path.split('/');
  for (const segment of segments) {
    if (segment === '..') kept.pop();
    else if (segment !== '' && segment !== '.') kept.push(segment);
  }
  const last = segments.at(-1);
  const slash = kept.length > 0 && last === '' ? '/' : '';
  return `/${kept.join('/')}${slash}`;
}
