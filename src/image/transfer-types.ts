/**
 * Between images and registries: what a pull gives to the image store and what a push takes from it.
 * `pull.ts` and `push.ts` implement `PullFn` and `PushFn`; the image store calls them and is their `ImageSink`.
 */

import type { LayerStore } from '../layer/types.ts';
import type { DiffId, Digest, ImageId } from '../lib/ids.ts';
import type { DigestReference, Reference } from './reference.ts';
import type { Credentials, Image, Progress } from './types.ts';

/** A compressed layer as some registry holds it: lets a push mount or skip it, and a pull recognise a layer before fetching. */
export interface KnownBlob {
  readonly diffId: DiffId;
  /** Canonical name of a repository known to hold it: `localhost:5000/app`. */
  readonly repository: string;
  /** Digest of the blob as the registry serves it. */
  readonly digest: Digest;
  /** Bytes of the blob as the registry serves it. */
  readonly size: number;
  readonly mediaType: string;
}

export interface ImageSink {
  readonly layers: LayerStore;
  /** Directory for blobs being fetched; exists. Files in it survive restarts, so that downloads can go on. */
  readonly temporary: string;

  get(id: ImageId): Image | undefined;
  /** The config document's bytes as they were registered (their digest is the id). */
  config(id: ImageId): Promise<Uint8Array>;
  /** What a name points to; undefined when nothing. `reference` has a tag or a digest. */
  lookUp(reference: Reference): ImageId | undefined;
  /** All references with a tag in the repository of `reference`, in order of the tag (push without a tag). */
  tagsIn(reference: Reference): readonly { readonly reference: Reference; readonly id: ImageId }[];

  /**
   * Keeps an image durably. Its layers must have been applied, all of them, and be held by a lease until this resolves;
   * throws `EngineError('invalid')` for a document that is no image config and `EngineError('internal')` when a layer is missing.
   * `references` (with tag or digest; may be none) are pointed to it and `event` (action `pull`, `load` …) is published in
   * the same commit, once for each of `event.names`. Repeating it is not an error.
   */
  registerImage(
    config: Uint8Array,
    references: readonly Reference[],
    event?: { readonly action: string; readonly names: readonly string[] },
  ): Promise<Image>;
  /** Points one more name (tag) at an image, durably, without an event. */
  setReference(reference: Reference, id: ImageId): Promise<void>;
  /** Records that a registry knows the image by `repository@digest` (after a push). */
  addDigestReference(reference: DigestReference, id: ImageId): Promise<void>;
  /** Publishes an event of an image (`push`); `name` is the familiar name. */
  announce(action: string, id: ImageId, name: string): Promise<void>;

  /** Registries' blobs of a layer, the newest first. At most 50 are remembered for a layer. */
  blobSources(diffId: DiffId): readonly KnownBlob[];
  /** The diff ID of a blob seen before: a pull that finds its layer here need not fetch. */
  diffIdOf(blob: Digest): DiffId | undefined;
  rememberBlob(blob: KnownBlob): Promise<void>;
}

export interface PullRequest {
  /** With a tag or a digest (never neither). */
  readonly reference: Reference;
  readonly credentials: Credentials | null;
  /** `os/arch[/variant]`; the host's when absent. */
  readonly platform?: string | undefined;
}

/**
 * Fetches an image and registers it. Does its work while being read; aborting or leaving ends it. The event `pull` is
 * published through `registerImage`. The stream ends in the messages `Digest: …` and `Status: …`.
 */
export type PullFn = (request: PullRequest, sink: ImageSink, signal: AbortSignal) => AsyncIterable<Progress>;

export interface PushRequest {
  /** Without a tag: all tags of the repository. */
  readonly reference: Reference;
  readonly credentials: Credentials | null;
}

export type PushFn = (request: PushRequest, sink: ImageSink, signal: AbortSignal) => AsyncIterable<Progress>;
