/**
 * What goes into `Authorization` for one registry: Basic, or Bearer tokens from the realm the registry names at `/v2/`.
 *
 * Secrets go to the registry and to that realm, and nowhere else: a realm named by any other answer is not asked, a realm
 * over plain HTTP only when the registry itself is trusted that far, and a redirect of the realm gets no secret.
 */

import type { Credentials } from '../image/types.ts';
import { EngineError } from '../lib/errors.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import { type RegistryError, requestName } from './errors.ts';
import { drop, type Headers, type Outgoing, readAll, refused, type Transport } from './transport.ts';
import { unlessAborted } from './waiting.ts';

interface Token {
  readonly value: string;
  /** On the monotonic clock. */
  readonly expiresMs: number;
}

/** No credentials were given to a registry that wants them, or those given were refused. */
export const unauthorized = (message: string): EngineError => new EngineError('unauthorized', message);

const tokensMax = 64;
const tokenSecondsMin = 60;
const tokenMarginMs = 10_000;
const tokenBytesMax = 1024 * 1024;
const realmMs = 30_000;
const clientId = 'slipway';

export interface AuthorizerOptions {
  readonly transport: Transport;
  readonly credentials: Credentials | null;
  /** Plain HTTP and unverified certificates are allowed for the registry. */
  readonly insecure: boolean;
  /** The same question about the realm's host. */
  readonly isInsecure: (host: string) => Promise<boolean>;
}

export class Authorizer {
  readonly #options: AuthorizerOptions;
  #challenge: Challenge | null = null;
  #identityToken: string;
  readonly #tokens = new Map<string, Promise<Token>>();

  constructor(options: AuthorizerOptions) {
    this.#options = options;
    this.#identityToken = options.credentials?.identitytoken ?? '';
  }

  /** Takes the registry's answer at `/v2/`: the scheme (bearer before basic) and the realm for all that follows. */
  learn(header: string | readonly string[] | undefined): void {
    const challenges = parseChallenges(header);
    this.#challenge =
      challenges.find(({ scheme }) => scheme === 'bearer') ??
      challenges.find(({ scheme }) => scheme === 'basic') ??
      null;
  }

