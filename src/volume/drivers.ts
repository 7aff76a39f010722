/** The volume driver protocol of Docker's plugins, one method per question. What plugins answer is checked before it is believed. */
import { messageOf } from '../lib/errors.ts';
import { PluginRefusal } from '../plugin/errors.ts';
import type { CallOptions, PluginJson, Plugins } from '../plugin/types.ts';
import type { Texts } from './types.ts';

/** A volume as its driver tells of it. */
export interface DriverVolume {
  readonly name: string;
  /** Empty while the driver has none. */
  readonly mountpoint: string;
  /** RFC 3339. */
  readonly created: string | undefined;
  readonly status: Readonly<Record<string, unknown>> | undefined;
}

/** As dockerd: what may take long, and what may not. */
const longMs = 120_000;
const shortMs = 60_000;
/** Of questions that go to every driver there is: one that is silent must not hold up the others. */
const askAllMs = 3000;
const volumesMax = 100_000;

export class Drivers {
  readonly #plugins: Plugins;
  readonly #scopes = new Map<string, 'local' | 'global'>();

  constructor(plugins: Plugins) {
    this.#plugins = plugins;
  }

  /** Throws when there is no such volume driver. */
  async check(driver: string): Promise<void> {
    try {
      await this.#plugins.check(driver, 'VolumeDriver');
    } catch (error) {
      if (error instanceof Error) error.message = `error looking up volume plugin ${driver}: ${error.message}`;
      throw error;
    }
  }

  /** Names of all volume drivers that answer. */
  names(): Promise<readonly string[]> {
    return this.#plugins.implementing('VolumeDriver', askAllMs);
  }

  async create(driver: string, name: string, options: Texts | null): Promise<void> {
    await this.#call(driver, 'Create', { Name: name, Opts: options });
  }

  async remove(driver: string, name: string): Promise<void> {
    await this.#call(driver, 'Remove', { Name: name });
  }

  /** Path on the host. `id` is of the mount: each is unmounted once, under the same one. */
  async mount(driver: string, name: string, id: string): Promise<string> {
    // After a reboot the plugin may come up later than the engine.
    const { Mountpoint } = await this.#call(driver, 'Mount', { Name: name, ID: id }, { expected: true });
    if (typeof Mountpoint !== 'string' || !Mountpoint.startsWith('/') || Mountpoint.includes('\0')) {
      throw new PluginRefusal(
        200,
        `VolumeDriver.Mount: the answer has no absolute path: ${JSON.stringify(Mountpoint)}`,
      );
    }
    return Mountpoint;
  }

  async unmount(driver: string, name: string, id: string, options: CallOptions = {}): Promise<void> {
    await this.#call(driver, 'Unmount', { Name: name, ID: id }, options);
  }

  /** Null when the driver says it has none: any error of its own means that. */
  async get(driver: string, name: string, options: CallOptions = {}): Promise<DriverVolume | null> {
    try {
      const { Volume } = await this.#call(driver, 'Get', { Name: name }, { timeoutMs: shortMs, ...options });
      const volume = volumeOf(Volume);
      if (volume === null) return null;
      return volume.mountpoint === '' ? { ...volume, mountpoint: await this.#path(driver, name, options) } : volume;
    } catch (error) {
      if (error instanceof PluginRefusal) return null;
      throw error;
    }
  }

  /** The first driver that has a volume of this name; those that stay silent are passed over. */
  async ownerOf(name: string): Promise<string | undefined> {
    const names = await this.names();
    const once = { timeoutMs: askAllMs, once: true };
    const found = await Promise.all(names.map((driver) => this.get(driver, name, once).catch(() => null)));
    return names.find((_, index) => found[index] !== null);
  }

  /** What all drivers have, and what was wrong with those that did not say. */
  async list(): Promise<{
    readonly volumes: readonly (DriverVolume & { readonly driver: string })[];
    readonly failed: ReadonlyMap<string, string>;
  }> {
    const names = await this.names();
    const failed = new Map<string, string>();
    const lists = await Promise.all(
      names.map(async (driver) => {
        try {
          const { Volumes } = await this.#call(driver, 'List', {}, { timeoutMs: askAllMs, once: true });
          const volumes = Array.isArray(Volumes) ? Volumes.slice(0, volumesMax) : [];
          return volumes.map(volumeOf).flatMap((volume) => (volume === null ? [] : [{ ...volume, driver }]));
        } catch (error) {
          failed.set(driver, `list ${driver}: ${messageOf(error)}`);
          return [];
        }
      }),
    );
    return { volumes: lists.flat(), failed };
  }

  /** Drivers without an opinion are local ones. */
  async scope(driver: string): Promise<'local' | 'global'> {
    const known = this.#scopes.get(driver);
    if (known) return known;
    try {
      const { Capabilities } = await this.#call(driver, 'Capabilities', {}, { timeoutMs: askAllMs, once: true });
      const scope =
        String((Capabilities as PluginJson | undefined)?.Scope ?? '').toLowerCase() === 'global' ? 'global' : 'local';
      this.#scopes.set(driver, scope);
      return scope;
    } catch (error) {
      // One of the first protocol has no such method; one that cannot be reached is asked again.
      if (error instanceof PluginRefusal) this.#scopes.set(driver, 'local');
      return 'local';
    }
  }

  /** Without asking. */
  knownScope(driver: string): 'local' | 'global' {
    return this.#scopes.get(driver) ?? 'local';
  }

  async #path(driver: string, name: string, options: CallOptions): Promise<string> {
    try {
      const { Mountpoint } = await this.#call(driver, 'Path', { Name: name }, { timeoutMs: shortMs, ...options });
      return textOf(Mountpoint);
    } catch (error) {
      if (error instanceof PluginRefusal) return '';
      throw error;
    }
  }

  #call(driver: string, method: string, body: unknown, options: CallOptions = {}): Promise<PluginJson> {
    return this.#plugins.call(driver, `VolumeDriver.${method}`, body, { timeoutMs: longMs, ...options });
  }
}

const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');

function volumeOf(value: unknown): DriverVolume | null {
  if (typeof value !== 'object' || value === null) return null;
  const { Name, Mountpoint, CreatedAt, Status } = value as PluginJson;
  if (typeof Name !== 'string' || Name === '') return null;
  const isObject = typeof Status === 'object' && Status !== null && !Array.isArray(Status);
  return {
    name: Name,
    mountpoint: textOf(Mountpoint),
    created: typeof CreatedAt === 'string' && !Number.isNaN(Date.parse(CreatedAt)) ? CreatedAt : undefined,
    status: isObject ? (Status as PluginJson) : undefined,
  };
}
