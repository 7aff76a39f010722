/**
 * The monitor of a container (conmon): starting one, and talking to it through the files it keeps in the run directory.
 *
 * conmon forks itself into a session of its own, holds the container's stdio or terminal, appends to the log, serves
 * `attach` (a SOCK_SEQPACKET socket), obeys lines on the FIFO `ctl`, and leaves the exit code in a file. None of it
 * needs the daemon.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import { SeqpacketSocket } from 'node-unix-socket';
import { internal, messageOf } from '../lib/errors.ts';
import { isErrno } from '../platform/libc.ts';
import type { StdinPipe } from './types.ts';

export interface MonitorLaunch {
  readonly monitor: string;
  readonly runtime: string;
  readonly runtimeArgs: readonly string[];
  readonly id: string;
  /** Run directory; also the bundle. conmon's working directory too, so that its `oom` file lands there. */
  readonly directory: string;
  readonly exitDirectory: string;
  readonly logPath: string;
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdinOnce: boolean;
  /** Forks in the mount namespace that the runtime shall see. */
  readonly enter: <T>(work: () => T) => T;
}

/** What the monitor answers on its sync pipe: the pid, or the runtime's words. */
export type MonitorAnswer = { readonly pid: number } | { readonly failure: string };

/** Longest answer read; the runtime's text in it is at most a page or two. */
const answerBytesMax = 1 << 20;
/** A runtime that has not answered by then never will. */
const answerMsMax = 60_000;

export async function launchMonitor(launch: MonitorLaunch): Promise<MonitorAnswer> {
  const { directory } = launch;
  const args = ['--api-version', '1', '-c', launch.id, '-u', launch.id, '-n', launch.id];
  args.push('-r', launch.runtime);
  for (const argument of launch.runtimeArgs) args.push('--runtime-arg', argument);
  args.push('-b', directory, '--persist-dir', directory, '--full-attach', '--exit-dir', launch.exitDirectory);
  args.push('-p', `${directory}/pid`, '-P', `${directory}/monitor.pid`);
  args.push('-l', `k8s-file:${launch.logPath}`, '--no-sync-log', '--log-level', 'error');
  if (launch.tty) args.push('-t');
  if (launch.stdin) args.push('-i');
  // Without the flag the end of any attached client ends the process's stdin: right for StdinOnce alone.
  if (launch.stdin && !launch.stdinOnce) args.push('--leave-stdin-open');
  const child = launch.enter(() =>
    spawn(launch.monitor, args, {
      cwd: directory,
      env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', _OCI_SYNCPIPE: '3' },
      stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
      detached: true,
    }),
  );
  const sync = child.stdio[3];
  const stderr = child.stdio[2];
  if (!(sync instanceof net.Socket) || !(stderr instanceof net.Socket)) throw new Error('no pipes to the monitor');
  let complaint = '';
  stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-4096);
  });
  stderr.on('error', () => undefined);
  const failed = new Promise<never>((_, reject) => {
    child.once('error', (cause) => reject(internal(`cannot run ${launch.monitor}: ${messageOf(cause)}`, { cause })));
  });
  try {
    const line = await Promise.race([firstLine(sync), failed]);
    if (line === '') throw internal(`the monitor ended without an answer: ${complaint.trim() || 'no reason given'}`);
    const answer = JSON.parse(line) as { data?: number; message?: string };
    const pid = answer.data ?? -1;
    return pid > 0 ? { pid } : { failure: answer.message ?? complaint };
  } finally {
    failed.catch(() => undefined);
    sync.destroy();
    stderr.destroy();
  }
}

/** The text up to the first newline; empty when the other side closed without one. */
async function firstLine(socket: net.Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const timer = setTimeout(() => reject(internal('the monitor has not answered in time')), answerMsMax);
    const finish = (line: string): void => {
      clearTimeout(timer);
      resolve(line);
    };
    socket.on('data', (chunk: Buffer) => {
      const newline = chunk.indexOf(10);
      chunks.push(newline < 0 ? chunk : chunk.subarray(0, newline));
      length += chunk.length;
      if (newline >= 0 || length > answerBytesMax) finish(Buffer.concat(chunks).toString('utf8'));
    });
    socket.on('end', () => finish(Buffer.concat(chunks).toString('utf8')));
    socket.on('error', reject);
  });
}

/**
 * Lines for the monitor's FIFO. conmon heeds only the first line of what it reads at once, so lines keep a distance,
 * and of several sizes only the last is sent.
 */
export class MonitorControl {
  readonly #path: string;
  #size: string | null = null;
  #reopen = false;
  #timer: NodeJS.Timeout | null = null;

  constructor(directory: string) {
    this.#path = `${directory}/ctl`;
  }

  resize(rows: number, columns: number): void {
    this.#size = `1 ${rows} ${columns}\n`;
    this.#flush();
  }

  reopenLog(): void {
    this.#reopen = true;
    this.#flush();
  }

  #flush(): void {
    if (this.#timer) return;
    const line = this.#reopen ? '2 0 0\n' : this.#size;
    if (line === null) return;
    if (this.#reopen) this.#reopen = false;
    else this.#size = null;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#flush();
    }, controlDistanceMs);
    writeFifo(this.#path, line);
  }
}

const controlDistanceMs = 50;

/** A FIFO without its reader means that the monitor has ended: nothing left to tell. */
function writeFifo(path: string, line: string): void {
  let fd: number;
  try {
    fd = fs.openSync(path, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);
  } catch (error) {
    if (isErrno(error, 'ENXIO', 'ENOENT')) return;
    throw error;
  }
  try {
    fs.writeSync(fd, line);
  } catch (error) {
    if (!isErrno(error, 'EPIPE', 'EAGAIN')) throw error;
  } finally {
    fs.closeSync(fd);
  }
}

/** conmon cuts what is longer without a word. */
const stdinMessageBytesMax = 32_768;
const O_PATH = 0x200000;

/** Connects to `attach`. What the container prints comes along and is dropped: a reader that stops would stop the container. */
export async function connectStdin(directory: string): Promise<StdinPipe> {
  // The path of a socket holds 107 bytes; through the directory's descriptor any depth fits.
  const fd = fs.openSync(directory, fs.constants.O_DIRECTORY | O_PATH);
  const socket = new SeqpacketSocket();
  const closed = Promise.withResolvers<void>();
  let open = true;
  const close = (): void => {
    open = false;
    closed.resolve();
  };
  try {
    socket.on('data', () => undefined);
    socket.on('close', close);
    const connected = once(socket, 'connect');
    socket.connect(`/proc/self/fd/${fd}/attach`);
    await connected;
    socket.on('error', close);
    socket.on('end', () => {
      close();
      socket.destroy();
    });
  } catch (cause) {
    socket.destroy();
    throw internal(`cannot reach the container's monitor: ${messageOf(cause)}`, { cause });
  } finally {
    fs.closeSync(fd);
  }
  return {
    closed: closed.promise,
    async write(data) {
      for (let offset = 0; offset < data.length && open; offset += stdinMessageBytesMax) {
        const message = Buffer.from(data.subarray(offset, offset + stdinMessageBytesMax));
        await Promise.race([
          new Promise<void>((resolve) => socket.write(message, 0, message.length, resolve)),
          closed.promise,
        ]);
      }
    },
    async end() {
      if (!open) return;
      await Promise.race([new Promise<void>((resolve) => socket.end(resolve)), closed.promise]);
    },
  };
}
