/** The restart table of docs/life.md, cell by cell, with real containers. Rows are prepared and looked at together: most of the time is waiting. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { eventually, run, sleep } from '../support/command.ts';
import { startEngine, type TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';
import { powerCut } from '../support/reboot.ts';

const page = fs.readFileSync(new URL('../../docs/life.md', import.meta.url), 'utf8');
const policies = ['no', 'on-failure', 'unless-stopped', 'always'] as const;
type Policy = (typeof policies)[number];

/** Row title → word by policy, as the page says. */
const table = new Map(
  [...(page.split('<!-- restart table -->')[1]?.split('<!-- end')[0] ?? '').matchAll(/^\| (.+?) \|(.+)\|$/gm)]
    .slice(1)
    .map(([, title = '', cells = '']) => [title, cells.split('|').map((cell) => cell.trim())]),
);

/** Runs until told: USR1 ends it with 0, USR2 with 3, TERM (its stop signal) with 9. */
const steady = ['sh', '-c', 'trap "exit 0" USR1; trap "exit 3" USR2; trap "exit 9" TERM; sleep 1000 & wait $!'];
/** Fails at once; after five restarts its delay is 3.2 seconds. */
const failing = ['false'];

interface Case {
  readonly title: string;
  readonly policy: Policy;
  readonly id: string;
  readonly word: string;
  /** State and restart count when the thing had been prepared. */
  was: Seen;
}

interface Seen {
  readonly status: string;
  readonly pid: number;
  readonly startedAt: string;
  readonly restarts: number;
}

interface Row {
  readonly title: string;
  readonly cmd?: readonly string[];
  readonly host?: object;
  /** False: it is not started. */
  readonly starts?: boolean;
  /** Before it is looked at for the first time. */
  readonly prepare?: (id: string) => Promise<unknown>;
  /** What happens, as far as it is not the same for all rows of a phase. */
  readonly happens?: (id: string, was: Seen) => Promise<unknown>;
}

let engine: TestEngine;
const cleanUps: (() => Promise<void>)[] = [];

before(async () => {
  engine = await startEngine({ after: (cleanUp) => cleanUps.push(cleanUp) });
  await importBusybox(engine);
});
after(async () => {
  for (const cleanUp of cleanUps.reverse()) await cleanUp();
});

const ask = (id: string, action: string) => engine.call('POST', `/v1.26/containers/${id}/${action}`);
const fromOutside = (signal: string) => (_id: string, was: Seen) => run(['kill', `-${signal}`, String(was.pid)]);
const seen = async (id: string): Promise<Seen> => {
  const { State, RestartCount } = await engine.call('GET', `/v1.26/containers/${id}/json`);
  return { status: State.Status, pid: State.Pid, startedAt: State.StartedAt, restarts: RestartCount };
};
/** In a delay long enough to do something within. */
const inBackOff = (id: string) =>
  eventually(async () => {
    const { status, restarts } = await seen(id);
    assert.ok(status === 'restarting' && restarts >= 4, `${status} ${restarts}`);
  }, 20_000);

async function prepare(rows: readonly Row[]): Promise<Case[]> {
  const cells = rows.flatMap((row) => {
    const words = table.get(row.title);
    assert.ok(words, `the page has no row "${row.title}"`);
    return policies.map((policy, column) => ({ row, policy, word: words[column] ?? '' }));
  });
  return Promise.all(
    cells
      .filter(({ word }) => word !== '—')
      .map(async ({ row, policy, word }) => {
        const body = {
          Image: 'busybox',
          Cmd: row.cmd ?? steady,
          HostConfig: { NetworkMode: 'none', RestartPolicy: { Name: policy }, ...row.host },
        };
        const { Id: id } = await engine.call('POST', '/v1.26/containers/create', body);
        if (row.starts !== false) await ask(id, 'start');
        await row.prepare?.(id);
        return { title: row.title, policy, id, word, was: await seen(id) };
      }),
  );
}

const rowOf = (rows: readonly Row[], title: string) => rows.find((row) => row.title === title);

