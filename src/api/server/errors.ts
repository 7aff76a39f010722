/** Kinds of failure to statuses: the one table. The words are the engine's own; clients match on them (ERRORS.md). */
import { EngineError, type ErrorKind, messageOf } from '../../lib/errors.ts';

const statusOfKind = {
  'not-found': 404,
  invalid: 400,
  conflict: 409,
  unauthorized: 401,
  forbidden: 403,
  unchanged: 304,
  unavailable: 503,
  'not-acceptable': 406,
  'not-implemented': 501,
  internal: 500,
} as const satisfies Record<ErrorKind, number>;

/** A failure on its way to a client. */
export interface Failure {
  readonly status: number;
  readonly message: string;
}

/** Failures that only HTTP knows: a body that is too large, for instance. */
export class HttpError extends Error implements Failure {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** The client left while we were still reading from it: there is nobody to answer. */
export class ClientGone extends Error {}

export function failureOf(error: unknown): Failure {
  if (error instanceof EngineError) return { status: statusOfKind[error.kind], message: error.message };
  if (error instanceof HttpError) return { status: error.status, message: error.message };
  return { status: 500, message: messageOf(error) };
}

/** True for what nobody expected: worth a line with its stack in the daemon's log. */
export const isUnexpected = (error: unknown) => !(error instanceof EngineError || error instanceof HttpError);
