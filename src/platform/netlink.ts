/**
 * Links, addresses and routes of a network namespace, by rtnetlink(7): messages built by hand, no child process.
 *
 * A socket belongs for ever to the namespace it was opened in, whatever the calling thread does afterwards. So work inside a
 * container's namespace needs no more than `Netlink.openIn(path)`; every later call is an ordinary system call.
 */
import { randomInt } from 'node:crypto';
import { type Address, addressOfBytes, bytesOf, type Family, type Subnet } from '../lib/ip.ts';
import { isErrno } from './libc.ts';
import { inNamespace } from './namespace.ts';
import { attribute, attributes, NetlinkSocket, NLA_F_NESTED, NLM_F, nested, text, uint32 } from './netlink-socket.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const AF_UNSPEC = 0;
const NETLINK_ROUTE = 0;

const RTM = {
  NEWLINK: 16,
  DELLINK: 17,
  GETLINK: 18,
  NEWADDR: 20,
  DELADDR: 21,
  GETADDR: 22,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
};
const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  LINK: 5,
  MASTER: 10,
  LINKINFO: 18,
  STATS64: 23,
  GROUP: 27,
  NET_NS_FD: 28,
} as const;
const IFLA_INFO = { KIND: 1, DATA: 2 } as const;
const IFLA_INFO_SLAVE = { KIND: 4, DATA: 5 } as const;
const IFLA_BRPORT = { MODE: 4, ISOLATED: 33 } as const;
const IFLA_MACVLAN_MODE = 1;
const IFLA_VLAN_ID = 1;
const VETH_INFO_PEER = 1;
const IFA = { ADDRESS: 1, LOCAL: 2, BROADCAST: 4 } as const;
/** No duplicate address detection: an IPv6 address can be used at once. */
const IFA_F_NODAD = 2;
const RTA = { DST: 1, OIF: 4, GATEWAY: 5, TABLE: 15 } as const;
const RT_TABLE_MAIN = 254;
const RTPROT_BOOT = 3;
const RT_SCOPE_LINK = 253;
const RTN_UNICAST = 1;
const IFF_UP = 1;

/**
 * Group of links about to be removed. Another one each time, from a number that other processes do not begin with: what a killed
 * engine has put into a group and left there goes with nobody else's.
 */
let nextRemovalGroup = randomInt(2 ** 24, 2 ** 30);

export interface Link {
  readonly index: number;
  readonly name: string;
  /** `aa:bb:cc:dd:ee:ff`; empty when the link has none. */
  readonly mac: string;
  readonly up: boolean;
  readonly mtu: number;
  /** Index of the bridge it is a port of; 0: none. */
  readonly master: number;
  /** `bridge`, `veth`, …; empty for hardware. */
  readonly kind: string;
  readonly counters: LinkCounters;
}

export interface LinkCounters {
  readonly rx_bytes: number;
  readonly rx_packets: number;
  readonly rx_errors: number;
  readonly rx_dropped: number;
  readonly tx_bytes: number;
  readonly tx_packets: number;
  readonly tx_errors: number;
  readonly tx_dropped: number;
}

/** A prefix: an address of a link, or where a route leads. */
export interface LinkPrefix {
  readonly index: number;
  readonly address: Address;
  readonly prefixLength: number;
}

export interface VethRequest {
  readonly name: string;
  readonly mtu: number;
  /** Index of the bridge this end becomes a port of. */
  readonly master: number;
  readonly peer: {
    readonly name: string;
    readonly mac: string;
    /** Open descriptor of the namespace the other end is born in. */
    readonly namespaceFd: number;
  };
}

/** One rtnetlink socket. Failures are `SystemError`s of the kernel's errno. */
export class Netlink implements Disposable {
  readonly #socket = new NetlinkSocket(NETLINK_ROUTE);

