/**
 * What lies between an image's layers and a container's own tree: empty files and directories for everything the engine
 * mounts into every container, so that mounting leaves no trace among the container's changes. The places are dockerd's
 * (its "init layer"); programs look for `/.dockerenv` to learn that they are in a container.
 */
import fs from 'node:fs/promises';
import path from 'node:path';

const directories = ['proc', 'sys', 'dev', 'dev/pts', 'dev/shm', 'etc'] as const;
const files = ['.dockerenv', 'dev/console', 'etc/hosts', 'etc/hostname', 'etc/resolv.conf'] as const;
const links = { 'etc/mtab': '/proc/mounts' } as const;

/** Directories that an image may have: they keep the owner, mode and time they have there. */
export const underlayDirectories: readonly string[] = directories;

/** Fills the empty directory `dir`; the modes do not depend on the umask. */
export async function fillUnderlay(dir: string): Promise<void> {
  await fs.chmod(dir, 0o755);
  for (const name of directories) {
    await fs.mkdir(path.join(dir, name));
    await fs.chmod(path.join(dir, name), 0o755);
  }
  for (const name of files) {
    await fs.writeFile(path.join(dir, name), '', { flag: 'wx' });
    await fs.chmod(path.join(dir, name), 0o755);
  }
  for (const [name, target] of Object.entries(links)) await fs.symlink(target, path.join(dir, name));
}
