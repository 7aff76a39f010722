/**
 * Links, addresses and routes of a network namespace, by rtnetlink(7): messages built by hand, no child process.
 *
 * A socket belongs for ever to the namespace it was opened in, whatever the calling thread does afterwards. So work inside a
 * container's namespace needs no more than `Netlink.openIn(path)`; every later call is an ordinary system call.
 * The kernel does what a message asks before `send` returns, so reading the answer never waits.
 */
import { check, declare, isErrno, SystemError } from './libc.ts';
import { inNamespace } from './namespace.ts';

const AF_NETLINK = 16;
const AF_INET = 2;
const AF_UNSPEC = 0;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const NETLINK_ROUTE = 0;

const NLM_F = { REQUEST: 1, ACK: 4, EXCL: 0x200, CREATE: 0x400, DUMP: 0x300 } as const;
const NLMSG = { ERROR: 2, DONE: 3 } as const;
const RTM = {
  NEWLINK: 16,
  DELLINK: 17,
  GETLINK: 18,
  NEWADDR: 20,
  DELADDR: 21,
  GETADDR: 22,
  NEWROUTE: 24,
  GETROUTE: 26,
};
const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  MASTER: 10,
  LINKINFO: 18,
  STATS64: 23,
  GROUP: 27,
  NET_NS_FD: 28,
} as const;
const IFLA_INFO = { KIND: 1, DATA: 2 } as const;
const IFLA_INFO_SLAVE = { KIND: 4, DATA: 5 } as const;
const IFLA_BRPORT_MODE = 4;
const VETH_INFO_PEER = 1;
const IFA = { ADDRESS: 1, LOCAL: 2, BROADCAST: 4 } as const;
const RTA = { DST: 1, OIF: 4, GATEWAY: 5, TABLE: 15 } as const;
const RT_TABLE_MAIN = 254;
const RTPROT_BOOT = 3;
const RTN_UNICAST = 1;
const IFF_UP = 1;
const NLA_TYPE = 0x3fff;
const NLA_F_NESTED = 0x8000;

/** Group of links about to be removed; an arbitrary number that nobody uses. */
const removalGroup = 0x51_1b_0a_7e;

/** The kernel fills an answer's datagram up to this size. */
const bufferSize = 64 * 1024;

const socket_ = declare<[number, number, number], number>('int socket(int domain, int type, int protocol)');
const close_ = declare<[number], number>('int close(int fd)');
const send_ = declare<[number, Uint8Array, number, number], number>(
  'long send(int fd, const void *buf, unsigned long len, int flags)',
);
const recv_ = declare<[number, Uint8Array, number, number], number>(
  'long recv(int fd, void *buf, unsigned long len, int flags)',
);

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

/** An IPv4 prefix: an address of a link, or where a route leads. Addresses are numbers in host order. */
export interface LinkPrefix {
  readonly index: number;
  readonly address: number;
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

/** One rtnetlink socket. IPv4 only, except where said. Failures are `SystemError`s of the kernel's errno. */
export class Netlink implements Disposable {
  #fd: number;
  #sequence = 0;
  readonly #buffer = Buffer.allocUnsafe(bufferSize);

  /** Of the calling thread's namespace. */
  constructor() {
    this.#fd = check(socket_(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), 'socket', 'netlink');
  }

  /** Of the namespace kept at `path`. */
  static openIn(path: string): Netlink {
    return inNamespace(path, 'net', () => new Netlink());
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) close_(this.#fd);
    this.#fd = -1;
  }

  links(): Link[] {
    return this.#request(RTM.GETLINK, NLM_F.DUMP, linkHeader({}), 'list links').map(parseLink);
  }

  link(name: string): Link | undefined {
    try {
      return this.#request(RTM.GETLINK, 0, linkHeader({}), `get ${name}`, [text(IFLA.IFNAME, name)]).map(parseLink)[0];
    } catch (error) {
      if (isErrno(error, 'ENODEV')) return undefined;
      throw error;
    }
  }