  /** Of the namespace kept at `path`; `new Netlink()` is of the calling thread's. */
  static openIn(path: string): Netlink {
    return inNamespace(path, 'net', () => new Netlink());
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  links(): Link[] {
    return this.#socket.request(RTM.GETLINK, NLM_F.DUMP, linkHeader({}), 'list links').map(parseLink);
  }

  link(name: string): Link | undefined {
    try {
      return this.#socket
        .request(RTM.GETLINK, 0, linkHeader({}), `get ${name}`, [text(IFLA.IFNAME, name)])
        .map(parseLink)[0];
    } catch (error) {
      if (isErrno(error, 'ENODEV')) return undefined;
      throw error;
    }
  }

  /** All addresses of all links, link-local ones of IPv6 left out. */
  addresses(): LinkPrefix[] {
    return this.#socket
      .request(RTM.GETADDR, NLM_F.DUMP, addressHeader(AF_UNSPEC, 0, 0), 'list addresses')
      .flatMap((body) => {
        const found = attributes(body, 8);
        const address = found.get(IFA.LOCAL) ?? found.get(IFA.ADDRESS);
        if (address === undefined || isLinkLocal(address)) return [];
        return [{ index: body.readUInt32LE(4), address: addressOfBytes(address), prefixLength: body.readUInt8(1) }];
      });
  }

  /** Destinations of the main table's routes, default and link-local routes left out. `index` 0: by no single link. */
  routes(): LinkPrefix[] {
    return this.#socket.request(RTM.GETROUTE, NLM_F.DUMP, routeHeader(AF_UNSPEC, 0), 'list routes').flatMap((body) => {
      const found = attributes(body, 12);
      const destination = found.get(RTA.DST);
      const table = found.get(RTA.TABLE)?.readUInt32LE() ?? body.readUInt8(4);
      if (table !== RT_TABLE_MAIN || destination === undefined || isLinkLocal(destination)) return [];
      return [
        {
          index: found.get(RTA.OIF)?.readUInt32LE() ?? 0,
          address: addressOfBytes(destination),
          prefixLength: body.readUInt8(1),
        },
      ];
    });
  }

  /** A bridge, up. Its MAC is fixed, so that it doesn't change with the ports. */
  addBridge(name: string, mac: string): void {
    this.#socket.request(RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, linkHeader({ up: true }), `add bridge ${name}`, [
      text(IFLA.IFNAME, name),
      attribute(IFLA.ADDRESS, macBytes(mac)),
      nested(IFLA.LINKINFO, [text(IFLA_INFO.KIND, 'bridge')]),
    ]);
  }

  /** An interface that swallows what is sent through it, up. */
  addSink(name: string): void {
    const add = (kind: string): unknown =>
      this.#socket.request(RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, linkHeader({ up: true }), `add ${kind} ${name}`, [
        text(IFLA.IFNAME, name),
        nested(IFLA.LINKINFO, [text(IFLA_INFO.KIND, kind)]),
      ]);
    try {
      add('dummy');
    } catch (error) {
      // Kernels without it may have the other, to which nothing is redirected here.
      if (!isErrno(error, 'EOPNOTSUPP', 'ENOTSUP')) throw error;
      add('ifb');
    }
  }

  /** A pair: one end here, a port of a bridge; the other born in a namespace, still down. */
  addVeth(request: VethRequest): void {
    const { peer } = request;
    const mtu = uint32(IFLA.MTU, request.mtu);
    this.#socket.request(RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, linkHeader({ up: true }), `add veth ${request.name}`, [
      text(IFLA.IFNAME, request.name),
      mtu,
      uint32(IFLA.MASTER, request.master),
      nested(IFLA.LINKINFO, [
        text(IFLA_INFO.KIND, 'veth'),
        nested(IFLA_INFO.DATA, [
          attribute(
            VETH_INFO_PEER | NLA_F_NESTED,
            Buffer.concat([
              linkHeader({}),
              text(IFLA.IFNAME, peer.name),
              attribute(IFLA.ADDRESS, macBytes(peer.mac)),
              mtu,
              uint32(IFLA.NET_NS_FD, peer.namespaceFd),
            ]),
          ),
        ]),
      ]),
    ]);
  }

  /** A macvlan of a host interface, born in a namespace, still down. `mode`: 1 private, 2 vepa, 4 bridge, 8 passthru. */
  addMacvlan(request: {
    readonly name: string;
    readonly mac: string;
    readonly mtu: number;
    /** Index of the interface of the host. */
    readonly parent: number;
    readonly mode: number;
    readonly namespaceFd: number;
  }): void {
    this.#socket.request(RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, linkHeader({}), `add macvlan ${request.name}`, [
      text(IFLA.IFNAME, request.name),
      attribute(IFLA.ADDRESS, macBytes(request.mac)),
      ...(request.mtu > 0 ? [uint32(IFLA.MTU, request.mtu)] : []),
      uint32(IFLA.LINK, request.parent),
      uint32(IFLA.NET_NS_FD, request.namespaceFd),
      nested(IFLA.LINKINFO, [
        text(IFLA_INFO.KIND, 'macvlan'),
        nested(IFLA_INFO.DATA, [uint32(IFLA_MACVLAN_MODE, request.mode)]),
      ]),
    ]);
  }

  /** What a host interface carries with an 802.1Q tag, as an interface of its own, up. */
  addVlan(name: string, parent: number, tag: number): void {
    this.#socket.request(RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, linkHeader({ up: true }), `add vlan ${name}`, [
      text(IFLA.IFNAME, name),
      uint32(IFLA.LINK, parent),
      nested(IFLA.LINKINFO, [
        text(IFLA_INFO.KIND, 'vlan'),
        nested(IFLA_INFO.DATA, [attribute(IFLA_VLAN_ID, Buffer.of(tag & 255, tag >> 8))]),
      ]),
    ]);
  }

  setUp(index: number): void {
    this.#socket.request(RTM.NEWLINK, 0, linkHeader({ index, up: true }), `set link ${index} up`);
  }

  setMac(index: number, mac: string): void {
    this.#socket.request(RTM.NEWLINK, 0, linkHeader({ index }), `set address of link ${index}`, [
      attribute(IFLA.ADDRESS, macBytes(mac)),
    ]);
  }

  /** To another namespace, under another name; it is down there, and has lost its addresses. */
  moveLink(index: number, name: string, namespaceFd: number): void {
    this.#socket.request(RTM.NEWLINK, 0, linkHeader({ index }), `move link ${index} as ${name}`, [
      text(IFLA.IFNAME, name),
      uint32(IFLA.NET_NS_FD, namespaceFd),
    ]);
  }

  setMaster(index: number, master: number): void {
    this.#socket.request(RTM.NEWLINK, 0, linkHeader({ index }), `set master of link ${index}`, [
      uint32(IFLA.MASTER, master),
    ]);
  }

  /** Lets a bridge port's own frames come back to it. */
  setHairpin(index: number): void {
    this.#setPort(index, IFLA_BRPORT.MODE, 'hairpin mode');
  }

  /** Isolated ports of a bridge exchange no frames with each other. */
  setIsolated(index: number): void {
    this.#setPort(index, IFLA_BRPORT.ISOLATED, 'isolation');
  }

  #setPort(index: number, option: number, what: string): void {
    this.#socket.request(RTM.NEWLINK, 0, linkHeader({ index }), `set ${what} of link ${index}`, [
      nested(IFLA.LINKINFO, [
        text(IFLA_INFO_SLAVE.KIND, 'bridge'),
        nested(IFLA_INFO_SLAVE.DATA, [attribute(option, Buffer.of(1))]),
      ]),
    ]);
  }

  /**
   * Removes links by name; those that are not there are no error. All in one go, because each removal makes the kernel (and
   * this thread) wait some 30 ms until no processor uses the link any more, and a group of them waits once.
   */
  removeLinks(names: readonly string[]): void {
    const group = nextRemovalGroup++;
    if (!this.#mark(names, group)) return;
    try {
      this.#socket.request(RTM.DELLINK, 0, linkHeader({}), 'remove marked links', [uint32(IFLA.GROUP, group)]);
    } catch (error) {
      if (!isErrno(error, 'ENODEV')) throw error; // gone by themselves meanwhile
    }
  }

  /** The same with the waiting done by another thread. For links of the calling thread's namespace, like `new Netlink()`. */
  static async removeLinksSlowly(names: readonly string[]): Promise<void> {
    using links = new Netlink();
    const group = nextRemovalGroup++;
    if (!links.#mark(names, group)) return;
    try {
      const marked = [uint32(IFLA.GROUP, group)];
      await links.#socket.requestSlowly(RTM.DELLINK, 0, linkHeader({}), 'remove marked links', marked);
    } catch (error) {
      if (!isErrno(error, 'ENODEV')) throw error;
    }
  }

  /** Puts links into the group to be removed; false when none of them is there. */
  #mark(names: readonly string[], group: number): boolean {
    let found = false;
    for (const name of names) {
      try {
        this.#socket.request(RTM.NEWLINK, 0, linkHeader({}), `mark ${name}`, [
          text(IFLA.IFNAME, name),
          uint32(IFLA.GROUP, group),
        ]);
        found = true;
      } catch (error) {
        if (!isErrno(error, 'ENODEV')) throw error;
      }
    }
    return found;
  }

  /** IPv6 addresses count at once, without looking for others that have them. */
  addAddress({ index, address, prefixLength }: LinkPrefix): void {
    const bytes = bytesOf(address);
    const own = [attribute(IFA.LOCAL, bytes), attribute(IFA.ADDRESS, bytes)];
    if (address.family === 4) {
      const broadcast = address.value | (0xffffffffn >> BigInt(prefixLength));
      own.push(attribute(IFA.BROADCAST, bytesOf({ family: 4, value: broadcast })));
    }
    const header = addressHeader(familyOf(address.family), index, prefixLength);
    this.#socket.request(RTM.NEWADDR, NLM_F.CREATE | NLM_F.EXCL, header, `add address to link ${index}`, own);
  }

  removeAddress({ index, address, prefixLength }: LinkPrefix): void {
    const header = addressHeader(familyOf(address.family), index, prefixLength);
    this.#socket.request(RTM.DELADDR, 0, header, `remove address of link ${index}`, [
      attribute(IFA.LOCAL, bytesOf(address)),
    ]);
  }

  addDefaultRoute(index: number, gateway: Address): void {
    const header = routeHeader(familyOf(gateway.family), RT_TABLE_MAIN);
    this.#socket.request(RTM.NEWROUTE, NLM_F.CREATE | NLM_F.EXCL, header, 'add default route', [
      attribute(RTA.GATEWAY, bytesOf(gateway)),
      uint32(RTA.OIF, index),
    ]);
  }

  /** By `gateway`, or on the link itself. */
  addRoute(index: number, { family, base, prefixLength }: Subnet, gateway: Address | undefined): void {
    const header = routeHeader(familyOf(family), RT_TABLE_MAIN, prefixLength, gateway === undefined);
    this.#socket.request(RTM.NEWROUTE, NLM_F.CREATE | NLM_F.EXCL, header, 'add route', [
      attribute(RTA.DST, bytesOf({ family, value: base })),
      ...(gateway === undefined ? [] : [attribute(RTA.GATEWAY, bytesOf(gateway))]),
      uint32(RTA.OIF, index),
    ]);
  }

  /** A family without default route is no error. */
  removeDefaultRoute(family: Family): void {
    try {
      const header = routeHeader(familyOf(family), RT_TABLE_MAIN);
      this.#socket.request(RTM.DELROUTE, 0, header, 'remove default route');
    } catch (error) {
      if (!isErrno(error, 'ESRCH')) throw error;
    }
  }
}

