/** The story as a shell script tells it: curl, versioned and unversioned paths, what is on the wire. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TestEngine } from '../support/engine.ts';
import { demultiplex, hijack, open } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

describe('curl', () => {
  let engine: TestEngine;
  /** Body and, after it, the status on a line of its own. */
  const curl = async (...args: string[]): Promise<{ status: number; body: string }> => {
    const out = await engine.netns.must([
      ...['curl', '-sS', '--max-time', '20', '--unix-socket', engine.paths.socket, '-w', '\n%{http_code}', ...args],
    ]);
    const end = out.lastIndexOf('\n');
    return { status: Number(out.slice(end + 1)), body: out.slice(0, end) };
  };
  const url = (path: string) => `http://localhost${path}`;
  const json = ['-H', 'Content-Type: application/json'];

  before(async () => {
    engine = await TestEngine.start();
    await importBusybox(engine);
  });
  after(() => engine?.close());

  test('ping, with and without a version, by GET', async () => {
    assert.deepEqual(await curl(url('/_ping')), { status: 200, body: 'OK' });
    assert.deepEqual(await curl(url('/v1.24/_ping')), { status: 200, body: 'OK' });
    const headers = await engine.netns.must(['curl', '-sSi', '--unix-socket', engine.paths.socket, url('/_ping')]);
    assert.match(headers, /^Api-Version: 1\.\d+\r$/im);
    assert.match(headers, /^Docker-Experimental: (true|false)\r$/im);
    assert.match(headers, /^Ostype: linux\r$/im);
    assert.match(headers, /^Server: Docker\/\S+ \(linux\)\r$/im);
  });

  test('a wrong path, container, body and version are JSON errors', async () => {
    const message = async (...args: string[]) => {
      const { status, body } = await curl(...args);
      return [status, JSON.parse(body).message];
    };
    assert.deepEqual(await message(url('/v1.26/no/such/path')), [404, 'page not found']);
    assert.deepEqual(await message(url('/v1.26/containers/nobody/json')), [404, 'No such container: nobody']);
    const torn = await message('-d', '{', ...json, url('/v1.26/containers/create'));
    assert.equal(torn[0], engine.kind === 'dockerd' ? 500 : 400, torn[1]);
    const [status, text] = await message(url('/v1.99/containers/json'));
    assert.equal(status, 400);
    assert.match(text, /client version 1\.99 is too new/);
  });

  test('create, start, wait, logs, remove', async () => {
    const body = JSON.stringify({ Image: 'busybox', Cmd: ['sh', '-c', 'echo out; echo err >&2; exit 3'] });
    const created = await curl('-d', body, ...json, url('/v1.26/containers/create?name=job'));
    assert.equal(created.status, 201);
    const { Id } = JSON.parse(created.body);
    assert.equal((await curl('-X', 'POST', url(`/v1.26/containers/${Id.slice(0, 12)}/start`))).status, 204);
    assert.deepEqual(JSON.parse((await curl('-X', 'POST', url('/v1.26/containers/job/wait'))).body).StatusCode, 3);
    const logs = await engine.api('GET', '/v1.26/containers/job/logs?stdout=1&stderr=1');
    assert.deepEqual(demultiplex(logs.body), { stdout: 'out\n', stderr: 'err\n' });
    const again = await curl('-d', body, ...json, url('/v1.26/containers/create?name=job'));
    assert.equal(again.status, 409);
    assert.ok(
      JSON.parse(again.body).message.includes(`The container name "/job" is already in use by container "${Id}"`),
    );
    assert.equal((await curl('-X', 'DELETE', url('/v1.26/containers/job'))).status, 204);
    assert.equal((await curl('-X', 'DELETE', url('/v1.26/containers/job'))).status, 404);
  });

  test('a container of an unknown image is refused with the words that make clients pull it', async () => {
    const { status, body } = await curl(
      '-d',
      '{"Image":"nothing/like:this"}',
      ...json,
      url('/v1.26/containers/create'),
    );
    assert.deepEqual([status, JSON.parse(body).message], [404, 'No such image: nothing/like:this']);
  });

  test('headers of a silent stream come at once', async () => {
    const { Id } = await engine.call('POST', '/containers/create', { Image: 'busybox', Cmd: ['sleep', '1000'] });
    await engine.call('POST', `/containers/${Id}/start`);
    for (const path of [`/containers/${Id}/logs?follow=1&stdout=1`, `/containers/${Id}/stats`, '/events']) {
      const answer = await open(engine.paths.socket, 'GET', path, undefined, { timeoutMs: 500 });
      assert.equal(answer.statusCode, 200);
      answer.destroy();
    }
    await engine.call('DELETE', `/containers/${Id}?force=1`);
  });

  for (const upgrade of [true, false]) {
    test(`attach over a hijacked connection ${upgrade ? 'with' : 'without'} upgrade headers, half-closed`, async () => {
      const { Id } = await engine.call('POST', '/containers/create', {
        Image: 'busybox',
        Cmd: ['sh', '-c', 'cat; sleep 0.3; echo end'],
        OpenStdin: true,
        StdinOnce: true,
      });
      const attached = await hijack(
        engine.paths.socket,
        `/containers/${Id}/attach?stream=1&stdin=1&stdout=1&stderr=1`,
        {},
        { upgrade },
      );
      assert.equal(attached.status, upgrade ? 101 : 200, attached.head);
      await engine.call('POST', `/containers/${Id}/start`);
      attached.socket.end('typed\n');
      const parts = [attached.rest];
      for await (const part of attached.socket) parts.push(part as Buffer);
      assert.deepEqual(demultiplex(Buffer.concat(parts)), { stdout: 'typed\nend\n', stderr: '' });
      await engine.call('DELETE', `/containers/${Id}?force=1`);
    });
  }

  test('nothing is left behind', async () => {
    await engine.assertNoLeaks();
  });
});
