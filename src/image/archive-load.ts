/**
 * Reads archives of images: `docker save`'s (`manifest.json`; before Docker 1.10 `repositories` alone) and OCI layouts.
 * The archive is unpacked into a directory of its own first; every path in it is resolved below that directory.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { invalid } from '../lib/errors.ts';
import { type ChainId, type DiffId, type ImageId, shortId } from '../lib/ids.ts';
import { openBeneath } from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';
import { choosePlatform, hostPlatform, parseManifest } from '../registry/manifest.ts';
import { encodeImageConfig, parseImageConfig, runConfigOf } from './config.ts';
import type { ImageStore } from './images.ts';
import type { ProgressStream } from './progress-stream.ts';
import { familiarReference, parseReference, type Reference } from './reference.ts';
import type { HistoryEntry } from './types.ts';

/** A manifest, an index or a config; all are held in memory. */
const documentSizeMax = 8 * 1024 * 1024;

/** One image of an archive. */
interface Found {
  readonly config: Buffer;
  /** Paths of the layers, from the lowest up; may be compressed. */
  readonly layers: readonly string[];
  readonly references: readonly Reference[];
  readonly parent: ImageId | null;
}

export async function loadArchive(
  images: ImageStore,
  options: { readonly archive: Readable; readonly quiet: boolean; readonly work: string },
  progress: ProgressStream,
  signal: AbortSignal,
): Promise<void> {
  const dir = await fs.promises.mkdtemp(path.join(options.work, 'load-'));
  try {
    await images.layers.unpackInto(dir, { from: { stream: options.archive }, signal });
    using folder = new Folder(dir);
    const found = await imagesIn(folder);
    if (found.length === 0) throw invalid('invalid archive: it holds no images');
    for (const image of found) await loadImage(images, folder, image, options.quiet, progress, signal);
  } finally {
    await fs.promises.rm(dir, { recursive: true, force: true });
  }
}

async function imagesIn(folder: Folder): Promise<readonly Found[]> {
  const manifest = folder.document('manifest.json');
  if (manifest !== null) return dockerImages(folder, manifest);
  const index = folder.document('index.json');
  if (index !== null) return ociImages(folder, index);
  const repositories = folder.document('repositories');
  if (repositories !== null) return legacyImages(folder, repositories);
  throw invalid('invalid archive: neither manifest.json nor index.json is in it');
}

async function loadImage(
  images: ImageStore,
  folder: Folder,
  { config, layers, references, parent }: Found,
  quiet: boolean,
  progress: ProgressStream,
  signal: AbortSignal,
): Promise<void> {
  const { id, diffIds, chain } = parseImageConfig(config);
  if (diffIds.length !== layers.length) {
    throw invalid(`invalid manifest, layers length mismatch: expected ${diffIds.length}, got ${layers.length}`);
  }
  using _ = images.layers.lease(...chain);
  const applied = diffIds.map((diffId, at) =>
    loadLayer(
      images,
      folder,
      { diffId, parent: chain[at - 1] ?? null, file: layers[at] ?? '' },
      quiet,
      progress,
      signal,
    ),
  );
  // All must have ended before the archive goes away, also when one has failed.
  const failed = (await Promise.allSettled(applied)).find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;

  for (const reference of references) {
    const old = images.lookUp(reference);
    if (old === undefined || old === id) continue;
    const name = familiarReference(reference);
    progress.tell({
      stream: `The image ${name} already exists, renaming the old one with ID ${old} to empty string\n`,
    });
  }
  const image = await images.keep(config, { references, events: [{ action: 'load' }], parent });
  for (const reference of references) progress.tell({ stream: `Loaded image: ${familiarReference(reference)}\n` });
  if (references.length === 0) progress.tell({ stream: `Loaded image ID: ${image.id}\n` });
}

