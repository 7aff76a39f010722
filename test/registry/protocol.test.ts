/** What registries and users write, read as the specifications say: tables. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import type { EngineError } from '../../src/lib/errors.ts';
import { parseChallenges } from '../../src/registry/challenge.ts';
import { endpointsOf, isInsecure } from '../../src/registry/endpoint.ts';
import { refusal, unreachable } from '../../src/registry/errors.ts';
import { choosePlatform, hostPlatform, mediaTypes, parseManifest, parsePlatform } from '../../src/registry/manifest.ts';
import { retryDelayMs, Slots } from '../../src/registry/waiting.ts';

describe('challenges', () => {
  const table: [string, unknown][] = [
    ['Basic realm="x"', [{ scheme: 'basic', parameters: { realm: 'x' } }]],
    [
      'Bearer realm="https://a/token",service="r",scope="repository:x:pull,push"',
      [{ scheme: 'bearer', parameters: { realm: 'https://a/token', service: 'r', scope: 'repository:x:pull,push' } }],
    ],
    ['Negotiate', [{ scheme: 'negotiate', parameters: {} }]],
    [
      'Basic realm="a \\"b\\"", Bearer realm=plain , service="s"',
      [
        { scheme: 'basic', parameters: { realm: 'a "b"' } },
        { scheme: 'bearer', parameters: { realm: 'plain', service: 's' } },
      ],
    ],
    ['', []],
    ['===', []],
  ];
  for (const [header, expected] of table)
    it(JSON.stringify(header), () => assert.deepEqual(parseChallenges(header), expected));
});

describe('manifests', () => {
  const digest = `sha256:${'a'.repeat(64)}`;
  const part = { mediaType: '', digest, size: 1 };
  const layer = { ...part, mediaType: mediaTypes.layer };
  const image = { schemaVersion: 2, mediaType: mediaTypes.manifest, config: part, layers: [layer] };
  const read = (document: unknown, type = '') => parseManifest(Buffer.from(JSON.stringify(document)), type);

  it('takes the type from the header when the document has none', () => {
    const { mediaType: _, ...bare } = image;
    assert.equal(read(bare, `${mediaTypes.ociManifest}; charset=utf-8`).is, 'image');
  });

  const refused: [string, unknown, RegExp][] = [
    ['schema 1', { schemaVersion: 1, fsLayers: [] }, /schema 1 is not supported/],
    ['both kinds at once', { ...image, manifests: [] }, /both an image and an index/],
    ['no digest', { ...image, layers: [{ ...layer, digest: 'sha256:../../etc' }] }, /digest/],
    [
      'a digest of another kind',
      { ...image, layers: [{ ...layer, digest: `sha512:${'a'.repeat(128)}` }] },
      /not sha256/,
    ],
    ['a negative size', { ...image, layers: [{ ...layer, size: -1 }] }, /size/],
    [
      'an artifact',
      { ...image, config: { ...part, mediaType: 'application/vnd.cncf.helm.config.v1+json' } },
      /not a container image/,
    ],
    ['an unknown layer', { ...image, layers: [{ ...layer, mediaType: 'text/plain' }] }, /unsupported layer/],
    ['another type', { ...image, mediaType: 'text/html' }, /unsupported manifest media type/],
    ['no object', [], /not an object/],
  ];
  for (const [what, document, message] of refused)
    it(`refuses ${what}`, () =>
      assert.throws(
        () => read(document),
        (error: EngineError) => error.kind === 'invalid' && message.test(error.message),
      ));

  const index = (...platforms: (string | null)[]) => {
    const manifests = platforms.map((platform, size) => {
      const [os, architecture, variant] = platform?.split('/') ?? [];
      return {
        mediaType: mediaTypes.manifest,
        digest,
        size,
        ...(platform && { platform: { os, architecture, variant } }),
      };
    });
    const manifest = read({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests });
    assert.ok(manifest.is === 'index');
    return manifest.manifests;
  };
  const host = hostPlatform('x64');
  const choices: [string, (string | null)[], number][] = [
    ['linux/amd64', ['windows/amd64', 'linux/386', 'linux/amd64'], 2],
    ['linux/amd64', [null, 'unknown/unknown', 'linux/amd64/v1', 'linux/amd64'], 2],
    ['linux/amd64', ['linux/amd64/v3', 'linux/amd64'], 1],
    ['linux/arm64', ['linux/arm/v7', 'linux/arm64/v8'], 1],
    ['linux/aarch64/v8', ['linux/arm64'], 0],
    ['linux/arm/v7', ['linux/arm/v5', 'linux/arm/v6', 'linux/arm64'], 1],
    ['linux/arm/v6', ['linux/arm/v7', 'linux/arm/v5'], 1],
    ['arm64', ['linux/amd64', 'linux/arm64'], 1],
    ['linux', ['linux/arm64', 'linux/amd64'], 1],
  ];
  for (const [wanted, entries, expected] of choices)
    it(`${wanted} out of ${entries.join(', ')}`, () =>
      assert.equal(choosePlatform(index(...entries), parsePlatform(wanted, host)).size, expected));

  it('has nothing for a platform that needs more than an entry offers', () => {
    assert.throws(
      () => choosePlatform(index('linux/arm/v7'), parsePlatform('linux/arm/v6', host)),
      /no matching manifest for linux\/arm\/v6/,
    );
  });

  for (const text of ['', 'a/b/c/d', 'linux//x', 'linux/../x'])
    it(`${JSON.stringify(text)} is no platform`, () => assert.throws(() => parsePlatform(text, host)));
});

describe('refusals', () => {
  const body = (code: string, message: string) => JSON.stringify({ errors: [{ code, message }] });
  const table: [number, Record<string, string>, string, string, string][] = [
    [404, {}, body('MANIFEST_UNKNOWN', 'manifest unknown'), 'not-found', 'manifest unknown: manifest unknown'],
    [
      401,
      { 'www-authenticate': 'Bearer realm="r",error="insufficient_scope"' },
      body('UNAUTHORIZED', 'x'),
      'unauthorized',
      'denied: requested access to the resource is denied',
    ],
    [403, {}, body('DENIED', 'no\u001b[31m\nmore'), 'forbidden', 'denied: no [31m more'],
    [429, {}, '<html>', 'unavailable', 'toomanyrequests: too many requests'],
    [500, {}, '', 'internal', 'received unexpected HTTP status: 500 Internal Server Error'],
    [
      401,
      {},
      '{"details":"incorrect username or password"}',
      'unauthorized',
      'unauthorized: incorrect username or password',
    ],
    [400, {}, '{"errors":[null,{"code":5}]}', 'internal', 'received unexpected HTTP status: 400 Internal Server Error'],
  ];
  for (const [status, headers, text, kind, message] of table)
    it(`${status} ${text}`, () => {
      const error = refusal(status, 'Internal Server Error', headers, text);
      assert.equal(error.kind, kind);
      assert.equal(error.message, message);
    });

  it('of a connection never tell the query or the user of an address', () => {
    const url = new URL('https://ann:secret@host.test/v2/x?signature=secret');
    const error = Object.assign(new Error('getaddrinfo'), { code: 'ENOTFOUND' });
    assert.equal(
      unreachable('GET', url, error).message,
      'Get "https://host.test/v2/x": dial tcp: lookup host.test: no such host',
    );
  });
});

describe('endpoints', () => {
  const table: [string, readonly string[], boolean][] = [
    ['localhost:5000', [], true],
    ['127.9.9.9', [], true],
    ['[::1]:5000', [], true],
    ['192.0.2.1:5000', [], false],
    ['192.0.2.1:5000', ['192.0.2.0/24'], true],
    ['192.0.2.1:5000', ['192.0.2.1:5000'], true],
    ['192.0.2.1:5000', ['192.0.2.1:5001'], false],
    ['registry.invalid', ['registry.invalid'], true],
    ['registry.invalid', ['0.0.0.0/0'], false],
  ];
  for (const [host, configured, expected] of table)
    it(`${host} with [${configured}] is ${expected ? 'insecure' : 'secure'}`, async () => {
      assert.equal(await isInsecure(host, configured), expected);
    });

  it('mirrors come before the hub, and before the hub alone', async () => {
    const settings = {
      insecureRegistries: [],
      registryMirrors: ['https://mirror.invalid/hub/', 'http://192.0.2.7:5000'],
    };
    const bases = async (domain: string) => (await endpointsOf(domain, settings)).map((endpoint) => endpoint.bases[0]);
    assert.deepEqual(await bases('docker.io'), [
      'https://mirror.invalid/hub',
      'http://192.0.2.7:5000',
      'https://registry-1.docker.io',
    ]);
    assert.deepEqual(await bases('192.0.2.8'), ['https://192.0.2.8']);
  });
});

describe('waiting', () => {
  it('obeys Retry-After in seconds and as a date, within a minute', () => {
    assert.equal(retryDelayMs(1, 100, '7'), 7000);
    assert.equal(retryDelayMs(1, 100, '61'), null);
    const soon = retryDelayMs(1, 100, new Date(Date.now() + 5000).toUTCString()) ?? 0;
    assert.ok(soon > 3000 && soon <= 5000, String(soon));
    for (const attempt of [1, 2, 3, 30]) {
      const pause = retryDelayMs(attempt, 100, 'soon') ?? 0;
      const middle = Math.min(100 * 2 ** (attempt - 1), 15_000);
      assert.ok(pause >= middle * 0.75 && pause <= middle * 1.25, String(pause));
    }
  });

  it('gives slots in turn, loses none to those who leave, and follows a changed limit', async () => {
    let limit = 1;
    const slots = new Slots(() => limit);
    const { signal } = new AbortController();
    const first = await slots.take(signal);
    const leaving = new AbortController();
    const left = slots.take(leaving.signal);
    const order: number[] = [];
    const later = [2, 3].map((number) =>
      slots.take(signal).then((giveBack) => {
        order.push(number);
        return giveBack;
      }),
    );
    leaving.abort(new Error('left'));
    await assert.rejects(left, /left/);
    first();
    first();
    await turn();
    assert.deepEqual(order, [2]);
    limit = 2;
    const extra = await slots.take(signal);
    extra();
    await turn();
    assert.deepEqual(order, [2, 3]);
    for (const giveBack of await Promise.all(later)) giveBack();
    assert.equal(slots.full, false);
  });
});
