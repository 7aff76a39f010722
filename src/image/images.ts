/** The image store, as `types.ts` and `transfer-types.ts` promise it. */
import type { Readable } from 'node:stream';
import type { NewEvent } from '../event/types.ts';
import type { ArchiveLayers } from '../layer/types.ts';
import { forbidden, internal, notFound } from '../lib/errors.ts';
import type { ChainId, DiffId, Digest, ImageId } from '../lib/ids.ts';
import { Lanes } from '../lib/lanes.ts';
import type { Log } from '../lib/log.ts';
import type { Store, Write } from '../store/types.ts';
import { loadArchive } from './archive-load.ts';
import { saveArchive } from './archive-save.ts';
import { type CommitFacts, encodeCommit, nameToTag } from './commit.ts';
import { configJson, imageIdOf, parseImageConfig, runConfigOf } from './config.ts';
import { importTree } from './import.ts';
import { createdSeconds, imagesToPrune, type ListView, listImages } from './list.ts';
import { whileReading } from './progress-stream.ts';
import { ImageRecords } from './records.ts';
import {
  type DigestReference,
  familiarName,
  familiarReference,
  parseNameAndTag,
  parseReference,
  type Reference,
  withDefaultTag,
} from './reference.ts';
import { type ImageUser, planRemoval, type RemovalStep } from './remove.ts';
import type { ImageSink, KnownBlob, PullFn, PushFn } from './transfer-types.ts';
import type {
  Image,
  ImageDeleted,
  ImageHistoryRow,
  ImageInspect,
  ImageListQuery,
  ImageSummary,
  Images,
  Progress,
} from './types.ts';

/** Changes of images and names come one after the other: each is a few milliseconds. */
const lane = 'images';

export interface ImageParts {
  /** `<data-root>/image`. */
  readonly dir: string;
  readonly store: Store;
  readonly layers: ArchiveLayers;
  /** Containers made from an image, in any state. */
  readonly containersUsing: (id: ImageId) => readonly ImageUser[];
  readonly pull: PullFn;
  readonly push: PushFn;
  /** The engine's, as images made here tell it. */
  readonly version: string;
  readonly log: Log;
}

/** Opens the images below `dir`. */
export async function createImages(parts: ImageParts): Promise<ImageStore> {
  const records = new ImageRecords(parts.dir, parts.store);
  await records.sweep();
  return new ImageStore(parts, records);
}

export class ImageStore implements Images, ImageSink {
  readonly layers: ArchiveLayers;
  readonly version: string;
  readonly #parts: ImageParts;
  readonly #records: ImageRecords;
  readonly #lanes: Lanes;

  constructor(parts: ImageParts, records: ImageRecords) {
    this.#parts = parts;
    this.#records = records;
    this.layers = parts.layers;
    this.version = parts.version;
    this.#lanes = new Lanes(parts.log);
  }

  // What containers need ----------------------------------------------------------------------------------------------

  resolve(reference: string): Image {
    const image = this.#find(reference);
    if (image === undefined) throw notFound(`No such image: ${withTagForMessage(reference)}`);
    return image;
  }

  get(id: ImageId): Image | undefined {
    return this.#records.images.get(id);
  }

  tagsOf(id: ImageId): readonly string[] {
    return this.#namesOf(id).tags;
  }

  // Looking -----------------------------------------------------------------------------------------------------------

