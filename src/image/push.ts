/**
 * Push: an image's layers, its config and a manifest go to a registry. A layer that the registry is known to have is not
 * sent; any other passes once, from the layer store through gzip into the connection, hashed on the way.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { EngineError, internal } from '../lib/errors.ts';
import type { ChainId, DiffId, Digest, ImageId } from '../lib/ids.ts';
import { RegistryError, UnreachableError } from '../registry/errors.ts';
import type { Hasher } from '../registry/hasher.ts';
import { type Descriptor, mediaTypes } from '../registry/manifest.ts';
import type { Registries } from '../registry/registries.ts';
import { Repository } from '../registry/repository.ts';
import { retryDelayMs, type Slots, sleep } from '../registry/waiting.ts';
import { type ProgressStream, whileReading } from './progress-stream.ts';
import { canonicalName, familiarName, familiarReference, type Reference } from './reference.ts';
import type { ImageSink, KnownBlob, PushFn, PushRequest } from './transfer-types.ts';

export interface PushParts {
  readonly registries: Registries;
  readonly hasher: Hasher;
  /** How many layers are sent at once, over all pushes. */
  readonly slots: Slots;
}

/** Blobs of a layer that are asked for before it is sent; each costs a request. */
const candidatesMax = 5;
const attemptsMax = 3;

export function createPush(parts: PushParts): PushFn {
  return (request, sink, signal) =>
    whileReading((progress, ending) => new Push(parts, request, sink, progress, ending).run(), signal);
}

interface LayerToPush {
  readonly diffId: DiffId;
  readonly chainId: ChainId;
  /** How the client's screen calls it. */
  readonly label: string;
}

class Push {
  readonly #parts: PushParts;
  readonly #request: PushRequest;
  readonly #sink: ImageSink;
  readonly #progress: ProgressStream;
  readonly #signal: AbortSignal;
  /** Layers of an image pushed under several tags are sent once. */
  readonly #sent = new Map<DiffId, Promise<Descriptor>>();

  constructor(parts: PushParts, request: PushRequest, sink: ImageSink, progress: ProgressStream, signal: AbortSignal) {
    this.#parts = parts;
    this.#request = request;
    this.#sink = sink;
    this.#progress = progress;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    const { reference, credentials } = this.#request;
    this.#progress.tell({ status: `The push refers to repository [${canonicalName(reference)}]` });
    const images = this.#images();
    if (images.length === 0)
      throw new EngineError('not-found', `An image does not exist locally with the tag: ${familiarName(reference)}`);
    const server = await this.#parts.registries.registry(reference.domain, credentials);
    const repository = new Repository(server, reference.path, 'pull,push');
    for (const image of images) await this.#pushImage(image.reference, image.id, repository);
  }

