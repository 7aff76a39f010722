/**
 * Tar headers: what the 512-byte blocks mean, for reading and for writing.
 *
 * Read: ustar, old V7, GNU (long names, base-256 numbers, sparse files), star and PAX (byte values, extended attributes,
 * nanoseconds, both sparse forms). Written: ustar, with PAX records for whatever ustar cannot say.
 * Sources: POSIX pax(1), the GNU tar manual ("Tar Internals").
 */
import { Buffer } from 'node:buffer';
import { invalid } from '../../lib/errors.ts';
import type { ByteString, FileTime } from '../../platform/files.ts';

export const blockSize = 512;
/** Size of one PAX header or GNU long name, and of a sparse map; all are held in memory. */
export const specialSizeMax = 1024 * 1024;

export type TarType = 'file' | 'directory' | 'symlink' | 'link' | 'char' | 'block' | 'fifo' | 'other';

/** A stretch of a sparse file that has data. */
export interface Piece {
  readonly offset: number;
  readonly length: number;
}

export interface TarEntry {
  readonly type: TarType;
  readonly name: ByteString;
  /** Target of a symlink or hard link. */
  readonly linkName: ByteString;
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of content that follow in the archive. */
  readonly size: number;
  readonly modified: FileTime;
  readonly accessed?: FileTime | undefined;
  readonly major: number;
  readonly minor: number;
  readonly attributes: ReadonlyMap<ByteString, Buffer>;
  /** Present for sparse files: where the content belongs. */
  readonly sparse?: { readonly realSize: number; readonly pieces: readonly Piece[] } | undefined;
}

/** The fields of one header block before PAX and GNU extensions are applied to it. */
export interface RawHeader {
  readonly flag: string;
  readonly name: ByteString;
  readonly linkName: ByteString;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly seconds: number;
  readonly major: number;
  readonly minor: number;
}

const broken = (why: string) => invalid(`invalid tar header: ${why}`);

/** True for the zero block that ends an archive. */
export function isZeroBlock(block: Buffer): boolean {
  return block.compare(zeroBlock) === 0;
}
const zeroBlock = Buffer.alloc(blockSize);

/** Reads one header block; throws 'invalid' when its checksum is wrong. */
export function parseHeader(block: Buffer): RawHeader {
  checkSum(block);
  const magic = block.toString('latin1', 257, 265);
  const ustar = magic === 'ustar\x0000';
  const star = ustar && block.toString('latin1', 508, 512) === 'tar\0';
  const known = ustar || magic === 'ustar  \0';
  const prefix = ustar ? text(block, 345, star ? 131 : 155) : '';
  const name = text(block, 0, 100);
  const flag = String.fromCharCode(block[156] ?? 0);
  const device = flag === '3' || flag === '4';
  return {
    flag,
    name: prefix === '' ? name : `${prefix}/${name}`,
    linkName: text(block, 157, 100),
    mode: number(block, 100, 8),
    uid: number(block, 108, 8),
    gid: number(block, 116, 8),
    size: number(block, 124, 12),
    seconds: number(block, 136, 12),
    major: known && device ? number(block, 329, 8) : 0,
    minor: known && device ? number(block, 337, 8) : 0,
  };
}

/** The sum counts its own field as blanks; some old writers summed signed bytes. */
function checkSum(block: Buffer): void {
  const expected = number(block, 148, 8);
  let sum = 0;
  let high = 0;
  for (let at = 0; at < blockSize; at++) {
    const byte = at >= 148 && at < 156 ? 32 : (block[at] as number);
    sum += byte;
    if (byte > 127) high++;
  }
  if (sum !== expected && sum - 256 * high !== expected) throw broken('wrong checksum');
}

function text(block: Buffer, start: number, length: number): ByteString {
  const end = block.indexOf(0, start);
  return block.toString('latin1', start, end < 0 || end > start + length ? start + length : end);
}

