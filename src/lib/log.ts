/** The daemon's own log: one JSON object per line (pino), or a short readable line when the output is a terminal. */
import fs from 'node:fs';
import { isatty } from 'node:tty';
import { pino } from 'pino';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'fatal';

/** `fields` are for machines (an `error` among them is written with its stack); `message` is one sentence for people. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface ChangeableLog extends Log {
  setLevel(level: LogLevel): void;
}

/** Lines are written before the call returns: what was logged before a crash is there after it. */
export function createLog(options: { readonly level: LogLevel; readonly fd?: number }): ChangeableLog {
  const fd = options.fd ?? 2;
  const readable = isatty(fd);
  const logger = pino(
    {
      level: options.level,
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err },
    },
    { write: (line: string) => writeAll(fd, readable ? forTerminal(line) : line) },
  );
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    setLevel: (level) => {
      logger.level = level;
    },
  };
}

const nothing = (): void => undefined;
export const silentLog: Log = { debug: nothing, info: nothing, warn: nothing, error: nothing };

/** A log that nobody can take (closed pipe, full disk, reader asleep) must never stop the engine: its lines are lost. */
function writeAll(fd: number, line: string): void {
  try {
    fs.writeSync(fd, line);
  } catch {
    // Nowhere left to tell.
  }
}

const colours: Readonly<Record<string, number>> = { debug: 90, info: 36, warn: 33, error: 31, fatal: 31 };

/** `12:31:07.120 WARN  message  key=value …`, a stack on its own lines. */
function forTerminal(line: string): string {
  const { level, time, msg, error, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const name = String(level);
  let text = `${String(time).slice(11, 23)} \x1b[${colours[name] ?? 0}m${name.toUpperCase().padEnd(5)}\x1b[0m ${String(msg)}`;
  for (const [key, value] of Object.entries(fields)) {
    text += `  \x1b[90m${key}=\x1b[0m${typeof value === 'string' ? value : JSON.stringify(value)}`;
  }
  if (error !== undefined) {
    const known = error as { stack?: unknown; message?: unknown };
    text += `\n  ${String(known.stack ?? known.message ?? JSON.stringify(error)).replaceAll('\n', '\n  ')}`;
  }
  return `${text}\n`;
}
