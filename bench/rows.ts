/**
 * What is measured. A row gives one figure per round and engine; smaller is better.
 *
 * `goal`: how many times faster than dockerd slipway has to be (1: no slower).
 */
import { must } from '../test/support/command.ts';
import type { BareWork } from './bare.ts';
import type { Client } from './client.ts';
import type { Engine } from './engines.ts';
import { memoryOf, sum } from './memory.ts';
import { commitRows } from './rows-commit.ts';
import { dnsRows } from './rows-dns.ts';
import { fileRows } from './rows-files.ts';
import { healthRows } from './rows-health.ts';
import { logRows } from './rows-logs.ts';
import { networkRows } from './rows-network.ts';
import { portRows } from './rows-ports.ts';
import { statsRows } from './rows-stats.ts';

export interface Row {
  readonly id: string;
  readonly title: string;
  readonly unit: 'ms' | 'MB';
  readonly rounds: number;
  readonly goal: string;
  /** Once per engine before the first round. */
  prepare?(engine: Engine, scale: Scale): Promise<void>;
  measure(engine: Engine, scale: Scale): Promise<number>;
  cleanUp?(engine: Engine): Promise<void>;
  /** Also measured without any engine. */
  readonly bare?: BareWork;
}

export interface Scale {
  readonly stoppedContainers: number;
  readonly logBytes: number;
  /** Reference of the image that the registry of each engine holds. */
  readonly pullReference: string;
}

type Created = { readonly Id: string };

const sleeper = { Image: 'busybox', Cmd: ['sleep', '100000'] };

/** Resolves with the milliseconds the work took. */
async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

async function create(client: Client, body: object): Promise<string> {
  return (await client.json<Created>('POST', '/containers/create', body)).Id;
}

/** create, start, wait, remove of `true`. */
async function lifetime(client: Client, networkMode: string): Promise<void> {
  const id = await create(client, { Image: 'busybox', Cmd: ['true'], HostConfig: { NetworkMode: networkMode } });
  await client.call('POST', `/containers/${id}/start`);
  const { body } = await client.call('POST', `/containers/${id}/wait`);
  if (JSON.parse(body.toString()).StatusCode !== 0) throw new Error(`true ended with ${body}`);
  await client.call('DELETE', `/containers/${id}`);
}

async function removeAll({ client }: Engine): Promise<void> {
  for (const { Id } of await client.json<Created[]>('GET', '/containers/json?all=1'))
    await client.call('DELETE', `/containers/${Id}?force=1`);
}

/** Containers that rows keep from prepare to clean-up, by engine. */
const kept = new Map<string, string>();

async function keepOne(engine: Engine): Promise<void> {
  const id = await create(engine.client, sleeper);
  await engine.client.call('POST', `/containers/${id}/start`);
  kept.set(engine.name, id);
}

async function writeLog(engine: Engine, bytes: number): Promise<void> {
  const line = 'x'.repeat(69);
  const id = await create(engine.client, {
    Image: 'busybox',
    Cmd: ['sh', '-c', `yes ${line} | head -c ${bytes}`],
    // slipway keeps 100 MB of a container's log unless told otherwise, its own notes in each line included.
    HostConfig: engine.name === 'podman' ? {} : { LogConfig: { Type: 'json-file', Config: { 'max-size': '1g' } } },
  });
  kept.set(engine.name, id);
  await engine.client.call('POST', `/containers/${id}/start`);
  await engine.client.call('POST', `/containers/${id}/wait`);
}

/** Reads and counts what the container printed, without the frames' headers. */
async function readLog(engine: Engine, query: string): Promise<number> {
  let wire = 0;
  const status = await engine.client.stream(
    'GET',
    `/containers/${kept.get(engine.name)}/logs?stdout=1&${query}`,
    undefined,
    (part) => {
      wire += part.length;
    },
  );
  if (status !== 200) throw new Error(`logs: ${status}`);
  return wire;
}

