/** All that can be done with containers, as one object: the part that `daemon.ts` joins and the API calls. */

import { conflict, EngineError, internal, invalid, notFound } from '../lib/errors.ts';
import type { ImageId } from '../lib/ids.ts';
import type { Containers, CreateBody, ListQuery } from './api.ts';
import {
  containerChanges,
  exportContainer,
  packContainerPath,
  statContainerPath,
  unpackIntoContainer,
} from './archive.ts';
import { commitContainer } from './commit.ts';
import { createContainer } from './create.ts';
import { Endings } from './endings.ts';
import { connect, disconnect } from './endpoints.ts';
import { type ExecStart, Execs } from './exec.ts';
import { Life } from './life.ts';
import { linksJson, removeLink } from './links.ts';
import { listContainers, prunable, sizesOf } from './list.ts';
import { endUnless } from './live.ts';
import { checkName } from './names.ts';
import { reconcile } from './reconcile.ts';
import { Restarts } from './restarts.ts';
import { isRunning } from './running.ts';
import { type ContainerParts, ContainerSet, containerEvent } from './set.ts';
import { containerStats } from './stats.ts';
import { attach, readLogs } from './streams.ts';
import { containerTop } from './top.ts';
import { updateContainer } from './update.ts';
import { inspection } from './view.ts';

export interface ContainerService extends Containers {
  /** Brings records and kernel together; commands wait until it is done. */
  reconcile(): Promise<void>;
  /** Commands fail with this reason, since the engine cannot be made ready. */
  giveUp(reason: unknown): void;
  /** Resolves when commands may begin. */
  ready(): Promise<void>;
  /** Containers by the volumes they have. */
  volumeUsers(): ReadonlyMap<string, readonly string[]>;
  /** Containers that use an image, and whether they run: what image deletion asks. */
  usersOf(image: ImageId): readonly { readonly id: string; readonly running: boolean; readonly imageName: string }[];
}

