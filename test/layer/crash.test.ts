/** Killed at random moments: what was promised is there and whole, and nothing else is left. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { bench, readAll, sha256 } from './support.ts';

test('a layer store killed with SIGKILL', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-crash-'));
  const promised = new Set<string>();
  for (let round = 0; round < 12; round++) {
    const child = spawn(process.execPath, [path.join(import.meta.dirname, 'crash-child.ts'), dir], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    child.stdout.on('data', (data: Buffer) => {
      said += data.toString();
    });
    const closed = once(child, 'close');
    // Two promises that are not taken back, in every round.
    while (said.split('\n').length < 5 && child.exitCode === null)
      await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 60));
    child.kill('SIGKILL');
    await closed;
    for (const line of said.split('\n').slice(0, -1)) {
      // A removal was begun, not promised: the layer may be there or not.
      if (line.startsWith('-')) promised.delete(line.slice(1));
      else promised.add(line);
    }
  }
  assert.ok(promised.size >= 24, `${promised.size} layers`);
  await using b = await bench(dir);
  await b.layers.reconcile(new Set(), new Set());
  await b.layers.settled();
  const layers = [...b.layers.all()];
  for (const chainId of promised)
    assert.ok(
      layers.some((layer) => layer.chainId === chainId),
      chainId,
    );
  for (const { chainId, diffId } of layers) assert.equal(sha256(await readAll(b.layers.tar(chainId))), diffId);
  const root = path.join(dir, 'layer');
  assert.equal(fs.readdirSync(root).length, layers.length + 3, 'layers, l, writable, trash');
  assert.equal(fs.readdirSync(path.join(root, 'l')).length, layers.length);
  for (const folder of ['trash', 'writable']) assert.deepEqual(fs.readdirSync(path.join(root, folder)), []);
  assert.ok(!fs.readFileSync('/proc/self/mounts', 'utf8').includes(dir), 'no mount is left');
});
