/**
 * Health of a container as pure functions (API 1.26 `HealthConfig`, `State.Health`): what is checked and how often, and what a
 * result makes of the health so far. Who runs the probes is told in prober.ts.
 */
import type { Healthcheck, RunConfig } from '../image/types.ts';
import { invalid } from '../lib/errors.ts';
import { goDuration } from '../lib/time.ts';

export type HealthStatus = 'starting' | 'healthy' | 'unhealthy';

export interface Health {
  readonly status: HealthStatus;
  readonly failingStreak: number;
  /** The last results, oldest first. */
  readonly log: readonly ProbeResult[];
}

/** As it goes over the wire. */
export interface ProbeResult {
  /** RFC 3339, nanoseconds. */
  readonly Start: string;
  readonly End: string;
  /** 0 is healthy; -1 when it could not be run or took too long. */
  readonly ExitCode: number;
  readonly Output: string;
}

export interface ProbePlan {
  readonly cmd: readonly string[];
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** For the text of a probe that took too long. */
  readonly timeoutText: string;
  readonly startPeriodMs: number;
  readonly retries: number;
}

const logMax = 5;
const intervalNsDefault = 30e9;
const timeoutNsDefault = 30e9;
const retriesDefault = 3;
const nsMin = 1e6;

/** Null without a health check, and where it is turned off. An unknown kind of test is none, as on dockerd. */
export function probePlan(config: Pick<RunConfig, 'Healthcheck' | 'Shell'>): ProbePlan | null {
  const [kind, ...words] = config.Healthcheck?.Test ?? [];
  if (kind !== 'CMD' && kind !== 'CMD-SHELL') return null;
  const { Interval, Timeout, StartPeriod, Retries } = config.Healthcheck ?? {};
  const shell = config.Shell?.length ? config.Shell : ['/bin/sh', '-c'];
  const timeoutNs = Timeout || timeoutNsDefault;
  return {
    cmd: kind === 'CMD-SHELL' ? [...shell, ...words] : words,
    intervalMs: (Interval || intervalNsDefault) / 1e6,
    timeoutMs: timeoutNs / 1e6,
    timeoutText: goDuration(timeoutNs),
    startPeriodMs: (StartPeriod ?? 0) / 1e6,
    retries: Retries || retriesDefault,
  };
}

/** The user's health check on top of the image's, field by field (dockerd 20.10 `daemon/commit.go` merge). */
export function mergeHealthcheck(
  own: Healthcheck | undefined,
  image: Healthcheck | undefined,
): Healthcheck | undefined {
  if (own === undefined || image === undefined) return own ?? image;
  const merged: Record<string, unknown> = { ...own };
  if (!own.Test?.length && image.Test?.length) merged.Test = image.Test;
  for (const key of ['Interval', 'Timeout', 'StartPeriod', 'Retries'] as const)
    if (!own[key] && image[key]) merged[key] = image[key];
  return merged;
}

/** dockerd's refusals (20.10 `daemon/container.go`). */
export function checkHealthcheck(check: Healthcheck | undefined): void {
  const tooShort = (value: number | undefined) => value !== undefined && value !== 0 && value < nsMin;
  if (tooShort(check?.Interval)) throw invalid('Interval in Healthcheck cannot be less than 1ms');
  if (tooShort(check?.Timeout)) throw invalid('Timeout in Healthcheck cannot be less than 1ms');
  if ((check?.Retries ?? 0) < 0) throw invalid('Retries in Healthcheck cannot be negative');
  if (tooShort(check?.StartPeriod)) throw invalid('StartPeriod in Healthcheck cannot be less than 1ms');
  for (const word of check?.Test ?? [])
    if (word.includes('\0')) throw invalid('a word of Healthcheck.Test holds a null byte');
}

/** The health of a run that begins; results of earlier runs stay in the log. */
export const healthAtStart = (before: Health | undefined): Health => ({
  status: 'starting',
  failingStreak: 0,
  log: before?.log ?? [],
});

/** What does not run is not healthy: clients that look at the health alone must not send it work (as on dockerd). */
export const healthAtEnd = (before: Health): Health => ({ ...before, status: 'unhealthy' });

/** `ranForMs`: how long the container had been running when the probe began. */
export function healthAfter(before: Health, result: ProbeResult, plan: ProbePlan, ranForMs: number): Health {
  const log = [...before.log, result].slice(-logMax);
  if (result.ExitCode === 0) return { status: 'healthy', failingStreak: 0, log };
  // Until it has been healthy for the first time, a container may take its start period.
  if (before.status === 'starting' && ranForMs < plan.startPeriodMs) return { ...before, log };
  const failingStreak = before.failingStreak + 1;
  return { status: failingStreak >= plan.retries ? 'unhealthy' : before.status, failingStreak, log };
}
