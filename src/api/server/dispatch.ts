/**
 * The life of a request between the connection and its route:
 * body → steps up → route → steps down. Used for ordinary requests and for those that become streams.
 */
import type { IncomingHttpHeaders } from 'node:http';
import type { Readable } from 'node:stream';
import { invalid } from '../../lib/errors.ts';
import type { Backend } from '../backend.ts';
import type { Plan } from '../versions/chain.ts';
import { errorBody } from '../wire/json.ts';
import { checkContentType, parseJson } from './decode.ts';
import { type Failure, failureOf } from './errors.ts';
import type { Context, Question, Reply, Wire } from './route.ts';
import type { Target } from './target.ts';

export type RouteTarget = Extract<Target, { is: 'route' }>;

export interface Incoming {
  readonly headers: IncomingHttpHeaders;
  readonly source: Readable;
  /** Read whole when the route wants JSON, or when it wants nothing and a form was sent. */
  readonly bytes: Buffer | null;
  gone(): AbortSignal;
}

export interface Surroundings {
  readonly backend: Backend;
  readonly versions: { readonly oldest: string; readonly newest: string };
}

/** Throws what the route throws; `failureFor` says how to tell it. */
export async function run(target: RouteTarget, incoming: Incoming, surroundings: Surroundings): Promise<Reply> {
  const { route, plan } = target;
  const decode = typeof route.body === 'function' ? route.body : null;
  const form = decode === null && incoming.bytes !== null ? `&${incoming.bytes.toString('utf8')}` : '';
  const asked: Question = {
    params: target.params,
    query: checkedQuery(target.search + form),
    headers: incoming.headers,
    body: undefined,
  };
  const parsed = decode === null ? asked : { ...asked, body: parse(incoming, route.checkContentType === true) };
  const question = plan.up === undefined ? parsed : plan.up(parsed);
  const context: Context<unknown> = {
    ...question,
    ...surroundings,
    body: decode === null ? undefined : decode(question.body),
    wire: plan.wire,
    source: incoming.source,
    bodyLength: announcedLength(incoming.headers),
    get gone() {
      return incoming.gone();
    },
  };
  const reply = await route.run(context);
  return hasStepsDown(plan) ? shape(reply, plan) : reply;
}

function checkedQuery(search: string): URLSearchParams {
  const query = new URLSearchParams(search);
  // No path, name or word of a command line can hold one.
  for (const [name, value] of query)
    if (value.includes('\0')) throw invalid(`invalid value of ${name}: it holds a null byte`);
  return query;
}

function parse(incoming: Incoming, check: boolean): unknown {
  const bytes = incoming.bytes ?? Buffer.alloc(0);
  if (check) checkContentType(incoming, bytes.length > 0);
  return parseJson(bytes);
}

export function announcedLength(headers: IncomingHttpHeaders): number | undefined {
  if (headers['transfer-encoding'] !== undefined) return undefined;
  return Number(headers['content-length'] ?? 0);
}

const hasStepsDown = (plan: Plan) => (plan.head ?? plan.body ?? plan.message ?? plan.stream) !== undefined;

function shape(reply: Reply, plan: Plan): Reply {
  const head = plan.head === undefined ? reply : plan.head({ status: reply.status, headers: reply.headers });
  return { status: head.status, headers: head.headers, content: shapeContent(reply.content, plan) };
}

function shapeContent(content: Reply['content'], plan: Plan): Reply['content'] {
  if (content.is === 'json' && plan.body !== undefined) return { is: 'json', value: plan.body(content.value) };
  if (content.is !== 'messages') return content;
  const stream = plan.stream === undefined ? content : plan.stream(content);
  const step = plan.message;
  return step === undefined ? stream : { ...stream, source: mapped(stream.source, step) };
}

async function* mapped<T>(source: AsyncIterable<T>, step: (value: T) => T): AsyncIterable<T> {
  for await (const value of source) yield step(value);
}

/** How a client of the plan's version hears of it. */
export function failureFor(plan: Plan, error: unknown): Failure {
  const failure = failureOf(error);
  return plan.failure === undefined ? failure : plan.failure(failure);
}

/** Type and body of an error answer; 304 has neither. */
export function errorContent(failure: Failure, wire: Wire): { readonly type: string; readonly body: string } | null {
  if (failure.status === 304 || failure.message === '') return null;
  if (wire.errors === 'text') return { type: 'text/plain; charset=utf-8', body: `${failure.message}\n` };
  return { type: 'application/json', body: errorBody(failure.message) };
}
