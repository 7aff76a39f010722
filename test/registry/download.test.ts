/** Blobs on their way: followed while they grow, shared, left, swept. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { it, type TestContext } from 'node:test';
import type { Digest } from '../../src/lib/ids.ts';
import { type BlobToFetch, Downloads } from '../../src/registry/download.ts';
import { Hasher } from '../../src/registry/hasher.ts';
import { Registries } from '../../src/registry/registries.ts';
import { Repository } from '../../src/registry/repository.ts';
import { Slots } from '../../src/registry/waiting.ts';
import { scratch, sha256 } from '../support/registry.ts';

interface Desk {
  readonly downloads: Downloads;
  readonly directory: string;
  readonly source: Repository;
  /** The registry's next answer to a request for a blob. */
  request(): Promise<ServerResponse>;
  readonly requests: () => number;
}

/** Downloads from a registry that answers by hand. */
async function desk(t: TestContext): Promise<Desk> {
  const waiting: ((response: ServerResponse) => void)[] = [];
  const arrived: ServerResponse[] = [];
  let requests = 0;
  const server = createServer((request, response) => {
    if (request.url === '/v2/') {
      response.end();
      return;
    }
    requests++;
    const next = waiting.shift();
    if (next) next(response);
    else arrived.push(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const directory = scratch();
  const hasher = new Hasher();
  const registries = new Registries({
    settings: () => ({ insecureRegistries: [], registryMirrors: [] }),
    certificateDirectories: [],
    environment: {},
    backOffMs: 1,
  });
  t.after(async () => {
    await registries.close();
    await hasher.close();
    server.closeAllConnections();
    server.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const registry = await registries.registry(`127.0.0.1:${(server.address() as AddressInfo).port}`, null);
  return {
    downloads: new Downloads({ hasher, slots: new Slots(() => 2), backOffMs: 1 }),
    directory,
    source: new Repository(registry, 'x', 'pull'),
    requests: () => requests,
    request: () => {
      const response = arrived.shift();
      return response ? Promise.resolve(response) : new Promise((resolve) => waiting.push(resolve));
    },
  };
}

const blobOf = (content: Uint8Array): BlobToFetch => ({ digest: sha256(content) as Digest, size: content.length });

async function collect(stream: Readable): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of stream as AsyncIterable<Buffer>) parts.push(part);
  return Buffer.concat(parts);
}

it('a reader follows the file as it grows and sees its end once the digest is right', async (t) => {
  const { downloads, directory, source, request } = await desk(t);
  const content = randomBytes(3_000_000);
  const { download, leave } = downloads.join(directory, blobOf(content), [source]);
  const readers = [collect(download.stream()), collect(download.stream())];
  const response = await request();
  response.write(content.subarray(0, 1_000_000));
  while (download.received < 1_000_000) await new Promise((resolve) => setTimeout(resolve, 1));
  readers.push(collect(download.stream()));
  response.end(content.subarray(1_000_000));
  for (const read of await Promise.all(readers)) assert.ok(read.equals(content));
  await leave(true);
  assert.deepEqual(
    readdirSync(join(directory)).filter((name) => name.startsWith('blob-')),
    [],
  );
});

it('a reader never sees the end of a blob with another digest', async (t) => {
  const { downloads, directory, source, request } = await desk(t);
  const content = randomBytes(100_000);
  const share = downloads.join(directory, blobOf(content), [source]);
  const reader = collect(share.download.stream());
  reader.catch(() => undefined);
  const forged = Buffer.from(content);
  forged[5] = (forged[5] ?? 0) ^ 1;
  (await request()).end(forged);
  await assert.rejects(reader, /verification failed/);
  await assert.rejects(share.download.done, /verification failed/);
  await share.leave(false);
  assert.ok(!existsSync(share.download.path));
});

it('more bytes than announced are refused', async (t) => {
  const { downloads, directory, source, request } = await desk(t);
  const content = randomBytes(1000);
  const share = downloads.join(directory, blobOf(content), [source]);
  (await request()).end(Buffer.concat([content, content]));
  await assert.rejects(share.download.done, /sends more than the 1000 bytes/);
  await share.leave(false);
});

it('a registry that ignores ranges is read past what is there', async (t) => {
  const { downloads, directory, source, request } = await desk(t);
  const content = randomBytes(500_000);
  const blob = blobOf(content);
  writeFileSync(join(directory, `blob-${blob.digest.slice(7)}`), content.subarray(0, 200_000));
  const share = downloads.join(directory, blob, [source]);
  (await request()).end(content);
  await share.download.done;
  await share.leave(true);
});

it('who comes after the last has left begins anew, from the bytes that are there', async (t) => {
  const { downloads, directory, source, request, requests } = await desk(t);
  const content = randomBytes(500_000);
  const first = downloads.join(directory, blobOf(content), [source]);
  const second = downloads.join(directory, blobOf(content), [source]);
  assert.equal(first.download, second.download);
  (await request()).write(content.subarray(0, 300_000));
  while (first.download.received < 300_000) await new Promise((resolve) => setTimeout(resolve, 1));
  await first.leave(false);
  assert.equal(second.download.state, 'downloading', 'one who leaves does not end it for the other');
  const leaving = second.leave(false);
  const third = downloads.join(directory, blobOf(content), [source]);
  assert.notEqual(third.download, second.download);
  const response = await request();
  assert.equal(response.req.headers.range, 'bytes=300000-');
  response.writeHead(206, { 'content-range': `bytes 300000-499999/500000` }).end(content.subarray(300_000));
  await third.download.done;
  await leaving;
  await third.leave(true);
  assert.equal(requests(), 2);
});

it('what former pulls left goes when it is old', async (t) => {
  const { downloads, directory } = await desk(t);
  const [old, young, other] = ['a', 'b']
    .map((name) => join(directory, `blob-${name.repeat(64)}`))
    .concat(join(directory, 'other'));
  for (const path of [old, young, other]) writeFileSync(path as string, 'x');
  const longAgo = Date.now() / 1000 - 8 * 24 * 3600;
  for (const path of [old, other]) utimesSync(path as string, longAgo, longAgo);
  await downloads.sweep(directory);
  assert.deepEqual(
    [old, young, other].map((path) => existsSync(path as string)),
    [false, true, true],
  );
});
