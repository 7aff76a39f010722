/**
 * Containers through an OCI runtime and a monitor per container; see docs/runtime.md.
 *
 *     <execRoot>/container/<id>/   config.json (bundle), launch.json (ours), pid, monitor.pid, oom, ctl, attach, exec/
 *     <execRoot>/exits/<id>        exit code, left by the monitor; the file's time is the time of the end
 *     <execRoot>/runtime/<name>/   state of the runtimes (`--root`)
 *     <execRoot>/cgroup-parents/   marks of cgroups made above containers' own
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import fsp from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { HostConfig } from '../container/types.ts';
import { EngineError, internal, invalid, messageOf } from '../lib/errors.ts';
import type { ContainerId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';
import { isErrno } from '../platform/libc.ts';
import { unmount } from '../platform/mount.ts';
import { childrenOf, parentOf, signalProcess, startTicks } from '../platform/process.ts';
import { Binaries, filterKey, findBinary } from './binaries.ts';
import { capabilitiesOf, heldCapabilities } from './capabilities.ts';
import { Cgroup, type CgroupLayout, detectLayout, kernelLimits } from './cgroup.ts';
import { launchExec } from './exec.ts';
import { Exits, isContainerId } from './exits.ts';
import { createFailure } from './failure.ts';
import { findInit, requireInit } from './init.ts';
import { type MachineLimits, missingLimits, readMachine } from './machine.ts';
import { connectStdin, launchMonitor, MonitorControl } from './monitor.ts';
import { CgroupParents } from './parents.ts';
import { makeMountPoints, makeWorkingDirectory } from './places.ts';
import type { ProbeLaunch } from './probe.ts';
import { Readiness } from './readiness.ts';
import { realtimeGranted } from './realtime.ts';
import { createProbe, residentShell } from './resident.ts';
import { ownHardLimits, ratesLifted, updateOf } from './resources.ts';
import { parseProfile } from './seccomp-profile.ts';
import { parseSecurityOptions } from './security.ts';
import { openShared } from './sharing.ts';
import { buildSpec, capabilitySets, encodeSpec, environment, type Host, type OciProcess } from './spec.ts';
import { checkSysctls } from './sysctls.ts';
import type {
  CgroupStats,
  ExecProcess,
  ExecSpec,
  ExitNotice,
  Launched,
  LaunchSpec,
  Probe,
  ProbeOptions,
  Runtime,
  RuntimeDescription,
  StdinPipe,
} from './types.ts';
import { resolveUser } from './user.ts';
import { Views } from './views.ts';

export interface RuntimeOptions {
  readonly execRoot: string;
  /** Further runtimes by name; `crun` and `runc` are found on their own. */
  readonly runtimes: Readonly<Record<string, { readonly path: string; readonly runtimeArgs: readonly string[] }>>;
  /** Empty: crun when installed, else runc. */
  readonly defaultRuntime: string;
  readonly log: Log;
  readonly isolation?: IsolationDefaults;
}

/** What the daemon's configuration says about containers that say nothing of their own. */
export interface IsolationDefaults {
  readonly init: boolean;
  /** Path or name; empty: the first one known that is installed. */
  readonly initPath: string;
  readonly noNewPrivileges: boolean;
  /** Path of a profile, `unconfined`, or `builtin`. */
  readonly seccompProfile: string;
  /** Containers have user namespaces of their own. */
  readonly remapped: boolean;
}

const isolationUnlessConfigured: IsolationDefaults = {
  init: false,
  initPath: '',
  noNewPrivileges: false,
  seccompProfile: 'builtin',
  remapped: false,
};

export interface LocalRuntime extends Runtime, Disposable {
  /** Takes other runtimes from now on; containers keep theirs. Throws when the default is not among them. */
  configure(runtimes: RuntimeOptions['runtimes'], defaultRuntime: string): void;
}

export function createRuntime(options: RuntimeOptions): LocalRuntime {
  return new OciRuntime(options);
}

/** What later calls need to know of a container; kept in `launch.json` for the daemon's successors. */
interface LaunchRecord {
  readonly runtime: string;
  readonly cgroupPath: string;
  readonly rootfs: string;
  readonly hostname: string;
  readonly env: readonly string[];
  readonly user: string;
  readonly groupAdd: readonly string[] | null;
  /** The container's process as in its spec. */
  readonly process: OciProcess;
}

