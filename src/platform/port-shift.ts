/**
 * Lets clients inside a namespace find a service at a port that the service has not bound: an nftables table there rewrites the port of
 * packets on their way out, both ways, without connection tracking. So programs of the namespace can bind that port on all addresses.
 *
 * Written as netlink messages, since a container's start should not wait for the `nft` program.
 */
import { isErrno } from './libc.ts';
import { inNamespace } from './namespace.ts';
import { attribute, attributes, NetlinkSocket, nested, text } from './netlink-socket.ts';

const NETLINK_NETFILTER = 12;
const NFNL_SUBSYS_NFTABLES = 10;
const NFPROTO_IPV4 = 2;
const BATCH = { BEGIN: 0x10, END: 0x11 } as const;
const NFT_MSG = { NEWTABLE: 0, GETTABLE: 1, DELTABLE: 2, NEWCHAIN: 3, NEWRULE: 6 } as const;
const NLM_F = { CREATE: 0x400, APPEND: 0x800 } as const;
const NFTA_TABLE_USERDATA = 6;
const NF_INET_LOCAL_OUT = 3;
/** Before connection tracking begins (`raw`, and a little). */
const priority = -310;
const register = 1;
const base = { network: 1, transport: 2 } as const;
const l4proto = 16;

const tableName = 'slipway_names';
const chainName = 'output';

/** Where the service really listens. */
export interface Ports {
  readonly udp: number;
  readonly tcp: number;
}

export interface PortShift extends Ports {
  readonly address: Uint8Array;
  /** The port that clients know. */
  readonly port: number;
}

/** The table carries its ports as a note of this type (type, length, value), which `nft` passes over. */
const noteType = 200;

/** Where clients are led to by a table that is there already. */
export function shiftedPorts(namespacePath: string): Ports | null {
  const socket = inNamespace(namespacePath, 'net', () => new NetlinkSocket(NETLINK_NETFILTER));
  try {
    const note = tableOf(socket)?.get(NFTA_TABLE_USERDATA);
    if (note === undefined || note.length < 6 || note[0] !== noteType) return null;
    return { udp: note.readUInt16BE(2), tcp: note.readUInt16BE(4) };
  } finally {
    socket.close();
  }
}

/** In place of an earlier one, in one step. The table ends with its namespace. */
export function shiftPorts(namespacePath: string, { address, port, udp, tcp }: PortShift): void {
  const socket = inNamespace(namespacePath, 'net', () => new NetlinkSocket(NETLINK_NETFILTER));
  const note = attribute(NFTA_TABLE_USERDATA, Buffer.concat([Buffer.of(noteType, 4), port16(udp), port16(tcp)]));
  const rules = [
    rule(address, 'to', 17, port, udp, 6),
    rule(address, 'from', 17, udp, port, 6),
    rule(address, 'to', 6, port, tcp, 16),
    rule(address, 'from', 6, tcp, port, 16),
  ];
  const ofChain = [text(1, tableName), text(2, chainName)];
  const removal = message(NFT_MSG.DELTABLE, 0, [text(1, tableName)]);
  const newTable = message(NFT_MSG.NEWTABLE, NLM_F.CREATE, [text(1, tableName), note]);
  const newChain = message(NFT_MSG.NEWCHAIN, NLM_F.CREATE, [
    text(1, tableName),
    text(3, chainName),
    nested(4, [number(1, NF_INET_LOCAL_OUT), number(2, priority)]),
    text(7, 'filter'),
  ]);
  const newRules = rules.map((expressions) =>
    message(NFT_MSG.NEWRULE, NLM_F.CREATE | NLM_F.APPEND, [...ofChain, nested(4, expressions)]),
  );
  try {
    // Removal first: an update would leave the note as it is. It takes the kernel a long moment, as does being refused.
    const begin = tableOf(socket) ? [removal, newTable, newChain] : [newTable, newChain];
    socket.batch([edge(BATCH.BEGIN), ...begin, ...newRules, edge(BATCH.END)], `rules for ${namespacePath}`);
  } finally {
    socket.close();
  }
}

/** The attributes of our table, if it is there. */
function tableOf(socket: NetlinkSocket): Map<number, Buffer> | undefined {
  const type = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG.GETTABLE;
  try {
    const [body] = socket.request(type, 0, generic(NFPROTO_IPV4, 0), `table ${tableName}`, [text(1, tableName)]);
    return body && attributes(body, 4);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
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
