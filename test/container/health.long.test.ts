/** A hundred health checks a second cost less than half a processor: daemon, runtime, shells and probes together. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CpuMeter } from '../../bench/cpu.ts';
import { startEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

test('a hundred containers, each checked every second', async (t) => {
  const engine = await startEngine(t);
  await importBusybox(engine);
  const meter = new CpuMeter('health', engine.paths.directory);
  t.after(() => meter.close());
  const ids: string[] = [];
  for (let made = 0; made < 100; made += 1) {
    const { Id } = await engine.call('POST', '/v1.26/containers/create', {
      Image: 'busybox',
      Cmd: ['sleep', '1000'],
      Healthcheck: { Test: ['CMD', 'false'], Interval: 1e9, Retries: 1_000_000 },
      HostConfig: { NetworkMode: 'none' },
    });
    await engine.call('POST', `/v1.26/containers/${Id}/start`);
    ids.push(Id);
  }
  const checks = async () => {
    let sum = 0;
    for (const id of ids) sum += (await engine.call('GET', `/v1.26/containers/${id}/json`)).State.Health.FailingStreak;
    return sum;
  };
  await sleep(3000);
  const [checksBefore, cpuBefore, started] = [await checks(), meter.milliseconds(ids), performance.now()];
  let slowest = 0;
  while (performance.now() - started < 20_000) {
    const asked = performance.now();
    assert.equal((await engine.api('GET', '/_ping')).status, 200);
    slowest = Math.max(slowest, performance.now() - asked);
    await sleep(100);
  }
  const [done, cpu] = [(await checks()) - checksBefore, meter.milliseconds(ids) - cpuBefore];
  const tookMs = performance.now() - started;
  t.diagnostic(
    `${done} checks in ${tookMs.toFixed()} ms: ${(cpu / tookMs).toFixed(3)} processors, ${(cpu / done).toFixed(2)} ms each`,
  );
  t.diagnostic(`slowest _ping beside them: ${slowest.toFixed(1)} ms`);
  assert.ok(done / (tookMs / 1000) > 70, `${done} checks`);
  assert.ok(cpu / tookMs < 0.5, `${cpu / tookMs} processors`);
  await engine.removeAll();
  await engine.assertNoLeaks();
});
