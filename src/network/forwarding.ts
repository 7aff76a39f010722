/**
 * Hosts that drop what they forward unless a rule lets it through: policy DROP of FORWARD, in nftables as iptables-nft makes it or in the
 * older iptables. No table of ours can overrule that, so the chain itself gets rules that accept our bridges. They only stand in for the
 * policy: appended, so that rules of the host itself decide first, and our own table still decides what comes into a bridge.
 *
 * Each is marked by a comment, `<table>: in <bridge>`. They go with the bridge, when the policy opens, and when the host's policy is to be
 * obeyed. Nothing else of the chain is touched.
 */
import type { Log } from '../lib/log.ts';
import { applyNft } from '../platform/nft.ts';
import type { Ruleset } from '../platform/ruleset.ts';
import { changeFilter, readFilter } from '../platform/xtables.ts';
import type { BridgeRules } from './table.ts';

const families = ['ip', 'ip6'] as const;
type Way = 'in' | 'out' | 'within';

interface Opening {
  readonly comment: string;
  readonly way: Way;
  readonly bridgeName: string;
}

export class HostForwarding {
  readonly #mark: string;
  readonly #ruleset: Ruleset;
  readonly #log: Log;
  readonly #wanted: () => readonly BridgeRules[];
  #generation = -1;
  #failed = '';
  #running: Promise<void> = Promise.resolve();

  /** `wanted`: the bridges whose traffic the policy is not to drop. */
  constructor(mark: string, ruleset: Ruleset, log: Log, wanted: () => readonly BridgeRules[]) {
    this.#mark = mark;
    this.#ruleset = ruleset;
    this.#log = log;
    this.#wanted = wanted;
  }

  /** Brings the host's chains to what they shall be. Starts a program only if something is to change. A failure is reported, once. */
  settle(): Promise<void> {
    this.#running = this.#running.then(async () => {
      try {
        this.#generation = this.#ruleset.generation();
        for (const family of families) await this.#settleNft(family);
        for (const family of families) await this.#settleLegacy(family);
        this.#failed = '';
      } catch (error) {
        if (this.#failed !== String(error))
          this.#log.error({ error }, "the host's policy for forwarded traffic could not be overruled");
        this.#failed = String(error);
      }
    });
    return this.#running;
  }

  /** The same from time to time: looks at nftables only when somebody changed something. */
  async check(): Promise<void> {
    if (this.#failed === '' && this.#generation === this.#ruleset.generation() && !this.#isLegacyOff()) return;
    await this.settle();
  }

  #isLegacyOff(): boolean {
    return families.some((family) => {
      const { add, remove } = this.#legacyChanges(family);
      return add.length + remove.length > 0;
    });
  }

  async #settleNft(family: 'ip' | 'ip6'): Promise<void> {
    const drops = this.#ruleset.dropsByDefault(family, 'filter', 'FORWARD');
    if (drops === undefined) return;
    const rules = this.#ruleset.rules(family, 'filter', 'FORWARD').flatMap(({ handle, bytes }) => {
      const [comment] = this.#commentsIn(bytes);
      return comment === undefined ? [] : [{ handle, comment }];
    });
    const { add, remove } = this.#difference(
      drops,
      rules.map(({ comment }) => comment),
    );
    const chain = `${family} filter FORWARD`;
    const commands = [
      ...rules
        .filter(({ comment }) => remove.includes(comment))
        .map(({ handle }) => `delete rule ${chain} handle ${handle}`),
      ...add.map(
        ({ comment, way, bridgeName }) =>
          `add rule ${chain} ${way === 'out' ? '' : `iifname "${bridgeName}" `}${way === 'in' ? '' : `oifname "${bridgeName}" `}` +
          `counter accept comment "${comment}"`,
      ),
    ];
    if (commands.length > 0) await applyNft(`${commands.join('\n')}\n`);
  }

  #legacyChanges(family: 'ip' | 'ip6'): { readonly add: readonly Opening[]; readonly remove: readonly string[] } {
    const table = readFilter(family);
    if (table === undefined) return { add: [], remove: [] };
    return this.#difference(table.dropsForwarded, this.#commentsIn(table.bytes));
  }

  async #settleLegacy(family: 'ip' | 'ip6'): Promise<void> {
    const { add, remove } = this.#legacyChanges(family);
    const line = (verb: 'A' | 'D', { comment, way, bridgeName }: Opening): string =>
      `-${verb} FORWARD${way === 'out' ? '' : ` -i ${bridgeName}`}${way === 'in' ? '' : ` -o ${bridgeName}`}` +
      ` -m comment --comment "${comment}" -j ACCEPT`;
    const lines = [
      ...remove.flatMap((comment) => this.#openingOf(comment) ?? []).map((opening) => line('D', opening)),
      ...add.map((opening) => line('A', opening)),
    ];
    if (lines.length > 0) await changeFilter(family, lines);
  }

  /** `present`: comments of ours that are there. Of two alike one is superfluous, and which one does not matter. */
  #difference(drops: boolean, present: readonly string[]): { readonly add: Opening[]; readonly remove: string[] } {
    const wanted = new Map(drops ? this.#openings().map((opening) => [opening.comment, opening] as const) : []);
    const twice = present.filter((comment, index) => present.indexOf(comment) !== index);
    const remove = new Set([...present.filter((comment) => !wanted.has(comment)), ...twice]);
    const kept = new Set(present.filter((comment) => !remove.has(comment)));
    // In the older iptables a line removes one rule of those alike.
    return {
      add: [...wanted.values()].filter(({ comment }) => !kept.has(comment)),
      remove: present.filter((comment) => remove.has(comment)),
    };
  }

  /** What nothing leaves still talks within itself, also where bridged frames pass the host's rules (br_netfilter). */
  #openings(): Opening[] {
    return this.#wanted().flatMap(({ bridgeName, internal }) =>
      (internal ? (['within'] as const) : (['in', 'out'] as const)).map((way) => ({
        comment: `${this.#mark}: ${way} ${bridgeName}`,
        way,
        bridgeName,
      })),
    );
  }

  #openingOf(comment: string): Opening[] {
    const [, way = '', bridgeName = ''] = comment.split(' ');
    return way === 'in' || way === 'out' || way === 'within' ? [{ comment, way, bridgeName }] : [];
  }

  #commentsIn(bytes: Buffer): string[] {
    return bytes.toString('latin1').match(new RegExp(`\\b${this.#mark}: (in|out|within) [^\\0\\s"]{1,15}`, 'g')) ?? [];
  }
}
