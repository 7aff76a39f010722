/** Joins the parts, starts and stops them, nothing else. */
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { createApiServer } from './api/server/server.ts';
import type { Config } from './config/types.ts';
import { createContainers } from './container/containers.ts';
import { createEventJournal } from './event/journal.ts';
import { createImages } from './image/images.ts';
import { createPull } from './image/pull.ts';
import { createPush } from './image/push.ts';
import { createLayerStore } from './layer/store.ts';
import { invalid, messageOf } from './lib/errors.ts';
import { rootOutside } from './lib/idmap.ts';
import type { Log } from './lib/log.ts';
import { nowNano, rfc3339Nano } from './lib/time.ts';
import { createLogs } from './log/logs.ts';
import { checkLogConfig } from './log/options.ts';
import { createNetworks } from './network/networks.ts';
import { createPlugins } from './plugin/plugins.ts';
import { Downloads } from './registry/download.ts';
import { Hasher } from './registry/hasher.ts';
import { Registries } from './registry/registries.ts';
import { Slots } from './registry/waiting.ts';
import { readRemap } from './runtime/remap.ts';
import { createRuntime } from './runtime/runtime.ts';
import { openStore } from './store/store.ts';
import { createSystem, engineVersion } from './system/system.ts';
import { Volumes } from './volume/volumes.ts';

export interface Daemon {
  /** Resolves when every host accepts connections; reconciliation goes on behind. Throws when something it stands on is missing. */
  start(): Promise<void>;
  /** Swaps the configuration; parts read it anew at their next use. Throws and changes nothing when it cannot be. */
  reload(config: Config): void;
  /** Leaves containers running. */
  stop(): Promise<void>;
}

/** Time that requests under way get when the daemon ends. */
const closeGraceMs = 500;
const loginPatienceMs = 30_000;

export async function createDaemon(initial: Config, log: Log): Promise<Daemon> {
  let config = initial;
  const { dataRoot, execRoot } = initial;
  checkLogDefaults(initial);
  fs.mkdirSync(dataRoot, { recursive: true, mode: 0o710 });
  fs.mkdirSync(execRoot, { recursive: true, mode: 0o711 });

  const store = await openStore({ dir: dataRoot, log });
  for (const { kind, id, reason } of store.damaged)
    log.error({ kind, id }, `a record could not be read and was set aside: ${reason}`);
  const events = createEventJournal(store);
  const layers = await createLayerStore({ dir: path.join(dataRoot, 'layer'), store, log });
  const { runtimes, defaultRuntime, init, initPath, noNewPrivileges, seccompProfile } = config;
  const remap = config.usernsRemap === '' ? null : readRemap(config.usernsRemap);
  const isolation = { init, initPath, noNewPrivileges, seccompProfile, remapped: remap !== null };
  const runtime = createRuntime({ execRoot, runtimes, defaultRuntime, log, isolation });
  const plugins = createPlugins({ places: { sockets: config.pluginSockets, specs: config.pluginSpecs }, log });
  const networks = createNetworks({ config, store, plugins, log });
  const logs = createLogs({ log });
  const volumes = new Volumes({
    dir: path.join(dataRoot, 'volume'),
    store,
    plugins,
    log,
    now: () => rfc3339Nano(nowNano()),
    users: () => containers.volumeUsers(),
    ready: () => containers.ready(),
  });

  const registries = new Registries({ settings: () => config });
  const hasher = new Hasher();
  const downloads = new Downloads({
    slots: new Slots(() => config.maxConcurrentDownloads),
    hasher,
    backOffMs: registries.backOffMs,
  });
  const images = await createImages({
    dir: path.join(dataRoot, 'image'),
    store,
    layers,
    log,
    containersUsing: (id) => containers.usersOf(id),
    pull: createPull({ registries, downloads, log }),
    push: createPush({ registries, hasher, slots: new Slots(() => config.maxConcurrentUploads) }),
    version: engineVersion,
  });
  const containers = createContainers({
    store,
    layers,
    images,
    networks,
    runtime,
    logs,
    volumes,
    log,
    dir: path.join(dataRoot, 'container'),
    defaults: () => {
      const { name, available } = runtime.describe();
      return {
        logDriver: config.logDriver,
        logOpts: config.logOpts,
        runtime: name,
        runtimes: Object.keys(available),
        dns: config.dns,
        dnsOptions: config.dnsOptions,
        dnsSearch: config.dnsSearch,
        ulimits: config.defaultUlimits,
      };
    },
  });
  const system = createSystem({
    config: () => config,
    containers,
    images,
    layers,
    volumes,
    runtime,
    plugins,
    login: async (credentials) => ({ ...(await registries.login(credentials, AbortSignal.timeout(loginPatienceMs))) }),
    warnings: () => [
      ...store.damaged.map(({ kind, id }) => `the record of ${kind} ${id} could not be read and was set aside`),
      ...logs.warnings(),
    ],
    eventListeners: () => events.readers,
    engineId: engineIdIn(dataRoot),
  });
  const api = createApiServer({ backend: { containers, images, events, networks, volumes, system }, config, log });

  return {
    async start() {
      await runtime.prepare();
      if (remap !== null) {
        await layers.shiftIds(remap);
        letThrough(dataRoot, rootOutside(remap).gid);
      }
      await api.listen();
      void bringTogether().catch((error: unknown) => {
        log.error({ error }, `the engine cannot work: ${messageOf(error)}`);
        containers.giveUp(error);
      });
    },
    reload(next) {
      checkLogDefaults(next);
      runtime.configure(next.runtimes, next.defaultRuntime);
      config = next;
      void networks.refresh(next).catch((error: unknown) => {
        log.error({ error }, `networks could not be refreshed: ${messageOf(error)}`);
      });
    },
    async stop() {
      await api.close(closeGraceMs);
      runtime[Symbol.dispose]();
      logs.close();
      await networks.close();
      await registries.close();
      await hasher.close();
      await layers.close();
      await store.close();
    },
  };

  async function bringTogether(): Promise<void> {
    const began = performance.now();
    await containers.reconcile();
    const { running, paused, stopped } = containers.counts();
    log.info({ running, paused, stopped, ms: Math.round(performance.now() - began) }, 'records and kernel agree');
  }
}

/** The log driver of containers that name none has to be one that they could name. */
function checkLogDefaults({ logDriver, logOpts }: Config): void {
  try {
    checkLogConfig({ Type: logDriver, Config: logOpts });
  } catch (error) {
    throw invalid(`failed to set log opts: ${messageOf(error)}`);
  }
}

/** Root of remapped containers must come to their files: through the data root as a member of its group, and everything above. */
function letThrough(dataRoot: string, gid: number): void {
  fs.chownSync(dataRoot, 0, gid);
  for (let above = path.dirname(dataRoot); ; above = path.dirname(above)) {
    if ((fs.statSync(above).mode & 0o001) === 0) {
      throw invalid(
        `a directory above the data root (${above}) restricts access to the remapped root uid/gid; please fix by allowing 'o+x' permissions on it`,
      );
    }
    if (above === '/') return;
  }
}

/** Made at the first start of a data root. */
function engineIdIn(dataRoot: string): string {
  const file = path.join(dataRoot, 'engine-id');
  try {
    return fs.readFileSync(file, 'utf8').trim();
  } catch {
    const id = randomUUID();
    fs.writeFileSync(file, `${id}\n`, { mode: 0o600 });
    return id;
  }
}
