/** Import: one tar of a whole file system becomes an image of one layer. */
import { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { internal, invalid, messageOf } from '../lib/errors.ts';
import { nowNano, rfc3339Nano } from '../lib/time.ts';
import { applyChanges } from './changes.ts';
import { encodeImageConfig, runConfigOf } from './config.ts';
import type { ImageStore } from './images.ts';
import type { ProgressStream } from './progress-stream.ts';
import { familiarReference, parseNameAndTag, withDefaultTag } from './reference.ts';
import type { Images } from './types.ts';

/** The last message is the image's id. */
export async function importTree(
  images: ImageStore,
  request: Parameters<Images['import']>[0],
  progress: ProgressStream,
  signal: AbortSignal,
): Promise<void> {
  const { source, repo, tag, message, changes } = request;
  const name = repo === '' ? null : withDefaultTag(parseNameAndTag(repo, tag));
  if (name?.digest !== undefined) throw invalid('cannot import digest reference');
  const config = applyChanges(runConfigOf({}), changes);
  let stream: Readable;
  let total = 0;
  if (source instanceof URL) {
    progress.tell({ status: `Downloading from ${source.href}` });
    [stream, total] = await download(source, signal);
  } else stream = source;

  const layer = await images.layers.apply(null, {
    from: { stream },
    signal,
    ...(source instanceof URL && { progress: (bytes) => progress.amount('', 'Importing', bytes, total) }),
  });
  using _ = images.layers.lease(layer.chainId);
  const created = rfc3339Nano(nowNano());
  const comment = message === '' ? `Imported from ${source instanceof URL ? source.href : '-'}` : message;
  const document = encodeImageConfig({
    config,
    created,
    comment,
    dockerVersion: images.version,
    history: [{ created, comment }],
    diffIds: [layer.diffId],
  });
  const image = await images.keep(document, {
    references: name === null ? [] : [name],
    events: [...(name === null ? [] : [{ action: 'tag', name: familiarReference(name) }]), { action: 'import' }],
    parent: null,
  });
  progress.tell({ status: image.id });
}

async function download(source: URL, signal: AbortSignal): Promise<[stream: Readable, total: number]> {
  let response: Response;
  try {
    response = await fetch(source, { signal });
  } catch (error) {
    signal.throwIfAborted();
    const { cause } = error as Error;
    throw internal(`Get "${source.href}": ${messageOf(cause ?? error)}`, { cause: error });
  }
  if (response.status >= 400 || response.body === null) {
    await response.body?.cancel();
    throw internal(`Got HTTP status code >= 400: ${response.status} ${response.statusText}`);
  }
  const total = Number(response.headers.get('content-length') ?? 0);
  return [Readable.fromWeb(response.body as ReadableStream), total];
}
