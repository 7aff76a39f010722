/** Images: the configuration document, its layers, and the names that point to it. */
import type { Readable } from 'node:stream';
import type { ChainId, DiffId, ImageId } from '../lib/ids.ts';
import type { CommitFacts } from './commit.ts';

/** What to run and how: `Config` of a container and of an image, in the newest API's terms, every key present. */
export interface RunConfig {
  readonly Hostname: string;
  readonly Domainname: string;
  readonly User: string;
  readonly AttachStdin: boolean;
  readonly AttachStdout: boolean;
  readonly AttachStderr: boolean;
  readonly ExposedPorts: Readonly<Record<string, Record<string, never>>> | null;
  readonly Tty: boolean;
  readonly OpenStdin: boolean;
  readonly StdinOnce: boolean;
  readonly Env: readonly string[] | null;
  readonly Cmd: readonly string[] | null;
  readonly Healthcheck?: Healthcheck | undefined;
  readonly ArgsEscaped?: boolean | undefined;
  readonly Image: string;
  readonly Volumes: Readonly<Record<string, Record<string, never>>> | null;
  readonly WorkingDir: string;
  readonly Entrypoint: readonly string[] | null;
  readonly NetworkDisabled?: boolean | undefined;
  readonly MacAddress?: string | undefined;
  readonly OnBuild: readonly string[] | null;
  readonly Labels: Readonly<Record<string, string>> | null;
  readonly StopSignal?: string | undefined;
  /** Seconds. */
  readonly StopTimeout?: number | undefined;
  readonly Shell?: readonly string[] | undefined;
}

/** A `RunConfig` in an answer: without exposed ports the key is absent. */
export type ShownConfig = Omit<RunConfig, 'ExposedPorts'> & { readonly ExposedPorts?: RunConfig['ExposedPorts'] };

export interface Healthcheck {
  readonly Test?: readonly string[] | undefined;
  /** Nanoseconds. */
  readonly Interval?: number | undefined;
  /** Nanoseconds. */
  readonly Timeout?: number | undefined;
  /** Nanoseconds after the start in which failures do not count (API 1.29). */
  readonly StartPeriod?: number | undefined;
  readonly Retries?: number | undefined;
}

/** One row of an image config's `history` (OCI image spec, "Image Configuration"). */
export interface HistoryEntry {
  readonly created?: string | undefined;
  readonly created_by?: string | undefined;
  readonly author?: string | undefined;
  readonly comment?: string | undefined;
  readonly empty_layer?: boolean | undefined;
}

/** An image as the engine keeps it. The config document's bytes are kept beside, since its digest is the id. */
export interface Image {
  readonly id: ImageId;
  readonly architecture: string;
  readonly os: string;
  readonly osVersion?: string | undefined;
  readonly author: string;
  readonly comment: string;
  /** RFC 3339. */
  readonly created: string;
  readonly dockerVersion: string;
  readonly container: string;
  readonly containerConfig: RunConfig | null;
  readonly config: RunConfig;
  readonly history: readonly HistoryEntry[];
  readonly diffIds: readonly DiffId[];
  /** Top of the stack; null for an image without layers. */
  readonly chainId: ChainId | null;
  /** Chain IDs from the lowest layer up. */
  readonly chain: readonly ChainId[];
  /** The image this one was built or committed from, when made here. */
  readonly parent: ImageId | null;
  /** Bytes of all layers. */
  readonly size: number;
}

/** A message of a progress stream, as `docker pull` draws it (jsonmessage). The API adds the drawn bar. */
export interface Progress {
  readonly status?: string;
  readonly id?: string;
  readonly progressDetail?: { readonly current?: number; readonly total?: number };
  readonly stream?: string;
  readonly aux?: unknown;
}

export interface Credentials {
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly serveraddress?: string | undefined;
  readonly identitytoken?: string | undefined;
  readonly registrytoken?: string | undefined;
}

/** What containers need of images. */
export interface ImageLookup {
  /** By name, name:tag, name@digest, id or unambiguous id prefix. Throws `No such image: …`. */
  resolve(reference: string): Image;
  get(id: ImageId): Image | undefined;
  /** `repo:tag` names that point to the image, sorted. */
  tagsOf(id: ImageId): readonly string[];
}

