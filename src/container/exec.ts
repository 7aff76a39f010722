/**
 * Exec: more processes in a running container. Instances live in memory, as on dockerd: a daemon that starts anew knows
 * none of those before it. At most `execsMax` are kept; ended ones are dropped after five minutes or when `endedMax` have ended since,
 * ones never started when room is needed.
 */
import { conflict, invalid, messageOf, notFound, unavailable } from '../lib/errors.ts';
import { type ContainerId, type ExecId, newId } from '../lib/ids.ts';
import { frame } from '../lib/stdcopy.ts';
import type { ExecProcess, OutputChunk } from '../runtime/types.ts';
import type { Attachment, ExecBody, Json } from './api.ts';
import { DetachScanner, parseDetachKeys } from './detach.ts';
import { sizePatienceMs } from './launch.ts';
import { isRunning } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';
import type { ContainerRecord } from './types.ts';

const execsMax = 20_000;
const endedMax = 4096;
const keptMs = 5 * 60_000;

interface Instance {
  readonly id: ExecId;
  readonly containerId: ContainerId;
  readonly body: ExecBody;
  readonly cmd: readonly string[];
  readonly detachKeys: Uint8Array;
  /** While it runs: with its pipes and what it was launched from it is a hundred times the rest. */
  process: ExecProcess | null;
  /** Of the process that ended. */
  pid: number;
  started: boolean;
  exitCode: number | null;
  size: readonly [number, number] | null;
  onResize: (() => void) | null;
}

interface LaunchedExec {
  readonly process: ExecProcess;
  /** Resolves when the exit code is there for inspect. */
  readonly exited: Promise<void>;
}

export interface ExecStart {
  readonly detach: boolean;
  readonly tty: boolean;
  readonly framed: boolean;
  readonly consoleSize?: readonly [number, number] | undefined;
}

export class Execs {
  readonly #set: ContainerSet;
  readonly #instances = new Map<string, Instance>();
  /** Ended ones, oldest first. */
  readonly #over = new Set<ExecId>();

  constructor(set: ContainerSet) {
    this.#set = set;
  }

  async create(ref: string, body: ExecBody): Promise<{ readonly Id: ExecId }> {
    const record = this.#running(ref);
    const cmd = body.Cmd ?? [];
    if (cmd.length === 0) throw invalid('No exec command specified');
    this.#set.parts.runtime.anticipate();
    if (this.#instances.size >= execsMax) this.#dropUnstarted();
    if (this.#instances.size >= execsMax) throw unavailable(`too many exec instances (${execsMax})`);
    const id = newId<ExecId>();
    const instance: Instance = {
      id,
      containerId: record.id,
      body,
      cmd,
      detachKeys: parseDetachKeys(body.DetachKeys ?? ''),
      process: null,
      pid: 0,
      started: false,
      exitCode: null,
      size: null,
      onResize: null,
    };
    this.#instances.set(id, instance);
    this.#announce(record, 'exec_create', instance);
    return { Id: id };
  }

  /** Null when started detached. */
  async start(id: string, options: ExecStart, signal: AbortSignal): Promise<Attachment | null> {
    const instance = this.#find(id);
    if (instance.exitCode !== null) throw conflict(`Error: Exec command ${id} has already run`);
    if (instance.started) throw conflict(`Error: Exec command ${id} is already running`);
    const record = this.#running(instance.containerId);
    instance.started = true;
    if (options.detach) {
      const { process } = await this.#launch(record, instance, options);
      void drain(process.output[Symbol.asyncIterator]());
      return null;
    }
    const tty = instance.body.Tty ?? false;
    const sized = tty && !options.consoleSize && instance.size === null ? awaitSize(instance) : Promise.resolve();
    const launched = sized.then(() => this.#launch(record, instance, options));
    // With a terminal the client is answered before the process begins; a failure then goes into the stream.
    if (tty) void launched.catch(() => undefined);
    else await launched;
    const detached = Promise.withResolvers<void>();
    signal.addEventListener('abort', () => detached.resolve(), { once: true });
    return {
      tty,
      output: this.#output(instance, launched, detached.promise, options.framed && !tty),
      input: instance.body.AttachStdin
        ? inputOf(launched, tty ? new DetachScanner(instance.detachKeys) : null, () => detached.resolve())
        : null,
    };
  }

  async #launch(record: ContainerRecord, instance: Instance, options: ExecStart): Promise<LaunchedExec> {
    const { body } = instance;
    const size = options.consoleSize ?? instance.size ?? undefined;
    this.#announce(record, 'exec_start', instance);
    try {
      const process = await this.#set.parts.runtime.exec({
        id: record.id,
        cmd: instance.cmd,
        env: body.Env ?? [],
        user: body.User ?? '',
        workingDir: body.WorkingDir ?? '',
        tty: body.Tty ?? false,
        privileged: body.Privileged ?? false,
        stdin: !options.detach && (body.AttachStdin ?? false),
        detached: options.detach,
        ...(size ? { consoleSize: size } : {}),
      });
      instance.process = process;
      const exited = process.exit.then((code) => this.#exit(record, instance, code));
      void exited.catch(() => undefined);
      return { process, exited };
    } catch (error) {
      this.#ended(instance, 126);
      throw error;
    }
  }

  async inspect(id: string): Promise<Json> {
    const instance = this.#find(id);
    const [entrypoint = '', ...args] = instance.cmd;
    const { body } = instance;
    return {
      ID: instance.id,
      Running: instance.started && instance.exitCode === null,
      ExitCode: instance.exitCode,
      ProcessConfig: {
        tty: body.Tty ?? false,
        entrypoint,
        arguments: args,
        privileged: body.Privileged ?? false,
        ...(body.User ? { user: body.User } : {}),
      },
      OpenStdin: body.AttachStdin ?? false,
      OpenStderr: body.AttachStderr ?? false,
      OpenStdout: body.AttachStdout ?? false,
      CanRemove: instance.exitCode !== null,
      ContainerID: instance.containerId,
      // Bytes, as Go writes them.
      DetachKeys: body.DetachKeys ? Buffer.from(instance.detachKeys).toString('base64') : '',
      Pid: instance.process?.pid ?? instance.pid,
    };
  }

  /** A size given before the start is kept for it. */
  async resize(id: string, rows: number, columns: number): Promise<void> {
    const instance = this.#find(id);
    if (instance.exitCode !== null) throw conflict(`Error: Exec command ${id} has already run`);
    instance.size = [rows, columns];
    instance.process?.resize(rows, columns);
    instance.onResize?.();
  }

  idsOf(container: ContainerId): readonly ExecId[] {
    return [...this.#instances.values()]
      .filter((i) => i.containerId === container && i.started && i.exitCode === null)
      .map((i) => i.id);
  }

  /** Makes room: instances that were created and never started, the older half of them. */
  #dropUnstarted(): void {
    const unstarted = [...this.#instances.values()].filter((instance) => !instance.started);
    for (const { id } of unstarted.slice(0, Math.ceil(unstarted.length / 2))) this.#instances.delete(id);
  }

  #running(ref: string): ContainerRecord {
    const record = this.#set.index.resolve(ref);
    if (record.state.is === 'restarting')
      throw conflict(`Container ${record.id} is restarting, wait until the container is running`);
    if (!isRunning(record)) throw conflict(`Container ${record.id} is not running`);
    if (record.state.paused) throw conflict(`Container ${ref} is paused, unpause the container before exec`);
    return record;
  }

  #find(id: string): Instance {
    const instance = this.#instances.get(id);
    if (instance === undefined) throw notFound(`No such exec instance: ${id}`);
    return instance;
  }

