/** The engines that are compared, each in a network namespace and directory of its own, started by the same program. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { eventually, must, Output, start } from '../test/support/command.ts';
import { clis, repository, TestEngine } from '../test/support/engine.ts';
import { busyboxArchive } from '../test/support/images.ts';
import { endsWithUs, Netns } from '../test/support/netns.ts';
import { Client } from './client.ts';

export type EngineName = 'slipway' | 'dockerd' | 'podman';

export interface Engine {
  readonly name: EngineName;
  readonly version: string;
  readonly client: Client;
  readonly netns: Netns;
  /** Everything the engine keeps lies below; processes that name it are its own. */
  readonly directory: string;
  /** Command line and environment of a docker client that talks to it. */
  cli(args: readonly string[]): { argv: string[]; env: Record<string, string> };
  close(): Promise<void>;
}

export async function startEngine(name: EngineName): Promise<Engine> {
  const engine = name === 'podman' ? await startPodman() : await startDockerLike(name);
  const query = new URLSearchParams({ fromSrc: '-', repo: 'busybox', tag: 'latest', changes: 'CMD ["sh"]' });
  await engine.client.call('POST', `/images/create?${query}`, busyboxArchive());
  return engine;
}

async function startDockerLike(kind: 'slipway' | 'dockerd'): Promise<Engine> {
  const engine = await TestEngine.start({ kind });
  const client = new Client(engine.paths.socket);
  return {
    name: kind,
    version: (await client.json<{ Version: string }>('GET', '/version')).Version,
    client,
    netns: engine.netns,
    directory: engine.paths.directory,
    cli: (args) => ({ argv: engine.dockerCommand(args, clis[0]), env: engine.clientEnv }),
    close: () => {
      client.close();
      return engine.close();
    },
  };
}

/**
 * `podman system service`, seeing the unpacked packages as if they were installed (overlays on /usr and /etc in a mount
 * namespace of its own) and, as its crun needs, no cgroup v2 tree beside a v1 one.
 */
async function startPodman(): Promise<Engine> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'podman-'));
  const netns = await Netns.create();
  const socket = path.join(directory, 'podman.sock');
  const configuration = {
    'containers.conf': [
      ...['[containers]', 'log_driver = "k8s-file"', '[engine]', 'cgroup_manager = "cgroupfs"'],
      ...['events_logger = "file"', 'runtime = "crun"', `tmp_dir = "${directory}/tmp"`],
      ...['[network]', `network_config_dir = "${directory}/cni"`],
    ],
    'storage.conf': [
      ...['[storage]', 'driver = "overlay"', `graphroot = "${directory}/graph"`, `runroot = "${directory}/run"`],
    ],
    'registries.conf': ['[[registry]]', 'location = "127.0.0.1:5000"', 'insecure = true'],
  };
  for (const [name, lines] of Object.entries(configuration))
    fs.writeFileSync(path.join(directory, name), `${lines.join('\n')}\n`);
  const peers = path.join(repository, '.cache/peers');
  const script = [
    'if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi',
    `mount -t overlay -o lowerdir=${peers}/usr:/usr overlay /usr`,
    `mount -t overlay -o lowerdir=${peers}/etc:/etc overlay /etc`,
    'exec podman system service --time 0 "$1"',
  ].join(' && ');
  const service = start(
    [
      ...endsWithUs,
      ...netns.inside([
        'unshare',
        '--mount',
        '--propagation',
        'private',
        'sh',
        '-c',
        script,
        'podman',
        `unix://${socket}`,
      ]),
    ],
    {
      env: {
        CONTAINERS_CONF: path.join(directory, 'containers.conf'),
        CONTAINERS_STORAGE_CONF: path.join(directory, 'storage.conf'),
        CONTAINERS_REGISTRIES_CONF: path.join(directory, 'registries.conf'),
        PATH: `/usr/bin:/usr/sbin:/bin:/sbin:${process.env.PATH}`,
      },
    },
  );
  const output = new Output(service.stdout, service.stderr);
  const client = new Client(socket);
  const closeAll = async () => {
    const left = await client.json<{ Id: string }[]>('GET', '/containers/json?all=1').catch(() => []);
    for (const { Id } of left) await client.call('DELETE', `/containers/${Id}?force=1`).catch(() => {});
    client.close();
    const ended = new Promise((resolve) => service.once('exit', resolve));
    if (service.exitCode === null && service.signalCode === null && service.kill('SIGTERM')) {
      const timer = setTimeout(() => service.kill('SIGKILL'), 5000);
      await ended;
      clearTimeout(timer);
    }
    netns.close();
    await fs.promises.rm(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  };
  try {
    await eventually(async () => {
      if (service.exitCode !== null) throw new Error(`podman ended:\n${output.text}`);
      await client.call('GET', '/_ping');
    }, 20_000);
  } catch (error) {
    await closeAll();
    throw error;
  }
  const [cli] = clis;
  return {
    name: 'podman',
    version:
      (
        await must([`${peers}/usr/bin/podman`, '--version'], {
          env: { LD_LIBRARY_PATH: `${peers}/usr/lib/x86_64-linux-gnu:${peers}/usr/lib/aarch64-linux-gnu` },
        })
      )
        .trim()
        .split(' ')
        .at(-1) ?? '',
    client,
    netns,
    directory,
    cli: (args) => ({
      argv: netns.inside([cli?.path ?? 'docker', ...args]),
      env: { DOCKER_HOST: `unix://${socket}`, DOCKER_CONFIG: directory },
    }),
    close: closeAll,
  };
}
