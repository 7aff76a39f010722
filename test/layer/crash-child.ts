/** Applies layers and makes and removes writable trees without end, until it is killed. Says the chain IDs it was given. */
import { newId } from '../../src/lib/ids.ts';
import { archive, bench, streamOf } from './support.ts';

const b = await bench(process.argv[2]);
await b.layers.reconcile(new Set(), new Set());
for (let at = 0; ; at++) {
  const entries = Array.from({ length: 20 }, (_, file) => ({
    name: `${file}`,
    content: `${process.pid} ${at} ${file} `.repeat(2000),
  }));
  const layer = await b.layers.apply(null, { from: { stream: streamOf(archive(...entries)) } });
  process.stdout.write(`${layer.chainId}\n`);
  const id = newId<string>();
  await b.layers.createWritable(id, layer.chainId);
  await b.layers.mountWritable(id);
  if (at % 2 === 0) await b.layers.removeWritable(id);
  if (at % 4 === 0) {
    process.stdout.write(`-${layer.chainId}\n`);
    await b.layers.remove(layer.chainId);
  }
}
