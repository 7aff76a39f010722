/** The user namespace of a start: one of its own, or that of the container whose other namespaces are joined. */
import fs from 'node:fs/promises';
import { conflict } from '../lib/errors.ts';
import { type IdMap, rootOutside } from '../lib/idmap.ts';
import { makeNetworkNamespaceIn, makeUserNamespace } from '../platform/usernamespace.ts';
import { openNamespace } from '../runtime/sharing.ts';
import type { LaunchSpec } from '../runtime/types.ts';
import { dependenciesOf } from './isolation.ts';
import type { NetworkFiles } from './networking.ts';
import { isRunning } from './running.ts';
import type { ContainerSet } from './set.ts';
import type { ContainerRecord } from './types.ts';

/** Paths hold until it is disposed of; by then the runtime has joined. */
export interface UserNamespace extends Disposable {
  readonly spec: NonNullable<LaunchSpec['userNamespace']>;
  /** A new network namespace that belongs to it. */
  readonly network: string;
}

const pathOf = (fd: number) => `/proc/${process.pid}/fd/${fd}`;

/** Null: the machine's. */
export async function userNamespaceOf(set: ContainerSet, record: ContainerRecord): Promise<UserNamespace | null> {
  const ids = set.parts.layers.idsOf(record.id);
  if (ids === null) return null;
  const [owner] = dependenciesOf(record)
    .map((id) => set.records.get(id))
    .filter((other) => other !== undefined)
    .filter(isRunning);
  if (owner === undefined) {
    const held = await makeUserNamespace(ids);
    return {
      spec: { path: pathOf(held.user), ids },
      network: pathOf(held.network),
      [Symbol.dispose]: () => held[Symbol.dispose](),
    };
  }
  if (set.parts.layers.idsOf(owner.id) === null) {
    throw conflict(`cannot join namespaces of container ${owner.id}: it is in the host's user namespace`);
  }
  using stack = new DisposableStack();
  const user = stack.use(openNamespace({ id: owner.id, ...owner.state }, 'user'));
  const network = stack.use(await makeNetworkNamespaceIn(pathOf(user.fd)));
  const held = stack.move();
  return {
    spec: { path: pathOf(user.fd), ids },
    network: pathOf(network.fd),
    [Symbol.dispose]: () => held[Symbol.dispose](),
  };
}

/** The files that name things belong to the container's root, and it can come to them. */
export async function giveFiles(
  dir: string,
  { resolvConf, hosts, hostnameFile }: NetworkFiles,
  ids: IdMap,
): Promise<void> {
  const { uid, gid } = rootOutside(ids);
  await Promise.all([
    fs.chown(dir, 0, gid),
    ...[resolvConf, hosts, hostnameFile].map((file) => fs.chown(file, uid, gid)),
  ]);
}
