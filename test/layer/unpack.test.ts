/** Archives of GNU tar, applied and compared with GNU tar's own extraction; and made again, byte for byte. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { ChainId, DiffId } from '../../src/lib/ids.ts';
import { archive, type Bench, bench, describeTree, readAll, sha256, shell, streamOf } from './support.ts';

/** A tree with everything a layer may hold. */
const everything = `
  mkdir -p plain deep/er/still sticky set
  echo hello > plain/file; : > plain/empty
  head -c 3000000 /dev/urandom > plain/large
  printf 'a\\tb' > "plain/with
newline"
  printf x > "$(printf 'plain/bytes-\\377\\376')"
  ln plain/file deep/hard; ln plain/file deep/er/harder
  ln -s ../plain/file deep/soft; ln -s /etc/passwd deep/absolute; ln -s nowhere deep/dangling
  ln deep/soft deep/hard-soft
  mknod set/char c 10 200; mknod set/block b 259 70000; mknod set/fifo p
  name=$(printf 'n%.0s' $(seq 1 200)); mkdir -p long/$name/$name; echo long > long/$name/$name/$name
  ln -s $name/$name/$name long/link; ln -s /$name/$name deep/far
  truncate -s 20M sparse-end; dd if=/dev/urandom of=sparse-end bs=4096 count=2 conv=notrunc status=none
  truncate -s 30M sparse-many
  for at in $(seq 1 60); do dd if=/dev/urandom of=sparse-many bs=4096 count=1 seek=$((at * 100)) conv=notrunc status=none; done
  truncate -s 5M sparse-empty
  cp /bin/true set/capable; setcap cap_net_raw,cap_net_bind_service+ep set/capable
  python3 -c "import os; os.setxattr('plain/file', 'user.words', b'line\\nline\\0end'); os.setxattr('deep', 'user.dir', b'1')"
  chmod 4755 set/capable; cp /bin/true set/uid; chmod 6711 set/uid; chmod 1777 sticky; chmod 000 plain/empty
  chown 3000000:4000000 plain/large; chown -h 12:34 deep/soft; chown 5:6 deep/er
  touch -d '2001-02-03 04:05:06.123456789' plain/file deep/er; touch -h -d '1999-01-01 00:00:00.5' deep/soft
  touch -d '1965-01-01 00:00:00.25' plain/empty; touch -d '2100-01-01' sticky
`;

