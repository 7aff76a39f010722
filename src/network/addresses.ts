/**
 * The addresses of one subnet. What is taken is known from the live sandboxes alone: nothing is stored, so nothing can be
 * forgotten there, and after a restart it is told again by `take`.
 */
import { conflict, internal } from '../lib/errors.ts';
import { formatIPv4, lastOf, type Subnet } from './ipv4.ts';

export class Addresses {
  readonly #network: string;
  readonly #first: number;
  readonly #last: number;
  readonly #gateway: number;
  /** Address to who holds it. */
  readonly #taken = new Map<number, string>();
  /** Goes round the subnet, so that an address given back rests as long as possible before it is used again. */
  #next: number;

  /** `network` is the name for error messages. The lowest address, the broadcast address and the gateway are never given. */
  constructor(network: string, subnet: Subnet, gateway: number) {
    this.#network = network;
    this.#first = subnet.base + 1;
    this.#last = lastOf(subnet) - 1;
    this.#gateway = gateway;
    this.#next = this.#first;
  }

  /** A free address. Costs a few steps however many are taken, until the subnet is nearly full. */
  allocate(owner: string): number {
    const size = this.#last - this.#first + 1;
    for (let step = 0; step < size; step++) {
      const address = this.#next;
      this.#next = address >= this.#last ? this.#first : address + 1;
      if (address === this.#gateway || this.#taken.has(address)) continue;
      this.#taken.set(address, owner);
      return address;
    }
    throw internal(`no available IPv4 addresses on this network's address pools: ${this.#network}`);
  }

  /** Marks an address a live sandbox has. Taken by another: an error, since two can't work. */
  take(address: number, owner: string): void {
    const holder = this.#taken.get(address);
    if (holder !== undefined && holder !== owner) {
      throw conflict(`address ${formatIPv4(address)} of ${this.#network} belongs to ${holder} already`);
    }
    this.#taken.set(address, owner);
    if (address >= this.#next && address < this.#last) this.#next = address + 1;
  }

  /** Does nothing unless `owner` holds it: giving back twice must not free what is someone else's by then. */
  release(address: number, owner: string): void {
    if (this.#taken.get(address) === owner) this.#taken.delete(address);
  }

  get size(): number {
    return this.#taken.size;
  }
}
