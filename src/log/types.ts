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
  /** Stands before each line, behind its stamp: what `details=1` asks for. */
  readonly details?: string | undefined;
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

/** Holds as long as the daemon lives: files are numbered in the order they were begun, whatever they are called. */
export interface LogPosition {
  readonly generation: number;
  readonly offset: number;
}

/** `HostConfig.LogConfig.Config`. */
export type LogOptions = Readonly<Record<string, string>>;

export interface LogConfig {
  readonly Type: string;
  readonly Config: LogOptions;
}

/** What log drivers tell about a container. */
export interface LogSubject {
  readonly id: string;
  /** Without a slash. */
  readonly name: string;
  /** RFC 3339. */
  readonly created: string;
  readonly imageId: string;
  readonly imageName: string;
  /** The first process: path and arguments. */
  readonly command: string;
  readonly env: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** Of the machine. */
  readonly hostname: string;
}

export interface LogLimits {
  /** Bytes of one file; 0: never rotated. */
  readonly maxSize: number;
  /** Files kept, the current one included. */
  readonly maxFiles: number;
  /** Older files are kept compressed. */
  readonly compress?: boolean;
}

/** What a container's log is to be, from its `LogConfig`. */
export interface LogPlan {
  readonly limits: LogLimits;
  /** False: `logs` is refused. */
  readonly readable: boolean;
  readonly config: LogConfig;
}

export interface LogSource {
  readonly plan: LogPlan;
  /** Asked at each start: names change. */
  readonly subject: () => LogSubject;
  /** Tells the monitor of the container to open the (renamed away) file anew. */
  readonly reopen: () => void;
}

export interface Logs {
  open(containerId: string, path: string, source: LogSource): ContainerLog;
  /** Looks after the log of a running container: rotates it and sends it on; the returned function ends it. */
  watch(containerId: string): () => void;
  /** Sends on what is left of the log of a container that has ended. */
  drain(containerId: string): void;
  /** One line for each container whose sink has missed something. */
  warnings(): readonly string[];
  close(): void;
}
