/** Streams under stress, scaled: stress.test.ts runs them in every CI run, stress.long.test.ts at full length. */
import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { eventually, sleep } from '../support/command.ts';
import { TestEngine } from '../support/engine.ts';
import { demultiplex, hijack, open } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';
import { holdingsOf } from '../support/memory.ts';
import { RawWebSocket } from '../support/websocket.ts';

export interface Scale {
  readonly execs: number;
  readonly runs: number;
  readonly sleepSeconds: number;
  /** Of each kind. */
  readonly aborts: number;
}

const MiB = 1024 * 1024;

export function stress(scale: Scale): void {
  let engine: TestEngine;
  const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });
  before(async () => {
    engine = await TestEngine.start();
    await importBusybox(engine);
  });
  after(async () => {
    agent.destroy();
    await engine?.close();
  });

  /** A JSON question over a connection that is kept. */
  function ask(method: string, path: string, body?: object): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const payload = body === undefined ? '' : JSON.stringify(body);
      const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) };
      const { socket: socketPath } = engine.paths;
      const request = http.request({ socketPath, method, path: `/v1.26${path}`, headers, agent }, (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (part) => {
          text += part;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
        response.on('error', reject);
      });
      request.on('error', reject);
      request.end(payload);
    });
  }

  async function create(name: string, script: string, more: object = {}): Promise<string> {
    const body = { Image: 'busybox', Cmd: ['sh', '-c', script], ...more };
    const { status, text } = await ask('POST', `/containers/create?name=${name}`, body);
    assert.equal(status, 201, text);
    return JSON.parse(text).Id;
  }
  const start = async (name: string) => assert.equal((await ask('POST', `/containers/${name}/start`)).status, 204);
  const wait = async (name: string) => JSON.parse((await ask('POST', `/containers/${name}/wait`)).text).StatusCode;

  /** `count` pieces of work, `width` at a time. */
  async function many(count: number, width: number, work: (index: number) => Promise<void>): Promise<void> {
    let next = 0;
    const worker = async () => {
      while (next < count) await work(next++);
    };
    await Promise.all(Array.from({ length: width }, worker));
  }

  test(`${scale.execs} times exec echo, and no answer is blank`, async () => {
    await create('echoing', 'sleep 100000');
    await start('echoing');
    await many(scale.execs, 8, async (index) => {
      const line = `line ${index}`;
      const created = await ask('POST', '/containers/echoing/exec', { AttachStdout: true, Cmd: ['echo', line] });
      const { Id } = JSON.parse(created.text);
      const { body, status } = await engine.api('POST', `/v1.26/exec/${Id}/start`, {});
      assert.equal(status, 200);
      assert.equal(demultiplex(body).stdout, `${line}\n`);
      assert.equal(JSON.parse((await ask('GET', `/exec/${Id}/json`)).text).ExitCode, 0);
    });
    await ask('DELETE', '/containers/echoing?force=1');
  });

  test(`${scale.runs} times create with AutoRemove, start and wait: the code is always 42`, async () => {
    await many(scale.runs, 4, async (index) => {
      const id = await create(`run${index}`, 'exit 42', { HostConfig: { AutoRemove: true } });
      await start(id);
      assert.equal(await wait(id), 42);
    });
    await eventually(async () => assert.equal((await ask('GET', '/containers/json?all=1')).text.trim(), '[]'), 10_000);
  });

  describe('clients that are slow or dead', () => {
    const megabytes = 40;
    const print = `yes 0123456789abcde | head -c ${megabytes * MiB}`;

    test('one that reads nothing does not hold up the container, nor other clients', async () => {
      await create('printing', print);
      const path = '/v1.26/containers/printing/attach?stream=1&stdout=1';
      const slow = await Promise.all(Array.from({ length: 20 }, () => hijack(engine.paths.socket, path)));
      for (const { socket } of slow) socket.pause();
      const webSocket = await RawWebSocket.open(engine.paths.socket, '/v1.26/containers/printing/attach/ws?stream=1');
      webSocket.socket.pause();
      const reader = await hijack(engine.paths.socket, path);
      await start('printing');
      const whole = readAll(reader.socket, reader.rest);
      assert.equal(await wait('printing'), 0);
      assert.equal(demultiplex(await whole).stdout.length, megabytes * MiB);
      const { resident } = await holdingsOf(engine);
      assert.ok(resident < 400 * MiB, `the daemon holds ${resident} bytes for clients that do not read`);
      // One of them wakes up and has missed nothing; the others vanish.
      const late = slow.pop();
      assert.ok(late);
      for (const { socket } of slow) socket.destroy();
      webSocket.socket.destroy();
      assert.equal(demultiplex(await readAll(late.socket, late.rest)).stdout.length, megabytes * MiB);
      await ask('DELETE', '/containers/printing');
    });

    test('clients that vanish while it prints do not hold it up', async () => {
      await create('abandoned', print);
      const path = '/v1.26/containers/abandoned/attach?stream=1&stdout=1';
      const clients = await Promise.all(Array.from({ length: 20 }, () => hijack(engine.paths.socket, path)));
      await start('abandoned');
      for (const { socket } of clients) {
        await sleep(5);
        socket.destroy();
      }
      assert.equal(await wait('abandoned'), 0);
      await ask('DELETE', '/containers/abandoned');
    });

    test('one that types into a container which reads nothing fills no memory and keeps nobody from it', async () => {
      await create('deaf', 'sleep 100000', { OpenStdin: true });
      await start('deaf');
      await holdingsOf(engine);
      const before = await holdingsOf(engine);
      const { socket } = await hijack(engine.paths.socket, '/v1.26/containers/deaf/attach?stream=1&stdin=1');
      socket.on('error', () => undefined);
      const block = Buffer.alloc(MiB);
      for (let i = 0; i < 50; i++) socket.write(block);
      await sleep(500);
      const { resident } = await holdingsOf(engine);
      assert.ok(resident - before.resident < 30 * MiB, `${resident - before.resident} bytes for input nobody reads`);
      assert.equal((await ask('GET', '/containers/deaf/json')).status, 200);
      assert.equal((await ask('DELETE', '/containers/deaf?force=1')).status, 204);
      socket.destroy();
    });
  });

  test(`a follower that sleeps for ${scale.sleepSeconds} seconds misses nothing, also over rotations`, async () => {
    const script = 'i=0; while [ $i -lt 60000 ]; do echo "line $i of what the follower has to see"; i=$((i+1)); done';
    const LogConfig = { Type: 'json-file', Config: { 'max-size': '500k', 'max-file': '3' } };
    await create('followed', script, { HostConfig: { LogConfig } });
    await start('followed');
    const stream = await open(engine.paths.socket, 'GET', '/v1.26/containers/followed/logs?stdout=1&follow=1');
    stream.pause();
    await sleep(scale.sleepSeconds * 1000);
    const lines = demultiplex(await readAll(stream.socket, Buffer.alloc(0), stream)).stdout.split('\n');
    assert.equal(lines.pop(), '');
    for (const [i, line] of lines.entries()) assert.equal(line, `line ${i} of what the follower has to see`);
    assert.equal(lines.length, 60_000);
    assert.equal(await wait('followed'), 0);
    await ask('DELETE', '/containers/followed');
  });

  test(`${5 * scale.aborts} connections cut off leave no open file and no memory behind`, async (t) => {
    await create('visited', 'while true; do echo tick; sleep 1; done', { OpenStdin: true });
    await start('visited');
    const post = (path: string, body = '') =>
      `POST /v1.26${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${body.length}\r\n\r\n${body}`;
    const get = (path: string, headers = '') => `GET /v1.26${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`;
    const upgrade =
      'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n';
    const kinds: Readonly<Record<string, () => Promise<string> | string>> = {
      attach: () => post('/containers/visited/attach?stream=1&stdin=1&stdout=1&stderr=1&logs=1'),
      logs: () => get('/containers/visited/logs?stdout=1&follow=1'),
      events: () => get('/events'),
      'attach/ws': () => get('/containers/visited/attach/ws?stream=1&logs=1', upgrade),
      exec: async () => {
        const body = { AttachStdin: true, AttachStdout: true, Cmd: ['cat'] };
        const { Id } = JSON.parse((await ask('POST', '/containers/visited/exec', body)).text);
        return post(`/exec/${Id}/start`, '{}');
      },
    };
    async function abort(kind: string, index: number): Promise<void> {
      const request = await kinds[kind]?.();
      const socket = net.connect(engine.paths.socket);
      socket.on('error', () => undefined);
      socket.write(request ?? '');
      // Before the answer, at its headers, or some time later.
      if (index % 3 !== 0) await new Promise((resolve) => socket.once('data', resolve));
      if (index % 3 === 2) await sleep(index % 20);
      socket.destroy();
    }
    const round = async (count: number) => {
      for (const kind of Object.keys(kinds)) await many(count, 20, (index) => abort(kind, index));
    };
    const settled = async () => {
      await eventually(async () => {
        const { text } = await ask('GET', '/containers/visited/top');
        assert.ok(!text.includes('"cat"'), 'processes of cut off execs live on');
      }, 60_000);
      await sleep(2500);
      return holdingsOf(engine);
    };
    await holdingsOf(engine);
    // The allocator takes its share once: what matters is what more of the same adds.
    await round(Math.min(1000, scale.aborts));
    const first = await settled();
    const started = Date.now();
    await round(scale.aborts);
    const seconds = (Date.now() - started) / 1000;
    const last = await settled();
    const grown = { live: last.live - first.live, resident: last.resident - first.resident };
    t.diagnostic(
      `${5 * scale.aborts} in ${seconds.toFixed(1)} s: live ${kB(grown.live)}, resident ${kB(grown.resident)}, ` +
        `descriptors ${first.descriptors} and ${last.descriptors}`,
    );
    assert.ok(last.descriptors <= first.descriptors + 2, `${last.descriptors} open files, ${first.descriptors} before`);
    assert.ok(grown.live < 10 * MiB, `live memory grew by ${kB(grown.live)}`);
    assert.ok(grown.resident < 10 * MiB, `resident memory grew by ${kB(grown.resident)}`);
    await ask('DELETE', '/containers/visited?force=1');
    await engine.assertNoLeaks();
  });
}

const kB = (bytes: number) => `${Math.round(bytes / 1024)} kB`;

async function readAll(
  socket: net.Socket,
  rest: Buffer,
  source: AsyncIterable<Uint8Array> = socket as AsyncIterable<Uint8Array>,
): Promise<Buffer> {
  const parts: Uint8Array[] = [rest];
  for await (const part of source) parts.push(part);
  return Buffer.concat(parts);
}
