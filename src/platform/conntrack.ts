/** Flows the kernel's connection tracking knows, by ctnetlink. */
import { isErrno } from './libc.ts';
import { attribute, attributes, NetlinkSocket, NLM_F, nested } from './netlink-socket.ts';

const NETLINK_NETFILTER = 12;
const AF_INET = 2;
const IPPROTO_UDP = 17;
const CTNETLINK = { GET: 0x101, DELETE: 0x102 } as const;
const CTA = { TUPLE_ORIG: 1, TUPLE_REPLY: 2, FILTER: 25 } as const;
const CTA_FILTER_REPLY_FLAGS = 2;
const CTA_FILTER_FLAG = { IP_SRC: 1, PROTO_NUM: 8 } as const;
const CTA_TUPLE = { IP: 1, PROTO: 2 } as const;
const CTA_IP_V4_SRC = 1;
const CTA_PROTO_NUM = 1;
/** struct nfgenmsg */
const header = Buffer.of(AF_INET, 0, 0, 0);

/**
 * Makes the kernel forget the UDP flows that `address` answers, in the calling thread's namespace. Otherwise a client that goes on
 * sending is led there for ever, also when the port belongs to another container by then. Walks the kernel's table once.
 */
export function forgetUdpFlowsTo(address: number): void {
  const socket = new NetlinkSocket(NETLINK_NETFILTER);
  try {
    const source = Buffer.alloc(4);
    source.writeUInt32BE(address);
    const flags = Buffer.alloc(4);
    flags.writeUInt32LE(CTA_FILTER_FLAG.IP_SRC | CTA_FILTER_FLAG.PROTO_NUM);
    const flows = socket.request(CTNETLINK.GET, NLM_F.DUMP, header, 'list UDP flows', [
      nested(CTA.TUPLE_REPLY, [
        nested(CTA_TUPLE.IP, [attribute(CTA_IP_V4_SRC, source)]),
        nested(CTA_TUPLE.PROTO, [attribute(CTA_PROTO_NUM, Buffer.of(IPPROTO_UDP))]),
      ]),
      nested(CTA.FILTER, [attribute(CTA_FILTER_REPLY_FLAGS, flags)]),
    ]);
    for (const flow of flows) {
      const tuple = attributes(flow, header.length).get(CTA.TUPLE_ORIG);
      if (tuple !== undefined) forget(socket, tuple);
    }
  } finally {
    socket.close();
  }
}

function forget(socket: NetlinkSocket, tuple: Buffer): void {
  try {
    socket.request(CTNETLINK.DELETE, 0, header, 'forget a UDP flow', [nested(CTA.TUPLE_ORIG, [tuple])]);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error; // it ended meanwhile
  }
}
