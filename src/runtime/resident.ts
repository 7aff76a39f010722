/**
 * Probes that come every second or so, run by a shell that stays in the container: a check is then a line to it and a line back
 * instead of a start of the runtime, which takes several times the CPU time of most probes.
 *
 * The shell is the container's own `/bin/sh`, started like any exec, under the container's user, limits, capabilities and filter. It
 * can be seen in `top` (`slipway-health`), and ends with the container or the health check. What it says is not trusted: a container
 * can lie about its health anyway, but not make the daemon wait or remember more than a line.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import { createPipe, setNonBlocking } from '../platform/pipe.ts';
import { runsForMs } from '../platform/process.ts';
import { CutOutput, familyInside, killFamily, launchProbe, type ProbeLaunch, runtimeEnvironment } from './probe.ts';
import type { Probe, ProbeEnd, ProbeRun } from './types.ts';

/** Arguments of `/bin/sh`: for each line read the command is run, and the line said again with the exit code. */
export const residentShell = (cmd: readonly string[]): readonly string[] => [
  '/bin/sh',
  '-c',
  'while read -r n; do (exec "$@") </dev/null 3>&-; echo "$n $?" >&3; done',
  'slipway-health',
  ...cmd,
];

const answerBytesMax = 64;

interface Waiting {
  readonly number: number;
  readonly resolve: (end: ProbeEnd) => void;
}

export class ResidentProbe {
  readonly #launch: ProbeLaunch;
  readonly #child: ChildProcess;
  readonly #orders: number;
  readonly #answers: net.Socket;
  readonly #output: CutOutput;
  #waiting: Waiting | null = null;
  #count = 0;
  #text = '';
  /** It has done its work at least once. */
  proven = false;
  gone = false;

  constructor(launch: ProbeLaunch) {
    this.#launch = launch;
    const orders = createPipe();
    const output = createPipe();
    const answers = createPipe();
    const childsEnds = [orders.read, output.write, answers.write];
    try {
      this.#child = launch.enter(() =>
        spawn(launch.runtime, [...launch.args, '--preserve-fds', '1', launch.id], {
          cwd: '/',
          env: runtimeEnvironment,
          stdio: [orders.read, output.write, output.write, answers.write],
          detached: true,
        }),
      );
    } catch (error) {
      for (const fd of [orders.write, output.read, answers.read]) fs.closeSync(fd);
      throw error;
    } finally {
      for (const fd of childsEnds) fs.closeSync(fd);
    }
    this.#orders = orders.write;
    // Whoever in the container finds the other end could fill the pipe, and the daemon would wait for ever.
    setNonBlocking(this.#orders);
    this.#output = new CutOutput(output.read, launch.outputBytesMax);
    this.#answers = new net.Socket({ fd: answers.read, readable: true, writable: false });
    this.#answers.on('error', () => undefined);
    this.#answers.on('data', (data: Buffer) => this.#hear(data.toString('latin1')));
    const end = (): void => this.#end();
    this.#child.once('error', end);
    this.#child.once('exit', end);
    this.#child.unref();
  }

  /** Only one at a time. The process may have gone: then the run ends with -1. */
  run(): ProbeRun {
    const number = ++this.#count;
    this.#output.forget();
    const ended = new Promise<ProbeEnd>((resolve) => {
      this.#waiting = { number, resolve };
    });
    try {
      if (this.gone) throw new Error('the shell has gone');
      fs.writeSync(this.#orders, `${number}\n`);
    } catch {
      this.#answer(-1);
    }
    const runtimePid = this.#child.pid ?? 0;
    return {
      ended,
      // The shell is the eldest of its family, the command comes next.
      ranMs: async () => {
        const ages = (await familyInside(runtimePid, this.#launch)).map((pid) => runsForMs(pid) ?? 0);
        return ages.sort((a, b) => b - a)[1] ?? null;
      },
      kill: () => killFamily(this.#child, this.#launch),
    };
  }

  /** The shell ends when it reads the end of its orders. */
  close(): void {
    this.#end();
  }

  #hear(text: string): void {
    this.#text += text;
    const line = /^(\d+) (\d+)\n/.exec(this.#text);
    if (line === null) {
      // Not our shell's words: whoever else has found the pipe is not listened to.
      if (this.#text.length > answerBytesMax) this.#child.kill('SIGKILL');
      return;
    }
    this.#text = '';
    if (Number(line[1]) !== this.#waiting?.number) return;
    this.proven = true;
    // What the command said was there before this line, and is read in the same turn.
    setImmediate(() => this.#answer(Number(line[2])));
  }

  #answer(exitCode: number): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.resolve({ exitCode, output: this.#output.text });
  }

  #end(): void {
    if (this.gone) return;
    this.gone = true;
    fs.closeSync(this.#orders);
    this.#answers.destroy();
    this.#answer(-1);
    this.#output.close();
  }
}

/**
 * A probe by the runtime alone, or with a shell that stays. The first run is always the runtime's: it tells what is wrong with a command
 * that cannot be run. A shell that has gone is started again once it has proved that it works here.
 */
export function createProbe(plain: () => ProbeLaunch, withShell: (() => ProbeLaunch) | null): Probe {
  let shell: ResidentProbe | null = null;
  let mayStay = false;
  return {
    run() {
      if (shell?.gone) {
        mayStay &&= shell.proven;
        shell = null;
      }
      if (mayStay && withShell !== null) {
        shell ??= new ResidentProbe(withShell());
        return orPlainly(shell.run(), plain);
      }
      const run = launchProbe(plain());
      if (withShell !== null && shell === null)
        void run.ended.then(({ exitCode }) => (mayStay = exitCode >= 0 && exitCode < 126));
      return run;
    },
    close: () => shell?.close(),
  };
}

/** A shell that went instead of answering says nothing about the container: the runtime is asked. */
function orPlainly(byShell: ProbeRun, plain: () => ProbeLaunch): ProbeRun {
  let run = byShell;
  let killed = false;
  return {
    ended: byShell.ended.then((end) => {
      if (end.exitCode !== -1 || killed) return end;
      run = launchProbe(plain());
      return run.ended;
    }),
    ranMs: () => run.ranMs(),
    kill: () => {
      killed = true;
      return run.kill();
    },
  };
}
