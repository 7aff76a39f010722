/**
 * Reads a tar archive in large pieces. Where bytes are missing it yields the room for more and goes on once some are there:
 * whoever drives it decides whether to wait for them (`readNow`) or to do something else meanwhile (`../arrival.ts`).
 */
import { Buffer } from 'node:buffer';
import fs from 'node:fs';
import { invalid } from '../../lib/errors.ts';
import type { ByteString } from '../../platform/files.ts';
import {
  blockSize,
  checkPieces,
  combine,
  decimalText,
  type Extensions,
  gnuSparseGoesOn,
  gnuSparseSize,
  isZeroBlock,
  type Piece,
  paddingOf,
  parseGnuSparse,
  parseHeader,
  parsePax,
  piecesOf,
  type RawHeader,
  specialSizeMax,
  type TarEntry,
} from './format.ts';

const bufferSize = 512 * 1024;
/** Numbers of a sparse map are lines of digits at the start of the content. */
const sparseNumbersMax = specialSizeMax / 2;

const cutShort = () => invalid('the archive ends in the middle: unexpected EOF');

export interface ReaderOptions {
  /** Told every byte of the archive that `content` did not hand out, in order: headers, padding, the rest. */
  readonly keep: (bytes: Buffer) => void;
  readonly cancelled: () => boolean;
  /** Told every byte, as it arrives. */
  readonly arrived?: (bytes: Buffer) => void;
}

/** Room for the next bytes of the input, to be filled from its start. */
export type Room = Buffer;
/** Work that yields room, and goes on with the number of bytes put there: at least one, 0 at the end of the input. */
export type Reading<T> = Generator<Room, T, number>;

/** Does a reading on the spot, with what comes from a descriptor. Blocks. */
export function readNow<T>(reading: Reading<T>, fd: number): T {
  let step = reading.next(0); // the first answer is to no question
  while (step.done !== true) {
    let read: number;
    try {
      read = fs.readSync(fd, step.value);
    } catch (error) {
      step = reading.throw(error); // gives back what it holds
      continue;
    }
    step = reading.next(read);
  }
  return step.value;
}

/** The bytes of an archive, a buffer at a time. */
class ByteSource {
  readonly #cancelled: () => boolean;
  readonly #arrived: ((bytes: Buffer) => void) | undefined;
  readonly #buffer = Buffer.allocUnsafe(bufferSize);
  #start = 0;
  #end = 0;
  /** Bytes read so far. */
  bytes = 0;

  constructor({ cancelled, arrived }: ReaderOptions) {
    this.#cancelled = cancelled;
    this.#arrived = arrived;
  }