  #images(): readonly { readonly reference: Reference; readonly id: ImageId }[] {
    const { reference } = this.#request;
    if (reference.tag === undefined) return this.#sink.tagsIn(reference);
    const id = this.#sink.lookUp(reference);
    return id === undefined ? [] : [{ reference, id }];
  }

  async #pushImage(reference: Reference, id: ImageId, repository: Repository): Promise<void> {
    const image = this.#sink.get(id);
    if (!image)
      throw new EngineError('not-found', `An image does not exist locally with the tag: ${familiarName(reference)}`);
    using _held = this.#sink.layers.lease(...image.chain);
    const layers = image.diffIds.map((diffId, index) => ({
      diffId,
      chainId: image.chain[index] as ChainId,
      label: diffId.slice('sha256:'.length).slice(0, 12),
    }));
    const config = await this.#sink.config(id);
    const blobs = await this.#pushLayers(layers, repository);
    const digest = await repository.putSmallBlob(config, this.#signal);
    const bytes = manifestOf({ mediaType: mediaTypes.config, size: config.length, digest }, blobs);
    await this.#finish(reference, id, repository, bytes);
  }

  async #finish(reference: Reference, id: ImageId, repository: Repository, bytes: Buffer): Promise<void> {
    const { tag = 'latest' } = reference;
    const digest = await repository.putManifest(tag, bytes, this.#signal);
    await this.#sink.addDigestReference({ ...reference, tag: undefined, digest }, id);
    this.#progress.tell({ status: `${tag}: digest: ${digest} size: ${bytes.length}` });
    this.#progress.tell({ progressDetail: {}, aux: { Tag: tag, Digest: digest, Size: bytes.length } });
    await this.#sink.announce('push', id, familiarReference(reference));
  }

  /** Sends the layers, the top one first, side by side; answers with their descriptors from the lowest up. */
  async #pushLayers(layers: readonly LayerToPush[], repository: Repository): Promise<readonly Descriptor[]> {
    for (const layer of layers.toReversed()) if (!this.#sent.has(layer.diffId)) this.#tell(layer, 'Preparing');
    const failing = new AbortController();
    const signal = AbortSignal.any([this.#signal, failing.signal]);
    const all = layers.toReversed().map((layer) => {
      const sending = this.#sent.get(layer.diffId) ?? this.#pushLayer(layer, repository, signal);
      this.#sent.set(layer.diffId, sending);
      sending.catch((error: unknown) => failing.abort(error));
      return sending;
    });
    await Promise.allSettled(all);
    this.#signal.throwIfAborted();
    if (failing.signal.aborted) throw failing.signal.reason;
    return (await Promise.all(all)).toReversed();
  }

  async #pushLayer(layer: LayerToPush, repository: Repository, signal: AbortSignal): Promise<Descriptor> {
    if (this.#parts.slots.full) this.#tell(layer, 'Waiting');
    const giveBack = await this.#parts.slots.take(signal);
    try {
      const blob = (await this.#reuse(layer, repository, signal)) ?? (await this.#send(layer, repository, signal));
      const repositoryName = canonicalName(this.#request.reference);
      await this.#sink.rememberBlob({ ...blob, diffId: layer.diffId, repository: repositoryName });
      return blob;
    } finally {
      giveBack();
    }
  }

  /** The layer as the repository has it already or takes it over from another repository of the registry; else null. */
  async #reuse(layer: LayerToPush, repository: Repository, signal: AbortSignal): Promise<Descriptor | null> {
    const { reference } = this.#request;
    // A Docker manifest can only name gzip layers.
    const known = this.#sink.blobSources(layer.diffId).filter(({ mediaType }) => /[.+]gzip$/.test(mediaType));
    const digests = new Map(known.map((blob) => [blob.digest, blob]));
    for (const blob of [...digests.values()].slice(0, candidatesMax)) {
      const size = await repository.blobSize(blob.digest, signal);
      if (size === null) continue;
      this.#tell(layer, 'Layer already exists');
      return { mediaType: mediaTypes.layer, digest: blob.digest, size: blob.size };
    }
    for (const blob of known.filter((candidate) => mountable(candidate, reference)).slice(0, candidatesMax)) {
      const from = blob.repository.slice(reference.domain.length + 1);
      if (!(await this.#mount(repository, blob.digest, from, signal))) continue;
      this.#tell(layer, `Mounted from ${from}`);
      return { mediaType: mediaTypes.layer, digest: blob.digest, size: blob.size };
    }
    return null;
  }

  /** A registry that refuses (no right to the other repository, say) gets the layer sent. */
  async #mount(repository: Repository, digest: Digest, from: string, signal: AbortSignal): Promise<boolean> {
    return await repository.mount(digest, from, signal).catch((error: unknown) => {
      if (error instanceof RegistryError || (error instanceof EngineError && error.kind === 'unauthorized'))
        return false;
      throw error;
    });
  }

  async #send(layer: LayerToPush, repository: Repository, signal: AbortSignal): Promise<Descriptor> {
    for (let attempt = 1; ; attempt++) {
      try {
        const sent = await this.#sendOnce(layer, repository, signal);
        this.#tell(layer, 'Pushed');
        return sent;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof UnreachableError) || attempt === attemptsMax) throw error;
        await sleep(retryDelayMs(attempt, this.#parts.registries.backOffMs) ?? 0, signal);
      }
    }
  }

  async #sendOnce(layer: LayerToPush, repository: Repository, signal: AbortSignal): Promise<Descriptor> {
    const total = this.#sink.layers.get(layer.chainId)?.size ?? 0;
    const digesting = this.#parts.hasher.chunks();
    const read = counting((bytes) => this.#progress.amount(layer.label, 'Pushing', bytes, Math.max(total, bytes)));
    let size = 0;
    const compressed = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        size += chunk.length;
        digesting.update(chunk);
        done(null, chunk);
      },
    });
    const compressing = compress(this.#sink.layers.tar(layer.chainId), read, compressed);
    compressing.catch((error: Error) => compressed.destroy(error));
    try {
      const digest = await repository.upload(compressed, () => digesting.finish(), signal);
      return { mediaType: mediaTypes.layer, digest, size };
    } catch (error) {
      compressed.destroy();
      // A layer that cannot be read breaks the connection too: that is the cause then.
      const cause: unknown = await compressing.catch((failure: unknown) => failure);
      throw cause instanceof EngineError ? cause : error;
    } finally {
      digesting.drop();
      compressed.destroy();
      await compressing.catch(() => undefined);
    }
  }

  #tell({ label }: LayerToPush, status: string): void {
    this.#progress.tell({ status, progressDetail: {}, id: label });
  }
}

/** True for a blob in another repository of the same registry. */
const mountable = ({ repository }: KnownBlob, reference: Reference): boolean =>
  repository.startsWith(`${reference.domain}/`) && repository !== canonicalName(reference);

/** Passes on what it gets and tells how much it was. */
function counting(tell: (bytes: number) => void): Transform {
  let bytes = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      tell(bytes);
      done(null, chunk);
    },
  });
}

/** Docker's manifest of schema 2, written as Docker writes it, so that equal images have equal digests. */
function manifestOf(config: Descriptor, layers: readonly Descriptor[]): Buffer {
  const entry = ({ mediaType, size, digest }: Descriptor) => ({ mediaType, size, digest });
  const document = {
    schemaVersion: 2,
    mediaType: mediaTypes.manifest,
    config: entry(config),
    layers: layers.map(entry),
  };
  return Buffer.from(JSON.stringify(document, null, 3));
}

let pigzPath: Promise<string | null> | undefined;

async function findPigz(): Promise<string | null> {
  for (const directory of (process.env.PATH ?? '').split(':')) {
    const path = join(directory, 'pigz');
    const found = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return path;
  }
  return null;
}

/** Compresses `tar`, through `read`, into `compressed`, and ends that only when all of it is right. A child does it where there is one. */
async function compress(tar: Readable, read: Transform, compressed: Transform): Promise<void> {
  pigzPath ??= findPigz();
  const path = await pigzPath;
  if (path === null) return await pipeline(tar, read, createGzip(), compressed);
  const child = spawn(path, ['--no-name', '--stdout'], { stdio: ['pipe', 'pipe', 'ignore'] });
  const exited = new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, killer) =>
      code === 0 ? resolve() : reject(internal(`pigz ended with ${killer ?? code}`)),
    );
  });
  try {
    await Promise.all([pipeline(tar, read, child.stdin), pipeline(child.stdout, compressed, { end: false }), exited]);
    compressed.end();
  } catch (error) {
    child.kill('SIGKILL');
    tar.destroy();
    await exited.catch(() => undefined);
    throw error;
  }
}
