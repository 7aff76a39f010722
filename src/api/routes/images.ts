/** `/images/…` */
import type { Json } from '../../container/api.ts';
import type { Progress } from '../../image/types.ts';
import { invalid } from '../../lib/errors.ts';
import { parseJson, readBody } from '../server/decode.ts';
import { filters, flag } from '../server/query.ts';
import { type Context, type Messages, reply, route } from '../server/route.ts';
import { progressMessage } from '../wire/progress.ts';
import { credentialsOf } from './credentials.ts';
import { credentialsRequest } from './schemas.ts';

const tar = 'application/x-tar';
const name = (context: Context<unknown>) => context.params.name ?? '';

const progress = (source: AsyncIterable<Progress>, context: Context<unknown>, firstFailure: Messages['firstFailure']) =>
  reply.messages(drawn(source), { end: context.wire.progressEnd, firstFailure, tellsFailure: true });

async function* drawn(source: AsyncIterable<Progress>): AsyncIterable<Json> {
  for await (const message of source) yield progressMessage(message);
}

export const imageRoutes = [
  route('GET /images/json', {}, async ({ query, backend }) =>
    reply.json(
      await backend.images.list({
        all: flag(query, 'all'),
        digests: flag(query, 'digests'),
        filters: filters(query),
      }),
    ),
  ),

  route('POST /images/create', { body: 'stream' }, (context) => {
    const { query, headers, backend, source } = context;
    const [fromImage, tag] = [query.get('fromImage') ?? '', query.get('tag') ?? ''];
    if (fromImage !== '') {
      source.resume();
      const credentials = credentialsOf(headers);
      return progress(backend.images.pull({ name: fromImage, tag, credentials }, context.gone), context, 'status');
    }
    const request = {
      source: importSource(context),
      repo: query.get('repo') ?? '',
      tag,
      message: query.get('message') ?? '',
      changes: query.getAll('changes'),
    };
    return progress(backend.images.import(request, context.gone), context, 'status');
  }),

  route('POST /images/load', { body: 'stream' }, (context) => {
    const { query, backend, source } = context;
    return progress(backend.images.load(source, flag(query, 'quiet'), context.gone), context, 'stream');
  }),

  route('GET /images/get', {}, async (context) => {
    const names = context.query.getAll('names');
    if (names.length === 0) throw invalid('names of images to save are missing');
    return reply.bytes(tar, await context.backend.images.save(names, context.gone));
  }),
  route('GET /images/{name}/get', {}, async (context) =>
    reply.bytes(tar, await context.backend.images.save([name(context)], context.gone)),
  ),

  route('GET /images/{name}/json', {}, async (context) =>
    reply.json(await context.backend.images.inspect(name(context))),
  ),
  route('GET /images/{name}/history', {}, (context) => reply.json(context.backend.images.history(name(context)))),

  route('POST /images/{name}/tag', {}, async (context) => {
    const { query, backend } = context;
    await backend.images.tag(name(context), query.get('repo') ?? '', query.get('tag') ?? '');
    return reply.empty(201);
  }),

  route('POST /images/{name}/push', { body: 'stream' }, async (context) => {
    const { query, backend } = context;
    const credentials = await pushCredentials(context);
    const request = { name: name(context), tag: query.get('tag') ?? '', credentials };
    return progress(backend.images.push(request, context.gone), context, 'status');
  }),

  route('DELETE /images/{name}', {}, async (context) => {
    const { query, backend } = context;
    const options = { force: flag(query, 'force'), noprune: flag(query, 'noprune') };
    return reply.json(await backend.images.remove(name(context), options));
  }),

  route('POST /images/prune', {}, async ({ query, backend }) => {
    const { deleted, spaceReclaimed } = await backend.images.prune(filters(query));
    return reply.json({ ImagesDeleted: deleted.length === 0 ? null : deleted, SpaceReclaimed: spaceReclaimed });
  }),
];

/** `-` is the request's body; anything else a URL, http:// unless it says. */
function importSource({ query, source }: Context<unknown>) {
  const from = query.get('fromSrc') ?? '';
  if (from === '-') return source;
  source.resume();
  if (from === '') throw invalid('fromImage or fromSrc is missing');
  const url = URL.parse(/^[a-z]+:\/\//i.test(from) ? from : `http://${from}`);
  if (url === null || !/^https?:$/.test(url.protocol)) throw invalid(`fromSrc is not an http or https URL: ${from}`);
  return url;
}

/** Without the header the body is read as credentials; without either the push is refused (W-73). */
async function pushCredentials(context: Context<unknown>) {
  if (context.headers['x-registry-auth'] !== undefined) {
    context.source.resume();
    return credentialsOf(context.headers);
  }
  const body = parseJson(await readBody(context.source));
  if (body === undefined) throw invalid('Bad parameters and missing X-Registry-Auth: EOF');
  return credentialsRequest(body);
}
