/** The layer store on overlay, as `types.ts` promises it. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { internal, invalid, invariant, messageOf, notFound } from '../lib/errors.ts';
import { type IdMap, type IdRange, rootOutside } from '../lib/idmap.ts';
import type { ChainId, DiffId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';
import { isErrno } from '../platform/libc.ts';
import { unmount } from '../platform/mount.ts';
import { openTree, shiftIds } from '../platform/tree.ts';
import { makeUserNamespace } from '../platform/usernamespace.ts';
import type { Collection, Store } from '../store/types.ts';
import type { Change } from './changes.ts';
import {
  type Disk,
  isCacheId,
  isContainerId,
  isMounted,
  linkTarget,
  newCacheId,
  prepareDisk,
  syncDirectory,
  temporaryPrefix,
  treeOf,
  underlayOf,
  writablePaths,
} from './disk.ts';
import { TreeFiles } from './files.ts';
import { consume } from './input.ts';
import { depthMax, OverlayMounter, shiftedPlace } from './overlay.ts';
import { WorkerPool } from './pool.ts';
import { WritableQuota } from './quota.ts';
import type { ApplySource, ArchiveLayers, HeldTree, Layer } from './types.ts';
import { fillUnderlay, underlayDirectories } from './underlay.ts';
import type { Unpacked } from './unpack.ts';

/** Unpacking is bound by processor and disk: more threads only take turns. */
const threadsMax = 4;
/** Deletions that come together share one job. */
const deleteDelayMs = 50;

/** What a writable tree on no layer has for a parent. */
const noParent = 'none';

/** A layer's record. */
interface LayerRecord extends Layer {
  /** The chain ID. */
  readonly id: ChainId;
  readonly cacheId: string;
  /** Bytes of the uncompressed tar. */
  readonly tarSize: number;
  /** Short name of the tree, see `overlay.ts`. */
  readonly link: string;
}

/** Digest that names a stack: of its top layer and what it stands on (OCI image spec, "Layer ChainID"). */
export function chainIdOf(parent: ChainId | null, diffId: DiffId): ChainId {
  if (parent === null) return diffId as string as ChainId;
  return `sha256:${createHash('sha256').update(`${parent} ${diffId}`).digest('hex')}` as ChainId;
}

/** Chain IDs of a stack from the lowest layer up. */
export function chainOf(diffIds: readonly DiffId[]): ChainId[] {
  const chain: ChainId[] = [];
  for (const diffId of diffIds) chain.push(chainIdOf(chain.at(-1) ?? null, diffId));
  return chain;
}

/** Opens the layers below `dir`. `close` it, otherwise its threads and descriptors stay. */
export async function createLayerStore(options: {
  readonly dir: string;
  readonly store: Store;
  readonly log: Log;
}): Promise<OverlayLayers> {
  const layers = new OverlayLayers(prepareDisk(options.dir), options.store, options.log);
  await layers.open();
  return layers;
}

export class OverlayLayers implements ArchiveLayers {
  readonly #disk: Disk;
  readonly #store: Store;
  readonly #log: Log;
  readonly #records: Collection<LayerRecord>;
  readonly #pool = new WorkerPool(threadsMax);
  readonly files = new TreeFiles();
  /** Trees that somebody works on, and whether they are to be unmounted when the last has left. */
  readonly #held = new Map<string, { holders: number; unmountAfter: boolean }>();
  readonly #mounter: OverlayMounter;
  readonly #quota: WritableQuota;
  /** Unpackings under way, by the chain ID they will have. */
  readonly #inFlight = new Map<ChainId, Promise<Layer>>();
  readonly #leases = new Map<ChainId, number>();
  /** Layers whose tree is gone and layers whose removal has begun: as good as absent. */
  readonly #missing = new Set<ChainId>();
  readonly #removing = new Set<ChainId>();
  /** Directories being made; no sweep may take them. */
  readonly #making = new Set<string>();
  /** Writable trees and what they stand on. */
  readonly #writables = new Map<string, ChainId | null>();
  /** Those of them that are mounted with other ids than they have on the disk. */
  readonly #shifted = new Set<string>();
  #shift: { readonly map: IdMap; readonly namespace: number } | null = null;
  /** Trees of `underlay.ts` that are there or being made, by their path. */
  readonly #underlays = new Map<string, Promise<void>>();
  #trash: string[] = [];
  #lastLink = 0;
  #deleting: Promise<void> = Promise.resolve();

