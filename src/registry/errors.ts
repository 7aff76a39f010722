/** What registries and the way to them answer when they refuse, in the words clients know. */
import { EngineError, type ErrorKind } from '../lib/errors.ts';
import { type Challenge, parseChallenges } from './challenge.ts';

/** A registry answered, but not with what was asked for. `code` is the distribution specification's: `MANIFEST_UNKNOWN`. */
export class RegistryError extends EngineError {
  readonly code: string;
  readonly status: number;
  constructor(kind: ErrorKind, message: string, code: string, status: number) {
    super(kind, message);
    this.name = 'RegistryError';
    this.code = code;
    this.status = status;
  }
}

/** No HTTP answer was had: no connection, no trust, or it broke. `established`: the request may have been sent. */
export class UnreachableError extends EngineError {
  readonly established: boolean;
  constructor(message: string, established: boolean, cause: unknown) {
    super('internal', message, { cause });
    this.name = 'UnreachableError';
    this.established = established;
  }
}

/** Content that is not what its digest or size says. Never repeated on the same bytes. */
export class ContentError extends EngineError {
  constructor(message: string) {
    super('internal', message);
    this.name = 'ContentError';
  }
}

const untrusted = 'x509: certificate signed by unknown authority';
/** Words of the reference implementation, on which users search and some clients match. */
const words: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connect: connection refused',
  EHOSTUNREACH: 'connect: no route to host',
  ENETUNREACH: 'connect: network is unreachable',
  ECONNRESET: 'read: connection reset by peer',
  ETIMEDOUT: 'i/o timeout',
  UND_ERR_CONNECT_TIMEOUT: 'i/o timeout',
  UND_ERR_HEADERS_TIMEOUT: 'net/http: timeout awaiting response headers',
  UND_ERR_BODY_TIMEOUT: 'i/o timeout',
  UND_ERR_SOCKET: 'EOF',
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
  UNABLE_TO_GET_ISSUER_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  CERT_HAS_EXPIRED: 'x509: certificate has expired or is not yet valid',
  CERT_NOT_YET_VALID: 'x509: certificate has expired or is not yet valid',
  EPROTO: 'http: server gave HTTP response to HTTPS client',
  ERR_SSL_WRONG_VERSION_NUMBER: 'http: server gave HTTP response to HTTPS client',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'http: server gave HTTP response to HTTPS client',
};
const beforeTheRequest = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'UND_ERR_CONNECT_TIMEOUT',
]);

interface SystemError {
  readonly code?: string;
  readonly address?: string;
  readonly port?: number;
  readonly hostname?: string;
}

/** `Get "https://host/v2/": dial tcp 127.0.0.1:5000: connect: connection refused`; the URL without query and user. */
export function unreachable(method: string, url: URL, error: unknown): UnreachableError {
  const first = error instanceof AggregateError && error.errors.length > 0 ? error.errors[0] : error;
  const { code = '', address, port } = first as SystemError;
  const where = address === undefined ? '' : ` ${address.includes(':') ? `[${address}]` : address}:${port ?? ''}`;
  const early = beforeTheRequest.has(code) || /CERT|^EPROTO$|SSL|TLS|^UNABLE_TO/.test(code);
  let text = words[code] ?? (error instanceof Error ? error.message : String(error));
  if (code === 'ENOTFOUND') text = `dial tcp: lookup ${url.hostname}: no such host`;
  else if (code === 'EAI_AGAIN') text = `dial tcp: lookup ${url.hostname}: Temporary failure in name resolution`;
  else if (text.startsWith('connect: ')) text = `dial tcp${where}: ${text}`;
  else if (code === 'UND_ERR_CONNECT_TIMEOUT') text = `dial tcp ${url.host}: i/o timeout`;
  else if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') text = `x509: certificate is not valid for ${url.hostname}`;
  return new UnreachableError(`${requestName(method, url)}: ${text}`, !early, error);
}

/** `Get "https://host/v2/"`. A query may carry a signature, so it is never told. */
export const requestName = (method: string, url: URL): string =>
  `${method.charAt(0)}${method.slice(1).toLowerCase()} "${url.origin}${url.pathname}"`;

const kinds: Readonly<Record<number, ErrorKind>> = {
  401: 'unauthorized',
  403: 'forbidden',
  404: 'not-found',
  429: 'unavailable',
  503: 'unavailable',
};

interface ErrorEntry {
  readonly code: string;
  readonly message: string;
}

/**
 * The error a registry's answer stands for: `denied: requested access to the resource is denied`. A bearer challenge
 * that says `insufficient_scope` means denied, whatever the body says.
 */
export function refusal(
  status: number,
  reason: string,
  headers: Readonly<Record<string, string | string[] | undefined>>,
  body: string,
): RegistryError {
  const [challenged] = parseChallenges(headers['www-authenticate']).flatMap(challengeError);
  const entries = [...(challenged ? [challenged] : []), ...bodyErrors(body)];
  const [first] = entries;
  if (!first) {
    const text =
      status === 429 ? 'toomanyrequests: too many requests' : `received unexpected HTTP status: ${status} ${reason}`;
    return new RegistryError(
      kinds[status] ?? 'internal',
      text.trimEnd(),
      status === 429 ? 'TOOMANYREQUESTS' : '',
      status,
    );
  }
  const text = `${first.code.toLowerCase().replaceAll('_', ' ')}: ${first.message}`;
  return new RegistryError(kinds[status] ?? 'internal', text, first.code, status);
}

function challengeError(challenge: Challenge): ErrorEntry[] {
  if (challenge.scheme !== 'bearer' || challenge.parameters.error !== 'insufficient_scope') return [];
  const message = challenge.parameters.error_description ?? 'requested access to the resource is denied';
  return [{ code: 'DENIED', message }];
}

const lineLengthMax = 1000;

/** One printable line, as long as a message may be: what a registry says ends in logs and on terminals. */
function oneLine(text: string): string {
  let line = '';
  for (const character of text.slice(0, lineLengthMax)) {
    const code = character.charCodeAt(0);
    line += code < 0x20 || (code >= 0x7f && code < 0xa0) ? ' ' : character;
  }
  return line;
}

function bodyErrors(body: string): ErrorEntry[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    return [];
  }
  if (typeof parsed !== 'object' || parsed === null) return [];
  const { errors, details } = parsed as { errors?: unknown; details?: unknown };
  if (!Array.isArray(errors)) {
    // Token servers answer `{"details": "incorrect username or password"}`.
    return typeof details === 'string' ? [{ code: 'UNAUTHORIZED', message: oneLine(details) }] : [];
  }
  return errors.flatMap((entry: unknown) => {
    const { code, message } = (entry ?? {}) as { code?: unknown; message?: unknown };
    if (typeof code !== 'string' || code === '') return [];
    const text = typeof message === 'string' && message !== '' ? message : code.toLowerCase().replaceAll('_', ' ');
    return [{ code: oneLine(code), message: oneLine(text) }];
  });
}
