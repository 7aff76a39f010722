/**
 * Waiting for a promise that lives long, by many who come and go. A plain `then` would keep everyone who ever waited
 * in memory until the promise settles.
 */
interface Watched {
  over: boolean;
  readonly listeners: Set<() => void>;
}

const watched = new WeakMap<Promise<unknown>, Watched>();

/** Calls `listener` when `ended` settles, unless `forget` is called before. */
export function whenOver(ended: Promise<unknown>, listener: () => void) {
  let entry = watched.get(ended);
  if (!entry) {
    const fresh: Watched = { over: false, listeners: new Set() };
    entry = fresh;
    watched.set(ended, fresh);
    const settle = (): void => {
      fresh.over = true;
      for (const each of fresh.listeners) each();
      fresh.listeners.clear();
    };
    ended.then(settle, settle);
  }
  const { listeners } = entry;
  const state = entry;
  listeners.add(listener);
  return { isOver: (): boolean => state.over, forget: (): boolean => listeners.delete(listener) };
}
