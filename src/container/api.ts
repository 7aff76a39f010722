/** What others may ask of containers, in the newest API's terms. */
import type { Readable } from 'node:stream';
import type { RunConfig } from '../image/types.ts';
import type { ExecId } from '../lib/ids.ts';
import type { LogQuery } from '../log/types.ts';
import type { Limits } from './limits.ts';
import type { HostConfig } from './types.ts';

/** The body of `POST /containers/create`, as sent: any key may be absent. */
export type CreateBody = Partial<{ -readonly [K in keyof RunConfig]: RunConfig[K] | null }> & {
  HostConfig?: Partial<{ -readonly [K in keyof HostConfig]: HostConfig[K] | null }> | null;
  NetworkingConfig?: { EndpointsConfig?: Record<string, EndpointSettings | null> | null } | null;
};

/** The body of `POST /containers/{id}/update`: what is absent or zero keeps its value. */
export type UpdateBody = Pick<NonNullable<CreateBody['HostConfig']>, keyof Limits | 'RestartPolicy'>;
/** What a client may ask for on a network; the rest of `EndpointSettings` is answer only. */
export interface EndpointSettings {
  readonly IPAMConfig?: {
    readonly IPv4Address?: string | undefined;
    readonly IPv6Address?: string | undefined;
    readonly LinkLocalIPs?: readonly string[] | null | undefined;
  } | null;
  readonly Links?: readonly string[] | null;
  readonly Aliases?: readonly string[] | null;
  readonly MacAddress?: string | undefined;
  readonly DriverOpts?: Readonly<Record<string, string>> | null | undefined;
  /** Answer only; where it is filled the settings are a copy of an answer. */
  readonly EndpointID?: string | undefined;
}

export interface ListQuery {
  readonly all: boolean;
  /** At most so many rows; 0: no limit. */
  readonly limit: number;
  readonly size: boolean;
  readonly filters: ReadonlyMap<string, readonly string[]>;
}

/** As the log part reads it; whether there is a terminal is known from the container. `framed` false: raw bytes, both streams merged. */
export type LogsQuery = Omit<LogQuery, 'tty' | 'details'> & {
  /** Attributes of the container before each line. */
  readonly details: boolean;
};

export interface AttachQuery {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Replay what has been printed. */
  readonly logs: boolean;
  /** Go on with what is being printed. */
  readonly stream: boolean;
  /** `ctrl-p,ctrl-q` unless given. */
  readonly detachKeys: string;
  readonly framed: boolean;
}

/** Two directions that end on their own. Output is wire-ready. */
export interface Attachment {
  /** Raw bytes when true, whatever was asked for. */
  readonly tty: boolean;
  /** Ends when the container (or exec) has printed its last byte, or on detach. Leaving the loop gives everything back. */
  readonly output: AsyncIterable<Uint8Array>;
  /** Null without stdin. `end` is the client's half-close: it never ends the output. */
  readonly input: { write(data: Uint8Array): Promise<void>; end(): void } | null;
}

export interface ExecBody {
  readonly AttachStdin?: boolean;
  readonly AttachStdout?: boolean;
  readonly AttachStderr?: boolean;
  readonly DetachKeys?: string;
  readonly Tty?: boolean;
  readonly Cmd?: readonly string[] | null;
  readonly Env?: readonly string[] | null;
  readonly Privileged?: boolean;
  readonly User?: string;
  readonly WorkingDir?: string;
}

/** What `POST /commit` asks for beside the container. */
export interface CommitRequest {
  /** Empty: the image gets no name. */
  readonly repo: string;
  readonly tag: string;
  readonly author: string;
  readonly comment: string;
  /** Holds a running container still while its changes are read. */
  readonly pause: boolean;
  /** Dockerfile instructions on top of the config. */
  readonly changes: readonly string[];
  /** In place of the container's config, which fills in what is missing; null: the container's. */
  readonly config: CreateBody | null;
}

/** A JSON object ready for the wire. Its keys are those of the API document. */
export type Json = Readonly<Record<string, unknown>>;

/** What is at a path of a container, itself, not what it links to. */
export interface PathStat {
  /** Last part of the path as asked for; `/` or `.` where that ends so. */
  readonly name: string;
  readonly size: number;
  /** `st_mode` */
  readonly mode: number;
  readonly modified: { readonly seconds: number; readonly nanoseconds: number };
  /** Of a link: the path it leads to inside the container. Else empty. */
  readonly linkTarget: string;
}