export function createContainers(parts: ContainerParts): ContainerService {
  const set = new ContainerSet(parts);
  const restarts = new Restarts(set);
  const endings = new Endings(set, restarts);
  const life = new Life(set, restarts, endings);
  const execs = new Execs(set);
  /** Commands wait until records and kernel agree. */
  const once = async <T>(work: () => Promise<T>): Promise<T> => {
    await set.ready;
    return work();
  };
  return {
    reconcile: () => reconcile(set, { life, restarts, endings }),
    giveUp: (reason) => set.giveUp(reason),
    ready: () => set.ready,
    volumeUsers: () => set.volumeUsers(),
    create: (name: string, body: CreateBody) => once(() => createContainer(set, name, body)),
    start: (ref) => once(() => life.start(ref)),
    stop: (ref, seconds) => once(() => life.stop(ref, seconds)),
    restart: (ref, seconds) => once(() => life.restart(ref, seconds)),
    kill: (ref, signal) => once(() => life.kill(ref, signal)),
    pause: (ref) => once(() => life.pause(ref)),
    unpause: (ref) => once(() => life.unpause(ref)),
    remove: (ref, options) =>
      once(async () => {
        if (options.link) await removeLink(set, ref);
        else await life.remove(ref, options);
      }),
    rename: (ref, name) =>
      once(async () => {
        if (name === '') throw invalid('Neither old nor new names may be empty');
        const bare = checkName(name);
        if (set.index.resolve(ref).name === bare) {
          throw invalid('Renaming a container with the same name as its current name');
        }
        await life.rename(ref, bare);
      }),
    update: (ref, body) => once(() => updateContainer(set, ref, body)),
    wait: async (ref, signal) => {
      const record = set.index.find(ref);
      if (record === undefined) {
        const exitCode = set.graves.find(ref);
        if (exitCode === undefined) throw notFound(`No such container: ${ref}`);
        return { StatusCode: exitCode };
      }
      if (record.state.is !== 'running' && record.state.is !== 'restarting')
        return { StatusCode: record.state.exitCode };
      const end = await endUnless(set.live(record.id).ended.promise, signal);
      if (end === null) throw internal('the client has gone');
      return { StatusCode: end.exitCode };
    },
    resize: async (ref, rows, columns) => {
      const record = set.index.resolve(ref);
      if (!isRunning(record)) throw conflict(`Container ${record.id} is not running`);
      const live = set.live(record.id);
      live.size = [rows, columns];
      parts.runtime.resize(record.id, rows, columns);
      live.onResize?.();
      set.announce(containerEvent(record, 'resize', { height: String(rows), width: String(columns) }));
    },
    list: (query: ListQuery) => listContainers(set, query),
    inspect: async (ref, size) => {
      const record = set.index.resolve(ref);
      // They are made by the first start.
      const fileOf = (name: string) => (record.state.is === 'created' ? '' : `${set.dirOf(record.id)}/${name}`);
      return inspection(record, {
        links: linksJson(set, record),
        resolvConfPath: fileOf('resolv.conf'),
        hostnamePath: fileOf('hostname'),
        hostsPath: fileOf('hosts'),
        logPath: record.logDriver === 'json-file' && record.state.is !== 'created' ? set.logPath(record.id) : '',
        // The results are in memory; the status is the record's, as in lists and events.
        health:
          isRunning(record) && record.health
            ? { ...(set.live(record.id).health ?? record.health), status: record.health.status }
            : record.health,
        execIds: execs.idsOf(record.id),
        graphDriverData: parts.layers.describeWritable(record.id),
        sizes: size ? await sizesOf(set, record) : null,
      });
    },
    logs: (ref, query, signal) => readLogs(set, ref, query, signal),
    attach: (ref, query, signal) => once(() => attach(set, ref, query, signal)),
    top: (ref, psArgs) => containerTop(set, ref, psArgs),
    stats: async (ref, options, signal) => {
      set.index.resolve(ref);
      return containerStats(set, ref, options, signal);
    },
    prune: (filters) =>
      once(async () => {
        const removed: string[] = [];
        let reclaimed = 0;
        for (const { id } of prunable(set, filters)) {
          const record = set.index.find(id);
          if (record === undefined || isRunning(record)) continue;
          const size = await parts.layers.writableSize(id).catch(() => 0);
          try {
            await life.remove(id, { force: false, volumes: false });
          } catch (error) {
            // Started, or removed by somebody else, since it was looked at.
            if (error instanceof EngineError && (error.kind === 'conflict' || error.kind === 'not-found')) continue;
            throw error;
          }
          removed.push(id);
          reclaimed += size;
        }
        await parts.store.commit(
          [],
          [{ type: 'container', action: 'prune', id: '', attributes: { reclaimed: String(reclaimed) } }],
        );
        return { ContainersDeleted: removed.length > 0 ? removed : null, SpaceReclaimed: reclaimed };
      }),
    statPath: (ref, path) => once(() => statContainerPath(set, ref, path)),
    archive: (ref, path, as) => once(() => packContainerPath(set, ref, path, as)),
    unarchive: (ref, query, from, signal) => once(() => unpackIntoContainer(set, ref, query, from, signal)),
    export: (ref) => once(() => exportContainer(set, ref)),
    changes: (ref) => once(() => containerChanges(set, ref)),
    commit: (ref, request) => once(() => commitContainer(set, ref, request)),
    execCreate: (ref, body) => once(() => execs.create(ref, body)),
    execStart: (id, options: ExecStart, signal) => once(() => execs.start(id, options, signal)),
    execInspect: (id) => execs.inspect(id),
    execResize: (id, rows, columns) => execs.resize(id, rows, columns),
    connect: (ref, network, settings) => once(() => connect(set, ref, network, settings)),
    disconnect: (ref, network) => once(() => disconnect(set, ref, network)),
    counts: () => {
      let running = 0;
      let paused = 0;
      for (const record of set.records.values()) {
        if (!isRunning(record)) continue;
        if (record.state.paused) paused++;
        else running++;
      }
      return { running, paused, stopped: set.records.size - running - paused };
    },
    usersOf: (image) =>
      [...set.records.values()]
        .filter((record) => record.imageId === image)
        .map((record) => ({ id: record.id, running: isRunning(record), imageName: record.config.Image })),
  };
}
