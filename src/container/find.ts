/** Finding a container by what a client calls it: id, name, another's link to it (`web/db`), or unambiguous beginning of an id. */
import { invalid, notFound } from '../lib/errors.ts';
import type { ContainerId } from '../lib/ids.ts';
import type { Collection } from '../store/types.ts';
import type { ContainerLink, ContainerRecord } from './types.ts';

export class ContainerIndex {
  readonly #records: Collection<ContainerRecord>;
  /** Names in use, also of containers that are just being created or renamed. */
  readonly #names = new Map<string, ContainerId>();

  constructor(records: Collection<ContainerRecord>) {
    this.#records = records;
    for (const record of records.values()) this.#names.set(record.name, record.id);
  }

  /** Throws `No such container: X`, or dockerd's refusal of an ambiguous prefix. */
  resolve(ref: string): ContainerRecord {
    const found = this.find(ref);
    if (found === undefined) throw notFound(`No such container: ${ref}`);
    return found;
  }

  find(ref: string): ContainerRecord | undefined {
    const exact = this.#records.get(ref);
    if (exact) return exact;
    const name = ref.replace(/^\//, '');
    const named = this.#named(name);
    if (named) return named;
    const slash = name.lastIndexOf('/');
    if (slash > 0) {
      const link = this.#named(name.slice(0, slash))?.links?.find(({ alias }) => alias === name.slice(slash + 1));
      return link && this.targetOf(link);
    }
    if (!/^[0-9a-f]{1,63}$/.test(ref)) return undefined;
    let match: ContainerRecord | undefined;
    for (const record of this.#records.values()) {
      if (!record.id.startsWith(ref)) continue;
      if (match) throw invalid(`Multiple IDs found with provided prefix: ${ref}`);
      match = record;
    }
    return match;
  }

  /** The container a link leads to: after its removal, the one that has its name by then. */
  targetOf(link: ContainerLink): ContainerRecord | undefined {
    return this.#records.get(link.target) ?? this.#named(link.name);
  }

  #named(name: string): ContainerRecord | undefined {
    const id = this.#names.get(name);
    return id && this.#records.get(id);
  }

  /** Takes a name for a container; the loser of a race learns who holds it. */
  holderOf(name: string): ContainerId | undefined {
    return this.#names.get(name);
  }

  reserve(name: string, id: ContainerId): void {
    this.#names.set(name, id);
  }

  release(name: string, id: ContainerId): void {
    if (this.#names.get(name) === id) this.#names.delete(name);
  }
}
