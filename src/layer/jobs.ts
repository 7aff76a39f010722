/** What worker threads are asked, and what they answer. */
import type { ErrorKind } from '../lib/errors.ts';
import type { IdMap } from '../lib/idmap.ts';
import type { ByteString } from '../platform/files.ts';
import type { Change } from './changes.ts';
import type { PathStat, RootSource } from './confined.ts';
import type { Source } from './input.ts';
import type { PlaceOptions, Unpacked } from './unpack.ts';

/** Jobs with one answer. */
export interface Jobs {
  /** Unpacks an archive; the flag ends it early. */
  unpack: {
    ask: { readonly from: Source; readonly into: string; readonly as: 'layer' | 'plain'; readonly cancel: Int32Array };
    answer: Unpacked;
  };
  /** Gives directories that no entry described the owner, mode and times they have in the layers below (topmost first). */
  inherit: {
    ask: { readonly tree: string; readonly below: readonly string[]; readonly paths: readonly ByteString[] };
    answer: undefined;
  };
  measure: { ask: { readonly tree: string }; answer: number };
  /** Deletes trees; answers those it could not delete. */
  delete: { ask: { readonly trees: readonly string[] }; answer: readonly { tree: string; reason: string }[] };
  /** What is at a path inside a container. */
  stat: { ask: { readonly root: RootSource; readonly path: string }; answer: PathStat };
  /** Unpacks an archive into a directory of a container; `mounts` are places that may be read-only. */
  place: {
    ask: {
      readonly from: Source;
      readonly root: RootSource;
      readonly path: string;
      readonly mounts: readonly string[];
      readonly options: Pick<PlaceOptions, 'keepKinds' | 'owner'>;
      readonly cancel: Int32Array;
    };
    answer: undefined;
  };
  /** Throws what `place` would before it reads anything. */
  checkPlace: {
    ask: { readonly root: RootSource; readonly path: string; readonly mounts: readonly string[] };
    answer: undefined;
  };
  /** What differs between an upper directory and those below it. */
  changes: { ask: { readonly upper: string; readonly below: readonly string[] }; answer: readonly Change[] };
  /** Begins a stream; its chunks are fetched by `next`, or by `fill` when it has a ring. Answers what it is a stream of, where that has to be told. */
  open: {
    ask: { readonly stream: number; readonly source: StreamSource; readonly ring: SharedArrayBuffer | undefined };
    answer: PathStat | undefined;
  };
  /** A chunk with its own ArrayBuffer; null at the end. */
  next: { ask: { readonly stream: number }; answer: Uint8Array<ArrayBuffer> | null };
  /** Bytes of the next chunk, which is in the next part of the stream's ring; 0 at the end. */
  fill: { ask: { readonly stream: number }; answer: number };
  close: { ask: { readonly stream: number }; answer: undefined };
}

export type StreamSource =
  /** The tar of the layer in a directory. */
  | { readonly layer: string }
  /** The changes in an upper directory as a layer tar. */
  | { readonly upper: string }
  /** Everything in a mounted tree, without what else is mounted into it. */
  | { readonly tree: string; readonly ids: IdMap | null }
  /** What is at a path inside a container; `resource`: as the endpoint before `archive` had it. */
  | { readonly root: RootSource; readonly path: string; readonly as: 'archive' | 'resource' };

export type JobName = keyof Jobs;

export interface Ask<N extends JobName = JobName> {
  readonly number: number;
  readonly job: N;
  readonly ask: Jobs[N]['ask'];
}

export interface Answer {
  readonly number: number;
  readonly value?: unknown;
  readonly error?: { readonly kind: ErrorKind; readonly message: string };
}
