/**
 * Our one nftables table. It is a function of the bridges and the published ports; what it holds in the kernel is never taken over.
 *
 * Bridges and ports are elements of sets and maps (`table.ts`), so adding one is an `add element` whose cost does
 * not depend on how many there are.
 * Changes asked for while a transaction runs wait and go into the next one together. If the kernel refuses a change because
 * the table is not as we left it, or `check` sees that somebody flushed or changed it, the whole table is laid down anew in
 * one transaction.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Log } from '../lib/log.ts';
import { applyNft } from '../platform/nft.ts';
import type { Ruleset } from '../platform/ruleset.ts';
import {
  type BridgeRules,
  type Element,
  elementCommands,
  elementsOfBridge,
  elementsOfPort,
  hasSubnets,
  type Publication,
  placeOf,
  setNames,
  wholeTable,
} from './table.ts';

/** Between attempts to lay the table down that nobody asked for. */
const restMs = 10_000;

interface Change {
  /** Commands of nft; null: the whole table. */
  readonly commands: readonly string[] | null;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class Firewall {
  readonly #table: string;
  readonly #log: Log;
  /** What the table shall hold, by set and key. Changed at once when a change is asked for, so the newest wish wins. */
  readonly #elements = new Map<string, Element>();
  #waiting: Change[] = [];
  #running = false;
  /** The last transaction failed: the kernel has something else than `#elements`. */
  #stale = false;
  readonly #ruleset: Ruleset;
  /** The kernel's count of transactions when the table was last known to be right. */
  #generation = -1;
  /** Our rules as the kernel has them; null before the first. */
  #rules: { readonly table: bigint | undefined; readonly bytes: Buffer } | null = null;
  /** `performance.now()` before which nothing that failed is tried again by itself. */
  #restUntil = 0;

  constructor(table: string, ruleset: Ruleset, log: Log) {
    this.#table = table;
    this.#ruleset = ruleset;
    this.#log = log;
  }

  /** Lays the whole table down for these bridges and ports, in one transaction; established connections go on. */
  rebuild(bridges: readonly BridgeRules[], publications: readonly Publication[]): Promise<void> {
    this.#elements.clear();
    const all = [...bridges.flatMap(elementsOfBridge), ...publications.flatMap(elementsOfPort)];
    for (const element of all) this.#elements.set(placeOf(element), element);
    return this.#enqueue(null);
  }

  addBridge(bridge: BridgeRules): Promise<void> {
    return this.#add(elementsOfBridge(bridge));
  }

  removeBridge(bridge: BridgeRules): Promise<void> {
    return this.#remove(elementsOfBridge(bridge));
  }

  /** Resolves when the ports lead to their containers. Spawns nothing if there is nothing for nftables in it. */
  publish(publications: readonly Publication[]): Promise<void> {
    return this.#add(publications.flatMap(elementsOfPort));
  }

  /** Forgets ports. What is not there, or leads elsewhere by now, is left alone. */
  unpublish(publications: readonly Publication[]): Promise<void> {
    return this.#remove(publications.flatMap(elementsOfPort));
  }

  async #add(added: readonly Element[]): Promise<void> {
    for (const element of added) this.#elements.set(placeOf(element), element);
    await this.#enqueue(elementCommands(this.#table, 'add', added));
  }

  async #remove(elements: readonly Element[]): Promise<void> {
    const removed = elements.filter(
      // The relay is that of all ports.
      (element) => element.set !== 'relays' && this.#elements.get(placeOf(element))?.value === element.value,
    );
    for (const element of removed) this.#elements.delete(placeOf(element));
    await this.#enqueue(elementCommands(this.#table, 'delete', removed));
  }

  /** Lays the table down anew if it is not as it was left: flushed, or changed by somebody else. Cheap while nobody changes anything. */
  async check(): Promise<void> {
    if (this.#running || this.#rules === null) return;
    const generation = this.#ruleset.generation();
    if (generation === this.#generation && !this.#stale) return;
    if (!this.#stale && this.#isIntact()) {
      this.#generation = generation;
      return;
    }
    if (performance.now() < this.#restUntil) return;
    this.#restUntil = performance.now() + restMs;
    if (!this.#stale) this.#log.warn({ table: this.#table }, 'the firewall table was changed; laying it down anew');
    await this.#enqueue(null);
    this.#restUntil = 0;
  }

  #isIntact(): boolean {
    if (!isDeepStrictEqual(this.#readRules(), this.#rules)) return false;
    const wanted = new Map<string, number>();
    for (const { set } of this.#elements.values()) wanted.set(set, (wanted.get(set) ?? 0) + 1);
    return setNames.every((set) => {
      const [there, want] = [this.#ruleset.elementCount('inet', this.#table, set), wanted.get(set) ?? 0];
      // The kernel counts beginnings and ends of subnets.
      return hasSubnets(set) && there !== undefined ? there > 0 === want > 0 : there === want;
    });
  }

  #readRules(): { readonly table: bigint | undefined; readonly bytes: Buffer } {
    const rules = this.#ruleset.rules('inet', this.#table);
    return { table: this.#ruleset.table('inet', this.#table), bytes: Buffer.concat(rules.map(({ bytes }) => bytes)) };
  }

  /** Right after a transaction of ours: when it was the only one since the last look, there is nothing to look for. */
  #noteDone(whole: boolean): void {
    try {
      const generation = this.#ruleset.generation();
      if (whole) this.#rules = this.#readRules();
      if (whole || generation === this.#generation + 1) this.#generation = generation;
    } catch (error) {
      this.#log.warn({ error }, 'the firewall table could not be read');
    }
  }

  #enqueue(commands: readonly string[] | null): Promise<void> {
    if (commands?.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiting.push({ commands, resolve, reject });
      if (!this.#running) {
        this.#running = true;
        // Not at once: whatever asks in the same turn shares the transaction.
        setImmediate(() => void this.#drain());
      }
    });
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      let batch = this.#waiting.splice(0);
      try {
        const commands = batch.map((change) => change.commands);
        let whole = this.#stale || commands.includes(null);
        if (whole || !(await this.#tryCommands(commands.flatMap((each) => each ?? [])))) {
          whole = true;
          // The table as wished now has what came in meanwhile, too.
          batch = [...batch, ...this.#waiting.splice(0)];
          await applyNft(wholeTable(this.#table, this.#elements.values()));
        }
        this.#stale = false;
        this.#noteDone(whole);
        for (const change of batch) change.resolve();
      } catch (error) {
        this.#stale = true;
        for (const change of batch) change.reject(error);
      }
    }
    this.#running = false;
  }

  async #tryCommands(commands: readonly string[]): Promise<boolean> {
    try {
      await applyNft(`${commands.join('\n')}\n`);
      return true;
    } catch (error) {
      this.#log.warn({ error, table: this.#table }, 'the firewall table is not as it was left; laying it down anew');
      return false;
    }
  }
}
