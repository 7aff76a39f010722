/** `attach/ws`: the protocol in front of a backend of the test's own, then containers in an engine. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { Agent, WebSocket } from 'undici';
import { notFound } from '../../src/lib/errors.ts';
import { eventually, sleep } from '../support/command.ts';
import { TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';
import { clientFrame, RawWebSocket, validHeaders } from '../support/websocket.ts';
import { Echo, makeCertificates, type Running, serve, until } from './helper.ts';

const [text, binary, close, ping, pong] = [1, 2, 8, 9, 10];
const path = '/v1.26/containers/a/attach/ws?stream=1';

async function serveEcho(): Promise<Running & { readonly echoes: Echo[] }> {
  const echoes: Echo[] = [];
  const running = await serve({
    containers: {
      inspect: async (ref) => {
        if (ref === 'missing') throw notFound('No such container: missing');
        return {};
      },
      attach: async (ref, _query, gone) => {
        if (ref === 'missing') throw notFound('No such container: missing');
        const echo = new Echo(gone);
        echoes.push(echo);
        return echo;
      },
    },
  });
  return Object.assign(running, { echoes });
}

const dataOf = (frame: { readonly payload: Buffer } | null) => frame?.payload.toString();

describe('the protocol', () => {
  let running: Awaited<ReturnType<typeof serveEcho>>;
  before(async () => {
    running = await serveEcho();
  });
  after(() => running[Symbol.asyncDispose]());
  const connect = (headers = validHeaders, early?: Buffer) =>
    RawWebSocket.open(running.socketPath, path, headers, early);

  test('the handshake of the RFC, and a subprotocol that is offered', async () => {
    const plain = await connect();
    assert.equal(plain.status, 101);
    assert.match(plain.head, /\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=(\r\n|$)/);
    assert.match(plain.head, /\r\nServer: Docker\/9\.9\.9 \(linux\)/);
    assert.doesNotMatch(plain.head, /Sec-WebSocket-Protocol/i);
    const offering = await connect({
      ...validHeaders,
      Connection: 'keep-alive, Upgrade',
      'Sec-WebSocket-Protocol': 'tty, x',
    } as typeof validHeaders);
    assert.match(offering.head, /\r\nSec-WebSocket-Protocol: tty(\r\n|$)/);
    for (const { socket } of [plain, offering]) socket.destroy();
  });

  test('what is no handshake is a 400 in JSON, before anything is upgraded', async () => {
    const { Upgrade: _, ...noUpgrade } = validHeaders;
    const { 'Sec-WebSocket-Key': __, ...noKey } = validHeaders;
    const cases: readonly (readonly [Record<string, string>, RegExp])[] = [
      [noUpgrade, /Upgrade does not say websocket/],
      [{ ...validHeaders, Upgrade: 'tcp' }, /Upgrade does not say websocket/],
      [{ ...validHeaders, Connection: 'keep-alive' }, /Connection does not say Upgrade/],
      [{ ...validHeaders, 'Sec-WebSocket-Version': '12' }, /only version 13/],
      [noKey, /Sec-WebSocket-Key/],
      [{ ...validHeaders, 'Sec-WebSocket-Key': 'short' }, /Sec-WebSocket-Key/],
    ];
    for (const [headers, message] of cases) {
      const answer = await RawWebSocket.open(running.socketPath, path, headers);
      assert.equal(answer.status, 400, JSON.stringify(headers));
      assert.match(answer.head, /\r\nContent-Type: application\/json(\r\n|$)/);
      assert.match(answer.head, /\r\nSec-WebSocket-Version: 13(\r\n|$)/);
      assert.match(JSON.parse(await answer.rest()).message, message);
      answer.socket.destroy();
    }
    const missing = '/v1.26/containers/missing/attach/ws';
    for (const headers of [validHeaders, noKey]) {
      const answer = await RawWebSocket.open(running.socketPath, missing, headers);
      assert.equal(answer.status, 404);
      assert.equal(JSON.parse(await answer.rest()).message, 'No such container: missing');
      answer.socket.destroy();
    }
  });

  test('text, binary, fragmented and early input arrives; output is text', async () => {
    const client = await connect(validHeaders, clientFrame(text, 'early'));
    assert.deepEqual(await client.next(), { opcode: text, payload: Buffer.from('early') });
    client.send(binary, 'bin');
    assert.deepEqual(await client.next(), { opcode: text, payload: Buffer.from('bin') });
    client.send(text, 'frag', { isLast: false });
    assert.equal(dataOf(await client.next()), 'frag');
    client.send(ping, 'between');
    assert.deepEqual(await client.next(), { opcode: pong, payload: Buffer.from('between') });
    client.send(0, 'ment', { isLast: true });
    assert.equal(dataOf(await client.next()), 'ment');
    client.send(pong, 'unasked');
    client.send(text, '');
    client.send(text, 'after');
    assert.equal(dataOf(await client.next()), 'after');
    client.socket.destroy();
  });

  test('frames may be cut at each byte and be of each length', async () => {
    const client = await connect();
    let expected = '';
    let got = '';
    for (const length of [1, 125, 126, 300, 65_535, 65_536, 200_000]) {
      const payload = String.fromCharCode(97 + (length % 26)).repeat(length);
      expected += payload;
      const whole = clientFrame(binary, payload);
      for (let at = 0; at < 16 && at < whole.length; at++) client.socket.write(whole.subarray(at, at + 1));
      client.socket.write(whole.subarray(16));
      while (got.length < expected.length) got += dataOf(await client.next()) ?? assert.fail('ended early');
    }
    assert.equal(got, expected);
    client.socket.destroy();
  });

  test('a character that is cut is sent whole, and what is no text goes out as binary', async () => {
    const client = await connect();
    const euro = Buffer.from('a€');
    client.send(binary, euro.subarray(0, 2));
    assert.deepEqual(await client.next(), { opcode: text, payload: Buffer.from('a') });
    client.send(binary, euro.subarray(2, 3));
    await sleep(30);
    client.send(binary, euro.subarray(3));
    assert.deepEqual(await client.next(), { opcode: text, payload: Buffer.from('€') });
    client.send(binary, Buffer.of(0xff, 0xfe, 0x80));
    assert.deepEqual(await client.next(), { opcode: binary, payload: Buffer.of(0xff, 0xfe, 0x80) });
    client.socket.destroy();
  });

  test('a client that closes gets its code back, and its stream is left', async () => {
    const client = await connect();
    client.send(close, Buffer.of(3, 0xe9)); // 1001
    assert.deepEqual(await client.readToClose(), { data: Buffer.alloc(0), code: 1001 });
    client.socket.end();
    await until('the stream is left', () => running.echoes.every((echo) => echo.isLeft));
    await until('the connection is given back', () => running.server.connections === 0);
  });

  test('whoever breaks the rules gets code 1002, and its stream is left', async () => {
    const endless = Buffer.of(0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1);
    const broken: readonly (readonly [string, Buffer])[] = [
      ['not masked', clientFrame(text, 'x', { masked: false })],
      ['reserved bits', clientFrame(text, 'x', { reserved: 0x40 })],
      ['unknown opcode', clientFrame(3, 'x')],
      ['unknown control opcode', clientFrame(11, 'x')],
      ['continuation of nothing', clientFrame(0, 'x')],
      ['message within a message', Buffer.concat([clientFrame(text, '', { isLast: false }), clientFrame(text, '')])],
      ['fragmented ping', clientFrame(ping, 'x', { isLast: false })],
      ['long ping', clientFrame(ping, 'x'.repeat(126))],
      ['close with half a code', clientFrame(close, 'x')],
      ['close with a code nobody may send', clientFrame(close, Buffer.of(3, 0xed))],
      ['a length beyond everything', endless],
    ];
    for (const [what, bytes] of broken) {
      const client = await connect();
      client.socket.write(bytes);
      assert.equal((await client.readToClose()).code, 1002, what);
      client.socket.end();
    }
    await until('streams are left', () => running.echoes.every((echo) => echo.isLeft));
    await until('connections are given back', () => running.server.connections === 0);
  });

  test('clients that vanish, with and without a word, leave nothing', async () => {
    for (let round = 0; round < 40; round++) {
      const client = await connect();
      if (round % 2 === 0) client.send(text, 'half a fr', { isLast: false });
      if (round % 3 === 0) client.socket.write(Buffer.of(0x81));
      client.socket.destroy();
    }
    await until('streams are left', () => running.echoes.every((echo) => echo.isLeft));
    await until('connections are given back', () => running.server.connections === 0);
    assert.deepEqual(
      running.log.filter(({ level }) => level === 'error'),
      [],
    );
  });
});

test('the end of the output is a close frame with 1000; a failure of it one with 1011', async () => {
  await using running = await serve({
    containers: {
      attach: async (ref) => ({
        tty: false,
        input: null,
        output: (async function* () {
          yield Buffer.from('last words');
          if (ref === 'failing') throw new Error('it broke');
        })(),
      }),
    },
  });
  for (const [ref, code] of [
    ['ending', 1000],
    ['failing', 1011],
  ] as const) {
    const client = await RawWebSocket.open(running.socketPath, `/v1.26/containers/${ref}/attach/ws?stream=1`);
    assert.deepEqual(await client.readToClose(), { data: Buffer.from('last words'), code });
    client.socket.end();
  }
  await until('connections are given back', () => running.server.connections === 0);
});

test('a flood of pings from a client that never reads gathers nothing', async () => {
  let gone: AbortSignal | undefined;
  await using running = await serve({
    containers: {
      attach: async (_ref, _query, signal) => {
        gone = signal;
        return {
          tty: false,
          input: null,
          output: (async function* () {
            await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('left'))));
            yield Buffer.alloc(0);
          })(),
        };
      },
    },
  });
  const client = await RawWebSocket.open(running.socketPath, path);
  client.socket.pause();
  const flood = Buffer.concat(Array.from({ length: 4096 }, () => clientFrame(ping, 'x'.repeat(125))));
  globalThis.gc?.();
  const before = process.memoryUsage().arrayBuffers;
  for (let round = 0; round < 40; round++) {
    if (!client.socket.write(flood)) await new Promise((resolve) => client.socket.once('drain', resolve));
  }
  // 21 MB of pings; unanswered ones kept would be as much again.
  assert.ok(process.memoryUsage().arrayBuffers - before < 8e6, `${process.memoryUsage().arrayBuffers - before} bytes`);
  client.socket.destroy();
  await until('the stream is left', () => gone?.aborted === true);
});

test("Node's own client over TCP, and one over TLS with certificates", async () => {
  const certificates = makeCertificates();
  try {
    await using running = await serve(
      { containers: { attach: async (_ref, _query, gone) => new Echo(gone) } },
      { tls: certificates },
    );
    const connect = {
      ca: fs.readFileSync(certificates.ca),
      cert: fs.readFileSync(certificates.clientCert),
      key: fs.readFileSync(certificates.clientKey),
    };
    const clients = [
      () => new globalThis.WebSocket(`ws://127.0.0.1:${running.port}${path}`),
      () => new WebSocket(`wss://127.0.0.1:${running.tlsPort}${path}`, { dispatcher: new Agent({ connect }) }),
    ];
    for (const open of clients) {
      const client = open();
      const message = Promise.withResolvers<unknown>();
      const closed = Promise.withResolvers<number>();
      client.onmessage = (event: { data: unknown }) => message.resolve(event.data);
      client.onclose = (event: { code: number }) => closed.resolve(event.code);
      client.onerror = (event) => message.reject(event);
      client.onopen = () => client.send('grüße');
      assert.equal(await message.promise, 'grüße');
      client.close(1000);
      assert.equal(await closed.promise, 1000);
    }
  } finally {
    fs.rmSync(certificates.directory, { recursive: true });
  }
});

describe('containers', () => {
  let engine: TestEngine;
  before(async () => {
    engine = await TestEngine.start();
    await importBusybox(engine);
  });
  after(() => engine?.close());

  async function create(name: string, script: string, more: object = {}): Promise<string> {
    const body = { Image: 'busybox', Cmd: ['sh', '-c', script], ...more };
    return (await engine.call('POST', `/v1.26/containers/create?name=${name}`, body)).Id;
  }
  const attach = (name: string, query = 'stream=1') =>
    RawWebSocket.open(engine.paths.socket, `/v1.26/containers/${name}/attach/ws?${query}`);
  const start = (name: string) => engine.call('POST', `/v1.26/containers/${name}/start`);

  test('without a terminal: both streams, unframed, and the end of the run is the end of the talk', async () => {
    await create('plain', 'echo out; echo err >&2; read x; echo "got $x"', { OpenStdin: true });
    const client = await attach('plain');
    await start('plain');
    client.send(text, 'typed\n');
    const { data, code } = await client.readToClose();
    assert.deepEqual([...data.toString().split('\n')].sort(), ['', 'err', 'got typed', 'out']);
    assert.equal(code, 1000);
    client.socket.end();
  });

  test('a browser-like client sees what was printed before with logs=1', async () => {
    await create('logged', 'echo early; read x; echo late', { OpenStdin: true });
    await start('logged');
    await eventually(async () => {
      const { text: logs } = await engine.api('GET', '/v1.26/containers/logged/logs?stdout=1');
      assert.match(logs, /early/);
    });
    const client = new WebSocket(`ws://docker/v1.26/containers/logged/attach/ws?logs=1&stream=1`, {
      dispatcher: new Agent({ connect: { socketPath: engine.paths.socket } }),
    });
    let seen = '';
    const closed = Promise.withResolvers<number>();
    client.onmessage = ({ data }) => {
      seen += data;
      if (seen === 'early\n') client.send('x\n');
    };
    client.onclose = ({ code }) => closed.resolve(code);
    assert.equal(await closed.promise, 1000);
    assert.equal(seen, 'early\nlate\n');
    const only = await attach('logged', 'logs=1');
    assert.equal((await only.readToClose()).data.toString(), 'early\nlate\n');
    only.socket.end();
  });

  test('with a terminal: typing, its echo, and detach keys that leave the container running', async () => {
    await create('terminal', 'exec sh', { OpenStdin: true, Tty: true });
    const client = await attach('terminal', 'stream=1&detachKeys=ctrl-x');
    await start('terminal');
    client.send(text, 'echo $((6*7))\n');
    let seen = '';
    while (!/\r\n42\r\n/.test(seen)) seen += dataOf(await client.next()) ?? assert.fail(`ended after ${seen}`);
    client.send(binary, Buffer.of(24));
    assert.equal((await client.readToClose()).code, 1000);
    client.socket.end();
    assert.equal((await engine.call('GET', '/v1.26/containers/terminal/json')).State.Running, true);
    const invalid = await attach('terminal', 'stream=1&detachKeys=ctrl-%C3%A4');
    assert.equal(invalid.status, 400);
    invalid.socket.destroy();
  });

  test('the end of a StdinOnce client is the end of the input', async () => {
    await create('once', 'cat; echo over', { OpenStdin: true, StdinOnce: true });
    const client = await attach('once');
    await start('once');
    client.send(text, 'a line\n');
    assert.equal(dataOf(await client.next()), 'a line\n');
    client.send(close, Buffer.of(3, 0xe8));
    await client.readToClose();
    client.socket.end();
    assert.equal((await engine.call('POST', '/v1.26/containers/once/wait')).StatusCode, 0);
  });

  test('a client that does not read holds nobody up, and gets everything when it does', async () => {
    const size = 20_000_000;
    await create('loud', `yes 0123456789abcde | head -c ${size}; echo done >&2`);
    const slow = await attach('loud', 'stream=1');
    slow.socket.pause();
    await start('loud');
    assert.equal((await engine.call('POST', '/v1.26/containers/loud/wait')).StatusCode, 0);
    let got = 0;
    let shift = 0;
    slow.socket.resume();
    for (;;) {
      const frame = await slow.next();
      if (frame === null || frame.opcode === close) break;
      if (got < 32) assert.equal(frame.payload.toString('latin1', shift, shift + 16), '0123456789abcde\n');
      shift = 0;
      got += frame.payload.length;
    }
    assert.equal(got, size + 'done\n'.length);
    slow.socket.end();
  });

  test('paused and unknown containers are refused as by attach', async () => {
    await create('paused', 'sleep 1000');
    await start('paused');
    await engine.call('POST', '/v1.26/containers/paused/pause');
    const refused = await attach('paused');
    assert.equal(refused.status, 409);
    assert.match(await refused.rest(), /container paused is paused, unpause the container before attach/);
    refused.socket.destroy();
    const missing = await attach('nosuch');
    assert.equal(missing.status, 404);
    assert.equal(JSON.parse(await missing.rest()).message, 'No such container: nosuch');
    missing.socket.destroy();
  });

  test('a thousand clients that vanish cost the daemon no descriptor', async () => {
    await create('quiet', 'sleep 1000', { OpenStdin: true });
    await start('quiet');
    const open = () => fs.readdirSync(`/proc/${engine.pid}/fd`).length;
    for (let i = 0; i < 20; i++) (await attach('quiet')).socket.destroy();
    await eventually(() => assert.ok(open() < 200));
    await sleep(1500);
    const before = open();
    for (let round = 0; round < 50; round++) {
      const clients = await Promise.all(Array.from({ length: 20 }, () => attach('quiet')));
      for (const [i, { socket }] of clients.entries()) {
        if (i % 2 === 0) socket.write(clientFrame(text, 'some').subarray(0, 5));
        socket.destroy();
      }
    }
    await eventually(() => assert.ok(open() <= before, `${open()} descriptors open, ${before} before`), 10_000);
  });
});