  async *#output(
    instance: Instance,
    launched: Promise<LaunchedExec>,
    detached: Promise<void>,
    framed: boolean,
  ): AsyncGenerator<Uint8Array> {
    const { AttachStdout: stdout = false, AttachStderr: stderr = false, Tty: tty = false } = instance.body;
    let running: LaunchedExec;
    try {
      running = await launched;
    } catch (error) {
      yield Buffer.from(`${messageOf(error)}\r\n`);
      return;
    }
    const source = running.process.output[Symbol.asyncIterator]();
    // Not a race of promises: each would leave a reaction on `detached`, one for every piece of a long session.
    let leave: (left: null) => void = () => undefined;
    let gone = false;
    void detached.then(() => {
      gone = true;
      leave(null);
    });
    let complete = false;
    try {
      while (!gone) {
        const next = await new Promise<IteratorResult<OutputChunk> | null>((resolve, reject) => {
          leave = resolve;
          source.next().then(resolve, reject);
        });
        if (next === null) return;
        if (next.done) break;
        const { stream, data } = next.value;
        if (!(stream === 'stdout' ? stdout || tty : stderr)) continue;
        yield framed ? frame(stream, data) : data;
      }
      complete = true;
      // A client asks for the exit code as soon as the stream ends: it must be there.
      await running.exited;
    } finally {
      // The process goes on without its client, and must not stall on a full pipe.
      if (!complete) void drain(source);
    }
  }

  #exit(record: ContainerRecord, instance: Instance, code: number): void {
    this.#ended(instance, code);
    this.#set.announce(containerEvent(record, 'exec_die', { execID: instance.id, exitCode: String(code) }));
  }

  #ended(instance: Instance, code: number): void {
    instance.exitCode = code;
    instance.pid = instance.process?.pid ?? 0;
    instance.process = null;
    const { id } = instance;
    this.#over.add(id);
    const [oldest] = this.#over;
    if (this.#over.size > endedMax && oldest) this.#drop(oldest);
    setTimeout(() => this.#drop(id), keptMs).unref();
  }

  #drop(id: ExecId): void {
    this.#over.delete(id);
    this.#instances.delete(id);
  }

  /** `exec_create: program arguments`; without arguments dockerd's text ends in a blank, and clients compare it. */
  #announce(record: ContainerRecord, action: string, { id, cmd }: Instance): void {
    const [program = '', ...args] = cmd;
    this.#set.announce(containerEvent(record, `${action}: ${program} ${args.join(' ')}`, { execID: id }));
  }
}

/** Resolves at the first resize: clients send the size when the start was answered. Or after a moment without. */
function awaitSize(instance: Instance): Promise<void> {
  return new Promise((resolve) => {
    instance.onResize = resolve;
    setTimeout(resolve, sizePatienceMs);
  });
}

function inputOf(
  launched: Promise<LaunchedExec>,
  scanner: DetachScanner | null,
  detach: () => void,
): NonNullable<Attachment['input']> {
  // What is typed at a process that could not be started, or has gone, is dropped: its exit code tells.
  const input = launched.then(
    ({ process }) => process.input,
    () => null,
  );
  return {
    async write(data) {
      const scanned = scanner ? scanner.scan(data) : { pass: data, detached: false };
      if (scanned.pass.length > 0) await (await input)?.write(scanned.pass).catch(() => undefined);
      if (scanned.detached) detach();
    },
    end() {
      void input.then((open) => open?.end());
    },
  };
}

async function drain(source: AsyncIterator<unknown>): Promise<void> {
  try {
    while (!(await source.next()).done);
  } catch {
    // The process has gone with its pipes; its exit code is what counts.
  }
}