  async list(query: ImageListQuery): Promise<readonly ImageSummary[]> {
    return listImages(this.#view(), query.filters, query.all);
  }

  async inspect(reference: string): Promise<ImageInspect> {
    const image = this.#existing(reference);
    const { tags, digests } = this.#namesOf(image.id);
    return {
      Id: image.id,
      RepoTags: tags,
      RepoDigests: digests,
      Parent: image.parent ?? '',
      Comment: image.comment || (image.history.at(-1)?.comment ?? ''),
      Created: image.created,
      Container: image.container,
      // Always an object on the wire: typed clients read its keys.
      ContainerConfig: configJson(image.containerConfig ?? runConfigOf({})),
      DockerVersion: image.dockerVersion,
      Author: image.author,
      Config: configJson(image.config),
      Architecture: image.architecture,
      Os: image.os,
      ...(image.osVersion !== undefined && { OsVersion: image.osVersion }),
      Size: image.size,
      VirtualSize: image.size,
      GraphDriver: { Name: 'overlay2', Data: image.chainId === null ? {} : this.layers.describe(image.chainId) },
      RootFS: { Type: 'layers', Layers: image.diffIds },
    };
  }

  history(reference: string): readonly ImageHistoryRow[] {
    const image = this.#existing(reference);
    const rows: ImageHistoryRow[] = [];
    let used = 0;
    for (const entry of image.history) {
      const chainId = entry.empty_layer === true ? undefined : image.chain[used++];
      rows.unshift({
        Id: '<missing>',
        Created: Math.floor((Date.parse(entry.created ?? '') || 0) / 1000),
        CreatedBy: entry.created_by ?? '',
        Tags: null,
        Size: chainId === undefined ? 0 : (this.layers.get(chainId)?.size ?? 0),
        Comment: entry.comment ?? '',
      });
    }
    if (rows.length === 0) rows.push({ ...unknownRow, Created: createdSeconds(image), Size: image.size });
    // The top row is this image; below it are those it was made from here, as far as they are known.
    let known: Image | undefined = image;
    return rows.map((row) => {
      if (known === undefined) return row;
      const { id, parent }: Image = known;
      known = parent === null ? undefined : this.get(parent);
      const tags = this.tagsOf(id);
      return { ...row, Id: id, Tags: tags.length === 0 ? null : tags };
    });
  }

  // Changing ----------------------------------------------------------------------------------------------------------

  async tag(reference: string, repo: string, tag: string): Promise<void> {
    const image = this.#existing(reference);
    const name = nameToTag(repo, tag);
    await this.#lanes.enter(lane, async () => {
      this.#stillThere(image.id);
      await this.#records.commit(
        [this.#records.point(name, image.id)],
        [imageEvent('tag', image, familiarReference(name))],
      );
    });
  }

  remove(
    reference: string,
    options: { readonly force: boolean; readonly noprune: boolean },
  ): Promise<readonly ImageDeleted[]> {
    return this.#lanes.enter(lane, async () => {
      const image = this.#existing(reference);
      return this.#carryOut(planRemoval(this.#removalView(), image, reference, options));
    });
  }

  prune(
    filters: ReadonlyMap<string, readonly string[]>,
  ): Promise<{ readonly deleted: readonly ImageDeleted[]; readonly spaceReclaimed: number }> {
    return this.#lanes.enter(lane, async () => {
      const before = new Map([...this.layers.all()].map(({ chainId, size }) => [chainId as string, size]));
      const deleted: ImageDeleted[] = [];
      for (const { image, names } of imagesToPrune(this.#view(), filters)) {
        const requests = names.length === 0 ? [image.id] : names.map(familiarReference);
        for (const request of requests) {
          const now = this.get(image.id);
          if (now === undefined) break;
          deleted.push(...(await this.#removeIfFree(now, request)));
        }
      }
      let spaceReclaimed = await this.#sweepLayers();
      for (const { Deleted = '' } of deleted) spaceReclaimed += before.get(Deleted) ?? 0;
      return { deleted, spaceReclaimed };
    });
  }

  // Moving ------------------------------------------------------------------------------------------------------------

  pull(request: Parameters<Images['pull']>[0], signal: AbortSignal): AsyncIterable<Progress> {
    const reference = withDefaultTag(parseNameAndTag(request.name, request.tag));
    if (familiarName(reference) === 'scratch') throw forbidden("'scratch' is a reserved name");
    const { credentials, platform } = request;
    return this.#parts.pull({ reference, credentials, platform }, this, signal);
  }

  push(request: Parameters<Images['push']>[0], signal: AbortSignal): AsyncIterable<Progress> {
    const reference = parseNameAndTag(request.name, request.tag);
    return this.#parts.push({ reference, credentials: request.credentials }, this, signal);
  }

  import(request: Parameters<Images['import']>[0], signal: AbortSignal): AsyncIterable<Progress> {
    return whileReading((progress, ending) => importTree(this, request, progress, ending), signal);
  }

  load(archive: Readable, quiet: boolean, signal: AbortSignal): AsyncIterable<Progress> {
    const { work } = this.#records;
    return whileReading((progress, ending) => loadArchive(this, { archive, quiet, work }, progress, ending), signal);
  }

  async save(references: readonly string[], signal: AbortSignal): Promise<Readable> {
    const images = new Map<ImageId, Set<string>>();
    const want = (id: ImageId) => images.get(id) ?? images.set(id, new Set()).get(id);
    for (const text of references) for (const { id, tag } of this.#toSave(text)) want(id)?.add(tag);
    const chosen = [...images].map(([id, tags]) => {
      const image = this.get(id);
      if (image === undefined) throw notFound(`No such image: ${id}`);
      return { image, tags: [...tags].filter((tag) => tag !== '').sort() };
    });
    const events = chosen.map(({ image }) => imageEvent('save', image, image.id));
    const archive = await saveArchive(this, chosen, signal);
    try {
      await this.#records.commit([], events);
    } catch (error) {
      archive.destroy();
      throw error;
    }
    return archive;
  }

  // What a commit needs -----------------------------------------------------------------------------------------------

  async commit(facts: CommitFacts): Promise<Image> {
    const parent = this.get(facts.parent);
    if (parent === undefined) throw notFound(`No such image: ${facts.parent}`);
    const { reference, announce } = facts;
    return this.keep(encodeCommit(parent, facts, this.version), {
      references: reference === null ? [] : [reference],
      events: reference === null ? [] : [{ action: 'tag', name: familiarReference(reference) }],
      parent: parent.id,
      announce,
    });
  }

  // What transfers need (ImageSink) -----------------------------------------------------------------------------------

  get temporary(): string {
    return this.#records.temporary;
  }

  config(id: ImageId): Promise<Uint8Array> {
    return this.#records.config(id);
  }

  lookUp(reference: Reference): ImageId | undefined {
    return this.#records.lookUp(withDefaultTag(reference));
  }

  tagsIn(reference: Reference): readonly { readonly reference: Reference; readonly id: ImageId }[] {
    return this.#records.tagsIn(reference);
  }

  registerImage(
    config: Uint8Array,
    references: readonly Reference[],
    event?: { readonly action: string; readonly names: readonly string[] },
  ): Promise<Image> {
    const events = event?.names.map((name) => ({ action: event.action, name })) ?? [];
    return this.keep(config, { references, events, parent: null });
  }

  /** `registerImage` in full: an event without a name is about the id; `parent` is the image it was made from here. */
  keep(
    config: Uint8Array,
    facts: {
      readonly references: readonly Reference[];
      readonly events: readonly { readonly action: string; readonly name?: string }[];
      readonly parent: ImageId | null;
      /** Events of others that belong to the same commit. */
      readonly announce?: (id: ImageId) => readonly NewEvent[];
    },
  ): Promise<Image> {
    return this.#lanes.enter(lane, async () => {
      const known = this.get(imageIdOf(config));
      const image = known ?? this.#imageOf(config, facts.parent);
      await this.#records.keepConfig(image.id, config);
      const writes = facts.references.map((reference) => this.#records.point(withDefaultTag(reference), image.id));
      if (known === undefined) writes.push(this.#records.images.put(image));
      const events = facts.events.map(({ action, name }) => imageEvent(action, image, name ?? image.id));
      await this.#records.commit(writes, [...events, ...(facts.announce?.(image.id) ?? [])]);
      return image;
    });
  }

  async setReference(reference: Reference, id: ImageId): Promise<void> {
    await this.#lanes.enter(lane, async () => {
      this.#stillThere(id);
      await this.#records.commit([this.#records.point(withDefaultTag(reference), id)], []);
    });
  }

  addDigestReference(reference: DigestReference, id: ImageId): Promise<void> {
    return this.setReference(reference, id);
  }

  async announce(action: string, id: ImageId, name: string): Promise<void> {
    const image = this.get(id);
    if (image !== undefined) await this.#records.commit([], [imageEvent(action, image, name)]);
  }

  blobSources(diffId: DiffId): readonly KnownBlob[] {
    return this.#records.blobsOf(diffId);
  }

  diffIdOf(blob: Digest): DiffId | undefined {
    return this.#records.diffIdOf(blob);
  }

  async rememberBlob(blob: KnownBlob): Promise<void> {
    await this.#lanes.enter(lane, async () => {
      const write = this.#records.remember(blob);
      if (write !== null) await this.#records.commit([write], []);
    });
  }

  // -------------------------------------------------------------------------------------------------------------------

  #find(text: string): Image | undefined {
    if (/^(sha256:)?[a-f0-9]{64}$/.test(text)) return this.get(`sha256:${text.slice(-64)}` as ImageId);
    const id = this.#byName(text);
    if (id !== undefined) return this.get(id);
    if (!/^(sha256:)?[a-f0-9]+$/.test(text)) return undefined;
    const prefix = text.startsWith('sha256:') ? text : `sha256:${text}`;
    let only: Image | undefined;
    for (const image of this.#records.images.values()) {
      if (!image.id.startsWith(prefix)) continue;
      if (only !== undefined) return undefined; // ambiguous
      only = image;
    }
    return only;
  }

  #byName(text: string): ImageId | undefined {
    const reference = tryParse(text);
    return reference === undefined ? undefined : this.lookUp(reference);
  }

  #existing(reference: string): Image {
    const image = this.#find(reference);
    if (image === undefined) throw notFound(`No such image: ${reference}`);
    return image;
  }

  /** An image found before waiting for the lane may have been removed meanwhile. */
  #stillThere(id: ImageId): void {
    if (this.get(id) === undefined) throw notFound(`No such image: ${id}`);
  }

  #namesOf(id: ImageId): { readonly tags: readonly string[]; readonly digests: readonly string[] } {
    const references = this.#records.referencesOf(id);
    return {
      tags: references.filter(({ digest }) => digest === undefined).map(familiarReference),
      digests: references.filter(({ digest }) => digest !== undefined).map(familiarReference),
    };
  }

  #imageOf(config: Uint8Array, parent: ImageId | null): Image {
    const parsed = parseImageConfig(config);
    let size = 0;
    for (const chainId of parsed.chain) {
      const layer = this.layers.get(chainId);
      if (layer === undefined) throw internal(`layer ${chainId} of image ${parsed.id} does not exist`);
      size += layer.size;
    }
    return { ...parsed, parent: parent !== null && this.get(parent) !== undefined ? parent : null, size };
  }

  /** What one argument of a save stands for: an id is saved without names, a repository with all of its tags. */
  #toSave(text: string): { readonly id: ImageId; readonly tag: string }[] {
    const reference = tryParse(text);
    if (reference !== undefined && reference.tag === undefined && reference.digest === undefined) {
      const tags = this.#records.tagsIn(reference);
      if (tags.length > 0) return tags.map((named) => ({ id: named.id, tag: familiarReference(named.reference) }));
    }
    const image = this.#existing(text);
    const named = reference !== undefined && this.lookUp(reference) === image.id && reference.digest === undefined;
    return [{ id: image.id, tag: named ? familiarReference(withDefaultTag(reference)) : '' }];
  }

  #view(): ListView {
    const parents = new Set<ImageId>();
    for (const { parent } of this.#records.images.values()) if (parent !== null) parents.add(parent);
    return {
      images: [...this.#records.images.values()],
      referencesOf: (id) => this.#records.referencesOf(id),
      hasChildren: (id) => parents.has(id),
      find: (reference) => this.#existing(reference),
    };
  }

  #removalView() {
    return {
      get: (id: ImageId) => this.get(id),
      referencesOf: (id: ImageId) => this.#records.referencesOf(id),
      childrenOf: (id: ImageId) =>
        [...this.#records.images.values()].filter(({ parent }) => parent === id).map((image) => image.id),
      usersOf: (id: ImageId) => this.#parts.containersUsing(id),
    };
  }

  /** A prune passes over what is in use. */
  async #removeIfFree(image: Image, request: string): Promise<ImageDeleted[]> {
    let steps: RemovalStep[];
    try {
      steps = planRemoval(this.#removalView(), image, request, { force: false, noprune: false });
    } catch {
      return [];
    }
    return this.#carryOut(steps);
  }

  async #carryOut(steps: readonly RemovalStep[]): Promise<ImageDeleted[]> {
    const writes: Write[] = [];
    const events: NewEvent[] = [];
    for (const step of steps) {
      if (step.do === 'delete') writes.push(this.#records.images.remove(step.image.id));
      else writes.push(this.#records.unpoint(step.reference));
      if (step.do === 'delete') events.push(imageEvent('delete', step.image, step.image.id));
      else if (step.announce) events.push(imageEvent('untag', step.image, step.image.id));
    }
    await this.#records.commit(writes, events);

    const rows: ImageDeleted[] = [];
    const goneBlobs: Write[] = [];
    const waiting = steps.flatMap((step) => (step.do === 'delete' ? [step.image] : []));
    for (const step of steps) {
      if (step.do === 'untag') {
        rows.push({ Untagged: familiarReference(step.reference) });
        continue;
      }
      waiting.shift();
      await this.#records.dropConfig(step.image.id);
      const freed = await this.#freeLayers(step.image, waiting);
      rows.push({ Deleted: step.image.id }, ...freed.map(({ chainId }) => ({ Deleted: chainId })));
      for (const { diffId } of freed) if (!this.#usesDiff(diffId)) goneBlobs.push(this.#records.forget(diffId));
    }
    if (goneBlobs.length > 0) await this.#records.commit(goneBlobs, []);
    return rows;
  }

  /** Removes the layers of a removed image from the top down to the first that something else needs. */
  async #freeLayers(image: Image, waiting: readonly Image[]): Promise<{ chainId: ChainId; diffId: DiffId }[]> {
    const tops = new Set<ChainId | null>(waiting.map(({ chainId }) => chainId));
    for (const { chainId } of this.#records.images.values()) tops.add(chainId);
    const freed: { chainId: ChainId; diffId: DiffId }[] = [];
    for (const chainId of image.chain.toReversed()) {
      if (tops.has(chainId)) break;
      const layer = this.layers.get(chainId);
      if (layer === undefined) continue;
      await this.layers.remove(chainId);
      if (this.layers.get(chainId) !== undefined) break;
      freed.push({ chainId, diffId: layer.diffId });
    }
    return freed;
  }

  #usesDiff(diffId: DiffId): boolean {
    for (const { diffIds } of this.#records.images.values()) if (diffIds.includes(diffId)) return true;
    return false;
  }

  /** Layers that came for an image which never did; a lease keeps those of pulls under way. */
  async #sweepLayers(): Promise<number> {
    const needed = new Set<ChainId>();
    for (const { chain } of this.#records.images.values()) for (const chainId of chain) needed.add(chainId);
    let freed = 0;
    for (let removed = true; removed; ) {
      removed = false;
      for (const { chainId } of [...this.layers.all()]) {
        if (needed.has(chainId)) continue;
        freed += await this.layers.remove(chainId);
        removed ||= this.layers.get(chainId) === undefined;
      }
    }
    return freed;
  }
}

const unknownRow: ImageHistoryRow = { Id: '<missing>', Created: 0, CreatedBy: '', Tags: null, Size: 0, Comment: '' };

function tryParse(text: string): Reference | undefined {
  try {
    return parseReference(text);
  } catch {
    return undefined;
  }
}

/** Clients pull the name this text ends in. */
function withTagForMessage(text: string): string {
  const reference = tryParse(text);
  return reference === undefined ? text : familiarReference(withDefaultTag(reference));
}

/** Transfers are events of a name, everything else of the image. */
function imageEvent(action: string, image: Image, name: string): NewEvent {
  const transfer = action === 'pull' || action === 'push';
  const shown = transfer ? familiarName(parseReference(name)) : name;
  return {
    type: 'image',
    action,
    id: transfer ? name : image.id,
    attributes: { ...image.config.Labels, name: shown },
  };
}
