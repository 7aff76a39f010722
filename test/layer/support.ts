/** Archives made by the host's tar, and layer stores in directories that go away. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { createLayerStore, type OverlayLayers } from '../../src/layer/store.ts';
import { encodeHeader, endOfArchive, paddingOf, type TarEntry } from '../../src/layer/tar/format.ts';
import { silentLog } from '../../src/lib/log.ts';
import { openStore } from '../../src/store/store.ts';
import type { Store } from '../../src/store/types.ts';

export interface Bench extends AsyncDisposable {
  readonly dir: string;
  readonly layers: OverlayLayers;
  readonly store: Store;
  /** A fresh directory. */
  folder(name: string): string;
  /** Ends the parts and opens them again on the same data, as after a restart. */
  reopen(): Promise<Bench>;
}

export async function bench(dir = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-layers-'))): Promise<Bench> {
  const store = await openStore({ dir: path.join(dir, 'store'), log: silentLog });
  const layers = await createLayerStore({ dir: path.join(dir, 'layer'), store, log: silentLog });
  const end = async () => {
    await layers.settled();
    await layers.close();
    await store.close();
  };
  let reopened = false;
  return {
    dir,
    layers,
    store,
    folder(name) {
      const folder = path.join(dir, name);
      fs.mkdirSync(folder, { recursive: true });
      return folder;
    },
    async reopen() {
      reopened = true;
      await end();
      return bench(dir);
    },
    async [Symbol.asyncDispose]() {
      if (reopened) return;
      await end();
      const writable = path.join(dir, 'layer/writable');
      for (const name of fs.readdirSync(writable)) {
        execFileSync('sh', ['-c', 'umount -l "$1/merged" 2>/dev/null; true', 'sh', path.join(writable, name)]);
      }
      fs.rmSync(dir, { recursive: true, force: true });
    },
  };
}

export const sha256 = (bytes: Uint8Array | string): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

export async function readAll(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export function shell(script: string, cwd: string): string {
  return execFileSync('sh', ['-euc', script], { cwd, encoding: 'utf8' });
}

export type ArchiveEntry = Partial<TarEntry> & { readonly content?: string | Buffer };

/** An archive by hand: what no honest tar writes. */
export function archive(...entries: readonly ArchiveEntry[]): Buffer {
  const blocks: Buffer[] = [];
  for (const { content = '', ...fields } of entries) {
    const bytes = Buffer.from(content as string);
    const header = encodeHeader({
      type: 'file',
      name: 'unnamed',
      linkName: '',
      mode: 0o644,
      uid: 0,
      gid: 0,
      size: bytes.length,
      modified: { seconds: 1_600_000_000, nanoseconds: 0 },
      major: 0,
      minor: 0,
      attributes: new Map(),
      ...fields,
    });
    blocks.push(header, bytes, Buffer.alloc(paddingOf(bytes.length)));
  }
  return Buffer.concat([...blocks, endOfArchive()]);
}

export const streamOf = (bytes: Buffer): Readable => Readable.from([bytes], { objectMode: false });

const lister = `
import hashlib, os, stat
def show(path):
    s = os.lstat(path)
    kind = stat.S_IFMT(s.st_mode)
    row = [path, oct(s.st_mode), s.st_uid, s.st_gid, s.st_mtime_ns]
    if kind != stat.S_IFDIR: row += [s.st_size, s.st_nlink]
    if kind in (stat.S_IFCHR, stat.S_IFBLK): row.append('%d:%d' % (os.major(s.st_rdev), os.minor(s.st_rdev)))
    if kind == stat.S_IFLNK: row.append(os.readlink(path))
    if kind == stat.S_IFREG: row.append(hashlib.sha256(open(path, 'rb').read()).hexdigest())
    row += [(n, os.getxattr(path, n, follow_symlinks=False)) for n in sorted(os.listxattr(path, follow_symlinks=False))]
    print(ascii(row))
for top, dirs, files in os.walk('.'):
    dirs.sort()
    for name in sorted(dirs + files): show(os.path.join(top, name))
`;

/** A tree as text: mode, owner, time, size, links, device, target, content and attributes of everything in it. */
export function describeTree(dir: string): string {
  return execFileSync('python3', ['-c', lister], { cwd: dir, encoding: 'utf8' });
}
