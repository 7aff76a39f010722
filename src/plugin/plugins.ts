/**
 * Asks plugins, as Docker's "Docker Plugin API" says: found when first asked for, activated by a handshake, asked again with
 * growing pauses while they cannot be reached. Each call stands alone: what a plugin does wrong reaches its caller only.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { notFound } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { findPlugin, listPlugins, type PluginPlaces } from './discovery.ts';
import { PluginRefusal, PluginUnreached } from './errors.ts';
import { type Address, ask, type PluginAnswer } from './transport.ts';
import type { CallOptions, Capability, PluginJson, Plugins } from './types.ts';

export interface PluginsOptions {
  readonly places: PluginPlaces;
  readonly log: Log;
  /** Between attempts; dockerd's, 15 seconds in all. */
  readonly pausesMs?: readonly number[];
}

const pausesDefault = [1000, 2000, 4000, 8000];
const activationMs = 10_000;
const callMs = 60_000;
/** So long a plugin that stayed silent is not asked by those who ask all. */
const silenceMs = 60_000;
const textMax = 2000;

interface Active {
  readonly identity: string;
  readonly address: Address;
  readonly implements: ReadonlySet<string>;
}

export function createPlugins(options: PluginsOptions): Plugins {
  return new HostPlugins(options);
}

class HostPlugins implements Plugins {
  readonly #options: PluginsOptions;
  readonly #active = new Map<string, Active>();
  /** Handshakes under way, by name and identity: however many wait, a plugin is asked once. */
  readonly #activating = new Map<string, Promise<Active>>();
  /** Name → when its silence is forgiven, of `performance.now()`. */
  readonly #silent = new Map<string, number>();

  constructor(options: PluginsOptions) {
    this.#options = options;
  }

  async call(name: string, method: `${Capability}.${string}`, body: unknown, options: CallOptions = {}) {
    const { timeoutMs = callMs } = options;
    const capability = method.slice(0, method.indexOf('.'));
    const text = JSON.stringify(body);
    return this.#withPauses(name, options, async () => {
      const { address } = await this.#activated(name, capability, options.expected === true);
      return understood(method, await this.#ask(name, address, method, text, timeoutMs));
    });
  }

  async check(name: string, capability: Capability): Promise<void> {
    await this.#withPauses(name, {}, () => this.#activated(name, capability, false));
  }

  async implementing(capability: Capability, patienceMs: number): Promise<readonly string[]> {
    const names = listPlugins(this.#options.places);
    const answers = await Promise.all(
      names.map(async (name) => {
        if ((this.#silent.get(name) ?? 0) > performance.now()) return false;
        const activated = this.#activated(name, capability, false).then(
          () => true,
          () => false,
        );
        return Promise.race([activated, sleep(patienceMs, false, { ref: false })]);
      }),
    );
    return names.filter((_, index) => answers[index]);
  }

  async #withPauses<T>(name: string, { once }: CallOptions, attempt: () => Promise<T>): Promise<T> {
    const pauses = once === true ? [] : (this.#options.pausesMs ?? pausesDefault);
    for (const pause of pauses) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof PluginUnreached) || error.timedOut) throw error;
        this.#options.log.warn({ plugin: name, pause }, `a plugin cannot be reached: ${error.message}`);
        await sleep(pause);
      }
    }
    return attempt();
  }

  async #activated(name: string, capability: string, expected: boolean): Promise<Active> {
    const found = findPlugin(this.#options.places, name);
    if (found === undefined) {
      // One that was there may be about to come back.
      if (expected || this.#active.has(name))
        throw new PluginUnreached(`plugin ${JSON.stringify(name)} not found`, false);
      throw notFound(`plugin ${JSON.stringify(name)} not found`);
    }
    const known = this.#active.get(name);
    const active = known?.identity === found.identity ? known : await this.#activate(name, found);
    if (!active.implements.has(capability)) {
      throw new PluginRefusal(404, 'legacy plugin: Plugin does not implement the requested driver');
    }
    return active;
  }

  #activate(name: string, { address, identity }: { readonly address: Address; readonly identity: string }) {
    const key = `${name} ${identity}`;
    const under = this.#activating.get(key);
    if (under) return under;
    const method = 'Plugin.Activate';
    const handshake = this.#ask(name, address, method, '', activationMs)
      .then((answer): Active => {
        const { Implements: kinds } = understood(method, answer);
        const names = Array.isArray(kinds) ? kinds.filter((kind) => typeof kind === 'string') : [];
        const active = { identity, address, implements: new Set(names) };
        this.#active.set(name, active);
        this.#options.log.info({ plugin: name, implements: names }, 'a plugin was activated');
        return active;
      })
      .finally(() => this.#activating.delete(key));
    this.#activating.set(key, handshake);
    return handshake;
  }

  async #ask(name: string, address: Address, method: string, body: string, timeoutMs: number): Promise<PluginAnswer> {
    try {
      const answer = await ask(address, method, body, timeoutMs);
      this.#silent.delete(name);
      return answer;
    } catch (error) {
      if (!(error instanceof PluginUnreached)) throw error;
      if (error.timedOut) this.#silent.set(name, performance.now() + silenceMs);
      throw new PluginUnreached(`plugin ${JSON.stringify(name)}: ${error.message}`, error.timedOut, { cause: error });
    }
  }
}

/** The object in an answer. What the plugin complains about is thrown in its words; behind the method's name when it says so by its status. */
function understood(method: string, { status, text }: PluginAnswer): PluginJson {
  const body = parsed(text);
  const complaint = typeof body?.Err === 'string' ? body.Err : '';
  if (status !== 200) throw new PluginRefusal(status, `${method}: ${complaint || text.trim().slice(0, textMax)}`);
  if (complaint !== '') throw new PluginRefusal(status, complaint.slice(0, textMax));
  if (body === null) throw new PluginRefusal(status, `${method}: the answer is no JSON object`);
  return body;
}

/** Null for what is no object; nothing at all is an empty one. */
function parsed(text: string): PluginJson | null {
  if (text.trim() === '') return {};
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as PluginJson) : null;
  } catch {
    return null;
  }
}
