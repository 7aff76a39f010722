import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { list, map, object, text, whole } from '../../src/api/server/decode.ts';
import { declaredBody } from '../../src/api/server/hijack.ts';
import { filters, flag, integer, timestamp } from '../../src/api/server/query.ts';
import { cleanPath, Router } from '../../src/api/server/router.ts';
import { drawBar } from '../../src/api/wire/progress.ts';

test('names match greedily and literals win (W-04, W-05)', () => {
  const router = new Router<string>();
  for (const endpoint of [
    'GET /containers/json',
    'GET /containers/{id}/json',
    'DELETE /containers/{id}',
    'GET /images/{name}/json',
    'GET /images/get',
    'GET /images/{name}/get',
    'DELETE /images/{name}',
    'GET /networks',
    'GET /networks/',
    'GET /networks/{id}',
    'GET /services/{id}',
    'GET /services/{id}/logs',
  ]) {
    const [method, path] = endpoint.split(' ') as [string, string];
    router.add(method, path, endpoint);
  }
  const cases: readonly (readonly [string, string, string | null, string?])[] = [
    ['GET', '/containers/json', 'GET /containers/json'],
    ['GET', '/containers/a/json', 'GET /containers/{id}/json', 'a'],
    ['GET', '/containers/json/json', 'GET /containers/{id}/json', 'json'],
    ['GET', '/images/h:5/a/b@sha256:1/json', 'GET /images/{name}/json', 'h:5/a/b@sha256:1'],
    ['GET', '/images/a/json/json', 'GET /images/{name}/json', 'a/json'],
    ['GET', '/images/get', 'GET /images/get'],
    ['GET', '/images/get/get', 'GET /images/{name}/get', 'get'],
    ['DELETE', '/images/a/json', 'DELETE /images/{name}', 'a/json'],
    ['GET', '/networks/', 'GET /networks/'],
    ['GET', '/networks/a', 'GET /networks/{id}', 'a'],
    ['GET', '/services/a/logs', 'GET /services/{id}/logs', 'a'],
    ['GET', '/services/a', 'GET /services/{id}', 'a'],
    ['POST', '/containers/json', null],
    ['GET', '/images/a', null],
    ['GET', '/', null],
    ['GET', `/images/${'a/'.repeat(5000)}json`, null],
  ];
  for (const [method, path, expected, name] of cases) {
    const match = router.find(method, path);
    assert.equal(match?.value ?? null, expected, `${method} ${path}`);
    if (name !== undefined) assert.deepEqual(Object.values(match?.params ?? {}), [name]);
  }
});

test('paths are cleaned (W-07)', () => {
  for (const [path, clean] of [
    ['/containers/json', '/containers/json'],
    ['/containers//json', '/containers/json'],
    ['//v1.24//info', '/v1.24/info'],
    ['/a/../b', '/b'],
    ['/../../b', '/b'],
    ['/a/./b/', '/a/b/'],
    ['/networks/', '/networks/'],
    ['/a/..', '/'],
    ['/a/..b/.c', '/a/..b/.c'],
  ] as const) {
    assert.equal(cleanPath(path), clean, path);
  }
  fc.assert(
    fc.property(fc.array(fc.constantFrom('a', '.', '..', '', 'b.c')), (segments) => {
      const clean = cleanPath(`/${segments.join('/')}`);
      assert.equal(cleanPath(clean), clean);
    }),
  );
});

test('flags, numbers and times are read as Docker reads them (W-35, 1.25-24)', () => {
  const query = new URLSearchParams('a=1&b=True&c=&d=0&e=No&f=none&g=%20false%20&h=2&t=-1&u=x&v=1e3');
  const on = ['a', 'b', 'h'];
  for (const name of 'abcdefgh') assert.equal(flag(query, name), on.includes(name), name);
  assert.equal(flag(query, 'absent', true), true);
  assert.equal(integer(query, 't'), -1);
  assert.equal(integer(query, 'c'), undefined);
  for (const name of ['u', 'v']) assert.throws(() => integer(query, name), { kind: 'invalid' });

  const at = (value: string) => timestamp(new URLSearchParams({ since: value }), 'since');
  assert.equal(at('1700000000.000000001'), 1700000000_000000001n);
  assert.equal(at('1700000000.5'), 1700000000_500000000n);
  assert.equal(at('0'), 0n);
  assert.equal(at('2026-01-02T03:04:05.123456789Z'), 1767323045_123456789n);
  assert.equal(at(''), undefined);
  assert.throws(() => at('yesterday'), { kind: 'invalid' });
});