const familyOf = (family: Family): number => (family === 4 ? AF_INET : AF_INET6);

/** fe80::/10 */
const isLinkLocal = (address: Buffer): boolean =>
  address.length === 16 && address[0] === 0xfe && ((address[1] ?? 0) & 0xc0) === 0x80;

const macBytes = (mac: string): Buffer => Buffer.from(mac.replaceAll(':', ''), 'hex');

/** struct ifinfomsg */
function linkHeader(options: { readonly index?: number; readonly up?: boolean }): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt8(AF_UNSPEC, 0);
  header.writeInt32LE(options.index ?? 0, 4);
  if (options.up === true) {
    header.writeUInt32LE(IFF_UP, 8);
    header.writeUInt32LE(IFF_UP, 12);
  }
  return header;
}

/** struct ifaddrmsg */
function addressHeader(family: number, index: number, prefixLength: number): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt8(family, 0);
  header.writeUInt8(prefixLength, 1);
  header.writeUInt8(family === AF_INET6 ? IFA_F_NODAD : 0, 2);
  header.writeUInt32LE(index, 4);
  return header;
}

/** struct rtmsg of a unicast route, to everywhere unless a length is given */
function routeHeader(family: number, table: number, length = 0, isOnLink = false): Buffer {
  const scope = isOnLink ? RT_SCOPE_LINK : 0;
  return Buffer.of(family, length, 0, 0, table, RTPROT_BOOT, scope, RTN_UNICAST, 0, 0, 0, 0);
}

