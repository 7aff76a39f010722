/**
 * Files in and out of containers, whether they run or not. Of a running one the root is the one its process has, with all
 * that is mounted there; of a resting one its tree, with volumes and binds mounted where only the worker sees them.
 * No lane is held: a copy may take as long as its client likes.
 */
import fs from 'node:fs';
import path from 'node:path';
import type { Readable } from 'node:stream';
import type { RootSource } from '../layer/confined.ts';
import { EngineError, notFound } from '../lib/errors.ts';
import { openRootOf } from '../platform/process.ts';
import { resolveUser } from '../runtime/user.ts';
import type { ArchiveQuery, Json, PathStat } from './api.ts';
import { holdVolumes, mountsToRun } from './mount-start.ts';
import { isRunning } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import type { ContainerRecord, MountPoint } from './types.ts';

/** What is at a path. */
export async function statContainerPath(set: ContainerSet, ref: string, at: string): Promise<PathStat> {
  const container = await open(set, ref);
  try {
    return await located(set, container, ref, at, set.parts.layers.files.stat(container.root, at));
  } finally {
    container.release();
  }
}

/** The archive of what is at a path, as a stream that gives everything back when it is left or over. */
export async function packContainerPath(
  set: ContainerSet,
  ref: string,
  at: string,
  as: 'archive' | 'resource',
): Promise<{ readonly stat: PathStat; readonly archive: AsyncIterable<Uint8Array> }> {
  const container = await open(set, ref);
  try {
    const { stat, chunks } = await located(
      set,
      container,
      ref,
      at,
      set.parts.layers.files.pack(container.root, at, as),
    );
    set.announce(containerEvent(container.record, as === 'archive' ? 'archive-path' : 'copy'));
    return { stat, archive: thenRelease(chunks, container) };
  } catch (error) {
    container.release();
    throw error;
  }
}

/** Unpacks an archive into the directory at a path. */
export async function unpackIntoContainer(
  set: ContainerSet,
  ref: string,
  { path: at, keepKinds, ownedByUser }: ArchiveQuery,
  from: Readable,
  signal: AbortSignal,
): Promise<void> {
  const container = await open(set, ref);
  const { record, root } = container;
  try {
    const mounts = mountsToRun(record).map(({ destination }) => destination);
    const owner = ownedByUser ? ownerOf(container) : null;
    const placed = set.parts.layers.files.place({ root, path: at, mounts, keepKinds, owner, from, signal });
    await located(set, container, ref, at, placed);
    set.announce(containerEvent(record, 'extract-to-dir'));
  } finally {
    container.release();
  }
}

/** The archive of a container's whole tree, without its volumes. */
export async function exportContainer(set: ContainerSet, ref: string): Promise<AsyncIterable<Uint8Array>> {
  const record = set.index.resolve(ref);
  const { layers } = set.parts;
  const held = await layers.holdWritable(record.id);
  try {
    const chunks = await layers.files.packTree(held.tree, layers.idsOf(record.id));
    set.announce(containerEvent(record, 'export'));
    return thenRelease(chunks, held);
  } catch (error) {
    held.release();
    throw error;
  }
}

/** What a container changed of its image; null for nothing, as clients have always been told. */
export async function containerChanges(set: ContainerSet, ref: string): Promise<readonly Json[] | null> {
  const found = await set.parts.layers.changes(set.index.resolve(ref).id);
  return found.length === 0 ? null : found.map(({ path: Path, kind: Kind }) => ({ Path, Kind }));
}

async function* thenRelease<T>(source: AsyncIterable<T>, what: { release(): void }): AsyncGenerator<T> {
  try {
    yield* source;
  } finally {
    what.release();
  }
}

interface OpenContainer {
  readonly record: ContainerRecord;
  readonly root: RootSource;
  /** Path of the root on the host, while it is open. */
  readonly hostPath: string;
  release(): void;
}

async function open(set: ContainerSet, ref: string): Promise<OpenContainer> {
  const record = set.index.resolve(ref);
  const ids = set.parts.layers.idsOf(record.id);
  const fd = isRunning(record) ? openRootOf(record.state.pid, record.state.pidStartTicks) : null;
  if (fd !== null) {
    return { record, root: { fd, ids }, hostPath: `/proc/self/fd/${fd}`, release: () => fs.closeSync(fd) };
  }
  const { tree, release } = await set.parts.layers.holdWritable(record.id);
  const readonly = record.hostConfig.ReadonlyRootfs;
  try {
    const volumes = await holdVolumes(set, record);
    const releaseAll = (): void => {
      release();
      volumes.release();
    };
    const binds = bindsOf(set, record, volumes.mounts);
    return { record, root: { tree, readonly, binds, ids }, hostPath: tree, release: releaseAll };
  } catch (error) {
    release();
    throw error;
  }
}

/** What is to be seen inside of a resting container, outer places first. A tmpfs begins empty with each run, so there is none. */
function bindsOf(set: ContainerSet, record: ContainerRecord, all: readonly MountPoint[]) {
  const taken = new Set(all.map(({ destination }) => destination));
  const files = ['resolv.conf', 'hostname', 'hosts']
    .map((name) => ({
      source: path.join(set.dirOf(record.id), name),
      destination: `/etc/${name}`,
      writable: !record.hostConfig.ReadonlyRootfs,
    }))
    .filter(({ destination }) => !taken.has(destination));
  const mounts = all.filter(({ type }) => type !== 'tmpfs');
  const depth = (destination: string) => destination.split('/').length;
  return [...files, ...mounts]
    .map(({ source, destination, writable }) => ({ source, destination, writable }))
    .sort((a, b) => depth(a.destination) - depth(b.destination));
}

/** Whoever the container's processes run as, when it says so. */
function ownerOf({ record, hostPath }: OpenContainer): { readonly uid: number; readonly gid: number } | null {
  if (record.config.User === '') return null;
  const { uid, gid } = resolveUser(hostPath, record.config.User, null);
  return { uid, gid };
}

async function located<T>(
  set: ContainerSet,
  { record }: OpenContainer,
  ref: string,
  at: string,
  work: Promise<T>,
): Promise<T> {
  try {
    return await work;
  } catch (error) {
    // Removed meanwhile, and its tree with it.
    if (set.records.get(record.id) === undefined) throw notFound(`No such container: ${ref}`, { cause: error });
    if (!(error instanceof EngineError && error.kind === 'not-found')) throw error;
    throw notFound(`Could not find the file ${at} in container ${ref}`, { cause: error });
  }
}
