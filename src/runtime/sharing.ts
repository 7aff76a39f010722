/** Namespaces that a container shares with another: kept open from the check that the other runs until the runtime has joined. */
import fs from 'node:fs';
import { conflict, invalid } from '../lib/errors.ts';
import { startTicks } from '../platform/process.ts';
import { attachTree, cloneTree } from '../platform/tree.ts';
import type { LaunchSpec, NamespaceOwner } from './types.ts';

/** What the spec takes from elsewhere. Paths hold as long as it is not disposed of. */
export interface Shared extends Disposable {
  readonly pidNamespace: string | null;
  readonly ipcNamespace: string | null;
  /** Directory to bind at /dev/shm; null: one of its own, made by the runtime. */
  readonly sharedMemory: string | null;
}

export const nothingShared: Shared = {
  pidNamespace: null,
  ipcNamespace: null,
  sharedMemory: null,
  [Symbol.dispose]: () => undefined,
};

/**
 * Opens what `launch` shares. `directory` is where another container's /dev/shm is attached: a mount that the caller
 * takes away with the container.
 */
export function openShared(launch: LaunchSpec, directory: string): Shared {
  const open: number[] = [];
  const close = (): void => {
    for (const fd of open.splice(0)) fs.closeSync(fd);
  };
  const namespaceOf = (owner: NamespaceOwner | undefined, type: 'pid' | 'ipc'): string | null => {
    if (owner === undefined) return null;
    open.push(openOf(owner, `ns/${type}`));
    return `/proc/${process.pid}/fd/${open.at(-1)}`;
  };
  try {
    return {
      pidNamespace: namespaceOf(launch.pidNamespaceOf, 'pid'),
      ipcNamespace: namespaceOf(launch.ipcNamespaceOf, 'ipc'),
      sharedMemory: sharedMemoryOf(launch, directory),
      [Symbol.dispose]: close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** A namespace of a running container. */
export function openNamespace(owner: NamespaceOwner, type: 'user'): Disposable & { readonly fd: number } {
  const fd = openOf(owner, `ns/${type}`);
  return { fd, [Symbol.dispose]: () => fs.closeSync(fd) };
}

/** Opened first, checked then: a number that has become somebody else's is noticed. */
function openOf(owner: NamespaceOwner, name: string): number {
  let fd: number;
  try {
    fd = fs.openSync(`/proc/${owner.pid}/${name}`, 'r');
  } catch (cause) {
    throw conflict(`container ${owner.id} is not running`, { cause });
  }
  if (startTicks(owner.pid) === owner.pidStartTicks) return fd;
  fs.closeSync(fd);
  throw conflict(`container ${owner.id} is not running`);
}

function sharedMemoryOf(launch: LaunchSpec, directory: string): string | null {
  if (launch.hostConfig.IpcMode === 'host') return '/dev/shm';
  const owner = launch.ipcNamespaceOf;
  if (owner === undefined) return null;
  const view = openOf(owner, 'ns/mnt');
  try {
    // The very mount the other sees, so nothing has to be set up on the host for those that nobody shares.
    const tree = cloneTree(view, '/dev/shm');
    if (tree === null) throw invalid(`can't join IPC of container ${owner.id}: it has no /dev/shm`);
    try {
      fs.mkdirSync(directory, { mode: 0o1777 });
      attachTree(tree, directory);
    } finally {
      fs.closeSync(tree);
    }
    return directory;
  } finally {
    fs.closeSync(view);
  }
}
