import { invariant } from '../lib/errors.ts';
import { type Log, silentLog } from '../lib/log.ts';
import { LogFile } from './container-log.ts';
import type { ContainerLog, LogSource, Logs } from './types.ts';

/** The logs of all containers, by container id. */
export function createLogs(options: { readonly log: Log } = { log: silentLog }): Logs {
  const logs = new Map<string, LogFile>();
  /** Of removed containers, whose last lines are still on their way. */
  const leaving = new Set<LogFile>();
  const watches = new Set<() => void>();
  const logOf = (containerId: string): LogFile => {
    const log = logs.get(containerId);
    invariant(log, `the log of ${containerId} is open`);
    return log;
  };
  return {
    open(containerId: string, path: string, source: LogSource): ContainerLog {
      const known = logs.get(containerId);
      if (known) return known;
      const log: LogFile = new LogFile({
        ...source,
        path,
        containerId,
        log: options.log,
        forget: () => {
          logs.delete(containerId);
          leaving.add(log);
        },
        left: () => leaving.delete(log),
      });
      logs.set(containerId, log);
      return log;
    },
    watch(containerId: string): () => void {
      const end = logOf(containerId).watch();
      watches.add(end);
      return () => {
        watches.delete(end);
        end();
      };
    },
    drain: (containerId) => logOf(containerId).forwarder?.drain(),
    warnings: () => [...logs.values()].flatMap(({ forwarder }) => forwarder?.warning ?? []),
    close(): void {
      for (const end of watches) end();
      watches.clear();
      for (const log of [...logs.values(), ...leaving]) log.close();
      logs.clear();
      leaving.clear();
    },
  };
}
