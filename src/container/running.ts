/** Records of containers that run, and small readings of states that several operations need. */
import type { Launched } from '../runtime/types.ts';
import type { ContainerRecord, Ending, Running } from './types.ts';

export type RunningRecord = ContainerRecord & {
  readonly state: { readonly is: 'running'; readonly paused: boolean } & Running;
};

export function isRunning(record: ContainerRecord): record is RunningRecord {
  return record.state.is === 'running';
}

export const launchedOf = (record: RunningRecord): Launched => record.state;

export const exitCodeOf = (record: ContainerRecord) => (record.state.is === 'running' ? 0 : record.state.exitCode);

export function endingOf({ exitCode, oomKilled, startedAt, finishedAt, error }: Ending): Ending {
  return { exitCode, oomKilled, startedAt, finishedAt, error };
}
