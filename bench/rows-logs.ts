/** Rows of log drivers: what a container prints, until the last of it has reached a sink next door. */
import { startSink } from '../test/support/log-sink.ts';
import type { Engine } from './engines.ts';
import type { Row } from './rows.ts';

const lastLine = 'that was all';

function forwardRow(id: string, title: string, share: number, config: (port: number) => object): Row {
  return {
    id,
    title,
    unit: 'ms',
    rounds: 3,
    goal: '2 × faster',
    async measure({ client, name, netns }: Engine, { logBytes }) {
      if (name === 'podman') throw new Error('podman has no such log driver');
      const after: (() => Promise<void>)[] = [];
      const sink = await startSink({ after: (undo) => after.push(undo) }, netns, {
        kind: 'tcp',
        counts: true,
        awaits: lastLine,
      });
      try {
        const script = `yes ${'x'.repeat(69)} | head -c ${Math.floor((logBytes * share) / 70) * 70}; echo ${lastLine}`;
        const { Id } = await client.json<{ Id: string }>('POST', '/containers/create', {
          Image: 'busybox',
          Cmd: ['sh', '-c', script],
          HostConfig: { NetworkMode: 'none', LogConfig: config(sink.port) },
        });
        const started = performance.now();
        await client.call('POST', `/containers/${Id}/start`);
        await sink.complete;
        const took = performance.now() - started;
        await client.call('DELETE', `/containers/${Id}?force=1`);
        if (sink.counted() < logBytes * share * 0.99) throw new Error(`${name} has sent ${sink.counted()} bytes`);
        return took;
      } finally {
        for (const undo of after) await undo();
      }
    },
  };
}

export const logRows: readonly Row[] = [
  forwardRow('log-syslog', '50 MB in 70-byte lines from a container to a syslog server, tcp', 0.5, (port) => ({
    Type: 'syslog',
    Config: { 'syslog-address': `tcp://127.0.0.1:${port}`, 'syslog-format': 'rfc5424' },
  })),
  forwardRow('log-fluentd', '50 MB in 70-byte lines from a container to fluentd, tcp', 0.5, (port) => ({
    Type: 'fluentd',
    Config: { 'fluentd-address': `127.0.0.1:${port}` },
  })),
];
