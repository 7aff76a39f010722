/** The engine's side of the name server: tells the thread that answers (`name-worker.ts`) who is in which network of the user's. */
import { Worker } from 'node:worker_threads';
import type { Log } from '../lib/log.ts';
import type { NamedContainer, NamedPlace } from './names.ts';
import { predefined } from './requests.ts';
import { isJoined, type JoinedEndpoint, type LiveSandbox } from './types.ts';

export type Told =
  | { readonly do: 'hold'; readonly container: NamedContainer }
  | { readonly do: 'drop'; readonly id: string }
  | { readonly do: 'settle'; readonly number: number };

export type Telling = { readonly settled: number } | { readonly container: string; readonly error: unknown };

/** A thread that dies is replaced, but not faster than this. */
const replaceMs = 1000;

export class NameServer {
  readonly #log: Log;
  /** All that the thread knows; a new one is told it again. Containers in no network with names are not among them. */
  readonly #held = new Map<string, NamedContainer>();
  /** Made when there is something to answer. */
  #worker: Worker | null = null;
  #replaceAt = 0;
  #number = 0;
  readonly #settling = new Map<number, () => void>();
  #closed = false;

  constructor(log: Log) {
    this.#log = log;
  }

  hold(container: NamedContainer): void {
    const { id, places } = container;
    if (places.length === 0) this.drop(id);
    else {
      this.#held.set(id, container);
      this.#tell({ do: 'hold', container });
    }
  }

  /** Repeating it is not an error. */
  drop(id: string): void {
    if (this.#held.delete(id)) this.#tell({ do: 'drop', id });
  }

  /** Resolves when what was held and dropped so far is what is answered. */
  settled(): Promise<void> {
    const worker = this.#worker;
    if (worker === null || this.#held.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#settling.set(++this.#number, resolve);
      worker.postMessage({ do: 'settle', number: this.#number } satisfies Told);
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#worker?.terminate();
  }

  #tell(told: Told): void {
    if (this.#worker) this.#worker.postMessage(told);
    else if (this.#held.size > 0) this.#start();
  }

  #start(): void {
    if (this.#closed || Date.now() < this.#replaceAt) return;
    const worker = new Worker(new URL('./name-worker.ts', import.meta.url), {
      execArgv: ['--disable-warning=ExperimentalWarning'],
      resourceLimits: { maxOldGenerationSizeMb: 256 },
    });
    worker.unref();
    this.#worker = worker;
    worker.on('message', (telling: Telling) => {
      if ('settled' in telling) {
        this.#settling.get(telling.settled)?.();
        this.#settling.delete(telling.settled);
      } else this.#log.warn(telling, 'the name server of a container has trouble');
    });
    worker.on('error', (error) => this.#log.error({ error }, 'the thread that answers names has died'));
    worker.on('exit', () => {
      this.#worker = null;
      for (const resolve of this.#settling.values()) resolve();
      this.#settling.clear();
      this.#replaceAt = Date.now() + replaceMs;
      setTimeout(() => this.#held.size > 0 && this.#worker === null && this.#start(), replaceMs + 1).unref();
    });
    for (const container of this.#held.values()) worker.postMessage({ do: 'hold', container } satisfies Told);
  }
}

/** Names are answered in networks of the user's only. */
export const hasNames = (network: string): boolean => !predefined.includes(network);

/** A sandbox as the name server knows it. `subnets`: of its networks. */
export function namedOf(live: LiveSandbox, subnets: readonly string[]): NamedContainer {
  const joined = Object.values(live.endpoints).filter(isJoined);
  return {
    id: live.containerId,
    name: live.containerName,
    namespacePath: live.sandbox.namespacePath,
    places: joined
      .filter(({ networkName }) => hasNames(networkName))
      .sort(byWayOut)
      .map(placeOf),
    dns: live.dns,
    wayOut: {
      v4: joined.some((each) => each.joined.gateway !== ''),
      v6: joined.some((each) => each.joined.ipv6Gateway !== ''),
    },
    subnets,
    keepsSingleLabels: live.keepsSingleLabels ?? false,
  };
}

const placeOf = ({ networkName, aliases, links, joined }: JoinedEndpoint): NamedPlace => ({
  ...{ network: networkName, aliases, links, ipv4: joined.ipv4, ipv6: joined.ipv6 },
});

const hasWayOut = ({ joined }: JoinedEndpoint): boolean => joined.gateway !== '' || joined.ipv6Gateway !== '';

function byWayOut(a: JoinedEndpoint, b: JoinedEndpoint): number {
  return Number(hasWayOut(b)) - Number(hasWayOut(a)) || (a.networkName < b.networkName ? -1 : 1);
}
