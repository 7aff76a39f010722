/**
 * Lets clients inside a namespace find a service at a port that the service has not bound: an nftables table there rewrites the port of
 * packets on their way out, both ways, without connection tracking. So programs of the namespace can bind that port on all addresses.
 *
 * Written as netlink messages, since a container's start should not wait for the `nft` program.
 */
import { isErrno } from './libc.ts';
import { inNamespace } from './namespace.ts';
import { attribute, NetlinkSocket, nested, text } from './netlink-socket.ts';

const NETLINK_NETFILTER = 12;
const NFNL_SUBSYS_NFTABLES = 10;
const NFPROTO_IPV4 = 2;
const BATCH = { BEGIN: 0x10, END: 0x11 } as const;
const NFT_MSG = { NEWTABLE: 0, DELTABLE: 2, NEWCHAIN: 3, NEWRULE: 6 } as const;
const NLM_F = { EXCL: 0x200, CREATE: 0x400, APPEND: 0x800 } as const;
const NF_INET_LOCAL_OUT = 3;
/** Before connection tracking begins (`raw`, and a little). */
const priority = -310;
const register = 1;
const base = { network: 1, transport: 2 } as const;
const l4proto = 16;

const tableName = 'slipway_names';
const chainName = 'output';

export interface PortShift {
  readonly address: Uint8Array;
  /** The port that clients know. */
  readonly port: number;
  /** Where the service really listens. */
  readonly udp: number;
  readonly tcp: number;
}

/** In place of an earlier one, in one step. The table ends with its namespace. */
export function shiftPorts(namespacePath: string, { address, port, udp, tcp }: PortShift): void {
  const socket = inNamespace(namespacePath, 'net', () => new NetlinkSocket(NETLINK_NETFILTER));
  const named = [text(1, tableName)];
  const newTable = message(NFT_MSG.NEWTABLE, NLM_F.CREATE | NLM_F.EXCL, named);
  const rules = [
    rule(address, 'to', 17, port, udp, 6),
    rule(address, 'from', 17, udp, port, 6),
    rule(address, 'to', 6, port, tcp, 16),
    rule(address, 'from', 6, tcp, port, 16),
  ];
  const content = [
    newTable,
    message(NFT_MSG.NEWCHAIN, NLM_F.CREATE, [
      text(1, tableName),
      text(3, chainName),
      nested(4, [number(1, NF_INET_LOCAL_OUT), number(2, priority)]),
      text(7, 'filter'),
    ]),
    ...rules.map((expressions) =>
      message(NFT_MSG.NEWRULE, NLM_F.CREATE | NLM_F.APPEND, [
        text(1, tableName),
        text(2, chainName),
        nested(4, expressions),
      ]),
    ),
  ];
  const apply = (messages: readonly Message[]): void =>
    socket.batch([edge(BATCH.BEGIN), ...messages, edge(BATCH.END)], `rules for ${namespacePath}`);
  try {
    apply(content);
  } catch (error) {
    // A daemon before this one left its own. To remove a table costs ten times what it costs to make one.
    if (!isErrno(error, 'EEXIST')) throw error;
    apply([message(NFT_MSG.DELTABLE, 0, named), ...content]);
  } finally {
    socket.close();
  }
}

/** `ip daddr ADDRESS udp dport BEFORE udp dport set AFTER notrack`, or with source address and port. */
function rule(
  address: Uint8Array,
  direction: 'to' | 'from',
  protocol: number,
  before: number,
  after: number,
  checksumOffset: number,
): Buffer[] {
  const portOffset = direction === 'to' ? 2 : 0;
  return [
    load(base.network, direction === 'to' ? 16 : 12, 4),
    equals(address),
    expression('meta', [number(1, register), number(2, l4proto)]),
    equals(Uint8Array.of(protocol)),
    load(base.transport, portOffset, 2),
    equals(port16(before)),
    expression('immediate', [number(1, register), data(2, port16(after))]),
    expression('payload', [
      number(5, register),
      number(2, base.transport),
      number(3, portOffset),
      number(4, 2),
      number(6, 1), // the checksum is that of IPv4, UDP and TCP
      number(7, checksumOffset),
    ]),
    expression('notrack', null),
  ];
}

const load = (from: number, offset: number, length: number): Buffer =>
  expression('payload', [number(1, register), number(2, from), number(3, offset), number(4, length)]);
const equals = (value: Uint8Array): Buffer => expression('cmp', [number(1, register), number(2, 0), data(3, value)]);
const expression = (name: string, attributes: readonly Buffer[] | null): Buffer =>
  nested(1, [text(1, name), ...(attributes ? [nested(2, attributes)] : [])]);
const data = (type: number, value: Uint8Array): Buffer => nested(type, [attribute(1, value)]);

/** Numbers of nf_tables are big-endian. */
function number(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return attribute(type, bytes);
}

function port16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

/** struct nfgenmsg */
function generic(family: number, resource: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt8(family, 0);
  bytes.writeUInt16BE(resource, 2);
  return bytes;
}

interface Message {
  readonly type: number;
  readonly flags: number;
  readonly body: Buffer;
}

/** Begin or end of a batch. */
const edge = (type: number): Message => ({ type, flags: 0, body: generic(0, NFNL_SUBSYS_NFTABLES) });

const message = (type: number, flags: number, attributes: readonly Buffer[]): Message => ({
  type: (NFNL_SUBSYS_NFTABLES << 8) | type,
  flags,
  body: Buffer.concat([generic(NFPROTO_IPV4, 0), ...attributes]),
});
