/** User namespaces, made in a child: a process with several threads may not enter one itself. */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import type { IdMap, IdRange } from '../lib/idmap.ts';

/** Namespaces held by descriptors; they live as long as these, or as somebody is inside. */
export interface HeldNamespaces extends Disposable {
  readonly user: number;
  /** A network namespace that belongs to the user namespace. */
  readonly network: number;
}

const patienceMs = 10_000;

/** A new user namespace with that map, and a new network namespace that its root has power over. */
export async function makeUserNamespace(map: IdMap): Promise<HeldNamespaces> {
  return inChild(['unshare', '--user', '--net'], (pid) => {
    fs.writeFileSync(`/proc/${pid}/uid_map`, lines(map.users));
    fs.writeFileSync(`/proc/${pid}/gid_map`, lines(map.groups));
    const user = fs.openSync(`/proc/${pid}/ns/user`, 'r');
    const network = fs.openSync(`/proc/${pid}/ns/net`, 'r');
    return {
      user,
      network,
      [Symbol.dispose]() {
        fs.closeSync(user);
        fs.closeSync(network);
      },
    };
  });
}

/** A new network namespace that belongs to the user namespace at a path. */
export async function makeNetworkNamespaceIn(userNamespace: string): Promise<Disposable & { readonly fd: number }> {
  return inChild(['nsenter', `--user=${userNamespace}`, '--', 'unshare', '--net'], (pid) => {
    const fd = fs.openSync(`/proc/${pid}/ns/net`, 'r');
    return { fd, [Symbol.dispose]: () => fs.closeSync(fd) };
  });
}

/** Runs a shell by `command`, which puts it into namespaces of its own, and takes them from it. */
async function inChild<T>(command: readonly string[], take: (pid: number) => T): Promise<T> {
  const [program = '', ...args] = command;
  // The shell says a word once it is inside, and ends when its stdin does.
  const child = spawn(program, [...args, '--', '/bin/sh', '-c', 'echo; read -r end'], { timeout: patienceMs });
  try {
    await isInside(child);
    return take(child.pid ?? 0);
  } finally {
    for (const stream of child.stdio) stream?.destroy();
    child.kill('SIGKILL');
  }
}

const lines = (ranges: readonly IdRange[]) =>
  ranges.map(({ inside, outside, size }) => `${inside} ${outside} ${size}\n`).join('');

function isInside(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let complaint = '';
    child.stderr?.on('data', (data: Buffer) => {
      complaint = (complaint + data.toString()).slice(-1000);
    });
    child.stdin?.on('error', () => undefined);
    child.stdout?.once('data', () => resolve());
    child.once('error', reject);
    child.once('close', () => reject(new Error(`no user namespace could be made: ${complaint.trim()}`)));
  });
}
