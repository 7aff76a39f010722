/** `HostConfig.LogConfig` and the daemon's `log-driver` and `log-opts`: defaults, checks, and what they make of a log. */
import { invalid } from '../lib/errors.ts';
import { parseFileSize, parseMemorySize } from '../lib/size.ts';
import { parseRegex } from './attributes.ts';
import { parseBool } from './drivers/address.ts';
import { drivers } from './drivers/index.ts';
import { parseTag } from './tag.ts';
import type { LogConfig, LogLimits, LogOptions, LogPlan } from './types.ts';

const cacheOptions = ['cache-disabled', 'cache-max-size', 'cache-max-file', 'cache-compress'];
const commonOptions = new Set(['mode', 'max-buffer-size', ...cacheOptions]);

/** Without options 5 files of 20 MB: a log never fills the disk unasked. */
const maxSizeDefault = 20_000_000;
const maxFilesDefault = 5;

/** Output that nobody may read passes through a small file all the same. */
const hiddenLimits: LogLimits = { maxSize: 1024 * 1024, maxFiles: 2 };

/** The config a container gets: options of the daemon's driver fill in what a container with that driver leaves out. */
export function mergeLogConfig(given: Partial<LogConfig> | null | undefined, defaults: LogConfig): LogConfig {
  const Type = given?.Type || defaults.Type;
  const inherited = Object.entries(defaults.Config).filter(
    ([key]) => Type === defaults.Type || cacheOptions.includes(key),
  );
  return { Type, Config: { ...Object.fromEntries(inherited), ...given?.Config } };
}

/** Throws 'invalid' with dockerd's words. What dockerd finds out at the start of a container is told here already. */
export function checkLogConfig({ Type, Config }: LogConfig): void {
  const driver = drivers.get(Type);
  if (driver === undefined) throw invalid(`logger: no log driver named '${Type}' is registered`);
  if (Type === 'none') return;
  checkMode(Config);
  checkCache(Config);
  for (const key of Object.keys(Config)) {
    if (!commonOptions.has(key) && !driver.options.includes(key)) throw invalid(driver.unknown(key));
  }
  driver.check(Config);
  if (Config.tag) parseTag(Config.tag);
  for (const key of ['labels-regex', 'env-regex']) if (Config[key]) parseRegex(Config[key]);
  checkLimits({ Type, Config });
}

function checkMode({ mode = '', 'max-buffer-size': size }: LogOptions): void {
  if (!['', 'blocking', 'non-blocking'].includes(mode)) throw invalid(`logger: logging mode not supported: ${mode}`);
  if (size === undefined) return;
  if (mode !== 'non-blocking')
    throw invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'");
  try {
    parseMemorySize(size);
  } catch {
    throw invalid(`error parsing option max-buffer-size: invalid size: '${size}'`);
  }
}

function checkCache(options: LogOptions): void {
  try {
    parseBool(options['cache-disabled']);
  } catch {
    throw invalid(`invalid value for option cache-disabled: ${options['cache-disabled']}`);
  }
}

/** Of options that have been checked. */
export function logPlan(config: LogConfig): LogPlan {
  const readable = config.Type !== 'none' && !parseBool(config.Config['cache-disabled']);
  return {
    config,
    readable: readable || config.Type === 'json-file' || config.Type === 'local',
    limits: limitsOf(config),
  };
}

/** Whether a driver sends logs elsewhere. */
export const forwards = (driver: string): boolean => (drivers.get(driver)?.forward ?? null) !== null;

/** Drivers as `/info` lists them. */
export const logDriverNames: readonly string[] = [...drivers.keys()];

/** Bytes that a sink may be behind before the oldest are passed over; infinite unless asked for. */
export function bufferLimit({ 'max-buffer-size': size }: LogOptions): number {
  return size === undefined ? Number.POSITIVE_INFINITY : parseMemorySize(size);
}

/** Never throws for options that an earlier version of the engine has taken. */
function limitsOf({ Type, Config }: LogConfig): LogLimits {
  if (Type === 'none') return hiddenLimits;
  if (Type === 'json-file') {
    const limits = fileLimits(Config, '', Config['max-size'] === undefined ? maxFilesDefault : 1);
    return { ...limits, compress: parseBool(Config.compress) && limits.maxFiles > 1 };
  }
  const prefix = Type === 'local' ? '' : 'cache-';
  if (prefix !== '' && parseBool(Config['cache-disabled'])) return hiddenLimits;
  const limits = fileLimits(Config, prefix, maxFilesDefault);
  return { ...limits, compress: parseBool(Config[`${prefix}compress`] || 'true') && limits.maxFiles > 1 };
}

function checkLimits({ Type, Config }: LogConfig): void {
  const { maxFiles, maxSize } = limitsOf({ Type, Config });
  if (Type === 'json-file') {
    if (parseBool(Config.compress) && (maxFiles < 2 || maxSize === 0 || Config['max-size'] === undefined))
      throw invalid('compress cannot be true when max-file is less than 2 or max-size is not set');
    return;
  }
  const [key, disabled] =
    Type === 'local' ? ['compress', false] : ['cache-compress', parseBool(Config['cache-disabled'])];
  if (!disabled && maxFiles === 1 && parseBool(Config[key] || 'true'))
    throw invalid('compression cannot be enabled when max file count is 1');
}

function fileLimits(options: LogOptions, prefix: string, maxFilesWithout: number): LogLimits {
  const size = options[`${prefix}max-size`];
  const files = options[`${prefix}max-file`];
  const maxSize = size === undefined ? maxSizeDefault : size === '-1' ? 0 : parseFileSize(size);
  const maxFiles = files === undefined ? maxFilesWithout : Number(files);
  if (!Number.isInteger(maxFiles) || maxFiles < 1) throw invalid('max-file cannot be less than 1');
  return { maxSize, maxFiles };
}
