/** Rows of the engine's name server: names of containers, and names that are asked outside. */
import type { ChildProcess } from 'node:child_process';
import { load, serve } from '../test/support/dns-load.ts';
import type { Netns } from '../test/support/netns.ts';
import type { Engine } from './engines.ts';
import type { Row } from './rows.ts';

const questions = 20_000;
const network = 'names';

interface World {
  readonly neighbour: Netns;
  readonly server: ChildProcess;
  /** Of the container that asks. */
  readonly namespacePath: string;
}
const worlds = new Map<Engine, World>();

/** A server next door, a network, and a container in it that asks. The rows share them. */
async function prepare(engine: Engine): Promise<void> {
  if (worlds.has(engine)) return;
  if (engine.name === 'podman') throw new Error('no name server: its dns plugin is not installed');
  const { netns: neighbour, there } = await engine.netns.attachNeighbour({ net: '10.98.0' });
  const server = await serve(neighbour.path, there);
  const { client } = engine;
  await client.call('POST', '/networks/create', { Name: network });
  const { Id } = await client.json<{ Id: string }>('POST', '/containers/create?name=asker', {
    Image: 'busybox',
    Cmd: ['sleep', '100000'],
    HostConfig: { NetworkMode: network, Dns: [there] },
  });
  await client.call('POST', `/containers/${Id}/start`);
  const { State } = await client.json<{ State: { Pid: number } }>('GET', `/containers/${Id}/json`);
  worlds.set(engine, { neighbour, server, namespacePath: `/proc/${State.Pid}/ns/net` });
}

async function measure(engine: Engine, name: string): Promise<number> {
  const { answered, asked, totalMs } = await load(worlds.get(engine)?.namespacePath ?? '', name, questions);
  if (answered < questions) throw new Error(`${engine.name}: ${answered} of ${asked} questions answered`);
  return totalMs;
}

async function cleanUp(engine: Engine): Promise<void> {
  const world = worlds.get(engine);
  worlds.delete(engine);
  world?.server.kill('SIGKILL');
  world?.neighbour.close();
  if (world === undefined) return;
  await engine.client.call('DELETE', '/containers/asker?force=1');
  await engine.client.call('DELETE', `/networks/${network}`);
}

export const dnsRows: readonly Row[] = [
  {
    id: 'dns-own',
    title: `${questions} questions for the name of a container, 64 at a time (127.0.0.11)`,
    unit: 'ms',
    rounds: 5,
    goal: '1 × faster',
    prepare,
    measure: (engine) => measure(engine, 'asker'),
    cleanUp,
  },
  {
    id: 'dns-outside',
    title: `${questions} questions that a server outside answers, 64 at a time (127.0.0.11)`,
    unit: 'ms',
    rounds: 5,
    goal: '1 × faster',
    prepare,
    measure: (engine) => measure(engine, 'n*.example'),
    cleanUp,
  },
];