/** Octal digits between blanks and NULs, or base-256 when the top bit is set. */
function number(block: Buffer, start: number, length: number): number {
  const first = block[start] as number;
  if (first & 0x80) {
    const negative = (first & 0x40) !== 0;
    let value = BigInt(negative ? first | ~0xff : first & 0x3f);
    for (let at = start + 1; at < start + length; at++) value = (value << 8n) | BigInt(block[at] as number);
    return safe(value);
  }
  let digits = '';
  let ended = false;
  for (let at = start; at < start + length; at++) {
    const byte = block[at] as number;
    if (byte === 32 || byte === 0) {
      ended = digits !== '';
    } else {
      if (byte < 48 || byte > 55 || ended) throw broken('a number is not octal');
      digits += String.fromCharCode(byte);
    }
  }
  return digits === '' ? 0 : Number.parseInt(digits, 8);
}

function safe(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER)) {
    throw broken('a number is too large');
  }
  return Number(value);
}

/** The records of a PAX header in their order; values are bytes. */
export function parsePax(data: Buffer): [key: ByteString, value: Buffer][] {
  const records: [ByteString, Buffer][] = [];
  for (let at = 0; at < data.length; ) {
    const blank = data.indexOf(32, at);
    const digits = blank < 0 ? '' : data.toString('latin1', at, blank);
    const end = at + Number(digits);
    if (!/^[0-9]{1,10}$/.test(digits) || end > data.length || end <= blank + 1 || data[end - 1] !== 10) {
      throw broken('broken PAX record');
    }
    const equals = data.indexOf(61, blank);
    if (equals < 0 || equals >= end) throw broken('broken PAX record');
    records.push([data.toString('latin1', blank + 1, equals), Buffer.from(data.subarray(equals + 1, end - 1))]);
    at = end;
  }
  return records;
}

const xattrPrefix = 'SCHILY.xattr.';
const typeOfFlag: Readonly<Record<string, TarType>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

/** What goes before a header and changes it. */
export interface Extensions {
  readonly pax: readonly (readonly [key: ByteString, value: Buffer])[];
  readonly longName?: ByteString | undefined;
  readonly longLink?: ByteString | undefined;
}

/** Form of sparse file announced by PAX records: 1.0 keeps its map at the start of the content. */
export type SparseHint =
  | { readonly form: 'none' }
  | { readonly form: 'listed'; readonly realSize: number; readonly pieces: readonly Piece[] }
  | { readonly form: 'in-content'; readonly realSize: number };

/** Applies extensions to a header. An empty PAX value takes an earlier one back. */
export function combine(
  raw: RawHeader,
  extensions: Extensions,
): { readonly entry: TarEntry; readonly sparse: SparseHint } {
  const said = new Map<ByteString, Buffer>();
  const attributes = new Map<ByteString, Buffer>();
  const map: number[] = [];
  for (const [key, value] of extensions.pax) {
    if (key.startsWith(xattrPrefix)) attributes.set(key.slice(xattrPrefix.length), value);
    else if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') map.push(decimal(value));
    else if (value.length === 0) said.delete(key);
    else said.set(key, value);
  }
  const words = (key: string, otherwise: ByteString): ByteString => said.get(key)?.toString('latin1') ?? otherwise;
  const count = (key: string, otherwise: number): number => {
    const value = said.get(key);
    return value === undefined ? otherwise : decimal(value);
  };
  const time = (key: string): FileTime | undefined => {
    const value = said.get(key);
    return value === undefined ? undefined : paxTime(value.toString('latin1'));
  };

  const sparse = sparseHint(said, map, count);
  const name = words('GNU.sparse.name', words('path', extensions.longName ?? raw.name));
  let type = typeOfFlag[raw.flag] ?? 'other';
  if (raw.flag === '\0' && name.endsWith('/')) type = 'directory';
  const hasContent = type === 'file' || type === 'other';
  const size = hasContent ? count('size', raw.size) : 0;
  if (size < 0) throw broken('negative size');
  const entry: TarEntry = {
    type,
    name: checkedName(name),
    linkName: checkedName(words('linkpath', extensions.longLink ?? raw.linkName)),
    mode: raw.mode & 0o7777,
    uid: checkedOwner(count('uid', raw.uid)),
    gid: checkedOwner(count('gid', raw.gid)),
    size,
    modified: time('mtime') ?? { seconds: raw.seconds, nanoseconds: 0 },
    accessed: time('atime'),
    major: raw.major,
    minor: raw.minor,
    attributes,
  };
  return { entry, sparse };
}