describe('archives of GNU tar', () => {
  let b: Bench;
  let tree: string;
  before(async () => {
    b = await bench();
    tree = b.folder('tree');
    shell(everything, tree);
  });
  after(async () => b[Symbol.asyncDispose]());

  const forms: Readonly<Record<string, string>> = {
    'pax with attributes': '--format=pax --xattrs --xattrs-include=*',
    'pax, sparse 1.0': '--format=pax --xattrs --xattrs-include=* -S --sparse-version=1.0',
    'pax, sparse 0.1': '--format=pax -S --sparse-version=0.1',
    'pax, sparse 0.0': '--format=pax -S --sparse-version=0.0',
    'gnu, sparse': '--format=gnu -S',
    gnu: '--format=gnu',
    'gnu, absolute names': '--format=gnu -P --transform=s,^,/,S',
    ustar: '--format=ustar --exclude=long --exclude=far --exclude=empty --exclude=large',
    v7: '--format=v7 --exclude=long --exclude=far --exclude=set --exclude=empty --exclude=large',
  };
  for (const [name, options] of Object.entries(forms)) {
    test(name, async () => {
      const tar = path.join(b.dir, `${name.replaceAll(/\W/g, '-')}.tar`);
      shell(
        `find . -mindepth 1 -print0 | LC_ALL=C sort -z | tar -c ${options} -f ${tar} --no-recursion --null -T -`,
        tree,
      );
      const expected = b.folder(`${name.replaceAll(/\W/g, '-')}-expected`);
      shell(`tar -x -p --same-owner --xattrs --xattrs-include='*' -f ${tar} 2>/dev/null`, expected);
      const bytes = fs.readFileSync(tar);

      const layer = await b.layers.apply(null, { from: { path: tar } });
      assert.equal(layer.diffId, sha256(bytes));
      const got = b.layers.describe(layer.chainId).UpperDir ?? '';
      assert.equal(describeTree(got), describeTree(expected));
      const again = await readAll(b.layers.tar(layer.chainId));
      assert.equal(sha256(again), layer.diffId, 'made again byte for byte');
      assert.equal(again.length, bytes.length);
      fs.rmSync(expected, { recursive: true });
      fs.rmSync(tar);
      await b.layers.remove(layer.chainId);
    });
  }

  test('holes stay holes', async () => {
    const tar = path.join(b.dir, 'holes.tar');
    shell(`tar -c --format=pax -S -f ${tar} sparse-end sparse-many sparse-empty`, tree);
    const layer = await b.layers.apply(null, { from: { path: tar } });
    const got = b.layers.describe(layer.chainId).UpperDir ?? '';
    assert.ok(fs.statSync(path.join(got, 'sparse-many')).blocks * 512 < 1_000_000);
    assert.equal(fs.statSync(path.join(got, 'sparse-empty')).blocks, 0);
    assert.equal(layer.size, (20 + 30 + 5) * 1024 * 1024);
  });

  for (const [compression, command] of Object.entries({
    gzip: 'gzip -1',
    'gzip in several members': "sh -c 'dd bs=512 count=5 status=none | gzip -1; cat | gzip -1'",
    zstd: 'zstd -q -1',
    xz: 'xz -0 -T1',
    bzip2: 'bzip2 -1',
  })) {
    for (const from of ['path', 'stream'] as const) {
      test(`${compression} by ${from}`, async () => {
        const name = `compressed-${compression.replaceAll(' ', '-')}-${from}`;
        shell(
          `echo ${name} > mark; tar -c --exclude=plain/large mark plain > ../${name}.tar; ${command} < ../${name}.tar > ../${name}`,
          tree,
        );
        const file = path.join(b.dir, name);
        const size = fs.statSync(file).size;
        const told: number[] = [];
        const layer = await b.layers.apply(null, {
          from: from === 'path' ? { path: file } : { stream: fs.createReadStream(file, { highWaterMark: 5 }) },
          progress: (bytes) => told.push(bytes),
        });
        assert.equal(layer.diffId, sha256(fs.readFileSync(`${file}.tar`)));
        assert.equal(told.at(-1), size);
      });
    }
  }
});