/** What containers need of images beside looking: a committed container becomes one. */
export interface ImageMaker extends ImageLookup {
  /**
   * Makes the image of a committed container durable, with its name and events. Its layers must be held by a lease.
   * Throws 'not-found' when the image below has gone.
   */
  commit(facts: CommitFacts): Promise<Image>;
}

export interface ImageListQuery {
  readonly all: boolean;
  readonly digests: boolean;
  readonly filters: ReadonlyMap<string, readonly string[]>;
}

export interface ImageDeleted {
  readonly Untagged?: string;
  readonly Deleted?: string;
}

/**
 * Everything the API asks of images. Methods that return an async iterable of `Progress` do the work while it is being
 * read; leaving the loop (or aborting) cancels it. A failure before the first message is thrown by the first `next()`.
 */
export interface Images extends ImageLookup {
  list(query: ImageListQuery): Promise<readonly ImageSummary[]>;
  inspect(reference: string): Promise<ImageInspect>;
  history(reference: string): readonly ImageHistoryRow[];
  /** Points `repo:tag` at an image. Throws `invalid reference format`. */
  tag(reference: string, repo: string, tag: string): Promise<void>;
  remove(
    reference: string,
    options: { readonly force: boolean; readonly noprune: boolean },
  ): Promise<readonly ImageDeleted[]>;
  prune(
    filters: ReadonlyMap<string, readonly string[]>,
  ): Promise<{ readonly deleted: readonly ImageDeleted[]; readonly spaceReclaimed: number }>;
  pull(
    request: {
      readonly name: string;
      /** A tag or digest; empty: taken from `name`, else `latest`. */
      readonly tag: string;
      readonly credentials: Credentials | null;
      readonly platform?: string | undefined;
    },
    signal: AbortSignal,
  ): AsyncIterable<Progress>;
  push(
    request: { readonly name: string; readonly tag: string; readonly credentials: Credentials | null },
    signal: AbortSignal,
  ): AsyncIterable<Progress>;
  /** `source`: the request's body or an http(s) URL to fetch. */
  import(
    request: {
      readonly source: Readable | URL;
      readonly repo: string;
      readonly tag: string;
      readonly message: string;
      readonly changes: readonly string[];
    },
    signal: AbortSignal,
  ): AsyncIterable<Progress>;
  load(archive: Readable, quiet: boolean, signal: AbortSignal): AsyncIterable<Progress>;
  /** One tar with `manifest.json`, `repositories`, configs and layers of the named images. */
  save(references: readonly string[], signal: AbortSignal): Promise<Readable>;
}

export interface ImageSummary {
  readonly Id: string;
  readonly ParentId: string;
  readonly RepoTags: readonly string[] | null;
  readonly RepoDigests: readonly string[] | null;
  /** Unix seconds. */
  readonly Created: number;
  readonly Size: number;
  readonly SharedSize: number;
  readonly VirtualSize: number;
  readonly Labels: Readonly<Record<string, string>> | null;
  readonly Containers: number;
}

export interface ImageHistoryRow {
  readonly Id: string;
  readonly Created: number;
  readonly CreatedBy: string;
  readonly Tags: readonly string[] | null;
  readonly Size: number;
  readonly Comment: string;
}

/** `GET /images/{name}/json` of API 1.26. */
export interface ImageInspect {
  readonly Id: string;
  readonly RepoTags: readonly string[];
  readonly RepoDigests: readonly string[];
  readonly Parent: string;
  readonly Comment: string;
  readonly Created: string;
  readonly Container: string;
  readonly ContainerConfig: ShownConfig;
  readonly DockerVersion: string;
  readonly Author: string;
  readonly Config: ShownConfig;
  readonly Architecture: string;
  readonly Os: string;
  readonly OsVersion?: string | undefined;
  readonly Size: number;
  readonly VirtualSize: number;
  readonly GraphDriver: { readonly Name: string; readonly Data: Readonly<Record<string, string>> };
  readonly RootFS: { readonly Type: 'layers'; readonly Layers: readonly string[] };
}
