/**
 * What clients see when a request about containers fails: a table, sent to a running engine, and its lines that dockerd
 * 20.10 has too sent to one, to prove the table itself. The texts are part of the API: clients match on them.
 *
 * What cannot be brought about from outside is not in it: a container that cannot be stopped, a removal under way, a network that has
 * gone since the create.
 *
 * test-timeout-seconds: 240
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { type EngineKind, TestEngine } from '../support/engine.ts';
import type { Answer } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

interface Failure {
  readonly ask: `${'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'} /${string}`;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly status: number;
  /** The whole text; with `…` at its end, how it starts, with one at its beginning too, a part of it. */
  readonly text: string;
  /** API versions asked, 1.24, 1.25 and 1.26 unless said. A path that begins with `/v` has its own. */
  readonly at?: readonly string[];
  /** What dockerd 20.10 says, where it says something else or the version below 1.25 knows another text. `not`: it is not asked. */
  readonly dockerd?: { readonly status?: number; readonly text?: string } | 'not';
  /** Why this engine differs from the version's own docker (1.12, 1.13) or from dockerd 20.10. */
  readonly why?: string;
}

const badRequest = "a client's mistake is 400; docker 1.13 knew its texts only and said 500";
const conflicting = 'a wrong state is 409, as from docker 17.09 on; docker 1.13 said 500';
const longId = 'e'.repeat(64);

/** RUNNING, PAUSED and so on stand for ids of the containers of those names; {EXEC…} for exec instances. */
const routing: readonly Failure[] = [
  {
    ask: 'GET /v1.99/containers/json',
    status: 400,
    text: 'client version 1.99 is too new. Maximum supported API version is …',
  },
  { ask: 'GET /nosuch', status: 404, text: 'page not found' },
  { ask: 'GET /containers', status: 404, text: 'page not found' },
  { ask: 'PUT /containers/running/start', status: 404, text: 'page not found' },
  { ask: 'POST /containers/json', status: 404, text: 'page not found' },
  ...(['POST /containers/create', 'POST /containers/running/exec', 'POST /commit?container=running'] as const).map(
    (ask): Failure => ({
      ask,
      body: '{}',
      headers: { 'Content-Type': 'text/plain' },
      status: 400,
      text: "Content-Type specified (text/plain) must be 'application/json'",
      why: badRequest,
    }),
  ),
  {
    ask: 'POST /containers/create',
    body: '{"Image":',
    headers: { 'Content-Type': 'application/json' },
    status: 400,
    text: 'invalid JSON: …',
    dockerd: { status: 500, text: 'unexpected EOF' },
    why: 'the text names the kind of mistake, as docker 23 does',
  },
];

const nameTaken = (kind: string, name: string, id: string) =>
  `Conflict. The ${kind} "/${name}" is already in use by container "${id}". You have to remove (or rename) that container to be able to reuse that name.`;

const references: readonly Failure[] = [
  ...(
    [
      'GET /containers/nosuch/json',
      'GET /containers/nosuch/top',
      'GET /containers/nosuch/logs?stdout=1',
      'GET /containers/nosuch/stats?stream=0',
      'POST /containers/nosuch/start',
      'POST /containers/nosuch/stop',
      'POST /containers/nosuch/restart',
      'POST /containers/nosuch/pause',
      'POST /containers/nosuch/unpause',
      'POST /containers/nosuch/rename?name=other',
      'POST /containers/nosuch/resize?h=1&w=1',
      'POST /containers/nosuch/wait',
      'POST /containers/nosuch/attach',
      'DELETE /containers/nosuch',
      'POST /commit?container=nosuch',
    ] as const
  ).map((ask): Failure => ({ ask, status: 404, text: 'No such container: nosuch' })),
  { ask: 'POST /containers/nosuch/kill', status: 404, text: '…No such container: nosuch…' },
  { ask: 'POST /containers/nosuch/exec', body: { Cmd: ['true'] }, status: 404, text: 'No such container: nosuch' },
  { ask: `GET /containers/${longId}/json`, status: 404, text: `No such container: ${longId}` },
  { ask: 'HEAD /containers/nosuch/json', status: 404, text: '' },
];

