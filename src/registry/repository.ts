/** One repository of a registry: manifests, blobs, uploads (distribution specification). */
import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { internal } from '../lib/errors.ts';
import type { Digest } from '../lib/ids.ts';
import { ContentError, RegistryError, requestName } from './errors.ts';
import { manifestAccept, manifestBytesMax, mediaTypes } from './manifest.ts';
import type { Server } from './server.ts';
import { type Answer, drop, readAll, refused } from './transport.ts';

export interface RawManifest {
  readonly bytes: Buffer;
  readonly contentType: string;
  /** Computed from the bytes, and equal to the one asked for. */
  readonly digest: Digest;
}

/** The rest of a blob from `offset` on. `offset` may be less than what was asked for: registries may ignore ranges. */
export interface BlobBody {
  readonly offset: number;
  readonly body: Readable;
}

export type Rights = 'pull' | 'pull,push';

export const digestOf = (bytes: Uint8Array): Digest =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;

const tagPagesMax = 1000;
const tagBytesMax = 8 * 1024 * 1024;

export class Repository {
  readonly server: Server;
  readonly path: string;
  readonly #scopes: readonly string[];

  constructor(server: Server, path: string, rights: Rights) {
    this.server = server;
    this.path = path;
    this.#scopes = [`repository:${path}:${rights}`];
  }

  /** Throws a `RegistryError` for what the registry refuses and a `ContentError` for bytes that are not those of the digest. */
  async manifest(tagOrDigest: string, signal: AbortSignal): Promise<RawManifest> {
    const answer = await this.#send('GET', `manifests/${tagOrDigest}`, signal, { accept: manifestAccept });
    const bytes = await readAll(answer, 'GET', manifestBytesMax);
    const digest = digestOf(bytes);
    if (tagOrDigest.includes(':') && tagOrDigest !== digest)
      throw new ContentError(`manifest verification failed for digest ${tagOrDigest}`);
    return { bytes, digest, contentType: String(answer.headers['content-type'] ?? '') };
  }

  /** The digest a tag stands for, without fetching (and being counted for) it; undefined when the registry does not say. */
  async manifestDigest(tag: string, signal: AbortSignal): Promise<string | undefined> {
    const answer = await this.#send('HEAD', `manifests/${tag}`, signal, { accept: manifestAccept });
    await drop(answer);
    const digest = answer.headers['docker-content-digest'];
    return typeof digest === 'string' ? digest : undefined;
  }

