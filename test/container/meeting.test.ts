/** Mechanisms that meet in one container: commits, health checks, signals, networks, and what a container does to them. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { eventually, sleep } from '../support/command.ts';
import { TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
});
after(() => engine?.close());

async function start(cmd: string, config: object = {}): Promise<string> {
  const body = { Image: 'busybox', Cmd: ['sh', '-c', cmd], ...config };
  const { Id } = await engine.call('POST', '/containers/create', body);
  await engine.call('POST', `/containers/${Id}/start`);
  return Id;
}

const stateOf = async (id: string) => (await engine.call('GET', `/containers/${id}/json`)).State;

/** A container with so many changes that a commit takes a while. */
async function startBig(config: object = {}): Promise<string> {
  const id = await start('dd if=/dev/urandom of=/big bs=1M count=250 2>/dev/null; touch /ready; sleep 1000', config);
  await eventually(
    async () => (await engine.api('HEAD', `/containers/${id}/archive?path=/ready`)).status === 200,
    60_000,
  );
  return id;
}

const isFrozen = (id: string): boolean => {
  const v1 = `/sys/fs/cgroup/freezer/slipway/${id}/freezer.state`;
  if (fs.existsSync(v1)) return fs.readFileSync(v1, 'latin1').trim() === 'FROZEN';
  const v2 = `/sys/fs/cgroup/slipway/${id}/cgroup.events`;
  return fs.existsSync(v2) && /frozen 1/.test(fs.readFileSync(v2, 'latin1'));
};

async function commitUntilFrozen(id: string) {
  let over = false;
  const commit = engine.api('POST', `/commit?container=${id}&repo=big`).finally(() => {
    over = true;
  });
  await eventually(() => isFrozen(id));
  return { commit, isOver: () => over };
}

for (const how of ['kill', 'stop?t=0', 'restart?t=0', 'remove']) {
  test(`${how} does not wait for a commit that holds the container still`, async () => {
    const id = await startBig();
    const { commit, isOver } = await commitUntilFrozen(id);
    if (how === 'remove') await engine.call('DELETE', `/containers/${id}?force=1`);
    else await engine.call('POST', `/containers/${id}/${how}`);
    assert.equal(isOver(), false, 'the commit was not waited for');
    const { status, text } = await commit;
    assert.ok(status === 201 || (how === 'remove' && status === 409), text);
    if (how.startsWith('restart')) {
      assert.equal((await stateOf(id)).Running, true);
      assert.equal(isFrozen(id), false);
    }
    await engine.api('DELETE', `/containers/${id}?force=1`);
    await engine.assertNoLeaks();
  });
}

test('a commit makes nobody ill: health checks rest meanwhile and go on afterwards', async () => {
  const ns = 1_000_000;
  const Healthcheck = { Test: ['CMD', 'true'], Interval: 50 * ns, Timeout: 100 * ns, Retries: 1 };
  const id = await startBig({ Healthcheck });
  await eventually(async () => (await stateOf(id)).Health.Status === 'healthy');
  const since = Date.now() / 1000;
  const { commit, isOver } = await commitUntilFrozen(id);
  while (!isOver()) {
    assert.equal((await stateOf(id)).Health.Status, 'healthy');
    await sleep(20);
  }
  assert.equal((await commit).status, 201);
  const last = async () => (await stateOf(id)).Health.Log.at(-1)?.Start;
  const before = await last();
  await eventually(async () => (await last()) !== before);
  const { text } = await engine.api('GET', `/events?since=${since}&until=${Date.now() / 1000}`);
  assert.doesNotMatch(text, /health_status: unhealthy/);
  await engine.call('DELETE', `/containers/${id}?force=1`);
});

test('a container killed together with its daemon’s commit is not left frozen', async () => {
  const id = await startBig();
  const { commit } = await commitUntilFrozen(id);
  void commit.catch(() => undefined);
  await engine.kill9();
  assert.equal(isFrozen(id), true);
  await engine.launch();
  await eventually(() => !isFrozen(id));
  assert.deepEqual([(await stateOf(id)).Running, (await stateOf(id)).Paused], [true, false]);
  await engine.call('DELETE', `/containers/${id}?force=1`);
  await engine.assertNoLeaks();
});

test('a container that stuffs the pipe of its health checks holds up nobody', async () => {
  const ns = 1_000_000;
  const Healthcheck = { Test: ['CMD', 'true'], Interval: 50 * ns, Timeout: 1000 * ns, Retries: 3 };
  // The shell that stays reads orders from its stdin; whoever is root in the container can write there.
  const stuff = `while :; do for p in $(ps -o pid,args | grep '[s]lipway-health' | cut -c1-5); do mkdir /$p && kill -STOP $p &&
    (exec 9<>/proc/$p/fd/0; yes >&9) & done; sleep .02; done`;
  const id = await start(stuff, { Healthcheck });
  const until = Date.now() + 4000;
  while (Date.now() < until) {
    assert.equal((await engine.api('GET', '/_ping', undefined, { timeoutMs: 3000 })).status, 200);
    await sleep(50);
  }
  assert.match(
    (await engine.call('GET', `/containers/${id}/top`)).Processes.join('\n'),
    /yes/,
    'it has found the pipe',
  );
  await engine.call('DELETE', `/containers/${id}?force=1`);
  await engine.assertNoLeaks();
});

test('networks may be called like what every object has', async () => {
  for (const Name of ['constructor', 'toString', '__proto__']) {
    await engine.call('POST', '/networks/create', { Name });
    const id = await start('sleep 1000');
    const list = JSON.stringify({ label: ['constructor'] });
    assert.equal((await engine.call('GET', `/networks?filters=${list}`)).length, 0);
    await engine.call('POST', `/networks/${Name}/connect`, { Container: id });
    const { Networks } = (await engine.call('GET', `/containers/${id}/json`)).NetworkSettings;
    assert.ok(Object.hasOwn(Networks, Name), JSON.stringify(Networks));
    await engine.restart('SIGKILL');
    await engine.call('POST', `/networks/${Name}/disconnect`, { Container: id });
    await engine.call('DELETE', `/containers/${id}?force=1`);
    await engine.call('DELETE', `/networks/${Name}`);
  }
  await engine.assertNoLeaks();
});
