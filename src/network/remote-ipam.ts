/** Pools and addresses that IPAM plugins give: asked for, given back, told again. */
import { formatAddress, parseAddress, parseCidr } from '../lib/ip.ts';
import type { RemoteCalls } from './remote-calls.ts';
import type { Endpoint, IpamConfig, Joined, NetworkRecord, NetworkRequest, Pool } from './types.ts';

export interface HeldAddress {
  readonly poolId: string;
  readonly address: string;
}

/** Does what may fail without harm; false when the plugin did not answer. */
type Quietly = (plugin: string, work: () => Promise<unknown>) => Promise<boolean>;

export class RemoteIpams {
  readonly #calls: RemoteCalls;
  readonly #quietly: Quietly;

  constructor(calls: RemoteCalls, quietly: Quietly) {
    this.#calls = calls;
    this.#quietly = quietly;
  }

  /** With gateways and auxiliary addresses, which the plugin holds from here on. A failure leaves nothing behind. */
  async requestPools({ ipam, enableIPv6 }: NetworkRequest): Promise<readonly Pool[]> {
    const { driver } = ipam;
    const space = await this.#calls.addressSpace(driver);
    const isV6 = ({ subnet }: IpamConfig): boolean => subnet?.includes(':') === true;
    const asked: (IpamConfig & { readonly v6: boolean })[] = ipam.config.map((each) => ({ ...each, v6: isV6(each) }));
    if (!asked.some(({ v6 }) => !v6)) asked.unshift({ v6: false });
    if (enableIPv6 && !asked.some(({ v6 }) => v6)) asked.push({ v6: true });
    const pools: Pool[] = [];
    try {
      for (const config of asked) {
        const { poolId, subnet, gateway } = await this.#calls.requestPool(driver, {
          AddressSpace: space,
          Pool: config.subnet ?? '',
          SubPool: config.ipRange ?? '',
          Options: ipam.options ?? {},
          V6: config.v6,
        });
        const reserved = config.auxiliaryAddresses ?? {};
        const bare = { subnet, range: config.ipRange || subnet, gateway, reserved: {}, poolId, addressSpace: space };
        // In the list at each step with what is held so far: that is what a failure gives back.
        const at = pools.push(bare) - 1;
        const held = { ...bare, gateway: gateway || (await this.#gateway(driver, poolId, config.gateway ?? '')) };
        pools[at] = held;
        for (const [name, address] of Object.entries(reserved)) {
          await this.#calls.requestAddress(driver, poolId, address, {});
          pools[at] = { ...held, reserved: { ...pools[at]?.reserved, [name]: address } };
        }
      }
      return pools;
    } catch (error) {
      await this.releasePools(driver, pools);
      throw error;
    }
  }

  async releasePools(driver: string, pools: readonly Pool[]): Promise<void> {
    for (const { poolId: PoolID, gateway, reserved } of pools) {
      if (PoolID === undefined) continue;
      for (const Address of [gateway, ...Object.values(reserved)].filter(Boolean))
        await this.#quietly(driver, () => this.#calls.ipam(driver, 'ReleaseAddress', { PoolID, Address }));
      await this.#quietly(driver, () => this.#calls.ipam(driver, 'ReleasePool', { PoolID }));
    }
  }

  /** Of each family that the network has. A failure leaves nothing behind. */
  async requestAddresses(
    driver: string,
    { pools, internal }: NetworkRecord,
    { requested }: Endpoint,
    { mac }: Joined,
  ): Promise<{ readonly addresses: readonly HeldAddress[]; readonly changes: Partial<Joined> }> {
    const { needsMac } = await this.#calls.ipamCapabilities(driver);
    const options = needsMac ? { 'com.docker.network.endpoint.macaddress': mac } : {};
    const addresses: HeldAddress[] = [];
    let changes: Partial<Joined> = {};
    try {
      for (const family of [4, 6] as const) {
        const pool = pools.find(({ subnet }) => subnet.includes(':') === (family === 6));
        if (pool?.poolId === undefined) continue;
        const wish = parseAddress((family === 4 ? requested.ipv4 : requested.ipv6) || '');
        const cidr = await this.#calls.requestAddress(driver, pool.poolId, wish ? formatAddress(wish) : '', options);
        addresses.push({ poolId: pool.poolId, address: cidr.replace(/\/\d+$/, '') });
        const gateway = internal ? '' : pool.gateway;
        changes = {
          ...changes,
          ...addressed(cidr, family),
          ...(family === 4 ? { gateway } : { ipv6Gateway: gateway }),
        };
      }
      return { addresses, changes };
    } catch (error) {
      await this.releaseAddresses(driver, addresses);
      throw error;
    }
  }

  /** False when the plugin did not answer for one of them. */
  async releaseAddresses(driver: string, addresses: readonly HeldAddress[]): Promise<boolean> {
    let isFree = true;
    for (const { poolId: PoolID, address: Address } of addresses) {
      const release = () => this.#calls.ipam(driver, 'ReleaseAddress', { PoolID, Address });
      isFree = (await this.#quietly(driver, release)) && isFree;
    }
    return isFree;
  }

  /** Tells a plugin that wants it what a network and its containers hold. */
  async replay({ ipam, pools }: NetworkRecord, held: readonly HeldAddress[]): Promise<void> {
    const { driver, options } = ipam;
    if (!(await this.#calls.ipamCapabilities(driver)).needsReplay) return;
    const AddressSpace = await this.#calls.addressSpace(driver);
    for (const { subnet, range, gateway, reserved, poolId } of pools) {
      if (poolId === undefined) continue;
      const SubPool = range === subnet ? '' : range;
      const V6 = subnet.includes(':');
      await this.#calls.requestPool(driver, { AddressSpace, Pool: subnet, SubPool, Options: options ?? {}, V6 });
      if (gateway !== '') await this.#gateway(driver, poolId, gateway);
      const own = held.filter((each) => each.poolId === poolId).map(({ address }) => address);
      for (const address of [...Object.values(reserved), ...own])
        await this.#calls.requestAddress(driver, poolId, address, {});
    }
  }

  async #gateway(driver: string, poolId: string, wanted: string): Promise<string> {
    const options = { RequestAddressType: 'com.docker.network.gateway' };
    const plain = wanted.replace(/\/\d+$/, '');
    return (await this.#calls.requestAddress(driver, poolId, plain, options)).replace(/\/\d+$/, '');
  }
}

/** What a CIDR says about an endpoint; nothing when it is empty. */
export function addressed(cidr: string, family: 4 | 6): Partial<Joined> {
  const parsed = parseCidr(cidr);
  if (parsed === undefined) return {};
  const text = formatAddress(parsed.address);
  const { prefixLength } = parsed;
  return family === 4 ? { ipv4: text, ipv4PrefixLength: prefixLength } : { ipv6: text, ipv6PrefixLength: prefixLength };
}
