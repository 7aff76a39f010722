/** API 1.24 (docker 1.12), seen from 1.23. */
import { accepts, added, addFilter, adds, inQuery, question, removed, same, version, wire } from './dsl.ts';

export const v1_24 = version('1.24', [
  wire(['1.24-01', 'W-42', 'W-43'], 'errors are JSON', { errors: 'text' }),
  same(['1.24-02', '1.24-03'], 'a host config at start is refused at every version until updates are supported'),
  removed('POST /containers/{id}/copy', ['1.24-04', '1.24-05'], 'archive has taken its place', 'empty'),
  same('1.24-06', "a client's mistake is a 400 at every version"),
  same('1.24-07', 'host names were checked by four patch releases only'),
  accepts('POST /containers/create', '1.24-08', ['Healthcheck', 'Shell']),
  accepts('POST /containers/create', '1.24-09', [
    'HostConfig.Runtime',
    'HostConfig.IOMaximumIOps',
    'HostConfig.IOMaximumBandwidth',
    'HostConfig.StorageOpt',
    'HostConfig.Sysctls',
  ]),
  accepts('POST /containers/create', '1.24-10', ['HostConfig.PidMode=container:<id>']),
  adds('GET /containers/{id}/json', '1.24-11', ['State.Health']),
  accepts('GET /containers/json', '1.24-12', ['filters.network']),
  question(
    'GET /containers/json',
    ['1.25-17', '1.0-06'],
    'since and before do nothing any more',
    inQuery((query) => {
      for (const name of ['since', 'before']) {
        const reference = query.get(name);
        if (reference) addFilter(query, name, reference);
      }
    }),
  ),
  accepts('GET /containers/{id}/logs', '1.24-13', ['?details']),
  accepts('GET /images/search', '1.24-14', ['?limit', '?filters']),
  accepts('GET /images/json', '1.24-15', ['filters.before', 'filters.since']),
  same('1.24-16', 'force of tag does nothing at any version'),
  adds('GET /info', '1.24-17', ['SecurityOptions', 'Runtimes', 'DefaultRuntime', 'Swarm', 'LiveRestoreEnabled']),
  adds('GET /events', '1.24-19', [
    'Action=detach',
    'Action=exec_detach',
    'Action=health_status',
    'Action=reload',
    'Type=daemon',
  ]),
  accepts('GET /events', '1.24-19', ['filters.daemon']),
  same('1.24-20', 'since after until is a 400 at every version'),
  accepts('GET /networks', '1.24-21', ['filters.label', 'filters.driver']),
  same('1.24-22', 'a documented 403'),
  adds('GET /volumes', '1.24-23', ['Volumes.[].Scope']),
  same('1.24-24', 'plugins of 1.24 were in experimental builds only'),
  added(
    ['GET /swarm', 'POST /swarm/init', 'POST /swarm/join', 'POST /swarm/leave', 'POST /swarm/update'],
    ['1.24-25', '1.24-26', '1.24-27', '1.24-28', '1.24-31'],
  ),
  added(
    [
      'GET /services',
      'POST /services/create',
      'GET /services/{id}',
      'DELETE /services/{id}',
      'POST /services/{id}/update',
    ],
    '1.24-29',
  ),
  added(
    ['GET /nodes', 'GET /nodes/{id}', 'DELETE /nodes/{id}', 'POST /nodes/{id}/update', 'GET /tasks', 'GET /tasks/{id}'],
    ['1.24-30', '1.24-32'],
  ),
  same('1.24-33', 'Container in the body of an exec is ignored at every version'),
  same('1.24-34', 'Node belongs to classic Swarm'),
  same('1.24-35', "a client's mistake is a 400 at every version"),
]);