async function loadLayer(
  images: ImageStore,
  folder: Folder,
  layer: { readonly diffId: DiffId; readonly parent: ChainId | null; readonly file: string },
  quiet: boolean,
  progress: ProgressStream,
  signal: AbortSignal,
): Promise<void> {
  const { diffId, parent, file } = layer;
  using opened = folder.open(file);
  if (opened === null) throw invalid(`invalid archive: ${file} is missing`);
  const { size } = fs.fstatSync(opened.fd);
  await images.layers.apply(parent, {
    from: { path: `/proc/self/fd/${opened.fd}` },
    diffId,
    signal,
    ...(!quiet && { progress: (bytes) => progress.amount(shortId(diffId), 'Loading layer', bytes, size) }),
  });
}

// The forms of archives -------------------------------------------------------------------------------------------------

function dockerImages(folder: Folder, manifest: unknown): Found[] {
  if (!Array.isArray(manifest)) throw invalid('invalid archive: manifest.json is no list');
  return manifest.map((item: unknown) => {
    const { Config, Layers, RepoTags, Parent } = asObject(item, 'manifest.json');
    if (typeof Config !== 'string' || !isTexts(Layers)) throw invalid('invalid archive: manifest.json');
    return {
      config: folder.bytes(Config),
      layers: Layers,
      references: (isTexts(RepoTags) ? RepoTags : []).map(parseReference),
      parent: typeof Parent === 'string' ? (Parent as ImageId) : null,
    };
  });
}

const blobPath = (digest: unknown): string => {
  const [, algorithm, hex] = /^([a-z0-9]+):([a-f0-9]+)$/.exec(String(digest)) ?? [];
  if (algorithm === undefined) throw invalid(`invalid archive: ${String(digest)} is no digest`);
  return `blobs/${algorithm}/${hex}`;
};

function ociImages(folder: Folder, index: unknown): Found[] {
  const { manifests } = asObject(index, 'index.json');
  if (!Array.isArray(manifests)) throw invalid('invalid archive: index.json');
  // The same image may be listed once for each of its names.
  const byDigest = new Map<string, { config: Buffer; layers: string[]; references: Reference[]; parent: null }>();
  for (const item of manifests) {
    const { digest, mediaType, annotations } = asObject(item, 'index.json');
    const key = String(digest);
    const image = byDigest.get(key) ?? ociImage(folder, key, typeof mediaType === 'string' ? mediaType : '');
    byDigest.set(key, image);
    image.references.push(...namesIn(annotations));
  }
  return [...byDigest.values()];
}

function ociImage(folder: Folder, digest: string, mediaType: string) {
  let manifest = parseManifest(folder.bytes(blobPath(digest)), mediaType);
  if (manifest.is === 'index') {
    const chosen = choosePlatform(manifest.manifests, hostPlatform(process.arch));
    manifest = parseManifest(folder.bytes(blobPath(chosen.digest)), chosen.mediaType);
  }
  if (manifest.is !== 'image') throw invalid('invalid archive: an index in an index');
  return {
    config: folder.bytes(blobPath(manifest.config.digest)),
    layers: manifest.layers.map((layer) => blobPath(layer.digest)),
    references: [] as Reference[],
    parent: null,
  };
}

/** A full name, as containerd and podman write it; a tag alone names no repository. */
function namesIn(annotations: unknown): Reference[] {
  if (typeof annotations !== 'object' || annotations === null) return [];
  const said = annotations as Readonly<Record<string, unknown>>;
  const name = said['io.containerd.image.name'] ?? said['org.opencontainers.image.ref.name'];
  return typeof name === 'string' && /[/:]/.test(name) ? [parseReference(name)] : [];
}

interface LegacyLayer {
  readonly id: string;
  readonly json: Readonly<Record<string, unknown>>;
}

/** Archives from before content addresses: each layer has a random id and a JSON document that names its parent. */
function legacyImages(folder: Folder, repositories: unknown): Promise<Found[]> {
  const byTop = new Map<string, Reference[]>();
  for (const [repository, tags] of Object.entries(asObject(repositories, 'repositories'))) {
    for (const [tag, id] of Object.entries(asObject(tags, 'repositories'))) {
      if (typeof id !== 'string' || !/^[a-f0-9]{64}$/.test(id)) throw invalid('invalid archive: repositories');
      byTop.set(id, [...(byTop.get(id) ?? []), parseReference(`${repository}:${tag}`)]);
    }
  }
  return Promise.all([...byTop].map(([top, references]) => legacyImage(folder, top, references)));
}