  get scheme(): 'none' | 'basic' | 'bearer' {
    return (this.#challenge?.scheme ?? 'none') as 'none' | 'basic' | 'bearer';
  }

  /** True when there is something secret to offer. */
  get hasCredentials(): boolean {
    const { username, registrytoken } = this.#options.credentials ?? {};
    return (username ?? '') !== '' || (registrytoken ?? '') !== '' || this.#identityToken !== '';
  }

  /** The refresh token the realm gave at login; empty when it gives none. */
  get identityToken(): string {
    return this.#identityToken;
  }

  /** The header's value for a request that needs `scopes` (`repository:library/busybox:pull`); null for none. */
  async header(scopes: readonly string[], signal: AbortSignal): Promise<string | null> {
    const { credentials } = this.#options;
    if (credentials?.registrytoken) return `Bearer ${credentials.registrytoken}`;
    if (this.scheme === 'none') return null;
    if (this.scheme === 'basic') return basic(credentials);
    return `Bearer ${(await this.#token(scopes, signal)).value}`;
  }

  /** Forgets the token of `scopes`, which the registry refused. False when another attempt would send the same again. */
  forget(scopes: readonly string[]): boolean {
    return this.#options.credentials?.registrytoken ? false : this.#tokens.delete(scopes.join(' '));
  }

  /** Asks the realm for a token that any later request may use; throws when the credentials are refused. */
  async logIn(signal: AbortSignal): Promise<void> {
    if (this.scheme === 'bearer') await this.#token([], signal, true);
  }

  async #token(scopes: readonly string[], signal: AbortSignal, offline = false): Promise<Token> {
    const key = scopes.join(' ');
    const known = await this.#tokens.get(key)?.catch(() => null);
    if (known && known.expiresMs > performance.now()) return known;
    this.#tokens.delete(key);
    // Shared by all who wait for it, so that nobody's leaving ends it; it has a time limit of its own.
    const made = this.#fetch(scopes, offline, AbortSignal.timeout(realmMs));
    this.#tokens.set(key, made);
    made.catch(() => this.#tokens.delete(key));
    const [oldest] = this.#tokens.keys();
    if (oldest !== undefined && this.#tokens.size > tokensMax) this.#tokens.delete(oldest);
    return await unlessAborted(made, signal);
  }

  async #fetch(scopes: readonly string[], offline: boolean, signal: AbortSignal): Promise<Token> {
    const { transport } = this.#options;
    const realm = this.#realm();
    const request = { url: realm, insecure: await this.#options.isInsecure(realm.host), signal } as const;
    let outgoing = this.#identityToken === '' ? this.#ask(request, scopes, offline) : this.#refresh(request, scopes);
    let answer = await transport.request(outgoing);
    // Realms without OAuth 2 know the identity token only as a password.
    if (outgoing.method === 'POST' && [400, 404, 405].includes(answer.status)) {
      await drop(answer);
      outgoing = this.#ask(request, scopes, offline);
      answer = await transport.request(outgoing);
    }
    if (answer.status !== 200) throw refusedToken(await refused(answer, outgoing.method), outgoing);
    return this.#read(await readAll(answer, outgoing.method, tokenBytesMax), realm);
  }

  #realm(): URL {
    const realm = this.#challenge?.parameters.realm ?? '';
    const url = URL.canParse(realm) ? new URL(realm) : null;
    const allowed = url?.protocol === 'https:' || (url?.protocol === 'http:' && this.#options.insecure);
    if (!url || !allowed)
      throw unauthorized(`the registry asks for a token of a realm that cannot be trusted: ${url?.origin ?? 'no URL'}`);
    url.username = '';
    url.password = '';
    return url;
  }

  #ask(request: Pick<Outgoing, 'url' | 'insecure' | 'signal'>, scopes: readonly string[], offline: boolean): Outgoing {
    const { credentials } = this.#options;
    const url = new URL(request.url);
    const { service } = this.#challenge?.parameters ?? {};
    if (service !== undefined) url.searchParams.set('service', service);
    for (const scope of scopes) url.searchParams.append('scope', scope);
    if (credentials?.username) url.searchParams.set('account', credentials.username);
    if (offline) {
      url.searchParams.set('offline_token', 'true');
      url.searchParams.set('client_id', clientId);
    }
    return { ...request, method: 'GET', url, headers: {}, authorization: basic(credentials) };
  }

  #refresh(request: Pick<Outgoing, 'url' | 'insecure' | 'signal'>, scopes: readonly string[]): Outgoing {
    const form = new URLSearchParams({
      grant_type: 'refresh_token',
      refresh_token: this.#identityToken,
      service: this.#challenge?.parameters.service ?? '',
      client_id: clientId,
    });
    if (scopes.length > 0) form.set('scope', scopes.join(' '));
    const headers: Headers = { 'content-type': 'application/x-www-form-urlencoded' };
    return { ...request, method: 'POST', headers, authorization: null, body: form.toString() };
  }

  #read(body: Buffer, realm: URL): Token {
    const answer = parseObject(body);
    const value = answer.token ?? answer.access_token;
    if (typeof value !== 'string' || value === '' || /[^\x21-\x7e]/.test(value))
      throw unauthorized(`${requestName('GET', realm)}: authorization server did not include a token in the response`);
    if (typeof answer.refresh_token === 'string' && answer.refresh_token !== '')
      this.#identityToken = answer.refresh_token;
    const seconds =
      typeof answer.expires_in === 'number' ? Math.max(answer.expires_in, tokenSecondsMin) : tokenSecondsMin;
    return { value, expiresMs: performance.now() + seconds * 1000 - tokenMarginMs };
  }
}

function parseObject(body: Buffer): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(body.toString('utf8'));
    return typeof parsed === 'object' && parsed !== null ? (parsed as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function basic(credentials: Credentials | null): string | null {
  const { username = '', password = '', identitytoken = '' } = credentials ?? {};
  if (username === '') return null;
  return `Basic ${Buffer.from(`${username}:${password === '' ? identitytoken : password}`).toString('base64')}`;
}

function refusedToken(error: RegistryError, { method, url }: Outgoing): EngineError {
  const kind = error.status === 401 || error.status === 403 ? 'unauthorized' : error.kind;
  const text =
    error.code === '' && kind === 'unauthorized' ? 'unauthorized: incorrect username or password' : error.message;
  return new EngineError(kind, `${requestName(method, url)}: ${text}`, { cause: error });
}
