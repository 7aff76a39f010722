/** The version chain: what each declaration does, and that the files settle every fact of their versions. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { routes } from '../../src/api/routes/index.ts';
import { compareVersions, VersionChain } from '../../src/api/versions/chain.ts';
import {
  added,
  answer,
  inBody,
  inQuery,
  object,
  question,
  removed,
  rows,
  version,
  wire,
} from '../../src/api/versions/dsl.ts';
import { versions } from '../../src/api/versions/index.ts';
import { notFound } from '../../src/lib/errors.ts';
import type { PartialBackend } from './helper.ts';
import { ask, json, serve } from './helper.ts';

test('versions are compared component by component (W-02)', () => {
  for (const [a, b, sign] of [
    ['1.9', '1.10', -1],
    ['1.024', '1.24', 0],
    ['1.24.1', '1.24', 1],
    ['1', '1.0', 0],
    ['2', '1.99', 1],
  ] as const) {
    assert.equal(Math.sign(compareVersions(a, b)), sign, `${a} ${b}`);
  }
});

test('steps run from old to new going up and from new to old coming down', () => {
  const note = (word: string) => object((body) => ({ ...body, path: `${String(body.path ?? '')}${word}` }));
  const chain = new VersionChain([
    version('1.1', []),
    version('1.2', [
      question(
        'GET /a',
        'W-01',
        'x',
        inBody((body) => ({ ...body, asked: [...(body.asked as string[]), '2'] })),
      ),
      answer('GET /a', 'W-01', 'x', { body: note('2') }),
      wire('W-01', 'x', { errors: 'text', framed: false }),
    ]),
    version('1.3', [
      question(
        'GET /a',
        'W-01',
        'x',
        inBody((body) => ({ ...body, asked: [...(body.asked as string[]), '3'] })),
      ),
      answer('GET /a', 'W-01', 'x', { body: note('3') }),
      added('GET /b', 'W-01'),
      removed('GET /c', 'W-01', 'x', 'empty'),
      wire('W-01', 'x', { framed: true, eventEnd: '' }),
    ]),
  ]);
  const plans = chain.compile(['GET /a', 'GET /b', 'GET /c']);
  const [oldest, , two, three] = plans.get('GET /a') ?? [];
  const up = (plan: typeof oldest) =>
    plan?.up?.({ params: {}, query: new URLSearchParams(), headers: {}, body: { asked: [] } }).body;
  assert.deepEqual(up(oldest), { asked: ['2', '3'] });
  assert.deepEqual(up(two), { asked: ['3'] });
  assert.equal(three?.up, undefined, 'a client at the newest version pays nothing');
  assert.deepEqual(oldest?.body?.({}), { path: '32' });
  assert.deepEqual(two?.body?.({}), { path: '3' });
  assert.deepEqual(
    [oldest?.wire.errors, oldest?.wire.framed, oldest?.wire.eventEnd],
    ['text', false, ''],
    'the older the client, the more it lacks',
  );
  assert.deepEqual([two?.wire.errors, two?.wire.framed], ['json', true]);
  assert.deepEqual(
    ['GET /b', 'GET /c'].map((name) => plans.get(name)?.map(({ exists }) => exists)),
    [
      [false, false, false, true],
      [true, true, true, false],
    ],
  );
  assert.deepEqual(
    ['0.9', '1.1', '1.2.7', '1.3', '1.4'].map((name) => chain.ageOf(name)),
    [0, 1, 2, 3, null],
  );
  assert.throws(() => chain.compile(['GET /a']), /there is no route GET \/b/);
  assert.throws(() => new VersionChain([version('1.2', []), version('1.2', [])]), /out of order/);
});

test('every declaration names facts, and every fact of these versions is settled', () => {
  const settled = versions.files.flatMap(({ changes }) => changes.flatMap(({ facts }) => facts));
  for (const fact of settled) assert.match(fact, /^(W|\d+\.\d+)-\d\d$/);
  const counts = { '1.24': 35, '1.25': 47, '1.26': 4 };
  for (const [name, count] of Object.entries(counts)) {
    for (let number = 1; number <= count; number++) {
      const fact = `${name}-${String(number).padStart(2, '0')}`;
      assert.ok(settled.includes(fact), `${fact} is not settled`);
    }
  }
});

test('every endpoint a version file names has a route', () => {
  assert.doesNotThrow(() => versions.compile(routes.map(({ endpoint }) => endpoint)));
  assert.equal(versions.newest, versions.files.at(-1)?.name);
});

test('row and query helpers leave alone what is not theirs', () => {
  assert.deepEqual(rows((row) => ({ ...row, x: 1 }))([{ a: 1 }, 'text']), [{ a: 1, x: 1 }, 'text']);
  assert.equal(rows((row) => row)('text'), 'text');
  const query = new URLSearchParams('a=1');
  const asked = { params: {}, query, headers: {}, body: undefined };
  inQuery((copy) => copy.delete('a'))(asked);
  assert.equal(query.get('a'), '1');
});

// From here on each version is asked over a real connection.

async function at(parts: PartialBackend, method: string, path: string, body?: object) {
  await using running = await serve(parts);
  const send = async (prefix: string) => {
    const options = body === undefined ? {} : { headers: json, body: JSON.stringify(body) };
    const { status, text } = await ask(running, method, prefix + path, options);
    try {
      return { status, body: JSON.parse(text) as unknown, text };
    } catch {
      return { status, body: undefined, text };
    }
  };
  const [v1_18, v1_23, v1_24, v1_25, v1_26, newest] = await Promise.all(
    ['/v1.18', '/v1.23', '/v1.24', '/v1.25', '/v1.26', ''].map(send),
  );
  assert.ok(v1_18 && v1_23 && v1_24 && v1_25 && v1_26 && newest);
  assert.deepEqual(newest, v1_26, 'no version means the newest (W-01)');
  return { v1_18, v1_23, v1_24, v1_25, v1_26 };
}

test('1.24-01 W-42 W-43: errors are text before 1.24', async () => {
  const { v1_18, v1_23, v1_24, v1_26 } = await at({}, 'GET', '/nowhere');
  for (const { status, text } of [v1_18, v1_23]) assert.deepEqual([status, text], [404, 'page not found\n']);
  for (const { status, text } of [v1_24, v1_26]) {
    assert.deepEqual([status, text], [404, '{"message":"page not found"}\n']);
  }
});

test('1.24-04: copy is gone, with an empty body', async () => {
  const archive = async () => {
    throw notFound('the file was asked for');
  };
  const { v1_23, v1_24, v1_26 } = await at({ containers: { archive } }, 'POST', '/containers/a/copy', {
    Resource: '/a',
  });
  assert.deepEqual([v1_23.status, v1_23.text], [404, 'the file was asked for\n']);
  for (const { status, text } of [v1_24, v1_26]) assert.deepEqual([status, text], [404, '']);
});

test('1.25-17: since and before of the container list are filters before 1.24 and nothing after', async () => {
  const asked: unknown[] = [];
  const list = async ({ filters }: { filters: ReadonlyMap<string, unknown> }) => {
    asked.push(Object.fromEntries(filters));
    return [];
  };
  const filters = encodeURIComponent('{"label":{"a":true},"since":{"z":true}}');
  await at({ containers: { list } }, 'GET', `/containers/json?since=x&before=y&filters=${filters}`);
  const old = { label: ['a'], since: ['z', 'x'], before: ['y'] };
  const now = { label: ['a'], since: ['z'] };
  assert.equal(asked.filter((found) => JSON.stringify(found) === JSON.stringify(old)).length, 2);
  assert.equal(asked.filter((found) => JSON.stringify(found) === JSON.stringify(now)).length, 4);
});

test('1.25-04 1.25-05 1.24-18: security options are bare names before 1.25', async () => {
  const info = async () => ({ SecurityOptions: ['name=seccomp,profile=default', 'name=userns'], NCPU: 2 });
  const { v1_24, v1_25, v1_26 } = await at({ system: { info } }, 'GET', '/info');
  assert.deepEqual(v1_24.body, {
    SecurityOptions: ['seccomp', 'userns'],
    NCPU: 2,
    ExecutionDriver: '<not supported>',
  });
  for (const { body } of [v1_25, v1_26]) assert.deepEqual(body, await info());
});

test('1.25-07: AutoRemove is honoured from 1.25', async () => {
  const create = async (_name: string, body: { HostConfig?: { AutoRemove?: boolean | null } | null }) => ({
    Id: String(body.HostConfig?.AutoRemove),
    Warnings: [],
  });
  const { v1_24, v1_25 } = await at({ containers: { create } }, 'POST', '/containers/create', {
    Image: 'a',
    HostConfig: { AutoRemove: true },
  });
  assert.deepEqual(
    [v1_24.body, v1_25.body],
    [
      { Id: 'false', Warnings: [] },
      { Id: 'true', Warnings: [] },
    ],
  );
});

test('1.25-13: the words of a taken name', async () => {
  const words = 'name "/web" is already in use by container f00. You have to remove (or rename) that container';
  const create = () => Promise.reject(new Error(`Conflict. The container ${words}`));
  const { v1_24, v1_25 } = await at({ containers: { create } }, 'POST', '/containers/create', { Image: 'a' });
  assert.deepEqual(v1_24.body, { message: `Conflict. The ${words}` });
  assert.deepEqual(v1_25.body, { message: `Conflict. The container ${words}` });
});

test('1.25-15: removing is shown as exited before 1.25', async () => {
  const containers = {
    list: async () => [
      { Id: 'a', State: 'removing' },
      { Id: 'b', State: 'running' },
    ],
    inspect: async () => ({ State: { Status: 'removing', Pid: 0 } }),
  };
  const list = await at({ containers }, 'GET', '/containers/json');
  assert.deepEqual(list.v1_24.body, [
    { Id: 'a', State: 'exited' },
    { Id: 'b', State: 'running' },
  ]);
  assert.deepEqual(list.v1_25.body, await containers.list());
  const inspect = await at({ containers }, 'GET', '/containers/a/json');
  assert.deepEqual(inspect.v1_24.body, { State: { Status: 'exited', Pid: 0 } });
  assert.deepEqual(inspect.v1_25.body, await containers.inspect());
});

test('1.25-25 1.25-36 1.26-01: routes appear with their version', async () => {
  const prune = async () => ({ ContainersDeleted: null, SpaceReclaimed: 0 });
  const { v1_24, v1_25 } = await at({ containers: { prune } }, 'POST', '/containers/prune');
  assert.deepEqual([v1_24.status, v1_24.body], [404, { message: 'page not found' }]);
  assert.deepEqual([v1_25.status, v1_25.body], [200, { ContainersDeleted: null, SpaceReclaimed: 0 }]);
  const upgrade = await at({}, 'POST', '/plugins/a/upgrade');
  assert.deepEqual([upgrade.v1_25.status, upgrade.v1_26.status], [404, 501]);
});

test('1.25-28: filter of the image list is filters.reference from 1.25', async () => {
  const asked: unknown[] = [];
  const list = async ({ filters }: { filters: ReadonlyMap<string, unknown> }) => {
    asked.push(Object.fromEntries(filters));
    return [];
  };
  await at({ images: { list } }, 'GET', '/images/json?filter=busybox');
  assert.deepEqual(asked.map((filters) => JSON.stringify(filters)).sort(), [
    '{"reference":["busybox"]}',
    '{"reference":["busybox"]}',
    '{"reference":["busybox"]}',
    '{}',
    '{}',
    '{}',
  ]);
});
