/** Files in and out of containers, worked on in threads of their own; a client that stalls holds none of them. */
import type { Readable } from 'node:stream';
import type { IdMap } from '../lib/idmap.ts';
import { Room } from '../lib/room.ts';
import type { PathStat, RootSource } from './confined.ts';
import { consume } from './input.ts';
import type { StreamSource } from './jobs.ts';
import { WorkerPool } from './pool.ts';
import type { PlaceOptions } from './unpack.ts';

/** Clients that send, and clients that receive, at the same time. Each holds up to four megabytes. */
const clientsMax = 128;
/** Those beyond wait so long for one to be done, and are refused then. */
const waitMs = 30_000;

export interface PlaceRequest extends Pick<PlaceOptions, 'keepKinds' | 'owner'> {
  readonly root: RootSource;
  readonly path: string;
  /** Places in the container where something is mounted, for the words of a refusal. */
  readonly mounts: readonly string[];
  /** An archive, compressed or not; its pieces are not used elsewhere. */
  readonly from: Readable;
  readonly signal: AbortSignal;
}

/** Paths are the container's; where there is nothing, 'not-found'. */
export class TreeFiles {
  readonly #pool = new WorkerPool(0);
  readonly #sending = new Room(clientsMax, waitMs, 'too many copies into containers at once');
  readonly #receiving = new Room(clientsMax, waitMs, 'too many copies out of containers at once');

  stat(root: RootSource, path: string): Promise<PathStat> {
    return this.#pool.share('stat', { root, path });
  }

  /** The archive of what is at a path. Reading it to its end, or leaving it, gives everything back. A chunk is valid until the next is asked for. */
  async pack(
    root: RootSource,
    path: string,
    as: 'archive' | 'resource',
  ): Promise<{ readonly stat: PathStat; readonly chunks: AsyncIterable<Uint8Array> }> {
    const { opened, chunks } = await this.#open({ root, path, as });
    return { stat: opened as PathStat, chunks };
  }

  /** The archive of a whole mounted tree. */
  async packTree(tree: string, ids: IdMap | null): Promise<AsyncIterable<Uint8Array>> {
    return (await this.#open({ tree, ids })).chunks;
  }

  /** Unpacks an archive into the directory at a path. Nothing is read before that is known to be one that can be written. */
  async place({ root, path, mounts, from, signal, ...options }: PlaceRequest): Promise<void> {
    await this.#pool.share('checkPlace', { root, path, mounts });
    const leave = await this.#sending.enter(signal);
    try {
      await consume({ from: { stream: from, owned: true }, signal }, (source, cancel) =>
        this.#pool.share('place', { from: source, root, path, mounts, options, cancel }),
      );
    } finally {
      leave();
    }
  }

  close(): Promise<void> {
    return this.#pool.close();
  }

  async #open(source: StreamSource) {
    const leave = await this.#receiving.enter();
    try {
      const { opened, chunks } = await this.#pool.openStream(source);
      return { opened, chunks: thenLeave(chunks, leave) };
    } catch (error) {
      leave();
      throw error;
    }
  }
}

async function* thenLeave<T>(chunks: AsyncIterable<T>, leave: () => void): AsyncGenerator<T> {
  try {
    yield* chunks;
  } finally {
    leave();
  }
}
