/**
 * From the monitor's log lines to what a client gets.
 *
 * A line is `2026-11-20T23:23:29.491283289+00:00 stdout F text` and a newline: a stamp of 35 characters in local time,
 * the stream, `F` for the end of a line the container printed or `P` for a piece without newline. Everything before
 * the text is 45 characters long, always, and what is put in its place (a frame's header, a stamp in UTC) is at most 39:
 * so a block is rewritten in place, in one pass over its bytes, and is then ready for the wire.
 */
import { parseRfc3339, rfc3339NanoFixed } from '../lib/time.ts';
import type { Block } from './cursor.ts';
import type { LogQuery } from './types.ts';

/** Characters before the text of a line. */
export const prefixLength = 45;
const stampLength = 35;
/** `2026-11-20T23:23:29.491283289`: what is left of a stamp without its zone. */
const wallLength = 29;
const at = { zone: wallLength, stream: 39, flag: 43 } as const;

/** About how much comes at once where lines grow. */
const growingLength = 64 * 1024;
const newline = 10;
const space = 32;
const letter = { P: 80, Z: 90, s: 115, o: 111 } as const;

/** True if a line of the monitor begins here. Anything else (a line torn by a crash) is passed over. */
export function isLineStart(block: Uint8Array, start: number): boolean {
  return (
    block[start + stampLength] === space &&
    block[start + stampLength + 1] === letter.s &&
    block[start + at.flag - 1] === space &&
    block[start + at.flag + 1] === space
  );
}

export const isPiece = (block: Uint8Array, start: number): boolean => block[start + at.flag] === letter.P;

type Wanted = Pick<LogQuery, 'stdout' | 'stderr' | 'since' | 'until' | 'timestamps' | 'framed' | 'details'>;

export class LineRewriter {
  readonly #wanted: Wanted;
  /** One frame per line, as clients expect of `logs` (many cut eight bytes off each line); else as few as possible. */
  readonly #framePerLine: boolean;
  /** Streams (1, 2) whose last piece had no newline: what comes next continues a line and gets no stamp. */
  readonly #open = [false, false, false];
  readonly #since: Bound | null;
  readonly #until: Bound | null;
  /** Before each text, behind the stamp. */
  readonly #details: Buffer | null;
  #utc = { from: '', to: '' };
  /** A line younger than `until` has been met: there is nothing more to give. */
  finished = false;

  constructor(wanted: Wanted, framePerLine: boolean) {
    this.#wanted = wanted;
    this.#framePerLine = framePerLine;
    this.#since = wanted.since === undefined ? null : new Bound(wanted.since);
    this.#until = wanted.until === undefined ? null : new Bound(wanted.until);
    this.#details = wanted.details === undefined ? null : Buffer.from(wanted.details);
  }

  /** What a block becomes, ready for the wire; its bytes are used up. */
  *chunksOf({ data, length }: Block): Generator<Buffer, void, void> {
    if (this.#details === null) {
      const chunk = data.subarray(0, this.rewrite(data, 0, length, data));
      if (chunk.length > 0) yield chunk;
      return;
    }
    // With something put before each line they grow: a few at a time into a buffer of their own.
    for (let from = 0; from < length && !this.finished; ) {
      let end = from;
      let room = 0;
      while (end < length && room < growingLength) {
        const next = data.indexOf(newline, end) + 1;
        room += next - end + this.#details.length;
        end = next;
      }
      const target = Buffer.allocUnsafe(room);
      const chunk = target.subarray(0, this.rewrite(data, from, end, target));
      if (chunk.length > 0) yield chunk;
      from = end;
    }
  }

