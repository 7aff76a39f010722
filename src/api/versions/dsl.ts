/**
 * The words in which a version file says what its API version brought, seen from the version before.
 *
 * Each change names the facts of the API reference it settles (`'1.25-04'`, `'W-43'`) and is one of
 * - `added` / `removed`: a route appears or goes; where it does not exist it answers 404;
 * - `question`: an older client's question, rewritten on the way up into this version's terms;
 * - `answer`: this version's answer, rewritten on the way down into the older version's terms;
 * - `wire`: what older versions have instead, below JSON (plain-text errors, unframed streams …);
 * - `adds` / `accepts`: keys new in answers or questions. Data only: the API's schema is open, clients ignore keys they
 *   don't know, so they are sent and understood at every version;
 * - `same`: a fact that asks for nothing, and why.
 */
import type { Json } from '../../container/api.ts';
import type { Failure } from '../server/errors.ts';
import type { Messages, Question, Reply, Wire } from '../server/route.ts';

export interface Version {
  readonly name: string;
  readonly changes: readonly Change[];
}

/** `GET /containers/json`; path parameters are spelt as in the routes. */
export type Endpoint = string;
/** Numbers of the facts settled. */
export type Facts = string | readonly string[];

interface Declared {
  readonly facts: readonly string[];
  readonly endpoints: readonly Endpoint[];
  readonly says: string;
}

/** Parts of an answer a step may rewrite. Each is a pure function from newer to older. */
export interface AnswerSteps {
  /** Status and headers of a success. */
  readonly head?: (head: Pick<Reply, 'status' | 'headers'>) => Pick<Reply, 'status' | 'headers'>;
  /** The JSON document. */
  readonly body?: (body: unknown) => unknown;
  /** Each message of a stream of JSON. */
  readonly message?: (message: Json) => Json;
  /** How a stream of JSON behaves. */
  readonly stream?: (stream: Messages) => Messages;
  readonly failure?: (failure: Failure) => Failure;
}

export type Change =
  | (Declared & { readonly is: 'added' })
  | (Declared & { readonly is: 'removed'; readonly body: 'message' | 'empty' })
  | (Declared & { readonly is: 'question'; readonly step: (question: Question) => Question })
  | (Declared & { readonly is: 'answer'; readonly steps: AnswerSteps })
  | (Declared & { readonly is: 'wire'; readonly before: Partial<Wire> })
  | (Declared & { readonly is: 'adds' | 'accepts'; readonly keys: readonly string[] })
  | (Declared & { readonly is: 'same' });

const list = <T>(one: T | readonly T[]): readonly T[] => (Array.isArray(one) ? one : [one as T]);
const declared = (endpoints: Endpoint | readonly Endpoint[], facts: Facts, says: string): Declared => ({
  endpoints: list(endpoints),
  facts: list(facts),
  says,
});

export const version = (name: string, changes: readonly Change[]): Version => ({ name, changes });

export const added = (endpoints: Endpoint | readonly Endpoint[], facts: Facts, says = 'new'): Change => ({
  is: 'added',
  ...declared(endpoints, facts, says),
});

/** `body`: what the 404 of newer versions carries. */
export const removed = (endpoint: Endpoint, facts: Facts, says: string, body: 'message' | 'empty'): Change => ({
  is: 'removed',
  body,
  ...declared(endpoint, facts, says),
});

export const question = (
  endpoints: Endpoint | readonly Endpoint[],
  facts: Facts,
  says: string,
  step: (question: Question) => Question,
): Change => ({ is: 'question', step, ...declared(endpoints, facts, says) });

export const answer = (
  endpoints: Endpoint | readonly Endpoint[],
  facts: Facts,
  says: string,
  steps: AnswerSteps,
): Change => ({ is: 'answer', steps, ...declared(endpoints, facts, says) });

/** Holds for every endpoint. */
export const wire = (facts: Facts, says: string, before: Partial<Wire>): Change => ({
  is: 'wire',
  before,
  ...declared([], facts, says),
});

/** Keys are paths: `HostConfig.Init`, `[].State` (of each row), `filters.network`, `?details` (a parameter). */
export const adds = (endpoints: Endpoint | readonly Endpoint[], facts: Facts, keys: readonly string[]): Change => ({
  is: 'adds',
  keys,
  ...declared(endpoints, facts, 'new in the answer'),
});

export const accepts = (endpoints: Endpoint | readonly Endpoint[], facts: Facts, keys: readonly string[]): Change => ({
  is: 'accepts',
  keys,
  ...declared(endpoints, facts, 'new in the question'),
});

export const same = (facts: Facts, why: string): Change => ({ is: 'same', ...declared([], facts, why) });

// Steps are written about the part they change; these lift them.

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A step on a JSON object. Anything else passes untouched. */
export const object =
  (step: (value: Json) => Json) =>
  (value: unknown): unknown =>
    isObject(value) ? step(value) : value;

/** A step on each row of a JSON list. */
export const rows =
  (step: (row: Json) => Json) =>
  (value: unknown): unknown =>
    Array.isArray(value) ? value.map((row) => (isObject(row) ? step(row) : row)) : value;

/** A step on the object under a key, if there is one. */
export const under =
  (key: string, step: (value: Json) => Json) =>
  (value: Json): Json => {
    const inner = value[key];
    return isObject(inner) ? { ...value, [key]: step(inner) } : value;
  };

/** A step on a JSON body. */
export const inBody =
  (step: (body: Json) => Json) =>
  (question: Question): Question =>
    isObject(question.body) ? { ...question, body: step(question.body) } : question;

/** A step on the query parameters; it gets a copy to change. */
export const inQuery =
  (step: (query: URLSearchParams) => void) =>
  (question: Question): Question => {
    const query = new URLSearchParams(question.query);
    step(query);
    return { ...question, query };
  };

/** Adds a value to `filters`, whichever of its two JSON forms is there. What cannot be read is left for the route to refuse. */
export function addFilter(query: URLSearchParams, name: string, value: string): void {
  let given: unknown;
  try {
    given = JSON.parse(query.get('filters') || '{}');
  } catch {
    return;
  }
  if (!isObject(given)) return;
  const before = given[name];
  const values = Array.isArray(before) ? before : isObject(before) ? Object.keys(before) : [];
  query.set('filters', JSON.stringify({ ...given, [name]: [...values, value] }));
}