function sparseHint(
  said: ReadonlyMap<ByteString, Buffer>,
  pairs: readonly number[],
  count: (key: string, otherwise: number) => number,
): SparseHint {
  const realSize = count('GNU.sparse.realsize', count('GNU.sparse.size', -1));
  if (count('GNU.sparse.major', 0) === 1 && count('GNU.sparse.minor', 0) === 0) return { form: 'in-content', realSize };
  const listed = said.get('GNU.sparse.map');
  const numbers = listed === undefined ? pairs : listed.toString('latin1').split(',').map(decimalText);
  if (numbers.length === 0 && realSize < 0) return { form: 'none' };
  return { form: 'listed', realSize, pieces: piecesOf(numbers) };
}

/** Pairs of offset and length; a file whose end is a hole has an empty piece there, which says nothing more. */
export function piecesOf(numbers: readonly number[]): Piece[] {
  if (numbers.length % 2 !== 0) throw broken('broken sparse map');
  const pieces: Piece[] = [];
  for (let at = 0; at < numbers.length; at += 2) {
    pieces.push({ offset: numbers[at] as number, length: numbers[at + 1] as number });
  }
  return pieces;
}

/** Throws unless the pieces are in order, inside the file, and together as long as the content. */
export function checkPieces(pieces: readonly Piece[], realSize: number, contentSize: number): void {
  let reached = 0;
  let total = 0;
  for (const { offset, length } of pieces) {
    if (offset < reached || length < 0 || offset + length > realSize) throw broken('broken sparse map');
    reached = offset + length;
    total += length;
  }
  if (total !== contentSize) throw broken('sparse map and size differ');
}

/** The map of an old GNU sparse header (or of a block that continues it): up to `slots` pairs of 12-byte numbers. */
export function parseGnuSparse(block: Buffer, start: number, slots: number): Piece[] {
  const pieces: Piece[] = [];
  for (let at = start; at < start + slots * 24; at += 24) {
    if (block[at] === 0) break;
    pieces.push({ offset: number(block, at, 12), length: number(block, at + 12, 12) });
  }
  return pieces;
}

/** Of an old GNU sparse header: size of the file with its holes, and whether blocks with more pieces follow. */
export const gnuSparseSize = (block: Buffer): number => number(block, 483, 12);
export const gnuSparseGoesOn = (block: Buffer, at: number): boolean => block[at] !== 0 && block[at] !== 48;

const decimal = (value: Buffer): number => decimalText(value.toString('latin1'));

export function decimalText(digits: string): number {
  if (!/^-?[0-9]{1,19}$/.test(digits)) throw broken('a number is not decimal');
  return safe(BigInt(digits));
}

function paxTime(value: string): FileTime {
  const match = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/.exec(value);
  if (!match) throw broken('broken time');
  const whole = Number(match[2]);
  const nanoseconds = Number((match[3] ?? '').slice(0, 9).padEnd(9, '0'));
  if (match[1] === '') return { seconds: whole, nanoseconds };
  return nanoseconds === 0
    ? { seconds: -whole, nanoseconds: 0 }
    : { seconds: -whole - 1, nanoseconds: 1e9 - nanoseconds };
}

function checkedName(name: ByteString): ByteString {
  if (name.includes('\0')) throw broken('a name holds a NUL');
  return name;
}

/** The all-ones id means "leave as it is" to chown(2). */
function checkedOwner(id: number): number {
  if (id < 0 || id >= 0xffffffff) throw broken('an owner is out of range');
  return id;
}

// Writing ---------------------------------------------------------------------------------------------------------

const flagOfType: Readonly<Record<TarType, string>> = {
  file: '0',
  link: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
  other: '0',
};

/** Zero bytes that follow content of this size, up to a whole block. */
export const paddingOf = (size: number): number => (blockSize - (size % blockSize)) % blockSize;

/** The two zero blocks that end an archive. */
export const endOfArchive = (): Buffer => Buffer.alloc(2 * blockSize);

