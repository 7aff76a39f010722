/** Plugin processes for a test, and what they were asked. */
import type { ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Output, start } from '../support/command.ts';
import { endsWithUs, type Netns } from '../support/netns.ts';
import type { Certificates } from '../support/registry.ts';

export interface Call {
  readonly method: string;
  readonly body: Record<string, unknown>;
  readonly type: string;
}

export interface PluginOptions {
  /** File of the program in this directory, without its ending. */
  readonly program: 'volume-plugin' | 'network-plugin';
  /** Path of a socket, or a port of 127.0.0.1. */
  readonly listen: string;
  readonly netns?: Netns;
  readonly tls?: Certificates;
}

export class TestPlugin {
  readonly state = fs.mkdtempSync(path.join(os.tmpdir(), 'plugin-'));
  readonly #options: PluginOptions;
  #child: ChildProcess | null = null;

  constructor(options: PluginOptions) {
    this.#options = options;
  }

  static async start(options: PluginOptions): Promise<TestPlugin> {
    const plugin = new TestPlugin(options);
    await plugin.start();
    return plugin;
  }

  async start(): Promise<void> {
    const { program, listen, tls, netns } = this.#options;
    const file = path.join(import.meta.dirname, `${program}.ts`);
    const words = [process.execPath, file, this.state, listen, ...(tls ? [tls.ca, tls.certificate, tls.key] : [])];
    const child = start([...endsWithUs, ...(netns ? netns.inside(words) : words)]);
    this.#child = child;
    if (child.stdout === null) throw new Error('no output of the plugin');
    await new Output(child.stdout).waitFor(/ready/);
  }

  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await gone;
  }

  async close(): Promise<void> {
    await this.stop();
    fs.rmSync(this.state, { recursive: true, force: true });
  }

  /** What goes wrong from now on, by method. */
  misbehave(misdeeds: Readonly<Record<string, string | object>>): void {
    const file = path.join(this.state, 'misdeeds.json');
    fs.writeFileSync(`${file}.new`, JSON.stringify(misdeeds));
    fs.renameSync(`${file}.new`, file);
  }

  calls(method?: string): readonly Call[] {
    const file = path.join(this.state, 'calls');
    if (!fs.existsSync(file)) return [];
    const all = fs.readFileSync(file, 'utf8').trim().split('\n').filter(Boolean);
    return all.map((line): Call => JSON.parse(line)).filter((call) => method === undefined || call.method === method);
  }

  forgetCalls(): void {
    fs.rmSync(path.join(this.state, 'calls'), { force: true });
  }

  files(directory: string): readonly string[] {
    const at = path.join(this.state, directory);
    return fs.existsSync(at) ? fs.readdirSync(at).sort() : [];
  }
}
