/** Stock clients against the server: how they negotiate, attach, and cope with what is missing. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import Docker from 'dockerode';
import { invalid } from '../../src/lib/errors.ts';
import { abortMany } from './abort.ts';
import { Echo, makeCertificates, readAll, serve, until } from './helper.ts';

const certificates = makeCertificates();
after(() => fs.rmSync(certificates.directory, { recursive: true }));

const execute = promisify(execFile);
const docker = async (host: string, ...args: string[]) => {
  const env = { ...process.env, DOCKER_HOST: host, DOCKER_CERT_PATH: '', DOCKER_CONTEXT: '', DOCKER_API_VERSION: '' };
  return (await execute('docker', args, { env })).stdout;
};

const frame = (stream: number, text: string) => {
  const header = Buffer.alloc(8);
  header[0] = stream;
  header.writeUInt32BE(text.length, 4);
  return Buffer.concat([header, Buffer.from(text)]);
};

test('the docker CLI negotiates down to the newest version there is', async () => {
  await using running = await serve({
    images: {
      list: async () => [],
      pull: async function* () {
        yield { status: 'Pulling from a', id: 'latest' };
        yield { status: 'Downloading', id: 'abc', progressDetail: { current: 1, total: 2 } };
        throw invalid('the registry said no');
      },
    },
    containers: {
      list: async () => [],
      logs: async () =>
        (async function* () {
          yield frame(1, 'to stdout\n');
          yield frame(2, 'to stderr\n');
        })(),
      inspect: async () => ({
        Id: 'abc',
        Name: '/abc',
        Config: { Tty: false },
        State: { Running: true },
        HostConfig: {},
      }),
    },
  });
  const host = `unix://${running.socketPath}`;
  const shown = await docker(
    host,
    'version',
    '--format',
    '{{.Client.APIVersion}} {{.Server.APIVersion}} {{.Server.MinAPIVersion}}',
  );
  assert.equal(shown, '1.26 1.26 1.24\n');
  assert.equal(await docker(host, 'ps', '-q'), '');
  assert.equal(await docker(host, 'images', '-q'), '');
  const { stdout, stderr } = await execute('docker', ['-H', host, 'logs', 'abc']);
  assert.deepEqual([stdout, stderr], ['to stdout\n', 'to stderr\n']);
  await assert.rejects(docker(host, 'pull', 'a'), /the registry said no/);
  await assert.rejects(docker(host, 'plugin', 'ls'), /GET \/plugins is not supported yet/);
});

test('the docker CLI speaks TLS with client certificates', async () => {
  await using running = await serve({ containers: { list: async () => [] } }, { tls: certificates });
  const args = ['--tlsverify', '--tlscacert', certificates.ca, '--tlscert', certificates.clientCert, '--tlskey'];
  const host = `tcp://127.0.0.1:${running.tlsPort}`;
  assert.equal(await docker(host, ...args, certificates.clientKey, 'ps', '-q'), '');
  await assert.rejects(docker(host, '--tlsverify', '--tlscacert', certificates.ca, 'ps'), /certificate/i);
});

test('the docker CLI attaches: what it types comes back, and its end of input is not the end', async () => {
  await using running = await serve(
    {
      containers: {
        inspect: async () => ({
          Id: 'abc',
          Name: '/abc',
          Config: { Tty: false, OpenStdin: true },
          State: { Running: true, Status: 'running' },
          HostConfig: {},
        }),
        attach: async (_ref, _query, gone) => {
          const echo = new Echo(gone, 300);
          return {
            tty: false,
            input: echo.input,
            output: (async function* () {
              for await (const chunk of echo.output) yield frame(1, Buffer.from(chunk).toString());
            })(),
          };
        },
        wait: async () => ({ StatusCode: 0 }),
        resize: async () => undefined,
      },
    },
    { tls: certificates },
  );
  const tls = `--tlsverify --tlscacert ${certificates.ca} --tlscert ${certificates.clientCert} --tlskey ${certificates.clientKey}`;
  for (const host of [
    `-H unix://${running.socketPath}`,
    `-H tcp://127.0.0.1:${running.port}`,
    `-H tcp://127.0.0.1:${running.tlsPort} ${tls}`,
  ]) {
    const { stdout } = await execute('sh', ['-c', `printf 'typed ' | docker ${host} attach --sig-proxy=false abc`]);
    assert.equal(stdout, 'typed end', host);
  }
});

test('dockerode attaches in all its ways', async () => {
  await using running = await serve({
    containers: { attach: async (_ref, _query, gone) => new Echo(gone) },
  });
  const client = new Docker({ socketPath: running.socketPath });
  for (const hijack of [true, false]) {
    const stream = await client
      .getContainer('abc')
      .attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack });
    stream.write('typed ');
    const first = await new Promise((resolve) => stream.once('data', resolve));
    assert.equal(String(first), 'typed ');
    // Without hijack this client has no way to end its input: it can only leave.
    if (!hijack) {
      (stream as unknown as Duplex).destroy();
      continue;
    }
    stream.end();
    assert.equal(await readAll(stream as unknown as Socket), 'end');
  }
  await until('connections are given back', () => running.server.connections === 0);
});

test('dockerode starts an exec with its JSON before the stream', async () => {
  const started: unknown[] = [];
  await using running = await serve({
    containers: {
      execCreate: async (_ref, body) => {
        started.push(body);
        return { Id: 'e1' as never };
      },
      execStart: async (_id, { detach, tty }, gone) => {
        started.push({ detach, tty });
        return detach ? null : new Echo(gone);
      },
    },
  });
  const client = new Docker({ socketPath: running.socketPath });
  const exec = await client.getContainer('abc').exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  stream.end('typed ');
  assert.equal(await readAll(stream as unknown as Socket), 'typed end');
  await exec.start({ Detach: true });
  assert.deepEqual(started[0], { Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
  assert.deepEqual(started.slice(1), [
    { detach: false, tty: false },
    { detach: true, tty: false },
  ]);
});

test('a thousand aborted streams leave no connection, no file and little memory', async () => {
  await using running = await serve({
    containers: {
      logs: async (_ref, _query, gone) => silent(gone),
      attach: async (_ref, _query, gone) => ({ tty: true, input: null, output: silent(gone) }),
    },
    events: { read: (_query, gone) => silent(gone) },
  });
  await abortMany(running.socketPath, 100);
  const files = () => fs.readdirSync('/proc/self/fd').length;
  await until('connections are given back', () => running.server.connections === 0, 10_000);
  const [filesBefore, memoryBefore] = [files(), process.memoryUsage().rss];
  await abortMany(running.socketPath, 1_000);
  await until('connections are given back', () => running.server.connections === 0, 10_000);
  assert.equal(files(), filesBefore);
  assert.ok(process.memoryUsage().rss - memoryBefore < 40 * 1024 * 1024);
});

async function* silent(gone: AbortSignal): AsyncIterable<never> {
  if (!gone.aborted) await new Promise((resolve) => gone.addEventListener('abort', resolve, { once: true }));
}
