/** Network and IPAM drivers that are plugins: the methods of libnetwork's remote protocols, with what they answer checked. */
import { EngineError, messageOf } from '../lib/errors.ts';
import { formatAddress, formatSubnet, parseAddress, parseCidr, parseSubnet, subnetOf } from '../lib/ip.ts';
import { PluginRefusal } from '../plugin/errors.ts';
import type { CallOptions, PluginJson, Plugins } from '../plugin/types.ts';
import type { NetworkRecord, Pool } from './types.ts';

const timeoutMs = 30_000;
/** Interfaces have names of 15 bytes at most. */
const linkName = /^[^\s/:\0]{1,15}$/;

export interface RemoteRoute {
  /** CIDR. */
  readonly destination: string;
  /** Empty: on the interface itself. */
  readonly nextHop: string;
}

/** What a network driver answers to a join. */
export interface RemoteJoin {
  /** Name on the host; empty: the driver brings no interface. */
  readonly source: string;
  readonly prefix: string;
  readonly gateway: string;
  readonly ipv6Gateway: string;
  readonly routes: readonly RemoteRoute[];
}

/** Addresses as CIDR, empty where there is none. */
export interface RemoteInterface {
  readonly Address: string;
  readonly AddressIPv6: string;
  readonly MacAddress: string;
}

export type Options = Readonly<Record<string, unknown>>;

export class RemoteCalls {
  readonly #plugins: Plugins;

  constructor(plugins: Plugins) {
    this.#plugins = plugins;
  }

  // Network drivers

  /** Throws when there is no such driver. */
  async scope(driver: string): Promise<'local' | 'global'> {
    await this.#plugins.check(driver, 'NetworkDriver');
    const { Scope } = await this.network(driver, 'GetCapabilities', {});
    if (Scope === 'local' || Scope === 'global') return Scope;
    throw new PluginRefusal(200, `invalid capability: expecting 'local' or 'global', got ${String(Scope)}`);
  }

  network(driver: string, method: string, body: unknown, options: CallOptions = {}): Promise<PluginJson> {
    return this.#call(driver, `NetworkDriver.${method}`, body, options);
  }

  /** A method that drivers need not have. */
  async optional(driver: string, method: string, body: unknown): Promise<void> {
    await this.network(driver, method, body).catch((error: unknown) => {
      if (!(error instanceof PluginRefusal && error.status === 404)) throw error;
    });
  }

  async createNetwork({ id, driver, options, internal, enableIPv6, pools, ipam }: NetworkRecord): Promise<void> {
    const dataOf = (isV6: boolean) => pools.filter(({ subnet }) => subnet.includes(':') === isV6).map(ipamData);
    const nothing = { AddressSpace: 'null', Pool: '0.0.0.0/0' };
    await this.network(driver, 'CreateNetwork', {
      NetworkID: id,
      Options: {
        'com.docker.network.enable_ipv6': enableIPv6,
        'com.docker.network.generic': options,
        ...(internal ? { 'com.docker.network.internal': true } : {}),
      },
      IPv4Data: ipam.driver === 'null' ? [nothing] : dataOf(false),
      IPv6Data: dataOf(true),
    });
  }

  /** What the driver chose itself, of what it was not given. */
  async createEndpoint(
    driver: string,
    place: { readonly NetworkID: string; readonly EndpointID: string },
    given: RemoteInterface,
    options: Options,
  ): Promise<RemoteInterface> {
    const answer = await this.network(driver, 'CreateEndpoint', { ...place, Options: options, Interface: given });
    const chosen = (typeof answer.Interface === 'object' && answer.Interface) || {};
    const take = (key: keyof RemoteInterface, isRight: (value: string) => boolean): string => {
      const value = (chosen as PluginJson)[key] ?? '';
      if (value === '') return given[key];
      if (typeof value !== 'string' || !isRight(value)) throw wrong('CreateEndpoint', key, value);
      if (given[key] !== '' && given[key] !== value)
        throw new PluginRefusal(200, `the driver changes ${key} from ${given[key]} to ${value}`);
      return value;
    };
    return {
      Address: take('Address', (value) => parseCidr(value)?.address.family === 4),
      AddressIPv6: take('AddressIPv6', (value) => parseCidr(value)?.address.family === 6),
      MacAddress: take('MacAddress', (value) => /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(value)),
    };
  }

  async join(
    driver: string,
    place: { readonly NetworkID: string; readonly EndpointID: string },
    sandboxKey: string,
    options: Options,
  ): Promise<RemoteJoin> {
    const answer = await this.network(driver, 'Join', { ...place, SandboxKey: sandboxKey, Options: options });
    const { SrcName = '', DstPrefix = '' } = (answer.InterfaceName ?? {}) as PluginJson;
    if (typeof SrcName !== 'string' || (SrcName !== '' && !linkName.test(SrcName)))
      throw wrong('Join', 'SrcName', SrcName);
    if (typeof DstPrefix !== 'string' || (DstPrefix !== '' && !/^[\w.-]{1,12}$/.test(DstPrefix)))
      throw wrong('Join', 'DstPrefix', DstPrefix);
    const address = (key: string, family: 4 | 6): string => {
      const value = answer[key] ?? '';
      if (value === '') return '';
      const parsed = typeof value === 'string' ? parseAddress(value) : undefined;
      if (parsed?.family !== family) throw wrong('Join', key, value);
      return formatAddress(parsed);
    };
    return {
      source: SrcName,
      prefix: DstPrefix || 'eth',
      gateway: address('Gateway', 4),
      ipv6Gateway: address('GatewayIPv6', 6),
      routes: routesOf(answer.StaticRoutes),
    };
  }

