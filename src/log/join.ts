/** From blocks of a log file to the lines a container printed: pieces joined, torn lines passed over, memory bounded. */
import { parseRfc3339 } from '../lib/time.ts';
import type { Block } from './cursor.ts';
import type { LogLine } from './drivers/types.ts';
import { isLineStart, isPiece, prefixLength } from './lines.ts';
import type { LogPosition } from './types.ts';

const newline = 10;
const letterO = 111;
const at = { stream: 39, fraction: 20, zone: 29, end: 35, second: 19 } as const;
/** A longer line goes on as one of its own. */
export const lineLengthMax = 1024 * 1024;
/** A piece of one byte is an object too. */
const piecesMax = 16 * 1024;
/** So far behind, a piece that nobody has ended counts as a line: nothing waits for it for ever. */
const pieceAgeMax = 1024 * 1024;

interface Pending {
  readonly pieces: Buffer[];
  length: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly start: LogPosition;
  /** Bytes of the log that had been seen before it. */
  readonly seen: number;
}

/** Where the next line of each stream begins: before it, all has been given. */
export interface Progress {
  readonly stdout: LogPosition;
  readonly stderr: LogPosition;
}

export const isBefore = (a: LogPosition, b: LogPosition): boolean =>
  a.generation < b.generation || (a.generation === b.generation && a.offset < b.offset);

export class LineJoiner {
  readonly #pending: { stdout: Pending | null; stderr: Pending | null } = { stdout: null, stderr: null };
  /** Lines before it have been given by an earlier run. */
  readonly #skip: Progress;
  #end: LogPosition;
  #seen = 0;
  #clock = { text: '', seconds: 0 };

  constructor(from: Progress) {
    this.#skip = from;
    this.#end = isBefore(from.stdout, from.stderr) ? from.stdout : from.stderr;
  }

  /** The lines that end in a block. */
  feed({ data, length, generation, offset }: Block): LogLine[] {
    const lines: LogLine[] = [];
    for (let from = 0; from < length; ) {
      if (!isLineStart(data, from)) {
        from = data.indexOf(newline, from) + 1;
        continue;
      }
      const text = from + prefixLength;
      const end = data.indexOf(newline, text);
      const stream = data[from + at.stream] === letterO ? 'stdout' : 'stderr';
      const start = { generation, offset: offset + from };
      if (!isBefore(start, this.#skip[stream])) this.#take(lines, stream, data, from, data.subarray(text, end), start);
      from = end + 1;
    }
    this.#seen += length;
    this.#end = { generation, offset: offset + length };
    for (const stream of ['stdout', 'stderr'] as const) {
      const pending = this.#pending[stream];
      if (pending !== null && this.#seen - pending.seen > pieceAgeMax) this.#give(lines, stream, pending);
    }
    return lines;
  }

  /** What has not been ended, when nothing more will come. */
  flush(): LogLine[] {
    const lines: LogLine[] = [];
    for (const stream of ['stdout', 'stderr'] as const) {
      const pending = this.#pending[stream];
      if (pending !== null) this.#give(lines, stream, pending);
    }
    return lines;
  }

  get progress(): Progress {
    const latest = (stream: 'stdout' | 'stderr'): LogPosition => {
      const next = this.#pending[stream]?.start ?? this.#end;
      return isBefore(next, this.#skip[stream]) ? this.#skip[stream] : next;
    };
    return { stdout: latest('stdout'), stderr: latest('stderr') };
  }

  #take(
    lines: LogLine[],
    stream: 'stdout' | 'stderr',
    data: Buffer,
    from: number,
    text: Buffer,
    start: LogPosition,
  ): void {
    let pending = this.#pending[stream];
    if (!isPiece(data, from) && pending === null) {
      lines.push({ stream, ...this.#time(data, from), text });
      return;
    }
    pending ??= { pieces: [], length: 0, ...this.#time(data, from), start, seen: this.#seen };
    this.#pending[stream] = pending;
    // A copy: the block it is in may be large.
    pending.pieces.push(Buffer.from(text));
    pending.length += text.length;
    const tooLong = pending.length >= lineLengthMax || pending.pieces.length >= piecesMax;
    if (!isPiece(data, from) || tooLong) this.#give(lines, stream, pending);
  }

  #give(lines: LogLine[], stream: 'stdout' | 'stderr', { pieces, seconds, nanoseconds }: Pending): void {
    lines.push({ stream, seconds, nanoseconds, text: Buffer.concat(pieces) });
    this.#pending[stream] = null;
  }

  #time(data: Buffer, from: number): { readonly seconds: number; readonly nanoseconds: number } {
    const second = data.toString('latin1', from, from + at.second);
    const key = second + data.toString('latin1', from + at.zone, from + at.end);
    if (this.#clock.text !== key) {
      this.#clock = { text: key, seconds: Number((parseRfc3339(key) ?? 0n) / 1_000_000_000n) };
    }
    let nanoseconds = 0;
    for (let index = from + at.fraction; index < from + at.zone; index++)
      nanoseconds = nanoseconds * 10 + ((data[index] as number) - 48);
    return { seconds: this.#clock.seconds, nanoseconds };
  }
}
