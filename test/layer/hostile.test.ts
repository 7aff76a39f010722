/** Archives made to break out, to break things, or to cost too much. Nothing may be made outside of the layer. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { readRecipe } from '../../src/layer/recipe.ts';
import { assemble, freshBuffers } from '../../src/layer/tar/assemble.ts';
import { readNow } from '../../src/layer/tar/reader.ts';
import { unpack } from '../../src/layer/unpack.ts';
import type { EngineError } from '../../src/lib/errors.ts';
import { archive, type Bench, bench, describeTree, sha256, streamOf } from './support.ts';

describe('hostile archives', () => {
  let b: Bench;
  let outside: string;
  before(async () => {
    b = await bench();
    outside = b.folder('outside');
    fs.writeFileSync(path.join(outside, 'victim'), 'untouched');
  });
  after(async () => b[Symbol.asyncDispose]());

  const apply = (bytes: Buffer) => b.layers.apply(null, { from: { stream: streamOf(bytes) } });
  const refused = async (bytes: Buffer, message: RegExp) => {
    const leftBefore = fs.readdirSync(path.join(b.dir, 'layer')).sort();
    await assert.rejects(apply(bytes), { kind: 'invalid', message });
    assert.deepEqual(fs.readdirSync(path.join(b.dir, 'layer')).sort(), leftBefore, 'nothing is left behind');
  };
  /** Bytes of one good header, changed and summed again. */
  const header = (change: (block: Buffer) => void): Buffer => {
    const bytes = archive({ name: 'f', content: 'content' });
    change(bytes);
    bytes.write('        ', 148);
    const sum = bytes.subarray(0, 512).reduce((total, byte) => total + byte, 0);
    bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    return bytes;
  };
  const untouched = () => {
    assert.equal(fs.readFileSync(path.join(outside, 'victim'), 'utf8'), 'untouched');
    assert.deepEqual(fs.readdirSync(outside), ['victim']);
  };

  test('names that climb', async () => {
    for (const name of ['../x', 'a/../../x', '/../x', 'a/b/../../../../../../x', '..']) {
      await refused(archive({ name, content: 'x' }), /outside of its root/);
    }
    const layer = await apply(archive({ name: 'a/../b', content: 'fine' }));
    assert.deepEqual(fs.readdirSync(b.layers.describe(layer.chainId).UpperDir ?? ''), ['b']);
  });

  test('writing through links that lead out', async () => {
    // Resolved below the layer, as in the container: there the target does not exist.
    for (const target of [outside, `../../../../../../../../..${outside}`, '/proc/self/root']) {
      await refused(
        archive({ name: 'l', type: 'symlink', linkName: target }, { name: 'l/victim', content: 'changed' }),
        /cannot unpack/,
      );
    }
    untouched();
    const layer = await apply(
      archive(
        { name: 'victim', type: 'symlink', linkName: path.join(outside, 'victim') },
        { name: 'victim', content: 'a file in its place' },
        { name: 'top', type: 'symlink', linkName: '/' },
        { name: 'top/inside', content: 'below the layer' },
      ),
    );
    const dir = b.layers.describe(layer.chainId).UpperDir ?? '';
    assert.equal(fs.readFileSync(path.join(dir, 'inside'), 'utf8'), 'below the layer');
    untouched();
  });

  test('hard links that lead out', async () => {
    await refused(
      archive({ name: 'l', type: 'link', linkName: `../../../../../../..${outside}/victim` }),
      /outside of its root/,
    );
    await refused(archive({ name: 'l', type: 'link', linkName: path.join(outside, 'victim') }), /cannot unpack/);
    await refused(
      archive({ name: 'd', type: 'symlink', linkName: outside }, { name: 'l', type: 'link', linkName: 'd/victim' }),
      /cannot unpack/,
    );
    assert.equal(fs.statSync(path.join(outside, 'victim')).nlink, 1);
    untouched();
  });

  test('whiteouts that lead out', async () => {
    for (const name of ['.wh...', '.wh..', '.wh.', 'd/.wh...']) {
      await refused(archive({ name }), /broken whiteout|cannot unpack/);
    }
    await refused(
      archive({ name: 'l', type: 'symlink', linkName: outside }, { name: 'l/.wh.victim' }),
      /cannot unpack/,
    );
    await refused(
      archive({ name: 'l', type: 'symlink', linkName: outside }, { name: 'l/.wh..wh..opq' }),
      /cannot unpack/,
    );
    untouched();
    assert.doesNotMatch(describeTree(b.dir), /outside'.*opaque/);
  });

  test('headers that are none', async () => {
    await refused(Buffer.from('this is no tar'.repeat(100)), /invalid tar header/);
    await refused(Buffer.alloc(512, 255), /invalid tar header/);
    const wrong = archive({ name: 'f' });
    wrong[0] = 120;
    await refused(wrong, /wrong checksum/);
    await refused(Buffer.concat([Buffer.alloc(512), archive({ name: 'f' })]), /lone zero block/);
    await refused(
      header((block) => block.write('9999999\0', 100)),
      /not octal/,
    );
    await refused(
      header((block) => block.write('zzz', 124)),
      /not octal/,
    );
  });

  test('archives cut short', async () => {
    const whole = archive({ name: 'f', content: 'x'.repeat(5000) });
    for (const length of [1, 511, 513, 1024, 5000])
      await refused(whole.subarray(0, length), /unexpected EOF|invalid tar header/);
    const packed = gzipSync(whole);
    await refused(packed.subarray(0, packed.length - 9), /broken compressed data|unexpected EOF/);
    packed.writeUInt32LE(0, packed.length - 8);
    await refused(packed, /broken compressed data/);
  });

  test('sizes nobody has', async () => {
    const base256 = (value: bigint) => (block: Buffer) => {
      block.fill(0, 124, 136);
      block[124] = 0x80;
      block.writeBigUInt64BE(value, 128);
    };
    await refused(header(base256(1n << 62n)), /too large/);
    await refused(header(base256(1n << 50n)), /unexpected EOF/);
    await refused(
      header((block) => block.fill(255, 124, 136)),
      /negative/,
    );
    // Extended headers are held in memory.
    await refused(
      header((block) => {
        block.write('x', 156);
        block.write('77777777777\0', 124);
      }),
      /too long/,
    );
  });

  test('sparse maps that lie', async () => {
    const sparse = (map: string, realSize: string) => {
      const record = (key: string, value: string) => {
        const rest = ` ${key}=${value}\n`;
        let length = rest.length + 1;
        while (`${length}${rest}`.length !== length) length++;
        return `${length}${rest}`;
      };
      const pax = record('GNU.sparse.map', map) + record('GNU.sparse.size', realSize);
      const bytes = archive({ name: 'pax', content: pax }, { name: 'f', content: 'content' });
      bytes.write('x', 156);
      bytes.write('        ', 148);
      const sum = bytes.subarray(0, 512).reduce((total, byte) => total + byte, 0);
      bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
      return bytes;
    };
    await refused(sparse('0,7,3,4', '100'), /sparse map/);
    await refused(sparse('50,7', '20'), /sparse map/);
    await refused(sparse('0,3', '100'), /differ/);
    await refused(sparse('0,7,9', '100'), /sparse map/);
    await refused(sparse('0,-7,9,14', '100'), /sparse map/);
    await refused(sparse('8000000000000000,7', '9000000000000000'), /cannot unpack/);
  });

  test('any bytes changed: refused or unpacked inside, never anything else', () => {
    const seed = archive(
      { name: 'dir/', type: 'directory', mode: 0o755 },
      { name: 'dir/file', content: 'x'.repeat(600), attributes: new Map([['user.a', Buffer.from('1')]]) },
      { name: `dir/${'long/'.repeat(40)}name`, content: 'long', modified: { seconds: 1, nanoseconds: 5 } },
      { name: 'link', type: 'symlink', linkName: '../../../../..' },
      { name: 'link/file', content: 'through a link' },
      { name: 'hard', type: 'link', linkName: 'dir/file' },
      { name: 'dir/.wh.gone' },
    );
    let random = 42;
    const next = (below: number) => {
      random = (random * 1103515245 + 12345) & 0x7fffffff;
      return random % below;
    };
    const counts = { refused: 0, unpacked: 0 };
    for (let round = 0; round < 400; round++) {
      const bytes = Buffer.from(seed);
      const header = next(bytes.length / 512) * 512;
      for (let change = next(4); change >= 0; change--)
        bytes[header + next(512)] = [0, 46, 47, 48, 55, 57, 128, 255][next(8)] ?? 0;
      // Half of them with a right sum, so that the change counts.
      if (next(2) === 0) {
        bytes.write('        ', header + 148);
        const sum = bytes.subarray(header, header + 512).reduce((total, byte) => total + byte, 0);
        bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, header + 148);
      }
      const file = path.join(b.dir, 'fuzzed.tar');
      fs.writeFileSync(file, bytes);
      const into = fs.mkdtempSync(path.join(b.dir, 'fuzz-'));
      const fd = fs.openSync(file, 'r');
      try {
        readNow(unpack({ into, as: 'layer', cancelled: () => false }), fd);
        counts.unpacked++;
        assert.equal(sha256(Buffer.concat([...assemble(readRecipe(into), freshBuffers())])), sha256(bytes));
      } catch (error) {
        assert.equal((error as EngineError).kind, 'invalid', String(error));
        counts.refused++;
      } finally {
        fs.closeSync(fd);
        fs.rmSync(into, { recursive: true });
      }
    }
    assert.ok(counts.refused > 50 && counts.unpacked > 50, JSON.stringify(counts));
    untouched();
  });

  test('a bomb of zeros needs no memory', async () => {
    const big = archive({ name: 'zeros', content: Buffer.alloc(200 * 1024 * 1024) });
    const packed = gzipSync(big, { level: 1 });
    const before = process.memoryUsage().rss;
    await apply(packed);
    assert.ok(process.memoryUsage().rss - before < 100 * 1024 * 1024);
  });
});
