/** Clients that stop in the middle of a copy: however many there are, everybody else's work goes on. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { eventually, sleep } from '../support/command.ts';
import { TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';
import { holdingsOf } from '../support/memory.ts';

const stalledEach = 40;
const importsStalled = 12;
const megabyte = 1024 * 1024;
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'stalled-'));
const large = archive('head -c 20000000 /dev/urandom > large');
let engine: TestEngine;

before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
  await engine.call('POST', '/v1.26/containers/create?name=box', {
    Image: 'busybox',
    Cmd: ['sleep', '1000'],
    HostConfig: { NetworkMode: 'none' },
  });
  await engine.call('POST', '/v1.26/containers/box/start');
  assert.equal((await engine.api('PUT', at('box', '/root'), large)).status, 200);
});
after(async () => {
  await engine.call('DELETE', '/v1.26/containers/box?force=1');
  await engine.assertNoLeaks();
  await engine.close();
  fs.rmSync(scratch, { recursive: true, force: true });
});

const at = (name: string, place: string) => `/v1.26/containers/${name}/archive?path=${encodeURIComponent(place)}`;

function archive(script: string): Buffer {
  const dir = fs.mkdtempSync(path.join(scratch, 'tar-'));
  return execFileSync('sh', ['-ec', `${script}; tar -cf - *`], { cwd: dir, maxBuffer: 2 ** 30 });
}

/** A connection that sends a request and a part of its body, and then nothing more; it never reads. */
async function stall(method: string, place: string, part: Buffer): Promise<net.Socket> {
  const socket = net.connect(engine.paths.socket);
  socket.pause();
  socket.on('error', () => undefined);
  const length = method === 'GET' ? '' : `Content-Type: application/x-tar\r\nContent-Length: ${100 * megabyte}\r\n`;
  socket.write(`${method} ${place} HTTP/1.1\r\nHost: engine\r\n${length}\r\n`);
  socket.write(part);
  return socket;
}

/** Fails when the work is not done within a time that is generous for a busy machine, and nothing to a stalled client. */
async function soon<T>(what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} waits for stalled clients`)), 15_000);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

test('stalled uploads, imports and exports hold up nobody', async () => {
  await holdingsOf(engine); // opens the inspector, which costs something itself
  const before = await holdingsOf(engine);
  const [part, nothing] = [large.subarray(0, 3_000_000), Buffer.alloc(0)];
  const imports = '/v1.26/images/create?fromSrc=-&repo=never';
  const packed = gzipSync(large).subarray(0, 3_000_000);
  const stalled = await Promise.all([
    ...Array.from({ length: stalledEach }, (_, number) => stall('PUT', at('box', '/tmp'), number % 4 ? part : nothing)),
    ...Array.from({ length: 4 }, () => stall('PUT', at('box', '/tmp'), packed)),
    ...Array.from({ length: stalledEach }, () => stall('GET', '/v1.26/containers/box/export', nothing)),
    ...Array.from({ length: importsStalled }, (_, number) => stall('POST', imports, number % 2 ? part : packed)),
  ]);
  await sleep(1000);

  const head = await soon('a look', engine.api('HEAD', at('box', '/etc')));
  assert.equal(head.status, 200);
  await soon('an import', importBusybox(engine, 'another'));
  const copied = await soon('a copy in', engine.api('PUT', at('box', '/var'), large));
  assert.equal(copied.status, 200, copied.text);
  const whole = await soon('a copy out', engine.api('GET', at('box', '/var/large')));
  assert.ok(whole.body.length > 20_000_000);
  assert.deepEqual(whole.body.subarray(512, 20_000_512).compare(large.subarray(512, 20_000_512)), 0);
  await soon('docker cp', engine.mustDocker(['cp', 'box:/var/large', path.join(scratch, 'out')]));
  await soon('docker cp', engine.mustDocker(['cp', path.join(scratch, 'out'), 'box:/var/back']));
  await soon('an image saved', engine.api('GET', '/v1.26/images/another/get'));
  await soon('a container', engine.mustDocker(['run', '--rm', '--network', 'none', 'another', 'true']));

  const during = await holdingsOf(engine);
  const grown = (during.resident - before.resident) / megabyte;
  assert.ok(grown < 5 * (2 * stalledEach + importsStalled), `${grown} MB for the stalled`);
  for (const socket of stalled) socket.destroy();
  await eventually(async () => {
    const { descriptors } = await holdingsOf(engine);
    assert.ok(descriptors <= before.descriptors + 4, `${before.descriptors} descriptors became ${descriptors}`);
  }, 15_000);
  // What a client was about to send has come in as far as it came.
  assert.ok((await engine.mustDocker(['exec', 'box', 'stat', '-c', '%s', '/tmp/large'])).length > 1);
  if (process.env.SHOW) console.log({ before, during, after: await holdingsOf(engine) });
});