async function happen(rows: readonly Row[], cases: readonly Case[]): Promise<void> {
  await Promise.all(cases.map((each) => rowOf(rows, each.title)?.happens?.(each.id, each.was)));
}

/** Throws unless a container did what its cell says. */
function check({ title, policy, word, was }: Case, now: Seen): void {
  const what = `"${title}" with ${policy}: ${JSON.stringify(was)} → ${JSON.stringify(now)}, should be ${word}`;
  if (word === 'runs on') assert.ok(now.pid === was.pid && now.restarts === 0 && now.status === was.status, what);
  else if (word === 'anew') assert.ok(now.status === 'running' && now.pid !== was.pid && now.restarts === 0, what);
  else if (word === 'stays') assert.ok(now.status === 'exited' || now.status === 'created', what);
  else {
    const restarted = was.status !== 'restarting' && now.status === 'running' && now.startedAt !== was.startedAt;
    assert.ok(restarted || now.restarts > was.restarts, what);
  }
}

/** Everything that is to happen happens; and nothing else does afterwards. */
async function look(cases: readonly Case[]): Promise<void> {
  await eventually(async () => {
    for (const each of cases) check(each, await seen(each.id));
  }, 15_000);
  await sleep(700);
  for (const each of cases.filter(({ word }) => word !== 'again')) check(each, await seen(each.id));
}

const done = new Set<string>();
async function phase(rows: readonly Row[], common: (cases: readonly Case[]) => Promise<unknown>): Promise<void> {
  const cases = await prepare(rows);
  await happen(rows, cases);
  await common(cases);
  await look(cases);
  for (const { title } of rows) done.add(title);
  await engine.removeAll();
}

const stopped = (id: string) => ask(id, 'stop?t=5');

describe('the restart table', () => {
  test('while the daemon runs', async () => {
    const before = Date.now();
    const rows: Row[] = [
      { title: 'it exits with 0', happens: fromOutside('USR1') },
      { title: 'it exits with another code', happens: fromOutside('USR2') },
      { title: 'something outside the engine kills it', happens: fromOutside('KILL') },
      { title: '`stop`', happens: stopped },
      {
        title: '`stop` while it is paused',
        happens: async (id) => {
          await ask(id, 'pause');
          await stopped(id);
        },
      },
      { title: '`kill` (SIGKILL)', happens: (id) => ask(id, 'kill') },
      { title: '`kill` with its stop signal', happens: (id) => ask(id, 'kill?signal=TERM') },
      { title: '`kill` with another signal, of which it ends', happens: (id) => ask(id, 'kill?signal=SIGUSR2') },
      { title: '`restart`', happens: (id) => ask(id, 'restart?t=5') },
      { title: '`stop` while it waits for its delay', cmd: failing, prepare: inBackOff, happens: stopped },
      {
        title: '`kill` while it waits for its delay',
        cmd: failing,
        prepare: inBackOff,
        happens: (id) => ask(id, 'kill'),
      },
    ];
    await phase(rows, async () => undefined);
    assert.ok(Date.now() - before < 40_000);
  });

  test('`start` fails', async () => {
    const rows: Row[] = [{ title: '`start` fails', starts: false, cmd: ['/not/there'] }];
    await phase(rows, async (cases) => {
      for (const { id } of cases) assert.equal((await engine.api('POST', `/v1.26/containers/${id}/start`)).status, 400);
    });
  });

  test('a restart by the policy fails', async () => {
    // The container takes its own command away, so that no restart finds it.
    const rows: Row[] = [{ title: 'a restart by the policy fails', cmd: ['/bin/sh', '-c', 'rm /bin/sh; exit 1'] }];
    await phase(rows, async (cases) => {
      for (const { id } of cases)
        await eventually(async () => {
          const { State, RestartCount } = await engine.call('GET', `/v1.26/containers/${id}/json`);
          assert.match(State.Error, /no such file or directory/);
          assert.ok(State.Status === 'restarting' && RestartCount >= 2, `${State.Status} ${RestartCount}`);
        }, 10_000);
    });
  });

  const overARestart: Row[] = [
    { title: 'it exits with 0 while no daemon is there' },
    { title: 'it exits with another code while no daemon is there' },
    { title: 'the daemon starts again, while it is paused', prepare: (id) => ask(id, 'pause') },
    { title: 'the daemon starts again, after it exited', prepare: (id) => exitedWith0(id) },
    { title: 'the daemon starts again, after it was stopped', prepare: stopped },
    { title: 'the daemon starts again, while it waits for its delay', cmd: failing, prepare: inBackOff },
    { title: 'the daemon starts again, never started before', starts: false },
  ];
  const exitedWith0 = async (id: string) => {
    await ask(id, 'kill?signal=USR1');
    await eventually(async () => assert.equal((await seen(id)).status, 'exited'));
  };
  const exitNow = async (cases: readonly Case[]) => {
    for (const { title, was } of cases) {
      if (title === 'it exits with 0 while no daemon is there') await run(['kill', '-USR1', String(was.pid)]);
      if (title === 'it exits with another code while no daemon is there')
        await run(['kill', '-USR2', String(was.pid)]);
    }
    await sleep(200);
  };

  test('over a daemon that is killed', async () => {
    await phase([...overARestart, { title: 'the daemon is killed and starts, while it runs' }], async (cases) => {
      await engine.kill9();
      await exitNow(cases);
      await engine.launch();
    });
  });

  test('over a daemon that ends politely', async () => {
    await phase([...overARestart, { title: 'the daemon ends and starts, while it runs' }], async (cases) => {
      await engine.stop();
      await exitNow(cases);
      await engine.launch();
    });
  });

  test('over a reboot', async () => {
    const rows: Row[] = [
      { title: 'the machine reboots while it runs' },
      { title: 'the machine reboots after it was stopped', prepare: stopped },
      { title: 'the machine reboots while it waits for its delay', cmd: failing, prepare: inBackOff },
    ];
    await phase(rows, async (cases) => {
      await engine.kill9();
      await powerCut(
        engine,
        cases.map(({ was }) => was.pid),
      );
      await engine.launch();
    });
  });

  test('every row of the page has been made to happen', () => {
    assert.ok(table.size > 20);
    assert.deepEqual([...table.keys()].sort(), [...done].sort());
  });
});

