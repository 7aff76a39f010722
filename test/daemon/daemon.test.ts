/** The daemon as a process: command line, signals, sockets, a second one on the same data. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { must, Output, run } from '../support/command.ts';
import { repository, startEngine, type TestEngine } from '../support/engine.ts';
import { open } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

const slipwayd = [process.execPath, '--disable-warning=ExperimentalWarning', path.join(repository, 'src/main.ts')];

const sleeper = async (engine: TestEngine): Promise<string> =>
  (await engine.mustDocker(['run', '-d', 'busybox', 'sleep', '1000'])).trim();

test('--version and --help answer without touching anything', async () => {
  assert.match(await must([...slipwayd, '--version']), /^slipwayd \d+\.\d+\.\d+\n$/);
  assert.match(await must([...slipwayd, '--help']), /^Usage: slipwayd \[OPTIONS\]\n[\s\S]*--data-root/);
});

test('mistakes on the command line are one line that names the key', async () => {
  for (const [flags, text] of [
    [['--colour', 'red'], /colour/],
    [['--mtu', 'wide'], /mtu/],
    [['-H', 'carrier://pigeon'], /carrier/],
    [['--config-file', '/nowhere/daemon.json'], /\/nowhere\/daemon\.json/],
  ] as const) {
    const { code, stderr } = await run([...slipwayd, ...flags]);
    assert.equal(code, 1, stderr);
    assert.match(stderr, text);
    assert.equal(stderr.trim().split('\n').length, 1, stderr);
  }
});

test('a flag that is also in the file is refused by name', async (t) => {
  const engine = await startEngine(t, { config: { labels: ['a=b'] } });
  assert.deepEqual((await engine.call('GET', '/info')).Labels, ['a=b']);
  await engine.stop();
  await assert.rejects(engine.launch(['--label', 'c=d']), /labels/);
});

test('SIGTERM ends the daemon within a second and leaves containers and their streams to the next one', async (t) => {
  const engine = await startEngine(t);
  await importBusybox(engine);
  const id = await sleeper(engine);
  const { Pid } = (await engine.call('GET', `/containers/${id}/json`)).State;
  // Open streams must not hold it up.
  const followed = await open(engine.paths.socket, 'GET', `/containers/${id}/logs?stdout=1&follow=1`);
  const events = await open(engine.paths.socket, 'GET', '/events');
  for (const stream of [followed, events]) stream.on('error', () => undefined).resume();
  const began = performance.now();
  await engine.stop('SIGTERM');
  const took = performance.now() - began;
  assert.ok(took < 1200, `took ${Math.round(took)} ms`);
  assert.ok(!fs.existsSync(engine.paths.pidFile), 'the pid file has gone');
  assert.ok(fs.existsSync(`/proc/${Pid}`), 'the container runs on');
  await engine.launch();
  assert.equal((await engine.call('GET', `/containers/${id}/json`)).State.Pid, Pid);
  assert.equal(Number(fs.readFileSync(engine.paths.pidFile, 'utf8')), engine.pid);
});

test('SIGHUP reads the file again; what cannot be reloaded and what is wrong changes nothing', async (t) => {
  const engine = await startEngine(t, { config: { labels: ['one=1'] } });
  const info = async () => (await engine.call('GET', '/info')).Labels as string[];
  const reload = async (content: string, said: RegExp) => {
    fs.writeFileSync(engine.paths.configFile, content);
    const from = engine.log.length;
    process.kill(engine.pid, 'SIGHUP');
    for (const until = Date.now() + 5000; !said.test(engine.log.slice(from)); ) {
      assert.ok(Date.now() < until, `not said: ${said}\n${engine.log.slice(from)}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  await reload('{"labels":["two=2"]}', /configuration read again/);
  assert.deepEqual(await info(), ['two=2']);
  await reload('{"labels":["three=3"],"mtu":1400}', /count from the next start on/);
  assert.deepEqual(await info(), ['three=3']);
  await reload('{"labels":["three=3"],"mtu":1400,"default-runtime":"runc"}', /configuration read again/);
  assert.equal((await engine.call('GET', '/info')).DefaultRuntime, 'runc');
  await reload('{"labels":7}', /the configuration stays as it was: .*labels/);
  await reload('{"lebals":[]}', /the configuration stays as it was: .*lebals/);
  assert.deepEqual(await info(), ['three=3']);
});

test('a second daemon on the same data root is refused and says who holds it', async (t) => {
  const engine = await startEngine(t);
  const other = path.join(engine.paths.directory, 'other');
  const { code, stderr } = await run(
    engine.netns.inside([
      ...slipwayd,
      ...[
        '-H',
        `unix://${other}.sock`,
        '--data-root',
        engine.paths.dataRoot,
        '--exec-root',
        other,
        '--pidfile',
        `${other}.pid`,
      ],
      ...['--config-file', engine.paths.configFile],
    ]),
  );
  assert.equal(code, 1);
  assert.match(stderr, new RegExp(`in use by another slipwayd \\(pid ${engine.pid}\\)`));
  assert.equal((await engine.api('GET', '/_ping')).status, 200);
});

test('several hosts at once: unix and TCP, reached by the docker client', async (t) => {
  const engine = await startEngine(t, { flags: ['-H', 'tcp://127.0.0.1:23750'] });
  const version = await must(engine.dockerCommand(['version', '--format', '{{.Server.Version}}']), {
    env: { ...engine.clientEnv, DOCKER_HOST: 'tcp://127.0.0.1:23750' },
  });
  assert.match(version, /^\d+\.\d+/);
  assert.equal((await engine.api('GET', '/_ping')).text, 'OK');
});

test('TLS with client certificates: a whole attach story, and strangers stay out', async (t) => {
  const dir = fs.mkdtempSync('/tmp/tls-');
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const openssl = (...args: string[]) => must(['openssl', ...args], { cwd: dir });
  await openssl(
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-keyout',
    'ca-key.pem',
    '-out',
    'ca.pem',
    '-subj',
    '/CN=ca',
    '-days',
    '2',
  );
  for (const [name, extension] of [
    ['server', 'subjectAltName=IP:127.0.0.1'],
    ['client', 'extendedKeyUsage=clientAuth'],
  ] as const) {
    fs.writeFileSync(path.join(dir, `${name}.ext`), extension);
    await openssl(
      'req',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-keyout',
      `${name}-key.pem`,
      '-out',
      `${name}.csr`,
      '-subj',
      `/CN=${name}`,
    );
    await openssl(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      'ca.pem',
      '-CAkey',
      'ca-key.pem',
      '-CAcreateserial',
      '-out',
      `${name}.pem`,
      '-extfile',
      `${name}.ext`,
      '-days',
      '2',
    );
  }
  const engine = await startEngine(t, {
    flags: [
      '-H',
      'tcp://127.0.0.1:23760',
      '--tlsverify',
      '--tlscacert',
      `${dir}/ca.pem`,
      '--tlscert',
      `${dir}/server.pem`,
      '--tlskey',
      `${dir}/server-key.pem`,
    ],
  });
  await importBusybox(engine);
  const env = { ...engine.clientEnv, DOCKER_HOST: 'tcp://127.0.0.1:23760' };
  const tls = [
    '--tlsverify',
    '--tlscacert',
    `${dir}/ca.pem`,
    '--tlscert',
    `${dir}/client.pem`,
    '--tlskey',
    `${dir}/client-key.pem`,
  ];
  const { stdout, code } = await run(
    engine.dockerCommand([...tls, 'run', '--rm', '-i', 'busybox', 'sh', '-c', 'cat; sleep 0.3; echo end; exit 3']),
    { env, input: 'typed\n' },
  );
  assert.deepEqual([stdout, code], ['typed\nend\n', 3]);
  const stranger = await run(
    engine.netns.inside(['curl', '-sS', '--cacert', `${dir}/ca.pem`, 'https://127.0.0.1:23760/_ping']),
  );
  assert.notEqual(stranger.code, 0);
});

test('the socket of a crashed daemon is replaced', async (t) => {
  const engine = await startEngine(t);
  assert.equal(fs.statSync(engine.paths.socket).mode & 0o777, 0o660);
  await engine.kill9();
  assert.ok(fs.existsSync(engine.paths.socket));
  await engine.launch();
  assert.equal((await engine.api('GET', '/_ping')).status, 200);
});

test('events of before a restart are told after it', async (t) => {
  const engine = await startEngine(t);
  await importBusybox(engine);
  const id = await sleeper(engine);
  await engine.restart();
  const past = new Output(
    await open(engine.paths.socket, 'GET', `/events?since=0&until=${Math.ceil(Date.now() / 1000)}`),
  );
  await past.waitFor(new RegExp(`"status":"start","id":"${id}"`));
});
