/** Mounting a container's writable tree over its layers. */
import fs from 'node:fs';
import path from 'node:path';
import { internal } from '../lib/errors.ts';
import { mount, unmount } from '../platform/mount.ts';
import { attachTree, openTree, shiftIds } from '../platform/tree.ts';
import type { Disk } from './disk.ts';

/** Layers of one image; more would not fit into the options of a mount, and Docker has the same bound. */
export const depthMax = 125;
const optionsMax = 4095;

/**
 * Mounts overlay. All directories are named through two open descriptors, which keeps the options of 125 layers below one
 * page and free of characters that would have to be escaped, wherever the data root is.
 */
export class OverlayMounter {
  readonly #disk: Disk;
  readonly #folders: Folders;

  constructor(disk: Disk) {
    this.#disk = disk;
    this.#folders = openFolders(disk.root, disk);
  }

  /** `underlay` is a path below the root; `links` are the short names of the layers, topmost first. */
  mount(containerId: string, underlay: string, links: readonly string[], target: string): void {
    mountOverlay(this.#folders, containerId, underlay, links, target);
  }

  /**
   * The same with the ids of a user namespace: for the time of the mount, all of the store is there a second time, shifted.
   * Overlay keeps what it needs of it.
   */
  mountShifted(containerId: string, underlay: string, links: readonly string[], target: string, namespace: number) {
    const place = shiftedPlace(this.#disk, containerId);
    fs.mkdirSync(place, { recursive: true, mode: 0o700 });
    const tree = openTree(this.#disk.root);
    try {
      shiftIds(tree, namespace);
      attachTree(tree, place);
    } finally {
      fs.closeSync(tree);
    }
    try {
      const folders = openFolders(place, this.#disk);
      try {
        mountOverlay(folders, containerId, underlay, links, target);
      } finally {
        closeFolders(folders);
      }
    } finally {
      unmount(place);
    }
  }

  close(): void {
    closeFolders(this.#folders);
  }
}

/** Where the store is seen shifted; a crash may leave it mounted, so it is unmounted before anything there is deleted. */
export const shiftedPlace = (disk: Disk, containerId: string) => path.join(disk.writable, containerId, 'shifted');

interface Folders {
  readonly root: number;
  readonly links: number;
  readonly writable: number;
}

/** `root` stands for the disk's own. */
function openFolders(root: string, disk: Disk): Folders {
  const open = (folder: string) =>
    fs.openSync(path.join(root, path.relative(disk.root, folder)), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  return { root: open(disk.root), links: open(disk.links), writable: open(disk.writable) };
}

function closeFolders({ root, links, writable }: Folders): void {
  for (const fd of [root, links, writable]) fs.closeSync(fd);
}

function mountOverlay(
  folders: Folders,
  containerId: string,
  underlay: string,
  links: readonly string[],
  target: string,
): void {
  const own = `/proc/self/fd/${folders.writable}/${containerId}`;
  const lower = [
    `/proc/self/fd/${folders.root}/${underlay}`,
    ...links.map((link) => `/proc/self/fd/${folders.links}/${link}`),
  ];
  // Without these a rename of a directory, or a change of mode, would leave marks that a layer tar cannot express.
  const options = `lowerdir=${lower.join(':')},upperdir=${own}/diff,workdir=${own}/work,index=off,redirect_dir=off,metacopy=off`;
  if (options.length > optionsMax) throw internal(`max depth exceeded: ${links.length} layers do not fit one mount`);
  mount('overlay', target, 'overlay', 0, options);
}
