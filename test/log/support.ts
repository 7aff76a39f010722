/** Logs for tests that need no engine. */
import type { LogConfig, LogLimits, LogSource, LogSubject } from '../../src/log/types.ts';

export const subject: LogSubject = {
  id: '0123456789abcdef'.repeat(4),
  name: 'web',
  created: '2026-11-21T13:29:11.892975284Z',
  imageId: `sha256:${'cd'.repeat(32)}`,
  imageName: 'busybox:latest',
  command: 'sh -c true',
  env: ['E1=v 1', 'E2=\u00fc', 'PATH=/bin'],
  labels: { l1: 'x,y', 'l.2': 'z=' },
  hostname: 'machine',
};

export function sourceOf(options: {
  readonly limits?: LogLimits;
  readonly config?: LogConfig;
  readonly reopen?: () => void;
}): LogSource {
  const {
    limits = { maxSize: 0, maxFiles: 1 },
    config = { Type: 'json-file', Config: {} },
    reopen = () => undefined,
  } = options;
  return { plan: { limits, config, readable: true }, subject: () => subject, reopen };
}
