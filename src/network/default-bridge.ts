/** The network `bridge`: what the daemon's settings make of it. */
import type { Config } from '../config/types.ts';
import { invalid } from '../lib/errors.ts';
import { contains, formatAddress, parseAddress, parseSubnet } from '../lib/ip.ts';
import { parseBridgeAddress } from './bridge.ts';
import { parsePool, poolOf } from './pools.ts';
import type { NetworkRecord, Pool } from './types.ts';

export type DefaultBridgeConfig = Pick<
  Config,
  'bip' | 'mtu' | 'fixedCidr' | 'defaultGateway' | 'icc' | 'ip' | 'ipMasq'
>;

/** The subnet that was set; undefined: it is to be chosen. Throws for settings that contradict each other. */
export function configuredPool({ bip, fixedCidr }: DefaultBridgeConfig): Pool | undefined {
  if (bip === '') return fixedCidr === '' ? undefined : poolOf({}, parsePool(fixedCidr), true);
  const pool = parseBridgeAddress(bip);
  return fixedCidr === '' ? pool : within(pool, fixedCidr);
}

function within(pool: Pool, fixedCidr: string): Pool {
  try {
    return poolOf({ ipRange: fixedCidr, gateway: pool.gateway }, parsePool(pool.subnet), true);
  } catch (error) {
    throw invalid(`fixed-cidr ${fixedCidr} is not within the subnet of bip, ${pool.subnet}`, { cause: error });
  }
}

/** What the record of `bridge` has of its own. */
export function defaultBridge(
  config: DefaultBridgeConfig,
  chosen: Pool,
  bridgeName: string,
): Pick<NetworkRecord, 'driver' | 'options' | 'ipam' | 'pools' | 'bridgeName' | 'routeGateway'> {
  const { defaultGateway } = config;
  const pool = defaultGateway === '' ? chosen : aside(chosen, defaultGateway);
  const isNarrowed = pool.range !== pool.subnet;
  const hasReserved = Object.keys(pool.reserved).length > 0;
  return {
    driver: 'bridge',
    options: {
      'com.docker.network.bridge.default_bridge': 'true',
      'com.docker.network.bridge.enable_icc': String(config.icc),
      'com.docker.network.bridge.enable_ip_masquerade': String(config.ipMasq),
      'com.docker.network.bridge.host_binding_ipv4': config.ip,
      'com.docker.network.bridge.name': bridgeName,
      'com.docker.network.driver.mtu': String(config.mtu),
    },
    ipam: {
      driver: 'default',
      options: null,
      config: [
        {
          subnet: pool.subnet,
          ...(isNarrowed ? { ipRange: pool.range } : {}),
          gateway: pool.gateway,
          ...(hasReserved ? { auxiliaryAddresses: pool.reserved } : {}),
        },
      ],
    },
    pools: [pool],
    bridgeName,
    ...(defaultGateway === '' ? {} : { routeGateway: defaultGateway }),
  };
}

/** Containers leave through another gateway than the bridge's own address, which nobody else gets. */
function aside(pool: Pool, defaultGateway: string): Pool {
  const address = parseAddress(defaultGateway);
  const subnet = parseSubnet(pool.subnet);
  if (address?.family !== 4 || subnet === undefined || !contains(subnet, address))
    throw invalid(`default-gateway ${defaultGateway} is not an address of the default bridge's subnet, ${pool.subnet}`);
  const text = formatAddress(address);
  return text === pool.gateway ? pool : { ...pool, reserved: { DefaultGatewayIPv4: text } };
}
