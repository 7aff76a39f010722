/**
 * Layers: read-only trees named by chain ID, and one writable tree per container on top of a chain.
 *
 * On disk below `<data-root>/layer/`. Work happens in a temporary directory and ends in a rename; what a crash leaves is
 * swept at start. Untar, diff and hashing run in worker threads, path by path through `openat2(RESOLVE_IN_ROOT)`.
 */
import type { Readable } from 'node:stream';
import type { IdMap } from '../lib/idmap.ts';
import type { ChainId, DiffId } from '../lib/ids.ts';
import type { Change } from './changes.ts';
import type { TreeFiles } from './files.ts';

export interface Layer {
  readonly chainId: ChainId;
  readonly parent: ChainId | null;
  readonly diffId: DiffId;
  /** Bytes of the files in this layer alone. */
  readonly size: number;
}

export type Compression = 'none' | 'gzip' | 'zstd' | 'xz' | 'bzip2';

export interface Arriving {
  readonly stream: Readable;
  /** Nobody else looks at the pieces of the stream, also not later: they are freed once used. */
  readonly owned?: boolean;
}

export interface ApplySource {
  /** A file on disk (its compression is recognised by its first bytes), or a stream of the same. */
  readonly from: { readonly path: string } | Arriving;
  /** When given, the layer counts only if the uncompressed tar has this digest. */
  readonly diffId?: DiffId;
  /** Told the number of (compressed) bytes consumed so far, at most every 100 ms. */
  readonly progress?: (bytes: number) => void;
  readonly signal?: AbortSignal;
}

/** A mounted tree; `release` once, it never fails. */
export interface HeldTree {
  readonly tree: string;
  release(): void;
}

export interface LayerStore {
  get(chainId: ChainId): Layer | undefined;
  /**
   * Unpacks a layer tar on top of `parent` and keeps it durable. A layer that exists already is returned without reading
   * the source. Two calls for the same layer share one unpacking. Throws `EngineError('invalid')` for a hostile or broken archive.
   */
  apply(parent: ChainId | null, source: ApplySource): Promise<Layer>;
  /** The layer's tar, uncompressed and byte for byte the one that was applied (its digest is the diff ID). */
  tar(chainId: ChainId): Readable;
  /** Makes the changes of a container's writable tree into a layer; null when there are none. */
  commit(containerId: string): Promise<Layer | null>;
  /** Removes a layer unless another layer or a writable tree stands on it or a lease holds it. Returns freed bytes; 0 if it stays. */
  remove(chainId: ChainId): Promise<number>;
  /** Keeps layers from `remove` until the lease is disposed of. */
  lease(...chains: readonly ChainId[]): Disposable;

  /**
   * Makes the writable tree of a container, which may hold `bytesMax` (0 or left out: no limit); `shifted` ones
   * are mounted with other ids. Repeating it is not an error.
   */
  createWritable(containerId: string, parent: ChainId | null, bytesMax?: number, shifted?: boolean): Promise<void>;
  /** Throws dockerd's refusal where the file system cannot limit writable trees. */
  mustLimitWritable(): void;
  /** Another limit for a tree that was made with one. */
  limitWritable(containerId: string, bytesMax: number): void;
  /** Mounts it (overlay, in-process, microseconds) and returns the root's path. Mounted already: returns it. */
  mountWritable(containerId: string): Promise<string>;
  /** Repeating it is not an error. */
  unmountWritable(containerId: string): Promise<void>;
  /** Keeps the tree mounted until it is released, whoever mounts and unmounts it meanwhile. */
  holdWritable(containerId: string): Promise<HeldTree>;
  /** Unmounts, renames aside and deletes (the deletion goes on behind). Repeating it is not an error. */
  removeWritable(containerId: string): Promise<void>;
  /** The ids that trees made `shifted` show; null: none are shifted. */
  readonly shiftedIds: IdMap | null;
  /** The ids that a container's mounted tree shows; null: those on the disk. */
  idsOf(containerId: string): IdMap | null;
  /** Bytes in the writable tree; walked in a worker. */
  writableSize(containerId: string): Promise<number>;
  /** Paths of the overlay for `GraphDriver.Data` of inspect: LowerDir, UpperDir, WorkDir, MergedDir. */
  describeWritable(containerId: string): Readonly<Record<string, string>>;
  describe(chainId: ChainId): Readonly<Record<string, string>>;

  /** What the container changed of its layers, each directory before what is in it. */
  changes(containerId: string): Promise<readonly Change[]>;
  /** Files in and out of containers. */
  readonly files: TreeFiles;

  /** Brings disk and records together at start: `writable` are the containers that exist, `mounted` those that run. */
  reconcile(writable: ReadonlySet<string>, mounted: ReadonlySet<string>): Promise<void>;
}

/** What images need beyond layers alone. */
export interface ArchiveLayers extends LayerStore {
  /** All layers, in no order. */
  all(): Iterable<Layer>;
  /** Bytes of the uncompressed tar of a layer. */
  tarSize(chainId: ChainId): number;
  /** Unpacks an archive as it is (no whiteouts, no record) into an existing directory. Throws as `apply` does. */
  unpackInto(dir: string, source: ApplySource): Promise<void>;
}
