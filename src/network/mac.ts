/** Hardware addresses of network cards. */
import { invalid } from '../lib/errors.ts';

/** `02:42:ac:11:00:99`, also written with hyphens or as `0242.ac11.0099`, in lower case with colons. Throws for what no card can have. */
export function parseMac(text: string): string {
  const pairs = /^([0-9a-f]{2}([:-])(?:[0-9a-f]{2}\2){4}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4})$/i.exec(text);
  const bytes = pairs?.[0]
    .toLowerCase()
    .replace(/[^0-9a-f]/g, '')
    .match(/../g);
  if (!bytes) throw invalid(`invalid MAC address: ${text}`);
  const isGroup = (Number.parseInt(bytes[0] as string, 16) & 1) === 1;
  if (isGroup || bytes.every((byte) => byte === '00')) {
    throw invalid(`invalid MAC address: ${text} is not the address of one card`);
  }
  return bytes.join(':');
}
