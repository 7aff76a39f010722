/**
 * The image config document: Docker's (image spec v1.2) and OCI's, which differ only in what they leave out.
 * Reading is tolerant of absent keys; what is of a wrong type counts as absent, except what an image cannot be without.
 */
import { createHash } from 'node:crypto';
import { chainOf } from '../layer/store.ts';
import { invalid } from '../lib/errors.ts';
import type { DiffId, ImageId } from '../lib/ids.ts';
import { isDigest } from './reference.ts';
import type { Healthcheck, HistoryEntry, Image, RunConfig, ShownConfig } from './types.ts';

/** What the document alone says; size and parent are known to the engine. */
export type ParsedConfig = Omit<Image, 'size' | 'parent'>;

const zeroTime = '0001-01-01T00:00:00Z';

type Json = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const textAt = (from: Json, key: string): string => (typeof from[key] === 'string' ? from[key] : '');
const flagAt = (from: Json, key: string): boolean => from[key] === true;
const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((item) => typeof item === 'string');
const textsAt = (from: Json, key: string): readonly string[] | null => (isTexts(from[key]) ? from[key] : null);

function setAt(from: Json, key: string): Readonly<Record<string, Record<string, never>>> | null {
  const value = from[key];
  return isObject(value) ? Object.fromEntries(Object.keys(value).map((name) => [name, {}])) : null;
}

function wordsAt(from: Json, key: string): Readonly<Record<string, string>> | null {
  const value = from[key];
  if (!isObject(value)) return null;
  return Object.fromEntries(Object.entries(value).map(([name, word]) => [name, String(word)]));
}

export const imageIdOf = (document: Uint8Array): ImageId =>
  `sha256:${createHash('sha256').update(document).digest('hex')}` as ImageId;

/** Throws 'invalid' for what is no image config. */
export function parseImageConfig(document: Uint8Array): ParsedConfig {
  const root = parseObject(document);
  const rootfs = root.rootfs;
  if (!isObject(rootfs)) throw invalid('invalid image config: rootfs is missing');
  const diffIds = rootfs.diff_ids ?? [];
  if (!isTexts(diffIds) || !diffIds.every(isDigest)) throw invalid('invalid image config: rootfs.diff_ids');
  const chain = chainOf(diffIds as readonly string[] as readonly DiffId[]);
  const osVersion = textAt(root, 'os.version');
  return {
    id: imageIdOf(document),
    architecture: textAt(root, 'architecture'),
    os: textAt(root, 'os') || 'linux',
    ...(osVersion !== '' && { osVersion }),
    author: textAt(root, 'author'),
    comment: textAt(root, 'comment'),
    created: Number.isNaN(Date.parse(textAt(root, 'created'))) ? zeroTime : textAt(root, 'created'),
    dockerVersion: textAt(root, 'docker_version'),
    container: textAt(root, 'container'),
    containerConfig: isObject(root.container_config) ? runConfigOf(root.container_config) : null,
    config: runConfigOf(isObject(root.config) ? root.config : {}),
    history: historyOf(root.history),
    diffIds: diffIds as readonly string[] as readonly DiffId[],
    chainId: chain.at(-1) ?? null,
    chain,
  };
}

function parseObject(document: Uint8Array): Json {
  let root: unknown;
  try {
    root = JSON.parse(Buffer.from(document).toString());
  } catch (cause) {
    throw invalid('invalid image config: not JSON', { cause });
  }
  if (!isObject(root)) throw invalid('invalid image config: not an object');
  return root;
}

function historyOf(value: unknown): HistoryEntry[] {
  if (!Array.isArray(value)) return [];
  return value.filter(isObject).map((row) => ({
    ...(textAt(row, 'created') !== '' && { created: textAt(row, 'created') }),
    ...(textAt(row, 'created_by') !== '' && { created_by: textAt(row, 'created_by') }),
    ...(textAt(row, 'author') !== '' && { author: textAt(row, 'author') }),
    ...(textAt(row, 'comment') !== '' && { comment: textAt(row, 'comment') }),
    ...(flagAt(row, 'empty_layer') && { empty_layer: true }),
  }));
}