test('on-failure:2 gives up after two restarts, and a start counts anew', async () => {
  const body = {
    Image: 'busybox',
    Cmd: ['false'],
    HostConfig: { NetworkMode: 'none', RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 2 } },
  };
  const { Id } = await engine.call('POST', '/v1.26/containers/create', body);
  for (let round = 0; round < 2; round += 1) {
    await ask(Id, 'start');
    await eventually(async () => {
      const { status, restarts } = await seen(Id);
      assert.deepEqual([status, restarts], ['exited', 2]);
    });
  }
  await engine.removeAll();
});

test('what waits for its delay is seen as restarting, refuses a pause, and can be removed by force', async () => {
  const body = {
    Image: 'busybox',
    Cmd: failing,
    HostConfig: { NetworkMode: 'none', RestartPolicy: { Name: 'always' } },
  };
  const { Id } = await engine.call('POST', '/v1.26/containers/create', body);
  await ask(Id, 'start');
  await inBackOff(Id);
  const { State } = await engine.call('GET', `/v1.26/containers/${Id}/json`);
  assert.deepEqual([State.Restarting, State.Running, State.ExitCode], [true, true, 1]);
  assert.match((await engine.call('GET', '/v1.26/containers/json'))[0].Status, /^Restarting \(1\) .* ago$/);
  const pause = await engine.api('POST', `/v1.26/containers/${Id}/pause`);
  assert.deepEqual(
    [pause.status, pause.json().message],
    [409, `Container ${Id} is restarting, wait until the container is running`],
  );
  assert.equal((await engine.api('DELETE', `/v1.26/containers/${Id}`)).status, 409);
  await engine.call('DELETE', `/v1.26/containers/${Id}?force=1`);
  await sleep(4000);
  assert.deepEqual(await engine.call('GET', '/v1.26/containers/json?all=1'), []);
  await engine.assertNoLeaks();
});
