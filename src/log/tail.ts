/** Where the last lines of a log begin. */
import { read } from './io.ts';
import { isLineStart, isPiece } from './lines.ts';

const blockLength = 64 * 1024;
const newline = 10;

/** Counts lines of a log from its end, over any number of files given newest first. */
export class TailSearch {
  #missing: number;
  /** A piece at the very end is a line of its own: the container has not finished it. */
  #atEnd = true;

  constructor(lines: number) {
    this.#missing = lines;
  }

  /**
   * The offset in the file open at `fd` at which the wanted lines begin, looking at nothing behind `end`; null when all of the file
   * belongs to them and the file before it must be searched too.
   */
  async search(fd: number, end: number): Promise<number | null> {
    const block = Buffer.allocUnsafe(blockLength);
    /** Everything from here on has been counted; always at the start of a line, except at first. */
    let counted = end;
    while (counted > 0) {
      const start = Math.max(0, counted - blockLength);
      const bytesRead = await read(fd, block, counted - start, start);
      if (bytesRead < counted - start) return 0; // Cut short by someone else: give what there is.
      let lineEnd = block.lastIndexOf(newline, bytesRead - 1);
      for (;;) {
        if (lineEnd < 0) break;
        const before = lineEnd === 0 ? -1 : block.lastIndexOf(newline, lineEnd - 1);
        // The line may begin before this block: it is the last of the next one then.
        if (before < 0 && start > 0) break;
        if (isLineStart(block, before + 1) && (this.#atEnd || !isPiece(block, before + 1))) {
          if (this.#missing === 0) return start + lineEnd + 1;
          this.#missing--;
          this.#atEnd = false;
        }
        lineEnd = before;
      }
      // A block without a whole line is no log of ours.
      const rest = start + lineEnd + 1;
      counted = lineEnd < 0 || rest >= counted ? start : rest;
    }
    return null;
  }
}
