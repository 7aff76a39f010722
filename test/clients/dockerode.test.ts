/** The story as a Node.js program tells it: dockerode, the client library most of them use. */
import assert from 'node:assert/strict';
import { PassThrough, Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import Docker from 'dockerode';
import { eventually, Output, sleep } from '../support/command.ts';
import { engineKind, TestEngine } from '../support/engine.ts';
import { busyboxArchive, importBusybox, startRegistryBeside } from '../support/images.ts';

describe('dockerode', () => {
  let engine: TestEngine;
  let docker: Docker;
  let registry: string;

  before(async () => {
    engine = await TestEngine.start();
    docker = new Docker({ socketPath: engine.paths.socket });
    registry = await startRegistryBeside(engine);
    await importBusybox(engine);
  });
  after(() => engine?.close());

  /** Resolves when a stream of progress messages has ended. */
  const finished = (stream: NodeJS.ReadableStream) =>
    new Promise<{ error?: string; status?: string }[]>((resolve, reject) =>
      docker.modem.followProgress(stream, (error, messages) => (error ? reject(error) : resolve(messages))),
    );

  test('ping, version, info', async () => {
    assert.equal((await docker.ping()).toString(), 'OK');
    assert.match((await docker.version()).ApiVersion, /^1\.\d+$/);
    assert.equal((await docker.info()).Containers, 0);
  });

  test('tag, push, remove, pull', async () => {
    await docker.getImage('busybox').tag({ repo: `${registry}/library/busybox`, tag: 'dockerode' });
    const image = docker.getImage(`${registry}/library/busybox:dockerode`);
    const pushed = await finished(
      await image.push({ authconfig: { username: '', password: '', serveraddress: registry } }),
    );
    assert.ok(
      pushed.some(({ status }) => /^dockerode: digest: sha256:/.test(status ?? '')),
      JSON.stringify(pushed),
    );
    await image.remove();
    await assert.rejects(image.inspect(), { statusCode: 404 });
    const pulled = await finished(await docker.pull(`${registry}/library/busybox:dockerode`));
    assert.ok(
      pulled.some(({ status }) => status?.startsWith('Status: Downloaded newer image')),
      JSON.stringify(pulled),
    );
    assert.equal((await image.inspect()).Config.Cmd[0], 'sh');
    await assert.rejects(async () => finished(await docker.pull(`${registry}/no/thing:here`)));
  });

  test('import with changes', async () => {
    await finished(
      await docker.importImage(Readable.from([busyboxArchive()]), {
        repo: 'imported',
        tag: 'v1',
        changes: 'ENV MARK=yes',
      }),
    );
    const inspected = await docker.getImage('imported:v1').inspect();
    assert.ok(inspected.Config.Env.includes('MARK=yes'), JSON.stringify(inspected.Config));
  });

  test('docker.run splits stdout and stderr', async () => {
    const [stdout, stderr] = [new PassThrough(), new PassThrough()];
    const [out, err] = [new Output(stdout), new Output(stderr)];
    const [result, container] = await docker.run(
      'busybox',
      ['sh', '-c', 'echo out; echo err >&2; exit 4'],
      [stdout, stderr],
      {
        Tty: false,
      },
    );
    assert.equal(result.StatusCode, 4);
    assert.deepEqual([out.text, err.text], ['out\n', 'err\n']);
    await container.remove();
  });

  test('attach with stdin hijacked before start, half-closed', async () => {
    const container = await docker.createContainer({
      Image: 'busybox',
      Cmd: ['sh', '-c', 'cat; sleep 0.3; echo end'],
      OpenStdin: true,
      StdinOnce: true,
      AttachStdin: true,
    });
    const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
    const stdout = new PassThrough();
    const output = new Output(stdout);
    docker.modem.demuxStream(stream, stdout, new PassThrough());
    await container.start();
    stream.write('typed\n');
    stream.end();
    await output.waitFor(/^typed\nend\n$/);
    assert.equal((await container.wait()).StatusCode, 0);
    await container.remove();
  });

  test('logs, follow, list with filters, stats, top, rename, stop', async () => {
    const container = await docker.createContainer({
      Image: 'busybox',
      name: 'ticker',
      Labels: { kind: 'test' },
      Cmd: ['sh', '-c', 'trap "exit 0" TERM; i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done'],
    });
    await container.start();
    await assert.rejects(container.start(), { statusCode: 304 });
    const follow = await container.logs({ follow: true, stdout: true, stderr: true });
    const stdout = new PassThrough();
    const lines = new Output(stdout);
    docker.modem.demuxStream(follow, stdout, new PassThrough());
    await lines.waitFor(/tick 0\n(.*\n)*tick 5\n/);

    const listed = await docker.listContainers({ filters: { label: ['kind=test'], status: ['running'] } });
    assert.deepEqual(
      listed.map(({ Names }) => Names),
      [['/ticker']],
    );
    assert.deepEqual(await docker.listContainers({ filters: { label: ['kind=other'] } }), []);
    const stats = await container.stats({ stream: false });
    assert.ok(stats.cpu_stats.cpu_usage.total_usage > 0);
    assert.ok(stats.memory_stats.usage > 0);
    const top = await container.top({ ps_args: '-ef' });
    assert.ok(
      top.Processes.some((row: string[]) => row.join(' ').includes('sleep 0.1') || row.join(' ').includes('tick')),
    );
    await container.rename({ name: 'clock' });
    assert.equal((await container.inspect()).Name, '/clock');

    const followEnded = new Promise((resolve) => follow.on('end', resolve));
    await container.stop({ t: 5 });
    await followEnded;
    const { State } = await container.inspect();
    assert.deepEqual([State.Running, State.ExitCode, State.Status], [false, 0, 'exited']);
    const tail = await container.logs({ stdout: true, tail: 1, follow: false });
    assert.match(tail.toString('utf8', 8), /^tick \d+\n$/);
    await container.remove();
    await assert.rejects(container.inspect(), { statusCode: 404 });
  });

  test('exec: output, exit code, stdin, terminal', async () => {
    const container = await docker.createContainer({ Image: 'busybox', Cmd: ['sleep', '1000'] });
    await container.start();
    const plain = await container.exec({
      Cmd: ['sh', '-c', 'echo o; echo e >&2; exit 6'],
      AttachStdout: true,
      AttachStderr: true,
    });
    const stream = await plain.start({});
    const [stdout, stderr] = [new PassThrough(), new PassThrough()];
    const [out, err] = [new Output(stdout), new Output(stderr)];
    docker.modem.demuxStream(stream, stdout, stderr);
    await new Promise((resolve) => stream.on('end', resolve));
    assert.deepEqual([out.text, err.text], ['o\n', 'e\n']);
    const inspected = await plain.inspect();
    assert.deepEqual([inspected.Running, inspected.ExitCode], [false, 6]);

    const interactive = await container.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
    const cat = await interactive.start({ hijack: true, stdin: true });
    const echoed: Buffer[] = [];
    cat.on('data', (data: Buffer) => echoed.push(data));
    cat.write('hello');
    cat.end();
    await new Promise((resolve) => cat.on('end', resolve));
    assert.equal(Buffer.concat(echoed).toString('utf8', 8), 'hello');

    const shell = await container.exec({ Cmd: ['sh'], AttachStdin: true, AttachStdout: true, Tty: true });
    const tty = await shell.start({ hijack: true, stdin: true, Tty: true });
    const screen = new Output(tty);
    await screen.waitFor(/# /);
    await shell.resize({ h: 12, w: 34 });
    await sleep(200);
    tty.write('stty size\n');
    await screen.waitFor(/^12 34\r\n/m);
    tty.write('exit 2\n');
    await new Promise((resolve) => tty.on('end', resolve));
    await eventually(async () => assert.equal((await shell.inspect()).ExitCode, 2));
    await container.remove({ force: true });
  });

  // dockerd answers 404 whenever the container is gone before the wait arrives.
  test('wait after start tells the exit code of a container that removes itself', {
    skip: engineKind === 'dockerd',
  }, async () => {
    for (let round = 0; round < 20; round += 1) {
      const container = await docker.createContainer({
        Image: 'busybox',
        Cmd: ['sh', '-c', 'exit 42'],
        HostConfig: { AutoRemove: true },
      });
      await container.start();
      await sleep(round * 10);
      assert.equal((await container.wait()).StatusCode, 42);
    }
  });

  test('events arrive as they happen', async () => {
    const stream = await docker.getEvents({ filters: { type: ['container'], container: ['watched'] } });
    const seen = new Output(stream);
    const container = await docker.createContainer({ Image: 'busybox', Cmd: ['true'], name: 'watched' });
    await container.start();
    await container.wait();
    await container.remove();
    await seen.waitFor(/destroy/);
    (stream as unknown as { destroy(): void }).destroy();
    const actions = seen.text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).Action);
    assert.deepEqual(actions, ['create', 'start', 'die', 'destroy']);
  });

  test('published ports are in inspect when start returns', async () => {
    const container = await docker.createContainer({
      Image: 'busybox',
      Cmd: ['sh', '-c', 'echo served > /tmp/index.html; exec httpd -f -h /tmp'],
      ExposedPorts: { '80/tcp': {} },
      HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '' }] } },
    });
    await container.start();
    const port = (await container.inspect()).NetworkSettings.Ports['80/tcp']?.[0]?.HostPort;
    assert.match(port ?? '', /^\d+$/);
    await eventually(async () =>
      assert.equal(
        await engine.netns.must(['curl', '-sS', '--max-time', '5', `http://127.0.0.1:${port}/`]),
        'served\n',
      ),
    );
    await container.remove({ force: true });
  });

  test('nothing is left behind', async () => {
    await engine.assertNoLeaks();
  });
});
