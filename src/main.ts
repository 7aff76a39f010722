/** slipwayd: command line → configuration → daemon. */
import fs from 'node:fs';
import { flushCompileCache } from 'node:module';
import path from 'node:path';
import { readCommandLine, usage } from './config/cli.ts';
import { reloadConfig } from './config/config.ts';
import type { Config } from './config/types.ts';
import { createDaemon } from './daemon.ts';
import { EngineError, messageOf } from './lib/errors.ts';
import { createLog } from './lib/log.ts';
import { engineVersion } from './system/system.ts';

/** SIGTERM ends the daemon within a second, whatever is stuck. */
const stopPatienceMs = 900;

async function run(config: Config, argv: readonly string[]): Promise<void> {
  const log = createLog({ level: config.debug ? 'debug' : config.logLevel });
  // A broken invariant ends the daemon: records are on disk, containers run on, and the next start reconciles.
  process.on('uncaughtException', (error) => {
    log.error({ error }, `the daemon cannot go on: ${messageOf(error)}`);
    process.exit(70);
  });
  const daemon = await createDaemon(config, log);
  await daemon.start();
  if (config.pidFile !== '') {
    fs.mkdirSync(path.dirname(config.pidFile), { recursive: true });
    fs.writeFileSync(config.pidFile, `${process.pid}\n`);
  }
  log.info({ pid: process.pid, hosts: config.hosts }, `slipwayd ${engineVersion} answers`);

  // Node writes it at a regular end only, which a daemon may never see; the next start takes half the time and memory.
  flushCompileCache();

  let current = config;
  process.on('SIGHUP', () => {
    try {
      const reloaded = reloadConfig(current, argv);
      daemon.reload(reloaded.config);
      current = reloaded.config;
      log.setLevel(current.debug ? 'debug' : current.logLevel);
      log.info({ changed: reloaded.changed }, 'configuration read again');
      if (reloaded.needRestart.length > 0)
        log.warn({ keys: reloaded.needRestart }, 'these settings count from the next start on');
    } catch (error) {
      log.error({}, `the configuration stays as it was: ${messageOf(error)}`);
    }
  });

  let stopping = false;
  const stop = (signal: NodeJS.Signals) => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, 'slipwayd ends; containers run on');
    setTimeout(() => process.exit(0), stopPatienceMs).unref();
    daemon
      .stop()
      .catch((error: unknown) => log.error({ error }, `while ending: ${messageOf(error)}`))
      .finally(() => {
        if (config.pidFile !== '') fs.rmSync(config.pidFile, { force: true });
        process.exit(0);
      });
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

try {
  const argv = process.argv.slice(2);
  const command = readCommandLine(argv);
  if (command.is === 'help') process.stdout.write(usage());
  else if (command.is === 'version') process.stdout.write(`slipwayd ${engineVersion}\n`);
  else if (command.is === 'run') await run(command.config, argv);
} catch (error) {
  // What the user can mend is told in one line; anything else keeps its stack.
  process.stderr.write(
    `slipwayd: ${error instanceof EngineError ? error.message : error instanceof Error ? error.stack : String(error)}\n`,
  );
  process.exit(1);
}
