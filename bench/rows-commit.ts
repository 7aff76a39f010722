/** Rows of `POST /commit`: what a container changed becomes an image. */
import type { Engine } from './engines.ts';
import type { Row } from './rows.ts';

/** Containers that have changed something and ended, by engine. */
const changed = new Map<string, string>();

function commitRow(id: string, title: string, script: string, rounds: number, goal: string): Row {
  return {
    id,
    title,
    unit: 'ms',
    rounds,
    goal,
    async prepare({ client, name }: Engine) {
      const { Id } = await client.json<{ Id: string }>('POST', '/containers/create', {
        Image: 'busybox',
        Cmd: ['sh', '-c', script],
      });
      changed.set(name, Id);
      await client.call('POST', `/containers/${Id}/start`);
      const { body } = await client.call('POST', `/containers/${Id}/wait`);
      if (JSON.parse(body.toString()).StatusCode !== 0) throw new Error(`${name}: ${script}: ${body}`);
    },
    async measure({ client, name }: Engine) {
      const container = changed.get(name);
      const started = performance.now();
      const { Id } = await client.json<{ Id: string }>(
        'POST',
        `/commit?container=${container}&repo=bench/commit&tag=${id}`,
        {},
      );
      const took = performance.now() - started;
      await client.call('DELETE', `/images/${Id}?force=1`);
      return took;
    },
    async cleanUp({ client, name }: Engine) {
      await client.call('DELETE', `/containers/${changed.get(name)}?force=1`);
    },
  };
}

export const commitRows: readonly Row[] = [
  commitRow(
    'commit',
    'commit of a container with a small change',
    'echo x > /changed; mkdir /made; touch /made/here',
    20,
    '3 × faster',
  ),
  commitRow('commit-100mb', 'commit of 100 MB in one file', 'head -c 100000000 /dev/urandom > /big', 5, '1.5 × faster'),
];
