/**
 * Endpoints of containers and exec against a running engine: statuses and texts of failures, and streams under strain.
 *
 * test-timeout-seconds: 300
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { eventually, sleep } from '../support/command.ts';
import { TestEngine } from '../support/engine.ts';
import { demultiplex, hijack, type Loose, open } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
});
after(() => engine?.close());

async function create(name: string, cmd: readonly string[], more: object = {}): Promise<string> {
  return (await engine.call('POST', `/containers/create?name=${name}`, { Image: 'busybox', Cmd: cmd, ...more })).Id;
}

async function start(name: string, cmd: readonly string[], more: object = {}): Promise<string> {
  const id = await create(name, cmd, more);
  await engine.call('POST', `/containers/${id}/start`);
  return id;
}

describe('failures have the status and the words of ERRORS.md', () => {
  let running = '';
  let paused = '';
  let stopped = '';
  before(async () => {
    running = await start('running', ['sleep', '1000']);
    paused = await start('paused', ['sleep', '1000']);
    await engine.call('POST', '/containers/paused/pause');
    stopped = await start('stopped', ['true']);
    await engine.call('POST', '/containers/stopped/wait');
  });
  after(() => engine.removeAll());

  const id = (name: string) => ({ RUNNING: running, PAUSED: paused, STOPPED: stopped })[name] ?? name;
  const cases: readonly (readonly [string, string, unknown, number, string])[] = [
    ['GET', '/containers/nosuch/json', undefined, 404, 'No such container: nosuch'],
    ['POST', '/containers/nosuch/start', undefined, 404, 'No such container: nosuch'],
    ['POST', '/containers/nosuch/wait', undefined, 404, 'No such container: nosuch'],
    ['DELETE', '/containers/nosuch', undefined, 404, 'No such container: nosuch'],
    ['POST', '/containers/create', {}, 400, 'Config cannot be empty in order to create a container'],
    ['POST', '/containers/create', { Image: 'nosuch', Cmd: ['x'] }, 404, 'No such image: nosuch:latest'],
    ['POST', '/containers/create', { Image: 'busybox', Entrypoint: [''], Cmd: [] }, 400, 'No command specified'],
    [
      'POST',
      '/containers/create?name=_x',
      { Image: 'busybox' },
      400,
      'Invalid container name (_x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed',
    ],
    [
      'POST',
      '/containers/create?name=running',
      { Image: 'busybox' },
      409,
      'Conflict. The container name "/running" is already in use by container "RUNNING". You have to remove (or rename) that container to be able to reuse that name.',
    ],
    [
      'POST',
      '/containers/create',
      { Image: 'busybox', HostConfig: { NetworkMode: 'nosuch' } },
      404,
      'network nosuch not found',
    ],
    [
      'POST',
      '/containers/create',
      { Image: 'busybox', HostConfig: { NetworkMode: 'container:nosuch' } },
      400,
      'No such container: nosuch',
    ],
    ['POST', '/containers/running/start', undefined, 304, ''],
    ['POST', '/containers/stopped/stop', undefined, 304, ''],
    ['POST', '/containers/paused/start', undefined, 409, 'cannot start a paused container, try unpause instead'],
    ['POST', '/containers/paused/pause', undefined, 409, 'Container PAUSED is already paused'],
    ['POST', '/containers/running/unpause', undefined, 500, 'Container RUNNING is not paused'],
    ['POST', '/containers/stopped/pause', undefined, 409, 'Container STOPPED is not running'],
    [
      'POST',
      '/containers/stopped/kill',
      undefined,
      409,
      'Cannot kill container: stopped: Container STOPPED is not running',
    ],
    ['POST', '/containers/running/kill?signal=FOO', undefined, 400, 'Invalid signal: FOO'],
    [
      'DELETE',
      '/containers/running',
      undefined,
      409,
      'You cannot remove a running container RUNNING. Stop the container before attempting removal or force remove',
    ],
    [
      'DELETE',
      '/containers/running?link=1',
      undefined,
      409,
      'Conflict, cannot remove the default name of the container',
    ],
    [
      'POST',
      '/containers/running/rename?name=running',
      undefined,
      400,
      'Renaming a container with the same name as its current name',
    ],
    ['POST', '/containers/running/rename', undefined, 400, 'Neither old nor new names may be empty'],
    [
      'POST',
      '/containers/running/rename?name=paused',
      undefined,
      409,
      'Conflict. The container name "/paused" is already in use by container "PAUSED". You have to remove (or rename) that container to be able to reuse that name.',
    ],
    ['GET', '/containers/running/logs', undefined, 400, 'Bad parameters: you must choose at least one stream'],
    ['GET', '/containers/stopped/top', undefined, 409, 'Container STOPPED is not running'],
    ['GET', '/containers/running/top?ps_args=o', undefined, 400, ''],
    [
      'POST',
      '/containers/paused/attach?stream=1',
      undefined,
      409,
      'container paused is paused, unpause the container before attach',
    ],
    ['POST', '/containers/stopped/exec', { Cmd: ['x'] }, 409, 'Container STOPPED is not running'],
    [
      'POST',
      '/containers/paused/exec',
      { Cmd: ['x'] },
      409,
      'Container paused is paused, unpause the container before exec',
    ],
    ['POST', '/containers/running/exec', {}, 400, 'No exec command specified'],
    ['GET', '/exec/nosuch/json', undefined, 404, 'No such exec instance: nosuch'],
    ['POST', '/exec/nosuch/start', {}, 404, 'No such exec instance: nosuch'],
    ['GET', '/containers/json?filters={"nosuch":["x"]}', undefined, 400, "Invalid filter 'nosuch'"],
  ];
  for (const [method, path, body, status, message] of cases) {
    test(`${method} ${path} ${body === undefined ? '' : JSON.stringify(body)}: ${status}`, async () => {
      const answer = await engine.api(method, path.replace(/\{.*\}/, encodeURIComponent), body);
      assert.equal(answer.status, status, answer.text);
      if (message !== '') assert.equal(answer.json().message, message.replace(/RUNNING|PAUSED|STOPPED/g, id));
    });
  }

  test('a command that is not there or cannot be run: 400, codes 127 and 126 in inspect', async () => {
    for (const [cmd, code, text] of [
      ['no-such-command', 127, /executable file not found in \$PATH/],
      ['/no/such/file', 127, /no such file or directory/],
      ['/etc/passwd', 126, /permission denied/],
    ] as const) {
      const container = await create('', [cmd]);
      const answer = await engine.api('POST', `/containers/${container}/start`);
      assert.equal(answer.status, 400, answer.text);
      assert.match(answer.json().message, text);
      const { State } = await engine.call('GET', `/containers/${container}/json`);
      assert.deepEqual([State.Status, State.ExitCode], ['created', code]);
      assert.match(State.Error, text);
    }
  });
  test('a second start of an exec is refused', async () => {
    const { Id } = await engine.call('POST', '/containers/running/exec', { Cmd: ['true'] });
    await engine.call('POST', `/exec/${Id}/start`, {});
    const answer = await engine.api('POST', `/exec/${Id}/start`, {});
    assert.deepEqual([answer.status, answer.json().message], [409, `Error: Exec command ${Id} has already run`]);
  });
});

describe('streams', () => {
  after(() => engine.removeAll());

  test('no answer of an exec is blank or short, many at once', async () => {
    await start('looped', ['sleep', '1000']);
    let count = 0;
    const worker = async (): Promise<void> => {
      while (count < 300) {
        const number = count++;
        const { Id } = await engine.call('POST', '/containers/looped/exec', {
          Cmd: ['echo', `line ${number}`],
          AttachStdout: true,
        });
        const { body } = await engine.api('POST', `/exec/${Id}/start`, {});
        assert.equal(demultiplex(body).stdout, `line ${number}\n`);
        assert.equal((await engine.call('GET', `/exec/${Id}/json`)).ExitCode, 0);
      }
    };
    await Promise.all([worker(), worker(), worker(), worker()]);
  });

  test('an attach opened before the start misses nothing of a short life, again and again', async () => {
    for (let round = 0; round < 40; round++) {
      const id = await create('', ['sh', '-c', 'echo first; echo second >&2; exit 42'], {
        HostConfig: { AutoRemove: round % 2 === 0 },
      });
      const attached = await hijack(
        engine.paths.socket,
        `/containers/${id}/attach?stream=1&stdout=1&stderr=1`,
        {},
        { upgrade: true },
      );
      await engine.call('POST', `/containers/${id}/start`);
      const parts = [attached.rest];
      for await (const part of attached.socket) parts.push(part as Buffer);
      assert.deepEqual(demultiplex(Buffer.concat(parts)), { stdout: 'first\n', stderr: 'second\n' });
      attached.socket.destroy();
      assert.equal((await engine.call('POST', `/containers/${id}/wait`)).StatusCode, 42);
    }
  });

  test('logs followed from before, during and after a run give every line once', async () => {
    const id = await create('', ['sh', '-c', 'for i in $(seq 2000); do echo $i; done; sleep 0.2; echo end']);
    const follow = async () => {
      const parts: Buffer[] = [];
      const stream = await open(engine.paths.socket, 'GET', `/containers/${id}/logs?stdout=1&follow=1`);
      for await (const part of stream) parts.push(part as Buffer);
      return demultiplex(Buffer.concat(parts)).stdout;
    };
    const expected = `${Array.from({ length: 2000 }, (_, i) => i + 1).join('\n')}\nend\n`;
    const before = follow();
    await sleep(50);
    await engine.call('POST', `/containers/${id}/start`);
    const during = follow();
    assert.equal(await before, expected);
    assert.equal(await during, expected);
    assert.equal(await follow(), expected);
  });

  test('a client that stops reading an attach does not slow the container', async () => {
    const id = await create('', [
      'sh',
      '-c',
      'yes "a line of some length to fill things up" | head -c 30000000; echo done >&2',
    ]);
    const attached = await hijack(
      engine.paths.socket,
      `/containers/${id}/attach?stream=1&stdout=1`,
      {},
      { upgrade: true },
    );
    attached.socket.pause();
    await engine.call('POST', `/containers/${id}/start`);
    const { StatusCode } = await engine.call('POST', `/containers/${id}/wait`, undefined, { timeoutMs: 60_000 });
    assert.equal(StatusCode, 0);
    attached.socket.destroy();
  });

  test('aborted connections leave no open file behind', async () => {
    const id = await start('', ['sh', '-c', 'while :; do echo tick; sleep 0.05; done'], { OpenStdin: true });
    const files = () => fs.readdirSync(`/proc/${engine.pid}/fd`).length;
    const abort = async (): Promise<void> => {
      for (const path of [`/containers/${id}/logs?stdout=1&follow=1`, '/events', `/containers/${id}/stats`]) {
        const stream = await open(engine.paths.socket, 'GET', path);
        stream.on('error', () => undefined);
        stream.destroy();
      }
      const attached = await hijack(
        engine.paths.socket,
        `/containers/${id}/attach?stream=1&stdout=1&stdin=1`,
        {},
        { upgrade: true },
      );
      attached.socket.destroy();
      const { Id } = await engine.call('POST', `/containers/${id}/exec`, { Cmd: ['sleep', '0.1'], AttachStdout: true });
      const exec = await hijack(engine.paths.socket, `/exec/${Id}/start`, {}, { upgrade: true });
      exec.socket.destroy();
    };
    await abort();
    await sleep(1500);
    const before = files();
    for (let round = 0; round < 30; round++) await abort();
    await eventually(() => assert.ok(files() <= before + 3, `${files()} files open, ${before} before`), 15_000);
    await engine.call('DELETE', `/containers/${id}?force=1`);
  });

  test('stats: rates between two samples, network counters, one a second', async () => {
    const id = await start('', ['sh', '-c', 'while :; do :; done']);
    const sample = await engine.call('GET', `/containers/${id}/stats?stream=0`);
    const used = sample.cpu_stats.cpu_usage.total_usage - sample.precpu_stats.cpu_usage.total_usage;
    assert.ok(used > 100_000_000, `${used} ns of CPU in half a second`);
    assert.ok(sample.memory_stats.usage > 0 && sample.memory_stats.limit > sample.memory_stats.usage);
    assert.equal(typeof sample.networks.eth0.rx_bytes, 'number');
    assert.ok(sample.pids_stats.current >= 1);
    const stream = await open(engine.paths.socket, 'GET', `/containers/${id}/stats`);
    const seen: Loose[] = [];
    for await (const part of stream) {
      seen.push(
        ...(part as Buffer)
          .toString()
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line)),
      );
      if (seen.length >= 2) break;
    }
    assert.equal(seen[1].preread, seen[0].read);
    await engine.call('DELETE', `/containers/${id}?force=1`);
  });

  test('twenty containers at once, none of them lost or mixed up', async () => {
    const codes = await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const id = await start('', ['sh', '-c', `echo ${i}; exit ${i}`]);
        const { StatusCode } = await engine.call('POST', `/containers/${id}/wait`);
        const logs = await engine.api('GET', `/containers/${id}/logs?stdout=1`);
        assert.equal(demultiplex(logs.body).stdout, `${i}\n`);
        await engine.call('DELETE', `/containers/${id}`);
        return StatusCode;
      }),
    );
    assert.deepEqual(
      codes,
      Array.from({ length: 20 }, (_, i) => i),
    );
  });

  test('a process killed from outside is seen at once; stop, kill and remove always answer', async () => {
    const id = await start('', ['sleep', '1000']);
    const { Pid } = (await engine.call('GET', `/containers/${id}/json`)).State;
    process.kill(Pid, 'SIGKILL');
    await eventually(
      async () => assert.equal((await engine.call('GET', `/containers/${id}/json`)).State.ExitCode, 137),
      2000,
    );
    assert.equal((await engine.api('POST', `/containers/${id}/stop`)).status, 304);
    await engine.call('DELETE', `/containers/${id}?force=1`);
  });

  test('nothing is left behind', async () => {
    await engine.removeAll();
    await engine.assertNoLeaks();
  });
});