  constructor(disk: Disk, store: Store, log: Log) {
    this.#disk = disk;
    this.#store = store;
    this.#log = log;
    this.#records = store.collection<LayerRecord>({ kind: 'layer', schema: 1 });
    this.#mounter = new OverlayMounter(disk);
    this.#quota = new WritableQuota(disk.writable);
  }

  /** Looks at what is on disk. Called once, before anything else. */
  async open(): Promise<void> {
    const byCacheId = new Map<string, LayerRecord>();
    for (const record of this.#records.values()) {
      byCacheId.set(record.cacheId, record);
      this.#lastLink = Math.max(this.#lastLink, Number.parseInt(record.link, 36));
      if (!fs.existsSync(treeOf(this.#disk, record.cacheId))) {
        this.#missing.add(record.id);
        this.#log.error(
          { layer: record.id },
          'the tree of a layer is missing; the layer will be fetched anew when asked for',
        );
      } else this.#makeLink(record);
    }
    for (const name of await fs.promises.readdir(this.#disk.writable)) {
      if (!isContainerId(name)) continue;
      const parent = await this.#readParent(name);
      const record = byCacheId.get(parent);
      unmount(shiftedPlace(this.#disk, name));
      if (fs.existsSync(shiftedPlace(this.#disk, name))) this.#shifted.add(name);
      if (record !== undefined || parent === noParent) this.#writables.set(name, record?.id ?? null);
      else this.#log.error({ container: name }, 'the layer below a container is not known');
    }
  }

  get(chainId: ChainId): Layer | undefined {
    return this.#there(chainId);
  }

  *all(): Generator<Layer> {
    for (const record of this.#records.values()) if (this.#there(record.id) !== undefined) yield record;
  }

  tarSize(chainId: ChainId): number {
    return this.#existing(chainId).tarSize;
  }

  // Layers ----------------------------------------------------------------------------------------------------------

  async apply(parent: ChainId | null, source: ApplySource): Promise<Layer> {
    if (source.diffId === undefined) return this.#unpackLayer(parent, source);
    const chainId = chainIdOf(parent, source.diffId);
    for (;;) {
      const known = this.get(chainId);
      if (known !== undefined) return known;
      const other = this.#inFlight.get(chainId);
      if (other === undefined) break;
      // When the other one fails, perhaps only because its client left, this source gets its turn.
      await other.catch(() => undefined);
      source.signal?.throwIfAborted();
    }
    const own = this.#unpackLayer(parent, source);
    this.#inFlight.set(chainId, own);
    try {
      return await own;
    } finally {
      this.#inFlight.delete(chainId);
    }
  }

  async unpackInto(dir: string, source: ApplySource): Promise<void> {
    await this.#unpack(dir, 'plain', source);
  }

  tar(chainId: ChainId): Readable {
    const record = this.#there(chainId);
    if (record === undefined) throw notFound(`layer ${chainId} does not exist`);
    const lease = this.lease(chainId);
    const stream = this.#pool.stream({ layer: path.join(this.#disk.root, record.cacheId) });
    return stream.on('close', () => lease[Symbol.dispose]());
  }

  async commit(containerId: string): Promise<Layer | null> {
    const parent = this.#parentOf(containerId);
    const { upper } = writablePaths(this.#disk, containerId);
    if ((await fs.promises.readdir(upper)).length === 0) return null;
    const stream = this.#pool.stream({ upper });
    try {
      return await this.apply(parent, { from: { stream } });
    } finally {
      stream.destroy();
    }
  }

  async remove(chainId: ChainId): Promise<number> {
    const record = this.#records.get(chainId);
    if (record === undefined || this.#removing.has(chainId) || this.#inUse(chainId)) return 0;
    this.#removing.add(chainId);
    try {
      await this.#store.commit([this.#records.remove(chainId)]);
    } finally {
      this.#removing.delete(chainId);
      this.#missing.delete(chainId);
    }
    await fs.promises.rm(path.join(this.#disk.links, record.link), { force: true });
    this.#underlays.delete(underlayOf(record.cacheId));
    await this.#discard(path.join(this.#disk.root, record.cacheId));
    return record.size;
  }

  lease(...chains: readonly ChainId[]): Disposable {
    const held = new Set(chains);
    for (const chain of held) this.#leases.set(chain, (this.#leases.get(chain) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        for (const chain of held) {
          const left = (this.#leases.get(chain) ?? 0) - 1;
          if (left > 0) this.#leases.set(chain, left);
          else this.#leases.delete(chain);
        }
        held.clear();
      },
    };
  }

  describe(chainId: ChainId): Readonly<Record<string, string>> {
    const [top, ...below] = this.#stack(chainId);
    invariant(top !== undefined, 'a stack has a top');
    const dir = path.join(this.#disk.root, top.cacheId);
    return {
      ...(below.length > 0 && { LowerDir: below.map((layer) => treeOf(this.#disk, layer.cacheId)).join(':') }),
      MergedDir: path.join(dir, 'merged'),
      UpperDir: treeOf(this.#disk, top.cacheId),
      WorkDir: path.join(dir, 'work'),
    };
  }

  // Writable trees --------------------------------------------------------------------------------------------------

  /**
   * From now on trees that were made `shifted` are mounted with these ids, while the disk keeps those of the images. Throws
   * when the kernel or the file system cannot do it.
   */
  async shiftIds(map: IdMap): Promise<void> {
    // The machine's root, who works in the trees for the container, must be somebody on the disk too.
    const after = (ranges: readonly IdRange[]) => Math.max(...ranges.map(({ inside, size }) => inside + size));
    const withRoot = (ranges: readonly IdRange[]) => [...ranges, { inside: after(ranges), outside: 0, size: 1 }];
    using held = await makeUserNamespace({ users: withRoot(map.users), groups: withRoot(map.groups) });
    const tree = openTree(this.#disk.root);
    try {
      shiftIds(tree, held.user);
    } catch (cause) {
      throw internal(
        `userns-remap needs mounts with shifted ids (Linux 5.19, and a file system that has them): ${messageOf(cause)}`,
        { cause },
      );
    } finally {
      fs.closeSync(tree);
    }
    this.#shift = { map, namespace: fs.openSync(`/proc/self/fd/${held.user}`, 'r') };
  }

  /** The ids that shifted trees get; null: none are shifted. */
  get shiftedIds(): IdMap | null {
    return this.#shift?.map ?? null;
  }

  idsOf(containerId: string): IdMap | null {
    return this.#shifted.has(containerId) ? this.shiftedIds : null;
  }

  async createWritable(containerId: string, parent: ChainId | null, bytesMax = 0, shifted = false): Promise<void> {
    if (this.#writables.has(containerId)) return;
    const top = parent === null ? undefined : this.#existing(parent);
    this.#writables.set(containerId, parent); // from now on the layer stays
    const { dir } = writablePaths(this.#disk, containerId);
    const temporary = path.join(this.#disk.writable, temporaryPrefix + containerId);
    try {
      await fs.promises.rm(temporary, { recursive: true, force: true });
      await fs.promises.mkdir(temporary, { mode: 0o710 });
      if (bytesMax > 0) this.#quota.limitNew(temporary, bytesMax);
      await Promise.all([
        this.#underlay(parent),
        ...['diff', 'work', 'merged'].map((name) => makeDirectory(path.join(temporary, name))),
        fs.promises.symlink(top?.cacheId ?? noParent, path.join(temporary, 'parent')),
        ...(shifted ? [makeDirectory(path.join(temporary, 'shifted'))] : []),
      ]);
      if (shifted) this.#shifted.add(containerId);
      await fs.promises.rename(temporary, dir);
    } catch (error) {
      this.#writables.delete(containerId);
      throw error;
    }
  }

  async mountWritable(containerId: string): Promise<string> {
    const tree = await this.#mountTree(containerId);
    const held = this.#held.get(containerId);
    if (held !== undefined) held.unmountAfter = false;
    return tree;
  }

  async #mountTree(containerId: string): Promise<string> {
    const parent = this.#parentOf(containerId);
    const { merged } = writablePaths(this.#disk, containerId);
    if (!isMounted(merged)) {
      const underlay = await this.#underlay(parent);
      const links = parent === null ? [] : this.#stack(parent).map((record) => record.link);
      // Somebody else may have mounted it while the underlay was being made.
      if (!isMounted(merged)) this.#mount(containerId, underlay, links, merged);
    }
    return merged;
  }

  #mount(containerId: string, underlay: string, links: readonly string[], merged: string): void {
    if (this.#shift === null || !this.#shifted.has(containerId)) {
      this.#mounter.mount(containerId, underlay, links, merged);
      return;
    }
    // Root of the container must be able to come here, nobody else; but that group is nobody where the store is seen shifted.
    const dir = path.dirname(merged);
    fs.chownSync(dir, 0, 0);
    this.#mounter.mountShifted(containerId, underlay, links, merged, this.#shift.namespace);
    fs.chownSync(dir, 0, rootOutside(this.#shift.map).gid);
  }

  async unmountWritable(containerId: string): Promise<void> {
    const held = this.#held.get(containerId);
    if (held === undefined) unmount(writablePaths(this.#disk, containerId).merged);
    else held.unmountAfter = true;
  }

  async holdWritable(containerId: string): Promise<HeldTree> {
    let held = this.#held.get(containerId);
    if (held === undefined) {
      held = { holders: 0, unmountAfter: false };
      this.#held.set(containerId, held);
    }
    const own = held;
    own.holders++;
    const release = () => {
      if (--own.holders > 0 || this.#held.get(containerId) !== own) return;
      this.#held.delete(containerId);
      if (own.unmountAfter) unmount(writablePaths(this.#disk, containerId).merged);
    };
    try {
      const wasMounted = isMounted(writablePaths(this.#disk, containerId).merged);
      const tree = await this.#mountTree(containerId);
      if (!wasMounted) own.unmountAfter = true;
      return { tree, release };
    } catch (error) {
      release();
      throw error;
    }
  }

  changes(containerId: string): Promise<readonly Change[]> {
    const { UpperDir: upper = '', LowerDir: below = '' } = this.describeWritable(containerId);
    return this.#pool.run('changes', { upper, below: below.split(':') });
  }

  mustLimitWritable(): void {
    this.#quota.mustWork();
  }

  limitWritable(containerId: string, bytesMax: number): void {
    this.#quota.limit(writablePaths(this.#disk, containerId).dir, bytesMax);
  }

  async removeWritable(containerId: string): Promise<void> {
    this.#held.delete(containerId);
    const { dir, merged } = writablePaths(this.#disk, containerId);
    unmount(merged);
    this.#quota.release(dir);
    unmount(shiftedPlace(this.#disk, containerId));
    await this.#discard(dir);
    this.#writables.delete(containerId);
    this.#shifted.delete(containerId);
  }

  async writableSize(containerId: string): Promise<number> {
    this.#parentOf(containerId);
    return this.#pool.run('measure', { tree: writablePaths(this.#disk, containerId).upper });
  }

  describeWritable(containerId: string): Readonly<Record<string, string>> {
    const parent = this.#writables.get(containerId) ?? null;
    const { upper, work, merged } = writablePaths(this.#disk, containerId);
    const stack = parent === null ? [] : this.#stack(parent);
    const underlay = path.join(this.#disk.root, underlayOf(stack[0]?.cacheId));
    const lower = [underlay, ...stack.map((layer) => treeOf(this.#disk, layer.cacheId))];
    return { LowerDir: lower.join(':'), MergedDir: merged, UpperDir: upper, WorkDir: work };
  }

  // Start and end ---------------------------------------------------------------------------------------------------

  async reconcile(writable: ReadonlySet<string>, mounted: ReadonlySet<string>): Promise<void> {
    await this.#sweepWritables(writable);
    await this.#sweepLayers();
    for (const name of await fs.promises.readdir(this.#disk.trash)) this.#deleteSoon(path.join(this.#disk.trash, name));
    for (const containerId of this.#writables.keys()) {
      try {
        if (mounted.has(containerId)) await this.mountWritable(containerId);
        else await this.unmountWritable(containerId);
      } catch (error) {
        this.#log.error({ container: containerId, error }, 'the root file system of a container cannot be mounted');
      }
    }
  }

  /** Waits until everything removed is deleted. */
  async settled(): Promise<void> {
    for (let seen: Promise<void> | null = null; seen !== this.#deleting; ) {
      seen = this.#deleting;
      await seen;
    }
  }

  /** Ends threads and closes descriptors. Mounts stay: containers go on. */
  async close(): Promise<void> {
    await Promise.all([this.#pool.close(), this.files.close()]);
    this.#mounter.close();
    if (this.#shift !== null) fs.closeSync(this.#shift.namespace);
  }

  // ------------------------------------------------------------------------------------------------------------------

  #there(chainId: ChainId): LayerRecord | undefined {
    return this.#missing.has(chainId) || this.#removing.has(chainId) ? undefined : this.#records.get(chainId);
  }

  #existing(chainId: ChainId): LayerRecord {
    const record = this.#there(chainId);
    if (record === undefined) throw internal(`layer ${chainId} does not exist`);
    return record;
  }

  #parentOf(containerId: string): ChainId | null {
    const parent = this.#writables.get(containerId);
    if (parent === undefined) throw notFound(`container ${containerId} has no writable tree`);
    return parent;
  }

  /** The layers of a chain, topmost first. */
  #stack(chainId: ChainId): LayerRecord[] {
    const stack: LayerRecord[] = [];
    for (let next: ChainId | null = chainId; next !== null; ) {
      const record: LayerRecord = this.#existing(next);
      stack.push(record);
      next = record.parent;
    }
    return stack;
  }

  #inUse(chainId: ChainId): boolean {
    if (this.#leases.has(chainId)) return true;
    for (const parent of this.#writables.values()) if (parent === chainId) return true;
    for (const record of this.#records.values()) if (record.parent === chainId) return true;
    return false;
  }

  /** Makes the underlay of containers on `parent` unless it is there; answers its path below the root. */
  async #underlay(parent: ChainId | null): Promise<string> {
    const stack = parent === null ? [] : this.#stack(parent);
    const name = underlayOf(stack[0]?.cacheId);
    let made = this.#underlays.get(name);
    if (made === undefined) {
      made = this.#makeUnderlay(
        name,
        stack.map((layer) => treeOf(this.#disk, layer.cacheId)),
      );
      this.#underlays.set(name, made);
      made.catch(() => this.#underlays.delete(name));
    }
    await made;
    return name;
  }

  async #makeUnderlay(name: string, below: readonly string[]): Promise<void> {
    const dir = path.join(this.#disk.root, name);
    if (fs.existsSync(dir)) return;
    const making = temporaryPrefix + newCacheId();
    const temporary = path.join(this.#disk.root, making);
    this.#making.add(making);
    try {
      await fs.promises.mkdir(temporary);
      await fillUnderlay(temporary);
      await this.#pool.run('inherit', { tree: temporary, below, paths: underlayDirectories });
      await fs.promises.rename(temporary, dir);
    } catch (error) {
      await this.#discard(temporary);
      throw error;
    } finally {
      this.#making.delete(making);
    }
  }

  /** Until the layer counts, its parent is held: it may not go while something is being put on it. */
  async #unpackLayer(parent: ChainId | null, source: ApplySource): Promise<Layer> {
    using _ = parent === null ? undefined : this.lease(parent);
    const below = parent === null ? null : this.#whenThere(parent);
    below?.catch(() => undefined); // awaited below, after the archive
    const cacheId = newCacheId();
    const temporary = path.join(this.#disk.root, temporaryPrefix + cacheId);
    this.#making.add(temporaryPrefix + cacheId).add(cacheId);
    try {
      await fs.promises.mkdir(temporary, { mode: 0o710 });
      const unpacked = await this.#unpack(temporary, 'layer', source);
      if (source.diffId !== undefined && unpacked.diffId !== source.diffId) {
        throw invalid(`layer verification failed: the archive has digest ${unpacked.diffId}, not ${source.diffId}`);
      }
      await below;
      const stack = parent === null ? [] : this.#stack(parent);
      if (stack.length >= depthMax) throw invalid('max depth exceeded');
      if (unpacked.implied.length > 0 && stack.length > 0) {
        await this.#pool.run('inherit', {
          tree: path.join(temporary, 'diff'),
          below: stack.map((layer) => treeOf(this.#disk, layer.cacheId)),
          paths: unpacked.implied,
        });
      }
      return await this.#keep(temporary, cacheId, parent, unpacked);
    } catch (error) {
      await this.#discard(temporary);
      throw error;
    } finally {
      this.#making.delete(temporaryPrefix + cacheId);
      this.#making.delete(cacheId);
    }
  }

  async #whenThere(chainId: ChainId): Promise<void> {
    if (this.get(chainId) !== undefined) return;
    const coming = this.#inFlight.get(chainId);
    if (coming === undefined) throw internal(`the layer below, ${chainId}, does not exist`);
    await coming;
  }

  /** From a finished temporary directory to a layer: rename, then the record. */
  async #keep(temporary: string, cacheId: string, parent: ChainId | null, unpacked: Unpacked): Promise<Layer> {
    const diffId = unpacked.diffId as DiffId;
    const chainId = chainIdOf(parent, diffId);
    const known = this.get(chainId);
    if (known !== undefined) {
      await this.#discard(temporary);
      return known;
    }
    const link = (++this.#lastLink).toString(36);
    const { size, tarSize } = unpacked;
    const record: LayerRecord = { id: chainId, chainId, parent, diffId, size, tarSize, cacheId, link };
    const dir = path.join(this.#disk.root, cacheId);
    await fs.promises.rename(temporary, dir);
    try {
      this.#makeLink(record);
      await syncDirectory(this.#disk.root);
      await this.#store.commit([this.#records.put(record)]);
    } catch (error) {
      await this.#discard(dir);
      throw error;
    }
    this.#missing.delete(chainId);
    return record;
  }

  #unpack(into: string, as: 'layer' | 'plain', source: ApplySource): Promise<Unpacked> {
    return consume(source, (from, cancel) => {
      const ask = { from, into, as, cancel };
      return 'file' in from ? this.#pool.run('unpack', ask) : this.#pool.share('unpack', ask);
    });
  }

  #makeLink(record: LayerRecord): void {
    const link = path.join(this.#disk.links, record.link);
    try {
      fs.symlinkSync(linkTarget(record.cacheId), link);
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
      if (fs.readlinkSync(link) === linkTarget(record.cacheId)) return;
      fs.rmSync(link);
      fs.symlinkSync(linkTarget(record.cacheId), link);
    }
  }

  /** The cacheId a writable tree stands on, or `noParent`; empty when the tree does not say. */
  async #readParent(containerId: string): Promise<string> {
    try {
      return await fs.promises.readlink(path.join(this.#disk.writable, containerId, 'parent'));
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return '';
      throw error;
    }
  }

  async #sweepWritables(known: ReadonlySet<string>): Promise<void> {
    const unread = new Set(this.#store.damaged.map((damaged) => damaged.id));
    for (const name of await fs.promises.readdir(this.#disk.writable)) {
      if (name.startsWith(temporaryPrefix)) await this.#discard(path.join(this.#disk.writable, name));
      else if (isContainerId(name) && !known.has(name) && !unread.has(name)) await this.removeWritable(name);
    }
  }

  async #sweepLayers(): Promise<void> {
    const claimed = new Set<string>();
    const links = new Set<string>();
    const newest = this.#lastLink;
    for (const record of this.#records.values()) {
      claimed.add(record.cacheId);
      links.add(record.link);
    }
    const unread = this.#store.damaged.some((damaged) => damaged.kind === 'layer');
    // Looked at in one go: what is made meanwhile is either in `#making` or not in this list.
    const left = fs.readdirSync(this.#disk.root).filter((name) => {
      const unclaimed = isCacheId(name) && !claimed.has(name) && !unread;
      return !this.#making.has(name) && (unclaimed || name.startsWith(temporaryPrefix));
    });
    for (const name of left) await this.#discard(path.join(this.#disk.root, name));
    if (unread) {
      this.#log.warn({}, 'a layer record cannot be read; layers that no record claims are kept');
      return;
    }
    for (const name of fs.readdirSync(this.#disk.links)) {
      if (!links.has(name) && Number.parseInt(name, 36) <= newest)
        await fs.promises.rm(path.join(this.#disk.links, name), { force: true });
    }
  }

  /** Out of the way at once, deleted behind. What is not there is no error. */
  async #discard(dir: string): Promise<void> {
    const aside = path.join(this.#disk.trash, newCacheId());
    try {
      await fs.promises.rename(dir, aside);
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return;
      throw error;
    }
    this.#deleteSoon(aside);
  }

  #deleteSoon(tree: string): void {
    this.#trash.push(tree);
    if (this.#trash.length > 1) return;
    this.#deleting = this.#deleting.then(async () => {
      await later(deleteDelayMs);
      const trees = this.#trash;
      this.#trash = [];
      try {
        for (const { tree: left, reason } of await this.#pool.run('delete', { trees })) {
          this.#log.warn(
            { tree: left, reason },
            'a removed tree cannot be deleted; it will be tried again at the next start',
          );
        }
      } catch (error) {
        this.#log.debug({ reason: messageOf(error) }, 'deleting removed trees was cut short');
      }
    });
  }
}

const later = (ms: number): Promise<null> => new Promise((resolve) => setTimeout(() => resolve(null), ms));

/** A root that containers see: 0755 whatever the umask. */
async function makeDirectory(dir: string): Promise<void> {
  await fs.promises.mkdir(dir, { mode: 0o755 });
  await fs.promises.chmod(dir, 0o755);
}
