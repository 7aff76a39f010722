/**
 * Commands of every kind at random, several clients at once on the same few containers, the daemon killed with -9 in between.
 * Nothing hangs, nothing answers with an internal error, and in the end nothing is left.
 *
 * test-timeout-seconds: 300
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sleep } from '../support/command.ts';
import { startEngine, type TestEngine } from '../support/engine.ts';
import { hijack } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

const random = (max: number) => Math.floor(Math.random() * max);
const oneOf = <T>(list: readonly T[]): T => list[random(list.length)] as T;
const name = () => `c${random(4)}`;

const hostConfigs = () => [
  {},
  { AutoRemove: true },
  { RestartPolicy: { Name: 'always' } },
  { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 2 } },
  { NetworkMode: `container:${name()}` },
  { PortBindings: { '80/tcp': [{ HostPort: '0' }] } },
];

const newContainer = () => ({
  Image: 'busybox',
  Cmd: ['sh', '-c', `usleep ${random(200)}000; exit ${random(3)}`],
  OpenStdin: random(2) === 0,
  StdinOnce: random(2) === 0,
  Tty: random(3) === 0,
  HostConfig: oneOf(hostConfigs()),
});

const commands: readonly (readonly [method: string, path: string])[] = [
  ...(['start', 'start', 'start', 'stop?t=0', 'stop?t=1', 'restart?t=0', 'kill', 'kill?signal=TERM'] as const).map(
    (command) => ['POST', `/containers/NAME/${command}`] as const,
  ),
  ...(['pause', 'unpause', 'rename?name=NAME', 'resize?h=1&w=2'] as const).map(
    (command) => ['POST', `/containers/NAME/${command}`] as const,
  ),
  ...(['json', 'logs?stdout=1&stderr=1', 'stats?stream=0', 'top'] as const).map(
    (what) => ['GET', `/containers/NAME/${what}`] as const,
  ),
  ['DELETE', '/containers/NAME?force=1&v=1'],
  ['DELETE', '/containers/NAME'],
  ['GET', '/containers/json?all=1&size=1'],
  ['POST', '/containers/prune'],
];

/** A client that attaches or enters, types, and leaves when it likes. */
async function visit(engine: TestEngine): Promise<void> {
  let path = `/containers/${name()}/attach?stream=1&stdin=1&stdout=1`;
  if (random(2) === 0) {
    const exec = { Cmd: ['cat'], AttachStdin: true, AttachStdout: true };
    const answer = await engine.api('POST', `/containers/${name()}/exec`, exec);
    if (answer.status !== 201) return;
    path = `/exec/${answer.json().Id}/start`;
  }
  const { socket } = await hijack(engine.paths.socket, path);
  socket.on('error', () => undefined);
  socket.resume();
  socket.write('x\n');
  setTimeout(() => socket.destroy(), random(100));
}

test('random commands and crashes', async (t) => {
  const engine = await startEngine(t);
  await importBusybox(engine);
  const wrong = new Set<string>();
  for (let round = 0; round < 8; round++) {
    const end = Date.now() + 2500 + random(800);
    const crashes = round % 2 === 0;
    const client = async (): Promise<void> => {
      while (Date.now() < end) {
        const [method, path] = oneOf(commands);
        const asked = random(6) === 0 ? ['POST', `/containers/create?name=${name()}`] : [method, path];
        const body = asked[1]?.includes('create?') ? newContainer() : undefined;
        const concrete = (asked[1] ?? '').replaceAll('NAME', name);
        const answer = await engine.api(asked[0] ?? '', concrete, body, { timeoutMs: 45_000 });
        // An unpause of what is not paused is dockerd's one 500 for a client's mistake.
        if (answer.status >= 500 && !/is not paused/.test(answer.text)) wrong.add(`${concrete}: ${answer.text}`);
        if (random(4) === 0) await visit(engine);
      }
    };
    const clients = [1, 2, 3, 4].map(() =>
      client().catch((error: unknown) => {
        if (!crashes || /silent/.test(String(error))) wrong.add(String(error));
      }),
    );
    if (crashes) {
      await sleep(end - Date.now() - random(1000));
      await engine.kill9();
      await Promise.all(clients);
      await engine.launch();
    }
    await Promise.all(clients);
  }
  assert.deepEqual([...wrong], []);
  await engine.removeAll();
  await engine.restart('SIGKILL');
  assert.deepEqual(await engine.call('GET', '/containers/json?all=1'), []);
  await engine.assertNoLeaks();
});
