/** Files of containers: `/containers/{id}/archive`, `export`, `changes`, and `copy` of old. */
import fs from 'node:fs';
import type { PathStat } from '../../container/api.ts';
import { EngineError, invalid, notFound } from '../../lib/errors.ts';
import { rfc3339Nano } from '../../lib/time.ts';
import { object, text } from '../server/decode.ts';
import { flag } from '../server/query.ts';
import { type Context, reply, route } from '../server/route.ts';

const tar = 'application/x-tar';
const ref = (context: Context<unknown>) => context.params.id ?? '';

function pathOf(query: URLSearchParams): string {
  const path = query.get('path') ?? '';
  if (path === '') throw invalid("bad parameter: 'path' cannot be empty");
  return path;
}

export const fileRoutes = [
  route('HEAD /containers/{id}/archive', {}, async (context) => {
    const stat = await context.backend.containers.statPath(ref(context), pathOf(context.query));
    return { ...reply.empty(200), headers: statHeader(stat) };
  }),

  route('GET /containers/{id}/archive', {}, async (context) => {
    const path = pathOf(context.query);
    const { stat, archive } = await context.backend.containers.archive(ref(context), path, 'archive');
    const answer = reply.bytes(tar, archive);
    return { ...answer, headers: { ...answer.headers, ...statHeader(stat) } };
  }),

  route('PUT /containers/{id}/archive', { body: 'stream' }, async (context) => {
    const { query, backend, source, gone } = context;
    const asked = {
      path: pathOf(query),
      keepKinds: flag(query, 'noOverwriteDirNonDir'),
      ownedByUser: flag(query, 'copyUIDGID'),
    };
    await backend.containers.unarchive(ref(context), asked, source, gone);
    return reply.empty(200);
  }),

  route('GET /containers/{id}/export', {}, async (context) =>
    reply.bytes('application/octet-stream', await context.backend.containers.export(ref(context))),
  ),

  route('GET /containers/{id}/changes', {}, async (context) =>
    reply.json(await context.backend.containers.changes(ref(context))),
  ),

  route('POST /containers/{id}/copy', { body: object({ Resource: text }) }, async (context) => {
    const path = context.body?.Resource ?? '';
    if (path === '') throw invalid('Path cannot be empty');
    const { archive } = await context.backend.containers.archive(ref(context), path, 'resource').catch(withoutWords);
    return reply.bytes(tar, archive);
  }),
];

/** This endpoint never said which container it does not know. */
function withoutWords(error: unknown): never {
  if (error instanceof EngineError && error.message.startsWith('No such container')) throw notFound('');
  throw error;
}

/** `X-Docker-Container-Path-Stat`: base64 of JSON, the mode in the bits of Go's `os.FileMode`. */
function statHeader({ name, size, mode, modified, linkTarget }: PathStat): Readonly<Record<string, string>> {
  const mtime = rfc3339Nano(BigInt(modified.seconds) * 1_000_000_000n + BigInt(modified.nanoseconds));
  const json = JSON.stringify({ name, size, mode: goMode(mode), mtime, linkTarget });
  return { 'X-Docker-Container-Path-Stat': Buffer.from(json).toString('base64') };
}

const { S_IFMT, S_IFDIR, S_IFLNK, S_IFBLK, S_IFCHR, S_IFIFO, S_IFSOCK } = fs.constants;
const goTypes = new Map([
  [S_IFDIR, 2 ** 31],
  [S_IFLNK, 2 ** 27],
  [S_IFBLK, 2 ** 26],
  [S_IFCHR, 2 ** 26 + 2 ** 21],
  [S_IFIFO, 2 ** 25],
  [S_IFSOCK, 2 ** 24],
]);

/** Go keeps types and special bits above the permissions, each in a bit of its own. */
function goMode(mode: number): number {
  const special = (mode & 0o4000 ? 2 ** 23 : 0) + (mode & 0o2000 ? 2 ** 22 : 0) + (mode & 0o1000 ? 2 ** 20 : 0);
  return (mode & 0o777) + (goTypes.get(mode & S_IFMT) ?? 0) + special;
}
