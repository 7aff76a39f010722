/**
 * The image side of a transfer, for tests of pull and push alone: images in memory, layers as plain tar files in a
 * directory. What it checks (diff IDs, order, leases, no image before its layers) it checks as the real ones do.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { canonicalReference, type Reference } from '../../src/image/reference.ts';
import type { ImageSink, KnownBlob } from '../../src/image/transfer-types.ts';
import type { Image } from '../../src/image/types.ts';
import type { ApplySource, Layer, LayerStore } from '../../src/layer/types.ts';
import { invalid } from '../../src/lib/errors.ts';
import type { ChainId, DiffId, Digest, ImageId } from '../../src/lib/ids.ts';

const hex = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex');

export const chainIdOf = (parent: ChainId | null, diffId: DiffId): ChainId =>
  (parent === null ? diffId : `sha256:${hex(`${parent} ${diffId}`)}`) as ChainId;

export interface TarFiles {
  readonly store: LayerStore;
  readonly layers: Map<ChainId, Layer>;
  readonly held: Map<string, number>;
  /** How many layers were read to their end. */
  readonly applied: () => number;
}

/** The part of a layer store that transfers use. */
export function tarFiles(directory: string): TarFiles {
  const layers = new Map<ChainId, Layer>();
  const held = new Map<string, number>();
  const running = new Map<ChainId, Promise<Layer>>();
  let applied = 0;
  const pathOf = (chainId: ChainId): string => join(directory, chainId.slice(7));
  const store = {
    get: (chainId: ChainId) => layers.get(chainId),
    async apply(parent: ChainId | null, source: ApplySource): Promise<Layer> {
      assert.ok(
        parent === null || layers.has(parent) || running.has(parent),
        'the layer below must be there or coming',
      );
      assert.ok(source.diffId);
      const chainId = chainIdOf(parent, source.diffId);
      const known = layers.get(chainId);
      if (known) return known;
      const applying = running.get(chainId) ?? store.applyOnce(parent, source.diffId, chainId, source);
      running.set(chainId, applying);
      return await applying.finally(() => running.delete(chainId));
    },
    async applyOnce(parent: ChainId | null, diffId: DiffId, chainId: ChainId, source: ApplySource): Promise<Layer> {
      const { signal } = source;
      await mkdir(directory, { recursive: true });
      const work = `${pathOf(chainId)}.new`;
      const hash = createHash('sha256');
      let size = 0;
      const hashing = new Transform({
        transform(chunk: Buffer, _encoding, done) {
          hash.update(chunk);
          size += chunk.length;
          done(null, chunk);
        },
      });
      const input = 'path' in source.from ? createReadStream(source.from.path) : source.from.stream;
      let consumed = 0;
      input.on('data', (chunk: Buffer) => {
        consumed += chunk.length;
        source.progress?.(consumed);
      });
      try {
        await pipeline(input, createGunzip(), hashing, createWriteStream(work), { ...(signal && { signal }) });
        if (`sha256:${hash.digest('hex')}` !== diffId) throw invalid('layer verification failed');
      } catch (error) {
        await rm(work, { force: true });
        throw error;
      }
      if (parent !== null) await running.get(parent);
      await rename(work, pathOf(chainId));
      applied++;
      const layer = { chainId, parent, diffId, size };
      layers.set(chainId, layer);
      return layer;
    },
    tar: (chainId: ChainId) => createReadStream(pathOf(chainId)),
    lease(...chains: readonly ChainId[]) {
      for (const chain of chains) held.set(chain, (held.get(chain) ?? 0) + 1);
      return {
        [Symbol.dispose]: () => {
          for (const chain of chains) held.set(chain, (held.get(chain) ?? 0) - 1);
        },
      };
    },
  };
  return { store: store as unknown as LayerStore, layers, held, applied: () => applied };
}

