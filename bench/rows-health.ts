/**
 * Rows of health checks: CPU time of one check, of daemon, helpers, runtime and probe together. The probe fails, so that the failing streak
 * counts the checks; it is what `true` costs, too. podman leaves health checks to systemd and is not measured.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { CpuMeter } from './cpu.ts';
import type { Engine } from './engines.ts';
import type { Row } from './rows.ts';

const second = 1e9;

function healthRow(id: string, title: string, containers: number, intervalSeconds: number, goal: string): Row {
  return {
    id,
    title,
    unit: 'ms',
    rounds: 1,
    goal,
    async measure({ name, client, directory }: Engine) {
      if (name === 'podman') throw new Error('needs systemd for health checks');
      const meter = new CpuMeter(name, directory);
      const ids: string[] = [];
      try {
        for (let made = 0; made < containers; made += 1) {
          const { Id } = await client.json<{ Id: string }>('POST', '/containers/create', {
            Image: 'busybox',
            Cmd: ['sleep', '100000'],
            Healthcheck: { Test: ['CMD', 'false'], Interval: intervalSeconds * second, Retries: 1_000_000 },
            HostConfig: { NetworkMode: 'none' },
          });
          ids.push(Id);
          await client.call('POST', `/containers/${Id}/start`);
        }
        const checks = async () => {
          const streaks = ids.map(async (each) => {
            const { State } = await client.json<{ State: { Health: { FailingStreak: number } } }>(
              'GET',
              `/containers/${each}/json`,
            );
            return State.Health.FailingStreak;
          });
          return (await Promise.all(streaks)).reduce((sum, streak) => sum + streak, 0);
        };
        // The first check of each may be another than those that follow.
        await sleep((intervalSeconds + 2) * 1000);
        const [checksBefore, before] = [await checks(), meter.milliseconds(ids)];
        await sleep(10_000);
        const [checksAfter, after] = [await checks(), meter.milliseconds(ids)];
        return (after - before) / (checksAfter - checksBefore);
      } finally {
        for (const each of ids) await client.call('DELETE', `/containers/${each}?force=1`);
        meter.close();
      }
    },
  };
}

export const healthRows: readonly Row[] = [
  healthRow('health-1s', 'CPU time of a health check, 10 containers, every second', 10, 1, '< 5 ms'),
  healthRow('health-5s', 'the same, 20 containers, every 5 seconds', 20, 5, 'no dearer'),
];
