/**
 * Processes added to a running container. The runtime is the daemon's child and stays until the process ends; its
 * exit code is the process's. Output goes through real pipes, or a terminal received over a console socket.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import fsp from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import tty from 'node:tty';
import { internal, messageOf } from '../lib/errors.ts';
import { openTerminal, receiveDescriptor, setTerminalSize } from '../platform/console.ts';
import { isErrno } from '../platform/libc.ts';
import { createPipe } from '../platform/pipe.ts';
import { childrenOf, signalProcess, startTicks } from '../platform/process.ts';
import { execFailure, type StartFailed } from './failure.ts';
import type { ExecProcess, OutputChunk } from './types.ts';

export interface ExecLaunch {
  readonly runtime: string;
  /** Global arguments, then those of `exec` come. */
  readonly runtimeArgs: readonly string[];
  readonly id: string;
  /** A new directory for this exec's files; removed at its end. */
  readonly directory: string;
  /** JSON of the OCI process. */
  readonly process: string;
  /** What to call it in an error. */
  readonly command: string;
  readonly tty: boolean;
  /** The runtime hands the container's terminal over by `--console-socket` and still waits for the end (crun, not runc). */
  readonly consoleSocket: boolean;
  readonly stdin: boolean;
  readonly detached: boolean;
  readonly consoleSize?: readonly [number, number] | undefined;
  readonly enter: <T>(work: () => T) => T;
}

/** A runtime that has not begun the process by then never will: the longest to wait for is a commit that holds the container still. */
const beginMsMax = 60_000;

/** Output waiting for its reader; beyond it the pipe is left full and the process waits. */
const waitingBytesMax = 256 * 1024;

export async function launchExec(launch: ExecLaunch): Promise<ExecProcess> {
  const { directory } = launch;
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
  fs.writeFileSync(`${directory}/process.json`, launch.process, { mode: 0o600 });
  const args = [...launch.runtimeArgs, '--log', `${directory}/log`, '--log-format', 'json', 'exec'];
  args.push('--process', `${directory}/process.json`, '--pid-file', `${directory}/pid`);
  const run: Run = (stdio) => {
    const child = launch.enter(() =>
      spawn(launch.runtime, [...args, launch.id], {
        cwd: '/',
        env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' },
        stdio: [...stdio],
        // Out of the daemon's session: an interrupt typed at the daemon is not for the containers.
        detached: true,
      }),
    );
    // Listened to from the first moment: a short process ends before its terminal has been received.
    const ended = new Promise<Ended>((resolve) => {
      child.once('error', (error) => resolve({ error }));
      child.once('exit', (code, signal) => {
        resolve({ status: signal === null ? (code ?? 255) : 128 + (os.constants.signals[signal] ?? 0) });
      });
    });
    return { child, ended };
  };
  if (launch.detached) return startDetached(launch, run);
  if (!launch.tty) return startOnPipes(launch, run);
  return launch.consoleSocket ? startOnTerminal(launch, run, args) : startOnRelayedTerminal(launch, run);
}

type Ended = { readonly status: number } | { readonly error: Error };

interface RunningChild {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
}

type Run = (stdio: readonly ('ignore' | number)[]) => RunningChild;

function startOnPipes(launch: ExecLaunch, run: Run): ExecProcess {
  const stdin = launch.stdin ? createPipe() : null;
  const stdout = createPipe();
  const stderr = createPipe();
  let child: RunningChild;
  try {
    child = run([stdin?.read ?? 'ignore', stdout.write, stderr.write]);
  } catch (error) {
    if (stdin) fs.closeSync(stdin.write);
    fs.closeSync(stdout.read);
    fs.closeSync(stderr.read);
    throw error;
  } finally {
    if (stdin) fs.closeSync(stdin.read);
    fs.closeSync(stdout.write);
    fs.closeSync(stderr.write);
  }
  const output = new Output();
  output.add('stdout', new net.Socket({ fd: stdout.read, readable: true, writable: false }));
  output.add('stderr', new net.Socket({ fd: stderr.read, readable: true, writable: false }));
  const input = stdin && inputTo(new net.Socket({ fd: stdin.write, readable: false, writable: true }));
  return execProcess(launch, child, output, input, null);
}

async function startOnTerminal(launch: ExecLaunch, run: Run, args: string[]): Promise<ExecProcess> {
  const console = await ConsoleSocket.listen(launch.directory);
  try {
    args.push('--console-socket', console.path, '--tty');
    const child = run(['ignore', 'ignore', 'ignore']);
    const fd = await console.receive(child.ended);
    if (fd === null) {
      // It ended before it had a terminal: what it says is all the output there is.
      return execProcess(launch, child, new Output(), null, null);
    }
    return onTerminal(launch, child, fd);
  } finally {
    console.close();
  }
}