const textOf = (bytes: Buffer | undefined): string => bytes?.toString('utf8').replace(/\0.*$/s, '') ?? '';

function parseLink(body: Buffer): Link {
  const found = attributes(body, 16);
  const info = found.get(IFLA.LINKINFO);
  const hex = found.get(IFLA.ADDRESS)?.toString('hex') ?? '';
  return {
    index: body.readInt32LE(4),
    name: textOf(found.get(IFLA.IFNAME)),
    mac: hex.match(/../g)?.join(':') ?? '',
    up: (body.readUInt32LE(8) & IFF_UP) !== 0,
    mtu: found.get(IFLA.MTU)?.readUInt32LE() ?? 0,
    master: found.get(IFLA.MASTER)?.readUInt32LE() ?? 0,
    kind: info === undefined ? '' : textOf(attributes(info, 0).get(IFLA_INFO.KIND)),
    counters: parseCounters(found.get(IFLA.STATS64)),
  };
}

/** struct rtnl_link_stats64 begins with these eight, in pairs of receive and transmit. */
function parseCounters(bytes: Buffer | undefined): LinkCounters {
  const at = (position: number): number => (bytes === undefined ? 0 : Number(bytes.readBigUInt64LE(position * 8)));
  return {
    rx_packets: at(0),
    tx_packets: at(1),
    rx_bytes: at(2),
    tx_bytes: at(3),
    rx_errors: at(4),
    tx_errors: at(5),
    rx_dropped: at(6),
    tx_dropped: at(7),
  };
}