/** The header of a plain entry; sparse files are not written. `size` bytes of content and `paddingOf(size)` must follow. */
export function encodeHeader(entry: TarEntry): Buffer {
  const pax: [ByteString, Buffer][] = [];
  const say = (key: ByteString, value: string) => pax.push([key, Buffer.from(value, 'latin1')]);
  const split = splitName(entry.name);
  if (split === null) say('path', entry.name);
  const [prefix, name] = split ?? ['', entry.name.slice(0, 100)];
  if (entry.linkName.length > 100) say('linkpath', entry.linkName);
  if (entry.uid > 0o7777777) say('uid', String(entry.uid));
  if (entry.gid > 0o7777777) say('gid', String(entry.gid));
  if (entry.size > 0o77777777777) say('size', String(entry.size));
  const { seconds, nanoseconds } = entry.modified;
  if (nanoseconds !== 0 || seconds < 0 || seconds > 0o77777777777) say('mtime', decimalTime(seconds, nanoseconds));
  for (const [key, value] of entry.attributes) pax.push([xattrPrefix + key, value]);

  const fits = (value: number, max: number): number => (value < 0 || value > max ? 0 : value);
  const block = encodeBlock({
    flag: flagOfType[entry.type],
    prefix,
    name,
    linkName: entry.linkName.slice(0, 100),
    mode: entry.mode,
    uid: fits(entry.uid, 0o7777777),
    gid: fits(entry.gid, 0o7777777),
    size: fits(entry.size, 0o77777777777),
    seconds: fits(seconds, 0o77777777777),
    major: entry.major,
    minor: entry.minor,
  });
  if (pax.length === 0) return block;
  const records = Buffer.concat(pax.map(([key, value]) => encodeRecord(key, value)));
  const header = encodeBlock({
    flag: 'x',
    prefix: '',
    name: `PaxHeaders.0/${entry.name.slice(-80)}`.replace(/\/$/, ''),
    linkName: '',
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: records.length,
    seconds: 0,
    major: 0,
    minor: 0,
  });
  return Buffer.concat([header, records, Buffer.alloc(paddingOf(records.length)), block]);
}

function splitName(name: ByteString): [prefix: ByteString, name: ByteString] | null {
  if (name.length <= 100) return ['', name];
  for (let slash = name.indexOf('/', name.length - 101); slash >= 0; slash = name.indexOf('/', slash + 1)) {
    if (slash > 155) return null;
    if (slash > 0 && slash < name.length - 1) return [name.slice(0, slash), name.slice(slash + 1)];
  }
  return null;
}

function decimalTime(seconds: number, nanoseconds: number): string {
  if (seconds < 0 && nanoseconds > 0) {
    return `-${-seconds - 1}.${String(1e9 - nanoseconds).padStart(9, '0')}`;
  }
  return nanoseconds === 0 ? String(seconds) : `${seconds}.${String(nanoseconds).padStart(9, '0')}`;
}

/** The length at the start counts itself. */
function encodeRecord(key: ByteString, value: Buffer): Buffer {
  const rest = key.length + value.length + 3;
  let length = rest + String(rest).length;
  if (rest + String(length).length > length) length++;
  return Buffer.concat([Buffer.from(`${length} ${key}=`, 'latin1'), value, Buffer.from('\n')]);
}

function encodeBlock(header: RawHeader & { readonly prefix: ByteString }): Buffer {
  const block = Buffer.alloc(blockSize);
  const octal = (value: number, start: number, length: number) => {
    let left = value;
    for (let at = start + length - 2; at >= start; at--) {
      const higher = Math.floor(left / 8);
      block[at] = 48 + left - 8 * higher;
      left = higher;
    }
  };
  block.write(header.name, 0, 100, 'latin1');
  octal(header.mode, 100, 8);
  octal(header.uid, 108, 8);
  octal(header.gid, 116, 8);
  octal(header.size, 124, 12);
  octal(header.seconds, 136, 12);
  block.fill(32, 148, 156);
  block[156] = header.flag.charCodeAt(0);
  if (header.linkName !== '') block.write(header.linkName, 157, 100, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  octal(header.major, 329, 8);
  octal(header.minor, 337, 8);
  if (header.prefix !== '') block.write(header.prefix, 345, 155, 'latin1');
  let sum = 0;
  for (let at = 0; at < blockSize; at++) sum += block[at] as number;
  octal(sum, 148, 7);
  block[154] = 0;
  return block;
}
