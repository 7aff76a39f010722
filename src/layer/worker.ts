/** The worker thread: does the jobs of `jobs.ts` one after the other, synchronously. */
import fs from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { EngineError, invariant, messageOf } from '../lib/errors.ts';
import { diff } from './diff.ts';
import { inherit } from './inherit.ts';
import type { Answer, Ask, JobName, Jobs } from './jobs.ts';
import { readRecipe } from './recipe.ts';
import { assemble } from './tar/assemble.ts';
import { unpack } from './unpack.ts';
import { measure } from './walk.ts';

const streams = new Map<number, Generator<Uint8Array<ArrayBuffer>, void>>();

const doers: { readonly [N in JobName]: (ask: Jobs[N]['ask']) => Jobs[N]['answer'] } = {
  unpack: ({ fd, into, as, cancel }) => unpack({ fd, into, as, cancelled: () => Atomics.load(cancel, 0) !== 0 }),
  inherit: ({ tree, below, paths }) => inherit(tree, below, paths),
  measure: ({ tree }) => measure(tree),
  delete: ({ trees }) => trees.flatMap(deleteTree),
  open: ({ stream, source }) => {
    streams.set(stream, assemble('layer' in source ? readRecipe(source.layer) : diff(source.upper)));
    return undefined;
  },
  next: ({ stream }) => {
    const next = streams.get(stream)?.next();
    return next === undefined || next.done === true ? null : next.value;
  },
  close: ({ stream }) => {
    streams.get(stream)?.return();
    streams.delete(stream);
    return undefined;
  },
};

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
  let answer: Answer;
  const transfer: ArrayBuffer[] = [];
  try {
    const value = (doers[job] as (ask: unknown) => unknown)(ask);
    if (value instanceof Uint8Array && value.buffer instanceof ArrayBuffer) transfer.push(value.buffer);
    answer = { number, value };
  } catch (error) {
    const kind = error instanceof EngineError ? error.kind : 'internal';
    answer = { number, error: { kind, message: messageOf(error) } };
  }
  port.postMessage(answer, transfer);
});
