/** Writable trees: mounted by the real kernel, committed, measured, removed, and brought together after a restart. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import type { ChainId, DiffId } from '../../src/lib/ids.ts';
import { newId } from '../../src/lib/ids.ts';
import { type ArchiveEntry, archive, type Bench, bench, readAll, sha256, shell, streamOf } from './support.ts';

const put = (b: Bench, parent: ChainId | null, ...entries: readonly ArchiveEntry[]) =>
  b.layers.apply(parent, { from: { stream: streamOf(archive(...entries)) } });

const mounts = () => fs.readFileSync('/proc/self/mounts', 'utf8');

describe('writable trees', () => {
  test('a container sees its layers, and only its own changes are its own', async () => {
    await using b = await bench();
    const base = await put(
      b,
      null,
      { name: 'etc/', type: 'directory', mode: 0o755 },
      { name: 'etc/one', content: '1' },
      { name: 'etc/two', content: '2' },
      { name: 'old/', type: 'directory', mode: 0o755 },
      { name: 'old/file', content: 'old' },
    );
    const top = await put(
      b,
      base.chainId,
      { name: 'etc/.wh.one' },
      { name: 'old/', type: 'directory', mode: 0o755 },
      { name: 'old/.wh..wh..opq' },
      { name: 'old/new', content: 'new' },
    );
    const [first, second] = [newId<string>(), newId<string>()];
    for (const id of [first, second]) await b.layers.createWritable(id, top.chainId);
    const root = await b.layers.mountWritable(first);
    assert.equal(await b.layers.mountWritable(first), root, 'mounting twice mounts once');
    assert.equal(mounts().split(root).length, 2);
    assert.deepEqual(fs.readdirSync(path.join(root, 'etc')), ['hostname', 'hosts', 'mtab', 'resolv.conf', 'two']);
    assert.deepEqual(fs.readdirSync(path.join(root, 'old')), ['new']);
    assert.equal(fs.statSync(root).mode & 0o7777, 0o755);
    fs.writeFileSync(path.join(root, 'mine'), '12345');
    assert.equal(await b.layers.writableSize(first), 5);
    const other = await b.layers.mountWritable(second);
    assert.equal(fs.existsSync(path.join(other, 'mine')), false);

    await b.layers.unmountWritable(first);
    await b.layers.unmountWritable(first);
    assert.ok(!mounts().includes(root));
    await b.layers.mountWritable(first);
    assert.equal(fs.readFileSync(path.join(root, 'mine'), 'utf8'), '12345');

    assert.equal(await b.layers.remove(top.chainId), 0, 'a layer below a container stays');
    for (const id of [first, second]) {
      await b.layers.removeWritable(id);
      await b.layers.removeWritable(id);
    }
    assert.ok(!mounts().includes(root));
    assert.equal(await b.layers.remove(base.chainId), 0, 'a layer below a layer stays');
    using held = b.layers.lease(top.chainId);
    assert.equal(await b.layers.remove(top.chainId), 0, 'a layer in a lease stays');
    held[Symbol.dispose]();
    assert.equal(await b.layers.remove(top.chainId), 'new'.length);
    assert.equal(await b.layers.remove(base.chainId), 5);
    await b.layers.settled();
    assert.deepEqual(fs.readdirSync(path.join(b.dir, 'layer')).sort(), ['l', 'trash', 'writable']);
    for (const folder of ['l', 'trash', 'writable']) {
      assert.deepEqual(fs.readdirSync(path.join(b.dir, 'layer', folder)), []);
    }
  });

  test('125 layers in one mount, not one more', async () => {
    await using b = await bench();
    let top: ChainId | null = null;
    for (let at = 0; at < 125; at++) top = (await put(b, top, { name: `file-${at}`, content: `${at}` })).chainId;
    const id = newId<string>();
    await b.layers.createWritable(id, top);
    const root = await b.layers.mountWritable(id);
    assert.equal(fs.readdirSync(root).filter((name) => name.startsWith('file-')).length, 125);
    assert.equal(fs.readFileSync(path.join(root, 'file-0'), 'utf8'), '0');
    assert.equal(b.layers.describeWritable(id).LowerDir?.split(':').length, 126);
    await assert.rejects(put(b, top, { name: 'more' }), { kind: 'invalid', message: /max depth exceeded/ });
  });

  test('without layers', async () => {
    await using b = await bench();
    const id = newId<string>();
    await b.layers.createWritable(id, null);
    assert.deepEqual(fs.readdirSync(await b.layers.mountWritable(id)), ['.dockerenv', 'dev', 'etc', 'proc', 'sys']);
    await assert.rejects(b.layers.createWritable(newId(), sha256('nothing') as ChainId), /does not exist/);
    await assert.rejects(b.layers.mountWritable(newId()), { kind: 'not-found' });
  });

  test('places the engine mounts over are there in every container, and are no change of it', async () => {
    await using b = await bench();
    const base = await put(
      b,
      null,
      { name: 'etc/', type: 'directory', mode: 0o700, uid: 7, gid: 8 },
      { name: 'etc/resolv.conf', type: 'symlink', linkName: '../run/resolv.conf' },
      { name: 'etc/mine', content: 'mine' },
    );
    const ids = [newId<string>(), newId<string>()];
    // Two at once, which both need what lies between.
    await Promise.all(ids.map((id) => b.layers.createWritable(id, base.chainId)));
    const [root = ''] = await Promise.all(ids.map((id) => b.layers.mountWritable(id)));
    const { mode, uid, gid } = fs.statSync(path.join(root, 'etc'));
    assert.deepEqual([mode & 0o7777, uid, gid], [0o700, 7, 8], 'as the image has it');
    assert.deepEqual(fs.readdirSync(path.join(root, 'etc')), ['hostname', 'hosts', 'mine', 'mtab', 'resolv.conf']);
    assert.ok(fs.lstatSync(path.join(root, 'etc/resolv.conf')).isFile(), 'a link would lead the mount elsewhere');
    assert.equal(fs.readlinkSync(path.join(root, 'etc/mtab')), '/proc/mounts');
    assert.equal(fs.statSync(path.join(root, 'dev/shm')).mode & 0o7777, 0o755);
    assert.equal(await b.layers.commit(ids[0] ?? ''), null);
  });

  test('a commit holds every change, and looks the same on top of the same layers', async () => {
    await using b = await bench();
    const base = await put(
      b,
      null,
      { name: 'keep', content: 'keep' },
      { name: 'gone', content: 'gone' },
      { name: 'dir/', type: 'directory', mode: 0o755 },
      { name: 'dir/inside', content: 'inside' },
      { name: 'replaced/', type: 'directory', mode: 0o755 },
      { name: 'replaced/old', content: 'old' },
    );
    const id = newId<string>();
    await b.layers.createWritable(id, base.chainId);
    const root = await b.layers.mountWritable(id);
    shell(
      `rm gone; rm -r dir; rm -r replaced; mkdir replaced; echo new > replaced/new
       echo more >> keep; ln keep again; ln -s keep soft; mknod device c 1 3; mkfifo pipe
       cp /bin/true capable; setcap cap_net_raw+ep capable
       mkdir -p made/deeply; head -c 100000 /dev/urandom > made/deeply/data; chown 5:6 made; chmod 2750 made
       touch -d '2001-02-03 04:05:06.123456789' keep
       python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('socket')"`,
      root,
    );
    const layer = await b.layers.commit(id);
    assert.ok(layer !== null);
    assert.equal(layer.parent, base.chainId);
    const tar = await readAll(b.layers.tar(layer.chainId));
    assert.equal(sha256(tar), layer.diffId);
    const file = path.join(b.dir, 'commit.tar');
    fs.writeFileSync(file, tar);
    const names = shell(`tar -tf ${file}`, '/').trim().split('\n');
    assert.ok(names.includes('.wh.gone') && names.includes('.wh.dir') && names.includes('replaced/.wh..wh..opq'));
    assert.ok(!names.some((name) => name.includes('socket')));
    assert.match(shell(`tar -tvf ${file}`, '/'), /link to (again|keep)/);

    const next = newId<string>();
    await b.layers.createWritable(next, layer.chainId);
    const copy = await b.layers.mountWritable(next);
    fs.rmSync(path.join(root, 'socket'));
    assert.equal(
      shell(`diff -r --no-dereference ${root} ${copy} 2>&1 | grep -v 'is a fifo\\|special file' || true`, '/'),
      '',
    );
    assert.equal(fs.statSync(path.join(copy, 'keep'), { bigint: true }).mtimeNs, 981173106123456789n);
    assert.equal(fs.statSync(path.join(copy, 'again')).ino, fs.statSync(path.join(copy, 'keep')).ino);
    assert.match(shell(`getcap ${copy}/capable`, '/'), /cap_net_raw/);
    const { mode, uid, gid } = fs.statSync(path.join(copy, 'made'));
    assert.deepEqual([mode & 0o7777, uid, gid], [0o2750, 5, 6]);
  });

  test('after a restart: what runs is mounted, what nobody claims is gone', async () => {
    await using before = await bench();
    const layer = await put(before, null, { name: 'f', content: 'f' });
    const [running, stopped, forgotten] = [newId<string>(), newId<string>(), newId<string>()];
    for (const id of [running, stopped, forgotten]) {
      await before.layers.createWritable(id, layer.chainId);
      fs.writeFileSync(path.join(await before.layers.mountWritable(id), 'own'), id);
    }
    await before.layers.unmountWritable(running); // as after a reboot
    const root = path.join(before.dir, 'layer');
    fs.mkdirSync(path.join(root, 'tmp-half-done/diff'), { recursive: true });
    fs.mkdirSync(path.join(root, 'a'.repeat(26), 'diff'), { recursive: true });
    fs.mkdirSync(path.join(root, 'trash/rest/of/it'), { recursive: true });
    fs.mkdirSync(path.join(root, 'writable', `tmp-${'1'.repeat(64)}`));
    fs.mkdirSync(path.join(root, "somebody's"));
    fs.rmSync(path.join(root, 'l'), { recursive: true });

    await using b = await before.reopen();
    await b.layers.reconcile(new Set([running, stopped]), new Set([running]));
    await b.layers.settled();
    assert.equal(fs.readFileSync(path.join(root, 'writable', running, 'merged/own'), 'utf8'), running);
    assert.equal(fs.readFileSync(path.join(root, 'writable', running, 'merged/f'), 'utf8'), 'f');
    assert.ok(!mounts().includes(stopped) && !mounts().includes(forgotten));
    assert.deepEqual(fs.readdirSync(path.join(root, 'writable')).sort(), [running, stopped].sort());
    assert.deepEqual(fs.readdirSync(path.join(root, 'trash')), []);
    const names = fs.readdirSync(root);
    assert.equal(names.filter((name) => name.startsWith('tmp-') || name.startsWith('aaa')).length, 0);
    assert.ok(names.includes("somebody's"), 'what is not ours stays');
    assert.equal(await b.layers.remove(layer.chainId), 0);
    assert.equal(fs.readFileSync(path.join(await b.layers.mountWritable(stopped), 'own'), 'utf8'), stopped);
  });

  test('a layer whose tree is lost is unpacked anew', async () => {
    await using before = await bench();
    const bytes = archive({ name: 'f', content: 'f' });
    const layer = await before.layers.apply(null, { from: { stream: streamOf(bytes) } });
    fs.rmSync(before.layers.describe(layer.chainId).UpperDir ?? '', { recursive: true });
    await using b = await before.reopen();
    assert.equal(b.layers.get(layer.chainId), undefined);
    await b.layers.apply(null, { from: { stream: streamOf(bytes) }, diffId: layer.diffId });
    assert.equal(sha256(await readAll(b.layers.tar(layer.chainId))), layer.diffId);
  });
});

test('ext4 is told that trees are unrelated', async (t) => {
  await using b = await bench();
  const type = shell('stat -f -c %T .', b.dir).trim();
  if (type !== 'ext2/ext3') return t.skip(`${type} has no such mark`);
  for (const folder of ['layer', 'layer/writable']) {
    assert.match(shell('lsattr -d .', path.join(b.dir, folder)).split(' ')[0] ?? '', /T/, folder);
  }
});

describe('one layer asked for twice', () => {
  test('is unpacked once, and a failure of one does not fail the other', async () => {
    await using b = await bench();
    const bytes = archive({ name: 'f', content: 'x'.repeat(100_000) });
    const diffId = sha256(bytes) as DiffId;
    const stop = new AbortController();
    const slow = streamOf(bytes);
    slow._read = () => undefined; // never delivers
    const first = b.layers.apply(null, { from: { stream: slow }, diffId, signal: stop.signal });
    const second = b.layers.apply(null, { from: { stream: streamOf(bytes) }, diffId });
    stop.abort(new Error('the client left'));
    await assert.rejects(first, /the client left/);
    assert.equal((await second).diffId, diffId);
  });

  test('a layer and the one below it at the same time', async () => {
    await using b = await bench();
    const [low, high] = [archive({ name: 'low', content: 'l' }), archive({ name: 'low2/high', content: 'h' })];
    const lowId = sha256(low) as DiffId;
    const below = b.layers.apply(null, { from: { stream: streamOf(low) }, diffId: lowId });
    const above = b.layers.apply(lowId as string as ChainId, {
      from: { stream: streamOf(high) },
      diffId: sha256(high) as DiffId,
    });
    assert.equal((await above).parent, (await below).chainId);
    await assert.rejects(put(b, sha256('no such') as ChainId, { name: 'x' }), /does not exist/);
  });
});