  /** Sends a manifest and returns the registry's name for it, which is the digest of the bytes. */
  async putManifest(tagOrDigest: string, bytes: Uint8Array, signal: AbortSignal): Promise<Digest> {
    const answer = await this.#send(
      'PUT',
      `manifests/${tagOrDigest}`,
      signal,
      { 'content-type': mediaTypes.manifest },
      bytes,
    );
    await drop(answer);
    return digestOf(bytes);
  }

  /** All tags, in the registry's order. */
  async tags(signal: AbortSignal): Promise<readonly string[]> {
    const tags: string[] = [];
    let to: string | URL = this.#url('tags/list');
    for (let page = 0; page < tagPagesMax; page++) {
      const answer = await this.#sendTo('GET', to, signal, {});
      const text = await readAll(answer, 'GET', tagBytesMax);
      const { tags: found } = JSON.parse(text.toString('utf8')) as { tags?: readonly string[] | null };
      tags.push(...(found ?? []));
      const next = /<([^>]+)>\s*;\s*rel="?next"?/.exec(String(answer.headers.link ?? ''))?.[1];
      if (next === undefined) break;
      to = this.#own(answer, next);
    }
    return tags;
  }

  /** A whole small blob (an image's config), verified. */
  async smallBlob(digest: Digest, bytesMax: number, signal: AbortSignal): Promise<Buffer> {
    const answer = await this.#send('GET', `blobs/${digest}`, signal, {});
    const bytes = await readAll(answer, 'GET', bytesMax);
    if (digestOf(bytes) !== digest) throw new ContentError(`image config verification failed for digest ${digest}`);
    return bytes;
  }

  /** A blob from `offset` on. The caller verifies it, and destroys the body if it does not read it to its end. */
  async blob(digest: Digest, offset: number, signal: AbortSignal): Promise<BlobBody> {
    const range: Record<string, string> = offset > 0 ? { range: `bytes=${offset}-` } : {};
    const answer = await this.#send('GET', `blobs/${digest}`, signal, range);
    const start = /^bytes (\d+)-/.exec(String(answer.headers['content-range'] ?? ''))?.[1];
    const from = answer.status === 206 ? Number(start ?? Number.NaN) : 0;
    if (!(from <= offset)) {
      answer.body.destroy();
      throw internal(`${requestName('GET', answer.url)}: the answer is not the range that was asked for`);
    }
    return { offset: from, body: answer.body };
  }

  /** The size of a blob, or null if the repository does not have it. */
  async blobSize(digest: Digest, signal: AbortSignal): Promise<number | null> {
    try {
      const answer = await this.#send('HEAD', `blobs/${digest}`, signal, {});
      await drop(answer);
      return Number(answer.headers['content-length'] ?? 0);
    } catch (error) {
      if (error instanceof RegistryError && error.status === 404) return null;
      throw error;
    }
  }

  /** Takes over a blob from another repository of the registry. False when the registry would rather have it uploaded. */
  async mount(digest: Digest, from: string, signal: AbortSignal): Promise<boolean> {
    const query = new URLSearchParams({ mount: digest, from });
    const url = this.#url(`blobs/uploads/?${query}`);
    const scopes = [...this.#scopes, `repository:${from}:pull`];
    const answer = await this.server.send({ method: 'POST', to: url, scopes, body: '', signal });
    await drop(answer);
    if (answer.status === 202) await this.#cancelUpload(answer, signal);
    return answer.status === 201;
  }

  /** Sends a small blob in one piece, unless the repository has it. */
  async putSmallBlob(bytes: Uint8Array, signal: AbortSignal): Promise<Digest> {
    const digest = digestOf(bytes);
    if ((await this.blobSize(digest, signal)) !== null) return digest;
    const location = await this.#startUpload(signal);
    location.searchParams.set('digest', digest);
    await drop(await this.#sendTo('PUT', location, signal, { 'content-type': 'application/octet-stream' }, bytes));
    return digest;
  }

  /**
   * Sends a blob whose digest is known only when all of it has passed: `digest` is asked for after the stream has ended.
   * The stream is destroyed in the end.
   */
  async upload(content: Readable, digest: () => Promise<Digest>, signal: AbortSignal): Promise<Digest> {
    const headers = { 'content-type': 'application/octet-stream' };
    try {
      const start = await this.#startUpload(signal);
      const patched = await this.#sendTo('PATCH', start, signal, headers, content);
      await drop(patched);
      const end = this.#location(patched);
      const name = await digest();
      end.searchParams.set('digest', name);
      await drop(await this.#sendTo('PUT', end, signal, headers, ''));
      return name;
    } finally {
      content.destroy();
    }
  }

  async #startUpload(signal: AbortSignal): Promise<URL> {
    const answer = await this.#send('POST', 'blobs/uploads/', signal, {}, '');
    await drop(answer);
    return this.#location(answer);
  }

  /** Frees what the registry set aside for an upload that is not going to come. Its failure changes nothing. */
  async #cancelUpload(answer: Answer, signal: AbortSignal): Promise<void> {
    const cancel = this.#sendTo('DELETE', this.#location(answer), signal, {});
    await cancel.then(drop, () => undefined);
  }

  #location(answer: Answer): URL {
    const { location } = answer.headers;
    if (typeof location !== 'string')
      throw internal(`${requestName('POST', answer.url)}: the registry names no place for the upload`);
    return this.#own(answer, location);
  }

  /**
   * An address the registry gave for its next step. Registries behind a TLS proxy give `http://` for their own host: the
   * way back in is the way we came.
   */
  #own(answer: Answer, location: string): URL {
    if (!URL.canParse(location, answer.url.href))
      throw internal(`${requestName('GET', answer.url)}: the registry gave a broken address`);
    const url = new URL(location, answer.url);
    const base = new URL(this.server.base);
    if (url.hostname === base.hostname && url.protocol !== base.protocol) {
      url.protocol = base.protocol;
      url.port = base.port;
    }
    const allowed = url.protocol === 'https:' || (url.protocol === 'http:' && base.protocol === 'http:');
    if (!allowed)
      throw internal(`${requestName('GET', answer.url)}: the registry gave an address that cannot be trusted`);
    return url;
  }

  #url = (rest: string): string => `/v2/${this.path}/${rest}`;

  #send(
    method: SendMethod,
    rest: string,
    signal: AbortSignal,
    headers: Record<string, string>,
    body?: Body,
  ): Promise<Answer> {
    return this.#sendTo(method, this.#url(rest), signal, headers, body);
  }

  async #sendTo(
    method: SendMethod,
    to: string | URL,
    signal: AbortSignal,
    headers: Record<string, string>,
    body?: Body,
  ): Promise<Answer> {
    const answer = await this.server.send({
      method,
      to,
      headers,
      scopes: this.#scopes,
      signal,
      ...(body !== undefined && { body }),
    });
    if (answer.status >= 200 && answer.status < 300) return answer;
    throw await refused(answer, method);
  }
}

type SendMethod = 'GET' | 'HEAD' | 'POST' | 'PATCH' | 'PUT' | 'DELETE';
type Body = string | Uint8Array | Readable;
