/** Commands in a real terminal of a given size, as a person at a keyboard has it. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { Output } from './command.ts';

export interface Terminal {
  /** All the terminal has shown, carriage returns included. */
  readonly output: Output;
  /** Types these characters. */
  type(text: string): void;
  resize(rows: number, columns: number): void;
  /** 128 + signal when killed. */
  readonly exit: Promise<number>;
  kill(): void;
}

export function openTerminal(
  argv: readonly string[],
  options: { rows?: number; columns?: number; env?: Readonly<Record<string, string>> } = {},
): Terminal {
  const size = [String(options.rows ?? 24), String(options.columns ?? 80)];
  const child = spawn('/usr/bin/python3', [path.join(import.meta.dirname, 'terminal.py'), ...size, ...argv], {
    stdio: ['pipe', 'pipe', 'inherit', 'pipe'],
    env: { ...process.env, TERM: 'xterm', ...options.env },
  });
  const [keyboard, , , control] = child.stdio as unknown as [Writable, Readable, null, Writable];
  // Typing into a terminal that has closed is no error.
  for (const stream of [keyboard, control]) stream.on('error', () => {});
  return {
    output: new Output(child.stdout),
    type: (text) => void keyboard.write(text),
    resize: (rows, columns) => void control.write(`${rows} ${columns}\n`),
    exit: new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) =>
        code === null ? reject(new Error(`terminal ended by ${signal}`)) : resolve(code),
      );
    }),
    kill: () => void child.kill('SIGHUP'),
  };
}
