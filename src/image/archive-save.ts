/**
 * Writes archives of images as `docker save` does: `manifest.json` for readers since Docker 1.10, and for older ones the
 * layers in directories with JSON documents of their own and `repositories`. The same images give the same bytes.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { encodeHeader, endOfArchive, paddingOf, type TarEntry } from '../layer/tar/format.ts';
import type { ChainId } from '../lib/ids.ts';
import type { ImageStore } from './images.ts';
import { createdSeconds } from './list.ts';
import { familiarName, parseReference } from './reference.ts';
import type { Image } from './types.ts';

interface Chosen {
  readonly image: Image;
  /** Familiar names with tag. */
  readonly tags: readonly string[];
}

/** One directory of the old form. */
interface LegacyLayer {
  readonly id: string;
  readonly chainId: ChainId;
  readonly json: object;
}

/** The layers are held until the stream is closed. */
export async function saveArchive(
  images: ImageStore,
  chosen: readonly Chosen[],
  signal: AbortSignal,
): Promise<Readable> {
  signal.throwIfAborted();
  const lease = images.layers.lease(...chosen.flatMap(({ image }) => image.chain));
  const stream = Readable.from(write(images, chosen), { objectMode: false, highWaterMark: 1024 * 1024 });
  const abort = () => stream.destroy(signal.reason instanceof Error ? signal.reason : undefined);
  signal.addEventListener('abort', abort, { once: true });
  return stream.on('close', () => {
    signal.removeEventListener('abort', abort);
    lease[Symbol.dispose]();
  });
}

async function* write(images: ImageStore, chosen: readonly Chosen[]): AsyncGenerator<Buffer, void> {
  const written = new Set<string>();
  const manifest: object[] = [];
  const repositories: Record<string, Record<string, string>> = {};
  for (const { image, tags } of chosen) {
    const config = Buffer.from(await images.config(image.id));
    const at = createdSeconds(image);
    const layers = legacyLayers(image, config);
    for (const layer of layers) {
      if (written.has(layer.id)) continue;
      written.add(layer.id);
      yield* directory(images, layer, at);
    }
    const hex = image.id.slice('sha256:'.length);
    yield* file(`${hex}.json`, config, at);
    const files = layers.map(({ id }) => `${id}/layer.tar`);
    const parent = chosen.some((other) => other.image.id === image.parent) ? { Parent: image.parent } : {};
    manifest.push({ Config: `${hex}.json`, RepoTags: tags.length === 0 ? null : tags, Layers: files, ...parent });
    const top = layers.at(-1);
    for (const name of top === undefined ? [] : tags) {
      const reference = parseReference(name);
      const repository = familiarName(reference);
      repositories[repository] = { ...repositories[repository], [reference.tag ?? 'latest']: top?.id ?? '' };
    }
  }
  if (Object.keys(repositories).length > 0) {
    yield* file('repositories', Buffer.from(`${JSON.stringify(repositories)}\n`), 0);
  }
  yield* file('manifest.json', Buffer.from(`${JSON.stringify(manifest)}\n`), 0);
  yield endOfArchive();
}

/** The ids of the old form are made from what they stand for, so that images that share layers share directories. */
function legacyLayers(image: Image, config: Buffer): LegacyLayer[] {
  const layers: LegacyLayer[] = [];
  for (const [at, chainId] of image.chain.entries()) {
    const parent = layers.at(-1)?.id;
    const isTop = at === image.chain.length - 1;
    const { config: run, created, author, comment, architecture, os } = image;
    const facts = isTop
      ? { ...(parent !== undefined && { parent }), created, author, comment, architecture, os, config: run }
      : { ...(parent !== undefined && { parent }), created: '1970-01-01T00:00:00Z', os };
    const id = createHash('sha256')
      .update(JSON.stringify(facts))
      .update(chainId)
      .update(isTop ? config : '')
      .digest('hex');
    layers.push({ id, chainId, json: { id, ...facts } });
  }
  return layers;
}

async function* directory(images: ImageStore, layer: LegacyLayer, at: number): AsyncGenerator<Buffer, void> {
  yield encodeHeader(entry({ name: `${layer.id}/`, type: 'directory', mode: 0o755 }, at));
  yield* file(`${layer.id}/VERSION`, Buffer.from('1.0'), at);
  yield* file(`${layer.id}/json`, Buffer.from(JSON.stringify(layer.json)), at);
  const size = images.layers.tarSize(layer.chainId);
  yield encodeHeader(entry({ name: `${layer.id}/layer.tar`, size }, at));
  for await (const chunk of images.layers.tar(layer.chainId)) yield chunk as Buffer;
  yield Buffer.alloc(paddingOf(size));
}

function* file(name: string, content: Buffer, at: number): Generator<Buffer, void> {
  yield encodeHeader(entry({ name, size: content.length }, at));
  yield content;
  yield Buffer.alloc(paddingOf(content.length));
}

const entry = (fields: Partial<TarEntry>, seconds: number): TarEntry => ({
  type: 'file',
  name: '',
  linkName: '',
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 0,
  modified: { seconds: Math.max(seconds, 0), nanoseconds: 0 },
  major: 0,
  minor: 0,
  attributes: new Map(),
  ...fields,
});
