/** Connections that become streams, on every kind of socket. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import type { Socket } from 'node:net';
import { after, test } from 'node:test';
import { notFound } from '../../src/lib/errors.ts';
import { bodyOf, connect, Echo, makeCertificates, type Running, readAll, serve, sleep, until } from './helper.ts';

const certificates = makeCertificates();
after(() => fs.rmSync(certificates.directory, { recursive: true }));

const transports = ['unix', 'tcp', 'tls'] as const;
const upgrade = 'Connection: Upgrade\r\nUpgrade: tcp\r\n';
const attachHead = (headers: string) =>
  `POST /v1.26/containers/a/attach?stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n${headers}\r\n`;

async function serveEcho(): Promise<Running & { readonly echoes: Echo[] }> {
  const echoes: Echo[] = [];
  const keep = (gone: AbortSignal) => {
    const echo = new Echo(gone);
    echoes.push(echo);
    return echo;
  };
  const running = await serve(
    {
      containers: {
        attach: async (ref, _query, gone) => {
          if (ref === 'missing') throw notFound('No such container: missing');
          return keep(gone);
        },
        execStart: async (_id, options, gone) => (options.detach ? null : keep(gone)),
      },
    },
    { tls: certificates },
  );
  return Object.assign(running, { echoes });
}

async function sendInPieces(socket: Socket, pieces: readonly string[]): Promise<void> {
  for (const piece of pieces) {
    socket.write(piece);
    await sleep(15);
  }
}

/** Without a goodbye, as a killed client does it. */
function vanish(socket: Socket, transport: (typeof transports)[number]): void {
  if (transport === 'unix') socket.destroy();
  else if (transport === 'tcp') socket.resetAndDestroy();
  else (socket as unknown as { _parent: Socket })._parent.resetAndDestroy();
}

for (const transport of transports) {
  test(`${transport}: the end of input does not end the output (W-67)`, async () => {
    await using running = await serveEcho();
    for (const headers of [upgrade, '']) {
      const socket = await connect(running, transport, certificates);
      socket.write(attachHead(headers));
      socket.end('hello ');
      const answer = await readAll(socket);
      assert.equal(bodyOf(answer), 'hello end');
      assert.match(answer, headers === '' ? /^HTTP\/1\.1 200 OK\r\n/ : /^HTTP\/1\.1 101 UPGRADED\r\n/);
      assert.match(answer, /\r\nContent-Type: application\/vnd\.docker\.raw-stream\r\n/);
      assert.equal(/\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n/.test(answer), headers !== '');
      assert.doesNotMatch(answer, /Content-Length|Transfer-Encoding/i);
      assert.match(answer, /\r\nServer: Docker\/9\.9\.9 \(linux\)\r\n/);
    }
    await until('connections are given back', () => running.server.connections === 0);
  });

  test(`${transport}: input begins after the declared body, however it is cut`, async () => {
    await using running = await serveEcho();
    const cuts: readonly (readonly string[])[] = [
      [`${attachHead(`${upgrade}Content-Length: 13\r\n`)}{"stream":1} `, 'in'],
      [attachHead(`${upgrade}Content-Length: 13\r\n`), '{"stre', 'am":1} i', 'n'],
      [attachHead('Content-Length: 13\r\n'), '{"stream":1} in'],
      [attachHead(`${upgrade}Transfer-Encoding: chunked\r\n`), '3\r', '\nabc\r\n0\r', '\n\r\nin'],
      [attachHead('Transfer-Encoding: chunked\r\n'), '3\r\nabc\r\n0\r\n\r\nin'],
      [`${attachHead('')}in`],
      [attachHead(`${upgrade}Transfer-Encoding: chunked\r\n`), 'in'],
    ];
    for (const pieces of cuts) {
      const socket = await connect(running, transport, certificates);
      await sendInPieces(socket, pieces);
      socket.end();
      assert.equal(bodyOf(await readAll(socket)), 'inend', JSON.stringify(pieces));
    }
  });

  test(`${transport}: the server half-closes when the output ends, and takes what input still comes`, async () => {
    await using running = await serve(
      {
        containers: {
          attach: async () => ({
            tty: true,
            input: { write: () => Promise.reject(new Error('it has ended')), end: () => undefined },
            output: (async function* () {
              yield Buffer.from('bye');
            })(),
          }),
        },
      },
      { tls: certificates },
    );
    const socket = await connect(running, transport, certificates);
    socket.write(attachHead(upgrade));
    assert.equal(bodyOf(await readAll(socket)), 'bye');
    for (let piece = 0; piece < 20; piece++) socket.write(Buffer.alloc(16_384));
    await new Promise<void>((resolve) => socket.end(resolve));
    await until('the connection is given back', () => running.server.connections === 0);
    assert.deepEqual(
      running.log.filter(({ level }) => level === 'error'),
      [],
    );
  });

  test(`${transport}: a client that leaves takes its stream with it`, async () => {
    await using running = await serveEcho();
    for (let round = 0; round < 20; round++) {
      const socket = await connect(running, transport, certificates);
      socket.on('error', () => undefined);
      socket.write(attachHead(round % 2 === 0 ? upgrade : ''));
      await new Promise((resolve) => socket.once('data', resolve));
      vanish(socket, transport);
    }
    await until('connections are given back', () => running.server.connections === 0);
    assert.equal(running.echoes.length, 20);
    // On a unix socket the end of input is seen first, and these streams end by themselves soon after it.
    await until('streams are left', () => running.echoes.every(({ isLeft }) => isLeft));
    if (transport !== 'unix') assert.ok(running.echoes.every(({ gone }) => gone.aborted));
  });
}

