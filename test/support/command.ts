/** Child processes for tests, with a deadline. */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';

export interface Outcome {
  /** Exit code; 128 + signal number style is not made up: null when killed. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** Written to stdin, which is then closed. Without it stdin is /dev/null. */
  readonly input?: string | Uint8Array;
  /** Added to this process's environment; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Default 60 000. The process is killed and the promise rejected. */
  readonly timeoutMs?: number;
}

/** Runs to the end and reports, whatever the exit code. */
export function run(argv: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = start(argv, {
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      stdin: options.input === undefined ? 'ignore' : 'pipe',
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout?.on('data', (data: Buffer) => stdout.push(data));
    child.stderr?.on('data', (data: Buffer) => stderr.push(data));
    const timeoutMs = options.timeoutMs ?? 60_000;
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(
        new Error(
          `${argv.join(' ')}: not finished after ${timeoutMs} ms\nstdout: ${Buffer.concat(stdout)}\nstderr: ${Buffer.concat(stderr)}`,
        ),
      );
    }, timeoutMs);
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() });
    });
    if (child.stdin !== null) {
      // The process may end without having read it all.
      child.stdin.on('error', () => {});
      child.stdin.end(options.input);
    }
  });
}

/** Runs to the end; anything but exit code 0 is an error that shows what was printed. Returns stdout. */
export async function must(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, signal, stdout, stderr } = await run(argv, options);
  if (code !== 0) throw new Error(`${argv.join(' ')}: ${signal ?? `exit code ${code}`}\n${stdout}${stderr}`);
  return stdout;
}

/** Starts and leaves it running; stdout and stderr are pipes. */
export function start(
  argv: readonly string[],
  options: { env?: Readonly<Record<string, string | undefined>>; cwd?: string; stdin?: 'ignore' | 'pipe' } = {},
): ChildProcess {
  const [command, ...args] = argv;
  if (command === undefined) throw new Error('no command');
  const spawnOptions: SpawnOptions = { stdio: [options.stdin ?? 'ignore', 'pipe', 'pipe'] };
  if (options.env !== undefined) spawnOptions.env = { ...process.env, ...options.env };
  if (options.cwd !== undefined) spawnOptions.cwd = options.cwd;
  return spawn(command, args, spawnOptions);
}

/** What a child has printed so far, to wait on. */
export class Output {
  text = '';
  readonly #waiting = new Set<() => void>();
  #ended = false;

  constructor(...streams: (NodeJS.ReadableStream | null)[]) {
    let open = streams.length;
    for (const stream of streams) {
      stream?.on('data', (data: Buffer) => {
        this.text += data.toString();
        for (const check of this.#waiting) check();
      });
      stream?.on('close', () => {
        open -= 1;
        this.#ended = open === 0;
        for (const check of this.#waiting) check();
      });
    }
  }

  /** Resolves with the match as soon as the text from `from` on matches; rejects at the deadline or the end of output. */
  waitFor(pattern: RegExp, options: { timeoutMs?: number; from?: number } = {}): Promise<RegExpExecArray> {
    const timeoutMs = options.timeoutMs ?? 20_000;
    return new Promise((resolve, reject) => {
      const settle = (act: () => void) => {
        clearTimeout(timer);
        this.#waiting.delete(check);
        act();
      };
      const fail = (why: string) =>
        settle(() => reject(new Error(`${pattern} not seen ${why}; output so far:\n${this.text}`)));
      const check = () => {
        const match = pattern.exec(this.text.slice(options.from ?? 0));
        if (match !== null) settle(() => resolve(match));
        else if (this.#ended) fail('before the output ended');
      };
      const timer = setTimeout(() => fail(`within ${timeoutMs} ms`), timeoutMs);
      this.#waiting.add(check);
      check();
    });
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Tries until `attempt` neither throws nor answers false, at most `timeoutMs`; then the last error counts. */
export async function eventually<T>(attempt: () => Promise<T> | T, timeoutMs = 10_000, everyMs = 30): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    try {
      const result = await attempt();
      if (result !== false) return result;
      if (Date.now() > deadline) throw new Error(`still not so after ${timeoutMs} ms: ${attempt}`);
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    await sleep(everyMs);
  }
}
