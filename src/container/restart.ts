/**
 * The restart policy as a pure function (API 1.26 `RestartPolicy`).
 *
 * The delay starts at 100 ms, doubles with each attempt up to a minute, and starts again after a run of ten seconds.
 */
import type { HostConfig } from './types.ts';

const delayMsMin = 100;
export const restartDelayMsMax = 60_000;
const calmRunMs = 10_000;

type Policy = HostConfig['RestartPolicy'];

/** Whether a process that has just ended is to be started again. `restartCount` counts the restarts so far. */
export function restartsAfterExit(
  policy: Policy,
  exitCode: number,
  restartCount: number,
  stoppedByUser: boolean,
): boolean {
  if (stoppedByUser) return false;
  switch (policy.Name) {
    case 'always':
    case 'unless-stopped':
      return true;
    case 'on-failure':
      return exitCode !== 0 && (policy.MaximumRetryCount === 0 || restartCount < policy.MaximumRetryCount);
    default:
      return false;
  }
}

/**
 * Whether a container that does not run is to be started when the daemon starts. `ended` is false for one that
 * was created and never started. A container that exited on its own under `on-failure` stays so, as documented.
 */
export function restartsWithDaemon(policy: Policy, ended: boolean, stoppedByUser: boolean): boolean {
  if (!ended) return false;
  return policy.Name === 'always' || (policy.Name === 'unless-stopped' && !stoppedByUser);
}

/** Milliseconds to wait before the next attempt. */
export function nextDelayMs(lastDelayMs: number, ranForMs: number): number {
  if (lastDelayMs === 0 || ranForMs >= calmRunMs) return delayMsMin;
  return Math.min(lastDelayMs * 2, restartDelayMsMax);
}