test('unix: a silent stream notices a client that closed without a word, but not one that half-closed', async () => {
  const signals: AbortSignal[] = [];
  const silent = (gone: AbortSignal) => {
    signals.push(gone);
    return new Promise<never>((_, reject) => gone.addEventListener('abort', () => reject(new Error('left'))));
  };
  await using running = await serve({
    containers: {
      attach: async (_ref, _query, gone) => ({
        tty: true,
        input: null,
        output: (async function* () {
          yield await silent(gone);
        })(),
      }),
      logs: async (_ref, _query, gone) =>
        (async function* () {
          yield await silent(gone);
        })(),
      wait: (_ref, gone) => silent(gone),
    },
  });
  const questions = [
    attachHead(upgrade),
    'GET /containers/a/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n',
    'POST /containers/a/wait HTTP/1.1\r\nHost: x\r\n\r\n',
  ];
  const sockets = await Promise.all(questions.map(() => connect(running, 'unix', certificates)));
  for (const [index, socket] of sockets.entries()) socket.end(questions[index] as string);
  await until('all are being served', () => signals.length === 3);
  await sleep(2_500);
  assert.ok(
    signals.every(({ aborted }) => !aborted),
    'half-closed clients still want their answer',
  );
  for (const socket of sockets) socket.destroy();
  await until('closed clients are noticed', () => signals.every(({ aborted }) => aborted));
  await until('connections are given back', () => running.server.connections === 0);
});

test('a failure before the stream is an ordinary answer, also to an upgrade', async () => {
  await using running = await serveEcho();
  for (const headers of [upgrade, '']) {
    const socket = await connect(running, 'unix', certificates);
    socket.end(`POST /v1.26/containers/missing/attach HTTP/1.1\r\nHost: x\r\n${headers}\r\n`);
    const answer = await readAll(socket);
    assert.match(answer, /^HTTP\/1\.1 404 Not Found\r\n/);
    assert.match(answer, /\r\nContent-Type: application\/json\r\n/);
    assert.equal(bodyOf(answer), '{"message":"No such container: missing"}\n');
  }
  const socket = await connect(running, 'unix', certificates);
  socket.end(`POST /v1.23/containers/missing/attach HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n`);
  assert.equal(bodyOf(await readAll(socket)), 'No such container: missing\n');
});

