/** `POST /commit` */
import type { CreateBody } from '../../container/api.ts';
import { invalid } from '../../lib/errors.ts';
import { flag } from '../server/query.ts';
import { reply, route } from '../server/route.ts';
import { createRequest, isEmptyConfig } from './schemas.ts';

export const commitRoutes = [
  route('POST /commit', { body: createRequest, checkContentType: true }, async ({ query, body, backend }) => {
    const container = query.get('container') ?? '';
    if (container === '') throw invalid('invalid name or ID supplied: ""');
    const { Id } = await backend.containers.commit(container, {
      repo: query.get('repo') ?? '',
      tag: query.get('tag') ?? '',
      author: query.get('author') ?? '',
      comment: query.get('comment') ?? '',
      // Absent and empty both mean yes: an image of a container in the middle of writing has to be asked for.
      pause: (query.get('pause') ?? '') === '' || flag(query, 'pause'),
      changes: query.getAll('changes'),
      config: isEmptyConfig(body) ? null : (body as unknown as CreateBody),
    });
    return reply.json({ Id }, 201);
  }),
];