  /** All IPv4 addresses, of all links. */
  addresses(): LinkPrefix[] {
    return this.#request(RTM.GETADDR, NLM_F.DUMP, addressHeader(0, 0), 'list addresses')
      .filter((body) => body[0] === AF_INET)
      .map((body) => {
        const found = attributes(body, 8);
        const address = found.get(IFA.LOCAL) ?? found.get(IFA.ADDRESS);
        return { index: body.readUInt32LE(4), address: address?.readUInt32BE() ?? 0, prefixLength: body.readUInt8(1) };
      });
  }

  /** Destinations of the main table's IPv4 routes, default routes left out. `index` 0: by no single link. */
  routes(): LinkPrefix[] {
    return this.#request(RTM.GETROUTE, NLM_F.DUMP, routeHeader(0), 'list routes').flatMap((body) => {
      const found = attributes(body, 12);
      const destination = found.get(RTA.DST);
      const table = found.get(RTA.TABLE)?.readUInt32LE() ?? body.readUInt8(4);
      if (body[0] !== AF_INET || table !== RT_TABLE_MAIN || destination === undefined) return [];
      return [
        {
          index: found.get(RTA.OIF)?.readUInt32LE() ?? 0,
          address: destination.readUInt32BE(),
          prefixLength: body.readUInt8(1),
        },
      ];
    });
  }

  /** A bridge, up. Its MAC is fixed, so that it doesn't change with the ports. */
  addBridge(name: string, mac: string): void {
    this.#request(RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, linkHeader({ up: true }), `add bridge ${name}`, [
      text(IFLA.IFNAME, name),
      attribute(IFLA.ADDRESS, macBytes(mac)),
      nested(IFLA.LINKINFO, [text(IFLA_INFO.KIND, 'bridge')]),
    ]);
  }

  /** A pair: one end here, a port of a bridge; the other born in a namespace, still down. */
  addVeth(request: VethRequest): void {
    const { peer } = request;
    const mtu = uint32(IFLA.MTU, request.mtu);
    this.#request(RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, linkHeader({ up: true }), `add veth ${request.name}`, [
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

  setUp(index: number): void {
    this.#request(RTM.NEWLINK, 0, linkHeader({ index, up: true }), `set link ${index} up`);
  }

  setMaster(index: number, master: number): void {
    this.#request(RTM.NEWLINK, 0, linkHeader({ index }), `set master of link ${index}`, [uint32(IFLA.MASTER, master)]);
  }

  /** Lets a bridge port's own frames come back to it. */
  setHairpin(index: number): void {
    this.#request(RTM.NEWLINK, 0, linkHeader({ index }), `set hairpin mode of link ${index}`, [
      nested(IFLA.LINKINFO, [
        text(IFLA_INFO_SLAVE.KIND, 'bridge'),
        nested(IFLA_INFO_SLAVE.DATA, [attribute(IFLA_BRPORT_MODE, Buffer.of(1))]),
      ]),
    ]);
  }

  /**
   * Removes links by name; those that are not there are no error. All in one go, because each removal makes the kernel (and
   * this thread) wait some 30 ms until no processor uses the link any more, and a group of them waits once.
   */
  removeLinks(names: readonly string[]): void {
    let found = false;
    for (const name of names) {
      try {
        this.#request(RTM.NEWLINK, 0, linkHeader({}), `mark ${name}`, [
          text(IFLA.IFNAME, name),
          uint32(IFLA.GROUP, removalGroup),
        ]);
        found = true;
      } catch (error) {
        if (!isErrno(error, 'ENODEV')) throw error;
      }
    }
    if (!found) return;
    try {
      this.#request(RTM.DELLINK, 0, linkHeader({}), 'remove marked links', [uint32(IFLA.GROUP, removalGroup)]);
    } catch (error) {
      if (!isErrno(error, 'ENODEV')) throw error; // gone by themselves meanwhile
    }
  }

  addAddress({ index, address, prefixLength }: LinkPrefix): void {
    const broadcast = (address | (0xffffffff >>> prefixLength)) >>> 0;
    this.#request(
      RTM.NEWADDR,
      NLM_F.CREATE | NLM_F.EXCL,
      addressHeader(index, prefixLength),
      `add address to link ${index}`,
      [
        attribute(IFA.LOCAL, ipv4Bytes(address)),
        attribute(IFA.ADDRESS, ipv4Bytes(address)),
        attribute(IFA.BROADCAST, ipv4Bytes(broadcast)),
      ],
    );
  }

  removeAddress({ index, address, prefixLength }: LinkPrefix): void {
    this.#request(RTM.DELADDR, 0, addressHeader(index, prefixLength), `remove address of link ${index}`, [
      attribute(IFA.LOCAL, ipv4Bytes(address)),
    ]);
  }

  addDefaultRoute(index: number, gateway: number): void {
    this.#request(RTM.NEWROUTE, NLM_F.CREATE | NLM_F.EXCL, routeHeader(RT_TABLE_MAIN), 'add default route', [
      attribute(RTA.GATEWAY, ipv4Bytes(gateway)),
      uint32(RTA.OIF, index),
    ]);
  }

  /** Sends one message; answers the bodies of all messages that came back before the end. */
  #request(type: number, flags: number, header: Buffer, detail: string, attributes_: readonly Buffer[] = []): Buffer[] {
    const sequence = ++this.#sequence;
    const body = Buffer.concat([header, ...attributes_]);
    const message = Buffer.alloc(16 + body.length);
    message.writeUInt32LE(message.length, 0);
    message.writeUInt16LE(type, 4);
    message.writeUInt16LE(flags | NLM_F.REQUEST | (flags & NLM_F.DUMP && NLM_F.DUMP) | NLM_F.ACK, 6);
    message.writeUInt32LE(sequence, 8);
    body.copy(message, 16);
    check(send_(this.#fd, message, message.length, 0), 'netlink', detail);

    const bodies: Buffer[] = [];
    for (;;) {
      const length = check(recv_(this.#fd, this.#buffer, bufferSize, 0), 'netlink', detail);
      for (let offset = 0; offset + 16 <= length; ) {
        const size = this.#buffer.readUInt32LE(offset);
        const answerType = this.#buffer.readUInt16LE(offset + 4);
        // Answers to a request that failed half-way are still in the queue and not ours.
        if (this.#buffer.readUInt32LE(offset + 8) === sequence) {
          const answer = this.#buffer.subarray(offset + 16, offset + size);
          if (answerType === NLMSG.ERROR || answerType === NLMSG.DONE) {
            const errno = answer.length >= 4 ? -answer.readInt32LE() : 0;
            if (errno > 0) throw new SystemError('netlink', errno, detail);
            return bodies;
          }
          bodies.push(Buffer.from(answer));
        }
        offset += (size + 3) & ~3;
      }
    }
  }
}

function attribute(type: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc((4 + payload.length + 3) & ~3);
  bytes.writeUInt16LE(4 + payload.length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(payload, 4);
  return bytes;
}

const nested = (type: number, inner: readonly Buffer[]): Buffer => attribute(type | NLA_F_NESTED, Buffer.concat(inner));
const text = (type: number, value: string): Buffer => attribute(type, Buffer.from(`${value}\0`));

function uint32(type: number, value: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32LE(value);
  return attribute(type, payload);
}

function ipv4Bytes(address: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(address >>> 0);
  return bytes;
}

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
function addressHeader(index: number, prefixLength: number): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt8(AF_INET, 0);
  header.writeUInt8(prefixLength, 1);
  header.writeUInt32LE(index, 4);
  return header;
}

/** struct rtmsg of a unicast route to everywhere */
function routeHeader(table: number): Buffer {
  return Buffer.of(AF_INET, 0, 0, 0, table, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0);
}

function attributes(body: Buffer, start: number): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let offset = start; offset + 4 <= body.length; ) {
    const size = body.readUInt16LE(offset);
    if (size < 4) break;
    found.set(body.readUInt16LE(offset + 2) & NLA_TYPE, body.subarray(offset + 4, offset + size));
    offset += (size + 3) & ~3;
  }
  return found;
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
