import { invariant } from '../lib/errors.ts';

/**
 * Freezes a record all the way down. Refuses what JSON would silently change (dates, maps, bigints, NaN …), because
 * a record must be the same before and after a restart.
 */
export function deepFreeze<T>(value: T): T {
  freeze(value, '');
  return value;
}

function freeze(value: unknown, path: string): void {
  if (value === null || typeof value === 'string' || typeof value === 'boolean' || value === undefined) return;
  if (typeof value === 'number') {
    invariant(Number.isFinite(value), `a record cannot keep the number at ${path}`);
    return;
  }
  invariant(typeof value === 'object', `a record cannot keep the ${typeof value} at ${path}`);
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) freeze(value[index], `${path}[${index}]`);
  } else {
    const prototype: unknown = Object.getPrototypeOf(value);
    invariant(prototype === Object.prototype || prototype === null, `a record cannot keep the object at ${path}`);
    for (const key in value) freeze((value as Record<string, unknown>)[key], `${path}.${key}`);
  }
  Object.freeze(value);
}
