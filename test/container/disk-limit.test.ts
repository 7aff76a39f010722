/**
 * `StorageOpt` and `DiskQuota`: on XFS with project quotas a container's root holds no more than it may; elsewhere they are
 * refused. Where the kernel has no quotas for XFS, `scripts/other-kernel.sh` runs this in one that has.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { must } from '../support/command.ts';
import { TestEngine } from '../support/engine.ts';
import type { Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

const MiB = 1024 * 1024;
const refusal = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";
const disk = fs.mkdtempSync(path.join(os.tmpdir(), 'xfs-'));
const mounted = path.join(disk, 'mounted');
/** Why the file system has no quotas here; empty: it has. */
const missing = mountXfs();

function mountXfs(): string {
  const image = path.join(disk, 'image');
  fs.writeFileSync(image, '');
  fs.truncateSync(image, 512 * MiB);
  fs.mkdirSync(mounted);
  for (const [command, ...args] of [
    ['mkfs.xfs', '-q', image],
    ['mount', '-o', 'loop,pquota', image, mounted],
  ] as const) {
    const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
    if (status !== 0) return `${command}: ${error?.message ?? stderr.split('\n', 1)[0]}`;
  }
  return '';
}

let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start(missing === '' ? { dataRoot: mounted } : {});
  await importBusybox(engine);
});
after(async () => {
  await engine?.close();
  if (missing === '') await must(['umount', '-R', mounted]);
  fs.rmSync(disk, { recursive: true, force: true });
});

const create = (host: object, cmd: readonly string[] = ['sleep', '1000'], on: TestEngine = engine) =>
  on.api('POST', '/v1.26/containers/create', {
    Image: 'busybox',
    Cmd: cmd,
    HostConfig: { NetworkMode: 'none', ...host },
  });

async function start(host: object): Promise<string> {
  const answer = await create(host);
  assert.equal(answer.status, 201, answer.text);
  const { Id } = answer.json();
  await engine.call('POST', `/v1.26/containers/${Id}/start`);
  return Id;
}

/** Megabytes that a file in the container can grow to, of at most 100. */
async function room(id: string): Promise<number> {
  const script = 'head -c 100000000 /dev/zero > /big 2>/dev/null; stat -c %s /big; rm /big';
  return Number((await engine.mustDocker(['exec', id, 'sh', '-c', script])).trim()) / 1e6;
}

describe('where the file system has project quotas', { skip: missing }, () => {
  for (const host of [{ StorageOpt: { size: '20M' } }, { StorageOpt: { SIZE: '20mb' } }, { DiskQuota: 20 * MiB }]) {
    test(`${JSON.stringify(host)}: a container fills its own share and no more`, async () => {
      const [small, other] = [await start(host), await start({})];
      const got = await room(small);
      assert.ok(got > 19 && got < 21.1, `${got} MB`);
      assert.equal(await room(other), 100);
      // What was deleted can be written again; the size of the share is what df tells.
      assert.ok((await room(small)) > 19);
      assert.match(await engine.mustDocker(['exec', small, 'df', '-m', '/']), / 20 +\d+ +\d+ /);
      await engine.call('POST', `/v1.26/containers/${small}/restart?t=0`);
      assert.ok((await room(small)) < 21.1);
      const { HostConfig } = await engine.call('GET', `/v1.26/containers/${small}/json`);
      for (const [name, value] of Object.entries(host)) assert.deepEqual(HostConfig[name], value);
      for (const id of [small, other]) await engine.call('DELETE', `/v1.26/containers/${id}?force=1`);
    });
  }
  test('the shares of two containers are apart, also of one made after a restart of the daemon', async () => {
    const first = await start({ DiskQuota: 20 * MiB });
    await engine.restart();
    const second = await start({ DiskQuota: 40 * MiB });
    const rooms = [await room(first), await room(second)];
    assert.ok((rooms[0] ?? 0) < 21.1 && (rooms[1] ?? 0) > 39 && (rooms[1] ?? 0) < 42, rooms.join());
    for (const id of [first, second]) await engine.call('DELETE', `/v1.26/containers/${id}?force=1`);
  });
  test('DiskQuota can be updated, running or not', async () => {
    const id = await start({ DiskQuota: 20 * MiB });
    await engine.call('POST', `/v1.26/containers/${id}/update`, { DiskQuota: 40 * MiB });
    const larger = await room(id);
    assert.ok(larger > 39 && larger < 42, `${larger} MB`);
    await engine.call('POST', `/v1.26/containers/${id}/stop?t=0`);
    await engine.call('POST', `/v1.26/containers/${id}/update`, { DiskQuota: 10 * MiB });
    await engine.call('POST', `/v1.26/containers/${id}/start`);
    const smaller = await room(id);
    assert.ok(smaller > 9 && smaller < 11, `${smaller} MB`);
    const none = await start({});
    const answer = await engine.api('POST', `/v1.26/containers/${none}/update`, { DiskQuota: MiB });
    assert.equal(answer.status, 400, answer.text);
    assert.match(answer.json().message, /created with one/);
    for (const one of [id, none]) await engine.call('DELETE', `/v1.26/containers/${one}?force=1`);
  });
  test('docker run --storage-opt size', async () => {
    const out = await engine.mustDocker(['run', '--rm', '--storage-opt', 'size=30M', 'busybox', 'df', '-m', '/']);
    assert.match(out, / 30 +\d+ +\d+ /);
  });
});

test('options that are not there', async () => {
  for (const [host, text] of [
    [{ StorageOpt: { foo: '1' } }, 'Unknown option foo'],
    [{ StorageOpt: { size: 'much' } }, "invalid size: 'much'"],
    [{ DiskQuota: -1 }, 'Invalid value: -1, the disk quota cannot be negative'],
  ] as const) {
    const answer = await create(host);
    assert.deepEqual([answer.status, answer.json().message], [400, text]);
  }
});

test('where it has none they are refused', async (t) => {
  const other = await TestEngine.start();
  t.after(() => other.close());
  await importBusybox(other);
  const ask = async (host: object): Promise<readonly [number, string]> => {
    const answer = await create(host, ['true'], other);
    return [answer.status, (answer.json() as Loose).message];
  };
  assert.deepEqual(await ask({ StorageOpt: { size: '10M' } }), [400, refusal]);
  assert.deepEqual(await ask({ StorageOpt: { foo: '1' } }), [400, 'Unknown option foo']);
  assert.deepEqual(await ask({ DiskQuota: MiB }), [400, refusal]);
  const { Id } = (await create({}, ['true'], other)).json();
  const answer = await other.api('POST', `/v1.26/containers/${Id}/update`, { DiskQuota: MiB });
  assert.deepEqual([answer.status, answer.json().message], [400, refusal]);
});
