/**
 * The bare runtime: conmon and crun with the plainest bundle, no engine around. What a container costs at least.
 *
 * Runs as a process of its own in a mount namespace without the cgroup v2 tree (crun refuses a hybrid machine):
 * one line `run` on stdin makes one container of `true` from create to removal, `exec` runs `true` inside one that sleeps,
 * and the answer is a line with the milliseconds it took.
 *
 *   bare.ts DIRECTORY
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import { repository } from '../test/support/engine.ts';

export type BareWork = 'run' | 'exec';

export interface Bare {
  measure(work: BareWork): Promise<number>;
  close(): void;
}

export function startBare(directory: string): Bare {
  const script = 'if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi && exec "$@"';
  const worker = spawn(
    'unshare',
    [
      ...['--mount', '--propagation', 'private', 'sh', '-c', script, 'sh'],
      ...[process.execPath, '--disable-warning=ExperimentalWarning', path.join(repository, 'bench/bare.ts'), directory],
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const answers = readline.createInterface({ input: worker.stdout })[Symbol.asyncIterator]();
  return {
    async measure(work) {
      worker.stdin.write(`${work}\n`);
      const answer = await answers.next();
      if (answer.done) throw new Error('the bare runtime ended');
      return Number(answer.value);
    },
    close: () => void worker.stdin.end(),
  };
}

async function work(directory: string): Promise<void> {
  const rootfs = path.join(directory, 'rootfs');
  const bundle = path.join(directory, 'bundle');
  fs.mkdirSync(path.join(rootfs, 'bin'), { recursive: true });
  fs.mkdirSync(bundle);
  fs.copyFileSync('/bin/busybox', path.join(rootfs, 'bin/busybox'));
  for (const applet of ['true', 'sleep']) fs.symlinkSync('busybox', path.join(rootfs, 'bin', applet));
  await done(spawn('crun', ['spec'], { cwd: bundle }));
  const spec = JSON.parse(fs.readFileSync(path.join(bundle, 'config.json'), 'utf8'));
  spec.process.terminal = false;
  spec.root = { path: rootfs, readonly: false };
  const setCommand = (...args: string[]) => {
    spec.process.args = args;
    fs.writeFileSync(path.join(bundle, 'config.json'), JSON.stringify(spec));
  };
  const crun = ['--root', path.join(directory, 'crun'), '--cgroup-manager=cgroupfs'];
  const sleeper = `sleeper-${process.pid}`;
  let sleeps = false;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let took: number;
    if (line === 'run') {
      setCommand('/bin/true');
      took = await oneContainer(directory, bundle, crun);
    } else {
      if (!sleeps) {
        setCommand('/bin/sleep', '100000');
        await done(spawn('crun', [...crun, 'run', '--detach', '--bundle', bundle, sleeper], { stdio: 'ignore' }));
        sleeps = true;
      }
      const started = performance.now();
      await done(spawn('crun', [...crun, 'exec', sleeper, '/bin/true'], { stdio: 'ignore' }));
      took = performance.now() - started;
    }
    process.stdout.write(`${took}\n`);
  }
  if (sleeps) await done(spawn('crun', [...crun, 'delete', '--force', sleeper], { stdio: 'ignore' }));
}

let made = 0;

async function oneContainer(directory: string, bundle: string, crun: readonly string[]): Promise<number> {
  made += 1;
  const id = `bare-${process.pid}-${made}`;
  const exits = path.join(directory, 'exits');
  fs.mkdirSync(exits, { recursive: true });
  const started = performance.now();
  const exited = new Promise<void>((resolve) => {
    const watcher = fs.watch(exits, () => {
      if (!fs.existsSync(path.join(exits, id))) return;
      watcher.close();
      resolve();
    });
  });
  const conmon = spawn(
    'conmon',
    [
      ...[
        '--api-version',
        '1',
        '-c',
        id,
        '-u',
        id,
        '-n',
        id,
        '-r',
        '/usr/bin/crun',
        '--runtime-arg',
        `--root=${crun[1]}`,
      ],
      ...['--runtime-arg', '--cgroup-manager=cgroupfs', '-b', bundle, '-p', path.join(directory, `${id}.pid`)],
      ...['--full-attach', '--exit-dir', exits, '-l', `k8s-file:${path.join(directory, `${id}.log`)}`, '--no-sync-log'],
    ],
    { stdio: ['ignore', 'ignore', 'inherit', 'pipe'], env: { ...process.env, _OCI_SYNCPIPE: '3' } },
  );
  const said = await new Promise<string>((resolve, reject) => {
    conmon.stdio[3]?.once('data', (data) => resolve(String(data)));
    conmon.stdio[3]?.once('end', () => reject(new Error('conmon ended without a word')));
  });
  if (!(JSON.parse(said).data > 0)) throw new Error(`conmon: ${said}`);
  await done(spawn('crun', [...crun, 'start', id], { stdio: 'inherit' }));
  await exited;
  await done(spawn('crun', [...crun, 'delete', id], { stdio: 'inherit' }));
  const took = performance.now() - started;
  for (const file of [`${id}.pid`, `${id}.log`]) fs.rmSync(path.join(directory, file), { force: true });
  return took;
}

function done(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`${child.spawnargs.join(' ')}: ${code}`))));
  });
}

const [directory] = process.argv.slice(2);
if (import.meta.main && directory !== undefined) await work(directory);