test('filters come in two forms (W-80, W-81)', () => {
  const read = (text: string) => Object.fromEntries(filters(new URLSearchParams({ filters: text })));
  assert.deepEqual(read('{"label":["a=b","c"]}'), { label: ['a=b', 'c'] });
  assert.deepEqual(read('{"label":{"a=b":true,"c":true,"d":false}}'), { label: ['a=b', 'c'] });
  assert.deepEqual(read(''), {});
  assert.deepEqual(read('null'), {});
  for (const broken of ['{', '[]', '"a"', '{"label":"a"}', '{"label":[1]}', '{"label":{"a":1}}', '{"label":null}']) {
    assert.throws(() => read(broken), { kind: 'invalid' }, broken);
  }
});

test('bodies: names in any case, null is absent, wrong types are named (W-40)', () => {
  const decode = object({
    Image: text,
    HostConfig: object({ Memory: whole, Binds: list(text) }),
    Ports: map(list(object({ HostPort: text }))),
  });
  assert.deepEqual(decode({ image: 'a', hostconfig: { memory: 1, BINDS: null }, unknown: { x: 1 } }), {
    Image: 'a',
    HostConfig: { Memory: 1 },
  });
  assert.deepEqual(decode({ ports: { '80/tcp': [{ hostport: '1' }] } }), { Ports: { '80/tcp': [{ HostPort: '1' }] } });
  const message = (value: unknown) => {
    try {
      decode(value);
      return 'accepted';
    } catch (error) {
      return (error as Error).message;
    }
  };
  assert.match(message({ hostconfig: { memory: '1' } }), /^invalid JSON: HostConfig\.Memory must be integer$/);
  assert.match(message({ HostConfig: { Binds: [1] } }), /HostConfig\.Binds\.0 must be string/);
  assert.match(message([]), /the body must be object/);
});

test('progress bars are drawn as docker draws them', () => {
  assert.equal(drawBar(0, 0), '');
  assert.equal(drawBar(512, 0), '    512B');
  assert.equal(drawBar(1_200_000, 3_000_000), `[${'='.repeat(20)}>${' '.repeat(30)}]    1.2MB/3MB`);
  assert.equal(drawBar(3_000_000, 3_000_000), `[${'='.repeat(50)}>]      3MB/3MB`);
  assert.equal(drawBar(4_000, 3_000), `[${'='.repeat(50)}>]      4kB`);
  assert.equal(drawBar(1_234_567, 2_000_000_000).trimEnd().slice(-12), '1.235MB/2GB'.padStart(12));
});

test('a declared body ends where it says, however it is cut', () => {
  const wholes = [
    { headers: { 'content-length': '5' }, sent: 'helloREST', body: 'hello' },
    { headers: {}, sent: 'REST', body: '' },
    {
      headers: { 'transfer-encoding': 'chunked' },
      sent: '3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: z\r\n\r\nREST',
      body: 'abc0123456789',
    },
  ];
  for (const { headers, sent, body } of wholes) {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 8 })), (sizes) => {
        const declared = declaredBody(headers);
        let [left, found, rest] = [Buffer.from(sent), '', ''];
        while (left.length > 0) {
          const size = sizes.shift() ?? left.length;
          const piece = left.subarray(0, size);
          left = left.subarray(size);
          const fed = declared.feed(piece);
          found += fed.body.map(String).join('');
          rest += fed.rest.toString();
        }
        assert.deepEqual([found, rest, declared.isDone, declared.isBroken], [body, 'REST', true, false]);
      }),
    );
  }
});

test('raw input behind a promise of chunks is still input', () => {
  for (const sent of ['hello\n', 'zz\r\n', '\r\n']) {
    const declared = declaredBody({ 'transfer-encoding': 'chunked' });
    assert.equal(declared.feed(Buffer.from(sent)).rest.toString(), sent);
    assert.equal(declared.isBroken, true);
    assert.equal(declared.feed(Buffer.from('more')).rest.toString(), 'more');
  }
});
