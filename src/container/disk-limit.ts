/** How much a container may write into its root file system: `StorageOpt` and `DiskQuota`. */
import { invalid } from '../lib/errors.ts';
import { parseMemorySize } from '../lib/size.ts';
import type { HostConfig } from './types.ts';

/** Whether the file system has to be able to limit; dockerd wants that for a size of 0, too. */
export const asksForDiskLimit = ({ StorageOpt, DiskQuota }: Pick<HostConfig, 'StorageOpt' | 'DiskQuota'>): boolean =>
  DiskQuota !== 0 || Object.keys(StorageOpt ?? {}).length > 0;

/** Bytes; 0: no limit. Throws dockerd's words for other options of the storage driver. */
export function diskLimitOf({ StorageOpt, DiskQuota }: Pick<HostConfig, 'StorageOpt' | 'DiskQuota'>): number {
  if (DiskQuota < 0) throw invalid(`Invalid value: ${DiskQuota}, the disk quota cannot be negative`);
  let size = 0;
  for (const [name, value] of Object.entries(StorageOpt ?? {})) {
    if (name.toLowerCase() !== 'size') throw invalid(`Unknown option ${name}`);
    size = parseMemorySize(value);
  }
  // The one that an update can change.
  return DiskQuota || size;
}
