/** `note.ts FILE [set]`: shows or sets extended attributes of a file: `user.note` and a capability (net_raw). */
import fs from 'node:fs';
import path from 'node:path';
import { getAttributeAt, setAttributeAt } from '../../src/platform/files.ts';

const [file = '', action] = process.argv.slice(2);
const dir = fs.openSync(path.dirname(path.resolve(file)), 'r');
const attributes = { 'user.note': '6b657074', 'security.capability': '0100000200200000000000000000000000000000' };
for (const [name, value] of Object.entries(attributes)) {
  if (action === 'set') setAttributeAt(dir, path.basename(file), name, Buffer.from(value, 'hex'));
  const shown = getAttributeAt(dir, path.basename(file), name)?.toString('hex');
  console.log(shown === value ? `has ${name}` : `${name}: ${shown}`);
}
