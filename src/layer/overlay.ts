/** Mounting a container's writable tree over its layers. */
import fs from 'node:fs';
import { internal } from '../lib/errors.ts';
import { mount } from '../platform/mount.ts';
import type { Disk } from './disk.ts';

/** Layers of one image; more would not fit into the options of a mount, and Docker has the same bound. */
export const depthMax = 125;
const optionsMax = 4095;

/**
 * Mounts overlay. All directories are named through two open descriptors, which keeps the options of 125 layers below one
 * page and free of characters that would have to be escaped, wherever the data root is.
 */
export class OverlayMounter {
  readonly #links: number;
  readonly #writable: number;
  readonly #root: number;

  constructor(disk: Disk) {
    const open = (folder: string) => fs.openSync(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
    this.#links = open(disk.links);
    this.#writable = open(disk.writable);
    this.#root = open(disk.root);
  }

  /** `underlay` is a path below the root; `links` are the short names of the layers, topmost first. */
  mount(containerId: string, underlay: string, links: readonly string[], target: string): void {
    const own = `/proc/self/fd/${this.#writable}/${containerId}`;
    const lower = [
      `/proc/self/fd/${this.#root}/${underlay}`,
      ...links.map((link) => `/proc/self/fd/${this.#links}/${link}`),
    ];
    // Without these a rename of a directory, or a change of mode, would leave marks that a layer tar cannot express.
    const options = `lowerdir=${lower.join(':')},upperdir=${own}/diff,workdir=${own}/work,index=off,redirect_dir=off,metacopy=off`;
    if (options.length > optionsMax) throw internal(`max depth exceeded: ${links.length} layers do not fit one mount`);
    mount('overlay', target, 'overlay', 0, options);
  }

  close(): void {
    for (const fd of [this.#links, this.#writable, this.#root]) fs.closeSync(fd);
  }
}
