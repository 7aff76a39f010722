/** Reading nftables from the kernel by netlink: a few microseconds, no child process. Writing is `nft.ts`'s. */
import { isErrno } from './libc.ts';
import { attributes, NetlinkSocket, NLM_F, text } from './netlink-socket.ts';

const NETLINK_NETFILTER = 12;
const subsystem = 10 << 8;
const GET = {
  TABLE: subsystem | 1,
  CHAIN: subsystem | 4,
  RULE: subsystem | 7,
  ELEMENTS: subsystem | 13,
  GENERATION: subsystem | 16,
} as const;
const families = { inet: 1, ip: 2, ip6: 10 } as const;
const TABLE = { NAME: 1, HANDLE: 4 } as const;
const CHAIN = { TABLE: 1, NAME: 3, POLICY: 5 } as const;
const RULE = { TABLE: 1, CHAIN: 2, HANDLE: 3 } as const;
const ELEMENTS = { TABLE: 1, SET: 2, LIST: 3 } as const;
const GENERATION_ID = 1;
const drops = 0;
/** struct nfgenmsg */
const headerSize = 4;

export type NftFamily = keyof typeof families;

export interface RuleSeen {
  readonly handle: bigint;
  /** The whole of it as the kernel sent it; comments stand in it as plain text. */
  readonly bytes: Buffer;
}

/** Of the network namespace the calling thread is in when it is made. Failures are `SystemError`s of the kernel's errno. */
export class Ruleset implements Disposable {
  readonly #socket = new NetlinkSocket(NETLINK_NETFILTER);

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  /** Another number after every transaction of anybody. */
  generation(): number {
    const [body] = this.#socket.request(GET.GENERATION, 0, header('inet'), 'get the generation of the rules');
    return body ? (attributes(body, headerSize).get(GENERATION_ID)?.readUInt32BE() ?? 0) : 0;
  }

  /** A number that no other table of that name, before or later, has; undefined: there is none. */
  table(family: NftFamily, name: string): bigint | undefined {
    const [body] = this.#ifThere(GET.TABLE, family, [text(TABLE.NAME, name)]);
    return body && attributes(body, headerSize).get(TABLE.HANDLE)?.readBigUInt64BE();
  }

  /** Whether packets that no rule decides about are dropped; undefined: there is no such chain, or it has no policy. */
  dropsByDefault(family: NftFamily, table: string, chain: string): boolean | undefined {
    const [body] = this.#ifThere(GET.CHAIN, family, [text(CHAIN.TABLE, table), text(CHAIN.NAME, chain)]);
    const policy = body && attributes(body, headerSize).get(CHAIN.POLICY);
    return policy && policy.readUInt32BE() === drops;
  }

  /** All rules of a table, or of one chain of it. */
  rules(family: NftFamily, table: string, chain?: string): RuleSeen[] {
    const of = [text(RULE.TABLE, table), ...(chain === undefined ? [] : [text(RULE.CHAIN, chain)])];
    return this.#ifThere(GET.RULE, family, of, NLM_F.DUMP).flatMap((body) => {
      const handle = attributes(body, headerSize).get(RULE.HANDLE)?.readBigUInt64BE();
      return handle === undefined ? [] : [{ handle, bytes: body }];
    });
  }

  /** How many elements a set or map has; undefined: there is none. */
  elementCount(family: NftFamily, table: string, set: string): number | undefined {
    const of = [text(ELEMENTS.TABLE, table), text(ELEMENTS.SET, set)];
    try {
      let count = 0;
      for (const body of this.#socket.request(GET.ELEMENTS, NLM_F.DUMP, header(family), `list ${set}`, of)) {
        const list = attributes(body, headerSize).get(ELEMENTS.LIST);
        for (let at = 0; list !== undefined && at + 4 <= list.length; count++)
          at += (Math.max(4, list.readUInt16LE(at)) + 3) & ~3;
      }
      return count;
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  #ifThere(type: number, family: NftFamily, of: readonly Buffer[], flags = 0): Buffer[] {
    try {
      return this.#socket.request(type, flags, header(family), 'read the rules', of);
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return [];
      throw error;
    }
  }
}

const header = (family: NftFamily): Buffer => Buffer.of(families[family], 0, 0, 0);