async function legacyImage(folder: Folder, top: string, references: readonly Reference[]): Promise<Found> {
  const layers: LegacyLayer[] = [];
  for (let id = top; id !== ''; ) {
    if (layers.length > 125) throw invalid('invalid archive: too many layers');
    const json = asObject(folder.document(`${id}/json`), `${id}/json`);
    layers.unshift({ id, json });
    id = typeof json.parent === 'string' ? json.parent : '';
  }
  const json = layers.at(-1)?.json ?? {};
  const text = (key: string) => (typeof json[key] === 'string' ? json[key] : '');
  const files = layers.map(({ id }) => `${id}/layer.tar`);
  return {
    config: encodeImageConfig({
      config: runConfigOf(asObject(json.config ?? {}, 'config')),
      created: text('created'),
      author: text('author'),
      comment: text('comment'),
      architecture: text('architecture'),
      os: text('os'),
      history: layers.map(({ json: one }) => legacyHistory(one)),
      diffIds: await Promise.all(files.map((file) => folder.digest(file))),
    }),
    layers: files,
    references,
    parent: null,
  };
}

function legacyHistory(json: Readonly<Record<string, unknown>>): HistoryEntry {
  const { Cmd } = asObject(json.container_config ?? {}, 'container_config');
  return {
    ...(typeof json.created === 'string' && { created: json.created }),
    ...(isTexts(Cmd) && { created_by: Cmd.join(' ') }),
  };
}

// Files of an archive ---------------------------------------------------------------------------------------------------

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((item) => typeof item === 'string');

function asObject(value: unknown, where: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(`invalid archive: ${where}`);
  return value as Readonly<Record<string, unknown>>;
}

interface OpenFile extends Disposable {
  readonly fd: number;
}

/** An unpacked archive; no path leads out of it. */
class Folder implements Disposable {
  readonly #fd: number;

  constructor(dir: string) {
    this.#fd = fs.openSync(dir, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  }

  /** A regular file; null when there is none. */
  open(file: string): OpenFile | null {
    let fd: number;
    try {
      fd = openBeneath(this.#fd, Buffer.from(file).toString('latin1'), fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO')) return null;
      throw error;
    }
    if (fs.fstatSync(fd).isFile()) return { fd, [Symbol.dispose]: () => fs.closeSync(fd) };
    fs.closeSync(fd);
    throw invalid(`invalid archive: ${file} is no file`);
  }

  bytes(file: string): Buffer {
    using opened = this.open(file);
    if (opened === null) throw invalid(`invalid archive: ${file} is missing`);
    if (fs.fstatSync(opened.fd).size > documentSizeMax) throw invalid(`invalid archive: ${file} is too large`);
    return fs.readFileSync(opened.fd);
  }

  /** A JSON document; null when there is none. */
  document(file: string): unknown {
    using opened = this.open(file);
    if (opened === null) return null;
    try {
      return JSON.parse(this.bytes(file).toString()) as unknown;
    } catch (error) {
      if (error instanceof SyntaxError) throw invalid(`invalid archive: ${file}: ${error.message}`);
      throw error;
    }
  }

  async digest(file: string): Promise<DiffId> {
    using opened = this.open(file);
    if (opened === null) throw invalid(`invalid archive: ${file} is missing`);
    const hash = createHash('sha256');
    const stream = fs.createReadStream('', { fd: opened.fd, autoClose: false, start: 0, highWaterMark: 256 * 1024 });
    for await (const chunk of stream) hash.update(chunk as Buffer);
    return `sha256:${hash.digest('hex')}` as DiffId;
  }

  [Symbol.dispose](): void {
    fs.closeSync(this.#fd);
  }
}
