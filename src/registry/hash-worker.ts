/** The thread that computes digests: of growing files, which it reads itself, and of chunks it is given. */
import { createHash, type Hash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';

export type HashRequest =
  /** Begins a digest; of a file when a path is given. */
  | { readonly id: number; readonly do: 'open'; readonly path?: string }
  /** The file now has this many bytes that will not change. */
  | { readonly id: number; readonly do: 'grow'; readonly to: number }
  | { readonly id: number; readonly do: 'chunk'; readonly chunk: Uint8Array }
  /** Answer, and forget. */
  | { readonly id: number; readonly do: 'finish' }
  | { readonly id: number; readonly do: 'drop' };

export interface HashReply {
  readonly id: number;
  readonly hex: string;
  /** What went wrong; empty when nothing did. */
  readonly error: string;
}

interface Digesting {
  readonly hash: Hash;
  readonly fd: number | null;
  at: number;
  error: string;
}

const buffer = Buffer.allocUnsafeSlow(1024 * 1024);
const open = new Map<number, Digesting>();

function readOn(digesting: Digesting, to: number): void {
  while (digesting.fd !== null && digesting.at < to) {
    const count = readSync(digesting.fd, buffer, 0, Math.min(buffer.length, to - digesting.at), digesting.at);
    if (count === 0) throw new Error('the file is shorter than it was');
    digesting.hash.update(buffer.subarray(0, count));
    digesting.at += count;
  }
}

function forget(id: number, digesting: Digesting): void {
  open.delete(id);
  if (digesting.fd !== null) closeSync(digesting.fd);
}

function handle(request: HashRequest): void {
  if (request.do === 'open') {
    const fd = request.path === undefined ? null : openSync(request.path, 'r');
    open.set(request.id, { hash: createHash('sha256'), fd, at: 0, error: '' });
    return;
  }
  const digesting = open.get(request.id);
  if (!digesting) return;
  if (request.do === 'grow') readOn(digesting, request.to);
  else if (request.do === 'chunk') digesting.hash.update(request.chunk);
  else {
    forget(request.id, digesting);
    if (request.do === 'finish') reply({ id: request.id, hex: digesting.hash.digest('hex'), error: digesting.error });
  }
}

const reply = (message: HashReply): void => parentPort?.postMessage(message);

parentPort?.on('message', (request: HashRequest) => {
  try {
    handle(request);
  } catch (error) {
    const digesting = open.get(request.id);
    if (digesting) forget(request.id, digesting);
    reply({ id: request.id, hex: '', error: error instanceof Error ? error.message : String(error) });
  }
});
