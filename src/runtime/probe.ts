/**
 * Probes: one command run in a container again and again, as cheaply as the runtime allows. Unlike an exec there is no
 * terminal and no stdin, the process is described once per run of the container, output is cut while it is read, and
 * nothing is written to disk.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import { messageOf } from '../lib/errors.ts';
import { isErrno } from '../platform/libc.ts';
import { createPipe } from '../platform/pipe.ts';
import { childrenOf, familyOf, runsForMs, signalProcess, startTicks } from '../platform/process.ts';
import { execFailure } from './failure.ts';
import type { ProbeEnd, ProbeRun } from './types.ts';

export interface ProbeLaunch {
  readonly runtime: string;
  /** Everything up to the container's id. */
  readonly args: readonly string[];
  readonly id: string;
  /** The command's first word, for errors. */
  readonly command: string;
  /** Where the runtime complains (its `--log`). */
  readonly log: string;
  readonly outputBytesMax: number;
  /** Processes of the container. */
  readonly processes: () => Promise<readonly number[]>;
  readonly enter: <T>(work: () => T) => T;
}

/** A probe may leave somebody behind who holds its output; what it said itself is in the pipe when it ends. */
const lastWordsMs = 50;
const killRoundsMax = 20;
const killPauseMs = 10;
export const runtimeEnvironment = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' };

export function launchProbe(launch: ProbeLaunch): ProbeRun {
  const pipe = createPipe();
  let child: ChildProcess;
  try {
    child = launch.enter(() =>
      spawn(launch.runtime, [...launch.args, launch.id], {
        cwd: '/',
        env: runtimeEnvironment,
        stdio: ['ignore', pipe.write, pipe.write],
        detached: true,
      }),
    );
  } catch (error) {
    fs.closeSync(pipe.read);
    throw error;
  } finally {
    fs.closeSync(pipe.write);
  }
  const output = new CutOutput(pipe.read, launch.outputBytesMax);
  const ended = new Promise<ProbeEnd>((resolve) => {
    child.once('error', (error) => {
      output.close();
      resolve({ exitCode: -1, output: messageOf(error) });
    });
    child.once('exit', (code, signal) => {
      const exitCode = signal === null ? (code ?? 255) : 128 + (os.constants.signals[signal] ?? 0);
      const complaint = exitCode === 0 ? '' : takeComplaint(launch.log);
      if (complaint !== '') {
        output.close();
        resolve({ exitCode: -1, output: execFailure(complaint, launch.command).message });
        return;
      }
      void output.rest().then((text) => resolve({ exitCode, output: text }));
    });
  });
  const runtimePid = child.pid ?? 0;
  return {
    ended,
    ranMs: async () => {
      const first = (await familyInside(runtimePid, launch))[0];
      // While it is still the runtime's own program, the command has not begun.
      if (first === undefined || programOf(first) === programOf(runtimePid)) return null;
      return runsForMs(first);
    },
    kill: () => killFamily(child, launch),
  };
}

/** What the runtime's call has started in the container. */
export async function familyInside(runtimePid: number, launch: ProbeLaunch): Promise<readonly number[]> {
  return familyOf(runtimePid, await launch.processes());
}

/** Ends a runtime's call, and everything it has started. */
export async function killFamily(child: ChildProcess, launch: ProbeLaunch): Promise<void> {
  const runtimePid = child.pid ?? 0;
  for (let round = 0; round < killRoundsMax; round += 1) {
    // A child that is still on its way into the container is not among the container's processes.
    const candidates = [...childrenOf(runtimePid), ...(await launch.processes())];
    const family = familyOf(runtimePid, [...new Set(candidates)]);
    for (const pid of family) {
      const ticks = startTicks(pid);
      if (ticks !== null) signalProcess(pid, ticks, os.constants.signals.SIGKILL);
    }
    // Once more: one of them may have forked while they were counted.
    if (family.length === 0 && round > 0) break;
    await new Promise((resolve) => setTimeout(resolve, killPauseMs));
  }
  // It has nothing left to wait for, unless it is stuck itself.
  child.kill('SIGKILL');
}

function programOf(pid: number): string {
  try {
    return fs.readlinkSync(`/proc/${pid}/exe`);
  } catch {
    return '';
  }
}

/** What the runtime complained of; the next probe finds the file empty. */
function takeComplaint(file: string): string {
  try {
    const text = fs.readFileSync(file, 'utf8').trim();
    if (text !== '') fs.truncateSync(file);
    return text;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return '';
    throw error;
  }
}

/** Reads everything, keeps the beginning. */
export class CutOutput {
  readonly #socket: net.Socket;
  readonly #bytesMax: number;
  readonly #kept: Buffer[] = [];
  #length = 0;
  #over = Promise.withResolvers<void>();

  constructor(fd: number, bytesMax: number) {
    this.#bytesMax = bytesMax;
    this.#socket = new net.Socket({ fd, readable: true, writable: false });
    this.#socket.on('data', (data: Buffer) => {
      const room = this.#bytesMax - this.#length;
      if (room > 0) this.#kept.push(data.subarray(0, room));
      this.#length += data.length;
    });
    const over = (): void => this.#over.resolve();
    this.#socket.on('end', over).on('error', over).on('close', over);
  }

  /** All of it, when the writer has gone; `...` follows what was cut. */
  async rest(): Promise<string> {
    const timer = setTimeout(this.#over.resolve, lastWordsMs);
    await this.#over.promise;
    clearTimeout(timer);
    this.close();
    return this.text;
  }

  get text(): string {
    return Buffer.concat(this.#kept).toString('utf8') + (this.#length > this.#bytesMax ? '...' : '');
  }

  /** What comes from now on is another command's. */
  forget(): void {
    this.#kept.length = 0;
    this.#length = 0;
  }

  close(): void {
    this.#socket.destroy();
  }
}