/** Without a console socket the runtime carries bytes between its own terminal, which is ours, and the container's. */
function startOnRelayedTerminal(launch: ExecLaunch, run: Run): ExecProcess {
  const { master, slave } = openTerminal();
  try {
    if (launch.consoleSize) setTerminalSize(master, ...launch.consoleSize);
    return onTerminal(launch, run([slave, slave, slave]), master);
  } catch (error) {
    fs.closeSync(master);
    throw error;
  } finally {
    fs.closeSync(slave);
  }
}

function onTerminal(launch: ExecLaunch, running: RunningChild, fd: number): ExecProcess {
  if (launch.consoleSize) setTerminalSize(fd, ...launch.consoleSize);
  const terminal = new tty.ReadStream(fd);
  const output = new Output();
  output.add('stdout', terminal);
  const process = execProcess(launch, running, output, launch.stdin ? inputTo(terminal, false) : null, fd);
  if (launch.consoleSocket) return process;
  return Object.create(process, {
    resize: {
      value(rows: number, columns: number): void {
        process.resize(rows, columns);
        // The terminal controls no session, so the kernel tells nobody.
        running.child.kill('SIGWINCH');
      },
    },
  }) as ExecProcess;
}

/** Resolves when the process runs; throws when it cannot. */
async function startDetached(launch: ExecLaunch, run: Run): Promise<ExecProcess> {
  const started = Promise.withResolvers<void>();
  const watcher = fs.watch(launch.directory, (_event, name) => {
    // Made empty first, written then.
    if (name === 'pid' && fs.statSync(`${launch.directory}/pid`, { throwIfNoEntry: false })?.size) started.resolve();
  });
  watcher.on('error', started.reject);
  // Nobody will receive the terminal's other end, so even with a terminal asked for it gets none.
  const child = run(['ignore', 'ignore', 'ignore']);
  child.child.unref();
  const process = execProcess(launch, child, new Output(), null, null);
  try {
    const outcome = await Promise.race([started.promise, process.failure]);
    if (outcome) throw outcome;
    return process;
  } finally {
    watcher.close();
  }
}

/** Ties the runtime's end to the exec's: exit code, what it complained of, removal of the files. */
function execProcess(
  launch: ExecLaunch,
  running: RunningChild,
  output: Output,
  input: ExecProcess['input'],
  terminal: number | null,
): ExecProcess & { readonly failure: Promise<StartFailed | null> } {
  const ended = Promise.withResolvers<number>();
  let complaint: StartFailed | null = null;
  let pid = 0;
  let live = true;
  const readPid = (): number => {
    if (pid === 0) {
      try {
        pid = Number(fs.readFileSync(`${launch.directory}/pid`, 'latin1').trim());
      } catch (error) {
        if (!isErrno(error, 'ENOENT')) throw error;
      }
    }
    return pid;
  };
  let isGivenUp = false;
  const giveUp = setTimeout(() => {
    if (!live || readPid() !== 0) return;
    isGivenUp = true;
    const runtime = running.child.pid ?? 0;
    for (const pid of childrenOf(runtime)) signalProcess(pid, startTicks(pid) ?? 0, os.constants.signals.SIGKILL);
    running.child.kill('SIGKILL');
  }, beginMsMax).unref();
  const finish = async (code: number, failure: StartFailed | null): Promise<void> => {
    clearTimeout(giveUp);
    live = false;
    complaint = failure;
    // dockerd, too, tells the client on the stream, with a carriage return for terminals.
    output.finish(failure && !launch.detached ? Buffer.from(`${failure.message}\r\n`) : null);
    readPid();
    ended.resolve(failure?.exitCode ?? code);
    await fsp.rm(launch.directory, { recursive: true, force: true });
  };
  running.ended
    .then((end) => {
      if ('error' in end) return finish(126, execFailure(messageOf(end.error), launch.command));
      // Only a runtime that failed before the process ran leaves a log.
      const log = end.status === 0 ? '' : readLog(`${launch.directory}/log`);
      if (isGivenUp) return finish(126, execFailure(log || 'the runtime has not begun it in time', launch.command));
      return finish(end.status, log === '' ? null : execFailure(log, launch.command));
    })
    .catch((error: unknown) => {
      // Whoever reads the output waits for its end, also when the engine is out of descriptors.
      output.finish(null);
      ended.reject(error);
    });
  const failed = ended.promise.then(() => complaint);
  // Only a detached start waits for it; whoever waits for `exit` hears of a rejection.
  failed.catch(() => undefined);
  return {
    get pid() {
      return readPid();
    },
    output,
    input,
    resize(rows, columns) {
      if (terminal !== null && live) setTerminalSize(terminal, rows, columns);
    },
    exit: ended.promise,
    failure: failed,
  };
}

