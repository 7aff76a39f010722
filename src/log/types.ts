/**
 * A container's log file is the one source of its output: `logs`, `logs --follow` and the output side of `attach` are all
 * readers with a cursor on the file that the monitor appends to. Nothing a reader does can slow the container.
 */
export interface LogQuery {
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Nanoseconds since the epoch. */
  readonly since?: bigint | undefined;
  readonly until?: bigint | undefined;
  readonly timestamps: boolean;
  /** Lines from the end; undefined: all. 0: none of the past. */
  readonly tail?: number | undefined;
  readonly follow: boolean;
  /** Each piece gets the 8-byte header of the multiplexed stream (VERSIONS.md W-62); false: raw bytes. */
  readonly framed: boolean;
  /** The container has a terminal: newlines are the terminal's own (`\r\n`), all is stdout. */
  readonly tty: boolean;
}

/** One run of conmon's log per container, with rotation by the daemon. */
export interface ContainerLog {
  readonly path: string;
  /**
   * Reads as asked, in chunks of at most 64 KiB ready for the wire. With `follow` it ends when `ended` resolves and all of the file has been
   * given. Sees each line once and in order across any number of rotations.
   */
  read(query: LogQuery, ended: Promise<unknown>, signal: AbortSignal): AsyncIterable<Buffer>;
  /** Where the file ends now: an attach without `logs` starts here. */
  position(): Promise<LogPosition>;
  /** As `read` with `follow`, from a position. */
  readFrom(position: LogPosition, query: LogQuery, ended: Promise<unknown>, signal: AbortSignal): AsyncIterable<Buffer>;
  remove(): Promise<void>;
}

export interface LogPosition {
  /** inode and offset: survives a rename. */
  readonly inode: bigint;
  readonly offset: number;
}

export interface LogLimits {
  /** Bytes of one file; 0: never rotated. */
  readonly maxSize: number;
  /** Files kept, the current one included. */
  readonly maxFiles: number;
}

export interface Logs {
  /** `reopen` tells the monitor of the container to open the (renamed away) file anew. */
  open(containerId: string, path: string, limits: LogLimits, reopen: () => void): ContainerLog;
  /** Starts watching the size of a running container's log (rotation); the returned function ends it. */
  watch(containerId: string): () => void;
  close(): void;
}
