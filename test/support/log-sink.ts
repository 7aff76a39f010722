/** Receivers of logs for a test: real sockets in the engine's network, what they got kept as bytes. */
import path from 'node:path';
import readline from 'node:readline';
import { eventually, start } from './command.ts';
import type { SinkOptions } from './log-sink-child.ts';
import type { Netns } from './netns.ts';

export interface Sink {
  readonly port: number;
  /** All that came, in order; datagrams one by one. */
  readonly messages: Buffer[];
  /** Bytes that came, of a sink that counts. */
  readonly counted: () => number;
  /** Resolves when a sink that counts has seen what it awaits. */
  readonly complete: Promise<void>;
  readonly connections: () => number;
  readonly refusals: string[];
  text(): string;
  /** Forgets what has come. */
  clear(): void;
  bytes(): Buffer;
  command(word: 'pause' | 'resume' | 'drop'): void;
  /** Resolves when `condition` holds for what has come. */
  until(condition: (text: string) => boolean, timeoutMs?: number): Promise<void>;
  close(): Promise<void>;
}

export async function startSink(
  t: { after(fn: () => Promise<void>): void },
  netns: Netns,
  options: SinkOptions,
): Promise<Sink> {
  const program = path.join(import.meta.dirname, 'log-sink-child.ts');
  const child = start(netns.inside([process.execPath, program, JSON.stringify(options)]), { stdin: 'pipe' });
  const messages: Buffer[] = [];
  const refusals: string[] = [];
  let connections = 0;
  let counted = 0;
  let wrong = '';
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.stderr?.on('data', (data: Buffer) => {
    wrong += data.toString();
  });
  const complete = Promise.withResolvers<void>();
  const listening = Promise.withResolvers<number>();
  if (child.stdout === null || child.stdin === null) throw new Error('the sink has no pipes');
  const { stdin } = child;
  stdin.on('error', () => undefined);
  readline.createInterface({ input: child.stdout }).on('line', (line) => {
    const told = JSON.parse(line);
    if (told.data !== undefined) messages.push(Buffer.from(told.data, 'base64'));
    else if (told.counted !== undefined) {
      counted = told.counted;
      if (told.at === 'complete') complete.resolve();
    } else if (told.at === 'listening') listening.resolve(told.port ?? 0);
    else if (told.at === 'connected') connections++;
    else if (told.at === 'refused') refusals.push(told.why);
  });
  void gone.then(() => listening.reject(new Error(`the sink ended: ${wrong}`)));
  // Asked for again and again while megabytes come: what has been turned into text stays so.
  let read = 0;
  let known = '';
  const text = (): string => {
    known += Buffer.concat(messages.slice(read)).toString('latin1');
    read = messages.length;
    return known;
  };
  const close = async () => {
    if (child.exitCode === null) child.kill('SIGKILL');
    await gone;
  };
  t.after(close);
  return {
    port: await listening.promise,
    messages,
    refusals,
    counted: () => counted,
    complete: complete.promise,
    connections: () => connections,
    text,
    clear: () => {
      messages.length = 0;
      read = 0;
      known = '';
    },
    bytes: () => Buffer.concat(messages),
    command: (word) => void stdin.write(`${word}\n`),
    until: async (condition, timeoutMs = 10_000) => {
      await eventually(() => {
        if (!condition(text())) throw new Error(`the sink got ${JSON.stringify(text().slice(-300))}`);
      }, timeoutMs);
    },
    close,
  };
}