class OciRuntime implements LocalRuntime {
  readonly #options: RuntimeOptions;
  readonly #records = new Map<ContainerId, LaunchRecord>();
  readonly #controls = new Map<ContainerId, MonitorControl>();
  readonly #binaries = new Binaries();
  readonly #exits: Exits;
  #monitor = '';
  #layout: CgroupLayout | null = null;
  #host: Host | null = null;
  #machine: MachineLimits | null = null;
  #parents: CgroupParents | null = null;
  #views: Views | null = null;
  #readiness: Readiness | null = null;
  #execCount = 0;

  constructor(options: RuntimeOptions) {
    this.#options = options;
    this.#exits = new Exits(`${options.execRoot}/exits`, options.log, (id) => this.oomKills(id));
  }

  get #isolation(): IsolationDefaults {
    return this.#options.isolation ?? isolationUnlessConfigured;
  }

  #directory(id: ContainerId): string {
    return `${this.#options.execRoot}/container/${id}`;
  }

  #stateRoot(runtime: string): string {
    return `${this.#options.execRoot}/runtime/${runtime}`;
  }

  async prepare(): Promise<void> {
    const { execRoot, runtimes, defaultRuntime, log } = this.#options;
    for (const directory of ['container', 'exits', 'runtime']) {
      fs.mkdirSync(`${execRoot}/${directory}`, { recursive: true, mode: 0o700 });
    }
    this.configure(runtimes, defaultRuntime);
    const monitor = findBinary('conmon');
    if (!monitor) throw internal('conmon is not installed');
    this.#monitor = monitor;

    const layout = detectLayout(fs.readFileSync('/proc/self/mountinfo', 'utf8'), (root) =>
      fs.readFileSync(`${root}/cgroup.controllers`, 'utf8'),
    );
    this.#layout = layout;
    this.#parents = new CgroupParents(layout.roots, `${execRoot}/cgroup-parents`);
    this.#views = new Views(layout.hybrid);
    this.#readiness = new Readiness(layout);
    const held = heldCapabilities();
    const mayRaise = held.has('CAP_SYS_RESOURCE');
    this.#host = {
      limits: kernelLimits(layout),
      cgroupVersion: layout.version,
      held,
      hardLimits: mayRaise ? null : ownHardLimits(fs.readFileSync('/proc/self/limits', 'utf8')),
      oomScoreAdjMin: mayRaise ? -1000 : Number(fs.readFileSync('/proc/self/oom_score_adj', 'latin1')),
      apparmor: isApparmorOn(),
      noNewPrivileges: this.#isolation.noNewPrivileges,
      seccomp: readProfile(this.#isolation.seccompProfile),
    };
    this.#machine = readMachine(layout, this.#host.limits, this.#host.hardLimits);
    this.#exits.watch();
    this.#binaries.askVersions(monitor, log);
  }

  configure(runtimes: RuntimeOptions['runtimes'], defaultRuntime: string): void {
    this.#binaries.configure(runtimes, defaultRuntime);
  }

  [Symbol.dispose](): void {
    this.#exits[Symbol.dispose]();
    this.#readiness?.[Symbol.dispose]();
    this.#views?.[Symbol.dispose]();
    this.#binaries[Symbol.dispose]();
  }

  describe(): RuntimeDescription {
    const layout = this.#ready(this.#layout);
    const { limits, apparmor, noNewPrivileges } = this.#ready(this.#host);
    const { initPath, seccompProfile } = this.#isolation;
    const profile = seccompProfile === 'builtin' ? 'default' : seccompProfile;
    return {
      name: this.#binaries.default,
      version: this.#binaries.versionOf(this.#binaries.default),
      available: Object.fromEntries([...this.#binaries.all].map(([name, { path: file }]) => [name, { path: file }])),
      cgroupDriver: 'cgroupfs',
      cgroupVersion: layout.version,
      hybrid: layout.hybrid,
      limits,
      machine: this.#ready(this.#machine),
      warnings: [...missingLimits(limits, layout.version), ...this.#binaries.knownTroubles()],
      securityOptions: [
        ...(apparmor ? ['name=apparmor'] : []),
        `name=seccomp,profile=${profile}`,
        ...(noNewPrivileges ? ['name=no-new-privileges'] : []),
        ...(this.#isolation.remapped ? ['name=userns'] : []),
      ],
      initBinary: initPath || path.basename(findInit('') ?? ''),
    };
  }

  #ready<T>(value: T | null): T {
    if (value === null) throw new Error('the runtime has not been prepared');
    return value;
  }

  #cgroup(id: ContainerId): Cgroup {
    return new Cgroup(this.#ready(this.#layout), this.#record(id).cgroupPath);
  }

  #record(id: ContainerId): LaunchRecord {
    const known = this.#records.get(id);
    if (known) return known;
    let text: string;
    try {
      text = fs.readFileSync(`${this.#directory(id)}/launch.json`, 'utf8');
    } catch (cause) {
      throw internal(`container ${id} has no run directory`, { cause });
    }
    try {
      const record = JSON.parse(text) as LaunchRecord;
      this.#records.set(id, record);
      return record;
    } catch (cause) {
      // A power cut, where the run directory is on a disk.
      throw internal(`launch.json of container ${id} cannot be read`, { cause });
    }
  }

  anticipate(): void {
    this.#readiness?.anticipate();
  }

  validate(hostConfig: HostConfig): void {
    capabilitiesOf(hostConfig, this.#ready(this.#host).held);
    parseSecurityOptions(hostConfig.SecurityOpt);
    checkSysctls(hostConfig);
  }

  async create(launch: LaunchSpec): Promise<Launched & { readonly warnings: readonly string[] }> {
    this.anticipate();
    const { id, config, hostConfig } = launch;
    const { name, binary } = this.#binaries.named(hostConfig.Runtime);
    const directory = this.#directory(id);
    if (fs.existsSync(directory)) await this.delete(id);

    const user = resolveUser(launch.rootfs, config.User, hostConfig.GroupAdd);
    makeWorkingDirectory(launch, user);
    makeMountPoints(launch);
    fs.mkdirSync(directory, { mode: 0o700 });
    try {
      using _parent = this.#ready(this.#parents).launching(launch.cgroupPath);
      using shared = openShared(launch, `${directory}/shm`);
      const init = this.#initOf(hostConfig);
      const built = buildSpec(launch, user, this.#ready(this.#host), shared, init);
      const granted = realtimeGranted(this.#ready(this.#layout), launch.cgroupPath, built.spec.linux.resources);
      const spec = { ...built.spec, linux: { ...built.spec.linux, resources: granted.resources } };
      const warnings = [...built.warnings, ...granted.warnings];
      const record: LaunchRecord = {
        runtime: name,
        cgroupPath: launch.cgroupPath,
        rootfs: launch.rootfs,
        hostname: launch.hostname,
        env: launch.env,
        user: config.User,
        groupAdd: hostConfig.GroupAdd,
        process: spec.process,
      };
      const executable = this.#binaries.executable(binary);
      const filter = filterKey(spec, executable);
      const annotations = this.#binaries.filterAnnotation(filter);
      fs.writeFileSync(`${directory}/config.json`, encodeSpec({ ...spec, annotations }), { mode: 0o600 });
      fs.writeFileSync(`${directory}/launch.json`, JSON.stringify(record), { mode: 0o600 });
      fs.rmSync(`${this.#exits.directory}/${id}`, { force: true });
      this.#exits.forget(id);
      this.#records.set(id, record);
      const binds = launch.mounts.filter((mount) => mount.source !== '').map((mount) => mount.source);
      if (shared.sharedMemory !== null) binds.push(shared.sharedMemory);
      const view = this.#ready(this.#views).forLaunch(launch.rootfs, binds);
      const [runtime = executable, ...runtimeArgs] = [...view.prefix, executable];
      const answer = await launchMonitor({
        monitor: this.#monitor,
        runtime,
        runtimeArgs: [...runtimeArgs, ...binary.runtimeArgs, '--root', this.#stateRoot(name)],
        id,
        directory,
        exitDirectory: this.#exits.directory,
        logPath: launch.logPath,
        tty: config.Tty,
        stdin: config.OpenStdin,
        stdinOnce: config.StdinOnce,
        enter: view.enter,
      }).finally(view.end);
      if ('failure' in answer) throw createFailure(answer.failure, spec.process.args[0] ?? '');
      this.#binaries.keepFilter(filter, `${this.#stateRoot(name)}/${id}/seccomp.bpf`);
      const ticks = startTicks(answer.pid);
      if (ticks === null) throw internal('the container ended before it was started');
      // The runtime has ended, so the monitor is the parent now. Its own file may not be there yet.
      const monitorPid = parentOf(answer.pid);
      return { pid: answer.pid, pidStartTicks: ticks, monitorPid, warnings };
    } catch (error) {
      await this.delete(id).catch((cause: unknown) => {
        this.#options.log.warn({ error: cause, container: id }, 'a failed start left something behind');
      });
      throw error;
    }
  }

  /** The init that the command runs under; none where process 1 is somebody else's. */
  #initOf({ Init: asked, PidMode: mode }: HostConfig): string | null {
    const { init, initPath } = this.#isolation;
    return (asked ?? init) && (mode === '' || mode === 'private') ? requireInit(initPath) : null;
  }

  async start(id: ContainerId): Promise<void> {
    const record = this.#record(id);
    const { binary } = this.#binaries.named(record.runtime);
    const state = `${this.#stateRoot(record.runtime)}/${id}`;
    const kind = path.basename(binary.path);
    // Both runtimes, and what wraps them, keep a FIFO of this name from `create` to `start`: without it the process runs already.
    const isKept = ['status', 'state.json'].some((name) => fs.existsSync(`${state}/${name}`));
    if (isKept && !fs.existsSync(`${state}/exec.fifo`)) return;
    if (kind === 'crun' && releaseCrun(state)) return;
    await this.#call(id, ['start', id]);
  }

  kill(launched: Launched, signal: number): boolean {
    return signalProcess(launched.pid, launched.pidStartTicks, signal);
  }

  async killAll(id: ContainerId): Promise<void> {
    await this.#cgroup(id).killAll();
  }

  async pause(id: ContainerId): Promise<void> {
    await this.#cgroup(id).freeze(true);
  }

  async resume(id: ContainerId): Promise<void> {
    await this.#cgroup(id).freeze(false);
  }

  async update(id: ContainerId, to: HostConfig, from: HostConfig): Promise<void> {
    const { limits } = this.#ready(this.#host);
    const wanted = updateOf(to, from, this.#ready(this.#machine));
    const { resources } = realtimeGranted(this.#ready(this.#layout), this.#record(id).cgroupPath, wanted);
    const cgroup = this.#cgroup(id);
    const used = await cgroup.memoryInUse();
    const room = to.MemorySwap < 0 ? Number.POSITIVE_INFINITY : Math.max(to.Memory, to.MemorySwap);
    if (to.Memory > 0 && used > room) throw internal(`${used} bytes of memory are in use, more than the limit`);
    const file = `${this.#directory(id)}/resources.json`;
    await fsp.writeFile(file, JSON.stringify(resources), { mode: 0o600 });
    try {
      await this.#call(id, ['update', '--resources', file, id]);
      for (const { kind, device } of ratesLifted(to, from)) await cgroup.liftRate(kind, device);
      const hasQuota = (config: HostConfig) => config.CpuQuota > 0 || config.NanoCpus > 0;
      if (limits.cpuQuota && hasQuota(from) && !hasQuota(to)) await cgroup.lift('cpu');
      if (limits.pids && from.PidsLimit > 0 && to.PidsLimit <= 0) await cgroup.lift('pids');
      if (limits.oomKillDisable && from.OomKillDisable && !to.OomKillDisable) await cgroup.lift('oom-kill-disable');
    } catch (error) {
      const isAsked = error instanceof EngineError && error.kind === 'invalid';
      throw (isAsked ? invalid : internal)(wordsOf(error), { cause: error });
    } finally {
      await fsp.rm(file, { force: true });
    }
  }

  async delete(id: ContainerId): Promise<void> {
    const directory = this.#directory(id);
    let record: LaunchRecord | null = null;
    try {
      record = this.#record(id);
    } catch {
      // Nothing was launched from here, or the crash came before launch.json: only files can be left.
    }
    if (record) {
      const cgroup = new Cgroup(this.#ready(this.#layout), record.cgroupPath);
      // The usual case is that everybody has gone and the directories are free.
      let gone = await cgroup.remove();
      if (!gone) {
        await cgroup.killAll();
        gone = await cgroup.remove();
      }
      await this.#monitorEnds(id);
      if (gone) await fsp.rm(`${this.#stateRoot(record.runtime)}/${id}`, { recursive: true, force: true });
      else await this.#call(id, ['delete', '--force', id]);
      this.#ready(this.#parents).release(record.cgroupPath);
    }
    this.#records.delete(id);
    this.#controls.delete(id);
    // Another container's memory, not to be emptied with the directory.
    if (fs.existsSync(`${directory}/shm`)) unmount(`${directory}/shm`);
    await fsp.rm(`${this.#exits.directory}/${id}`, { force: true });
    await fsp.rm(directory, { recursive: true, force: true });
    this.#exits.forget(id);
  }

  /**
   * Waits until the monitor has written its exit file or gone, so that nothing is written behind our back; one that
   * does neither is stopped.
   */
  async #monitorEnds(id: ContainerId): Promise<void> {
    const pid = readPid(`${this.#directory(id)}/monitor.pid`);
    const ticks = pid > 0 ? startTicks(pid) : null;
    if (ticks === null) return;
    for (let waitedMs = 0; waitedMs < 2000; waitedMs += 2) {
      if (fs.existsSync(`${this.#exits.directory}/${id}`) || startTicks(pid) !== ticks) return;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    // The runtime first, if that is what it waits for: it would go on without its monitor.
    for (const child of childrenOf(pid)) signalProcess(child, startTicks(child) ?? 0, os.constants.signals.SIGKILL);
    signalProcess(pid, ticks, os.constants.signals.SIGKILL);
  }

  onExit(listener: (notice: ExitNotice) => void): void {
    this.#exits.onExit(listener);
  }

  readExit(id: ContainerId): ExitNotice | null {
    return this.#exits.read(id);
  }

  /** The kernel's count while the cgroup is there; else the monitor's `oom` file tells that it has happened. */
  oomKills(id: ContainerId): number {
    let counted = 0;
    try {
      counted = this.#cgroup(id).oomKills();
    } catch {
      // Where its cgroup was cannot be known any more.
    }
    return Math.max(counted, fs.existsSync(`${this.#directory(id)}/oom`) ? 1 : 0);
  }

  isAlive(launched: Launched): boolean {
    return startTicks(launched.pid) === launched.pidStartTicks;
  }

  listRunDirectories(): readonly ContainerId[] {
    return fs.readdirSync(`${this.#options.execRoot}/container`).filter(isContainerId);
  }

  #control(id: ContainerId): MonitorControl {
    let control = this.#controls.get(id);
    if (!control) {
      control = new MonitorControl(this.#directory(id));
      this.#controls.set(id, control);
    }
    return control;
  }

  resize(id: ContainerId, rows: number, columns: number): void {
    this.#control(id).resize(rows, columns);
  }

  reopenLog(id: ContainerId): void {
    this.#control(id).reopenLog();
  }

  async openStdin(id: ContainerId): Promise<StdinPipe> {
    return connectStdin(this.#directory(id));
  }

  async exec(spec: ExecSpec): Promise<ExecProcess> {
    this.anticipate();
    this.#readiness?.stayReady();
    const record = this.#record(spec.id);
    const { binary } = this.#binaries.named(record.runtime);
    const process = this.#execProcess(record, spec);
    this.#execCount += 1;
    return launchExec({
      runtime: this.#binaries.executable(binary),
      runtimeArgs: [...binary.runtimeArgs, '--root', this.#stateRoot(record.runtime)],
      id: spec.id,
      directory: `${this.#directory(spec.id)}/exec/${globalThis.process.pid}-${this.#execCount}`,
      process: encodeSpec(process),
      command: spec.cmd[0] ?? '',
      tty: spec.tty,
      consoleSocket: path.basename(binary.path) === 'crun',
      stdin: spec.stdin,
      detached: spec.detached,
      consoleSize: spec.consoleSize,
      enter: (work) => this.#ready(this.#views).enter(work),
    });
  }

  #execProcess(record: LaunchRecord, spec: Omit<ExecSpec, 'id' | 'stdin'>): OciProcess {
    const container = record.process;
    // Without a user of its own it runs as the container's, with the same further groups.
    const user = resolveUser(record.rootfs, spec.user || record.user, spec.user ? null : record.groupAdd);
    const capabilities = spec.privileged ? [...this.#ready(this.#host).held] : container.capabilities.bounding;
    const [height, width] = spec.consoleSize ?? [0, 0];
    return {
      terminal: spec.tty && !spec.detached,
      ...(height > 0 && width > 0 && { consoleSize: { height, width } }),
      user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
      args: spec.cmd,
      env: environment([...record.env, ...spec.env], { hostname: record.hostname, tty: spec.tty, home: user.home }),
      cwd: spec.workingDir || container.cwd,
      capabilities: capabilitySets(capabilities, user.uid),
      rlimits: container.rlimits,
      noNewPrivileges: container.noNewPrivileges,
      ...(container.oomScoreAdj !== undefined && { oomScoreAdj: container.oomScoreAdj }),
      ...(container.apparmorProfile !== undefined && { apparmorProfile: container.apparmorProfile }),
    };
  }

  prepareProbe(id: ContainerId, cmd: readonly string[], options: ProbeOptions): Probe {
    const record = this.#record(id);
    const { binary } = this.#binaries.named(record.runtime);
    const directory = this.#directory(id);
    const log = `${directory}/probe.log`;
    const global = [
      ...binary.runtimeArgs,
      '--root',
      this.#stateRoot(record.runtime),
      '--log',
      log,
      '--log-format',
      'json',
    ];
    const same = { env: [], user: '', workingDir: '', tty: false, privileged: false, detached: false };
    const launchOf = (name: string, words: readonly string[]) => {
      const file = `${directory}/${name}.json`;
      fs.writeFileSync(file, encodeSpec(this.#execProcess(record, { ...same, cmd: words })), { mode: 0o600 });
      return (): ProbeLaunch => ({
        runtime: this.#binaries.executable(binary),
        args: [...global, 'exec', '--process', file],
        id,
        command: cmd[0] ?? '',
        log,
        outputBytesMax: options.outputBytesMax,
        // Forgotten with the container: then there are none.
        processes: () => this.processes(id).catch(() => []),
        enter: (work) => this.#ready(this.#views).enter(work),
      });
    };
    return createProbe(launchOf('probe', cmd), options.frequent ? launchOf('probe-shell', residentShell(cmd)) : null);
  }

  async processes(id: ContainerId): Promise<readonly number[]> {
    return this.#cgroup(id).processes();
  }

  async stats(id: ContainerId): Promise<CgroupStats> {
    return this.#cgroup(id).stats();
  }

  /** One command of the container's runtime to its end; a failure carries its words. */
  async #call(id: ContainerId, args: readonly string[]): Promise<void> {
    const { runtime } = this.#record(id);
    const { binary } = this.#binaries.named(runtime);
    const all = [...binary.runtimeArgs, '--root', this.#stateRoot(runtime), ...args];
    const child = this.#ready(this.#views).enter(() =>
      spawn(this.#binaries.executable(binary), all, {
        cwd: '/',
        env: {},
        stdio: ['ignore', 'ignore', 'pipe'],
        timeout: 60_000,
      }),
    );
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-16_384);
    });
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', (cause) => reject(internal(`cannot run ${binary.path}: ${messageOf(cause)}`, { cause })));
      child.once('close', resolve);
    });
    if (code !== 0) throw createFailure(stderr, this.#record(id).process.args[0] ?? '');
  }
}

/** The runtime's own words on an update, without those that dockerd puts around a failed start. */
const wordsOf = (error: unknown) =>
  messageOf(error).replace(/^failed to create shim task: OCI runtime create failed: ([\s\S]*): unknown$/, '$1');

function readPid(file: string): number {
  try {
    return Number(fs.readFileSync(file, 'latin1'));
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return 0;
    throw error;
  }
}

/** Throws dockerd's words for a profile that cannot be read. */
function readProfile(setting: string): Host['seccomp'] {
  if (setting === 'builtin' || setting === 'unconfined') return setting;
  let text: string;
  try {
    text = fs.readFileSync(setting, 'utf8');
  } catch (cause) {
    throw internal(`opening seccomp profile (${setting}) failed: ${messageOf(cause)}`, { cause });
  }
  return parseProfile(text);
}

function isApparmorOn(): boolean {
  try {
    return fs.readFileSync('/sys/module/apparmor/parameters/enabled', 'latin1').startsWith('Y');
  } catch {
    return false;
  }
}

/**
 * `crun start` in-process: crun's init waits for a byte on the FIFO `exec.fifo`, which `start` removes and writes. False when
 * it does not look like that; then crun itself has to be asked.
 */
function releaseCrun(stateDirectory: string): boolean {
  const fifo = `${stateDirectory}/exec.fifo`;
  let fd: number;
  try {
    fd = fs.openSync(fifo, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);
  } catch (error) {
    if (isErrno(error, 'ENXIO', 'ENOENT')) return false;
    throw error;
  }
  try {
    fs.unlinkSync(fifo);
    return fs.writeSync(fd, '\0') === 1;
  } finally {
    fs.closeSync(fd);
  }
}
