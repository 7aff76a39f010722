/** What a daemon holds, after its garbage was collected: asked through Node's inspector in the daemon's own network. */
import fs from 'node:fs';
import { eventually, must } from './command.ts';
import type { TestEngine } from './engine.ts';

export interface Holdings {
  /** Bytes, as the kernel counts them. */
  readonly resident: number;
  /** Bytes of objects and buffers. */
  readonly live: number;
  readonly descriptors: number;
}

const question = `
const [{ webSocketDebuggerUrl: url }] = await (await fetch('http://127.0.0.1:9229/json/list')).json();
const socket = new WebSocket(url);
const waiting = new Map();
let number = 0;
const ask = (method, params) => new Promise((resolve) => {
  waiting.set(++number, resolve);
  socket.send(JSON.stringify({ id: number, method, params }));
});
socket.onmessage = ({ data }) => {
  const { id, result } = JSON.parse(data);
  waiting.get(id)?.(result);
};
await new Promise((resolve) => { socket.onopen = resolve; });
for (let round = 0; round < 3; round++) {
  await ask('HeapProfiler.collectGarbage');
  await new Promise((resolve) => setTimeout(resolve, 100));
}
const { result } = await ask('Runtime.evaluate', { expression: 'JSON.stringify(process.memoryUsage())' });
console.log(result.value);
process.exit(0);
`;

/** Opens the inspector when it is first asked; that costs the daemon some memory, so ask once before it counts. */
export async function holdingsOf(engine: TestEngine): Promise<Holdings> {
  process.kill(engine.pid, 'SIGUSR1');
  const ask = () => must(engine.netns.inside([process.execPath, '--input-type=module', '--eval', question]));
  let usage = { heapUsed: 0, external: 0 };
  await eventually(async () => {
    usage = JSON.parse(await ask());
  }, 10_000);
  const status = fs.readFileSync(`/proc/${engine.pid}/status`, 'utf8');
  return {
    resident: Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024,
    live: usage.heapUsed + usage.external,
    descriptors: fs.readdirSync(`/proc/${engine.pid}/fd`).length,
  };
}
