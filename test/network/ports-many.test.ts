/** A container that publishes a thousand ports: its start, what the daemon holds for it, and what lists cost. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { startEngine, type TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';
import { holdingsOf } from '../support/memory.ts';

let engine: TestEngine;
const ports = 1000;
const first = 20_000;
const range = `${first}-${first + ports - 1}`;

before(async (t) => {
  engine = await startEngine(t as never);
  await importBusybox(engine);
});

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

const start = (name: string, ...published: string[]): Promise<string> =>
  engine.mustDocker(['run', '-d', '--name', name, ...published, 'busybox', 'httpd', '-f', '-h', '/etc']);

test('1 000 ports in a range: they start like few, cost little, lead to the container, and go', async () => {
  await holdingsOf(engine); // opens the inspector
  await start('warm', '-p', '8080:80');
  await engine.mustDocker(['rm', '-f', 'warm']);
  const few = await timed(() => start('few', '-p', '8080:80'));
  const held = await holdingsOf(engine);
  const many = await timed(() => start('many', '-p', `${range}:${range}`));
  const holding = await holdingsOf(engine);
  // dockerd 20.10 needs a minute and 2 000 processes.
  assert.ok(many < 10 * few + 1000, `${many.toFixed()} ms with ${ports} ports, ${few.toFixed()} with one`);
  assert.ok(holding.resident - held.resident < 20e6, `${(holding.resident - held.resident) / 1e6} MB more`);
  assert.ok(holding.descriptors - held.descriptors < 2 * ports + 50);

  await engine.mustDocker(['exec', '-d', 'many', 'httpd', '-p', `${first + 500}`, '-h', '/etc']);
  const fetch = (port: number) => engine.inNetns(['wget', '-qO-', '-T', '3', `http://127.0.0.1:${port}/hosts`]);
  const answers = () => eventually(async () => assert.match((await fetch(first + 500)).stdout, /localhost/));
  await answers();
  assert.notEqual((await fetch(first + 501)).code, 0, 'nothing listens there inside');

  const alone = await timed(() => engine.api('GET', '/v1.26/containers/json?limit=1&filters={"name":["few"]}'));
  const listed = await timed(() => engine.api('GET', '/v1.26/containers/json'));
  assert.ok(listed < alone + 200, `a list takes ${listed.toFixed()} ms instead of ${alone.toFixed()}`);
  assert.match(await engine.mustDocker(['ps']), new RegExp(`0\\.0\\.0\\.0:${range}->${range}/tcp`));

  const taken = await engine.docker(['run', '--rm', '-p', `${first + 7}:80`, 'busybox', 'true']);
  assert.match(taken.stderr, /port is already allocated \(held by container many\)/);
  await engine.kill9();
  await engine.launch();
  await answers();
  await engine.mustDocker(['rm', '-f', 'many']);
  assert.doesNotMatch((await engine.inNetns(['nft', 'list', 'ruleset'])).stdout, new RegExp(`${first + 500}`));
  await start('next', '-p', `${first + 500}:80`);
  await answers();
});
