/** The thread that answers names: neither does a busy engine delay them, nor do they delay the engine. */
import { parentPort } from 'node:worker_threads';
import { isErrno } from '../platform/libc.ts';
import type { Telling, Told } from './nameserver.ts';
import { Resolver } from './resolver.ts';

const port = parentPort;
if (port === null) throw new Error('this module is a worker');

const resolver = new Resolver((container, error) => port.postMessage({ container, error } satisfies Telling));

port.on('message', (told: Told) => {
  try {
    if (told.do === 'hold') resolver.hold(told.container);
    else if (told.do === 'drop') resolver.drop(told.id);
  } catch (error) {
    // The namespace went meanwhile: the container has ended, which will be told too.
    const isGone = isErrno(error, 'ENOENT', 'EINVAL');
    if (told.do === 'hold' && !isGone) port.postMessage({ container: told.container.id, error } satisfies Telling);
  }
  if (told.do === 'settle') port.postMessage({ settled: told.number } satisfies Telling);
});
