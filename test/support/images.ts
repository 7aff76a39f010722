/** Images for tests, made on this machine; nothing comes from a network. */
import { busyboxTar } from '../../scripts/busybox-image.ts';
import type { TestEngine } from './engine.ts';

let busybox: Buffer | undefined;

/** The root file system of the `busybox` image as a tar archive. */
export function busyboxArchive(): Buffer {
  busybox ??= busyboxTar();
  return busybox;
}

/** Makes the image `name` of busybox by import, with `CMD ["sh"]` unless `changes` say otherwise. */
export async function importBusybox(
  engine: TestEngine,
  name = 'busybox:latest',
  changes: readonly string[] = ['CMD ["sh"]'],
): Promise<void> {
  const [repo, tag = 'latest'] = name.split(/:(?=[^/]*$)/);
  const query = new URLSearchParams({ fromSrc: '-', repo: repo ?? name, tag });
  for (const change of changes) query.append('changes', change);
  const progress = await engine.call('POST', `/images/create?${query}`, busyboxArchive());
  const text = typeof progress === 'string' ? progress : JSON.stringify(progress);
  if (text.includes('"error"')) throw new Error(`import of ${name}: ${text}`);
}
