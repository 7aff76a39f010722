/** One registry as one user sees it: found (HTTPS or HTTP), authenticated, asked again when it is busy. */
import { STATUS_CODES } from 'node:http';
import type { Credentials } from '../image/types.ts';
import { EngineError, invalid } from '../lib/errors.ts';
import { Authorizer, unauthorized } from './auth.ts';
import type { Endpoint } from './endpoint.ts';
import { requestName, UnreachableError } from './errors.ts';
import { type Answer, drop, type Headers, type Method, type Outgoing, refused, type Transport } from './transport.ts';
import { retryDelayMs, sleep, unlessAborted } from './waiting.ts';

export interface Ask {
  readonly method: Method;
  /** A path below the registry's base (`/v2/…`), or an address the registry itself gave. */
  readonly to: string | URL;
  /** Rights the request needs: `repository:library/busybox:pull`. */
  readonly scopes: readonly string[];
  readonly headers?: Headers;
  /** A stream is sent once: such a request is not repeated. */
  readonly body?: Outgoing['body'];
  readonly signal: AbortSignal;
}

export interface ServerOptions {
  readonly endpoint: Endpoint;
  readonly credentials: Credentials | null;
  readonly transport: Transport;
  readonly isInsecure: (host: string) => Promise<boolean>;
  /** First pause before a repetition, in milliseconds. */
  readonly backOffMs: number;
}

const attemptsMax = 5;
const pingMs = 30_000;
const busyStatuses = new Set([429, 500, 502, 503, 504]);

export class Server {
  readonly #options: ServerOptions;
  readonly #authorizer: Authorizer;
  #base = '';
  #ready: Promise<void> | null = null;

  constructor(options: ServerOptions) {
    this.#options = options;
    const { transport, endpoint, isInsecure } = options;
    const credentials = endpoint.mirror ? null : options.credentials;
    this.#authorizer = new Authorizer({ transport, credentials, insecure: endpoint.insecure, isInsecure });
  }

  get endpoint(): Endpoint {
    return this.#options.endpoint;
  }

  /** The address found, `https://localhost:5000`; empty before `ready`. */
  get base(): string {
    return this.#base;
  }

  /** Finds the registry and learns what it asks of clients. Done once and remembered until the registry cannot be reached. */
  ready(signal: AbortSignal): Promise<void> {
    if (this.#ready === null) {
      const found = this.#find(AbortSignal.timeout(pingMs));
      found.catch(() => {
        this.#ready = null;
      });
      this.#ready = found;
    }
    return unlessAborted(this.#ready, signal);
  }

  async #find(signal: AbortSignal): Promise<void> {
    const { bases, insecure } = this.endpoint;
    let failure: unknown = invalid('a registry without an address');
    for (const base of bases) {
      try {
        await this.#ping(base, insecure, signal);
        return;
      } catch (error) {
        failure = error;
        // An answer, even a bad one, says that this is the address.
        if (!(error instanceof UnreachableError)) break;
      }
    }
    throw failure;
  }

  async #ping(base: string, insecure: boolean, signal: AbortSignal): Promise<void> {
    const url = new URL(`${base}/v2/`);
    const answer = await this.#options.transport.request({
      method: 'GET',
      url,
      headers: {},
      authorization: null,
      insecure,
      signal,
    });
    if (answer.status !== 200 && answer.status !== 401) {
      // Whatever it says is about the registry as a whole, never about what was asked for.
      const { kind, message } = await refused(answer, 'GET');
      throw new EngineError(kind === 'unavailable' ? kind : 'internal', `${requestName('GET', url)}: ${message}`);
    }
    await drop(answer);
    // Only the registry itself may name the realm that gets its users' passwords.
    if (answer.url.origin === url.origin) this.#authorizer.learn(answer.headers['www-authenticate']);
    this.#base = base;
  }

  /**
   * Sends a request and answers with what comes, whatever its status. Repeats it with a new token when the registry refuses
   * the old one, and after a pause (its `Retry-After`, bounded) when it is busy or the connection breaks.
   */
  async send(ask: Ask): Promise<Answer> {
    await this.ready(ask.signal);
    const url = typeof ask.to === 'string' ? new URL(this.#base + ask.to) : ask.to;
    const repeatable = typeof ask.body !== 'object' || ask.body instanceof Uint8Array;
    let renewed = false;
    for (let attempt = 1; ; attempt++) {
      const last = !repeatable || attempt === attemptsMax;
      let answer: Answer;
      try {
        answer = await this.#once(ask, url);
      } catch (error) {
        if (!(error instanceof UnreachableError)) throw error;
        if (!error.established) this.#ready = null;
        if (last || !error.established || (ask.method !== 'GET' && ask.method !== 'HEAD')) throw error;
        await sleep(retryDelayMs(attempt, this.#options.backOffMs) ?? 0, ask.signal);
        continue;
      }
      if (answer.status === 401 && answer.url.origin === url.origin) {
        if (repeatable && !renewed && this.#authorizer.forget(ask.scopes)) {
          renewed = true;
          await drop(answer);
          continue;
        }
        if (this.#authorizer.scheme === 'basic' && !this.#authorizer.hasCredentials) {
          await drop(answer);
          throw unauthorized(`${requestName(ask.method, url)}: no basic auth credentials`);
        }
      }
      if (last || !busyStatuses.has(answer.status)) return answer;
      const pauseMs = retryDelayMs(attempt, this.#options.backOffMs, answer.headers['retry-after']);
      if (pauseMs === null) return answer;
      await drop(answer);
      await sleep(pauseMs, ask.signal);
    }
  }

  async #once(ask: Ask, url: URL): Promise<Answer> {
    const own = url.origin === new URL(this.#base).origin;
    const { transport, endpoint } = this.#options;
    return await transport.request({
      method: ask.method,
      url,
      headers: ask.headers ?? {},
      authorization: own ? await this.#authorizer.header(ask.scopes, ask.signal) : null,
      insecure: endpoint.insecure,
      signal: ask.signal,
      ...(ask.body !== undefined && { body: ask.body }),
    });
  }

  /** Checks the credentials and answers with the identity token the realm gives for them (most give none). */
  async logIn(signal: AbortSignal): Promise<string> {
    await this.ready(signal);
    await this.#authorizer.logIn(signal);
    const answer = await this.send({ method: 'GET', to: '/v2/', scopes: [], signal });
    await drop(answer);
    if (answer.status === 200) return this.#authorizer.identityToken;
    const status = `${answer.status} ${STATUS_CODES[answer.status] ?? ''}`.trimEnd();
    throw unauthorized(`login attempt to ${this.#base}/v2/ failed with status: ${status}`);
  }
}
