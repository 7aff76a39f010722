/** Rows of networks that users make: the networks themselves, live connects, containers started on them. */
import type { Client } from './client.ts';
import type { Engine } from './engines.ts';
import type { Row } from './rows.ts';

/** What a row keeps from prepare to clean-up, by engine. */
const kept = new Map<string, { readonly container: string; readonly network: string }>();
let made = 0;

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

/** A name of its own each time: some engines need a while to forget one. */
async function createNetwork(client: Client): Promise<string> {
  const name = `bench-network-${made++}`;
  await client.json('POST', '/networks/create', { Name: name, Driver: 'bridge' });
  return name;
}

async function create(client: Client, command: readonly string[], network: string): Promise<string> {
  const body = { Image: 'busybox', Cmd: command, HostConfig: { NetworkMode: network } };
  return (await client.json<{ Id: string }>('POST', '/containers/create', body)).Id;
}

async function prepare({ client, name }: Engine): Promise<void> {
  const network = await createNetwork(client);
  // On a network of the user's as well: podman connects those only.
  const container = await create(client, ['sleep', '100000'], network);
  await client.call('POST', `/containers/${container}/start`);
  kept.set(name, { container, network });
}

async function cleanUp({ client, name }: Engine): Promise<void> {
  const own = kept.get(name);
  if (own === undefined) return;
  await client.call('DELETE', `/containers/${own.container}?force=1`);
  await client.call('DELETE', `/networks/${own.network}`);
  kept.delete(name);
}

export const networkRows: readonly Row[] = [
  {
    id: 'network',
    title: 'create and remove of a bridge network (API)',
    unit: 'ms',
    rounds: 15,
    goal: '2 × faster',
    measure: ({ client }) => timed(async () => client.call('DELETE', `/networks/${await createNetwork(client)}`)),
  },
  {
    id: 'network-connect',
    title: 'connect and disconnect of a running container (API)',
    unit: 'ms',
    rounds: 15,
    goal: '2 × faster',
    prepare,
    measure: async ({ client, name }) => {
      const network = await createNetwork(client);
      const body = { Container: kept.get(name)?.container };
      const took = await timed(async () => {
        await client.call('POST', `/networks/${network}/connect`, body);
        await client.call('POST', `/networks/${network}/disconnect`, body);
      });
      await client.call('DELETE', `/networks/${network}`);
      return took;
    },
    cleanUp,
  },
  {
    id: 'network-start',
    title: 'start of a created container on a network of the user’s (API)',
    unit: 'ms',
    rounds: 15,
    goal: '5 × faster',
    prepare,
    measure: async ({ client, name }) => {
      const id = await create(client, ['sleep', '100000'], kept.get(name)?.network ?? '');
      const took = await timed(() => client.call('POST', `/containers/${id}/start`));
      await client.call('DELETE', `/containers/${id}?force=1`);
      return took;
    },
    cleanUp,
  },
];