export class MemorySink implements ImageSink {
  readonly layers: LayerStore;
  readonly temporary: string;
  readonly files: TarFiles;
  readonly images = new Map<ImageId, Image>();
  readonly configs = new Map<ImageId, Uint8Array>();
  readonly references = new Map<string, { reference: Reference; id: ImageId }>();
  readonly events: string[] = [];
  readonly blobs: KnownBlob[] = [];

  /** With tar files for layers, unless a layer store is given. */
  constructor(directory: string, layers?: LayerStore) {
    this.files = tarFiles(join(directory, 'layers'));
    this.layers = layers ?? this.files.store;
    this.temporary = join(directory, 'tmp');
  }

  get(id: ImageId): Image | undefined {
    return this.images.get(id);
  }

  async config(id: ImageId): Promise<Uint8Array> {
    const bytes = this.configs.get(id);
    assert.ok(bytes);
    return bytes;
  }

  lookUp(reference: Reference): ImageId | undefined {
    return this.references.get(canonicalReference(reference))?.id;
  }

  tagsIn(reference: Reference): readonly { reference: Reference; id: ImageId }[] {
    const all = [...this.references.values()].filter(
      (one) => one.reference.tag && one.reference.domain === reference.domain && one.reference.path === reference.path,
    );
    return all.sort((a, b) => ((a.reference.tag ?? '') < (b.reference.tag ?? '') ? -1 : 1));
  }

  async registerImage(
    config: Uint8Array,
    references: readonly Reference[],
    event?: { readonly action: string; readonly names: readonly string[] },
  ): Promise<Image> {
    const id = `sha256:${hex(config)}` as ImageId;
    const document = JSON.parse(Buffer.from(config).toString('utf8')) as {
      architecture: string;
      rootfs: { diff_ids: DiffId[] };
    };
    const chain: ChainId[] = [];
    for (const diffId of document.rootfs.diff_ids) chain.push(chainIdOf(chain.at(-1) ?? null, diffId));
    for (const chainId of chain) assert.ok(this.layers.get(chainId), 'every layer of an image must be there');
    const image = { id, architecture: document.architecture, diffIds: document.rootfs.diff_ids, chain };
    this.images.set(id, image as unknown as Image);
    this.configs.set(id, config);
    for (const reference of references) await this.setReference(reference, id);
    for (const name of event?.names ?? []) this.events.push(`${event?.action} ${name}`);
    return image as unknown as Image;
  }

  async setReference(reference: Reference, id: ImageId): Promise<void> {
    this.references.set(canonicalReference(reference), { reference, id });
  }

  async addDigestReference(reference: Reference & { readonly digest: Digest }, id: ImageId): Promise<void> {
    await this.setReference(reference, id);
  }

  async announce(action: string, _id: ImageId, name: string): Promise<void> {
    this.events.push(`${action} ${name}`);
  }

  blobSources(diffId: DiffId): readonly KnownBlob[] {
    return this.blobs.filter((blob) => blob.diffId === diffId).reverse();
  }

  diffIdOf(blob: Digest): DiffId | undefined {
    return this.blobs.find(({ digest }) => digest === blob)?.diffId;
  }

  async rememberBlob(blob: KnownBlob): Promise<void> {
    this.blobs.push(blob);
  }

  /** Makes an image of layers with the given contents, under a name. */
  async make(reference: Reference, contents: readonly Uint8Array[], architecture = 'amd64'): Promise<ImageId> {
    const { gzipSync } = await import('node:zlib');
    const diffIds: DiffId[] = [];
    let parent: ChainId | null = null;
    for (const content of contents) {
      const diffId = `sha256:${hex(content)}` as DiffId;
      diffIds.push(diffId);
      const stream = Readable.from([gzipSync(content)]);
      parent = (await this.layers.apply(parent, { from: { stream }, diffId })).chainId;
    }
    const config = { architecture, os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: diffIds } };
    const { id } = await this.registerImage(Buffer.from(JSON.stringify(config)), [reference]);
    return id;
  }
}
