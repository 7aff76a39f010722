/**
 * An image of 200 MB in 4 layers in a registry of its own for each engine, all reading the same files.
 *
 * The layers are 500 files of 100 kB each that compress to about a third, like programs and text do.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { eventually, must } from '../test/support/command.ts';
import { endsWithUs, type Netns } from '../test/support/netns.ts';

const layerCount = 4;
const filesPerLayer = 500;
const fileBytes = 100_000;

const repository = 'bench/layers';
const address = '127.0.0.1:5000';
export const pullReference = `${address}/${repository}:1`;

/** Writes the registry's files below a directory. */
export async function makeRegistryData(directory: string): Promise<void> {
  const blobs: { digest: string; size: number }[] = [];
  const diffIds: string[] = [];
  const random = xorshift(20_10);
  for (let layer = 0; layer < layerCount; layer += 1) {
    const tree = path.join(directory, `layer-${layer}`);
    fs.mkdirSync(path.join(tree, `data-${layer}`), { recursive: true });
    for (let file = 0; file < filesPerLayer; file += 1)
      fs.writeFileSync(path.join(tree, `data-${layer}`, `file-${file}`), someContent(random));
    const archive = path.join(directory, 'layer.tar');
    await must([
      'tar',
      '--format=ustar',
      '--numeric-owner',
      '--mtime=@0',
      '--sort=name',
      '-C',
      tree,
      '-cf',
      archive,
      '.',
    ]);
    fs.rmSync(tree, { recursive: true });
    const plain = fs.readFileSync(archive);
    diffIds.push(sha256(plain));
    blobs.push(writeBlob(directory, gzipSync(plain, { level: 6 })));
    fs.rmSync(archive);
  }
  const configuration = writeBlob(
    directory,
    Buffer.from(
      JSON.stringify({
        architecture: { x64: 'amd64' }[process.arch as string] ?? process.arch,
        os: 'linux',
        created: '2020-01-01T00:00:00Z',
        config: { Cmd: ['none'] },
        rootfs: { type: 'layers', diff_ids: diffIds },
        history: diffIds.map(() => ({ created: '2020-01-01T00:00:00Z', created_by: 'bench' })),
      }),
    ),
  );
  const media = 'application/vnd.docker';
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: `${media}.distribution.manifest.v2+json`,
      config: { mediaType: `${media}.container.image.v1+json`, ...configuration },
      layers: blobs.map((blob) => ({ mediaType: `${media}.image.rootfs.diff.tar.gzip`, ...blob })),
    }),
  );
  const { digest } = writeBlob(directory, manifest);
  const hex = digest.slice('sha256:'.length);
  const store = path.join(repositoryPath(directory), '_manifests');
  link(path.join(store, 'revisions/sha256', hex), digest);
  link(path.join(store, 'tags/1/current'), digest);
  link(path.join(store, 'tags/1/index/sha256', hex), digest);
}

/** Serves them at 127.0.0.1:5000 of a namespace until that is closed. */
export async function serveRegistry(netns: Netns, directory: string): Promise<{ close(): void }> {
  const config = path.join(directory, 'config.yml');
  fs.writeFileSync(
    config,
    JSON.stringify({
      version: '0.1',
      log: { level: 'error', accesslog: { disabled: true } },
      storage: { filesystem: { rootdirectory: path.join(directory, 'registry') } },
      http: { addr: address },
    }),
  );
  const registry = netns.spawn([...endsWithUs, 'docker-registry', 'serve', config]);
  for (const stream of [registry.stdout, registry.stderr]) stream?.resume();
  await eventually(() => netns.must(['curl', '-fsS', `http://${address}/v2/`]));
  return { close: () => void registry.kill() };
}

function repositoryPath(directory: string): string {
  return path.join(directory, 'registry/docker/registry/v2/repositories', repository);
}

function writeBlob(directory: string, data: Buffer): { digest: string; size: number } {
  const digest = sha256(data);
  const hex = digest.slice('sha256:'.length);
  const folder = path.join(directory, 'registry/docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex);
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'data'), data);
  link(path.join(repositoryPath(directory), '_layers/sha256', hex), digest);
  return { digest, size: data.length };
}

function link(folder: string, digest: string): void {
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'link'), digest);
}

function sha256(data: Buffer): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`;
}

/** A quarter noise, the rest repeats of it: gzip makes about a third of it. */
function someContent(random: () => number): Buffer {
  const content = Buffer.alloc(fileBytes);
  for (let at = 0; at < fileBytes; at += 4) {
    const value = random();
    if (at < 4096 || value % 4 === 0) content.writeUInt32LE(value, Math.min(at, fileBytes - 4));
    else content.copy(content, at, Math.max(at - 4 - (value % 1000) * 4, 0), at);
  }
  return content;
}

function xorshift(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}