/** Every key of a `RunConfig`, from whatever is there. */
export function runConfigOf(from: Json): RunConfig {
  const healthcheck = from.Healthcheck;
  const shell = textsAt(from, 'Shell');
  return {
    Hostname: textAt(from, 'Hostname'),
    Domainname: textAt(from, 'Domainname'),
    User: textAt(from, 'User'),
    AttachStdin: flagAt(from, 'AttachStdin'),
    AttachStdout: flagAt(from, 'AttachStdout'),
    AttachStderr: flagAt(from, 'AttachStderr'),
    ExposedPorts: setAt(from, 'ExposedPorts'),
    Tty: flagAt(from, 'Tty'),
    OpenStdin: flagAt(from, 'OpenStdin'),
    StdinOnce: flagAt(from, 'StdinOnce'),
    Env: textsAt(from, 'Env'),
    Cmd: textsAt(from, 'Cmd'),
    ...(isObject(healthcheck) && { Healthcheck: healthcheckOf(healthcheck) }),
    ...(flagAt(from, 'ArgsEscaped') && { ArgsEscaped: true }),
    Image: textAt(from, 'Image'),
    Volumes: setAt(from, 'Volumes'),
    WorkingDir: textAt(from, 'WorkingDir'),
    Entrypoint: textsAt(from, 'Entrypoint'),
    ...(flagAt(from, 'NetworkDisabled') && { NetworkDisabled: true }),
    ...(textAt(from, 'MacAddress') !== '' && { MacAddress: textAt(from, 'MacAddress') }),
    OnBuild: textsAt(from, 'OnBuild'),
    Labels: wordsAt(from, 'Labels'),
    ...(textAt(from, 'StopSignal') !== '' && { StopSignal: textAt(from, 'StopSignal') }),
    ...(typeof from.StopTimeout === 'number' && { StopTimeout: from.StopTimeout }),
    ...(shell !== null && { Shell: shell }),
  };
}

function healthcheckOf(from: Json): Healthcheck {
  const test = textsAt(from, 'Test');
  const amounts = ['Interval', 'Timeout', 'StartPeriod', 'Retries'].filter((key) => typeof from[key] === 'number');
  return { ...(test !== null && { Test: test }), ...Object.fromEntries(amounts.map((key) => [key, from[key]])) };
}

/** `Config` as answers show it: clients take an absent `ExposedPorts` and an empty one for the same, null for neither. */
export function configJson({ ExposedPorts: ports, ...config }: RunConfig): ShownConfig {
  return ports === null || Object.keys(ports).length === 0 ? config : { ...config, ExposedPorts: ports };
}

/** Docker's names for processors. */
export function goArchitecture(nodeArchitecture: string): string {
  const names: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' };
  return names[nodeArchitecture] ?? nodeArchitecture;
}

/** The document of an image made here, with its keys in Docker's order. */
export function encodeImageConfig(parts: {
  readonly config: RunConfig;
  readonly created: string;
  readonly author?: string;
  readonly comment?: string;
  readonly container?: string;
  readonly containerConfig?: RunConfig;
  readonly dockerVersion?: string;
  readonly history: readonly HistoryEntry[];
  readonly diffIds: readonly DiffId[];
  readonly architecture?: string;
  readonly os?: string;
  readonly osVersion?: string | undefined;
}): Buffer {
  return Buffer.from(
    JSON.stringify({
      architecture: parts.architecture || goArchitecture(process.arch),
      author: parts.author || undefined,
      comment: parts.comment || undefined,
      config: parts.config,
      container: parts.container || undefined,
      container_config: parts.containerConfig,
      created: parts.created,
      docker_version: parts.dockerVersion || undefined,
      history: parts.history,
      os: parts.os || 'linux',
      'os.version': parts.osVersion || undefined,
      rootfs: { type: 'layers', diff_ids: parts.diffIds },
    }),
  );
}
