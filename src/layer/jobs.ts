/** What worker threads are asked, and what they answer. */
import type { ErrorKind } from '../lib/errors.ts';
import type { ByteString } from '../platform/files.ts';
import type { Unpacked } from './unpack.ts';

/** Jobs with one answer. */
export interface Jobs {
  /** Unpacks the archive on a descriptor; the flag ends it early. */
  unpack: {
    ask: { readonly fd: number; readonly into: string; readonly as: 'layer' | 'plain'; readonly cancel: Int32Array };
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
  /** Begins a stream; its chunks are fetched by `next`. */
  open: {
    ask: { readonly stream: number; readonly source: StreamSource };
    answer: undefined;
  };
  /** A chunk with its own ArrayBuffer; null at the end. */
  next: { ask: { readonly stream: number }; answer: Uint8Array<ArrayBuffer> | null };
  close: { ask: { readonly stream: number }; answer: undefined };
}

export type StreamSource =
  /** The tar of the layer in a directory. */
  | { readonly layer: string }
  /** The changes in an upper directory as a layer tar. */
  | { readonly upper: string };

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
