/** `/_ping`, `/version`, `/info`, `/system/df`, `/auth`, `/events` */
import type { Json } from '../../container/api.ts';
import type { EngineEvent } from '../../event/types.ts';
import { invalid } from '../../lib/errors.ts';
import { filters, timestamp } from '../server/query.ts';
import { reply, route } from '../server/route.ts';
import { exactNumber } from '../wire/json.ts';
import { credentialsRequest } from './schemas.ts';

const neverCached = { 'Cache-Control': 'no-cache, no-store, must-revalidate', Pragma: 'no-cache' };

export const systemRoutes = [
  route('GET /_ping', {}, () => reply.text('OK', neverCached)),
  route('HEAD /_ping', {}, () => reply.text('', neverCached)),

  route('GET /version', {}, ({ backend, versions }) =>
    reply.json({ ...backend.system.version(), ApiVersion: versions.newest, MinAPIVersion: versions.oldest }),
  ),
  route('GET /info', {}, async ({ backend }) => reply.json(await backend.system.info())),

  route('GET /system/df', {}, async ({ backend }) => reply.json(await backend.system.df())),

  route('POST /auth', { body: credentialsRequest }, async ({ body, backend }) =>
    reply.json(await backend.system.login(body)),
  ),

  route('GET /events', {}, (context) => {
    const { query, backend, wire } = context;
    const [since, until] = [timestamp(query, 'since'), timestamp(query, 'until')];
    if (since !== undefined && until !== undefined && since > until) {
      throw invalid(`\`since\` time (${query.get('since')}) cannot be after \`until\` time (${query.get('until')})`);
    }
    const events = backend.events.read({ since, until, filters: filters(query) }, context.gone);
    return reply.messages(eventMessages(events), { end: wire.eventEnd, firstFailure: 'stream', tellsFailure: false });
  }),
];

async function* eventMessages(events: AsyncIterable<EngineEvent>): AsyncIterable<Json> {
  for await (const event of events) yield eventMessage(event);
}

/** Containers and images also have the keys they had before events had types. */
export function eventMessage({ type, action, id, attributes, timeNano }: EngineEvent): Json {
  const isOld = type === 'container' || type === 'image';
  const image = type === 'container' ? attributes.image : undefined;
  return {
    ...(isOld ? { status: action, id } : {}),
    ...(image === undefined ? {} : { from: image }),
    Type: type,
    Action: action,
    Actor: { ID: id, Attributes: attributes },
    time: Number(timeNano / 1_000_000_000n),
    timeNano: exactNumber(timeNano),
  };
}
