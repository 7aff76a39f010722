/**
 * Regular expressions that clients send. Go's, which they are written for, take time in proportion to the text; JavaScript's may take
 * for ever, and everybody would wait. So one that could is given a deadline; when it runs out, the text does not match, nor does any other.
 */
import vm from 'node:vm';

/** One match of a name takes microseconds. */
const deadlineMs = 50;

const search = new vm.Script('regex.test(text)');

export class Pattern {
  readonly #regex: RegExp;
  readonly #isRisky: boolean;
  #isGivenUp = false;

  /** Throws a SyntaxError as `RegExp` does. */
  constructor(source: string, flags = '') {
    this.#regex = new RegExp(source, flags);
    // Without something repeated beside or within something repeated there is nothing to go back for.
    this.#isRisky = (source.match(/[*+?{\\]/g)?.length ?? 0) > 1;
  }

  test(text: string): boolean {
    if (this.#isGivenUp) return false;
    if (!this.#isRisky) return this.#regex.test(text);
    try {
      return search.runInNewContext({ regex: this.#regex, text }, { timeout: deadlineMs }) === true;
    } catch {
      this.#isGivenUp = true;
      return false;
    }
  }
}
