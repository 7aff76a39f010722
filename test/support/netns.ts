/** A network namespace for a test, held by a sleeping process, with only loopback up. */
import type { ChildProcess } from 'node:child_process';
import { must, type Outcome, type RunOptions, run, start } from './command.ts';

/** Before a command: it is killed when this process ends, however it ends. */
export const endsWithUs = ['setpriv', '--pdeathsig', 'KILL', '--'] as const;

let neighbours = 0;

export class Netns {
  /** Null: this process's own namespace. */
  readonly #holder: ChildProcess | null;

  private constructor(holder: ChildProcess | null) {
    this.#holder = holder;
  }

  /** The namespace this process is in, for tests whose own servers an engine is to reach. */
  static own(): Netns {
    return new Netns(null);
  }

  static async create(): Promise<Netns> {
    const script = 'ip link set lo up && echo up && exec sleep infinity';
    const holder = start([...endsWithUs, 'unshare', '--net', 'sh', '-c', script]);
    await new Promise<void>((resolve, reject) => {
      holder.stdout?.once('data', () => resolve());
      holder.once('exit', (code) => reject(new Error(`no network namespace: unshare ended with ${code}`)));
    });
    // A test file may end although a namespace was forgotten.
    holder.unref();
    for (const stream of [holder.stdout, holder.stderr]) stream?.destroy();
    return new Netns(holder);
  }

  get path(): string {
    return `/proc/${this.#holder?.pid ?? process.pid}/ns/net`;
  }

  /** The command line that runs `argv` inside. nsenter replaces itself, so the pid is the command's own. */
  inside(argv: readonly string[]): string[] {
    return ['nsenter', `--net=${this.path}`, '--', ...argv];
  }

  run(argv: readonly string[], options?: RunOptions): Promise<Outcome> {
    return run(this.inside(argv), options);
  }

  must(argv: readonly string[], options?: RunOptions): Promise<string> {
    return must(this.inside(argv), options);
  }

  spawn(argv: readonly string[], options?: Parameters<typeof start>[1]): ChildProcess {
    return start(this.inside(argv), options);
  }

  /**
   * A machine next door: another namespace joined by a cable. This side gets `<net>.1`, the other `<net>.2`, both /24.
   * `defaultRoute` sends everything else of this side to the neighbour, which then plays the outside world.
   */
  async attachNeighbour(
    options: { net?: string; defaultRoute?: boolean } = {},
  ): Promise<{ netns: Netns; here: string; there: string }> {
    const neighbour = await Netns.create();
    const net = options.net ?? '10.99.0';
    neighbours += 1;
    const cable = `nb${neighbours}`;
    await this.must([
      ...['ip', 'link', 'add', cable, 'type', 'veth', 'peer', 'name', 'eth0'],
      ...['netns', String(neighbour.#holder?.pid)],
    ]);
    await this.must(['ip', 'address', 'add', `${net}.1/24`, 'dev', cable]);
    await this.must(['ip', 'link', 'set', cable, 'up']);
    await neighbour.must(['ip', 'address', 'add', `${net}.2/24`, 'dev', 'eth0']);
    await neighbour.must(['ip', 'link', 'set', 'eth0', 'up']);
    if (options.defaultRoute) await this.must(['ip', 'route', 'add', 'default', 'via', `${net}.2`]);
    return { netns: neighbour, here: `${net}.1`, there: `${net}.2` };
  }

  close(): void {
    this.#holder?.kill('SIGKILL');
  }
}