describe('what only odd archives hold', () => {
  let b: Bench;
  before(async () => {
    b = await bench();
  });
  after(async () => b[Symbol.asyncDispose]());

  const apply = async (bytes: Buffer) => {
    const layer = await b.layers.apply(null, { from: { stream: streamOf(bytes) } });
    assert.equal(layer.diffId, sha256(bytes));
    assert.equal(sha256(await readAll(b.layers.tar(layer.chainId))), layer.diffId, 'made again byte for byte');
    return b.layers.describe(layer.chainId).UpperDir ?? '';
  };

  test('whiteouts become what overlay understands', async () => {
    const dir = await apply(
      archive(
        { name: 'a/', type: 'directory', mode: 0o755 },
        { name: 'a/.wh.gone' },
        { name: 'b/', type: 'directory', mode: 0o700 },
        { name: 'b/.wh..wh..opq' },
        { name: '.wh..wh.aufs', content: 'left by AUFS' },
      ),
    );
    const gone = fs.lstatSync(path.join(dir, 'a/gone'));
    assert.ok(gone.isCharacterDevice());
    assert.equal(gone.rdev, 0);
    assert.match(describeTree(dir), /'\.\/b',.*trusted\.overlay\.opaque', b'y'/);
  });

  test('a name twice: the later one counts, the tar is kept', async () => {
    const dir = await apply(
      archive(
        { name: 'd/', type: 'directory', mode: 0o755 },
        { name: 'd/file', content: 'first' },
        { name: 'd/file', content: 'the second' },
        { name: 'e/', type: 'directory', mode: 0o755 },
        { name: 'e/below', content: 'under a directory that becomes a file' },
        { name: 'link', type: 'symlink', linkName: 'e' },
        { name: 'link/through', content: 'by way of a link' },
        { name: 'e', content: 'now a file' },
        { name: 'd/file', content: 'third and last' },
        { name: 'd/file', type: 'link', linkName: 'd/file' },
      ),
    );
    assert.equal(fs.readFileSync(path.join(dir, 'd/file'), 'utf8'), 'third and last');
    assert.equal(fs.readFileSync(path.join(dir, 'e'), 'utf8'), 'now a file');
  });

  test('an archive without its end, with a tail, and an empty one', async () => {
    const whole = archive({ name: 'f', content: 'x'.repeat(700) });
    await apply(whole.subarray(0, -1024));
    await apply(Buffer.concat([whole, Buffer.from('anything at all'), Buffer.alloc(9000)]));
    await apply(Buffer.alloc(1024));
    await apply(Buffer.alloc(0));
  });

  test("overlay's own attributes are not taken from an archive", async () => {
    const dir = await apply(
      archive({
        name: 'd/',
        type: 'directory',
        mode: 0o755,
        attributes: new Map([
          ['trusted.overlay.redirect', Buffer.from('/etc')],
          ['user.kept', Buffer.from('yes')],
        ]),
      }),
    );
    const text = describeTree(dir);
    assert.match(text, /user\.kept/);
    assert.doesNotMatch(text, /overlay/);
  });

  test('the root of a container is 0755 root, whatever an archive says', async () => {
    const dir = await apply(archive({ name: './', type: 'directory', mode: 0o700, uid: 7 }, { name: './f' }));
    const { mode, uid } = fs.statSync(dir);
    assert.deepEqual([mode & 0o7777, uid], [0o755, 0]);
  });

  test('directories no entry describes look like those they cover', async () => {
    const base = archive({ name: 'home/', type: 'directory', mode: 0o2775, uid: 3, gid: 4 }, { name: 'home/a' });
    const parent = await b.layers.apply(null, { from: { stream: streamOf(base) } });
    const child = await b.layers.apply(parent.chainId, {
      from: { stream: streamOf(archive({ name: 'home/new/b', content: 'b' }, { name: 'fresh/c' })) },
    });
    const dir = b.layers.describe(child.chainId).UpperDir ?? '';
    const { mode, uid, gid } = fs.statSync(path.join(dir, 'home'));
    assert.deepEqual([mode & 0o7777, uid, gid], [0o2775, 3, 4]);
    assert.equal(fs.statSync(path.join(dir, 'fresh')).mode & 0o7777, 0o755);
    assert.deepEqual(fs.statSync(path.join(dir, 'home/new/b')).gid, 0, 'the group of a setgid directory is not taken');
  });

  test('ten thousand names', async () => {
    const entries = Array.from({ length: 10_000 }, (_, at) => ({ name: `d${at % 100}/f${at}`, content: `${at}` }));
    const dir = await apply(archive(...entries));
    assert.equal(fs.readFileSync(path.join(dir, 'd99/f9999'), 'utf8'), '9999');
  });

  test('a source that breaks off fails with its own error, compressed or not', async () => {
    const bytes = archive({ name: 'f', content: randomBytes(300_000) });
    for (const source of [bytes, gzipSync(bytes)]) {
      const stream = Readable.from(
        (async function* () {
          yield source.subarray(0, 200_000);
          throw Object.assign(new Error('connection lost'), { code: 'ECONNRESET' });
        })(),
        { objectMode: false },
      );
      await assert.rejects(b.layers.apply(null, { from: { stream } }), {
        message: 'connection lost',
        code: 'ECONNRESET',
      });
    }
    const stop = new AbortController();
    const silent = new Readable({ read: () => undefined });
    silent.push(bytes.subarray(0, 10_000));
    const applying = b.layers.apply(null, { from: { stream: silent }, signal: stop.signal });
    setTimeout(() => stop.abort(new Error('enough')), 50);
    await assert.rejects(applying, { message: 'enough' });
    assert.ok(silent.destroyed);
  });

  test('a digest that is not the promised one counts for nothing', async () => {
    const bytes = archive({ name: 'wrong', content: 'digest' });
    const diffId = sha256('something else') as DiffId;
    await assert.rejects(b.layers.apply(null, { from: { stream: streamOf(bytes) }, diffId }), {
      kind: 'invalid',
      message: /layer verification failed/,
    });
    assert.equal(b.layers.get(diffId as string as ChainId), undefined);
  });
});
