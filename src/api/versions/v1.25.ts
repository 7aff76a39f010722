/** API 1.25 (docker 1.13.0), seen from 1.24. */
import type { Json } from '../../container/api.ts';
import {
  accepts,
  added,
  addFilter,
  adds,
  answer,
  inBody,
  inQuery,
  object,
  question,
  rows,
  same,
  under,
  version,
} from './dsl.ts';

/** `name=seccomp,profile=default` → `seccomp`. */
const bareName = (option: unknown) => /^name=([^,]*)/.exec(String(option))?.[1] ?? option;

const shownAsExited = (row: Json, key: string): Json => (row[key] === 'removing' ? { ...row, [key]: 'exited' } : row);

export const v1_25 = version('1.25', [
  same('1.25-01', 'the path needs no version, whatever the documents say'),
  same('1.25-02', 'Api-Version and Docker-Experimental are sent at every version'),
  adds('GET /version', '1.25-03', ['MinAPIVersion']),
  answer('GET /info', ['1.25-04', '1.25-05', '1.24-18'], 'SecurityOptions hold key=value, ExecutionDriver is gone', {
    body: object((info) => ({
      ...info,
      ...(Array.isArray(info.SecurityOptions) ? { SecurityOptions: info.SecurityOptions.map(bareName) } : {}),
      ExecutionDriver: '<not supported>',
    })),
  }),
  adds('GET /info', '1.25-06', ['Isolation', 'InitBinary', 'ContainerdCommit', 'RuncCommit', 'InitCommit']),

  question(
    'POST /containers/create',
    '1.25-07',
    'AutoRemove is honoured',
    inBody(under('HostConfig', (host) => ({ ...host, AutoRemove: false }))),
  ),
  accepts('POST /containers/create', '1.25-08', [
    'HostConfig.Mounts',
    'HostConfig.Init',
    'HostConfig.NanoCpus',
    'HostConfig.CpuRealtimePeriod',
    'HostConfig.CpuRealtimeRuntime',
    'HostConfig.CpuCount',
  ]),
  accepts('POST /containers/create', '1.25-09', ['StopTimeout']),
  same(['1.25-10', '1.25-11'], "a client's mistake is refused at every version"),
  accepts('POST /containers/create', '1.25-12', [
    'HostConfig.LogConfig.Config.mode',
    'HostConfig.LogConfig.Config.max-buffer-size',
  ]),
  answer(['POST /containers/create', 'POST /containers/{id}/rename'], '1.25-13', 'a taken name is a container name', {
    failure: (failure) => ({
      ...failure,
      message: failure.message
        .replace('Conflict. The container name "', 'Conflict. The name "')
        .replace(/(by container )"([0-9a-f]{64})"/, '$1$2'),
    }),
  }),
  same('1.25-14', 'a removal under way is a 409 at every version, as in docker since 17.09'),
  answer('GET /containers/json', '1.25-15', 'State may be removing', {
    body: rows((row) => shownAsExited(row, 'State')),
  }),
  answer('GET /containers/{id}/json', '1.25-15', 'State.Status may be removing', {
    body: object(under('State', (state) => shownAsExited(state, 'Status'))),
  }),
  accepts('GET /containers/json', '1.25-16', ['filters.health', 'filters.is-task', 'filters.status=removing']),
  adds('GET /containers/json', '1.25-18', ['[].Mounts.[].Type']),
  adds('GET /containers/{id}/json', '1.25-18', ['Mounts.[].Type']),
  accepts('POST /containers/{id}/exec', '1.25-19', ['Env']),
  adds('GET /exec/{id}/json', '1.25-20', ['Pid']),
  adds('GET /containers/{id}/stats', '1.25-21', ['name', 'id', 'preread', 'num_procs', 'storage_stats']),
  accepts('POST /containers/{id}/start', '1.25-22', ['?checkpoint', '?checkpoint-dir']),
  same('1.25-23', 'checkpoints are experimental and undocumented'),
  same('1.25-24', 'without t the stop timeout holds at every version: documents and clients of older ones say 10 too'),

  added(
    ['POST /containers/prune', 'POST /images/prune', 'POST /volumes/prune', 'POST /networks/prune'],
    ['1.25-25', '1.25-26'],
  ),
  adds('GET /images/json', '1.25-27', ['[].Containers', '[].SharedSize']),
  accepts('GET /images/json', '1.25-27', ['filters.reference']),
  question(
    'GET /images/json',
    '1.25-28',
    'filter has become filters.reference',
    inQuery((query) => {
      const filter = query.get('filter');
      query.delete('filter');
      if (filter) addFilter(query, 'reference', filter);
    }),
  ),
  adds('GET /images/{name}/json', '1.25-29', ['OsVersion']),
  answer('POST /images/load', '1.25-47', 'failures always come inside a 200', {
    stream: (stream) => ({ ...stream, firstFailure: 'status' }),
  }),

  accepts('POST /build', '1.25-30', ['?cachefrom', '?networkmode', '?securityopt', '?squash']),
  same('1.25-31', 'the Dockerfile is parsed before the first step at every version'),
  added('GET /networks/', '1.25-32'),
  adds('GET /networks', '1.25-33', ['[].Created', '[].Attachable', '[].Peers']),
  adds('GET /networks/{id}', '1.25-33', ['Created', 'Attachable', 'Peers']),
  adds('GET /volumes', '1.25-34', ['Volumes.[].Options']),
  accepts('DELETE /volumes/{name}', '1.25-35', ['?force']),
  added('GET /system/df', '1.25-36'),
  adds('GET /events', '1.25-45', ['Type=plugin']),
  accepts('GET /events', '1.25-45', ['filters.plugin']),
  same('1.25-46', 'a version newer than the newest is refused, as in docker since 17.11 (W-16)'),

  added(
    [
      'GET /plugins',
      'GET /plugins/privileges',
      'POST /plugins/pull',
      'POST /plugins/create',
      'GET /plugins/{name}/json',
      'DELETE /plugins/{name}',
      'POST /plugins/{name}/enable',
      'POST /plugins/{name}/disable',
      'POST /plugins/{name}/push',
      'POST /plugins/{name}/set',
    ],
    ['1.25-37', '1.25-38'],
  ),
  added(['GET /secrets', 'POST /secrets/create', 'GET /secrets/{id}', 'DELETE /secrets/{id}'], '1.25-39'),
  accepts('POST /services/{id}/update', '1.25-40', ['?registryAuthFrom']),
  added('GET /services/{id}/logs', '1.25-41'),
  added(['POST /swarm/unlock', 'GET /swarm/unlockkey'], '1.25-42'),
  same('1.25-43', 'not being a manager is a 503 at every version'),
  adds('GET /nodes', '1.25-44', ['[].Status.Addr']),
]);
