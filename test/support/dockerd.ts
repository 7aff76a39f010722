/** Debian's dockerd 20.10 with a containerd of its own, as unpacked by `scripts/peers.sh bench`: the reference. */
import type { ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { eventually, start } from './command.ts';
import type { EnginePaths } from './engine.ts';
import { endsWithUs, type Netns } from './netns.ts';

/**
 * Starts containerd unless it runs already and answers with the command line of dockerd, to which the caller adds
 * `-H`, `--data-root`, `--exec-root`, `--pidfile` and `--config-file`.
 */
export async function dockerdProcess(
  paths: EnginePaths,
  netns: Netns,
  peers: string,
  keep: (helper: ChildProcess) => void,
): Promise<{ argv: string[]; env: Record<string, string> }> {
  const dockerd = path.join(peers, 'usr/sbin/dockerd');
  if (!fs.existsSync(dockerd)) throw new Error('no dockerd: scripts/peers.sh bench brings it');
  const env = { PATH: `${peers}/usr/bin:${peers}/usr/sbin:${process.env.PATH}:/usr/sbin:/sbin` };
  const directory = path.join(paths.directory, 'containerd');
  const address = path.join(directory, 'containerd.sock');
  if (!fs.existsSync(address)) {
    fs.mkdirSync(directory, { recursive: true });
    const config = path.join(directory, 'config.toml');
    fs.writeFileSync(config, 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n');
    const containerd = start(
      [
        ...endsWithUs,
        ...netns.inside([
          ...[path.join(peers, 'usr/bin/containerd'), '--config', config, '--address', address],
          ...['--root', path.join(directory, 'root'), '--state', path.join(directory, 'state')],
        ]),
      ],
      { env },
    );
    const log = fs.openSync(path.join(paths.directory, 'containerd.log'), 'a');
    for (const stream of [containerd.stdout, containerd.stderr])
      stream?.on('data', (data: Buffer) => fs.writeSync(log, data));
    keep(containerd);
    await eventually(() => fs.existsSync(address), 20_000);
  }
  return { argv: [dockerd, '--containerd', address], env };
}
