/**
 * How far a forwarder has come, in a small file beside the log: one line, overwritten in place in one write. A kill between two
 * writes leaves the older line; files are named by inode, which a rotation does not change.
 */
import fs from 'node:fs';

export interface SavedPoint {
  readonly inode: bigint;
  readonly offset: number;
}

export interface SavedProgress {
  readonly stdout: SavedPoint;
  readonly stderr: SavedPoint;
  /** Bytes of the log that the sink has missed, ever. */
  readonly lostBytes: number;
}

const lineLength = 128;
const pattern = /^(\d+):(\d+) (\d+):(\d+) lost (\d+) *\n$/;

export class PositionFile {
  readonly #path: string;
  #fd: number | null = null;

  constructor(path: string) {
    this.#path = path;
  }

  /** Null: none, or not readable as one. */
  read(): SavedProgress | null {
    let line: string;
    try {
      line = fs.readFileSync(this.#path, 'latin1');
    } catch {
      // Whatever is wrong with it, lines sent twice are better than a container that does not start.
      return null;
    }
    const [, outFile, outOffset, errFile, errOffset, lost] = pattern.exec(line) ?? [];
    if (outFile === undefined || errFile === undefined) return null;
    return {
      stdout: { inode: BigInt(outFile), offset: Number(outOffset) },
      stderr: { inode: BigInt(errFile), offset: Number(errOffset) },
      lostBytes: Number(lost),
    };
  }

  write({ stdout, stderr, lostBytes }: SavedProgress): void {
    this.#fd ??= fs.openSync(this.#path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o640);
    const line = `${stdout.inode}:${stdout.offset} ${stderr.inode}:${stderr.offset} lost ${lostBytes}`;
    fs.writeSync(this.#fd, `${line.padEnd(lineLength - 1)}\n`, 0, 'latin1');
  }

  close(): void {
    if (this.#fd !== null) fs.closeSync(this.#fd);
    this.#fd = null;
  }

  remove(): void {
    fs.rmSync(this.#path, { force: true });
  }
}
