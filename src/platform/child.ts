/** Commands for what may never come back: a dead file server holds the child, not the engine. */
import { type ChildProcess, spawn } from 'node:child_process';

const complaintMax = 2000;

export class ChildTimeout extends Error {}

export interface ChildResult {
  readonly code: number;
  /** The last of what it printed on either stream, cut short. */
  readonly output: string;
}

/**
 * Runs a command to its end. After `deadlineMs` it is sent SIGKILL and given up, whether it dies of that or not: rejects
 * with `ChildTimeout`. `fd` becomes descriptor 3 of the child.
 */
export function runChild(
  argv: readonly [string, ...string[]],
  options: { readonly deadlineMs: number; readonly fd?: number },
): Promise<ChildResult> {
  const [command, ...args] = argv;
  const child: ChildProcess = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe', ...(options.fd === undefined ? [] : [options.fd])],
    env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
  });
  let output = '';
  const keep = (data: Buffer) => {
    if (output.length < complaintMax) output += data.toString();
  };
  child.stdout?.on('data', keep);
  child.stderr?.on('data', keep);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      child.stdout?.destroy();
      child.stderr?.destroy();
      child.unref();
      reject(new ChildTimeout(`${command} did not end within ${options.deadlineMs / 1000} seconds`));
    }, options.deadlineMs);
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code: code ?? 128, output: signal === null ? output.trim() : `ended by ${signal}` });
    });
  });
}
