/** `/containers/{id}/exec` and `/exec/…` */
import type { ExecBody } from '../../container/api.ts';
import { invalid } from '../../lib/errors.ts';
import { integer } from '../server/query.ts';
import { reply, route } from '../server/route.ts';
import { execRequest, execStartRequest } from './schemas.ts';

export const execRoutes = [
  route(
    'POST /containers/{id}/exec',
    { body: execRequest, checkContentType: true },
    async ({ params, body, backend }) => {
      if (!body?.Cmd?.length) throw invalid('No exec command specified');
      return reply.json(await backend.containers.execCreate(params.id ?? '', body as ExecBody), 201);
    },
  ),

  route('POST /exec/{id}/start', { body: execStartRequest, hijack: true }, async (context) => {
    const { params, body, backend, wire } = context;
    const attachment = await backend.containers.execStart(
      params.id ?? '',
      { detach: body?.Detach ?? false, tty: body?.Tty ?? false, framed: wire.framed },
      context.gone,
    );
    return attachment === null ? reply.empty(200) : reply.hijack(attachment);
  }),

  route('POST /exec/{id}/resize', {}, async ({ params, query, backend }) => {
    const [rows, columns] = [integer(query, 'h'), integer(query, 'w')];
    if (rows === undefined || columns === undefined) throw invalid('invalid value of h or w: not a terminal size');
    await backend.containers.execResize(params.id ?? '', rows, columns);
    return reply.empty(200);
  }),

  route('GET /exec/{id}/json', {}, async ({ params, backend }) =>
    reply.json(await backend.containers.execInspect(params.id ?? '')),
  ),
];
