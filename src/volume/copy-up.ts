/** What an image has at a volume's place becomes the first content of the volume. */
import fs from 'node:fs/promises';
import { internal } from '../lib/errors.ts';
import { runChild } from '../platform/child.ts';

/** Hours for a local disk; a server may stop answering in the middle. */
const deadlineMs = 2 * 3600_000;
const remoteDeadlineMs = 300_000;

// The volume is looked at by the child as well: on a dead server that would not come back.
const script = `test -z "$(ls -A -- "$1" | head -c 1)" || exit 0; exec cp -a -- /proc/self/fd/3/. "$2"`;

/**
 * Copies the directory open as `from` into an empty volume, with owners, modes, times, links, holes and extended attributes,
 * its own too. `aside`: a path beside the volume; the copy is made there and appears whole, which needs a volume nobody has
 * yet. The directory is named by a descriptor inside the container's root, so that no link in an image leads outside.
 */
export async function copyUp(
  from: { readonly fd: number },
  volume: string,
  options: { readonly aside: string | null; readonly remote: boolean },
): Promise<void> {
  const target = options.aside ?? volume;
  if (options.aside !== null) {
    await fs.rm(options.aside, { recursive: true, force: true });
    await fs.mkdir(options.aside, { mode: 0o755 });
  }
  const { code, output } = await runChild(['sh', '-c', script, 'copy', volume, target], {
    fd: from.fd,
    deadlineMs: options.remote ? remoteDeadlineMs : deadlineMs,
  });
  if (code !== 0) throw internal(`copying the image's files into the volume at ${volume}: ${output}`);
  if (options.aside !== null) await fs.rename(options.aside, volume);
}
