/** Progress messages of pull, push, load and import as clients read them (W-56, W-58, W-68, W-69). */
import type { Json } from '../../container/api.ts';
import type { Progress } from '../../image/types.ts';

/** The message with its drawn bar, keys in the order servers send them. */
export function progressMessage({ stream, status, progressDetail, id, aux }: Progress): Json {
  const bar = progressDetail === undefined ? '' : drawBar(progressDetail.current ?? 0, progressDetail.total ?? 0);
  return {
    ...(stream === undefined ? {} : { stream }),
    ...(status === undefined ? {} : { status }),
    ...(progressDetail === undefined ? {} : { progressDetail }),
    ...(bar === '' ? {} : { progress: bar }),
    ...(id === undefined ? {} : { id }),
    ...(aux === undefined ? {} : { aux }),
  };
}

/** The last message of a stream that failed after it began. */
export const failureMessage = (message: string): Json => ({ errorDetail: { message }, error: message });

/** `[=====>      ]  1.2MB/3MB`; only the number when the total is unknown or wrong; nothing before the first byte. */
export function drawBar(current: number, total: number): string {
  if (current <= 0 && total <= 0) return '';
  const done = humanSize(current).padStart(8);
  if (total <= 0) return done;
  const filled = Math.min(50, Math.floor(((current / total) * 100) / 2));
  const bar = `[${'='.repeat(filled)}>${' '.repeat(50 - filled)}] `;
  return bar + (current > total ? done : `${done}/${humanSize(total)}`);
}

const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** Decimal units, four significant digits. */
function humanSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${Number(value.toPrecision(4))}${units[unit]}`;
}
