/**
 * The kinds of failure the engine knows. A part throws an `EngineError` of a kind; one table at the edge
 * (`api/server/errors.ts`) turns kinds into HTTP statuses. The message is part of the API: clients match on it.
 */
export type ErrorKind =
  | 'not-found'
  | 'invalid'
  | 'conflict'
  | 'unauthorized'
  | 'forbidden'
  | 'unchanged'
  | 'unavailable'
  | 'not-acceptable'
  | 'not-implemented'
  | 'internal';

export class EngineError extends Error {
  readonly kind: ErrorKind;
  constructor(kind: ErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'EngineError';
    this.kind = kind;
  }
}

export const notFound = (message: string, options?: ErrorOptions) => new EngineError('not-found', message, options);
export const invalid = (message: string, options?: ErrorOptions) => new EngineError('invalid', message, options);
export const conflict = (message: string, options?: ErrorOptions) => new EngineError('conflict', message, options);
export const forbidden = (message: string, options?: ErrorOptions) => new EngineError('forbidden', message, options);
export const unavailable = (message: string, options?: ErrorOptions) =>
  new EngineError('unavailable', message, options);
export const notImplemented = (message: string) => new EngineError('not-implemented', message);
export const internal = (message: string, options?: ErrorOptions) => new EngineError('internal', message, options);
/** Nothing had to be done: start of a running container, stop of a stopped one. Answered 304. */
export const unchanged = (message: string) => new EngineError('unchanged', message);

/** What went wrong, as one line for a client; causes outside our own errors keep their text. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A broken promise of our own code. Not an error to handle: whatever holds the state stops and keeps it. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`invariant broken: ${message}`);
}