  /** Exactly `length` bytes (at most `bufferSize`), valid until the next call; null at the end of the input. */
  *take(length: number): Reading<Buffer | null> {
    while (this.#end - this.#start < length) {
      if (!(yield* this.#fill())) {
        if (this.#start === this.#end) return null;
        throw cutShort();
      }
    }
    this.#start += length;
    return this.#buffer.subarray(this.#start - length, this.#start);
  }

  /** At least one and at most `max` bytes, valid until the next call; null at the end of the input. */
  *takeSome(max: number): Reading<Buffer | null> {
    if (this.#start === this.#end && !(yield* this.#fill())) return null;
    const length = Math.min(max, this.#end - this.#start);
    this.#start += length;
    return this.#buffer.subarray(this.#start - length, this.#start);
  }

  *#fill(): Reading<boolean> {
    if (this.#cancelled()) throw invalid('cancelled');
    if (this.#start > 0) {
      this.#buffer.copy(this.#buffer, 0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    const read = yield this.#buffer.subarray(this.#end);
    if (this.#cancelled()) throw invalid('cancelled');
    this.#arrived?.(this.#buffer.subarray(this.#end, this.#end + read));
    this.#end += read;
    this.bytes += read;
    return read > 0;
  }
}

/** Entries in their order. After `next`, the content of a file is either taken by `content` or left to the reader. */
export class TarReader {
  readonly #source: ByteSource;
  readonly #keep: (bytes: Buffer) => void;
  #left = 0;
  #padding = 0;

  constructor(options: ReaderOptions) {
    this.#source = new ByteSource(options);
    this.#keep = options.keep;
  }

  /** The next entry; null at the end of the archive. Throws 'invalid' for what is no tar. */
  *next(): Reading<TarEntry | null> {
    yield* this.#skipRest();
    const pax: [ByteString, Buffer][] = [];
    let extensions: Extensions = { pax };
    for (;;) {
      const block = yield* this.#source.take(blockSize);
      if (block === null) {
        if (extensions.pax.length > 0 || 'longName' in extensions || 'longLink' in extensions) throw cutShort();
        return null;
      }
      this.#keep(block);
      if (isZeroBlock(block)) {
        yield* this.#finish();
        return null;
      }
      const raw = parseHeader(block);
      if (raw.flag === 'x') pax.push(...parsePax(yield* this.#special(raw)));
      else if (raw.flag === 'g') yield* this.#special(raw);
      else if (raw.flag === 'L') extensions = { ...extensions, longName: yield* this.#longText(raw) };
      else if (raw.flag === 'K') extensions = { ...extensions, longLink: yield* this.#longText(raw) };
      else return yield* this.#entry(raw, block, extensions);
    }
  }

  /** Hands out `length` bytes of the current entry's content in pieces, each valid only during the call. */
  *content(length: number, use: (bytes: Buffer) => void): Reading<void> {
    let left = length;
    while (left > 0) {
      const bytes = yield* this.#source.takeSome(left);
      if (bytes === null) throw cutShort();
      left -= bytes.length;
      this.#left -= bytes.length;
      use(bytes);
    }
  }

  /** Bytes of the whole input. Only after `next` answered null. */
  get bytes(): number {
    return this.#source.bytes;
  }

  *#entry(raw: RawHeader, block: Buffer, extensions: Extensions): Reading<TarEntry> {
    // The block must be read before more input replaces it.
    const old = raw.flag === 'S' ? { size: gnuSparseSize(block), goesOn: gnuSparseGoesOn(block, 482) } : null;
    const pieces = old === null ? [] : parseGnuSparse(block, 386, 4);
    const { entry, sparse } = combine(raw, extensions);
    this.#left = entry.size;
    this.#padding = paddingOf(entry.size);
    if (entry.type !== 'file') return entry;
    if (old !== null) {
      for (let goesOn = old.goesOn; goesOn; ) {
        const more = yield* this.#source.take(blockSize);
        if (more === null) throw cutShort();
        this.#keep(more);
        pieces.push(...parseGnuSparse(more, 0, 21));
        if (pieces.length > sparseNumbersMax) throw invalid('invalid tar header: sparse map too long');
        goesOn = gnuSparseGoesOn(more, 504);
      }
      return this.#sparse(entry, old.size, pieces);
    }
    if (sparse.form === 'none') return entry;
    const listed = sparse.form === 'listed' ? sparse.pieces : yield* this.#mapInContent();
    return this.#sparse(entry, sparse.realSize, listed);
  }

  #sparse(entry: TarEntry, realSize: number, pieces: readonly Piece[]): TarEntry {
    if (realSize < 0) throw invalid('invalid tar header: sparse file without a size');
    checkPieces(pieces, realSize, this.#left);
    return { ...entry, size: this.#left, sparse: { realSize, pieces } };
  }

  /** PAX sparse form 1.0: the count of pieces, then offset and length of each, a line each, filled to a whole block. */
  *#mapInContent(): Reading<Piece[]> {
    const numbers: number[] = [];
    let line = '';
    let wanted = 1;
    while (numbers.length < wanted) {
      const block = this.#left < blockSize ? null : yield* this.#source.take(blockSize);
      if (block === null) throw cutShort();
      this.#left -= blockSize;
      this.#keep(block);
      for (const byte of block) {
        if (numbers.length === wanted) break;
        if (byte !== 10) {
          line += String.fromCharCode(byte);
          if (line.length > 20) throw invalid('invalid tar header: broken sparse map');
          continue;
        }
        numbers.push(decimalText(line));
        line = '';
        if (numbers.length === 1) {
          wanted = 1 + 2 * (numbers[0] as number);
          if (wanted < 1 || wanted > sparseNumbersMax) throw invalid('invalid tar header: sparse map too long');
        }
      }
    }
    return piecesOf(numbers.slice(1));
  }

  /** Content of a header that describes the next one. */
  *#special(raw: RawHeader): Reading<Buffer> {
    if (raw.size < 0 || raw.size > specialSizeMax) throw invalid('invalid tar header: extended header too long');
    const data = Buffer.allocUnsafe(raw.size);
    let filled = 0;
    this.#left = raw.size;
    yield* this.content(raw.size, (bytes) => {
      this.#keep(bytes);
      filled += bytes.copy(data, filled);
    });
    this.#padding = paddingOf(raw.size);
    yield* this.#skipRest();
    return data;
  }

  *#longText(raw: RawHeader): Reading<ByteString> {
    const data = (yield* this.#special(raw)).toString('latin1');
    const end = data.indexOf('\0');
    return end < 0 ? data : data.slice(0, end);
  }

  *#skipRest(): Reading<void> {
    yield* this.content(this.#left, this.#keep);
    this.#left = 0;
    if (this.#padding === 0) return;
    const padding = yield* this.#source.take(this.#padding);
    // Archives cut right after the last content are accepted by every reader.
    if (padding !== null) this.#keep(padding);
    this.#padding = 0;
  }

  /** After the first zero block: a second one, then anything up to the end of the input. */
  *#finish(): Reading<void> {
    const second = yield* this.#source.take(blockSize);
    if (second === null) return;
    if (!isZeroBlock(second)) throw invalid('invalid tar header: a lone zero block');
    this.#keep(second);
    for (
      let rest = yield* this.#source.takeSome(bufferSize);
      rest !== null;
      rest = yield* this.#source.takeSome(bufferSize)
    ) {
      this.#keep(rest);
    }
  }
}
