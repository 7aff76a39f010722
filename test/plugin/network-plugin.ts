/**
 * A network and IPAM driver: each network is a bridge of its own with the gateway's address, each endpoint a veth pair. Its pools are
 * 10.77.N.0/24 and fd77:N::/64, its addresses are given in order; what it knows is in files.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { serve } from './plugin-server.ts';

const file = path.join(process.argv[2] ?? '', 'known.json');
interface Known {
  networks: Record<string, { bridge: string; gateway: string }>;
  endpoints: Record<string, string>;
  pools: Record<string, { pool: string; addresses: string[] }>;
}
const read = (): Known =>
  fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : { networks: {}, endpoints: {}, pools: {} };
function change<T>(work: (known: Known) => T): T {
  const known = read();
  const result = work(known);
  fs.writeFileSync(file, JSON.stringify(known));
  return result;
}
const ip = (...words: string[]): void => void execFileSync('ip', words, { stdio: 'pipe' });
const short = (id: unknown): string => String(id).slice(0, 8);
const isThere = (link: string): boolean => fs.existsSync(`/proc/sys/net/ipv4/conf/${link}`);

serve(['NetworkDriver', 'IpamDriver'], {
  'NetworkDriver.GetCapabilities': () => ({ Scope: 'local', ConnectivityScope: 'local' }),
  'NetworkDriver.CreateNetwork': ({ NetworkID, IPv4Data, IPv6Data }) => {
    const bridge = `tb${short(NetworkID)}`;
    ip('link', 'add', bridge, 'type', 'bridge');
    const data = [...(IPv4Data as { Gateway?: string }[]), ...(IPv6Data as { Gateway?: string }[])];
    for (const { Gateway } of data) if (Gateway) ip('address', 'add', Gateway, 'dev', bridge, 'nodad');
    ip('link', 'set', bridge, 'up');
    change((known) => {
      known.networks[String(NetworkID)] = { bridge, gateway: (data[0]?.Gateway ?? '').replace(/\/.*/, '') };
    });
    return {};
  },
  'NetworkDriver.DeleteNetwork': ({ NetworkID }) => {
    const bridge = change((known) => {
      const found = known.networks[String(NetworkID)]?.bridge;
      delete known.networks[String(NetworkID)];
      return found;
    });
    if (bridge === undefined) throw new Error('no such network');
    ip('link', 'del', bridge);
    return {};
  },
  'NetworkDriver.CreateEndpoint': ({ NetworkID, EndpointID, Interface }) => {
    const { Address, MacAddress } = Interface as { Address: string; MacAddress: string };
    if (!read().networks[String(NetworkID)]) throw new Error('no such network');
    change((known) => {
      known.endpoints[String(EndpointID)] = Address;
    });
    const chosen = {
      ...(Address ? {} : { Address: '10.99.0.7/24' }),
      ...(MacAddress ? {} : { MacAddress: '02:aa:bb:cc:dd:ee' }),
    };
    return { Interface: chosen };
  },
  'NetworkDriver.EndpointOperInfo': () => ({ Value: { anything: 'goes' } }),
  'NetworkDriver.DeleteEndpoint': ({ EndpointID }) => {
    change((known) => delete known.endpoints[String(EndpointID)]);
    const link = `ti${short(EndpointID)}`;
    if (isThere(link)) ip('link', 'del', link);
    return {};
  },
  'NetworkDriver.Join': ({ NetworkID, EndpointID, SandboxKey }) => {
    if (!fs.existsSync(String(SandboxKey))) throw new Error('no sandbox');
    const { bridge = '', gateway = '' } = read().networks[String(NetworkID)] ?? {};
    const [outside, inside] = [`to${short(EndpointID)}`, `ti${short(EndpointID)}`];
    ip('link', 'add', outside, 'type', 'veth', 'peer', 'name', inside);
    ip('link', 'set', outside, 'master', bridge, 'up');
    return {
      InterfaceName: { SrcName: inside, DstPrefix: 'plug' },
      ...(gateway ? { Gateway: gateway } : {}),
      StaticRoutes: [
        { Destination: '10.201.0.0/16', RouteType: 1 },
        ...(gateway ? [{ Destination: '10.200.0.0/16', RouteType: 0, NextHop: gateway }] : []),
      ],
    };
  },
  'NetworkDriver.Leave': () => ({}),
  'NetworkDriver.ProgramExternalConnectivity': () => ({}),
  'NetworkDriver.RevokeExternalConnectivity': () => ({}),

  'IpamDriver.GetCapabilities': () => ({ RequiresMACAddress: true, RequiresRequestReplay: true }),
  'IpamDriver.GetDefaultAddressSpaces': () => ({
    LocalDefaultAddressSpace: 'here',
    GlobalDefaultAddressSpace: 'there',
  }),
  'IpamDriver.RequestPool': ({ Pool, V6 }) =>
    change((known) => {
      let number = 1;
      const poolOf = () => String(Pool) || (V6 ? `fd77:${number}::/64` : `10.77.${number}.0/24`);
      const own = Object.entries(known.pools).find(([, { pool }]) => pool === Pool);
      if (own) return { PoolID: own[0], Pool, Data: {} };
      while (Object.values(known.pools).some(({ pool }) => pool === poolOf())) number++;
      const PoolID = `here/${poolOf()}`;
      known.pools[PoolID] = { pool: poolOf(), addresses: [] };
      return { PoolID, Pool: poolOf(), Data: {} };
    }),
  'IpamDriver.ReleasePool': ({ PoolID }) =>
    change((known) => {
      if (!known.pools[String(PoolID)]) throw new Error('no such pool');
      delete known.pools[String(PoolID)];
      return {};
    }),
  'IpamDriver.RequestAddress': ({ PoolID, Address }) =>
    change((known) => {
      const found = known.pools[String(PoolID)];
      if (!found) throw new Error('no such pool');
      const [base = '', length = ''] = found.pool.split('/');
      const at = (number: number) =>
        base.includes(':') ? `${base}${number.toString(16)}` : base.replace(/\.0$/, `.${number}`);
      let number = 1;
      while (found.addresses.includes(at(number))) number++;
      const address = String(Address) || at(number);
      if (!found.addresses.includes(address)) found.addresses.push(address);
      return { Address: `${address}/${length}`, Data: {} };
    }),
  'IpamDriver.ReleaseAddress': ({ PoolID, Address }) =>
    change((known) => {
      const found = known.pools[String(PoolID)];
      if (!found?.addresses.includes(String(Address))) throw new Error('no such address');
      found.addresses = found.addresses.filter((each) => each !== Address);
      return {};
    }),
});
