/**
 * Where things are below `<data-root>/layer/`:
 *
 *   <cacheId>/diff          a layer's tree, in overlay's own form (whiteouts are 0/0 devices)
 *   <cacheId>/recipe        how to make its tar again (`recipe.ts`)
 *   <cacheId>/replaced/     files its tar held twice: the earlier ones; seldom there
 *   <cacheId>/underlay/     what lies between it and a container (`underlay.ts`), once there has been one
 *   l/<link>                short names of the trees, for mounting many layers
 *   underlay/               the same for a container without layers
 *   writable/<container>/   diff, work, merged, and `parent`, a link whose text is the cacheId of the top layer
 *   tmp-…, writable/tmp-…   being made; swept at start
 *   trash/                  being deleted; swept at start
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { spreadTreesOf } from '../platform/spread.ts';
import { layerFiles } from './recipe.ts';

export interface Disk {
  readonly root: string;
  readonly links: string;
  readonly writable: string;
  readonly trash: string;
}

export const temporaryPrefix = 'tmp-';

/** 26 letters and digits. */
export function newCacheId(): string {
  return BigInt(`0x${randomBytes(17).toString('hex')}`)
    .toString(36)
    .padStart(27, '0')
    .slice(-26);
}

export const isCacheId = (name: string): boolean => /^[0-9a-z]{26}$/.test(name);
export const isContainerId = (name: string): boolean => /^[0-9a-f]{64}$/.test(name);

export function prepareDisk(root: string): Disk {
  const below = (name: string) => path.join(root, name);
  const disk = {
    root,
    links: below('l'),
    writable: below('writable'),
    trash: below('trash'),
  };
  for (const folder of [root, disk.links, disk.writable, disk.trash]) {
    fs.mkdirSync(folder, { recursive: true, mode: 0o711 });
  }
  for (const folder of [root, disk.writable]) spreadTreesOf(folder);
  return disk;
}

export const treeOf = (disk: Disk, cacheId: string): string => path.join(disk.root, cacheId, layerFiles.tree);

/** Path below the root of what lies between a layer and a container; without a layer, that of containers on none. */
export const underlayOf = (cacheId: string | undefined): string =>
  cacheId === undefined ? 'underlay' : path.join(cacheId, 'underlay');

/** The target of a short name, relative to its folder, so that the data root can be moved. */
export const linkTarget = (cacheId: string): string => `../${cacheId}/${layerFiles.tree}`;

export interface WritablePaths {
  readonly dir: string;
  readonly upper: string;
  readonly work: string;
  readonly merged: string;
}

export function writablePaths(disk: Disk, containerId: string): WritablePaths {
  const dir = path.join(disk.writable, containerId);
  return { dir, upper: path.join(dir, 'diff'), work: path.join(dir, 'work'), merged: path.join(dir, 'merged') };
}

/** True when something is mounted at the directory `at`. */
export function isMounted(at: string): boolean {
  return fs.statSync(at).dev !== fs.statSync(path.dirname(at)).dev;
}

/** A rename in a directory is durable once the directory is. */
export async function syncDirectory(dir: string): Promise<void> {
  const handle = await fs.promises.open(dir, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
