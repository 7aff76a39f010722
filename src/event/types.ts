/** Events as clients of `GET /events` see them, in the newest API's terms. */

export type EventType = 'container' | 'image' | 'network' | 'volume' | 'plugin' | 'daemon';

export interface NewEvent {
  readonly type: EventType;
  /** `create`, `start`, `die`, `exec_create: sh -c …`, … */
  readonly action: string;
  readonly id: string;
  /** Container: `image`, `name`, labels, and by action `exitCode`, `signal`, … */
  readonly attributes: Readonly<Record<string, string>>;
  /** Nanoseconds since the epoch; the time of the commit when absent. */
  readonly timeNano?: bigint;
}

export interface EngineEvent extends NewEvent {
  /** Position in the journal, growing by one. */
  readonly seq: number;
  readonly timeNano: bigint;
}

export interface EventQuery {
  /** Nanoseconds since the epoch. Without `since` only what happens from now on. */
  readonly since?: bigint | undefined;
  /** With `until` the answer ends there. */
  readonly until?: bigint | undefined;
  /** Filter name to allowed values (`container`, `image`, `event`, `type`, `label`, `network`, `volume`, `daemon`, `plugin`, `scope`). */
  readonly filters: ReadonlyMap<string, readonly string[]>;
}

/** The journal of events: kept over restarts, at least 100 000 long; each reader has its own cursor and misses nothing. */
export interface EventJournal {
  read(query: EventQuery, signal: AbortSignal): AsyncIterable<EngineEvent>;
}
