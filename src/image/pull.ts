/**
 * Pull: a name becomes an image. Layers are fetched side by side and unpacked side by side, begun from the lowest up; what
 * is here already is neither fetched nor unpacked. Nothing counts before its digest is verified.
 */
import { availableParallelism } from 'node:os';
import { chainIdOf } from '../layer/store.ts';
import { EngineError, internal, invalid, messageOf, notFound } from '../lib/errors.ts';
import type { ChainId, DiffId, Digest, ImageId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';
import type { Download, Downloads } from '../registry/download.ts';
import { ContentError, RegistryError } from '../registry/errors.ts';
import {
  choosePlatform,
  type Descriptor,
  hostPlatform,
  type Manifest,
  type Platform,
  parseManifest,
  parsePlatform,
} from '../registry/manifest.ts';
import type { Registries } from '../registry/registries.ts';
import { Repository } from '../registry/repository.ts';
import { Slots, unlessAborted } from '../registry/waiting.ts';
import { type ProgressStream, whileReading } from './progress-stream.ts';
import { canonicalName, familiarName, familiarReference, type Reference } from './reference.ts';
import type { ImageSink, PullFn, PullRequest } from './transfer-types.ts';

export interface PullParts {
  readonly registries: Registries;
  readonly downloads: Downloads;
  readonly log: Log;
  /** `process.arch` of the machine that runs the containers. */
  readonly architecture?: string;
}

const configBytesMax = 8 * 1024 * 1024;

export function createPull(parts: PullParts): PullFn {
  const host = hostPlatform(parts.architecture ?? process.arch);
  const unpackings = new Slots(() => Math.max(2, availableParallelism()));
  const swept = new Map<string, Promise<void>>();
  const sweep = (directory: string): Promise<void> =>
    parts.downloads.sweep(directory).catch((error: unknown) => {
      parts.log.warn({ error }, 'what former pulls left could not be swept');
    });
  return (request, sink, signal) =>
    whileReading(async (progress, ending) => {
      const atStart = swept.get(sink.temporary) ?? sweep(sink.temporary);
      swept.set(sink.temporary, atStart);
      await atStart;
      try {
        await new Pull(parts, unpackings, host, request, sink, progress, ending).run();
      } catch (error) {
        await sweep(sink.temporary);
        ending.throwIfAborted();
        throw pullError(error, request.reference);
      }
    }, signal);
}

interface Found {
  /** Of the document the name stands for: the index's where there is one. */
  readonly digest: Digest;
  /** Null: the image is here and the registry says it is the newest. */
  readonly manifest: (Manifest & { readonly is: 'image' }) | null;
  /** Where to fetch blobs: the server that had the manifest, then those behind it. */
  readonly sources: readonly [Repository, ...Repository[]];
}

interface LayerToPull {
  readonly blob: Descriptor;
  readonly diffId: DiffId;
  readonly parent: ChainId | null;
  readonly chainId: ChainId;
  /** How the client's screen calls it. */
  readonly label: string;
}

/** The layer under another, on its way. */
interface Below {
  readonly begun: Promise<void>;
  readonly done: Promise<void>;
}

class Pull {
  readonly #parts: PullParts;
  readonly #platform: Platform;
  readonly #request: PullRequest;
  /** The name the image gets: with the digest if one was asked for, else with the tag. */
  readonly #reference: Reference;
  readonly #sink: ImageSink;
  readonly #progress: ProgressStream;
  readonly #signal: AbortSignal;
  readonly #unpackings: Slots;

  constructor(
    parts: PullParts,
    unpackings: Slots,
    host: Platform,
    request: PullRequest,
    sink: ImageSink,
    progress: ProgressStream,
    signal: AbortSignal,
  ) {
    const { domain, path, tag, digest } = request.reference;
    this.#parts = parts;
    this.#unpackings = unpackings;
    this.#platform = request.platform ? parsePlatform(request.platform, host) : host;
    this.#request = request;
    this.#reference = digest === undefined ? { domain, path, tag } : { domain, path, digest };
    this.#sink = sink;
    this.#progress = progress;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    const { found, notices } = await this.#find();
    const { path, tag, digest } = this.#reference;
    this.#progress.tell({ status: `Pulling from ${path}`, id: digest ?? tag ?? '' });
    for (const status of notices) this.#progress.tell({ status });
    const before = this.#sink.lookUp(this.#reference);
    const after = found.manifest ? await this.#take(found.digest, found.manifest, found.sources) : before;
    this.#progress.tell({ status: `Digest: ${found.digest}` });
    const outcome = after === before ? 'Image is up to date' : 'Downloaded newer image';
    this.#progress.tell({ status: `Status: ${outcome} for ${familiarReference(this.#reference)}` });
  }

  /** Asks one server after the other; a mirror that fails is passed over, and said so. */
  async #find(): Promise<{ found: Found; notices: readonly string[] }> {
    const servers = await this.#parts.registries.servers(this.#reference.domain, this.#request.credentials);
    const sources = servers.map((server) => new Repository(server, this.#reference.path, 'pull'));
    const notices: string[] = [];
    for (;;) {
      const [source, ...behind] = sources as [Repository, ...Repository[]];
      try {
        return { found: await this.#findAt([source, ...behind]), notices };
      } catch (error) {
        this.#signal.throwIfAborted();
        if (behind.length === 0) throw error;
        const name = source.server.endpoint.host;
        this.#parts.log.warn({ error, mirror: name }, 'a mirror failed: the next server is asked');
        notices.push(`Mirror ${name} failed (${messageOf(error)}): trying ${behind[0]?.server.endpoint.host}`);
        sources.shift();
      }
    }
  }

  async #findAt(sources: readonly [Repository, ...Repository[]]): Promise<Found> {
    const [source] = sources;
    const current = await this.#current(source);
    if (current) return { digest: current, manifest: null, sources };
    const top = await source.manifest(this.#reference.digest ?? this.#reference.tag ?? 'latest', this.#signal);
    let manifest = parseManifest(top.bytes, top.contentType);
    if (manifest.is === 'index') {
      const chosen = choosePlatform(manifest.manifests, this.#platform);
      const { bytes } = await source.manifest(chosen.digest, this.#signal);
      manifest = parseManifest(bytes, chosen.mediaType);
      if (manifest.is !== 'image') throw invalid('manifest invalid: an index in an index');
    }
    return { digest: top.digest, manifest, sources };
  }

  /** The digest of a tag that is here and current. Costs a HEAD, which registries with a limit on pulls do not count. */
  async #current(source: Repository): Promise<Digest | null> {
    const { tag } = this.#reference;
    const id = this.#sink.lookUp(this.#reference);
    const image = id && this.#sink.get(id);
    if (tag === undefined || !image || image.architecture !== this.#platform.architecture) return null;
    // An image does not tell its variant: whether it is the one asked for is seen in the index.
    if (this.#request.platform !== undefined && this.#platform.variant !== '') return null;
    const digest = await source.manifestDigest(tag, this.#signal).catch((error: unknown) => {
      // The GET that follows tells the reason better: an answer to HEAD has no body.
      if (error instanceof RegistryError) return undefined;
      throw error;
    });
    if (digest === undefined) return null;
    const known = this.#sink.lookUp({ ...this.#reference, tag: undefined, digest: digest as Digest });
    return known === id ? (digest as Digest) : null;
  }

  /** Makes the image of a manifest exist and the name point to it. */
  async #take(
    digest: Digest,
    manifest: Manifest & { readonly is: 'image' },
    sources: readonly [Repository, ...Repository[]],
  ): Promise<ImageId> {
    const id = manifest.config.digest as string as ImageId;
    const names: Reference[] = [{ ...this.#reference, tag: undefined, digest }];
    if (this.#reference.tag !== undefined) names.unshift(this.#reference);
    const event = { action: 'pull', names: [familiarReference(this.#reference)] };
    const here = this.#sink.get(id);
    if (here) {
      using _kept = this.#sink.layers.lease(...here.chain);
      await this.#sink.registerImage(await this.#sink.config(id), names, event);
      return id;
    }
    const config = await this.#config(manifest.config, sources);
    const layers = layersOf(manifest.layers, config);
    using _held = this.#sink.layers.lease(...layers.map(({ chainId }) => chainId));
    await this.#pullLayers(layers, sources);
    await this.#sink.registerImage(config, names, event);
    return id;
  }

  async #config({ digest, size }: Descriptor, sources: readonly Repository[]): Promise<Buffer> {
    if (size > configBytesMax) throw invalid(`image config of ${size} bytes is too long`);
    for (const [index, source] of sources.entries()) {
      try {
        return await source.smallBlob(digest, configBytesMax, this.#signal);
      } catch (error) {
        this.#signal.throwIfAborted();
        if (index === sources.length - 1) throw error;
      }
    }
    throw invalid('a registry without an address');
  }

  async #pullLayers(layers: readonly LayerToPull[], sources: readonly Repository[]): Promise<void> {
    const missing = layers.filter(({ chainId }) => !this.#sink.layers.get(chainId));
    for (const layer of layers) this.#tell(layer, missing.includes(layer) ? 'Pulling fs layer' : 'Already exists');
    const failing = new AbortController();
    const signal = AbortSignal.any([this.#signal, failing.signal]);
    let below: Below = { begun: Promise.resolve(), done: Promise.resolve() };
    const all = missing.map((layer) => {
      const begun = Promise.withResolvers<void>();
      const done = this.#pullLayer(layer, below, begun.resolve, sources, signal);
      done.catch((error: unknown) => failing.abort(error));
      below = { begun: begun.promise, done };
      return done;
    });
    await Promise.allSettled(all);
    this.#signal.throwIfAborted();
    if (failing.signal.aborted) throw failing.signal.reason;
  }

  /** `begun` is called when the layer store has been given this layer, so that the one above may follow. */
  async #pullLayer(
    layer: LayerToPull,
    below: Below,
    begun: () => void,
    sources: readonly Repository[],
    signal: AbortSignal,
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const share = this.#parts.downloads.join(this.#sink.temporary, layer.blob, sources);
      let done = false;
      try {
        await this.#unpack(layer, share.download, below, begun, signal);
        done = true;
      } catch (error) {
        // Bytes kept from an earlier attempt may have been damaged by a crash: once more from the first byte.
        if (attempt > 1 || !(error instanceof ContentError && share.download.resumed)) throw error;
      } finally {
        await share.leave(done);
      }
      if (done) break;
    }
    const { digest, size, mediaType } = layer.blob;
    const { diffId } = layer;
    await this.#sink.rememberBlob({ diffId, repository: canonicalName(this.#reference), digest, size, mediaType });
    this.#tell(layer, 'Pull complete');
  }

  async #unpack(
    layer: LayerToPull,
    download: Download,
    below: Below,
    begun: () => void,
    signal: AbortSignal,
  ): Promise<void> {
    using _reporting = this.#report(layer, download);
    // A download that fails does not wait for the layers below.
    await unlessAborted(Promise.race([below.begun, download.done.then(() => below.begun)]), signal);
    await download.readable(signal);
    const giveBack = await this.#unpackings.take(signal);
    try {
      const applied = this.#apply(layer, download, signal);
      begun();
      await applied.catch(async (error: unknown) => {
        const broken = error instanceof ContentError || (error instanceof EngineError && error.kind === 'invalid');
        if (broken) throw error;
        // Perhaps a layer below was being unpacked for another pull that was given up, and this one has done it since.
        await below.done;
        await this.#apply(layer, download, signal);
      });
    } finally {
      giveBack();
    }
  }

  async #apply({ parent, diffId, blob, label }: LayerToPull, download: Download, signal: AbortSignal): Promise<void> {
    const stream = download.state === 'complete' ? null : download.stream();
    const from = stream === null ? { path: download.path } : { stream };
    const progress = (bytes: number): void => {
      if (download.state === 'complete') this.#progress.amount(label, 'Extracting', bytes, blob.size);
    };
    try {
      await this.#sink.layers.apply(parent, { from, diffId, progress, signal });
    } catch (error) {
      signal.throwIfAborted();
      // The archive was cut short by a download that failed: that is the cause.
      if (download.state === 'failed') await download.done;
      throw error;
    } finally {
      stream?.destroy();
    }
  }

  /** Tells how the download gets on until disposed of. */
  #report({ label, blob }: LayerToPull, download: Download): Disposable {
    const tell = (status: string): void => this.#progress.tell({ status, progressDetail: {}, id: label });
    let told = download.state;
    if (told === 'waiting') tell('Waiting');
    const look = (): void => {
      const { state, received } = download;
      if (state === 'downloading') this.#progress.amount(label, 'Downloading', received, blob.size);
      if (state === told) return;
      told = state;
      if (state === 'verifying') tell('Verifying Checksum');
      if (state === 'complete') tell('Download complete');
    };
    const end = download.onChange(look);
    return { [Symbol.dispose]: end };
  }

  #tell({ label }: LayerToPull, status: string): void {
    this.#progress.tell({ status, progressDetail: {}, id: label });
  }
}

/** Joins the manifest's blobs with the config's diff IDs, from the lowest layer up. Throws kind `invalid`. */
function layersOf(blobs: readonly Descriptor[], config: Buffer): readonly LayerToPull[] {
  const { os, diffIds } = parseConfig(config);
  if (os !== 'linux') throw invalid(`image operating system ${JSON.stringify(os)} cannot be used on this platform`);
  if (diffIds.length !== blobs.length)
    throw invalid(`manifest invalid: ${blobs.length} layers, but the image config lists ${diffIds.length}`);
  const layers: LayerToPull[] = [];
  for (const [index, blob] of blobs.entries()) {
    const diffId = diffIds[index] as DiffId;
    const parent = layers.at(-1)?.chainId ?? null;
    const label = blob.digest.slice('sha256:'.length).slice(0, 12);
    layers.push({ blob, diffId, parent, chainId: chainIdOf(parent, diffId), label });
  }
  return layers;
}

function parseConfig(bytes: Buffer): { os: string; diffIds: readonly DiffId[] } {
  let document: { os?: unknown; rootfs?: { diff_ids?: unknown } };
  try {
    document = JSON.parse(bytes.toString('utf8')) as typeof document;
  } catch (error) {
    throw invalid('image config is not JSON', { cause: error });
  }
  const { diff_ids: diffIds = [] } = document?.rootfs ?? {};
  if (!Array.isArray(diffIds) || !diffIds.every((id) => typeof id === 'string' && /^sha256:[0-9a-f]{64}$/.test(id)))
    throw invalid('image config lists layers without a valid digest');
  const { os = '' } = document ?? {};
  return { os: typeof os === 'string' && os !== '' ? os.toLowerCase() : 'linux', diffIds };
}

/** The registry's refusal in the words that clients know from pulls. */
function pullError(error: unknown, reference: Reference): unknown {
  if (!(error instanceof RegistryError)) return withoutPrompt(error);
  const { code, status, message } = error;
  if (code === 'DENIED') {
    const text = `pull access denied for ${familiarName(reference)}, repository does not exist or may require 'docker login': ${message}`;
    return notFound(text, { cause: error });
  }
  if (code === 'NAME_UNKNOWN')
    return notFound(`repository ${familiarName(reference)} not found: ${message}`, { cause: error });
  if (code === 'MANIFEST_UNKNOWN' || (status === 404 && code === ''))
    return notFound(`manifest for ${familiarReference(reference)} not found: manifest unknown: manifest unknown`, {
      cause: error,
    });
  return withoutPrompt(error);
}

/** As dockerd: at a 401 the command line client would ask for a password, and wait for ever where nobody is. */
function withoutPrompt(error: unknown): unknown {
  const asks = error instanceof EngineError && error.kind === 'unauthorized';
  return asks ? internal(error.message, { cause: error }) : error;
}
