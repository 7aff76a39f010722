/** `/volumes` */
import { filters, flag } from '../server/query.ts';
import { type Context, reply, route } from '../server/route.ts';
import { volumeRequest } from './schemas.ts';

const list = async ({ query, backend }: Context<undefined>) => reply.json(await backend.volumes.list(filters(query)));

export const volumeRoutes = [
  route('GET /volumes', {}, list),
  route('GET /volumes/', {}, list),

  route('POST /volumes/create', { body: volumeRequest, checkContentType: true }, async ({ body, backend }) => {
    const { Name, Driver, DriverOpts, Labels } = body ?? {};
    const request = { name: Name, driver: Driver, options: DriverOpts, labels: Labels };
    return reply.json(await backend.volumes.create(request), 201);
  }),

  route('POST /volumes/prune', {}, async ({ query, backend }) =>
    reply.json(await backend.volumes.prune(filters(query))),
  ),

  route('GET /volumes/{name}', {}, async ({ params, backend }) =>
    reply.json(await backend.volumes.inspect(params.name ?? '')),
  ),

  route('DELETE /volumes/{name}', {}, async ({ params, query, backend }) => {
    await backend.volumes.remove(params.name ?? '', flag(query, 'force'));
    return reply.empty(204);
  }),
];
