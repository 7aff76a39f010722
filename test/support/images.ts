/** Images for tests, made on this machine; nothing comes from a network. */
import fs from 'node:fs';
import path from 'node:path';
import { busyboxTar } from '../../scripts/busybox-image.ts';
import { eventually, Output } from './command.ts';
import type { TestEngine } from './engine.ts';
import { endsWithUs } from './netns.ts';

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

/** A plain docker-registry beside an engine, in the engine's own network: `127.0.0.1:5000`, no TLS, no accounts. */
export async function startRegistryBeside(engine: TestEngine, port = 5000): Promise<string> {
  const directory = path.join(engine.paths.directory, 'registry');
  fs.mkdirSync(directory);
  const config = path.join(directory, 'config.yml');
  fs.writeFileSync(
    config,
    JSON.stringify({
      version: '0.1',
      log: { level: 'error' },
      storage: { filesystem: { rootdirectory: path.join(directory, 'data') } },
      http: { addr: `127.0.0.1:${port}` },
    }),
  );
  const registry = engine.netns.spawn([...endsWithUs, 'docker-registry', 'serve', config]);
  const output = new Output(registry.stdout, registry.stderr);
  engine.onClose(() => registry.kill('SIGKILL'));
  const address = `127.0.0.1:${port}`;
  await eventually(async () => {
    if (registry.exitCode !== null) throw new Error(`docker-registry ended: ${output.text}`);
    await engine.netns.must(['curl', '-fsS', `http://${address}/v2/`]);
  });
  return address;
}
