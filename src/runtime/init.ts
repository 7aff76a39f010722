/**
 * The small init that runs as process 1 before a container's command when `Init` asks for one: it reaps orphans and passes
 * signals on. It is bound over `/sbin/docker-init`, so it must need no library of the container's.
 */
import fs from 'node:fs';
import { invalid } from '../lib/errors.ts';

export const initPathInside = '/sbin/docker-init';

const directories = ['/usr/libexec/docker', '/usr/local/libexec/docker', '/usr/libexec', '/usr/libexec/podman'];
const pathDirectories = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
/** Debian's `tini` brings the second, its `docker.io` the first, `catatonit` the last. All are linked statically. */
const names = ['docker-init', 'tini-static', 'catatonit'];

/** The init on this machine; null when there is none. `configured`: the daemon's `init-path`, a path or a name. */
export function findInit(configured: string): string | null {
  const wanted = configured === '' ? names : [configured];
  const places = wanted.flatMap((name) =>
    name.startsWith('/') ? [name] : [...directories, ...pathDirectories].map((directory) => `${directory}/${name}`),
  );
  return places.find((file) => fs.statSync(file, { throwIfNoEntry: false })?.isFile()) ?? null;
}

/** As `findInit`, for a container that needs it. */
export function requireInit(configured: string): string {
  const found = findInit(configured);
  if (found !== null) return found;
  throw invalid(
    configured === ''
      ? 'an init process was asked for, but none is installed: install tini or catatonit, or name one with --init-path'
      : `an init process was asked for, but the one of --init-path is not there: ${configured}`,
  );
}