  /**
   * Rewrites the whole lines in `block[start, end)`, the last of which ends at `end`, to the beginning of `target`, which may be the
   * block itself. Returns how many bytes they became.
   */
  rewrite(block: Buffer, start: number, end: number, target: Buffer): number {
    const { stdout, stderr, timestamps, framed } = this.#wanted;
    let from = start;
    let to = 0;
    let frameStart = 0;
    /** Stream of the frame being written; 0: none. */
    let frameStream = 0;
    while (from < end) {
      let text = from + prefixLength;
      const stream = block[from + at.stream] === letter.o ? 1 : 2;
      if (!isLineStart(block, from) || !(stream === 1 ? stdout : stderr) || this.#since?.isAfter(block, from)) {
        from = block.indexOf(newline, from) + 1;
        continue;
      }
      if (this.#until?.isBefore(block, from)) {
        this.finished = true;
        break;
      }
      const piece = isPiece(block, from);
      if (framed && frameStream !== stream) {
        if (frameStream !== 0) writeHeader(target, frameStart, frameStream, to);
        frameStream = stream;
        frameStart = to;
        to += 8;
      }
      if (!this.#open[stream]) {
        if (timestamps) to = this.#writeStamp(block, from, target, to);
        if (this.#details !== null) to += this.#details.copy(target, to);
      }
      for (let byte = block[text++]; byte !== newline; byte = block[text++]) target[to++] = byte as number;
      if (!piece) {
        target[to++] = newline;
        if (framed && this.#framePerLine) {
          writeHeader(target, frameStart, frameStream, to);
          frameStream = 0;
        }
      }
      this.#open[stream] = piece;
      from = text;
    }
    if (frameStream !== 0) writeHeader(target, frameStart, frameStream, to);
    return to;
  }

  /** `2026-11-20T23:23:29.491283289Z ` at `to`. The stamp it is made from may lie in the way of its own copy. */
  #writeStamp(block: Buffer, from: number, target: Buffer, to: number): number {
    if (sameZone(block, from, utcZone)) {
      block.copy(target, to, from, from + wallLength);
    } else {
      const stamp = block.toString('latin1', from, from + stampLength);
      // Only the date and time to the second change with the zone; many lines share them.
      const second = stamp.slice(0, 19) + stamp.slice(at.zone);
      if (this.#utc.from !== second) this.#utc = { from: second, to: utcSecond(stamp) };
      target.write(this.#utc.to + stamp.slice(19, at.zone), to, 'latin1');
    }
    target[to + wallLength] = letter.Z;
    target[to + wallLength + 1] = space;
    return to + wallLength + 2;
  }
}

const utcZone = Buffer.from('+00:00', 'latin1');

function sameZone(block: Uint8Array, line: number, zone: Uint8Array): boolean {
  for (let index = 0; index < zone.length; index++) {
    if (block[line + at.zone + index] !== zone[index]) return false;
  }
  return true;
}

const utcSecond = (stamp: string): string => rfc3339NanoFixed(parseRfc3339(stamp) ?? 0n).slice(0, 19);

/** VERSIONS.md W-62. */
function writeHeader(block: Buffer, start: number, stream: number, end: number): void {
  const length = end - start - 8;
  block[start] = stream;
  block[start + 1] = 0;
  block[start + 2] = 0;
  block[start + 3] = 0;
  block[start + 4] = length >>> 24;
  block[start + 5] = length >>> 16;
  block[start + 6] = length >>> 8;
  block[start + 7] = length;
}

const wallClock = (nano: bigint): Buffer => Buffer.from(rfc3339NanoFixed(nano).slice(0, wallLength), 'latin1');

/** A point in time written as the stamps of a log are, so that comparing is a matter of a few bytes. */
class Bound {
  readonly #nano: bigint;
  #zone = utcZone;
  #wall: Buffer;

  constructor(nano: bigint) {
    this.#nano = nano;
    this.#wall = wallClock(nano);
  }

  isAfter(block: Buffer, line: number): boolean {
    return this.#compare(block, line) > 0;
  }

  isBefore(block: Buffer, line: number): boolean {
    return this.#compare(block, line) < 0;
  }

  #compare(block: Buffer, line: number): number {
    if (!sameZone(block, line, this.#zone)) {
      this.#zone = Buffer.from(block.subarray(line + at.zone, line + stampLength));
      const noon = '1970-01-02T12:00:00';
      const utc = parseRfc3339(`${noon}Z`) ?? 0n;
      this.#wall = wallClock(this.#nano + utc - (parseRfc3339(`${noon}${this.#zone.toString('latin1')}`) ?? utc));
    }
    for (let index = 0; index < wallLength; index++) {
      const difference = (this.#wall[index] as number) - (block[line + index] as number);
      if (difference !== 0) return difference;
    }
    return 0;
  }
}
