/** From bytes to a checked body. Names match in any case (W-40), null counts as absent, unknown properties are ignored. */
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import type { Static, TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { invalid } from '../../lib/errors.ts';
import { ClientGone, HttpError } from './errors.ts';

/** A create body with the longest environment Linux can pass to a process is below this; parsing it takes milliseconds. */
export const jsonBytesMax = 4 * 1024 * 1024;

/** Turns parsed JSON into what a route expects, or throws an 'invalid' that names the property. */
export type Decoder<T> = (value: unknown) => T;

export function decoder<S extends TSchema>(schema: S): Decoder<Static<S>> {
  const fold = folderOf(schema as unknown as JsonSchema);
  const check = Compile(schema);
  return (value) => {
    const folded = fold(value);
    if (check.Check(folded)) return folded as Static<S>;
    const error = check.Errors(folded)[0];
    const name = (error?.instancePath ?? '').slice(1).replaceAll('/', '.');
    throw invalid(`invalid JSON: ${name === '' ? 'the body' : name} ${error?.message ?? 'is not valid'}`);
  };
}

/** The part of a JSON schema that says where property names are. */
interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly items?: JsonSchema;
  readonly patternProperties?: Readonly<Record<string, JsonSchema>>;
  readonly anyOf?: readonly JsonSchema[];
}

type Folder = (value: unknown) => unknown;
const same: Folder = (value) => value;
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A function that gives known properties their spelling and drops those that are null. It changes its argument. */
function folderOf(schema: JsonSchema): Folder {
  if (schema.properties !== undefined) return objectFolder(schema.properties);
  if (schema.items !== undefined) {
    const item = folderOf(schema.items);
    return item === same ? same : (value) => (Array.isArray(value) ? value.map(item) : value);
  }
  const entry = Object.values(schema.patternProperties ?? {})[0];
  if (entry !== undefined) {
    const fold = folderOf(entry);
    if (fold === same) return same;
    return (value) => {
      if (isObject(value)) for (const key of Object.keys(value)) value[key] = fold(value[key]);
      return value;
    };
  }
  const alternatives = (schema.anyOf ?? []).map(folderOf).filter((fold) => fold !== same);
  return alternatives[0] ?? same;
}

function objectFolder(properties: Readonly<Record<string, JsonSchema>>): Folder {
  const known = new Map<string, { readonly name: string; readonly fold: Folder }>();
  for (const [name, schema] of Object.entries(properties)) {
    const entry = { name, fold: folderOf(schema) };
    known.set(name, entry);
    if (!known.has(name.toLowerCase())) known.set(name.toLowerCase(), entry);
  }
  return (value) => {
    if (!isObject(value)) return value;
    for (const key of Object.keys(value)) {
      const entry = known.get(key) ?? known.get(key.toLowerCase());
      if (entry === undefined) continue;
      const content = value[key];
      if (key !== entry.name) delete value[key];
      if (content === null) delete value[entry.name];
      else value[entry.name] = entry.fold(content);
    }
    return value;
  };
}

/** The whole body; 413 when it is longer than `limit`, the rest is then dropped as it comes. */
export async function readBody(source: Readable, limit = jsonBytesMax): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of source.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > limit) throw new HttpError(413, `request body too large: at most ${limit} bytes are accepted`);
      chunks.push(chunk);
    }
  } catch (error) {
    if (!(error instanceof HttpError)) throw new ClientGone('the client left within its request', { cause: error });
    source.resume();
    throw error;
  }
  return chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
}

/** Undefined for an empty body. */
export function parseJson(bytes: Buffer): unknown {
  if (bytes.length === 0) return undefined;
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw invalid(`invalid JSON: ${error instanceof Error ? error.message : error}`);
  }
}

export function checkContentType(request: Pick<IncomingMessage, 'headers'>, hasBody: boolean): void {
  const type = request.headers['content-type'] ?? '';
  if (type === '' && !hasBody) return;
  if (type.split(';', 1)[0]?.trim().toLowerCase() === 'application/json') return;
  throw invalid(`Content-Type specified (${type}) must be 'application/json'`);
}
