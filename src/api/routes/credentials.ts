/** Registry credentials in the `X-Registry-Auth` header: base64url of JSON (W-72). */
import type { IncomingHttpHeaders } from 'node:http';
import type { Credentials } from '../../image/types.ts';
import { EngineError } from '../../lib/errors.ts';
import { credentialsRequest } from './schemas.ts';

/** Null without the header, and for what cannot be decoded: the registry then decides. */
export function credentialsOf(headers: IncomingHttpHeaders): Credentials | null {
  const header = headers['x-registry-auth'];
  if (typeof header !== 'string' || header === '') return null;
  try {
    return credentialsRequest(JSON.parse(Buffer.from(header, 'base64url').toString('utf8')));
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof EngineError) return null;
    throw error;
  }
}
