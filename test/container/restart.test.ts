import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nextDelayMs, restartsAfterExit, restartsWithDaemon } from '../../src/container/restart.ts';

type Name = '' | 'no' | 'always' | 'unless-stopped' | 'on-failure';

describe('restart policy', () => {
  // policy, retries allowed, exit code, restarts so far, stopped by the user → again?
  const afterExit: readonly (readonly [Name, number, number, number, boolean, boolean])[] = [
    ['no', 0, 1, 0, false, false],
    ['', 0, 1, 0, false, false],
    ['always', 0, 0, 0, false, true],
    ['always', 0, 1, 99, false, true],
    ['always', 0, 0, 0, true, false],
    ['unless-stopped', 0, 0, 0, false, true],
    ['unless-stopped', 0, 137, 0, true, false],
    ['on-failure', 0, 0, 0, false, false],
    ['on-failure', 0, 1, 1000, false, true],
    ['on-failure', 2, 1, 0, false, true],
    ['on-failure', 2, 1, 1, false, true],
    ['on-failure', 2, 1, 2, false, false],
    ['on-failure', 2, 1, 0, true, false],
  ];
  for (const [Name, MaximumRetryCount, code, count, stopped, expected] of afterExit) {
    it(`${Name || '(none)'}:${MaximumRetryCount} exit ${code} after ${count} restarts${stopped ? ', stopped' : ''} → ${expected}`, () => {
      assert.equal(restartsAfterExit({ Name, MaximumRetryCount }, code, count, stopped), expected);
    });
  }

  const withDaemon: readonly (readonly [Name, boolean, boolean, boolean])[] = [
    ['no', true, false, false],
    ['always', true, false, true],
    ['always', true, true, true],
    ['always', false, false, false],
    ['unless-stopped', true, false, true],
    ['unless-stopped', true, true, false],
    ['on-failure', true, false, false],
  ];
  for (const [Name, ended, stopped, expected] of withDaemon) {
    it(`${Name} with the daemon, ${ended ? 'ended' : 'never started'}${stopped ? ', stopped' : ''} → ${expected}`, () => {
      assert.equal(restartsWithDaemon({ Name, MaximumRetryCount: 0 }, ended, stopped), expected);
    });
  }

  it('doubles its delay from 100 ms to a minute and begins anew after a calm run', () => {
    let delay = 0;
    const delays: number[] = [];
    for (let i = 0; i < 12; i++) {
      delay = nextDelayMs(delay, 50);
      delays.push(delay);
    }
    assert.deepEqual(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
    assert.equal(nextDelayMs(60_000, 10_000), 100);
  });
});
