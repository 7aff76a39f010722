import { invariant } from '../lib/errors.ts';
import { type Log, silentLog } from '../lib/log.ts';
import { LogFile } from './container-log.ts';
import type { ContainerLog, LogLimits, Logs } from './types.ts';

/** The logs of all containers, by container id. */
export function createLogs(options: { readonly log: Log } = { log: silentLog }): Logs {
  const logs = new Map<string, LogFile>();
  const watches = new Set<() => void>();
  return {
    open(containerId: string, path: string, limits: LogLimits, reopen: () => void): ContainerLog {
      const known = logs.get(containerId);
      if (known) return known;
      const log = new LogFile({
        path,
        limits,
        reopen,
        forget: () => logs.delete(containerId),
        failed: (error) => options.log.error({ container: containerId, error }, 'a log could not be rotated'),
      });
      logs.set(containerId, log);
      return log;
    },
    watch(containerId: string): () => void {
      const log = logs.get(containerId);
      invariant(log, `the log of ${containerId} is open`);
      const end = log.watch();
      watches.add(end);
      return () => {
        watches.delete(end);
        end();
      };
    },
    close(): void {
      for (const end of watches) end();
      watches.clear();
      for (const log of logs.values()) log.close();
      logs.clear();
    },
  };
}
