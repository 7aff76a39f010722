/**
 * An engine for a test: its own data and run directories, its own unix socket, its own network namespace with only
 * loopback up, so that test files run side by side without fighting for bridges, rules and ports.
 *
 *   const engine = await startEngine(t);
 *   await importBusybox(engine);
 *   const { stdout } = await engine.docker(['run', '--rm', 'busybox', 'echo', 'hi']);
 *
 * Everything is given back when the test `t` ends. SLIPWAY_TEST_ENGINE=dockerd makes `startEngine` start Debian's
 * dockerd 20.10 instead: what a story test expects must hold there too.
 */
import type { ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { eventually, type Outcome, type RunOptions, run, sleep, start } from './command.ts';
import { dockerdProcess } from './dockerd.ts';
import { type Answer, type Body, type Loose, type RequestOptions, request } from './http.ts';
import { endsWithUs, Netns } from './netns.ts';
import { openTerminal, type Terminal } from './pty.ts';

export const repository = path.resolve(import.meta.dirname, '../..');

export type EngineKind = 'slipway' | 'dockerd';
export const engineKind: EngineKind = process.env.SLIPWAY_TEST_ENGINE === 'dockerd' ? 'dockerd' : 'slipway';

export interface EngineOptions {
  /** Flags added to the command line. */
  readonly flags?: readonly string[];
  /** daemon.json. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string>>;
  /** Lives there instead of in a namespace of its own; the caller closes it. */
  readonly netns?: Netns;
  readonly kind?: EngineKind;
  /** An existing directory for the data, say on another file system; otherwise one of its own. */
  readonly dataRoot?: string;
}

/** A docker command line client: Debian's 20.10 and, where the machine has one, whatever `docker` is on PATH. */
export interface Cli {
  readonly name: string;
  readonly path: string;
}

const peers = path.join(repository, '.cache/peers');

/** The clients found on this machine. scripts/peers.sh brings the first. */
export const clis: readonly Cli[] = [
  { name: 'docker20', path: path.join(peers, 'usr/bin/docker') },
  ...(process.env.PATH ?? '')
    .split(':')
    .map((directory) => path.join(directory, 'docker'))
    .filter((file) => !file.startsWith(peers) && fs.existsSync(file))
    .slice(0, 1)
    .map((file) => ({ name: 'docker28', path: file })),
].filter((cli) => fs.existsSync(cli.path));

/** How the engine itself is started; the last process of the list is the one that answers and is killed. */
export interface EnginePaths {
  readonly directory: string;
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly socket: string;
  readonly pidFile: string;
  readonly configFile: string;
}

export interface DockerOptions extends RunOptions {
  /** Default: the newest client of this machine. */
  readonly cli?: Cli;
}

export class TestEngine {
  readonly kind: EngineKind;
  readonly paths: EnginePaths;
  readonly netns: Netns;
  readonly #options: EngineOptions;
  #daemon: ChildProcess | null = null;
  /** Peers that the daemon needs (containerd). */
  #helpers: ChildProcess[] = [];
  readonly #undo: (() => Promise<unknown> | unknown)[] = [];
  /** Containers this engine has ever told of, for the search for leaks. */
  readonly #containers = new Set<string>();

  private constructor(kind: EngineKind, paths: EnginePaths, netns: Netns, options: EngineOptions) {
    this.kind = kind;
    this.paths = paths;
    this.netns = netns;
    this.#options = options;
  }

  static async start(options: EngineOptions = {}): Promise<TestEngine> {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'engine-'));
    // Containers in user namespaces come through here.
    fs.chmodSync(directory, 0o711);
    const paths: EnginePaths = {
      directory,
      dataRoot: options.dataRoot ?? path.join(directory, 'data'),
      execRoot: path.join(directory, 'run'),
      socket: path.join(directory, 'engine.sock'),
      pidFile: path.join(directory, 'pid'),
      configFile: path.join(directory, 'daemon.json'),
    };
    fs.writeFileSync(paths.configFile, JSON.stringify(options.config ?? {}));
    const netns = options.netns ?? (await Netns.create());
    const engine = new TestEngine(options.kind ?? engineKind, paths, netns, options);
    try {
      await engine.launch();
    } catch (error) {
      await engine.close();
      throw error;
    }
    return engine;
  }

  get host(): string {
    return `unix://${this.paths.socket}`;
  }

  /** Process id of the running daemon. */
  get pid(): number {
    const pid = this.#daemon?.pid;
    if (pid === undefined) throw new Error('the daemon is not running');
    return pid;
  }

  /** What the daemon has printed, over all its starts. */
  get log(): string {
    try {
      return fs.readFileSync(path.join(this.paths.directory, 'daemon.log'), 'utf8');
    } catch {
      return '';
    }
  }

  /** Runs before the engine's own clean-up, last added first. */
  onClose(undo: () => Promise<unknown> | unknown): void {
    this.#undo.push(undo);
  }

  /** Starts the daemon (again) and resolves when it answers `_ping`. `extraFlags` count for this start only. */
  async launch(extraFlags: readonly string[] = []): Promise<void> {
    if (this.#daemon !== null) throw new Error('the daemon is running');
    const flags = [...(this.#options.flags ?? []), ...extraFlags];
    const { argv, env } =
      this.kind === 'dockerd'
        ? await dockerdProcess(this.paths, this.netns, peers, (helper) => this.#helpers.push(helper))
        : { argv: [`${repository}/bin/slipwayd`], env: { NODE_COMPILE_CACHE: `${repository}/.cache/code` } };
    const daemon = start(
      [
        ...endsWithUs,
        ...this.netns.inside(argv),
        ...['-H', this.host, '--data-root', this.paths.dataRoot, '--exec-root', this.paths.execRoot],
        ...['--pidfile', this.paths.pidFile, '--config-file', this.paths.configFile],
        ...flags,
      ],
      { env: { ...env, ...this.#options.env }, cwd: this.paths.directory },
    );
    const log = fs.createWriteStream(path.join(this.paths.directory, 'daemon.log'), { flags: 'a' });
    daemon.stdout?.pipe(log, { end: false });
    daemon.stderr?.pipe(log, { end: false });
    this.#daemon = daemon;
    daemon.once('exit', () => {
      if (this.#daemon === daemon) this.#daemon = null;
    });
    const deadline = Date.now() + 30_000;
    for (;;) {
      if (daemon.exitCode !== null || daemon.signalCode !== null) {
        await sleep(50);
        throw new Error(`the daemon ended with ${daemon.signalCode ?? daemon.exitCode}:\n${this.log.slice(-4000)}`);
      }
      const answer = await this.api('GET', '/_ping', undefined, { timeoutMs: 1000 }).catch(() => null);
      if (answer?.status === 200) return;
      if (Date.now() > deadline) throw new Error(`no answer from the daemon after 30 s:\n${this.log.slice(-4000)}`);
      await sleep(15);
    }
  }

  /** Any other signal than KILL asks politely; resolves when the daemon has gone. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', timeoutMs = 20_000): Promise<void> {
    const daemon = this.#daemon;
    if (daemon === null) return;
    const gone = new Promise<void>((resolve) => daemon.once('exit', () => resolve()));
    daemon.kill(signal);
    const timer = setTimeout(() => daemon.kill('SIGKILL'), timeoutMs);
    await gone;
    clearTimeout(timer);
  }

  kill9(): Promise<void> {
    return this.stop('SIGKILL');
  }

  async restart(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.stop(signal);
    await this.launch();
  }

  /** A request as it goes over the wire; `path` with or without `/v1.N`. Any status is an answer. */
  async api(method: string, apiPath: string, body?: Body, options?: RequestOptions): Promise<Answer> {
    const answer = await request(this.paths.socket, method, apiPath, body, options);
    if (answer.status === 201 && /\/containers\/create(\?|$)/.test(apiPath)) this.#containers.add(answer.json().Id);
    return answer;
  }

  /** As `api`, but anything else than a 2xx or 304 is an error. Resolves with the parsed body, or its text if that is no (single) JSON value. */
  async call(method: string, apiPath: string, body?: Body, options?: RequestOptions): Promise<Loose> {
    const answer = await this.api(method, apiPath, body, options);
    if ((answer.status < 200 || answer.status > 299) && answer.status !== 304)
      throw new Error(`${method} ${apiPath}: ${answer.status} ${answer.text}`);
    try {
      return answer.json();
    } catch {
      return answer.text;
    }
  }

  /** The environment a client needs to find this engine, and nothing of the user's own configuration. */
  get clientEnv(): Record<string, string> {
    const configuration = path.join(this.paths.directory, 'client');
    fs.mkdirSync(configuration, { recursive: true });
    return { DOCKER_HOST: this.host, DOCKER_CONFIG: configuration, DOCKER_CLI_HINTS: 'false' };
  }

  /** Runs a docker command line to its end, inside the engine's network; any exit code is an answer. */
  docker(args: readonly string[], options: DockerOptions = {}): Promise<Outcome> {
    return run(this.dockerCommand(args, options.cli), { ...options, env: { ...this.clientEnv, ...options.env } });
  }

  /** As `docker`, but a failure is an error. Resolves with stdout. */
  async mustDocker(args: readonly string[], options: DockerOptions = {}): Promise<string> {
    const { code, signal, stdout, stderr } = await this.docker(args, options);
    if (code !== 0) throw new Error(`docker ${args.join(' ')}: ${signal ?? `exit code ${code}`}\n${stdout}${stderr}`);
    return stdout;
  }

  /** Starts a docker command line and leaves it running; stdin, stdout and stderr are pipes. */
  spawnDocker(args: readonly string[], options: { cli?: Cli } = {}): ChildProcess {
    return start(this.dockerCommand(args, options.cli), { env: this.clientEnv, stdin: 'pipe' });
  }

  /** A docker command line in a terminal. */
  terminal(args: readonly string[], options: { cli?: Cli; rows?: number; columns?: number } = {}): Terminal {
    return openTerminal(this.dockerCommand(args, options.cli), { ...options, env: this.clientEnv });
  }

  dockerCommand(args: readonly string[], cli: Cli | undefined = clis.at(-1)): string[] {
    if (cli === undefined) throw new Error('no docker client: scripts/peers.sh test brings one');
    return this.netns.inside([cli.path, ...args]);
  }

  /** Runs a command (curl, ip, nft) where the engine's ports and bridges are. */
  inNetns(argv: readonly string[], options?: RunOptions): Promise<Outcome> {
    return this.netns.run(argv, options);
  }

  /** Removes every container, running or not. */
  async removeAll(): Promise<void> {
    for (const { Id } of await this.call('GET', '/containers/json?all=1')) {
      this.#containers.add(Id);
      await this.api('DELETE', `/containers/${Id}?force=1&v=1`);
    }
  }

  /**
   * Throws a list of everything of the engine's removed containers that is still on the machine: mounts, namespaces,
   * network interfaces, cgroups, monitors, files. Kept containers are not looked at. Waits up to two seconds, since
   * a removal may be answered before its last step.
   */
  async assertNoLeaks(): Promise<void> {
    const kept = new Set<string>();
    if (this.#daemon !== null) {
      for (const { Id } of await this.call('GET', '/containers/json?all=1')) kept.add(Id);
      const history = (await this.api('GET', `/events?since=0&until=${Math.ceil(Date.now() / 1000)}`)).text;
      for (const [, id] of history.matchAll(/"status":"create","id":"([0-9a-f]{64})"/g)) this.#containers.add(id ?? '');
    }
    const gone = [...this.#containers].filter((id) => !kept.has(id));
    await eventually(async () => {
      const leaks = await this.#leaks(gone, kept.size === 0);
      if (leaks.length > 0) throw new Error(`left behind:\n${leaks.join('\n')}`);
    }, 2000);
  }

  async #leaks(gone: readonly string[], nothingRuns: boolean): Promise<string[]> {
    const leaks: string[] = [];
    const named = (text: string) => gone.some((id) => text.includes(id) || text.includes(id.slice(0, 12)));
    for (const mount of mountsBelow(this.paths.directory, this.#daemon?.pid)) {
      if (named(mount) || (nothingRuns && !(mount === this.paths.dataRoot || mount === this.paths.execRoot)))
        leaks.push(`mount ${mount}`);
    }
    const links: { ifname: string }[] = JSON.parse(
      (await this.netns.must(['ip', '-json', 'link', 'show', 'type', 'veth'])) || '[]',
    );
    if (nothingRuns) {
      leaks.push(...links.filter(({ ifname }) => !/^nb\d+$/.test(ifname)).map(({ ifname }) => `interface ${ifname}`));
    }
    for (const { pid, commandLine } of processesNaming(this.paths.directory)) {
      const monitor = /conmon|containerd-shim|crun|runc/.test(commandLine.split('\0')[0] ?? '');
      if (monitor && (nothingRuns || named(commandLine)))
        leaks.push(`process ${pid} ${commandLine.replaceAll('\0', ' ')}`);
    }
    leaks.push(
      ...directoriesBelow('/sys/fs/cgroup')
        .filter(named)
        .map((cgroup) => `cgroup ${cgroup}`),
    );
    for (const root of [this.paths.execRoot, this.paths.dataRoot]) {
      leaks.push(
        ...entriesBelow(root, 3)
          .filter(named)
          .map((file) => `file ${file}`),
      );
    }
    return leaks;
  }

  /** Ends everything that belongs to this engine, politely if it still answers, and removes its files. */
  async close(): Promise<void> {
    for (const undo of this.#undo.reverse()) await undo();
    if (this.#daemon !== null) await this.removeAll().catch(() => {});
    await this.stop('SIGTERM', 5000);
    for (const helper of this.#helpers) await end(helper);
    for (const { pid } of processesNaming(this.paths.directory)) signal(pid, 'SIGKILL');
    if (this.#options.netns === undefined) this.netns.close();
    for (const mount of mountsBelow(this.paths.directory).reverse()) await run(['umount', '--lazy', mount]);
    await fs.promises.rm(this.paths.directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    if (this.kind === 'dockerd') for (const cgroup of fs.globSync('/sys/fs/cgroup/*/docker')) removeCgroup(cgroup);
  }
}

/** Starts an engine and gives it back when the test ends; if the test failed, the daemon's last words are shown. */
export async function startEngine(
  t: { after(fn: () => Promise<void>): void; diagnostic?(message: string): void; passed?: boolean },
  options: EngineOptions = {},
): Promise<TestEngine> {
  const engine = await TestEngine.start(options);
  t.after(async () => {
    if (t.passed === false) t.diagnostic?.(`the daemon's last words:\n${engine.log.slice(-4000)}`);
    await engine.close();
  });
  return engine;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
  await gone;
  clearTimeout(timer);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has gone.
  }
}

/** Mount points below a directory in the order they were made, as this process and `alsoSeenBy` see them. */
export function mountsBelow(directory: string, alsoSeenBy?: number): string[] {
  const seen = new Set<string>();
  for (const pid of ['self', ...(alsoSeenBy === undefined ? [] : [String(alsoSeenBy)])]) {
    for (const line of fs.readFileSync(`/proc/${pid}/mountinfo`, 'utf8').split('\n')) {
      const mountPoint = line.split(' ')[4]?.replaceAll('\\040', ' ');
      if (mountPoint?.startsWith(`${directory}/`)) seen.add(mountPoint);
    }
  }
  return [...seen];
}

/** Processes whose command line names a directory, without this one and its relatives that merely started them. */
function processesNaming(directory: string): { pid: number; commandLine: string }[] {
  const found: { pid: number; commandLine: string }[] = [];
  for (const name of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    try {
      const commandLine = fs.readFileSync(`/proc/${name}/cmdline`, 'utf8');
      if (commandLine.includes(`${directory}/`)) found.push({ pid: Number(name), commandLine });
    } catch {
      // It ended while we looked.
    }
  }
  return found;
}

function entriesBelow(directory: string, depth: number): string[] {
  if (depth === 0) return [];
  try {
    return fs.readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
      const full = path.join(directory, entry.name);
      return entry.isDirectory() ? [full, ...entriesBelow(full, depth - 1)] : [full];
    });
  } catch {
    return [];
  }
}

function directoriesBelow(directory: string): string[] {
  try {
    return fs
      .readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => path.join(directory, entry.name))
      .flatMap((child) => [child, ...directoriesBelow(child)]);
  } catch {
    return [];
  }
}

function removeCgroup(cgroup: string): void {
  for (const child of directoriesBelow(cgroup).reverse().concat(cgroup)) {
    try {
      fs.rmdirSync(child);
    } catch {
      // Another engine's containers are in it.
    }
  }
}
