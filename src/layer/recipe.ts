/**
 * How a layer's tar is made again, byte for byte: a side file with everything the tree does not hold (headers, padding)
 * and, for contents, which file to read and where.
 *
 * The file is a row of frames, each a 4-byte length and that many bytes of zstd; inside, a row of records:
 * `0`, length, bytes; or `1`, length of path, path, offset (8 bytes), length (8 bytes). Numbers are little-endian.
 */
import { Buffer } from 'node:buffer';
import fs from 'node:fs';
import path from 'node:path';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { internal } from '../lib/errors.ts';
import { type ByteString, openBeneath } from '../platform/files.ts';
import type { Part } from './tar/assemble.ts';

const frameSize = 1024 * 1024;
const frameSizeMax = 16 * frameSize;

/** Names inside a layer's directory. */
export const layerFiles = { tree: 'diff', recipe: 'recipe', replaced: 'replaced' } as const;

const mark = { raw: 0, content: 1 } as const;

/** Something an archive put into the tree and replaced later: contents recorded before `record` are now at `replaced/<number>`. */
interface Replaced {
  readonly path: ByteString;
  readonly record: number;
}

export class RecipeWriter {
  readonly #dir: string;
  readonly #fd: number;
  readonly #frame = Buffer.allocUnsafe(frameSize);
  readonly #replaced: Replaced[] = [];
  #filled = 0;
  #records = 0;
  /** Start of the length of the raw record being written, so that neighbours become one. */
  #rawStart = -1;

  /** Writes into the layer directory `dir`. */
  constructor(dir: string) {
    this.#dir = dir;
    this.#fd = fs.openSync(path.join(dir, layerFiles.recipe), 'wx', 0o600);
  }

  raw(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      this.#room(6);
      if (this.#rawStart < 0) {
        this.#frame[this.#filled] = mark.raw;
        this.#rawStart = this.#filled + 1;
        this.#filled += 5;
      }
      const copied = bytes.copy(this.#frame, this.#filled, at);
      this.#filled += copied;
      at += copied;
      this.#frame.writeUInt32LE(this.#filled - this.#rawStart - 4, this.#rawStart);
    }
  }

  /** `length` bytes at `offset` of the file at `file` (canonical, below the tree). */
  content(file: ByteString, offset: number, length: number): void {
    if (length === 0) return;
    this.#room(3 + file.length + 16);
    this.#rawStart = -1;
    const frame = this.#frame;
    frame[this.#filled] = mark.content;
    frame.writeUInt16LE(file.length, this.#filled + 1);
    frame.write(file, this.#filled + 3, 'latin1');
    frame.writeBigUInt64LE(BigInt(offset), this.#filled + 3 + file.length);
    frame.writeBigUInt64LE(BigInt(length), this.#filled + 11 + file.length);
    this.#filled += 19 + file.length;
    this.#records++;
  }

  /** Says that what is at `path` gives way; returns the name it must be moved to in the directory `replaced`. */
  replace(replacedPath: ByteString): string {
    if (this.#replaced.length === 0) fs.mkdirSync(path.join(this.#dir, layerFiles.replaced), 0o700);
    this.#replaced.push({ path: replacedPath, record: this.#records });
    return String(this.#replaced.length - 1);
  }

  finish(): void {
    this.#flush();
    fs.closeSync(this.#fd);
    if (this.#replaced.length > 0) {
      fs.writeFileSync(path.join(this.#dir, layerFiles.replaced, 'list'), JSON.stringify(this.#replaced), 'latin1');
    }
  }

  abandon(): void {
    fs.closeSync(this.#fd);
  }

  #room(bytes: number): void {
    if (this.#filled + bytes > frameSize) this.#flush();
  }

  #flush(): void {
    this.#rawStart = -1;
    if (this.#filled === 0) return;
    const packed = zstdCompressSync(this.#frame.subarray(0, this.#filled), {
      params: { [constants.ZSTD_c_compressionLevel]: 1 },
    });
    const length = Buffer.alloc(4);
    length.writeUInt32LE(packed.length);
    fs.writevSync(this.#fd, [length, packed]);
    this.#filled = 0;
  }
}

/** The tar of the layer in `dir`, as parts to be assembled. */
export function* readRecipe(dir: string): Generator<Part, void> {
  const replaced = readReplaced(dir);
  const base = fs.openSync(dir, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  let content = 0;
  try {
    for (const record of records(path.join(dir, layerFiles.recipe))) {
      if (!('file' in record)) yield record;
      else {
        const fd = openContent(base, record.file, content++, replaced);
        yield { fd, offset: record.offset, length: record.length, name: `${record.file} of layer ${dir}` };
      }
    }
  } finally {
    fs.closeSync(base);
  }
}

interface ContentRecord {
  readonly file: ByteString;
  readonly offset: number;
  readonly length: number;
}

function* records(file: string): Generator<Buffer | ContentRecord, void> {
  const fd = fs.openSync(file, 'r');
  try {
    const header = Buffer.alloc(4);
    while (fs.readSync(fd, header, 0, 4, null) === 4) {
      const packed = Buffer.allocUnsafe(header.readUInt32LE());
      if (packed.length > frameSizeMax || fs.readSync(fd, packed, 0, packed.length, null) !== packed.length) {
        throw internal(`damaged file ${file}`);
      }
      const frame = zstdDecompressSync(packed, { maxOutputLength: frameSize });
      for (let at = 0; at < frame.length; ) {
        if (frame[at] === mark.raw) {
          const length = frame.readUInt32LE(at + 1);
          yield frame.subarray(at + 5, at + 5 + length);
          at += 5 + length;
        } else {
          const end = at + 3 + frame.readUInt16LE(at + 1);
          const [offset, length] = [Number(frame.readBigUInt64LE(end)), Number(frame.readBigUInt64LE(end + 8))];
          yield { file: frame.toString('latin1', at + 3, end), offset, length };
          at = end + 16;
        }
      }
    }
  } finally {
    fs.closeSync(fd);
  }
}

function readReplaced(dir: string): readonly Replaced[] {
  const list = path.join(dir, layerFiles.replaced, 'list');
  return fs.existsSync(list) ? (JSON.parse(fs.readFileSync(list, 'latin1')) as Replaced[]) : [];
}

/** Follows a file through every later replacement of it or of a directory above it. */
function openContent(base: number, file: ByteString, record: number, replaced: readonly Replaced[]): number {
  let place = `${layerFiles.tree}/${file}`;
  for (const [number, old] of replaced.entries()) {
    const from = `${layerFiles.tree}/${old.path}`;
    if (record >= old.record || (place !== from && !place.startsWith(`${from}/`))) continue;
    place = `${layerFiles.replaced}/${number}${place.slice(from.length)}`;
  }
  return openBeneath(base, place, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
}
