/** Flows the kernel's connection tracking knows, by ctnetlink. */
import { type Address, addressOfBytes, bytesOf } from '../lib/ip.ts';
import { isErrno } from './libc.ts';
import { attribute, attributes, NetlinkSocket, NLM_F, nested } from './netlink-socket.ts';

const NETLINK_NETFILTER = 12;
const AF_INET = 2;
const AF_INET6 = 10;
const IPPROTO_UDP = 17;
const CTNETLINK = { GET: 0x101, DELETE: 0x102 } as const;
const CTA = { TUPLE_ORIG: 1, TUPLE_REPLY: 2, FILTER: 25 } as const;
const CTA_FILTER = { ORIG_FLAGS: 1, REPLY_FLAGS: 2 } as const;
const CTA_FILTER_FLAG = { IP_SRC: 1, PROTO_NUM: 8 } as const;
const CTA_TUPLE = { IP: 1, PROTO: 2 } as const;
const CTA_IP = { V4_SRC: 1, V4_DST: 2, V6_SRC: 3, V6_DST: 4 } as const;
const CTA_PROTO = { NUM: 1, DST_PORT: 3 } as const;
/** struct nfgenmsg */
const headerSize = 4;

/**
 * Makes the kernel forget the UDP flows that `address` answers, in the calling thread's namespace. Otherwise a client that goes on
 * sending is led there for ever, also when the port belongs to another container by then. Walks the kernel's table once.
 */
export function forgetUdpFlowsTo(address: Address): void {
  using socket = new Conntrack(address.family);
  const source = attribute(address.family === 4 ? CTA_IP.V4_SRC : CTA_IP.V6_SRC, bytesOf(address));
  for (const flow of socket.udpFlows(CTA.TUPLE_REPLY, [nested(CTA_TUPLE.IP, [source])], CTA_FILTER_FLAG.IP_SRC))
    socket.forget(flow);
}

/** The same for flows that were begun towards some address and port; those from before a port was published are not led anywhere else. */
export function forgetUdpFlowsAt(family: 4 | 6, isMeant: (address: Address, port: number) => boolean): void {
  using socket = new Conntrack(family);
  for (const flow of socket.udpFlows(CTA.TUPLE_ORIG, [], 0)) {
    const tuple = attributes(attributes(flow, headerSize).get(CTA.TUPLE_ORIG) ?? Buffer.alloc(0), 0);
    const address = attributes(tuple.get(CTA_TUPLE.IP) ?? Buffer.alloc(0), 0).get(
      family === 4 ? CTA_IP.V4_DST : CTA_IP.V6_DST,
    );
    const port = attributes(tuple.get(CTA_TUPLE.PROTO) ?? Buffer.alloc(0), 0).get(CTA_PROTO.DST_PORT);
    if (address && port && isMeant(addressOfBytes(address), port.readUInt16BE())) socket.forget(flow);
  }
}

class Conntrack implements Disposable {
  readonly #socket = new NetlinkSocket(NETLINK_NETFILTER);
  readonly #header: Buffer;

  constructor(family: 4 | 6) {
    this.#header = Buffer.of(family === 4 ? AF_INET : AF_INET6, 0, 0, 0);
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  /** Those whose `tuple` is as said in `address`, of which `flag` says that it counts. */
  udpFlows(tuple: number, address: readonly Buffer[], flag: number): Buffer[] {
    const flags = Buffer.alloc(4);
    flags.writeUInt32LE(flag | CTA_FILTER_FLAG.PROTO_NUM);
    return this.#socket.request(CTNETLINK.GET, NLM_F.DUMP, this.#header, 'list UDP flows', [
      nested(tuple, [...address, nested(CTA_TUPLE.PROTO, [attribute(CTA_PROTO.NUM, Buffer.of(IPPROTO_UDP))])]),
      nested(CTA.FILTER, [attribute(tuple === CTA.TUPLE_ORIG ? CTA_FILTER.ORIG_FLAGS : CTA_FILTER.REPLY_FLAGS, flags)]),
    ]);
  }

  forget(flow: Buffer): void {
    const tuple = attributes(flow, headerSize).get(CTA.TUPLE_ORIG);
    if (tuple === undefined) return;
    try {
      this.#socket.request(CTNETLINK.DELETE, 0, this.#header, 'forget a UDP flow', [nested(CTA.TUPLE_ORIG, [tuple])]);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error; // it ended meanwhile
    }
  }
}
