/** Files in and out of containers, worked on in threads of their own: a slow client keeps no layer waiting. */
import type { Readable } from 'node:stream';
import type { IdMap } from '../lib/idmap.ts';
import type { PathStat, RootSource } from './confined.ts';
import { consumeShared } from './input.ts';
import { WorkerPool } from './pool.ts';
import type { PlaceOptions } from './unpack.ts';

/** Uploads that are unpacked at the same time; further ones wait. */
const threadsMax = 8;

export interface PlaceRequest extends Pick<PlaceOptions, 'keepKinds' | 'owner'> {
  readonly root: RootSource;
  readonly path: string;
  /** Places in the container where something is mounted, for the words of a refusal. */
  readonly mounts: readonly string[];
  /** An archive, compressed or not. */
  readonly from: Readable;
  readonly signal: AbortSignal;
}

/** Paths are the container's; where there is nothing, 'not-found'. */
export class TreeFiles {
  readonly #pool = new WorkerPool(threadsMax);

  stat(root: RootSource, path: string): Promise<PathStat> {
    return this.#pool.run('stat', { root, path });
  }

  /** The archive of what is at a path. Reading it to its end, or leaving it, gives everything back. A chunk is valid until the next is asked for. */
  async pack(
    root: RootSource,
    path: string,
    as: 'archive' | 'resource',
  ): Promise<{ readonly stat: PathStat; readonly chunks: AsyncIterable<Uint8Array> }> {
    const { opened, chunks } = await this.#pool.openStream({ root, path, as });
    return { stat: opened as PathStat, chunks };
  }

  /** The archive of a whole mounted tree. */
  async packTree(tree: string, ids: IdMap | null): Promise<AsyncIterable<Uint8Array>> {
    return (await this.#pool.openStream({ tree, ids })).chunks;
  }

  /** Unpacks an archive into the directory at a path. Nothing is read before that is known to be one that can be written. */
  async place({ root, path, mounts, from, signal, ...options }: PlaceRequest): Promise<void> {
    await this.#pool.run('checkPlace', { root, path, mounts });
    await consumeShared({ from: { stream: from }, signal }, (source, cancel) =>
      this.#pool.run('place', { from: source, root, path, mounts, options, cancel }),
    );
  }

  close(): Promise<void> {
    return this.#pool.close();
  }
}
