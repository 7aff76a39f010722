/**
 * What is known of images, durably: images, names, and registries' blobs. Reading is from memory; every change is one
 * commit together with its events.
 *
 * Below `<data-root>/image/`: `config/<hex>`, the documents as they came; `tmp/`, downloads, which survive restarts;
 * `work/`, archives being read and files being written, emptied at start.
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { NewEvent } from '../event/types.ts';
import { internal } from '../lib/errors.ts';
import type { DiffId, Digest, ImageId } from '../lib/ids.ts';
import { isErrno } from '../platform/libc.ts';
import type { Collection, Store, Write } from '../store/types.ts';
import { canonicalName, canonicalReference, familiarReference, parseReference, type Reference } from './reference.ts';
import type { KnownBlob } from './transfer-types.ts';
import type { Image } from './types.ts';

/** Registries remembered for one layer. */
const blobsMax = 50;

interface ReferenceRecord {
  /** The canonical form, with tag or digest. */
  readonly id: string;
  readonly image: ImageId;
}

interface BlobsRecord {
  /** The diff ID. */
  readonly id: DiffId;
  /** The newest first. */
  readonly blobs: readonly KnownBlob[];
}

export class ImageRecords {
  readonly images: Collection<Image>;
  readonly temporary: string;
  readonly work: string;
  readonly #store: Store;
  readonly #configs: string;
  readonly #references: Collection<ReferenceRecord>;
  readonly #blobs: Collection<BlobsRecord>;
  /** The same references by image, read from their text once. Rebuilt when a commit changed them. */
  #byImage: Map<ImageId, Reference[]> | null = null;
  #diffIds: Map<Digest, DiffId> | null = null;

  constructor(dir: string, store: Store) {
    this.#store = store;
    this.images = store.collection<Image>({ kind: 'image', schema: 1 });
    this.#references = store.collection<ReferenceRecord>({ kind: 'reference', schema: 1 });
    this.#blobs = store.collection<BlobsRecord>({ kind: 'blob', schema: 1 });
    this.#configs = path.join(dir, 'config');
    this.temporary = path.join(dir, 'tmp');
    this.work = path.join(dir, 'work');
    fs.mkdirSync(this.#configs, { recursive: true, mode: 0o700 });
    fs.mkdirSync(this.temporary, { recursive: true, mode: 0o700 });
    fs.mkdirSync(this.work, { recursive: true, mode: 0o700 });
  }

  /** Removes what was left half done, and documents no image needs (none while an image record cannot be read). */
  async sweep(): Promise<void> {
    for (const name of fs.readdirSync(this.work)) {
      await fs.promises.rm(path.join(this.work, name), { recursive: true, force: true });
    }
    if (this.#store.damaged.some(({ kind }) => kind === 'image')) return;
    for (const name of fs.readdirSync(this.#configs)) {
      if (!this.images.get(`sha256:${name}`)) await fs.promises.rm(path.join(this.#configs, name), { force: true });
    }
  }

  async commit(writes: readonly Write[], events: readonly NewEvent[]): Promise<void> {
    await this.#store.commit(writes, events);
    this.#byImage = null;
    this.#diffIds = null;
  }

  /** References of an image: those with a tag before those with a digest, each in order of the text. */
  referencesOf(id: ImageId): readonly Reference[] {
    return this.#grouped().get(id) ?? [];
  }

  lookUp(reference: Reference): ImageId | undefined {
    return this.#references.get(keyOf(reference))?.image;
  }

  /** References with a tag in one repository. */
  tagsIn(repository: Reference): { readonly reference: Reference; readonly id: ImageId }[] {
    const name = canonicalName(repository);
    const all = [...this.#grouped()].flatMap(([id, references]) => references.map((reference) => ({ reference, id })));
    return all
      .filter(({ reference }) => reference.tag !== undefined && canonicalName(reference) === name)
      .sort((a, b) => ((a.reference.tag ?? '') < (b.reference.tag ?? '') ? -1 : 1));
  }

  point(reference: Reference, image: ImageId): Write {
    return this.#references.put({ id: keyOf(reference), image });
  }

  unpoint(reference: Reference): Write {
    return this.#references.remove(keyOf(reference));
  }

  blobsOf(diffId: DiffId): readonly KnownBlob[] {
    return this.#blobs.get(diffId)?.blobs ?? [];
  }

  diffIdOf(blob: Digest): DiffId | undefined {
    this.#diffIds ??= new Map(
      [...this.#blobs.values()].flatMap(({ id, blobs }) => blobs.map(({ digest }) => [digest, id])),
    );
    return this.#diffIds.get(blob);
  }

  remember(blob: KnownBlob): Write | null {
    const before = this.blobsOf(blob.diffId);
    const same = (other: KnownBlob) => other.repository === blob.repository && other.digest === blob.digest;
    if (before[0] !== undefined && same(before[0])) return null;
    const blobs = [blob, ...before.filter((other) => !same(other))].slice(0, blobsMax);
    return this.#blobs.put({ id: blob.diffId, blobs });
  }

  forget(diffId: DiffId): Write {
    return this.#blobs.remove(diffId);
  }

  async config(id: ImageId): Promise<Buffer> {
    try {
      return await fs.promises.readFile(this.#configFile(id));
    } catch (error) {
      if (isErrno(error, 'ENOENT')) throw internal(`the config document of image ${id} is missing`, { cause: error });
      throw error;
    }
  }

  /** On disk under its name when this resolves. */
  async keepConfig(id: ImageId, document: Uint8Array): Promise<void> {
    const file = this.#configFile(id);
    if (fs.existsSync(file)) return;
    const temporary = path.join(this.work, `config-${randomBytes(8).toString('hex')}`);
    await fs.promises.writeFile(temporary, document, { mode: 0o600, flush: true });
    await fs.promises.rename(temporary, file);
    const folder = await fs.promises.open(this.#configs);
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  async dropConfig(id: ImageId): Promise<void> {
    await fs.promises.rm(this.#configFile(id), { force: true });
  }

  #configFile(id: ImageId): string {
    return path.join(this.#configs, id.slice('sha256:'.length));
  }

  #grouped(): Map<ImageId, Reference[]> {
    if (this.#byImage !== null) return this.#byImage;
    const byImage = new Map<ImageId, Reference[]>();
    for (const { id, image } of this.#references.values()) {
      const list = byImage.get(image);
      if (list === undefined) byImage.set(image, [parseReference(id)]);
      else list.push(parseReference(id));
    }
    for (const list of byImage.values()) list.sort(byText);
    this.#byImage = byImage;
    return byImage;
  }
}

/** A digest says more than a tag: with both, the digest is the name. */
function keyOf(reference: Reference): string {
  return canonicalReference(reference.digest === undefined ? reference : { ...reference, tag: undefined });
}

function byText(a: Reference, b: Reference): number {
  if ((a.digest === undefined) !== (b.digest === undefined)) return a.digest === undefined ? -1 : 1;
  return familiarReference(a) < familiarReference(b) ? -1 : 1;
}