export interface ArchiveQuery {
  /** A directory, or a link to one. */
  readonly path: string;
  /** Refuse to replace a directory by something else, and the other way round. */
  readonly keepKinds: boolean;
  /** All files become the user's that the container runs as, instead of those the archive names. */
  readonly ownedByUser: boolean;
}

export interface Containers {
  /** Throws what ERRORS.md says. `warnings` has a line for each accepted but ineffective option. */
  create(name: string, body: CreateBody): Promise<{ readonly Id: string; readonly Warnings: readonly string[] }>;
  /** Throws 'unchanged' when it runs already. */
  start(ref: string, options: { readonly detachKeys: string }): Promise<void>;
  /** Seconds to wait before SIGKILL; undefined: the container's StopTimeout, else 10; negative: for ever. */
  stop(ref: string, timeoutSeconds: number | undefined): Promise<void>;
  restart(ref: string, timeoutSeconds: number | undefined): Promise<void>;
  /** `signal`: name with or without SIG, or number; empty: SIGKILL. */
  kill(ref: string, signal: string): Promise<void>;
  pause(ref: string): Promise<void>;
  unpause(ref: string): Promise<void>;
  rename(ref: string, name: string): Promise<void>;
  /** Changes limits and the restart policy, of a running container at once. */
  update(ref: string, body: UpdateBody): Promise<{ readonly Warnings: readonly string[] }>;
  remove(
    ref: string,
    options: { readonly force: boolean; readonly volumes: boolean; readonly link: boolean },
  ): Promise<void>;
  /** Resolves when it does not run; answers for a minute after an automatic removal too. */
  wait(ref: string, signal: AbortSignal): Promise<{ readonly StatusCode: number }>;
  resize(ref: string, rows: number, columns: number): Promise<void>;
  list(query: ListQuery): Promise<readonly Json[]>;
  inspect(ref: string, size: boolean): Promise<Json>;
  logs(ref: string, query: LogsQuery, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>>;
  attach(ref: string, query: AttachQuery, signal: AbortSignal): Promise<Attachment>;
  top(
    ref: string,
    psArgs: string,
  ): Promise<{ readonly Titles: readonly string[]; readonly Processes: readonly (readonly string[])[] }>;
  /** One sample (`stream` false: with the sample before it in `precpu_stats`), or one a second until the signal or the container's removal. */
  stats(
    ref: string,
    options: { readonly stream: boolean; readonly oneShot: boolean },
    signal: AbortSignal,
  ): Promise<AsyncIterable<Json>>;
  prune(
    filters: ReadonlyMap<string, readonly string[]>,
  ): Promise<{ readonly ContainersDeleted: readonly string[] | null; readonly SpaceReclaimed: number }>;

  /** Makes an image of what the container changed and resolves with its id. */
  commit(ref: string, request: CommitRequest): Promise<{ readonly Id: string }>;
  /** A path where nothing is: 'not-found' in dockerd's words. */
  statPath(ref: string, path: string): Promise<PathStat>;
  /** `resource`: as `POST copy` had it, every link followed and of a directory only what is in it. Leaving the archive gives everything back. */
  archive(
    ref: string,
    path: string,
    as: 'archive' | 'resource',
  ): Promise<{ readonly stat: PathStat; readonly archive: AsyncIterable<Uint8Array> }>;
  unarchive(ref: string, query: ArchiveQuery, from: Readable, signal: AbortSignal): Promise<void>;
  /** A tar of the whole tree without volumes. */
  export(ref: string): Promise<AsyncIterable<Uint8Array>>;
  /** `{Path, Kind}` for each change, Kind 0 modified, 1 added, 2 deleted; null for none. */
  changes(ref: string): Promise<readonly Json[] | null>;

  execCreate(ref: string, body: ExecBody): Promise<{ readonly Id: ExecId }>;
  /** Detached: resolves with null when it runs. */
  execStart(
    id: string,
    options: {
      readonly detach: boolean;
      readonly tty: boolean;
      readonly framed: boolean;
      readonly consoleSize?: readonly [number, number] | undefined;
    },
    signal: AbortSignal,
  ): Promise<Attachment | null>;
  execInspect(id: string): Promise<Json>;
  execResize(id: string, rows: number, columns: number): Promise<void>;
  /** Joins a network, at once when the container runs. */
  connect(ref: string, network: string, settings: EndpointSettings | null): Promise<void>;
  disconnect(ref: string, network: string): Promise<void>;
  /** Numbers for `/info`. */
  counts(): { readonly running: number; readonly paused: number; readonly stopped: number };
}
