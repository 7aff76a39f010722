/**
 * A route is written once, in the newest API's terms: it decodes, calls one method of the backend, and says what to answer.
 * The dispatcher owns everything around it: the version's steps, headers, errors, backpressure, cancellation.
 */
import type { IncomingHttpHeaders } from 'node:http';
import type { Readable } from 'node:stream';
import type { Attachment, Json } from '../../container/api.ts';
import type { Backend } from '../backend.ts';
import type { Decoder } from './decode.ts';

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';

/** What was asked. Steps of older versions rewrite it into the newest API's terms before the route sees it. */
export interface Question {
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** The decoded JSON; undefined without one. */
  readonly body: unknown;
}

/** What cannot be a step because it is below JSON. Declared per version (`wire` in versions/dsl.ts). */
export interface Wire {
  /** `json`: `{"message": …}`. `text`: the message and a newline. */
  readonly errors: 'json' | 'text';
  /** Attach, exec and logs without a terminal: 8-byte headers, or both streams merged (W-61, W-62). */
  readonly framed: boolean;
  /** After each message of a progress stream (W-57, W-58). */
  readonly progressEnd: '\r\n' | '';
  /** After each event (W-59). */
  readonly eventEnd: '\n' | '';
  /** Kind of the frames in which a WebSocket carries output. */
  readonly webSocketFrames: 'text' | 'binary';
}

export interface Context<Body> extends Question {
  readonly body: Body;
  readonly backend: Backend;
  readonly wire: Wire;
  /** The request's body as it arrives; only for routes that declared `body: 'stream'`. */
  readonly source: Readable;
  /** Bytes the client announced; undefined when it did not (chunked), 0 without a body. */
  readonly bodyLength: number | undefined;
  /** Aborts when the client leaves before it has its whole answer. */
  readonly gone: AbortSignal;
  /** First and last API version this engine serves in its own shape. */
  readonly versions: { readonly oldest: string; readonly newest: string };
}

export type Content =
  | { readonly is: 'nothing' }
  | { readonly is: 'json'; readonly value: unknown }
  | { readonly is: 'text'; readonly text: string }
  | { readonly is: 'bytes'; readonly source: AsyncIterable<Uint8Array> }
  | Messages
  | { readonly is: 'hijack'; readonly attachment: Attachment }
  | { readonly is: 'websocket'; readonly attachment: Attachment; readonly frames: 'text' | 'binary' };

export interface Messages {
  readonly is: 'messages';
  readonly source: AsyncIterable<Json>;
  /** Follows each message. */
  readonly end: string;
  /**
   * `status`: a failure before the first message is answered with its status, so the headers wait for that message.
   * `stream`: headers go out at once.
   */
  readonly firstFailure: 'status' | 'stream';
  /** Whether a failure later is told by a last message (progress) or only by a cut connection (events, stats). */
  readonly tellsFailure: boolean;
}

export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly content: Content;
}

const json = { 'Content-Type': 'application/json' };
const none = {};

export const reply = {
  json: (value: unknown, status = 200): Reply => ({ status, headers: json, content: { is: 'json', value } }),
  empty: (status: number): Reply => ({ status, headers: none, content: { is: 'nothing' } }),
  text: (text: string, headers: Readonly<Record<string, string>>): Reply => ({
    status: 200,
    headers: { 'Content-Type': 'text/plain; charset=utf-8', ...headers },
    content: { is: 'text', text },
  }),
  bytes: (type: string, source: AsyncIterable<Uint8Array>): Reply => ({
    status: 200,
    headers: { 'Content-Type': type },
    content: { is: 'bytes', source },
  }),
  messages: (source: AsyncIterable<Json>, options: Omit<Messages, 'is' | 'source'>): Reply => ({
    status: 200,
    headers: json,
    content: { is: 'messages', source, ...options },
  }),
  /** Only from routes that declared `hijack`. */
  hijack: (attachment: Attachment): Reply => ({ status: 200, headers: none, content: { is: 'hijack', attachment } }),
  /** The same; `headers` are those of the handshake. */
  webSocket: (attachment: Attachment, frames: 'text' | 'binary', headers: Reply['headers']): Reply => ({
    status: 101,
    headers,
    content: { is: 'websocket', attachment, frames },
  }),
};

export interface RouteOptions<Body> {
  /** JSON is read whole and checked; `stream` is left to the route; without either the body is dropped. */
  readonly body?: Decoder<Body> | 'stream';
  /** Refuse a JSON body that does not call itself one (W-36). */
  readonly checkContentType?: boolean;
  /** The connection may become a raw stream: the HTTP parser lets go of it after the headers. */
  readonly hijack?: boolean;
}

export interface Route extends RouteOptions<unknown> {
  readonly method: Method;
  readonly path: string;
  /** `GET /containers/{id}/json`, as the API document writes it. */
  readonly endpoint: string;
  run(context: Context<unknown>): Reply | Promise<Reply>;
}

export function route<Body = undefined>(
  endpoint: `${Method} /${string}`,
  options: RouteOptions<Body>,
  run: (context: Context<Body>) => Reply | Promise<Reply>,
): Route {
  const [method, path] = endpoint.split(' ') as [Method, string];
  // The decoder in `options` has made the body what `run` expects.
  return { ...options, method, path, endpoint, run: run as Route['run'] };
}
