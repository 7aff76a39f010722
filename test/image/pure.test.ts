/** Tables: names, changes, patterns, configs. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { applyChanges } from '../../src/image/changes.ts';
import { imageIdOf, parseImageConfig, runConfigOf } from '../../src/image/config.ts';
import { globPattern } from '../../src/image/list.ts';
import {
  canonicalReference,
  familiarReference,
  parseNameAndTag,
  parseReference,
  withDefaultTag,
} from '../../src/image/reference.ts';
import { chainOf } from '../../src/layer/store.ts';
import type { DiffId } from '../../src/lib/ids.ts';

const hex = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

describe('references', () => {
  const forms: readonly (readonly [text: string, canonical: string, familiar: string])[] = [
    ['busybox', 'docker.io/library/busybox', 'busybox'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36', 'busybox:1.36'],
    ['docker.io/busybox', 'docker.io/library/busybox', 'busybox'],
    ['index.docker.io/library/busybox', 'docker.io/library/busybox', 'busybox'],
    ['user/app', 'docker.io/user/app', 'user/app'],
    ['docker.io/library/user/app', 'docker.io/library/user/app', 'library/user/app'],
    ['localhost/x', 'localhost/x', 'localhost/x'],
    ['localhost:5000/x:tag', 'localhost:5000/x:tag', 'localhost:5000/x:tag'],
    ['example.com/a/b__c-d.e', 'example.com/a/b__c-d.e', 'example.com/a/b__c-d.e'],
    ['[::1]:5000/x', '[::1]:5000/x', '[::1]:5000/x'],
    [`x@sha256:${hex}`, `docker.io/library/x@sha256:${hex}`, `x@sha256:${hex}`],
    [`h.io/x:t@sha256:${hex}`, `h.io/x:t@sha256:${hex}`, `h.io/x:t@sha256:${hex}`],
  ];
  for (const [text, canonical, familiar] of forms) {
    test(text, () => {
      const reference = parseReference(text);
      assert.equal(canonicalReference(reference), canonical);
      assert.equal(familiarReference(reference), familiar);
      assert.deepEqual(parseReference(canonical), reference);
    });
  }

  const format = 'invalid reference format';
  const refused: readonly (readonly [text: string, message: string])[] = [
    ['', format],
    [':tag', format],
    ['a:', format],
    ['a b', format],
    ['a//b', format],
    ['-a', format],
    ['a:-t', format],
    [`a:${'t'.repeat(129)}`, format],
    ['a@sha256:abc', format],
    [`a@sha256:${hex}00`, `${format}: invalid checksum digest length`],
    [`a@md5:${hex}`, `${format}: unsupported digest algorithm`],
    ['Upper', `${format}: repository name must be lowercase`],
    ['user/App:Tag', `${format}: repository name must be lowercase`],
    [`x/${'a'.repeat(250)}`, `${format}: repository name must not be more than 255 characters`],
    [hex, `${format}: invalid repository name (${hex}), cannot specify 64-byte hexadecimal strings`],
  ];
  for (const [text, message] of refused) {
    test(`not ${text.slice(0, 40) || 'nothing'}`, () => {
      assert.throws(() => parseReference(text), { kind: 'invalid', message });
    });
  }

  test('a name and a tag from two parameters', () => {
    assert.equal(familiarReference(parseNameAndTag('busybox', '')), 'busybox');
    assert.equal(familiarReference(withDefaultTag(parseNameAndTag('busybox', ''))), 'busybox:latest');
    assert.equal(familiarReference(parseNameAndTag('busybox:a', 'b')), 'busybox:b');
    assert.equal(familiarReference(parseNameAndTag('busybox:a', `sha256:${hex}`)), `busybox@sha256:${hex}`);
    assert.throws(() => parseNameAndTag('busybox', 'no/tag'), { message: 'invalid tag format' });
  });
});

describe('changes', () => {
  const empty = runConfigOf({});
  const table: readonly (readonly [change: string, expected: object])[] = [
    ['CMD echo hi', { Cmd: ['/bin/sh', '-c', 'echo hi'] }],
    ['CMD ["echo", "hi"]', { Cmd: ['echo', 'hi'] }],
    ['cmd', { Cmd: [] }],
    ['ENTRYPOINT ["/x"]', { Entrypoint: ['/x'] }],
    ['ENV A=1 B="2 3" C=\\ d', { Env: ['A=1', 'B=2 3', 'C= d'] }],
    ['ENV A the rest', { Env: ['A=the rest'] }],
    ['ENV A=1\nENV B=2\nENV A=3', { Env: ['A=3', 'B=2'] }],
    ['LABEL a=b "c d"=e', { Labels: { a: 'b', 'c d': 'e' } }],
    [
      'EXPOSE 80 53/udp 90-92',
      { ExposedPorts: { '80/tcp': {}, '53/udp': {}, '90/tcp': {}, '91/tcp': {}, '92/tcp': {} } },
    ],
    ['VOLUME /a /b', { Volumes: { '/a': {}, '/b': {} } }],
    ['VOLUME ["/a b"]', { Volumes: { '/a b': {} } }],
    ['USER 1:2', { User: '1:2' }],
    ['WORKDIR /a\nWORKDIR b/../c', { WorkingDir: '/a/c' }],
    ['ONBUILD RUN true', { OnBuild: ['RUN true'] }],
    ['STOPSIGNAL SIGQUIT', { StopSignal: 'SIGQUIT' }],
    ['HEALTHCHECK NONE', { Healthcheck: { Test: ['NONE'] } }],
    [
      'HEALTHCHECK --interval=5s --retries=2 CMD curl x',
      { Healthcheck: { Test: ['CMD-SHELL', 'curl x'], Interval: 5e9, Retries: 2 } },
    ],
    ['# nothing\nUSER a', { User: 'a' }],
    ['CMD ["a"]\nENTRYPOINT ["b"]', { Cmd: ['a'], Entrypoint: ['b'] }],
    ['ENV A=1 \\\n B=2', { Env: ['A=1', 'B=2'] }],
    ['ENV A=1\nENV B=$A C=\'$A\' D="$A" E=\\$A F=$' + '{NO:-d}', { Env: ['A=1', 'B=1', 'C=$A', 'D=1', 'E=$A', 'F=d'] }],
  ];
  for (const [change, expected] of table) {
    test(change, () => assert.deepEqual(applyChanges(empty, [change]), { ...empty, ...expected }));
  }
  for (const change of [
    '# nothing',
    'CMD [1]',
    'ENV A=$' + '{B',
    'ENV A=$' + '{B:?x}',
    'RUN x',
    'FROM x',
    'ENV',
    'ENV A',
    'ENV =1',
    'LABEL a="b',
    'EXPOSE 0',
    'EXPOSE x',
    'USER a b',
    'ONBUILD ONBUILD RUN x',
    'HEALTHCHECK curl',
    '__proto__ x',
  ]) {
    test(`not ${change}`, () => assert.throws(() => applyChanges(empty, [change]), { kind: 'invalid' }));
  }
});

test('patterns stop at slashes, as in Go', () => {
  for (const [pattern, text, expected] of [
    ['busy*', 'busybox', true],
    ['*', 'user/app', false],
    ['*/*', 'user/app', true],
    ['b?sybox:[0-9].*', 'busybox:1.36', true],
    ['b[^u]sybox', 'busybox', false],
    ['a.b', 'axb', false],
    ['\\*', '*', true],
  ] as const) {
    assert.equal(globPattern(pattern).test(text), expected, pattern);
  }
  assert.throws(() => globPattern('[a'), { kind: 'invalid' });
});

describe('config documents', () => {
  test('an OCI config with almost nothing in it', () => {
    const document = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers' } }));
    const image = parseImageConfig(document);
    assert.equal(image.id, imageIdOf(document));
    assert.deepEqual([image.chainId, image.diffIds, image.history], [null, [], []]);
    assert.deepEqual(image.config, runConfigOf({}));
    assert.equal(image.created, '0001-01-01T00:00:00Z');
  });
  test('what is no config', () => {
    for (const text of [
      '',
      '[]',
      '{}',
      'null',
      '{"rootfs":{"diff_ids":["sha256:short"]}}',
      '{"rootfs":{"diff_ids":"x"}}',
    ]) {
      assert.throws(() => parseImageConfig(Buffer.from(text)), { kind: 'invalid' }, text);
    }
  });
  test('chain IDs of the OCI image specification', () => {
    const [a, b] = [`sha256:${hex}`, `sha256:${hex.replaceAll('e', '0')}`] as DiffId[];
    const chain = chainOf([a as DiffId, b as DiffId]);
    assert.equal(chain[0], a);
    assert.match(chain[1] ?? '', /^sha256:[a-f0-9]{64}$/);
  });
});
