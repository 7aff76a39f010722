/** HTTP to registries: one bounded pool of kept-alive sockets for each origin, redirects followed by hand. */
import { STATUS_CODES } from 'node:http';
import type { Readable } from 'node:stream';
import type { buildConnector, Dispatcher } from 'undici';
import { internal } from '../lib/errors.ts';
import { tlsOptions } from './endpoint.ts';
import { type RegistryError, refusal, requestName, unreachable } from './errors.ts';

export type Headers = Readonly<Record<string, string>>;
export type Method = 'GET' | 'HEAD' | 'POST' | 'PATCH' | 'PUT' | 'DELETE';

export interface Outgoing {
  readonly method: Method;
  readonly url: URL;
  readonly headers: Headers;
  /** Sent to the first origin only, never after a redirect to another. */
  readonly authorization: string | null;
  readonly body?: string | Uint8Array | Readable;
  /** Certificates of the URL's own host are not verified. A redirect to another host is judged by itself. */
  readonly insecure: boolean;
  readonly signal: AbortSignal;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Readable & { dump(options?: { limit: number }): Promise<void> };
  /** Where the answer came from, after redirects. */
  readonly url: URL;
}

export interface TransportOptions {
  readonly certificateDirectories: readonly string[];
  /** Environment with `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` in either case. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Milliseconds without a byte after which a connection is given up. */
  readonly idleMs: number;
}

const originsMax = 32;
const socketsPerOriginMax = 16;
const redirectsMax = 5;
const connectMs = 15_000;
const keepAliveMs = 10_000;
const redirectStatuses = new Set([301, 302, 303, 307, 308]);

export class Transport {
  readonly #options: TransportOptions;
  /** The one used longest ago comes first. */
  readonly #dispatchers = new Map<string, Promise<Dispatcher>>();

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** One request and the redirects it is answered with (GET and HEAD only). Throws `UnreachableError`; a status is no error. */
  async request(outgoing: Outgoing): Promise<Answer> {
    const { origin } = outgoing.url;
    let { url } = outgoing;
    for (let redirects = 0; ; redirects++) {
      const own = url.origin === origin;
      const headers =
        own && outgoing.authorization !== null
          ? { ...outgoing.headers, authorization: outgoing.authorization }
          : outgoing.headers;
      const answer = await this.#once({
        ...outgoing,
        url,
        headers,
        insecure: outgoing.insecure && url.hostname === outgoing.url.hostname,
      });
      const { location } = answer.headers;
      const follows = outgoing.method === 'GET' || outgoing.method === 'HEAD';
      if (!follows || !redirectStatuses.has(answer.status) || typeof location !== 'string') return answer;
      await drop(answer);
      if (redirects === redirectsMax)
        throw internal(`${requestName(outgoing.method, url)}: stopped after ${redirectsMax} redirects`);
      url = redirectTarget(url, location, outgoing);
    }
  }

  async #once(outgoing: Outgoing): Promise<Answer> {
    const { method, url, signal } = outgoing;
    const key = `${url.origin} ${outgoing.insecure}`;
    signal.throwIfAborted();
    const dispatcher = await this.#dispatcher(key, url, outgoing.insecure);
    try {
      const { statusCode, headers, body } = await dispatcher.request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method,
        headers: outgoing.headers,
        body: outgoing.body ?? null,
        signal,
      });
      return { status: statusCode, headers, body, url };
    } catch (error) {
      signal.throwIfAborted();
      const failure = unreachable(method, url, error);
      // Certificates may have been put in place since: the next attempt reads them again.
      if (!failure.established) this.#forget(key);
      throw failure;
    }
  }

  #dispatcher(key: string, url: URL, insecure: boolean): Promise<Dispatcher> {
    const known = this.#dispatchers.get(key);
    this.#dispatchers.delete(key);
    const made = known ?? this.#connect(url, insecure);
    this.#dispatchers.set(key, made);
    made.catch(() => this.#dispatchers.delete(key));
    const [oldest] = this.#dispatchers.keys();
    if (oldest !== undefined && this.#dispatchers.size > originsMax) this.#forget(oldest);
    return made;
  }

  async #connect(url: URL, insecure: boolean): Promise<Dispatcher> {
    const { idleMs, environment, certificateDirectories } = this.#options;
    // Loaded when first needed: an engine that has not pulled yet does without its 25 MB.
    const { Agent, EnvHttpProxyAgent } = await import('undici');
    const tls = url.protocol === 'https:' ? await tlsOptions(url.host, insecure, certificateDirectories) : {};
    const options = {
      connections: socketsPerOriginMax,
      keepAliveTimeout: keepAliveMs,
      keepAliveMaxTimeout: keepAliveMs,
      headersTimeout: idleMs,
      bodyTimeout: idleMs,
      allowH2: false,
      connect: { ...tls, timeout: connectMs } as buildConnector.BuildOptions,
    };
    const name = url.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY';
    const variable = (upper: string): string => environment[upper.toLowerCase()] ?? environment[upper] ?? '';
    const proxy = variable(name);
    if (proxy === '' || /^(localhost|127\..*|\[::1\])$/.test(url.hostname)) return new Agent(options);
    const proxied = { httpProxy: proxy, httpsProxy: proxy, noProxy: variable('NO_PROXY'), requestTls: options.connect };
    return new EnvHttpProxyAgent({ ...options, ...proxied });
  }

  /** Lets go of a pool; requests in flight on it end first. */
  #forget(key: string): void {
    const dispatcher = this.#dispatchers.get(key);
    this.#dispatchers.delete(key);
    dispatcher?.then((made) => made.close()).catch(() => undefined);
  }

  /** Ends every socket, also those in use. */
  async close(): Promise<void> {
    const all = [...this.#dispatchers.values()];
    this.#dispatchers.clear();
    await Promise.allSettled(all.map(async (dispatcher) => (await dispatcher).destroy()));
  }
}

function redirectTarget(from: URL, location: string, { method, insecure }: Outgoing): URL {
  const to = URL.canParse(location, from.href) ? new URL(location, from) : null;
  const allowed = to?.protocol === 'https:' || (to?.protocol === 'http:' && (from.protocol === 'http:' || insecure));
  if (!to || !allowed) throw internal(`${requestName(method, from)}: redirected to an address that cannot be trusted`);
  to.username = '';
  to.password = '';
  return to;
}

const dumpBytesMax = 128 * 1024;

/** Reads a short rest so that the socket can be used again; ends the socket when the rest is long. */
export async function drop(answer: Answer): Promise<void> {
  await answer.body.dump({ limit: dumpBytesMax }).catch(() => undefined);
}

/** The whole body, refused when longer than `bytesMax`. */
export async function readAll(answer: Answer, method: Method, bytesMax: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of answer.body as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > bytesMax)
        throw internal(`${requestName(method, answer.url)}: the answer is longer than ${bytesMax} bytes`);
      parts.push(part);
    }
  } catch (error) {
    throw error instanceof Error && error.name === 'EngineError' ? error : unreachable(method, answer.url, error);
  }
  return Buffer.concat(parts, bytes);
}

const refusalBytesMax = 64 * 1024;

/** The error that an unwanted answer stands for; takes its body. */
export async function refused(answer: Answer, method: Method): Promise<RegistryError> {
  const body = await readAll(answer, method, refusalBytesMax).catch(() => Buffer.alloc(0));
  return refusal(answer.status, STATUS_CODES[answer.status] ?? '', answer.headers, body.toString('utf8'));
}
