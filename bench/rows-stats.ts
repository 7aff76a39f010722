/** Rows of `GET /containers/{id}/stats`: many containers looked at together, once and all the time. */
import fs from 'node:fs';
import type { Engine } from './engines.ts';
import { memoryOf } from './memory.ts';
import type { Row } from './rows.ts';

const containers = 100;
const streamedMs = 5000;
/** A clock tick of `/proc/<pid>/stat` (USER_HZ). */
const tickMs = 10;

type Listed = readonly { readonly Id: string }[];

const running = ({ client }: Engine) => client.json<Listed>('GET', '/containers/json');

/** The rows share their containers. */
async function keepRunning(engine: Engine): Promise<void> {
  for (let left = containers - (await running(engine)).length; left > 0; left -= 10) {
    await Promise.all(Array.from({ length: Math.min(left, 10) }, () => startSleeper(engine)));
  }
}

async function startSleeper({ client }: Engine): Promise<void> {
  const { Id } = await client.json<{ Id: string }>('POST', '/containers/create', {
    Image: 'busybox',
    Cmd: ['sleep', '100000'],
    HostConfig: { NetworkMode: 'none' },
  });
  await client.call('POST', `/containers/${Id}/start`);
}

/** Processor time of the engine's processes, in milliseconds. */
function processorMs(engine: Engine): number {
  let ticks = 0;
  for (const { pid } of memoryOf(engine.directory)) {
    const fields = fs
      .readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /, '')
      .split(' ');
    // utime, stime and those of children that have ended
    for (const field of fields.slice(11, 15)) ticks += Number(field);
  }
  return ticks * tickMs;
}

export const statsRows: readonly Row[] = [
  {
    id: 'stats-100',
    title: `stats of ${containers} running containers at once, one answer each (API)`,
    unit: 'ms',
    rounds: 5,
    goal: '2 × faster',
    prepare: keepRunning,
    async measure(engine) {
      const ids = (await running(engine)).map(({ Id }) => Id);
      if (ids.length !== containers) throw new Error(`${engine.name}: ${ids.length} containers run`);
      const started = performance.now();
      await Promise.all(
        ids.map(async (id) => {
          const sample = await engine.client.json<{ memory_stats: { usage?: number } }>(
            'GET',
            `/containers/${id}/stats?stream=false`,
          );
          if (!((sample.memory_stats.usage ?? 0) > 0)) throw new Error(`${engine.name}: a sample without memory`);
        }),
      );
      return performance.now() - started;
    },
  },
  {
    id: 'stats-streams',
    title: `processor time of the engine for a second of ${containers} stats streams`,
    unit: 'ms',
    rounds: 3,
    goal: '1.5 × less',
    prepare: keepRunning,
    async measure(engine) {
      const ids = (await running(engine)).map(({ Id }) => Id);
      const heard = new Set<string>();
      const close = ids.map((id) =>
        engine.client.open(`/containers/${id}/stats`, () => {
          heard.add(id);
        }),
      );
      try {
        // The beginning is not counted: dockerd takes a second for its first sample.
        for (let waited = 0; heard.size < ids.length; waited += 100) {
          if (waited > 20_000) throw new Error(`${engine.name}: ${heard.size} of ${ids.length} streams speak`);
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        const before = processorMs(engine);
        await new Promise((resolve) => setTimeout(resolve, streamedMs));
        return ((processorMs(engine) - before) * 1000) / streamedMs;
      } finally {
        for (const end of close) end();
      }
    },
    cleanUp: async ({ client }) => {
      for (const { Id } of await client.json<Listed>('GET', '/containers/json?all=1')) {
        await client.call('DELETE', `/containers/${Id}?force=1`);
      }
    },
  },
];
