/** Commits records from four writers until it is killed; prints each id once it is acknowledged. */
import fs from 'node:fs';
import { silentLog } from '../../src/lib/log.ts';
import { openStore } from '../../src/store/store.ts';

const [dir = '', round = ''] = process.argv.slice(2);
const store = await openStore({ dir, log: silentLog });
const collection = store.collection<{ id: string; count: number }>({ kind: 'thing', schema: 1 });
async function write(writer: number): Promise<never> {
  for (let count = 0; ; count++) {
    const id = `${round}-${writer}-${count}`;
    await store.commit([collection.put({ id, count })], [{ type: 'container', action: id, id, attributes: {} }]);
    fs.writeSync(1, `${id}\n`);
  }
}
await Promise.all([0, 1, 2, 3].map(write));