  // IPAM drivers

  async ipam(driver: string, method: string, body: unknown, options: CallOptions = {}): Promise<PluginJson> {
    return this.#call(driver, `IpamDriver.${method}`, body, options);
  }

  /** Throws when there is no such driver. */
  async addressSpace(driver: string): Promise<string> {
    await this.#plugins.check(driver, 'IpamDriver');
    const { LocalDefaultAddressSpace: space } = await this.ipam(driver, 'GetDefaultAddressSpaces', {});
    return typeof space === 'string' ? space : '';
  }

  /** Drivers from before capabilities have none. */
  async ipamCapabilities(driver: string): Promise<{ readonly needsMac: boolean; readonly needsReplay: boolean }> {
    const answer: PluginJson = await this.ipam(driver, 'GetCapabilities', {}).catch((error: unknown) => {
      if (error instanceof PluginRefusal) return {};
      throw error;
    });
    return { needsMac: answer.RequiresMACAddress === true, needsReplay: answer.RequiresRequestReplay === true };
  }

  async requestPool(driver: string, body: PluginJson): Promise<{ poolId: string; subnet: string; gateway: string }> {
    const { PoolID, Pool: pool, Data } = await this.ipam(driver, 'RequestPool', body);
    const subnet = typeof pool === 'string' ? parseSubnet(pool) : undefined;
    if (typeof PoolID !== 'string' || PoolID === '') throw wrong('RequestPool', 'PoolID', PoolID);
    if (subnet === undefined) throw wrong('RequestPool', 'Pool', pool);
    const gateway = ((Data ?? {}) as PluginJson)['com.docker.network.gateway'];
    const parsed = typeof gateway === 'string' ? parseCidr(gateway) : undefined;
    return { poolId: PoolID, subnet: formatSubnet(subnet), gateway: parsed ? formatAddress(parsed.address) : '' };
  }

  /** A CIDR. An address asked for is empty for any. */
  async requestAddress(driver: string, poolId: string, address: string, options: Options): Promise<string> {
    const body = { PoolID: poolId, Address: address, Options: options };
    const { Address } = await this.ipam(driver, 'RequestAddress', body);
    const parsed = typeof Address === 'string' ? parseCidr(Address) : undefined;
    if (parsed === undefined) throw wrong('RequestAddress', 'Address', Address);
    if (address !== '' && formatAddress(parsed.address) !== address)
      throw new PluginRefusal(200, `the driver gives ${String(Address)} where ${address} was asked for`);
    return `${formatAddress(parsed.address)}/${parsed.prefixLength}`;
  }

  async #call(
    name: string,
    method: `NetworkDriver.${string}` | `IpamDriver.${string}`,
    body: unknown,
    options: CallOptions,
  ) {
    try {
      // Whether there is such a plugin was checked before anything was made of it.
      return await this.#plugins.call(name, method, body, { timeoutMs, expected: true, ...options });
    } catch (error) {
      // As libnetwork tells them.
      if (error instanceof PluginRefusal && error.status === 200 && !error.message.startsWith(method))
        error.message = `remote: ${error.message}`;
      throw error;
    }
  }
}

const wrong = (method: string, what: string, value: unknown): EngineError =>
  new PluginRefusal(200, `${method}: the driver's ${what} makes no sense: ${JSON.stringify(value)}`);

function ipamData({ subnet, gateway, reserved, addressSpace = 'LocalDefault' }: Pool) {
  const length = subnet.split('/')[1];
  const aux = Object.entries(reserved).map(([name, address]) => [name, `${address}/${length}`]);
  return {
    AddressSpace: addressSpace,
    Pool: subnet,
    ...(gateway === '' ? {} : { Gateway: `${gateway}/${length}` }),
    ...(aux.length === 0 ? {} : { AuxAddresses: Object.fromEntries(aux) }),
  };
}

const routesMax = 1000;

/** `RouteType` 0 goes by a next hop, 1 is on the interface. */
function routesOf(value: unknown): readonly RemoteRoute[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || value.length > routesMax) throw wrong('Join', 'StaticRoutes', value);
  return value.map((each: unknown) => {
    const { Destination, RouteType = 0, NextHop = '' } = (each ?? {}) as PluginJson;
    const cidr = typeof Destination === 'string' ? parseCidr(Destination) : undefined;
    const hop = typeof NextHop === 'string' ? parseAddress(NextHop) : undefined;
    const isRight = RouteType === 1 ? true : RouteType === 0 && hop?.family === cidr?.address.family;
    if (cidr === undefined || !isRight) throw wrong('Join', 'StaticRoutes', each);
    const destination = formatSubnet(subnetOf(cidr.address, cidr.prefixLength));
    return { destination, nextHop: RouteType === 1 || hop === undefined ? '' : formatAddress(hop) };
  });
}

export const failed = (what: string, error: unknown): EngineError =>
  new EngineError(error instanceof EngineError ? error.kind : 'internal', `${what}: ${messageOf(error)}`, {
    cause: error,
  });
