/** `/containers/…` */
import type { CreateBody, UpdateBody } from '../../container/api.ts';
import { invalid, notImplemented } from '../../lib/errors.ts';
import { filters, flag, integer, timestamp } from '../server/query.ts';
import { type Context, type Reply, reply, route } from '../server/route.ts';
import { type CreateRequest, createRequest, isEmptyConfig, updateRequest } from './schemas.ts';

const rawStream = 'application/vnd.docker.raw-stream';
const jsonLine = '\n';

const ref = (context: Context<unknown>) => context.params.id ?? '';
const size = (query: URLSearchParams, name: string) => {
  const value = integer(query, name);
  if (value === undefined || value < 0 || value > 65_535)
    throw invalid(`invalid value of ${name}: not a terminal size`);
  return value;
};

/** A route that asks one thing of one container and answers without a body. */
const command = (
  name: string,
  act: (ref: string, query: URLSearchParams, context: Context<undefined>) => Promise<void>,
  status = 204,
) =>
  route(`POST /containers/{id}/${name}`, {}, async (context): Promise<Reply> => {
    await act(ref(context), context.query, context);
    return reply.empty(status);
  });

export const containerRoutes = [
  route('GET /containers/json', {}, async ({ query, backend }) =>
    reply.json(
      await backend.containers.list({
        all: flag(query, 'all'),
        limit: Math.max(0, integer(query, 'limit') ?? 0),
        size: flag(query, 'size'),
        filters: filters(query),
      }),
    ),
  ),

  route(
    'POST /containers/create',
    { body: createRequest, checkContentType: true },
    async ({ query, body, backend }) => {
      if (isEmptyConfig(body)) throw invalid('Config cannot be empty in order to create a container');
      const { Id, Warnings } = await backend.containers.create(query.get('name') ?? '', asCreateBody(body));
      return reply.json({ Id, Warnings }, 201);
    },
  ),

  route('GET /containers/{id}/json', {}, async (context) =>
    reply.json(await context.backend.containers.inspect(ref(context), flag(context.query, 'size'))),
  ),

  command('start', async (id, query, { backend, bodyLength }) => {
    // Short bodies such as `{}` have always been sent and ignored.
    if (bodyLength === undefined || bodyLength > startBodyBytesMax) {
      throw invalid(
        'starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24',
      );
    }
    if (query.get('checkpoint')) throw notImplemented('checkpoints are not supported yet');
    await backend.containers.start(id, { detachKeys: query.get('detachKeys') ?? '' });
  }),
  command('stop', (id, query, { backend }) => backend.containers.stop(id, integer(query, 't'))),
  command('restart', (id, query, { backend }) => backend.containers.restart(id, integer(query, 't'))),
  command('kill', (id, query, { backend }) => backend.containers.kill(id, query.get('signal') ?? '')),
  command('pause', (id, _, { backend }) => backend.containers.pause(id)),
  command('unpause', (id, _, { backend }) => backend.containers.unpause(id)),
  command('rename', (id, query, { backend }) => backend.containers.rename(id, query.get('name') ?? '')),
  command('resize', (id, query, { backend }) => backend.containers.resize(id, size(query, 'h'), size(query, 'w')), 200),

  route('POST /containers/{id}/update', { body: updateRequest, checkContentType: true }, async (context) => {
    const { Warnings } = await context.backend.containers.update(ref(context), context.body as UpdateBody);
    return reply.json({ Warnings });
  }),

  route('POST /containers/{id}/wait', {}, async (context) => {
    const { StatusCode } = await context.backend.containers.wait(ref(context), context.gone);
    return reply.json({ StatusCode });
  }),

  route('DELETE /containers/{id}', {}, async (context) => {
    const { query, backend } = context;
    await backend.containers.remove(ref(context), {
      force: flag(query, 'force'),
      volumes: flag(query, 'v'),
      link: flag(query, 'link'),
    });
    return reply.empty(204);
  }),

  route('GET /containers/{id}/logs', {}, async (context) => {
    const { query, backend, wire } = context;
    const [stdout, stderr] = [flag(query, 'stdout'), flag(query, 'stderr')];
    if (!stdout && !stderr) throw invalid('Bad parameters: you must choose at least one stream');
    const output = await backend.containers.logs(
      ref(context),
      {
        stdout,
        stderr,
        since: timestamp(query, 'since'),
        timestamps: flag(query, 'timestamps'),
        details: flag(query, 'details'),
        tail: tailOf(query),
        follow: flag(query, 'follow'),
        framed: wire.framed,
      },
      context.gone,
    );
    return reply.bytes(rawStream, output);
  }),

  route('POST /containers/{id}/attach', { hijack: true }, async (context) => {
    const { query, backend, wire } = context;
    const attachment = await backend.containers.attach(
      ref(context),
      {
        stdin: flag(query, 'stdin'),
        stdout: flag(query, 'stdout'),
        stderr: flag(query, 'stderr'),
        logs: flag(query, 'logs'),
        stream: flag(query, 'stream'),
        detachKeys: query.get('detachKeys') ?? '',
        framed: wire.framed,
      },
      context.gone,
    );
    return reply.hijack(attachment);
  }),

  route('GET /containers/{id}/top', {}, async (context) =>
    reply.json(await context.backend.containers.top(ref(context), context.query.get('ps_args') ?? '')),
  ),

  route('GET /containers/{id}/stats', {}, async (context) => {
    const stream = flag(context.query, 'stream', true);
    const samples = await context.backend.containers.stats(ref(context), { stream, oneShot: false }, context.gone);
    return reply.messages(samples, {
      end: jsonLine,
      firstFailure: stream ? 'stream' : 'status',
      tellsFailure: false,
    });
  }),

  route('POST /containers/prune', {}, async ({ query, backend }) =>
    reply.json(await backend.containers.prune(filters(query))),
  ),
];

const startBodyBytesMax = 7;

/** `all`, or anything but a number: everything. */
function tailOf(query: URLSearchParams): number | undefined {
  const value = query.get('tail') ?? '';
  return /^\d{1,9}$/.test(value) ? Number(value) : undefined;
}

/** Checked by its schema; names of states, mount types and the like are checked by whoever knows them. */
const asCreateBody = (body: CreateRequest) => body as unknown as CreateBody;
