/** Endpoints of the API that this engine does not serve yet. Each answers 501 and says its name. */
import { notImplemented } from '../../lib/errors.ts';
import { type Method, route } from '../server/route.ts';

const unsupported: readonly `${Method} /${string}`[] = [
  'POST /build',
  'GET /images/search',

  'GET /plugins',
  'GET /plugins/privileges',
  'POST /plugins/pull',
  'POST /plugins/create',
  'GET /plugins/{name}/json',
  'DELETE /plugins/{name}',
  'POST /plugins/{name}/enable',
  'POST /plugins/{name}/disable',
  'POST /plugins/{name}/upgrade',
  'POST /plugins/{name}/push',
  'POST /plugins/{name}/set',

  'GET /swarm',
  'POST /swarm/init',
  'POST /swarm/join',
  'POST /swarm/leave',
  'POST /swarm/update',
  'POST /swarm/unlock',
  'GET /swarm/unlockkey',
  'GET /nodes',
  'GET /nodes/{id}',
  'DELETE /nodes/{id}',
  'POST /nodes/{id}/update',
  'GET /services',
  'POST /services/create',
  'GET /services/{id}',
  'DELETE /services/{id}',
  'POST /services/{id}/update',
  'GET /services/{id}/logs',
  'GET /tasks',
  'GET /tasks/{id}',
  'GET /secrets',
  'POST /secrets/create',
  'GET /secrets/{id}',
  'DELETE /secrets/{id}',
  'POST /secrets/{id}/update',
];

export const unsupportedRoutes = unsupported.map((endpoint) =>
  route(endpoint, {}, () => {
    throw notImplemented(`${endpoint} is not supported yet`);
  }),
);