const runningContainers = 20;

export const rows: readonly Row[] = [
  {
    id: 'memory-idle',
    title: 'the daemon and its helpers soon after start, no containers, resident',
    unit: 'MB',
    rounds: 1,
    goal: '< 120 MB',
    measure: async ({ directory }) => sum(memoryOf(directory), 'residentBytes') / 1e6,
  },
  {
    id: 'run-bridge',
    title: 'create, start, wait, remove of `true`, default bridge (API)',
    unit: 'ms',
    rounds: 15,
    goal: '8 × faster; ≤ 2 × bare',
    bare: 'run',
    measure: ({ client }) => timed(() => lifetime(client, 'default')),
  },
  {
    id: 'run-none',
    title: 'the same with network `none`',
    unit: 'ms',
    rounds: 15,
    goal: '8 × faster; ≤ 2 × bare',
    bare: 'run',
    measure: ({ client }) => timed(() => lifetime(client, 'none')),
  },
  {
    id: 'run-cli',
    title: '`docker run --rm busybox true` (CLI)',
    unit: 'ms',
    rounds: 10,
    goal: '5 × faster',
    measure: (engine) => {
      const { argv, env } = engine.cli(['run', '--rm', 'busybox', 'true']);
      return timed(() => must(argv, { env }));
    },
  },
  {
    id: 'exec',
    title: 'exec of `true` in a running container (API)',
    unit: 'ms',
    rounds: 20,
    goal: '3 × faster',
    bare: 'exec',
    prepare: keepOne,
    measure: ({ client, name }) =>
      timed(async () => {
        const exec = await client.json<Created>('POST', `/containers/${kept.get(name)}/exec`, {
          Cmd: ['true'],
          AttachStdout: true,
          AttachStderr: true,
        });
        await client.call('POST', `/exec/${exec.Id}/start`, {});
        const { ExitCode } = await client.json<{ ExitCode: number }>('GET', `/exec/${exec.Id}/json`);
        if (ExitCode !== 0) throw new Error(`exec of true ended with ${ExitCode}`);
      }),
    cleanUp: removeAll,
  },
  {
    id: 'run-20',
    title: '20 such runs at once, default bridge (API)',
    unit: 'ms',
    rounds: 5,
    goal: '6 × faster',
    measure: ({ client }) => timed(() => Promise.all(Array.from({ length: 20 }, () => lifetime(client, 'default')))),
  },
  {
    id: 'run-crowded',
    title: 'the first row again beside 1 000 stopped containers',
    unit: 'ms',
    rounds: 15,
    goal: '± 10 % of the first',
    prepare: async ({ client }, { stoppedContainers }) => {
      for (let made = 0; made < stoppedContainers; made += 20) {
        await Promise.all(Array.from({ length: 20 }, () => create(client, { Image: 'busybox', Cmd: ['true'] })));
      }
    },
    measure: ({ client }) => timed(() => lifetime(client, 'default')),
    cleanUp: removeAll,
  },
  {
    id: 'list',
    title: 'list of 100 containers (API)',
    unit: 'ms',
    rounds: 30,
    goal: '2 × faster',
    prepare: async ({ client }) => {
      for (let made = 0; made < 100; made += 1) await create(client, sleeper);
    },
    measure: ({ client }) =>
      timed(async () => {
        const { length } = await client.json<unknown[]>('GET', '/containers/json?all=1');
        if (length !== 100) throw new Error(`${length} containers instead of 100`);
      }),
    cleanUp: removeAll,
  },
  {
    id: 'inspect',
    title: 'inspect of a running container (API)',
    unit: 'ms',
    rounds: 100,
    goal: 'no slower',
    prepare: keepOne,
    measure: ({ client, name }) => timed(() => client.call('GET', `/containers/${kept.get(name)}/json`)),
    cleanUp: removeAll,
  },
  {
    id: 'ping',
    title: '`_ping`',
    unit: 'ms',
    rounds: 100,
    goal: 'no slower',
    measure: ({ client }) => timed(() => client.call('GET', '/_ping')),
  },
  {
    id: 'log-write',
    title: '100 MB in 70-byte lines written by a container, until its exit',
    unit: 'ms',
    rounds: 3,
    goal: '4 × faster',
    measure: async (engine, { logBytes }) => {
      await removeAll(engine);
      return timed(() => writeLog(engine, logBytes));
    },
    cleanUp: removeAll,
  },
  {
    id: 'log-read',
    title: 'the same read back by `logs`',
    unit: 'ms',
    rounds: 3,
    goal: '10 × faster',
    prepare: (engine, { logBytes }) => writeLog(engine, logBytes),
    measure: (engine, { logBytes }) =>
      timed(async () => {
        const wire = await readLog(engine, '');
        if (wire < logBytes) throw new Error(`${engine.name} gave back ${wire} of ${logBytes} bytes`);
      }),
    cleanUp: removeAll,
  },
  {
    id: 'log-tail',
    title: '`logs` with `tail=10` of it',
    unit: 'ms',
    rounds: 10,
    goal: '5 × faster',
    prepare: (engine, { logBytes }) => writeLog(engine, logBytes),
    measure: (engine) =>
      timed(async () => {
        const wire = await readLog(engine, 'tail=10');
        if (wire < 700 || wire > 900) throw new Error(`${engine.name}: ${wire} bytes are not ten lines`);
      }),
    cleanUp: removeAll,
  },
  {
    id: 'pull',
    title: 'pull of 200 MB in 4 layers from a registry on this machine',
    unit: 'ms',
    rounds: 5,
    goal: '1.5 × faster',
    measure: async ({ client }, { pullReference }) => {
      await client.call('DELETE', `/images/${pullReference}`).catch(() => {});
      return timed(async () => {
        const [repository, tag] = pullReference.split(/:(?=[^:/]*$)/);
        const { body } = await client.call('POST', `/images/create?fromImage=${repository}&tag=${tag}`);
        if (body.includes('"error"')) throw new Error(`pull: ${body.toString().slice(-500)}`);
      });
    },
    cleanUp: async ({ client }) =>
      void (await client.call('DELETE', '/images/127.0.0.1:5000/bench/layers:1').catch(() => {})),
  },
  ...commitRows,
  ...dnsRows,
  ...statsRows,
  ...fileRows,
  ...healthRows,
  ...logRows,
  ...portRows,
  ...networkRows,
  {
    id: 'memory-container',
    title: 'helper processes of one running container, private',
    unit: 'MB',
    rounds: 1,
    goal: '< 1 MB',
    measure: async (engine) => {
      const before = new Set(memoryOf(engine.directory).map(({ pid }) => pid));
      for (let started = 0; started < runningContainers; started += 1) await keepOne(engine);
      const helpers = memoryOf(engine.directory).filter(({ pid }) => !before.has(pid));
      return sum(helpers, 'privateBytes') / runningContainers / 1e6;
    },
  },
  {
    id: 'memory-busy',
    title: `the daemon and all helpers with ${runningContainers} running containers, private`,
    unit: 'MB',
    rounds: 1,
    goal: '',
    // The containers are those of the row before, if it ran.
    prepare: async (engine) => {
      const running = await engine.client.json<Created[]>('GET', '/containers/json');
      for (let started = running.length; started < runningContainers; started += 1) await keepOne(engine);
    },
    measure: async ({ directory }) => sum(memoryOf(directory), 'privateBytes') / 1e6,
    cleanUp: removeAll,
  },
  {
    id: 'memory-after',
    title: 'the daemon and its helpers after all of the above, no containers, resident',
    unit: 'MB',
    rounds: 1,
    goal: '',
    measure: async ({ directory }) => sum(memoryOf(directory), 'residentBytes') / 1e6,
  },
];
