/** Listeners, malformed and oversized requests, plain answers and JSON streams: HTTP as clients see it. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { createApiServer } from '../../src/api/server/server.ts';
import type { EngineEvent } from '../../src/event/types.ts';
import { conflict, EngineError, notFound, unchanged } from '../../src/lib/errors.ts';
import { silentLog } from '../../src/lib/log.ts';
import {
  ask,
  backendOf,
  connect,
  Echo,
  json,
  makeCertificates,
  plainConfig,
  readAll,
  serve,
  sleep,
  until,
} from './helper.ts';

const certificates = makeCertificates();
after(() => fs.rmSync(certificates.directory, { recursive: true }));

const curl = async (...args: string[]) =>
  (await promisify(execFile)('curl', ['-s', '--max-time', '10', ...args])).stdout;

test('a unix socket is 0660, replaces a stale one, and refuses to replace a live one', async () => {
  await using running = await serve({});
  const { socketPath } = running;
  assert.equal(fs.statSync(socketPath).mode & 0o777, 0o660);

  const create = (file: string, group = '') =>
    createApiServer({
      backend: backendOf({}),
      log: silentLog,
      config: { ...plainConfig, group, hosts: [`unix://${file}`] },
    });
  await assert.rejects(create(socketPath).listen(), /another process answers there/);
  assert.equal((await ask(running, 'GET', '/_ping')).text, 'OK');
});

test('a socket left by a killed process is replaced; its group is set when it exists', async () => {
  await using running = await serve({});
  const stale = path.join(running.directory, 'stale.sock');
  const left = spawn(process.execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(stale)}, () => process.kill(process.pid, 'SIGKILL'))`,
  ]);
  await new Promise((resolve) => left.once('exit', resolve));
  assert.ok(fs.lstatSync(stale).isSocket());
  const server = createApiServer({
    backend: backendOf({}),
    log: silentLog,
    config: { ...plainConfig, group: 'daemon', hosts: [`unix://${stale}`] },
  });
  await server.listen();
  const { gid, mode } = fs.statSync(stale);
  assert.equal(gid, 1);
  assert.equal(mode & 0o777, 0o660);
  assert.equal(await curl('--unix-socket', stale, 'http://d/_ping'), 'OK');
  await server.close(0);
  assert.equal(fs.existsSync(stale), false, 'the socket goes with the server');
});

test('sockets handed over by systemd are served', async () => {
  await using running = await serve({});
  const file = path.join(running.directory, 'handed.sock');
  const parent = net.createServer();
  await new Promise<void>((resolve) => parent.listen(file, resolve));
  const { fd } = (parent as unknown as { _handle: { fd: number } })._handle;
  const script = `
    process.env.LISTEN_PID = String(process.pid);
    const { createApiServer } = await import(${JSON.stringify(path.resolve('src/api/server/server.ts'))});
    const { backendOf, plainConfig } = await import(${JSON.stringify(path.resolve('test/api/helper.ts'))});
    const log = { debug() {}, info() {}, warn() {}, error: console.error };
    await createApiServer({ backend: backendOf({}), log, config: { ...plainConfig, hosts: ['fd://'] } }).listen();
    console.log('listens');
  `;
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit', fd],
    env: { ...process.env, LISTEN_FDS: '1' },
  });
  try {
    await new Promise((resolve) => child.stdout?.once('data', resolve));
    // The parent takes the name away when it closes; the socket itself lives on in the child.
    fs.renameSync(file, `${file}.kept`);
    parent.close();
    assert.equal(await curl('--unix-socket', `${file}.kept`, 'http://d/_ping'), 'OK');
  } finally {
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
  }
});

test('tlsverify wants a certificate of the CA', async () => {
  await using running = await serve({}, { tls: certificates });
  const url = `https://127.0.0.1:${running.tlsPort}/_ping`;
  const own = ['--cert', certificates.clientCert, '--key', certificates.clientKey];
  assert.equal(await curl('--cacert', certificates.ca, ...own, url), 'OK');
  await assert.rejects(curl('--cacert', certificates.ca, url));
  assert.ok(running.log.some(({ level, message }) => level === 'warn' && message.includes('has root')));
});

test('what is not HTTP, or too much of it, gets a clear answer', async () => {
  await using running = await serve({ containers: { create: async () => ({ Id: 'a', Warnings: [] }) } });
  const send = async (text: string) => {
    const socket = await connect(running, 'unix', certificates);
    socket.on('error', () => undefined);
    socket.write(text);
    return await readAll(socket);
  };
  assert.match(await send('GARBAGE\r\n\r\n'), /^HTTP\/1\.1 400 [\s\S]*\{"message":"malformed request: .*"\}\n$/);
  assert.match(
    await send(`GET /_ping HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(1_100_000)}\r\n\r\n`),
    /^HTTP\/1\.1 431 [\s\S]*"request headers too large/,
  );
  assert.match(
    await send('GET /containers/%E0%A4%A/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
    /^HTTP\/1\.1 400 /,
  );
  assert.match(
    await send(
      'POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\n',
    ),
    /^HTTP\/1\.1 400 /,
  );
  // 512 KiB of headers work (USERS.md I12).
  const long = await ask(running, 'GET', '/_ping', { headers: { 'X-Registry-Config': 'a'.repeat(512 * 1024) } });
  assert.equal(long.text, 'OK');

  const large = await ask(running, 'POST', '/containers/create', {
    headers: json,
    body: JSON.stringify({ Image: 'a'.repeat(5_000_000) }),
  });
  assert.equal(large.status, 413);
  assert.match(large.text, /^\{"message":"request body too large/);
  await until('connections are given back', () => running.server.connections === 0);
});

test('aborted requests leave nothing behind and nothing in the log', async () => {
  await using running = await serve({
    images: {
      load: (archive, _quiet, signal) =>
        (async function* () {
          for await (const _ of archive) signal.throwIfAborted();
          yield { stream: 'done' };
        })(),
    },
  });
  for (const question of [
    'POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{',
    'POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc',
    'POST /exec/a/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 9\r\n\r\n{',
    'GET /_ping HTTP/1.1\r\nHo',
  ]) {
    for (const transport of ['unix', 'tcp'] as const) {
      const socket = await connect(running, transport, certificates);
      socket.on('error', () => undefined);
      socket.write(question);
      await sleep(30);
      if (transport === 'tcp') socket.resetAndDestroy();
      else socket.destroy();
    }
  }
  await until('connections are given back', () => running.server.connections === 0);
  assert.deepEqual(
    running.log.filter(({ level }) => level === 'error'),
    [],
  );
});

test('every answer has the headers, a version too new has no Docker-Experimental (W-16, W-23, W-24, W-25, W-26)', async () => {
  await using running = await serve({ containers: { start: () => Promise.reject(unchanged('it runs')) } });
  for (const [method, url, status] of [
    ['GET', '/_ping', 200],
    ['HEAD', '/v1.24/_ping', 200],
    ['GET', '/nowhere', 404],
    ['POST', '/containers/json', 404],
    ['HEAD', '/containers/json', 404],
    ['OPTIONS', '/any/where', 200],
    ['GET', '/containers//json', 301],
    ['POST', '/containers/a/start', 304],
    ['GET', '/v9.99/info', 400],
  ] as const) {
    const answer = await ask(running, method, url);
    assert.equal(answer.status, status, `${method} ${url}`);
    assert.equal(answer.headers.server, 'Docker/9.9.9 (linux)');
    assert.equal(answer.headers['api-version'], '1.26');
    assert.equal(answer.headers.ostype, 'linux');
    assert.equal(answer.headers['docker-experimental'], status === 400 ? undefined : 'false');
    if (status === 304 || method === 'HEAD' || method === 'OPTIONS') assert.equal(answer.text, '');
    if (status === 301) assert.equal(answer.headers.location, '/containers/json');
    if (status === 400) {
      assert.equal(
        answer.text,
        '{"message":"client version 9.99 is too new. Maximum supported API version is 1.26"}\n',
      );
    }
  }
  const moved = await ask(running, 'GET', '/v1.26//containers/../images/json?all=1');
  assert.equal(moved.headers.location, '/v1.26/images/json?all=1');
});

test('ping is not cached, version tells both ends of the range (W-21, W-27, 1.25-03)', async () => {
  await using running = await serve({});
  const ping = await ask(running, 'GET', '/_ping');
  assert.equal(ping.headers['content-type'], 'text/plain; charset=utf-8');
  assert.equal(ping.headers['cache-control'], 'no-cache, no-store, must-revalidate');
  assert.equal(ping.headers.pragma, 'no-cache');
  assert.deepEqual(JSON.parse((await ask(running, 'GET', '/v1.24/version')).text), {
    Version: '9.9.9',
    ApiVersion: '1.26',
    MinAPIVersion: '1.24',
  });
});

test('kinds of failure become statuses; what nobody expected is logged and a 500', async () => {
  const kinds = {
    'not-found': 404,
    invalid: 400,
    conflict: 409,
    unauthorized: 401,
    forbidden: 403,
    unchanged: 304,
    unavailable: 503,
    'not-acceptable': 406,
    'not-implemented': 501,
    internal: 500,
  } as const;
  let failure: Error = new Error('nobody expected this');
  await using running = await serve({ containers: { pause: () => Promise.reject(failure) } });
  for (const [kind, status] of Object.entries(kinds)) {
    failure = new EngineError(kind as keyof typeof kinds, `words of ${kind}`);
    const answer = await ask(running, 'POST', '/containers/a/pause');
    assert.equal(answer.status, status);
    assert.equal(answer.text, status === 304 ? '' : `{"message":"words of ${kind}"}\n`);
  }
  assert.equal(running.log.filter(({ level }) => level === 'error').length, 0);
  failure = new TypeError('x is not a function');
  assert.equal((await ask(running, 'POST', '/containers/a/pause')).status, 500);
  assert.equal(running.log.filter(({ level }) => level === 'error').length, 1);
});

test('create: content type, JSON, empty config, one-word commands (W-36)', async () => {
  const created: unknown[] = [];
  await using running = await serve({
    containers: {
      create: async (name, body) => {
        created.push([name, body]);
        return { Id: 'f00', Warnings: [] };
      },
    },
  });
  const create = (body: string, type: string | null = 'application/json; charset=utf-8') =>
    ask(running, 'POST', '/containers/create?name=n', { body, headers: type === null ? {} : { 'Content-Type': type } });
  const words = async (body: string, type?: string | null) => {
    const { status, text } = await create(body, type);
    return [status, (JSON.parse(text) as { message?: string }).message];
  };
  assert.deepEqual(await words('{"Image":"a"}', 'text/plain'), [
    400,
    "Content-Type specified (text/plain) must be 'application/json'",
  ]);
  assert.deepEqual(await words('{"Image":"a"}', null), [400, "Content-Type specified () must be 'application/json'"]);
  for (const empty of ['{}', 'null', '{"HostConfig":{}}', '{"config":{"Image":"a"}}']) {
    assert.deepEqual(await words(empty), [400, 'Config cannot be empty in order to create a container'], empty);
  }
  assert.match(String((await words('{"Image":'))[1]), /^invalid JSON: /);
  assert.deepEqual(await words('{"Image":"a","HostConfig":{"Binds":"x"}}'), [
    400,
    'invalid JSON: HostConfig.Binds must be array',
  ]);
  assert.equal(created.length, 0);

  const answer = await create(
    '{"image":"a","Cmd":"sh -c x","entrypoint":["e"],"hostConfig":{"memory":5,"CapAdd":"ALL"}}',
  );
  assert.deepEqual([answer.status, answer.text], [201, '{"Id":"f00","Warnings":[]}\n']);
  assert.equal(answer.headers['content-type'], 'application/json');
  assert.deepEqual(created, [
    ['n', { Image: 'a', Cmd: ['sh -c x'], Entrypoint: ['e'], HostConfig: { Memory: 5, CapAdd: ['ALL'] } }],
  ]);
});

test('start refuses a body, shorter ones are ignored (1.24-02)', async () => {
  await using running = await serve({ containers: { start: async () => undefined } });
  const start = (body: string, headers = {}) => ask(running, 'POST', '/containers/a/start', { body, headers });
  assert.equal((await start('')).status, 204);
  assert.equal((await start('{}')).status, 204);
  assert.match((await start('{"Binds":[]}')).text, /starting container with non-empty request body was deprecated/);
  assert.equal((await start('{}', { 'Transfer-Encoding': 'chunked' })).status, 400);
});

test('parameters come in the query or in a form (W-32)', async () => {
  const asked: unknown[] = [];
  await using running = await serve({ containers: { stop: async (...args) => void asked.push(args) } });
  await ask(running, 'POST', '/containers/a/stop?t=3');
  await ask(running, 'POST', '/containers/a/stop');
  const form = { 'Content-Type': 'application/x-www-form-urlencoded' };
  await ask(running, 'POST', '/containers/a/stop', { body: 't=4', headers: form });
  assert.deepEqual(asked, [
    ['a', 3],
    ['a', undefined],
    ['a', 4],
  ]);
  assert.equal((await ask(running, 'POST', '/containers/a/stop?t=soon')).status, 400);
});

test('headers of silent streams come at once (W-60)', async () => {
  const silent = (gone: AbortSignal) =>
    (async function* () {
      await new Promise((resolve) => gone.addEventListener('abort', resolve));
      yield* [];
    })();
  await using running = await serve({
    events: { read: (_query, gone) => silent(gone) },
    containers: {
      logs: async (_ref, _query, gone) => silent(gone),
      stats: async (_ref, _options, gone) => silent(gone),
    },
  });
  for (const url of ['/events', '/containers/a/logs?stdout=1&follow=1', '/containers/a/stats']) {
    const socket = await connect(running, 'unix', certificates);
    const before = performance.now();
    socket.write(`GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const first = await new Promise((resolve) => socket.once('data', resolve));
    assert.match(String(first), /^HTTP\/1\.1 200 OK\r\n/);
    assert.ok(performance.now() - before < 500, url);
    socket.destroy();
  }
  await until('connections are given back', () => running.server.connections === 0);
});

test('events: one JSON object a line, all digits of the time (W-59, 1.24-20)', async () => {
  const event = (overrides: Partial<EngineEvent>): EngineEvent => ({
    seq: 1,
    type: 'container',
    action: 'start',
    id: 'abc',
    attributes: { image: 'busybox', name: 'web' },
    timeNano: 1_700_000_000_123_456_789n,
    ...overrides,
  });
  const queries: unknown[] = [];
  await using running = await serve({
    events: {
      read: async function* (query) {
        queries.push(query);
        yield event({});
        yield event({ type: 'image', action: 'pull', id: 'busybox:latest', attributes: { name: 'busybox' } });
        yield event({ type: 'network', action: 'connect', id: 'n1', attributes: {} });
      },
    },
  });
  const answer = await ask(running, 'GET', '/events?since=1.5&until=2&filters={"type":["container"]}');
  assert.deepEqual(queries, [
    { since: 1_500_000_000n, until: 2_000_000_000n, filters: new Map([['type', ['container']]]) },
  ]);
  assert.equal(answer.headers['content-type'], 'application/json');
  const time = '"time":1700000000,"timeNano":1700000000123456789}\n';
  assert.equal(
    answer.text,
    `{"status":"start","id":"abc","from":"busybox","Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"busybox","name":"web"}},${time}` +
      `{"status":"pull","id":"busybox:latest","Type":"image","Action":"pull","Actor":{"ID":"busybox:latest","Attributes":{"name":"busybox"}},${time}` +
      `{"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{}},${time}`,
  );
  const refused = await ask(running, 'GET', '/events?since=20&until=10');
  assert.equal(refused.status, 400);
  assert.equal(refused.text, '{"message":"`since` time (20) cannot be after `until` time (10)"}\n');
});

test('a pull tells its failure by status before the first message, in the stream after it (W-46, W-58, W-69)', async () => {
  let sends = 0;
  const asked: unknown[] = [];
  await using running = await serve({
    images: {
      pull: async function* (request) {
        asked.push(request);
        for (let sent = 0; sent < sends; sent++) {
          yield { status: 'Downloading', id: 'abc', progressDetail: { current: 5, total: 10 } };
        }
        throw notFound('manifest for a:b not found');
      },
      load: async function* () {
        yield* [];
        throw conflict('not a tar');
      },
    },
  });
  const auth = Buffer.from('{"username":"ü>?","password":"p"}').toString('base64url');
  const early = await ask(running, 'POST', '/images/create?fromImage=a&tag=b', {
    headers: { 'X-Registry-Auth': auth },
  });
  assert.deepEqual([early.status, early.text], [404, '{"message":"manifest for a:b not found"}\n']);
  assert.deepEqual(asked.pop(), { name: 'a', tag: 'b', credentials: { username: 'ü>?', password: 'p' } });

  sends = 1;
  const late = await ask(running, 'POST', '/images/create?fromImage=h:5/a', { headers: { 'X-Registry-Auth': '%%%' } });
  assert.equal(late.status, 200);
  assert.equal(
    late.text,
    `{"status":"Downloading","progressDetail":{"current":5,"total":10},"progress":"[${'='.repeat(25)}>${' '.repeat(25)}]       5B/10B","id":"abc"}\r\n` +
      '{"errorDetail":{"message":"manifest for a:b not found"},"error":"manifest for a:b not found"}\r\n',
  );
  assert.deepEqual(asked.pop(), { name: 'h:5/a', tag: '', credentials: null });

  // From 1.25 a load tells every failure in the stream (1.25-47).
  const load = await ask(running, 'POST', '/images/load', { body: 'x' });
  assert.deepEqual([load.status, load.text], [200, '{"errorDetail":{"message":"not a tar"},"error":"not a tar"}\r\n']);
  assert.equal((await ask(running, 'POST', '/v1.24/images/load', { body: 'x' })).status, 409);
});

test('a push needs credentials, in the header or in the body (W-72, W-73)', async () => {
  const asked: unknown[] = [];
  await using running = await serve({
    images: {
      push: async function* (request) {
        asked.push(request);
        yield { status: 'pushed' };
      },
    },
  });
  const refused = await ask(running, 'POST', '/images/h:5/a/b/push?tag=t');
  assert.deepEqual(
    [refused.status, refused.text],
    [400, '{"message":"Bad parameters and missing X-Registry-Auth: EOF"}\n'],
  );
  await ask(running, 'POST', '/images/h:5/a/b/push?tag=t', { headers: { 'X-Registry-Auth': 'e30=' } });
  await ask(running, 'POST', '/images/a/push', { body: '{"username":"u"}' });
  assert.deepEqual(asked, [
    { name: 'h:5/a/b', tag: 't', credentials: {} },
    { name: 'a', tag: '', credentials: { username: 'u' } },
  ]);
});

test('import takes the body or a URL; bodies of any size stream', async () => {
  const asked: unknown[] = [];
  await using running = await serve({
    images: {
      import: async function* ({ source, ...rest }) {
        let bytes = 0;
        if (!(source instanceof URL)) for await (const chunk of source) bytes += (chunk as Buffer).length;
        asked.push([source instanceof URL ? source.href : bytes, rest]);
        yield { status: 'sha256:1' };
      },
    },
  });
  const rest = { repo: 'r', tag: 't', message: 'm', changes: ['CMD a', 'ENV b=c'] };
  const url = '/images/create?repo=r&tag=t&message=m&changes=CMD%20a&changes=ENV%20b%3Dc';
  await ask(running, 'POST', `${url}&fromSrc=-`, { body: Buffer.alloc(20_000_000) });
  await ask(running, 'POST', `${url}&fromSrc=example.test/x.tar`);
  assert.deepEqual(asked, [
    [20_000_000, rest],
    ['http://example.test/x.tar', rest],
  ]);
  assert.equal((await ask(running, 'POST', '/images/create')).status, 400);
  assert.equal((await ask(running, 'POST', '/images/create?fromSrc=file:///etc/passwd')).status, 400);
});

test('networks: list with filters, inspect, members from running containers', async () => {
  const bridge = {
    id: 'b'.repeat(64),
    name: 'bridge',
    driver: 'bridge',
    created: '2026-01-01T00:00:00Z',
    scope: 'local',
    options: {},
    labels: { a: 'b' },
    internal: false,
    attachable: false,
    enableIPv6: false,
    ipam: { driver: 'default', options: null, config: [{ subnet: '172.17.0.0/16', gateway: '172.17.0.1' }] },
    bridgeName: 'docker0',
  } as const;
  const row = {
    Id: 'c1',
    Names: ['/web'],
    NetworkSettings: {
      Networks: {
        bridge: {
          NetworkID: bridge.id,
          EndpointID: 'e1',
          MacAddress: '02:42:ac:11:00:02',
          IPAddress: '172.17.0.2',
          IPPrefixLen: 16,
        },
      },
    },
  };
  const networks = [bridge] as unknown as ReturnType<ReturnType<typeof backendOf>['networks']['list']>;
  await using running = await serve({
    networks: { list: () => networks, get: (name) => networks.find((network) => network.name === name) },
    containers: { list: async () => [row] },
  });
  const inspected = JSON.parse((await ask(running, 'GET', '/networks/bridge')).text) as Record<string, unknown>;
  assert.deepEqual(inspected.Containers, {
    c1: {
      Name: 'web',
      EndpointID: 'e1',
      MacAddress: '02:42:ac:11:00:02',
      IPv4Address: '172.17.0.2/16',
      IPv6Address: '',
    },
  });
  assert.deepEqual(inspected.IPAM, {
    Driver: 'default',
    Options: null,
    Config: [{ Subnet: '172.17.0.0/16', Gateway: '172.17.0.1' }],
  });
  const missing = await ask(running, 'GET', '/networks/other');
  assert.deepEqual([missing.status, missing.text], [404, '{"message":"network other not found"}\n']);
  const found = async (filters: object) =>
    (
      JSON.parse(
        (await ask(running, 'GET', `/networks?filters=${encodeURIComponent(JSON.stringify(filters))}`)).text,
      ) as unknown[]
    ).length;
  assert.equal(await found({ driver: ['bridge'], label: ['a=b'], id: ['bb'], name: ['rid'], type: ['builtin'] }), 1);
  assert.equal(await found({ type: { custom: true } }), 0);
  assert.equal(await found({ label: ['a=c'] }), 0);
  const bad = await ask(running, 'GET', '/networks?filters={"x":["y"]}');
  assert.deepEqual([bad.status, bad.text], [400, '{"message":"Invalid filter \'x\'"}\n']);
  assert.equal((await ask(running, 'GET', '/networks/')).status, 200);
});

test('what is missing says so by name', async () => {
  await using running = await serve({});
  const answer = await ask(running, 'POST', '/v1.26/build');
  assert.deepEqual([answer.status, answer.text], [501, '{"message":"POST /build is not supported yet"}\n']);
});

test('an offer of HTTP/2 is answered in the ordinary way', async () => {
  await using running = await serve({ images: { list: async () => [] } });
  const args = ['--http2', '-o', '-', '-w', ' %{http_version}', '--unix-socket', running.socketPath];
  assert.equal(await curl(...args, 'http://d/images/json'), '[]\n 1.1');
});

test('close lets requests under way finish, then cuts streams', async () => {
  const running = await serve({
    containers: { wait: () => sleep(200).then(() => ({ StatusCode: 7 })) },
    events: {
      read: async function* (_query, gone) {
        await new Promise((resolve) => gone.addEventListener('abort', resolve));
        yield* [];
      },
    },
  });
  const waiting = ask(running, 'POST', '/containers/a/wait');
  const stream = ask(running, 'GET', '/events').then(
    () => 'ended',
    () => 'cut',
  );
  await sleep(50);
  const before = performance.now();
  await running.server.close(500);
  assert.ok(performance.now() - before < 1_000);
  assert.equal((await waiting).text, '{"StatusCode":7}\n');
  assert.equal(await stream, 'cut');
  await running[Symbol.asyncDispose]();
});

test('over TLS too, a client that has said all it has to say still gets its answer', async () => {
  await using running = await serve(
    { containers: { wait: () => sleep(100).then(() => ({ StatusCode: 3 })) } },
    { tls: certificates },
  );
  for (const transport of ['unix', 'tcp', 'tls'] as const) {
    const socket = await connect(running, transport, certificates);
    socket.end('POST /containers/a/wait HTTP/1.1\r\nHost: x\r\n\r\n');
    assert.ok((await readAll(socket)).endsWith('\r\n\r\n{"StatusCode":3}\n'), transport);
  }
});

test('close does not wait for connections that are only kept alive', async () => {
  const running = await serve({ containers: { wait: () => sleep(100).then(() => ({ StatusCode: 3 })) } });
  const socket = await connect(running, 'unix', certificates);
  socket.write('POST /containers/a/wait HTTP/1.1\r\nHost: x\r\n\r\n');
  await sleep(50);
  const before = performance.now();
  await running.server.close(5_000);
  assert.ok(performance.now() - before < 1_000);
  assert.ok((await readAll(socket)).endsWith('{"StatusCode":3}\n'));
  await running[Symbol.asyncDispose]();
});

test('noise does not harm: the next client is served, nothing is left', async () => {
  await using running = await serve({ containers: { attach: async (_ref, _query, gone) => new Echo(gone, 1) } });
  const words = [
    'GET ',
    'POST ',
    'OPTIONS * ',
    'CONNECT a:1 ',
    '/v1.24',
    '/v999',
    '/containers/',
    'a/attach',
    '/exec/%2e%2e/start',
    '?stdin=1',
    ' HTTP/1.1\r\n',
    ' HTTP/1.0\r\n',
    ' HTTP/9\r\n',
    'Host: x\r\n',
    'Content-Length: 5\r\n',
    'Content-Length: -1\r\n',
    'Transfer-Encoding: chunked\r\n',
    'Connection: Upgrade\r\nUpgrade: tcp\r\n',
    'Expect: 100-continue\r\n',
    '\r\n',
    '5\r\nabcde\r\n',
    '0\r\n\r\n',
    '{"a":',
    '\0\xff',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  ];
  await fc.assert(
    fc.asyncProperty(fc.array(fc.constantFrom(...words), { maxLength: 12 }), fc.boolean(), async (parts, isAbrupt) => {
      const socket = await connect(running, 'unix', certificates);
      socket.on('error', () => undefined);
      socket.resume();
      for (const part of parts) socket.write(Buffer.from(part, 'latin1'));
      if (isAbrupt) socket.destroy();
      else socket.end();
    }),
    { numRuns: 400 },
  );
  assert.equal((await ask(running, 'GET', '/_ping')).text, 'OK');
  await until('connections are given back', () => running.server.connections === 0, 15_000);
  const unexpected = running.log.filter(({ level }) => level === 'error');
  assert.deepEqual(unexpected, []);
});
