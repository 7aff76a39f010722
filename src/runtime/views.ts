/** What runtimes see of the machine's mounts. */
import fs from 'node:fs';
import { isBelow, isRemote, mountOf, readMounts, sightOf } from '../platform/mountinfo.ts';
import { MountView } from '../platform/mountview.ts';
import { findBinary } from './binaries.ts';

const hiddenMounts = [{ path: '/sys/fs/cgroup/unified', parent: '/sys/fs/cgroup' }];

export interface LaunchView {
  readonly enter: <T>(work: () => T) => T;
  /** Command line that the runtime's is appended to. */
  readonly prefix: readonly string[];
  /** To be called when the runtime has ended. */
  readonly end: () => void;
}

export class Views implements Disposable {
  readonly #hybrid: boolean;
  #view: MountView | null = null;

  /** `hybrid`: cgroup v1 and v2 side by side. */
  constructor(hybrid: boolean) {
    this.#hybrid = hybrid;
  }

  [Symbol.dispose](): void {
    this.#view?.[Symbol.dispose]();
  }

  /**
   * Runs `work` where runtimes shall see the machine. crun refuses hybrid cgroups while the v2 tree owns a controller,
   * so on such machines they get a view of the mounts without it.
   */
  enter<T>(work: () => T): T {
    if (!this.#hybrid) return work();
    this.#view ??= new MountView(hiddenMounts);
    return this.#view.run(work);
  }

  /**
   * How the monitor of a container gets its runtime to see what it shall. Where mounts reach the view (a machine whose
   * root is shared, as systemd makes it), the monitor is forked inside. Elsewhere the container's root, mounted after
   * the view was made, is missing there: then a new view is made for this one runtime alone, which enters it by `nsenter`.
   * The monitor must stay outside, or for all its life it would hold a copy of every other container's mounts.
   */
  forLaunch(rootfs: string, binds: readonly string[]): LaunchView {
    if (!this.#hybrid) return { enter: (work) => work(), prefix: [], end: () => undefined };
    const sights = (): string => [identityOf(rootfs), ...sightsOf(binds)].join('\n\n');
    if (this.enter(sights) === sights()) {
      return { enter: (work) => this.enter(work), prefix: [], end: () => undefined };
    }
    const view = new MountView(hiddenMounts);
    const end = (): void => view[Symbol.dispose]();
    const nsenter = findBinary('nsenter');
    if (!nsenter) return { enter: (work) => view.run(work), prefix: [], end };
    return { enter: (work) => work(), prefix: [nsenter, `--mount=${view.path}`, '--'], end };
  }
}

/** Device and inode of a path, or null. */
function identityOf(file: string): string | null {
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  return stat ? `${stat.dev}:${stat.ino}` : null;
}

/** What this thread sees at the sources of binds. The table of mounts tells, since a dead file server would not. */
function sightsOf(sources: readonly string[]): readonly string[] {
  if (sources.length === 0) return [];
  const mounts = readMounts().filter(({ target }) => !hiddenMounts.some(({ path: hidden }) => isBelow(target, hidden)));
  return sources.map((source) => {
    if (isRemote(mountOf(mounts, source))) return sightOf(mounts, source);
    try {
      return sightOf(mounts, fs.realpathSync(source));
    } catch {
      return ''; // the runtime says what is wrong with it
    }
  });
}