test('exec start reads its JSON before the stream, on an upgraded connection too', async () => {
  await using running = await serveEcho();
  const start = (headers: string, body: string) =>
    `POST /exec/e/start HTTP/1.1\r\nHost: x\r\n${headers}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  const attached = await connect(running, 'unix', certificates);
  attached.end(`${start(upgrade, '{"Detach":false,"Tty":true}')}in`);
  assert.equal(bodyOf(await readAll(attached)), 'inend');

  const detached = await connect(running, 'unix', certificates);
  detached.end(start('', '{"Detach":true}'));
  assert.match(await readAll(detached), /^HTTP\/1\.1 200 OK\r\n[\s\S]*Content-Length: 0\r\n/);

  for (const [body, words] of [
    ['{"Detach":"yes"}', 'invalid JSON: Detach must be boolean'],
    ['{', 'invalid JSON'],
  ] as const) {
    const refused = await connect(running, 'unix', certificates);
    refused.end(start(upgrade, body));
    const answer = await readAll(refused);
    assert.match(answer, /^HTTP\/1\.1 400 /);
    assert.ok(answer.includes(words), answer);
  }
  const tooLong = await connect(running, 'unix', certificates);
  tooLong.write(`POST /exec/e/start HTTP/1.1\r\nHost: x\r\n${upgrade}Content-Length: 9000000\r\n\r\n`);
  tooLong.write(Buffer.alloc(9_000_000, 32));
  assert.match(await readAll(tooLong), /^HTTP\/1\.1 413 /);
  tooLong.destroy();
});

test('a hijack on a kept-alive connection works', async () => {
  await using running = await serveEcho();
  const socket = await connect(running, 'unix', certificates);
  socket.write('GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n');
  await new Promise((resolve) => socket.once('data', resolve));
  socket.write(attachHead(upgrade));
  socket.end('again ');
  assert.ok((await readAll(socket)).endsWith('\r\n\r\nagain end'));
});

test('output waits for a client that does not read', async () => {
  let taken = 0;
  const chunk = Buffer.alloc(65_536);
  const flood = async function* () {
    for (let index = 0; index < 2_000; index++) {
      taken++;
      yield chunk;
    }
  };
  await using running = await serve({
    containers: {
      attach: async () => ({ tty: true, input: null, output: flood() }),
      logs: async () => flood(),
    },
  });
  for (const question of [attachHead(upgrade), 'GET /containers/a/logs?stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n']) {
    taken = 0;
    const socket = await connect(running, 'unix', certificates);
    socket.pause();
    socket.end(question);
    await until('the stream began', () => taken > 0);
    await sleep(300);
    assert.ok(taken < 50, `${taken} chunks are under way to a client that reads nothing`);
    const answer = await readAll(socket);
    assert.ok(answer.length >= 2_000 * chunk.length);
  }
});

test('input waits for a container that does not read', async () => {
  let arrived = 0;
  let release: () => void = () => undefined;
  const reading = new Promise<void>((resolve) => {
    release = resolve;
  });
  await using running = await serve({
    containers: {
      attach: async (_ref, _query, gone) => {
        const echo = new Echo(gone);
        return {
          tty: true,
          output: echo.output,
          input: {
            write: async (data: Uint8Array) => {
              arrived += data.length;
              await reading;
            },
            end: () => echo.input.end(),
          },
        };
      },
    },
  });
  const socket = await connect(running, 'unix', certificates);
  socket.write(attachHead(upgrade));
  const total = 8 * 1024 * 1024;
  socket.end(Buffer.alloc(total));
  await sleep(200);
  assert.ok(arrived < 1024 * 1024, `${arrived} bytes were taken from the client`);
  release();
  assert.equal(bodyOf(await readAll(socket)), 'end');
  assert.equal(arrived, total);
});
