/** Plugins that are processes of their own, spoken to by HTTP: what other parts ask of them. See docs/plugins.md. */

/** What a plugin can be, as it says itself. */
export type Capability = 'VolumeDriver' | 'NetworkDriver' | 'IpamDriver';

/** What a plugin answered: a JSON object with anything in it. */
export type PluginJson = Readonly<Record<string, unknown>>;

export interface CallOptions {
  /** Of one attempt; 60 000 when absent. */
  readonly timeoutMs?: number;
  /** No second attempt when the plugin cannot be reached. */
  readonly once?: boolean;
  /** Something we keep belongs to it: that it cannot be found is waited for like a restart of it. */
  readonly expected?: boolean;
}

export interface Plugins {
  /**
   * Asks a plugin, activating it first where that is due. `method` is `VolumeDriver.Create` and the like.
   * Throws 'not-found' (`plugin "x" not found`), `PluginRefusal` for what it refused or answered wrongly, and
   * `PluginUnreached` when it did not answer, after all attempts.
   */
  call(name: string, method: `${Capability}.${string}`, body: unknown, options?: CallOptions): Promise<PluginJson>;
  /** Throws as `call` does when there is no such plugin, or it is none of that kind. */
  check(name: string, capability: Capability): Promise<void>;
  /** Names of all plugins found that say they are of a kind, sorted. Those that stay silent longer are left out. */
  implementing(capability: Capability, patienceMs: number): Promise<readonly string[]>;
}
