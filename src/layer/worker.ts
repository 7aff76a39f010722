/** The worker thread: does the jobs of `jobs.ts` one after the other; those that wait for a client let others go first. */
import fs from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { EngineError, invariant, messageOf } from '../lib/errors.ts';
import { readArriving } from './arrival.ts';
import { changes } from './changes.ts';
import { openRoot, openTarget, type PathStat, type RootSource, statPath } from './confined.ts';
import { diff } from './diff.ts';
import { inherit } from './inherit.ts';
import type { Answer, Ask, JobName, Jobs, StreamSource } from './jobs.ts';
import { type Packed, packPath, packResource, packTree } from './pack.ts';
import { readRecipe } from './recipe.ts';
import { assemble, chunkSize, freshBuffers } from './tar/assemble.ts';
import { placeFiles, unpack } from './unpack.ts';
import { measure } from './walk.ts';

interface Stream {
  readonly chunks: Generator<Buffer, void>;
  close(): void;
}
const streams = new Map<number, Stream>();

type Doer<N extends JobName> = (ask: Jobs[N]['ask']) => Jobs[N]['answer'] | Promise<Jobs[N]['answer']>;

const doers: { readonly [N in JobName]: Doer<N> } = {
  unpack: ({ from, into, as, cancel }) =>
    readArriving(unpack({ into, as, cancelled: () => Atomics.load(cancel, 0) !== 0 }), from),
  inherit: ({ tree, below, paths }) => inherit(tree, below, paths),
  measure: ({ tree }) => measure(tree),
  delete: ({ trees }) => trees.flatMap(deleteTree),
  stat: ({ root, path }) => inRoot(root, (opened) => statPath(opened, path)),
  checkPlace: ({ root, path, mounts }) =>
    inRoot(root, (opened) => {
      fs.closeSync(openTarget(opened, path, mounts).fd);
      return undefined;
    }),
  place: async ({ from, root, path, mounts, options, cancel }) => {
    const tree = openRoot(root);
    try {
      const target = openTarget(tree.root, path, mounts);
      fs.closeSync(target.fd);
      const cancelled = () => Atomics.load(cancel, 0) !== 0;
      const placing = placeFiles({ ...options, ids: root.ids, root: tree.root, at: target.at, cancelled });
      return await readArriving(placing, from);
    } finally {
      tree.close();
    }
  },
  changes: ({ upper, below }) => changes(upper, below),
  open: ({ stream, source, ring }) => {
    const { stat, parts, close } = begin(source);
    streams.set(stream, { chunks: assemble(parts, ring === undefined ? freshBuffers() : turns(ring)), close });
    return stat;
  },
  next: ({ stream }) => {
    const next = streams.get(stream)?.chunks.next();
    return next === undefined || next.done === true ? null : (next.value as Buffer<ArrayBuffer>);
  },
  fill: ({ stream }) => {
    const next = streams.get(stream)?.chunks.next();
    return next === undefined || next.done === true ? 0 : next.value.length;
  },
  close: ({ stream }) => {
    const open = streams.get(stream);
    streams.delete(stream);
    try {
      open?.chunks.return();
    } finally {
      open?.close();
    }
    return undefined;
  },
};

/** The parts of a ring, one after the other. */
function* turns(ring: SharedArrayBuffer): Generator<Buffer, never> {
  for (;;) for (let at = 0; at < ring.byteLength; at += chunkSize) yield Buffer.from(ring, at, chunkSize);
}

type Begun = Pick<Packed, 'parts' | 'close'> & { readonly stat?: PathStat };

function begin(source: StreamSource): Begun {
  const nothing = () => undefined;
  if ('layer' in source) return { parts: readRecipe(source.layer), close: nothing };
  if ('upper' in source) return { parts: diff(source.upper), close: nothing };
  if ('tree' in source) return packTree(source.tree, source.ids);
  const tree = openRoot(source.root);
  try {
    const pack = source.as === 'archive' ? packPath : packResource;
    const { stat, parts, close } = pack(tree.root, source.path, source.root.ids);
    return {
      stat,
      parts,
      close: () => {
        close();
        tree.close();
      },
    };
  } catch (error) {
    tree.close();
    throw error;
  }
}

function inRoot<T>(source: RootSource, work: (root: number) => T): T {
  const tree = openRoot(source);
  try {
    return work(tree.root);
  } finally {
    tree.close();
  }
}

function deleteTree(tree: string): { tree: string; reason: string }[] {
  try {
    fs.rmSync(tree, { recursive: true, force: true });
    return [];
  } catch (error) {
    return [{ tree, reason: messageOf(error) }];
  }
}

const port = parentPort;
invariant(port !== null, 'the layer worker runs as a worker thread');
port.on('message', ({ number, job, ask }: Ask) => {
  const fail = (error: unknown) => {
    const kind = error instanceof EngineError ? error.kind : 'internal';
    reply({ number, error: { kind, message: messageOf(error) } });
  };
  try {
    const value = (doers[job] as (ask: unknown) => unknown)(ask);
    if (value instanceof Promise) value.then((later: unknown) => reply({ number, value: later }), fail);
    else reply({ number, value });
  } catch (error) {
    fail(error);
  }
});

function reply(answer: Answer): void {
  const { value } = answer;
  const owned = value instanceof Uint8Array && value.buffer instanceof ArrayBuffer ? [value.buffer] : [];
  port?.postMessage(answer, owned);
}
