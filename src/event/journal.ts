/**
 * Readers of the journal. Each has its own cursor and reads from the store where it is behind, so a slow one misses
 * nothing and costs no memory.
 */
import { invalid } from '../lib/errors.ts';
import { type Filters, matchesLabels, someValue } from '../lib/filters.ts';
import { nowNano } from '../lib/time.ts';
import type { Store } from '../store/types.ts';
import type { EngineEvent, EventJournal, EventQuery } from './types.ts';

/** Events fetched at once. */
const batch = 500;

export interface ObservedJournal extends EventJournal {
  /** Readers open now. */
  readonly readers: number;
}

export function createEventJournal(store: Store): ObservedJournal {
  let readers = 0;
  return {
    get readers() {
      return readers;
    },
    read(query, signal) {
      const { since, until } = query;
      if (since !== undefined && until !== undefined && since > until) {
        throw invalid(`\`since\` time (${seconds(since)}) cannot be after \`until\` time (${seconds(until)})`);
      }
      // Taken now and not at the first step: a client that has seen the headers misses nothing from then on.
      const start = since === undefined ? store.lastSeq : 0;
      return (async function* () {
        const news = new News(store, signal, until);
        readers++;
        try {
          yield* readFrom(store, start, query, news, signal);
        } finally {
          readers--;
          news.close();
        }
      })();
    },
  };
}

async function* readFrom(
  store: Store,
  start: number,
  query: EventQuery,
  news: News,
  signal: AbortSignal,
): AsyncGenerator<EngineEvent> {
  let cursor = start;
  while (!signal.aborted) {
    const seen = news.count;
    const events = await store.readEvents(cursor, batch, cursor === 0 ? query.since : undefined);
    for (const event of events) {
      cursor = event.seq;
      if (query.until !== undefined && event.timeNano > query.until) return;
      if (event.timeNano >= (query.since ?? 0n) && matches(event, query.filters)) yield event;
    }
    // A page may be short of rows that were damaged: only the newest number tells that all has been given.
    if (events.length > 0 && cursor < store.lastSeq) continue;
    if (query.until !== undefined && nowNano() > query.until) return;
    await news.after(seen);
  }
}

/** Wakes one reader: at a commit with events, when its time is up, or when its client has gone. */
class News {
  count = 0;
  #wake: (() => void) | null = null;
  readonly #end: () => void;
  #timer: NodeJS.Timeout | null = null;

  constructor(store: Store, signal: AbortSignal, until: bigint | undefined) {
    const tell = () => {
      this.count++;
      this.#wake?.();
    };
    const forget = store.onEvents(tell);
    signal.addEventListener('abort', tell, { once: true });
    if (until !== undefined) this.#alarm(until, tell);
    this.#end = () => {
      forget();
      signal.removeEventListener('abort', tell);
      if (this.#timer !== null) clearTimeout(this.#timer);
    };
  }

  /** Timers reach 24 days, so later times take several; and one may fire a moment early, when there would be no other. */
  #alarm(until: bigint, tell: () => void): void {
    const leftMs = Number((until - nowNano()) / 1_000_000n) + 1;
    const step = Math.min(Math.max(leftMs, 0), 2 ** 31 - 1);
    this.#timer = setTimeout(() => (nowNano() <= until ? this.#alarm(until, tell) : tell()), step);
  }

  /** Resolves when something has happened since `count` was `seen`. */
  async after(seen: number): Promise<void> {
    if (this.count !== seen) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    this.#wake = null;
  }

  close(): void {
    this.#end();
  }
}

const seconds = (nano: bigint) => `${nano / 1_000_000_000n}.${String(nano % 1_000_000_000n).padStart(9, '0')}`;

/** dockerd's meaning of the event filters: values of one filter are alternatives, labels must all be there. */
export function matches(event: EngineEvent, filters: Filters): boolean {
  const { type, action, id, attributes } = event;
  const names = (value: string) =>
    value === id || value === attributes.name || (value.length >= 4 && id.startsWith(value));
  const ofType = (kind: EngineEvent['type']) => someValue(filters, kind, (value) => type === kind && names(value));
  return (
    someValue(filters, 'type', (value) => value === type) &&
    // `exec_create` stands for `exec_create: sh -c …`.
    someValue(filters, 'event', (value) => value === action || value === action.split(':', 1)[0]) &&
    someValue(filters, 'scope', (value) => value === 'local') &&
    someValue(filters, 'image', (value) => matchesImage(event, value)) &&
    ofType('container') &&
    ofType('network') &&
    ofType('volume') &&
    ofType('plugin') &&
    ofType('daemon') &&
    matchesLabels(filters, attributes)
  );
}

/** The image itself, or a container made from it; with and without its tag. */
function matchesImage({ type, id, attributes }: EngineEvent, value: string): boolean {
  if (type !== 'image' && type !== 'container') return false;
  const name = (type === 'image' ? attributes.name : attributes.image) ?? '';
  const bare = name.replace(/:[^:/]+$/, '');
  return (
    [name, bare, type === 'image' ? id : ''].includes(value) ||
    (type === 'image' && bareId(id).startsWith(bareId(value)) && value.length >= 4)
  );
}

const bareId = (id: string) => id.replace(/^sha256:/, '');
