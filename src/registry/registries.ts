/** The door to registries: who is asked for a name, in what order, with which credentials. */
import { createHash } from 'node:crypto';
import type { Credentials } from '../image/types.ts';
import { type Endpoint, type EndpointSettings, endpointsOf, hubDomain, isInsecure } from './endpoint.ts';
import { Repository } from './repository.ts';
import { Server } from './server.ts';
import { Transport } from './transport.ts';

export interface RegistriesOptions {
  /** Read at each use, so that a reload counts. */
  readonly settings: () => EndpointSettings;
  readonly certificateDirectories?: readonly string[];
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** First pause before a repetition, in milliseconds. */
  readonly backOffMs?: number;
  /** Milliseconds without a byte after which a connection is given up. */
  readonly idleMs?: number;
}

export const certificateDirectories = ['/etc/docker/certs.d', '/etc/slipway/certs.d'] as const;

const serversMax = 32;
const serverAgeMsMax = 5 * 60_000;

export class Registries {
  readonly #options: RegistriesOptions;
  readonly #transport: Transport;
  readonly backOffMs: number;
  /** Found servers with their tokens. Keyed by a digest, so that no secret is kept as a key. */
  readonly #servers = new Map<string, { readonly server: Server; readonly bornMs: number }>();

  constructor(options: RegistriesOptions) {
    this.#options = options;
    this.backOffMs = options.backOffMs ?? 500;
    this.#transport = new Transport({
      certificateDirectories: options.certificateDirectories ?? certificateDirectories,
      environment: options.environment ?? process.env,
      idleMs: options.idleMs ?? 60_000,
    });
  }

  /** Servers that may have what is named under `domain`, in the order to try them: mirrors first, the registry last. */
  async servers(domain: string, credentials: Credentials | null): Promise<readonly [...Server[], Server]> {
    const endpoints = await endpointsOf(domain, this.#options.settings());
    return endpoints.map((endpoint) => this.#server(endpoint, credentials)) as [...Server[], Server];
  }

  /** The registry itself: for pushes and log-ins. */
  async registry(domain: string, credentials: Credentials | null): Promise<Server> {
    const servers = await this.servers(domain, credentials);
    return servers.at(-1) as Server;
  }

  /** All tags of a repository, from the first server that tells them. */
  async tags(
    domain: string,
    path: string,
    credentials: Credentials | null,
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const servers = await this.servers(domain, credentials);
    for (const server of servers.slice(0, -1)) {
      try {
        return await new Repository(server, path, 'pull').tags(signal);
      } catch {
        signal.throwIfAborted();
      }
    }
    return await new Repository(servers.at(-1) as Server, path, 'pull').tags(signal);
  }

  #server(endpoint: Endpoint, credentials: Credentials | null): Server {
    const now = performance.now();
    const key = createHash('sha256')
      .update(JSON.stringify([endpoint, credentials]))
      .digest('base64');
    const known = this.#servers.get(key);
    if (known && now - known.bornMs < serverAgeMsMax) return known.server;
    this.#servers.delete(key);
    const server = this.#make(endpoint, credentials);
    this.#servers.set(key, { server, bornMs: now });
    const [oldest] = this.#servers.keys();
    if (oldest !== undefined && this.#servers.size > serversMax) this.#servers.delete(oldest);
    return server;
  }

  #make(endpoint: Endpoint, credentials: Credentials | null): Server {
    return new Server({
      endpoint,
      credentials,
      transport: this.#transport,
      backOffMs: this.backOffMs,
      isInsecure: (host) => isInsecure(host, this.#options.settings().insecureRegistries),
    });
  }

  /** `POST /auth`. Throws kind `unauthorized` when the registry refuses the credentials. */
  async login(credentials: Credentials, signal: AbortSignal): Promise<{ Status: string; IdentityToken: string }> {
    const domain = loginDomain(credentials.serveraddress ?? '');
    const [endpoint] = (await endpointsOf(domain, this.#options.settings())).slice(-1) as [Endpoint];
    // A server of its own: a log-in must ask the registry, not remember an earlier token.
    const server = this.#make(endpoint, credentials);
    return { Status: 'Login Succeeded', IdentityToken: await server.logIn(signal) };
  }

  /** Ends all connections. */
  close(): Promise<void> {
    return this.#transport.close();
  }
}

/** The domain a `serveraddress` means: `https://index.docker.io/v1/` and nothing are the hub, `https://host/v2/` is the host. */
function loginDomain(address: string): string {
  const host = address.replace(/^https?:\/\//, '').split('/', 1)[0] ?? '';
  return ['', 'index.docker.io', 'registry-1.docker.io', hubDomain].includes(host) ? hubDomain : host;
}
