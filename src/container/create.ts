/** `POST /containers/create`: from a request to a durable record with its writable tree and volumes. */
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { RunConfig } from '../image/types.ts';
import { invalid } from '../lib/errors.ts';
import { type ContainerId, newId, shortId } from '../lib/ids.ts';
import { nowNano, rfc3339Nano } from '../lib/time.ts';
import { portsToPublish } from '../network/ports.ts';
import type { CreateBody } from './api.ts';
import { cgroupPathOf, checkConfig, checkHostConfig, decodeConfig, decodeHostConfig, mergeConfig } from './decode.ts';
import { asksForDiskLimit, diskLimitOf } from './disk-limit.ts';
import { checkIsolation, isRemapped, resolveIsolation } from './isolation.ts';
import { checkLimits } from './limits.ts';
import { prepareMounts } from './mount-create.ts';
import { planMounts } from './mounts.ts';
import { checkName, inventName } from './names.ts';
import { chooseNetwork } from './network-choice.ts';
import { portOptions } from './networking.ts';
import { checkOptions } from './options.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import type { ContainerRecord, HostConfig } from './types.ts';

export async function createContainer(
  set: ContainerSet,
  name: string,
  body: CreateBody,
): Promise<{ readonly Id: ContainerId; readonly Warnings: readonly string[] }> {
  const { parts } = set;
  const wanted = name === '' ? '' : checkName(name);
  const own = decodeConfig(body);
  if (own.Image === '') throw invalid('no image specified');
  const image = parts.images.resolve(own.Image);
  const merged = mergeConfig(own, image.config);
  checkConfig(merged);
  const defaults = parts.defaults();
  const asked = resolveIsolation(set, decodeHostConfig(body.HostConfig ?? {}, defaults));
  checkHostConfig(asked, defaults);
  checkIsolation(own, asked, parts.layers.shiftedIds !== null);
  parts.runtime.validate(asked);
  const checked = checkLimits(asked, parts.runtime.describe().machine, 'create');
  const hostConfig = checked.limits;
  const warnings = [...checkOptions(merged, hostConfig), ...checked.warnings];
  const diskLimit = diskLimitOf(hostConfig);
  if (asksForDiskLimit(hostConfig)) parts.layers.mustLimitWritable();
  const planned = planMounts(merged, hostConfig, {
    mountsOf: (container) => set.index.resolve(container).mounts,
    dataRoot: path.dirname(parts.dir),
  });
  portsToPublish(portOptions(merged, hostConfig));
  const network = chooseNetwork(set, body, beyond(own, image.config), hostConfig);
  if (hostConfig.NetworkMode === 'host' && Object.keys(hostConfig.PortBindings ?? {}).length > 0)
    warnings.push('Published ports are discarded when using host network mode');

  const id = newId<ContainerId>();
  const chosen = wanted === '' ? inventName((taken) => set.index.holderOf(taken) !== undefined) : wanted;
  set.reserveName(chosen, id);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => set.index.release(chosen, id));
  undo.defer(() => parts.layers.removeWritable(id));
  undo.defer(() => fs.rm(set.dirOf(id), { recursive: true, force: true }));
  await Promise.all([
    parts.layers.createWritable(id, image.chainId, diskLimit, isRemapped(set, hostConfig)),
    fs.mkdir(set.dirOf(id), { recursive: true, mode: 0o710 }),
  ]);
  await using prepared = await prepareMounts(set, id, planned);

  const record: ContainerRecord = {
    id,
    name: chosen,
    created: rfc3339Nano(nowNano()),
    imageId: image.id,
    config: { ...merged, Hostname: merged.Hostname || defaultHostname(network.mode, hostConfig, id) },
    hostConfig: { ...hostConfig, Links: null },
    endpoints: network.endpoints,
    ...(network.links.length > 0 ? { links: network.links } : {}),
    sandbox: null,
    mounts: prepared.mounts,
    state: { is: 'created', error: '', exitCode: 0 },
    restartCount: 0,
    stoppedByUser: false,
    cgroupPath: cgroupPathOf(hostConfig.CgroupParent, id),
    logDriver: hostConfig.LogConfig.Type,
  };
  // Most containers are started as soon as they are created.
  parts.runtime.anticipate();
  await set.commit(record, [...prepared.events, containerEvent(record, 'create')], prepared.writes);
  undo.move();
  return { Id: id, Warnings: warnings };
}

/** Without the ports that the image exposes anyway: a client that creates a container of an inspect says them as its own. */
function beyond(own: RunConfig, image: RunConfig): RunConfig {
  const ports = Object.entries(own.ExposedPorts ?? {}).filter(
    ([port]) => !Object.hasOwn(image.ExposedPorts ?? {}, port),
  );
  return { ...own, ExposedPorts: Object.fromEntries(ports) };
}

/** Empty where a name of its own would be refused: what inspect shows must be good for a create again. */
function defaultHostname(networkMode: string, { UTSMode: uts }: HostConfig, id: ContainerId): string {
  if (networkMode.startsWith('container:') || uts === 'host') return '';
  return networkMode === 'host' ? os.hostname() : shortId(id);
}
