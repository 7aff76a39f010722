import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { matchesLabels, parseFilters, someValue } from '../../src/lib/filters.ts';
import { parseFileSize, parseMemorySize } from '../../src/lib/size.ts';
import { nowNano, parseDuration, parseRfc3339, parseTime, rfc3339Nano, rfc3339NanoFixed } from '../../src/lib/time.ts';

describe('time', () => {
  it('prints what Go prints', () => {
    for (const [nano, trimmed, fixed] of [
      [0n, '1970-01-01T00:00:00Z', '1970-01-01T00:00:00.000000000Z'],
      [1_500_000_000_120_000_000n, '2017-07-14T02:40:00.12Z', '2017-07-14T02:40:00.120000000Z'],
      [1_500_000_000_000_000_001n, '2017-07-14T02:40:00.000000001Z', '2017-07-14T02:40:00.000000001Z'],
      [1_500_000_010_000_000_000n, '2017-07-14T02:40:10Z', '2017-07-14T02:40:10.000000000Z'],
      [-1n, '1969-12-31T23:59:59.999999999Z', '1969-12-31T23:59:59.999999999Z'],
    ] as const) {
      assert.equal(rfc3339Nano(nano), trimmed);
      assert.equal(rfc3339NanoFixed(nano), fixed);
    }
  });

  it('reads back what it prints', () => {
    fc.assert(
      fc.property(fc.bigInt(-62_135_596_800_000_000_000n, 253_402_300_799_999_999_999n), (nano) => {
        assert.equal(parseRfc3339(rfc3339Nano(nano)), nano);
        assert.equal(parseRfc3339(rfc3339NanoFixed(nano)), nano);
      }),
    );
  });

  it('reads since and until in all their forms', () => {
    const now = 2_000_000_000_000_000_000n;
    for (const [text, nano] of [
      ['0', 0n],
      ['1136073845', 1_136_073_845_000_000_000n],
      ['1136073845.000000001', 1_136_073_845_000_000_001n],
      ['1136073845.25', 1_136_073_845_250_000_000n],
      ['1136073845.1234567891', 1_136_073_845_123_456_789n],
      ['10s', now - 10_000_000_000n],
      ['1h2m3.5s', now - 3_723_500_000_000n],
      ['-1m', now + 60_000_000_000n],
      ['2006-01-02T15:04:05Z', 1_136_214_245_000_000_000n],
      ['2006-01-02T15:04:05.999999999Z', 1_136_214_245_999_999_999n],
      ['2006-01-02T15:04:05+01:00', 1_136_210_645_000_000_000n],
      ['2006-01-02T15:04Z', 1_136_214_240_000_000_000n],
      ['2006-01-02T15Z', 1_136_214_000_000_000_000n],
      ['2006-01-02Z', 1_136_160_000_000_000_000n],
      ['2006-01-02-07:00', 1_136_185_200_000_000_000n],
    ] as const) {
      assert.equal(parseTime(text, now), nano, text);
    }
    assert.equal(parseTime('2006-01-02T15:04:05', now), BigInt(new Date(2006, 0, 2, 15, 4, 5).getTime()) * 1_000_000n);
    for (const text of ['', 'x', '1 s', '-5', '2006-13-01', '2006-02-30', '2006-01-02T25:00:00Z', '1e5', '5x']) {
      assert.throws(() => parseTime(text, now), { kind: 'invalid' }, text);
    }
  });

  it('reads Go durations', () => {
    assert.equal(parseDuration('1.5h'), 5_400_000_000_000n);
    assert.equal(parseDuration('.5s'), 500_000_000n);
    assert.equal(parseDuration('100µs'), 100_000n);
    for (const text of ['', '5', 's', '1', '1h ', '1d']) assert.equal(parseDuration(text), undefined, text);
  });

  it('tells the time with nanoseconds that grow', () => {
    let last = nowNano();
    assert.ok(last / 1_000_000n - BigInt(Date.now()) <= 2n);
    for (let i = 0; i < 1000; i++) {
      const now = nowNano();
      assert.ok(now > last);
      last = now;
    }
  });
});

describe('sizes', () => {
  it('reads units', () => {
    assert.equal(parseMemorySize('64m'), 64 * 1024 * 1024);
    assert.equal(parseMemorySize('1.5GiB'), 1.5 * 1024 ** 3);
    assert.equal(parseFileSize('10m'), 10_000_000);
    assert.equal(parseFileSize('512'), 512);
    assert.equal(parseFileSize('1 kB'), 1000);
    for (const text of ['', '-1', 'm', '1x', '1..5k', '99999999p'])
      assert.throws(() => parseFileSize(text), { kind: 'invalid' });
  });
});

describe('filters', () => {
  it('reads both forms', () => {
    assert.deepEqual(
      [...parseFilters('{"status":{"running":true,"dead":false},"label":["a","b=c"]}')],
      [
        ['status', ['running']],
        ['label', ['a', 'b=c']],
      ],
    );
    assert.equal(parseFilters('').size, 0);
    assert.equal(parseFilters(undefined).size, 0);
  });

  it('refuses what is no filter', () => {
    for (const text of ['{', '[]', '"x"', '{"a":"b"}', '{"a":{"b":"c"}}', '{"a":[1]}']) {
      assert.throws(() => parseFilters(text), { kind: 'invalid' }, text);
    }
    assert.throws(() => parseFilters('{"x":["1"]}', new Set(['y'])), { message: "Invalid filter 'x'" });
  });

  it('matches labels and values', () => {
    const labels = { a: '1', b: 'x=y', __proto__: 'z' };
    assert.ok(matchesLabels(parseFilters('{"label":["a","b=x=y"]}'), labels));
    assert.ok(!matchesLabels(parseFilters('{"label":["a=2"]}'), labels));
    assert.ok(!matchesLabels(parseFilters('{"label":["constructor"]}'), labels));
    assert.ok(!matchesLabels(parseFilters('{"label":["a"]}'), null));
    assert.ok(someValue(parseFilters('{"n":["1","2"]}'), 'n', (value) => value === '2'));
    assert.ok(someValue(parseFilters('{}'), 'n', () => false));
  });
});
