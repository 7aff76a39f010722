/**
 * Names of images. A name has a canonical form (`docker.io/library/busybox:latest`), by which it is kept, and a familiar
 * one (`busybox:latest`), by which users see it. Grammar: the reference grammar of the distribution specification.
 */
import { invalid } from '../lib/errors.ts';
import type { Digest } from '../lib/ids.ts';

export interface Reference {
  /** `docker.io`, `localhost:5000`, … */
  readonly domain: string;
  /** Path of the repository at that domain: `library/busybox`. */
  readonly path: string;
  readonly tag?: string | undefined;
  readonly digest?: Digest | undefined;
}

/** A reference with a digest: `repo@sha256:…`. */
export type DigestReference = Reference & { readonly digest: Digest };

const hubDomain = 'docker.io';
const hubAlias = 'index.docker.io';
const officialPrefix = 'library/';
const nameLengthMax = 255;

const domainPart = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const domain = `(?:${domainPart}(?:\\.${domainPart})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`;
const pathPart = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*';
const path = `${pathPart}(?:/${pathPart})*`;
const tag = '\\w[\\w.-]{0,127}';
const digest = '[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}';

const wholeReference = new RegExp(`^(${domain})/(${path})(?::(${tag}))?(?:@(${digest}))?$`);
const wholeTag = new RegExp(`^${tag}$`);
const wholeId = /^[a-f0-9]{64}$/;
const digestLength: Readonly<Record<string, number>> = { sha256: 64, sha384: 96, sha512: 128 };

/** Reads a familiar or canonical name, with or without tag and digest. Throws `invalid reference format …`. */
export function parseReference(text: string): Reference {
  if (wholeId.test(text))
    throw invalid(
      `invalid reference format: invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`,
    );
  const [where, rest] = splitDomain(text);
  const repository = rest.split(':', 1)[0] ?? '';
  if (repository !== repository.toLowerCase())
    throw invalid('invalid reference format: repository name must be lowercase');
  const match = wholeReference.exec(`${where}/${rest}`);
  if (!match) throw invalid('invalid reference format');
  const [, matchedDomain = '', matchedPath = '', matchedTag, matchedDigest] = match;
  if (matchedDomain.length + 1 + matchedPath.length > nameLengthMax)
    throw invalid(`invalid reference format: repository name must not be more than ${nameLengthMax} characters`);
  return {
    domain: matchedDomain,
    path: matchedPath,
    ...(matchedTag !== undefined && { tag: matchedTag }),
    ...(matchedDigest !== undefined && { digest: checkDigest(matchedDigest) }),
  };
}

/** The first part is a domain only when it looks like one; otherwise the name belongs to the hub. */
function splitDomain(text: string): [domain: string, rest: string] {
  const slash = text.indexOf('/');
  const first = slash < 0 ? '' : text.slice(0, slash);
  const named = /[.:]/.test(first) || first === 'localhost';
  const where = !named || first === hubAlias ? hubDomain : first;
  const rest = named ? text.slice(slash + 1) : text;
  return [where, where === hubDomain && !rest.includes('/') ? officialPrefix + rest : rest];
}

function checkDigest(text: string): Digest {
  const [algorithm = '', hex = ''] = text.split(':');
  const length = digestLength[algorithm];
  if (length === undefined) throw invalid('invalid reference format: unsupported digest algorithm');
  if (hex.length !== length || hex !== hex.toLowerCase())
    throw invalid('invalid reference format: invalid checksum digest length');
  return text as Digest;
}

/** True for `sha256:` and 64 lower-case hex digits. */
export const isDigest = (text: string): text is Digest => /^sha256:[a-f0-9]{64}$/.test(text);

/**
 * Joins the `name` and `tag` parameters of a request: `tag` may be a tag, a digest, or empty (what `name` says holds).
 */
export function parseNameAndTag(name: string, tagOrDigest: string): Reference {
  const reference = parseReference(name);
  if (tagOrDigest === '') return reference;
  if (tagOrDigest.includes(':'))
    return { domain: reference.domain, path: reference.path, digest: checkDigest(tagOrDigest) };
  if (!wholeTag.test(tagOrDigest)) throw invalid('invalid tag format');
  return { ...reference, tag: tagOrDigest };
}

/** The same repository under a tag. */
export function withTag({ domain, path }: Reference, tag: string): Reference {
  if (!wholeTag.test(tag)) throw invalid('invalid tag format');
  return { domain, path, tag };
}

/** Adds the tag `latest` to a reference with neither tag nor digest. */
export function withDefaultTag(reference: Reference): Reference {
  return reference.tag === undefined && reference.digest === undefined ? { ...reference, tag: 'latest' } : reference;
}

/** `docker.io/library/busybox`. */
export const canonicalName = (reference: Reference): string => `${reference.domain}/${reference.path}`;

/** `busybox`, `user/app`, `localhost:5000/x`. */
export function familiarName(reference: Reference): string {
  if (reference.domain !== hubDomain) return canonicalName(reference);
  const official =
    reference.path.startsWith(officialPrefix) && !reference.path.slice(officialPrefix.length).includes('/');
  return official ? reference.path.slice(officialPrefix.length) : reference.path;
}

const suffix = (reference: Reference): string =>
  (reference.tag === undefined ? '' : `:${reference.tag}`) +
  (reference.digest === undefined ? '' : `@${reference.digest}`);

/** The canonical form with tag and digest: the key under which a reference is kept. */
export const canonicalReference = (reference: Reference): string => canonicalName(reference) + suffix(reference);

/** The familiar form with tag and digest, as users see it. */
export const familiarReference = (reference: Reference): string => familiarName(reference) + suffix(reference);
