/** What an image has at a volume's place becomes the first content of the volume. */
import fs from 'node:fs/promises';
import { internal } from '../lib/errors.ts';
import { runChild } from '../platform/child.ts';

/** Hours for a local disk; a server may stop answering in the middle. */
const deadlineMs = 2 * 3600_000;
const remoteDeadlineMs = 300_000;

/** Tells the script's own end from that of `cp`. */
const notEmpty = 99;
// The volume is looked at by the child as well: on a dead server that would not come back.
const script = `test -z "$(ls -A -- "$1" | head -c 1)" || exit ${notEmpty}; exec cp -a -- /proc/self/fd/3/. "$2"`;

export interface CopyOptions {
  /** A path beside the volume; null where the volume is another file system. What an earlier copy left there goes. */
  readonly aside: string | null;
  /** Nobody else has the volume: it is filled aside and appears whole, so that a crash leaves it empty or full. */
  readonly whole: boolean;
  readonly remote: boolean;
}

/**
 * Copies the directory open as `from` into an empty volume, with owners, modes, times, links, holes and extended attributes,
 * its own too. It is named by a descriptor inside the container's root, so that no link in an image leads outside.
 */
export async function copyUp(
  from: { readonly fd: number },
  volume: string,
  { aside, whole, remote }: CopyOptions,
): Promise<void> {
  if (aside !== null) await fs.rm(aside, { recursive: true, force: true, maxRetries: 5 });
  const filled = whole ? aside : null;
  if (filled !== null) await fs.mkdir(filled, { mode: 0o755 });
  const words = ['sh', '-c', script, 'copy', volume, filled ?? volume];
  // With the daemon it ends too: its successor may want to fill the same volume.
  const { code, output } = await runChild(['setpriv', '--pdeathsig', 'KILL', ...words], {
    fd: from.fd,
    deadlineMs: remote ? remoteDeadlineMs : deadlineMs,
  });
  if (code === 0 && filled !== null) await fs.rename(filled, volume);
  else if (filled !== null) await fs.rm(filled, { recursive: true, force: true });
  if (code !== 0 && code !== notEmpty) {
    throw internal(`copying the image's files into the volume at ${volume}: ${output}`);
  }
}
