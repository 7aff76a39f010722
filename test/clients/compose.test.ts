/**
 * A project of five services by docker-compose 1.29: nginx, a Python application, workers, PostgreSQL and redis of Debian, with real
 * traffic between them. Their root file system is made by scripts/services.sh. test-timeout-seconds: 600
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { type Outcome, run } from '../support/command.ts';
import { startEngine, type TestEngine } from '../support/engine.ts';

const services = new URL('../../.cache/services.tar', import.meta.url).pathname;
const sources = new URL('./compose', import.meta.url).pathname;

let engine: TestEngine;
/** The project's folder gives its objects their names. */
const project = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'compose-')), 'shop');
after(() => fs.rmSync(path.dirname(project), { recursive: true, force: true }));

before(async (t) => {
  fs.chmodSync(path.dirname(project), 0o755);
  fs.cpSync(sources, project, { recursive: true });
  engine = await startEngine(t as never);
  await engine.mustDocker(['import', services, 'services'], { timeoutMs: 120_000 });
});

const compose = (...args: string[]): Promise<Outcome> =>
  run(['/usr/bin/docker-compose', '--ansi', 'never', ...args], {
    cwd: project,
    env: { DOCKER_HOST: engine.host, COMPOSE_HTTP_TIMEOUT: '120' },
    timeoutMs: 180_000,
  });

async function must(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await compose(...args);
  assert.equal(code, 0, `docker-compose ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

interface Shop {
  readonly greeting: string;
  readonly hits: number;
  readonly done: readonly (readonly [job: string, worker: string])[];
}

/** Through the published port: nginx → application → PostgreSQL and redis. */
async function shop(): Promise<Shop> {
  const { stdout } = await engine.inNetns(['curl', '-sS', '--max-time', '10', 'http://127.0.0.1:8088/']);
  return JSON.parse(stdout) as Shop;
}
const order = (job: string) => engine.inNetns(['curl', '-sS', '--max-time', '10', '-d', job, 'http://127.0.0.1:8088/']);

/** Polls for a while; throws what went wrong last. */
async function eventually<T>(attempt: () => Promise<T>, holds: (value: T) => boolean = () => true): Promise<T> {
  for (const deadline = Date.now() + 60_000; ; ) {
    try {
      const value = await attempt();
      if (holds(value)) return value;
      if (Date.now() > deadline) assert.fail(`still ${JSON.stringify(value)}`);
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

test('up: services start in the order of their health and talk to each other by name', async () => {
  const { code, stderr } = await compose('up', '-d');
  assert.equal(code, 0, stderr);
  const { greeting, hits } = await eventually(shop);
  assert.equal(greeting, 'hello from compose');
  assert.equal((await shop()).hits, hits + 1);
  const listed = await must('ps');
  for (const service of ['db', 'cache']) assert.match(listed, new RegExp(`shop_${service}_1 .*Up \\(healthy\\)`));
  for (const service of ['app', 'worker', 'web']) assert.match(listed, new RegExp(`shop_${service}_1 .*Up`));
  assert.match(listed, /shop_web_1 .*0\.0\.0\.0:8088->80\/tcp/);
  assert.match(await must('port', 'web', '80'), /0\.0\.0\.0:8088/);
});

test('the internal network has no way out, and who is not in it does not see it', async () => {
  const { code } = await compose('exec', '-T', 'web', 'sh', '-c', 'getent hosts db');
  assert.notEqual(code, 0);
  assert.match(await must('exec', '-T', 'app', 'getent', 'hosts', 'keyvalue'), /^10\.77\.0\.\d+/);
  const routes = (service: string) => must('exec', '-T', service, 'cat', '/proc/net/route');
  assert.doesNotMatch(await routes('db'), /^eth0\t00000000\t/m);
  assert.match(await routes('web'), /^eth0\t00000000\t/m);
});

test('scale: jobs are done by several workers', async () => {
  await must('up', '-d', '--scale', 'worker=3');
  for (let job = 0; job < 30; job++) assert.equal((await order(`job ${job}`)).stdout, 'queued');
  const { done } = await eventually(shop, (each) => each.done.length >= 30);
  assert.equal(done.length, 30);
  assert.ok(new Set(done.map(([, worker]) => worker)).size > 1, 'one worker did it all');
});

test('exec, logs, top, pause, restart', async () => {
  const counted = await must('exec', '-T', 'db', 'psql', '-h', '/tmp', '-Atc', 'SELECT count(*) FROM done', 'postgres');
  assert.equal(counted.trim(), '30');
  assert.match(await must('logs', '--no-color', 'worker'), /worker_\d +\| did job 7/);
  assert.match(await must('top', 'web'), /nginx: worker process/);
  await must('pause', 'cache');
  assert.match(await must('ps', 'cache'), /Paused/);
  await must('unpause', 'cache');
  await must('restart', '-t', '1', 'app');
  const { hits } = await eventually(shop);
  assert.ok(hits > 1, 'redis has kept its counter');
  await must('stop', '-t', '5', 'worker');
  assert.match(await must('logs', '--no-color', '--tail=1', 'worker'), /leaving/, 'stop_signal: SIGINT');
  await must('start', 'worker');
});

test('the project outlives its engine', async () => {
  const before = await shop();
  await engine.kill9();
  const meanwhile = await engine.inNetns([
    'curl',
    '-sS',
    '--max-time',
    '10',
    '-o',
    '/dev/null',
    '-w',
    '%{http_code}',
    'http://127.0.0.1:8088/none',
  ]);
  // Names are answered by the engine: nginx has the address for another second, the rest comes back with it.
  assert.match(meanwhile.stdout, /^\d{3}$/);
  await engine.launch();
  const later = await eventually(shop);
  assert.ok(later.hits > before.hits);
  assert.equal(later.done.length, 30);
});

test('down keeps the data, up finds it again; run makes a container beside; down -v leaves nothing', async () => {
  await must('down', '-t', '2');
  assert.equal((await engine.mustDocker(['ps', '-aq'])).trim(), '');
  assert.equal((await engine.mustDocker(['network', 'ls', '-q'])).trim().split('\n').length, 3);
  assert.match(await engine.mustDocker(['volume', 'ls']), /shop_database/);
  await must('up', '-d');
  assert.equal((await eventually(shop)).done.length, 30);
  const ran = await must('run', '--rm', '-T', 'app', 'python3', '-c', 'import os; print(os.environ["CACHE"])');
  assert.equal(ran.trim(), 'keyvalue');
  assert.match(await must('config'), /subnet: 10\.77\.0\.0\/24/);
  await must('down', '-v', '-t', '2');
  assert.equal((await engine.mustDocker(['volume', 'ls', '-q'])).trim(), '');
  await engine.assertNoLeaks();
});

test('docker-py does the same by its objects', async () => {
  const { code, stdout, stderr } = await run(['/usr/bin/python3', path.join(sources, 'story.py')], {
    env: { DOCKER_HOST: engine.host },
    timeoutMs: 180_000,
  });
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /^all told$/m);
});
