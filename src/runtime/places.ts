/** Directories of a container's root that have to be there before its start. */
import fs from 'node:fs';
import { invalid } from '../lib/errors.ts';
import { idOutside } from '../lib/idmap.ts';
import { isErrno } from '../platform/libc.ts';
import { isRemote, mountOf, readMounts } from '../platform/mountinfo.ts';
import { makeDirectories } from './rootfs.ts';
import type { LaunchSpec } from './types.ts';

/** dockerd makes a missing working directory at start, owned by the user. */
export function makeWorkingDirectory(launch: LaunchSpec, user: { readonly uid: number; readonly gid: number }): void {
  const directory = launch.config.WorkingDir;
  if (directory === '' || directory === '/') return;
  try {
    const ids = launch.userNamespace?.ids;
    const [uid, gid] = ids ? [idOutside(ids.users, user.uid), idOutside(ids.groups, user.gid)] : [user.uid, user.gid];
    makeDirectories(launch.rootfs, directory, uid, gid);
  } catch (error) {
    if (isErrno(error, 'ENOTDIR')) throw invalid(`Cannot mkdir: ${directory} is not a directory`, { cause: error });
    throw error;
  }
}

/**
 * Directories to mount over, as runc makes them: crun's are sticky, which an image committed of the container would show. What cannot
 * be made is left to the runtime, which knows what to say. Places below another mount are not the root's.
 */
export function makeMountPoints({ rootfs, mounts, userNamespace }: LaunchSpec): void {
  const above = ['/dev', '/proc', '/sys', ...mounts.map(({ destination }) => destination)];
  const ids = userNamespace?.ids;
  const [uid, gid] = ids ? [idOutside(ids.users, 0), idOutside(ids.groups, 0)] : [0, 0];
  if (mounts.length === 0) return;
  const table = readMounts();
  for (const { type, source, destination } of mounts) {
    // A dead file server would not tell, and hold up the engine.
    if (
      type === 'tmpfs' ||
      isRemote(mountOf(table, source)) ||
      above.some((other) => destination.startsWith(`${other}/`))
    )
      continue;
    try {
      if (fs.statSync(source).isDirectory()) makeDirectories(rootfs, destination, uid, gid);
    } catch {
      // The runtime meets the same, and tells.
    }
  }
}