const create: readonly Failure[] = [
  {
    ask: 'POST /containers/create',
    body: { Image: 'nosuch', Cmd: ['x'] },
    status: 404,
    text: 'No such image: nosuch:latest',
  },
  {
    ask: 'POST /containers/create',
    body: { Image: 'nosuch:1', Cmd: ['x'] },
    status: 404,
    text: 'No such image: nosuch:1',
  },
  {
    ask: 'POST /containers/create',
    body: { Image: `nosuch@sha256:${longId}` },
    status: 404,
    text: `No such image: nosuch@sha256:${longId}`,
  },
  {
    ask: 'POST /containers/create?name=running',
    body: { Image: 'busybox' },
    at: ['1.25', '1.26'],
    status: 409,
    text: nameTaken('container name', 'running', 'RUNNING'),
  },
  {
    ask: 'POST /containers/create?name=running',
    body: { Image: 'busybox' },
    at: ['1.24'],
    status: 409,
    text: nameTaken('name', 'running', 'RUNNING').replace('"RUNNING"', 'RUNNING'),
    dockerd: { text: nameTaken('container name', 'running', 'RUNNING') },
    why: 'dockerd 20.10 has one text for all versions',
  },
  ...['_x', 'a b', 'a', 'ä', '/', '/a/b'].map(
    (name): Failure => ({
      ask: `POST /containers/create?name=${encodeURIComponent(name)}`,
      body: { Image: 'busybox' },
      status: 400,
      text: `Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
      why: badRequest,
    }),
  ),
  { ask: 'POST /containers/create', body: { Image: 'bare' }, status: 400, text: 'No command specified' },
  {
    ask: 'POST /containers/create',
    body: { Image: 'busybox', Entrypoint: [''] },
    status: 400,
    text: 'No command specified',
  },
  ...[{}, undefined, { HostConfig: {} }].map(
    (body): Failure => ({
      ask: 'POST /containers/create',
      body,
      ...(body === undefined && { headers: { 'Content-Type': 'application/json' } }),
      status: 400,
      text: 'Config cannot be empty in order to create a container',
      why: badRequest,
      // Of an empty body it tells the decoder's text.
      ...(body === undefined && { dockerd: { status: 500, text: 'EOF' } }),
    }),
  ),
  {
    ask: 'POST /containers/create',
    body: { Image: 'busybox', HostConfig: { Memory: 4096 } },
    status: 400,
    text: 'Minimum memory limit allowed is 6MB',
    why: 'the limit of docker 20.10: runtimes need more than 4 MB',
  },
  ...(
    [
      [{ Name: 'sometimes' }, "invalid restart policy 'sometimes'"],
      [{ Name: 'always', MaximumRetryCount: 1 }, "maximum retry count cannot be used with restart policy 'always'"],
      [{ Name: 'on-failure', MaximumRetryCount: -1 }, 'maximum retry count cannot be negative'],
    ] as const
  ).map(
    ([RestartPolicy, text]): Failure => ({
      ask: 'POST /containers/create',
      body: { Image: 'busybox', HostConfig: { RestartPolicy } },
      status: 400,
      text,
      why: badRequest,
    }),
  ),
  {
    ask: 'POST /containers/create',
    body: { Image: 'busybox', NetworkingConfig: { EndpointsConfig: { a: {}, b: {} } } },
    status: 400,
    text: 'Container cannot be created with multiple network endpoints: a, b',
    dockerd: 'not',
  },
];

const states: readonly Failure[] = [
  { ask: 'POST /containers/running/start', status: 304, text: '' },
  { ask: 'POST /containers/stopped/stop', status: 304, text: '' },
  { ask: 'POST /containers/created/stop', status: 304, text: '' },
  {
    ask: 'POST /containers/paused/start',
    status: 409,
    text: 'cannot start a paused container, try unpause instead',
    why: conflicting,
  },
  {
    ask: 'POST /containers/created/start',
    body: { PublishAllPorts: true },
    status: 400,
    text: 'starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24',
  },
  {
    ask: 'POST /containers/not-found/start',
    status: 400,
    text: '…executable file not found in $PATH…',
    why: badRequest,
  },
  { ask: 'POST /containers/no-file/start', status: 400, text: '…no such file or directory…', why: badRequest },
  { ask: 'POST /containers/not-allowed/start', status: 400, text: '…permission denied…', why: badRequest },
  {
    ask: 'POST /containers/stopped/kill',
    status: 409,
    text: 'Cannot kill container: stopped: Container STOPPED is not running',
    why: conflicting,
  },
  { ask: 'POST /containers/running/kill?signal=FOO', status: 400, text: 'Invalid signal: FOO', why: badRequest },
  {
    ask: 'POST /containers/running/kill?signal=99',
    status: 400,
    text: 'Invalid signal: 99',
    dockerd: 'not',
    why: 'Linux has 64',
  },
  { ask: 'POST /containers/paused/pause', status: 409, text: 'Container PAUSED is already paused', why: conflicting },
  { ask: 'POST /containers/stopped/pause', status: 409, text: 'Container STOPPED is not running', why: conflicting },
  { ask: 'POST /containers/running/unpause', status: 500, text: 'Container RUNNING is not paused' },
  {
    ask: 'DELETE /containers/running',
    status: 409,
    text: 'You cannot remove a running container RUNNING. Stop the container before attempting removal or force remove',
  },
  {
    ask: 'DELETE /containers/paused',
    status: 409,
    text: 'You cannot remove a paused container PAUSED. Unpause and then stop the container before attempting removal or force remove',
  },
  {
    ask: 'DELETE /containers/restarting',
    status: 409,
    text: 'You cannot remove a restarting container RESTARTING. Stop the container before attempting removal or force remove',
  },
  {
    ask: 'DELETE /containers/running?link=1',
    status: 409,
    text: 'Conflict, cannot remove the default name of the container',
    dockerd: { status: 500, text: 'Conflict, cannot remove the default link name of the container' },
    why: 'docker 1.13 says 409 by the word conflict; 20.10 lost it',
  },
  {
    ask: 'POST /containers/running/rename',
    status: 400,
    text: 'Neither old nor new names may be empty',
    why: badRequest,
  },
  {
    ask: 'POST /containers/running/rename?name=running',
    status: 400,
    text: 'Renaming a container with the same name as its current name',
    why: badRequest,
  },
  {
    ask: 'POST /containers/running/rename?name=paused',
    at: ['1.25', '1.26'],
    status: 409,
    text: `…${nameTaken('container name', 'paused', 'PAUSED')}…`,
  },
  {
    ask: 'POST /containers/running/rename?name=_',
    status: 400,
    text: 'Invalid container name (_), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed',
    dockerd: {
      text: 'Error when allocating new name: Invalid container name (/_), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed',
    },
    why: badRequest,
  },
];

const streams: readonly Failure[] = [
  { ask: 'GET /containers/running/logs', status: 400, text: 'Bad parameters: you must choose at least one stream' },
  {
    ask: 'GET /containers/unlogged/logs?stdout=1',
    status: 501,
    text: 'configured logging driver does not support reading',
    why: 'docker 1.13 said 500 and "reader"; this is what clients since 17.09 know',
  },
  {
    ask: 'POST /containers/paused/attach?stream=1',
    status: 409,
    text: 'container paused is paused, unpause the container before attach',
  },
  {
    ask: 'POST /containers/restarting/attach?stream=1',
    status: 409,
    text: 'Container restarting is restarting, wait until the container is running',
    dockerd: { text: 'container restarting is restarting, wait until the container is running' },
  },
  { ask: 'GET /containers/stopped/top', status: 409, text: 'Container STOPPED is not running', why: conflicting },
  { ask: 'GET /containers/created/top', status: 409, text: 'Container CREATED is not running', why: conflicting },
  {
    ask: 'POST /containers/stopped/resize?h=1&w=1',
    status: 409,
    text: 'Container STOPPED is not running',
    why: conflicting,
  },
  ...(['h=x&w=1', 'h=1&w=x', 'h=1', 'w=1', 'h=-1&w=1', 'h=1&w=99999999999'] as const).map(
    (query): Failure => ({
      ask: `POST /containers/running/resize?${query}`,
      status: 400,
      text: 'invalid value of …',
      dockerd: 'not',
      why: `${badRequest}, with the text of the number parser`,
    }),
  ),
];

const exec: readonly Failure[] = [
  ...(['GET /exec/nosuch/json', 'POST /exec/nosuch/start', 'POST /exec/nosuch/resize?h=1&w=1'] as const).map(
    (ask): Failure => ({
      ask,
      body: ask.endsWith('start') ? {} : undefined,
      status: 404,
      text: 'No such exec instance: nosuch',
    }),
  ),
  {
    ask: 'POST /containers/stopped/exec',
    body: { Cmd: ['true'] },
    status: 409,
    text: 'Container STOPPED is not running',
    why: conflicting,
  },
  {
    ask: 'POST /containers/paused/exec',
    body: { Cmd: ['true'] },
    status: 409,
    text: 'Container paused is paused, unpause the container before exec',
  },
  {
    ask: 'POST /containers/restarting/exec',
    body: { Cmd: ['true'] },
    status: 409,
    text: 'Container RESTARTING is restarting, wait until the container is running',
  },
  ...[{}, { Cmd: [] }, undefined].map(
    (body): Failure => ({
      ask: 'POST /containers/running/exec',
      body,
      ...(body === undefined && { headers: { 'Content-Type': 'application/json' } }),
      status: 400,
      text: 'No exec command specified',
      ...(body === undefined && { dockerd: { text: 'got EOF while reading request body' } }),
      why: badRequest,
    }),
  ),
  {
    ask: 'POST /exec/EXEC_ENDED/start',
    body: { Detach: true },
    status: 409,
    text: 'Error: Exec command EXEC_ENDED has already run',
  },
  {
    ask: 'POST /exec/EXEC_RUNNING/start',
    body: { Detach: true },
    status: 409,
    text: 'Error: Exec command EXEC_RUNNING is already running',
    why: conflicting,
  },
  {
    ask: 'POST /exec/EXEC_RUNNING/resize?h=x&w=1',
    status: 400,
    text: 'invalid value of …',
    dockerd: 'not',
    why: badRequest,
  },
];

const commit: readonly Failure[] = [
  {
    ask: 'POST /commit?container=stopped&repo=UPPER',
    status: 400,
    text: 'invalid reference format: repository name must be lowercase',
    dockerd: { status: 500 },
    why: badRequest,
  },
  {
    ask: 'POST /commit?container=stopped&repo=a..b/',
    status: 400,
    text: 'invalid reference format',
    dockerd: { status: 500 },
    why: badRequest,
  },
  { ask: 'POST /commit?container=stopped&changes=RUN%20x', status: 400, text: 'run is not a valid change command' },
  { ask: 'POST /commit', status: 400, text: 'invalid name or ID supplied: ""' },
];

const filters: readonly Failure[] = [
  { ask: 'GET /containers/json?filters={"nosuch":["1"]}', status: 400, text: "Invalid filter 'nosuch'" },
  { ask: 'GET /containers/json?filters={"nosuch":{"1":true}}', status: 400, text: "Invalid filter 'nosuch'" },
  {
    ask: 'GET /containers/json?filters={',
    status: 400,
    text: 'invalid filters: …',
    dockerd: { status: 500, text: 'unexpected end of JSON input' },
    why: badRequest,
  },
  {
    ask: 'POST /containers/prune?filters={"nosuch":["1"]}',
    at: ['1.25', '1.26'],
    status: 400,
    text: "Invalid filter 'nosuch'",
  },
];

const volumeName = (name: string) =>
  `create ${name}: "${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`;
const withHost = (HostConfig: object) => ({ Image: 'busybox', HostConfig });

/** Bodies of a create, and why they are refused. Where dockerd makes the container all the same, it is not asked. */
const options: readonly Failure[] = (
  [
    [withHost({ Binds: ['a/b:/x'] }), volumeName('a/b')],
    [withHost({ Binds: ['/tmp:x'] }), "…invalid mount path: 'x' mount path must be absolute…", 500],
    [withHost({ Binds: ['/tmp:/x:bad'] }), 'invalid mode: bad', 500],
    [withHost({ Binds: ['/tmp:/x', '/etc:/x'] }), 'Duplicate mount point: /x'],
    [withHost({ Mounts: [{ Type: 'foo', Target: '/x' }] }), 'invalid mount config for type "foo": mount type unknown'],
    [
      withHost({ Mounts: [{ Type: 'bind', Target: '/x', Source: '/nosuch' }] }),
      'invalid mount config for type "bind": bind source path does not exist: /nosuch',
    ],
    [
      withHost({ Mounts: [{ Type: 'bind', Target: '/x' }] }),
      'invalid mount config for type "bind": field Source must not be empty',
    ],
    [
      withHost({ Mounts: [{ Type: 'volume', Source: 'v' }] }),
      'invalid mount config for type "volume": field Target must not be empty',
    ],
    [withHost({ VolumesFrom: ['nosuch'] }), 'No such container: nosuch'],
    [withHost({ Links: ['nosuch:x'] }), 'could not get container for nosuch: No such container: nosuch'],
    [withHost({ PidMode: 'container:nosuch' }), 'No such container: nosuch'],
    [withHost({ IpcMode: 'foo' }), 'Invalid IPC mode: foo', 'not'],
    [withHost({ Dns: ['x'] }), 'x is not an ip address', 'not'],
    [
      withHost({ LogConfig: { Type: 'json-file', Config: { foo: 'x' } } }),
      "unknown log opt 'foo' for json-file log driver",
    ],
    [withHost({ Runtime: 'nosuch' }), 'Unknown runtime specified nosuch'],
    [withHost({ PortBindings: { '80/tcp': [{ HostPort: 'x' }] } }), 'invalid port specification: "x"'],
    [withHost({ CapAdd: ['FOO'] }), 'invalid CapAdd: unknown capability: "CAP_FOO"'],
    [withHost({ ExtraHosts: ['x'] }), 'bad format for add-host: "x"'],
    [
      withHost({ AutoRemove: true, RestartPolicy: { Name: 'always' } }),
      "can't create 'AutoRemove' container with restart policy",
    ],
    [withHost({ SecurityOpt: ['foo'] }), 'invalid --security-opt 1: "foo"', 500],
    [withHost({ ShmSize: -1 }), 'SHM size can not be less than 0'],
    [withHost({ OomScoreAdj: 2000 }), 'Invalid value 2000, range for oom score adj is [-1000, 1000]'],
    [withHost({ Isolation: 'hyperv' }), 'Invalid isolation: "hyperv" - linux only supports \'default\'', 500],
    [withHost({ Tmpfs: { x: '' } }), "invalid mount path: 'x' mount path must be absolute"],
    [
      { Image: 'busybox', Hostname: 'x', HostConfig: { NetworkMode: 'container:running' } },
      'conflicting options: hostname and the network mode',
    ],
    [{ Image: 'busybox', StopSignal: 'FOO' }, 'Invalid signal: FOO'],
    [{ Image: 'busybox', Env: ['=x'] }, 'invalid environment variable: =x'],
    [
      { Image: 'busybox', WorkingDir: 'rel' },
      "the working directory 'rel' is invalid, it needs to be an absolute path",
    ],
    [
      { Image: 'busybox', Healthcheck: { Test: ['CMD', 'x'], Interval: 5 } },
      'Interval in Healthcheck cannot be less than 1ms',
    ],
  ] as const
).map(([body, text, dockerd]) => ({
  ask: 'POST /containers/create',
  body,
  status: 400,
  text,
  // Older versions know no AutoRemove.
  ...('HostConfig' in body && 'AutoRemove' in body.HostConfig && { at: ['1.25', '1.26'] }),
  ...(dockerd === 500 && { dockerd: { status: 500 }, why: badRequest }),
  ...(dockerd === 'not' && { dockerd, why: 'a container that could never start is not made' }),
}));

const noArchive = { headers: { 'Content-Type': 'application/x-tar' }, body: Buffer.alloc(1024) };
const files: readonly Failure[] = [
  ...(['GET', 'PUT'] as const).flatMap((method): Failure[] => [
    {
      ask: `${method} /containers/running/archive`,
      status: 400,
      text: "bad parameter: 'path' cannot be empty",
      dockerd: { text: 'bad parameter: pathcannot be empty' },
      why: 'docker 20.10 lost the blank and the quotes',
    },
    {
      ask: `${method} /containers/running/archive?path=/nosuch`,
      status: 404,
      text: 'Could not find the file /nosuch in container running',
    },
    { ask: `${method} /containers/nosuch/archive?path=/`, status: 404, text: 'No such container: nosuch' },
  ]),
  { ask: 'HEAD /containers/running/archive?path=/nosuch', status: 404, text: '' },
  { ask: 'HEAD /containers/nosuch/archive?path=/', status: 404, text: '' },
  {
    ask: 'PUT /containers/running/archive?path=/bin/sh',
    ...noArchive,
    status: 400,
    text: 'extraction point is not a directory',
    dockerd: { status: 500 },
    why: 'documented as 400, and answered so by docker 29',
  },
  {
    ask: 'PUT /containers/read-only/archive?path=/',
    ...noArchive,
    status: 403,
    text: 'container rootfs is marked read-only',
    dockerd: { status: 500 },
    why: 'documented as 403',
  },
  { ask: 'POST /containers/running/copy', body: { Resource: '/etc' }, status: 404, text: '' },
  { ask: 'GET /containers/nosuch/changes', status: 404, text: 'No such container: nosuch' },
  { ask: 'GET /containers/nosuch/export', status: 404, text: 'No such container: nosuch' },
];

const update: readonly Failure[] = [
  { ask: 'POST /containers/nosuch/update', body: {}, status: 404, text: 'No such container: nosuch' },
  ...(
    [
      [{ Memory: 1 }, 'Minimum memory limit allowed is 6MB'],
      [{ RestartPolicy: { Name: 'x' } }, "invalid restart policy 'x'"],
      [
        { RestartPolicy: { Name: 'always', MaximumRetryCount: 2 } },
        "maximum retry count cannot be used with restart policy 'always'",
      ],
    ] as const
  ).map(([body, text]): Failure => ({ ask: 'POST /containers/running/update', body, status: 400, text })),
];

const table = { routing, references, create, states, streams, exec, commit, filters, options, files, update };

/** The containers the table speaks of, by the name that stands for each of their ids. */
async function prepare(engine: TestEngine): Promise<ReadonlyMap<string, string>> {
  await importBusybox(engine);
  await importBusybox(engine, 'bare:latest', []);
  const ids = new Map<string, string>();
  const make = async (name: string, body: object) => {
    const { Id } = await engine.call('POST', `/containers/create?name=${name}`, { Image: 'busybox', ...body });
    ids.set(name.toUpperCase(), Id);
  };
  const start = async (name: string, body: object) => {
    await make(name, body);
    await engine.call('POST', `/containers/${name}/start`);
  };
  const execIn = async (name: string, Cmd: string[]) => {
    const { Id } = await engine.call('POST', `/containers/${name}/exec`, { Cmd });
    await engine.call('POST', `/exec/${Id}/start`, { Detach: true });
    return Id as string;
  };
  const sleep = { Cmd: ['sleep', '1000'] };
  await start('running', sleep);
  await start('paused', sleep);
  await engine.call('POST', '/containers/paused/pause');
  await start('stopped', { Cmd: ['true'] });
  await engine.call('POST', '/containers/stopped/wait');
  await make('created', sleep);
  await make('not-found', { Cmd: ['nosuch'] });
  await make('read-only', { ...sleep, HostConfig: { ReadonlyRootfs: true } });
  await make('no-file', { Cmd: ['/nosuch'] });
  await make('not-allowed', { Cmd: ['/etc'] });
  await start('unlogged', { ...sleep, HostConfig: { LogConfig: { Type: 'none' } } });
  await start('restarting', { Cmd: ['false'], HostConfig: { RestartPolicy: { Name: 'always' } } });
  ids.set('EXEC_RUNNING', await execIn('running', ['sleep', '1000']));
  const ended = await execIn('running', ['true']);
  ids.set('EXEC_ENDED', ended);
  await eventually(async () => {
    assert.equal((await engine.call('GET', `/exec/${ended}/json`)).Running, false);
    // By now it rests long enough between two starts to be asked.
    assert.ok((await engine.call('GET', '/containers/restarting/json')).RestartCount >= 5);
  }, 20_000);
  return ids;
}

async function ask(
  engine: TestEngine,
  failure: Failure,
  version: string,
  named: (text: string) => string,
): Promise<Answer> {
  const [method = '', where = ''] = failure.ask.split(/ (.*)/);
  const path = named(where).replace(/(?<=filters=).*/, encodeURIComponent);
  const full = /^\/v\d/.test(path) ? path : `/v${version}${path}`;
  if (failure.ask.includes('/restarting')) {
    await eventually(async () => {
      const { State, RestartCount } = await engine.call('GET', '/containers/restarting/json');
      assert.equal(State.Status, 'restarting');
      // And for a while yet: the delay doubles from 100 ms.
      assert.ok(Date.now() - Date.parse(State.FinishedAt) < 50 * 2 ** RestartCount);
    }, 30_000);
  }
  return engine.api(method, full, failure.body, failure.headers === undefined ? {} : { headers: failure.headers });
}

/** `{"message": …}` and a newline; dockerd has promised a stream before it finds that there is nothing to attach to. */
function messageIn(kind: EngineKind, answer: Answer): string {
  const type = answer.headers['content-type'] ?? '';
  if (kind === 'dockerd' && type === 'application/vnd.docker.raw-stream') return answer.text.trim();
  assert.match(type, /^application\/json\b/);
  assert.ok(answer.text.endsWith('}\n'), 'a document and a newline');
  const body = answer.json();
  assert.deepEqual(Object.keys(body), ['message']);
  return body.message;
}

function check(kind: EngineKind, answer: Answer, status: number, text: string): void {
  assert.equal(answer.status, status, answer.text);
  if (text === '') {
    assert.equal(answer.text, '');
    return;
  }
  const message = messageIn(kind, answer);
  const part = text.replaceAll('…', '');
  if (text.startsWith('…')) assert.ok(message.includes(part), `${message}\ninstead of ${text}`);
  else if (text.endsWith('…')) assert.ok(message.startsWith(part), `${message}\ninstead of ${text}`);
  else assert.equal(message, text);
}

function hold(kind: EngineKind): void {
  describe(kind, async () => {
    const engine = await TestEngine.start({ kind });
    const ids = await prepare(engine).catch(async (error: unknown) => {
      await engine.close();
      throw error;
    });
    const named = (text: string) => text.replace(/EXEC_[A-Z]+|[A-Z]{6,}/g, (name) => ids.get(name) ?? name);
    for (const [subject, failures] of Object.entries(table)) {
      describe(subject, () => {
        for (const failure of failures) {
          if (kind === 'dockerd' && failure.dockerd === 'not') continue;
          const theirs = kind === 'dockerd' && failure.dockerd !== 'not' ? failure.dockerd : undefined;
          const body =
            failure.body === undefined || Buffer.isBuffer(failure.body) ? '' : ` ${JSON.stringify(failure.body)}`;
          const versions = /^\w+ \/v\d/.test(failure.ask) ? ['its own'] : (failure.at ?? ['1.24', '1.25', '1.26']);
          test(`${failure.ask}${body} at ${versions.join(', ')}`, async () => {
            for (const version of versions) {
              const answer = await ask(engine, failure, version, named);
              check(kind, answer, theirs?.status ?? failure.status, named(theirs?.text ?? failure.text));
            }
          });
        }
      });
    }
    test('the end', () => engine.close());
  });
}

hold('slipway');
hold('dockerd');
