/** Detach keys: the key sequence by which a client leaves without ending the container's stdin. */
import { invalid } from '../lib/errors.ts';

const controlSymbols: Readonly<Record<string, number>> = { '@': 0, '[': 27, '\\': 28, ']': 29, '^': 30, _: 31 };

/** `ctrl-p,ctrl-q` → bytes. Single letters stand for themselves, `ctrl-` goes with a–z, @, [, \, ], ^ and _. Empty: the default. */
export function parseDetachKeys(text: string): Uint8Array {
  if (text === '') return Uint8Array.of(16, 17);
  return Uint8Array.from(text.split(','), (key) => {
    if (key.length === 1) return key.charCodeAt(0);
    const control = /^ctrl-(.)$/.exec(key)?.[1];
    if (control !== undefined && /[a-z]/.test(control)) return control.charCodeAt(0) - 96;
    const code = control === undefined ? undefined : controlSymbols[control];
    if (code === undefined) throw invalid(`Invalid escape keys (${text}) provided`);
    return code;
  });
}

/**
 * Watches what a client types. Bytes that may be the beginning of the sequence are held back until it is clear;
 * they are handed on with the next piece when it was not.
 */
export class DetachScanner {
  readonly #keys: Uint8Array;
  #matched = 0;

  constructor(keys: Uint8Array) {
    this.#keys = keys;
  }

  /** What to pass on, and whether the sequence was completed (what follows it is dropped). */
  scan(data: Uint8Array): { readonly pass: Uint8Array; readonly detached: boolean } {
    const out: number[] = [];
    let from = 0;
    const keys = this.#keys;
    if (this.#matched === 0 && !data.includes(keys[0] as number)) return { pass: data, detached: false };
    for (; from < data.length; from++) {
      const byte = data[from] as number;
      if (byte === keys[this.#matched]) {
        this.#matched++;
        if (this.#matched === keys.length) return { pass: Uint8Array.from(out), detached: true };
        continue;
      }
      for (let i = 0; i < this.#matched; i++) out.push(keys[i] as number);
      this.#matched = byte === keys[0] ? 1 : 0;
      if (this.#matched === 0) out.push(byte);
    }
    return { pass: Uint8Array.from(out), detached: false };
  }
}
