/** `GET /system/df`: what clients see of what lies on disk. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { startEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

test('images with what they share, containers with what they wrote, volumes with what is in them and who has them', async (t) => {
  const engine = await startEngine(t);
  await importBusybox(engine);
  await engine.mustDocker([
    'run',
    '--name',
    'writer',
    '-v',
    'data:/data',
    'busybox',
    'sh',
    '-c',
    'dd if=/dev/zero of=/big bs=1000 count=3000; dd if=/dev/zero of=/data/f bs=1000 count=500',
  ]);
  await engine.mustDocker(['commit', 'writer', 'bigger']);
  await engine.mustDocker(['volume', 'create', 'empty']);
  const df = await engine.call('GET', '/v1.26/system/df');

  const image = (tag: string) =>
    df.Images.find((row: { RepoTags: string[] }) => row.RepoTags.includes(`${tag}:latest`));
  assert.equal(image('busybox').Containers, 1);
  assert.equal(image('busybox').SharedSize, image('busybox').Size, 'all of it is in bigger, too');
  assert.equal(image('bigger').Containers, 0);
  assert.equal(image('bigger').SharedSize, image('busybox').Size);
  assert.equal(image('bigger').Size - image('bigger').SharedSize, 3_000_000);
  assert.equal(df.LayersSize, image('bigger').Size);

  assert.equal(df.Containers.length, 1);
  assert.equal(df.Containers[0].SizeRw, 3_000_000);
  const volumes = df.Volumes.map((row: { Name: string; UsageData: object }) => [row.Name, row.UsageData]);
  assert.deepEqual(volumes, [
    ['data', { Size: 500_000, RefCount: 1 }],
    ['empty', { Size: 0, RefCount: 0 }],
  ]);
  const [{ Mountpoint }] = await engine.call('GET', '/v1.26/volumes').then((answer) => answer.Volumes);
  assert.equal(
    execFileSync('du', ['-sb', '--apparent-size', `${Mountpoint}/f`], { encoding: 'utf8' }).split('\t')[0],
    '500000',
  );

  const shown = await engine.mustDocker(['system', 'df']);
  assert.match(shown, /^Images +2 +1 +/m);
  assert.match(shown, /^Containers +1 +0 +3MB/m);
  assert.match(shown, /^Local Volumes +2 +1 +500kB/m);
});