function readLog(path: string): string {
  try {
    return fs.readFileSync(path, 'utf8').trim();
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return '';
    throw error;
  }
}

function inputTo(socket: net.Socket, closes = true): NonNullable<ExecProcess['input']> {
  let gone = false;
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  // The process may end, or close its stdin, with input on the way; that is no failure of ours.
  socket.on('error', () => {
    gone = true;
  });
  closed.then(() => {
    gone = true;
  }, undefined);
  return {
    async write(data) {
      if (gone) return;
      await Promise.race([new Promise<void>((resolve) => socket.write(data, () => resolve())), closed]);
    },
    end() {
      // A terminal has one descriptor for both ways and outlives the client's half-close.
      if (closes) socket.end();
    },
  };
}

/**
 * Chunks of several streams in order of arrival, bounded. Without a reader the process waits on its full pipe; when
 * the reader has left, the rest is dropped so that it never does.
 */
class Output implements AsyncIterable<OutputChunk> {
  readonly #chunks: OutputChunk[] = [];
  readonly #sockets = new Set<net.Socket>();
  #waitingBytes = 0;
  #last: Buffer | null = null;
  #finished = false;
  #abandoned = false;
  #wake: () => void = () => undefined;

  add(stream: OutputChunk['stream'], socket: net.Socket): void {
    this.#sockets.add(socket);
    socket.on('data', (data: Buffer) => {
      if (this.#abandoned) return;
      this.#chunks.push({ stream, data });
      this.#waitingBytes += data.length;
      if (this.#waitingBytes > waitingBytesMax) for (const each of this.#sockets) each.pause();
      this.#wake();
    });
    const end = (): void => {
      if (this.#sockets.delete(socket)) this.#wake();
    };
    socket.on('end', end);
    socket.on('close', end);
    // A terminal whose last user has gone answers EIO: its way to say "end".
    socket.on('error', end);
  }

  /** The runtime has ended; `last` is its own word, given after everything else. */
  finish(last: Buffer | null): void {
    this.#last = last;
    this.#finished = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<OutputChunk> {
    try {
      for (;;) {
        const chunk = this.#chunks.shift();
        if (chunk) {
          this.#waitingBytes -= chunk.data.length;
          if (this.#waitingBytes <= waitingBytesMax / 2) for (const socket of this.#sockets) socket.resume();
          yield chunk;
        } else if (this.#sockets.size === 0 && this.#finished) {
          if (this.#last) yield { stream: 'stdout', data: this.#last };
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.#abandoned = true;
      this.#chunks.length = 0;
      for (const socket of this.#sockets) socket.resume();
    }
  }
}

/** Where the runtime hands over the terminal of one exec. */
class ConsoleSocket {
  readonly path: string;
  readonly #terminal: Promise<number>;
  readonly #server: net.Server;

  static async listen(directory: string): Promise<ConsoleSocket> {
    const server = net.createServer({ pauseOnConnect: true });
    // 107 bytes are all a socket's path may have, whatever the run directory's length.
    const fd = fs.openSync(directory, fs.constants.O_DIRECTORY);
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(`/proc/self/fd/${fd}/console`, () => resolve());
      });
    } finally {
      fs.closeSync(fd);
    }
    return new ConsoleSocket(server, `${directory}/console`);
  }

  constructor(server: net.Server, path: string) {
    this.path = path;
    this.#server = server;
    this.#terminal = new Promise((resolve, reject) => {
      server.once('connection', (socket) => {
        takeDescriptor(socket).then(resolve, reject);
      });
    });
    this.#terminal.catch(() => undefined);
  }

  /**
   * The terminal; null when the runtime ended without sending one. One that ended at once may have sent it all the
   * same: what it sent is in the socket by then, so a moment is enough.
   */
  receive(ended: Promise<unknown>): Promise<number | null> {
    const nothingCame = ended.then(() => new Promise<null>((resolve) => setTimeout(resolve, 50, null)));
    return Promise.race([this.#terminal, nothingCame]);
  }

  close(): void {
    this.#server.close();
  }
}

/** The runtime connects first and sends a moment later. */
async function takeDescriptor(socket: net.Socket): Promise<number> {
  const { _handle } = socket as unknown as { _handle: { readonly fd: number } | null };
  try {
    for (let attempt = 0; attempt < 2000; attempt += 1) {
      if (!_handle) break;
      const fd = receiveDescriptor(_handle.fd);
      if (fd !== null) return fd;
      await new Promise((resolve) => setTimeout(resolve, attempt < 10 ? 0 : 5));
    }
    throw internal('the runtime has not handed over the terminal');
  } finally {
    socket.destroy();
  }
}
