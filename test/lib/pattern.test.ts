import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pattern } from '../../src/lib/pattern.ts';

test('a pattern of a client matches as any other', () => {
  for (const [source, flags, yes, no] of [
    ['^web[0-9]+$', '', 'web12', 'web'],
    ['(a+)+$', '', 'baa', 'b'],
    ['^com\\.(x|y)[0-9]{1,3}$', 'i', 'COM.y12', 'com.z1'],
    ['plain', '', 'a plain one', 'another'],
  ] as const) {
    const pattern = new Pattern(source, flags);
    for (let round = 0; round < 2; round++) {
      assert.equal(pattern.test(yes), true, source);
      assert.equal(pattern.test(no), false, source);
    }
  }
  assert.throws(() => new Pattern('('), SyntaxError);
});

test('one that would take for ever matches nothing, soon', () => {
  const text = `${'a'.repeat(60)}!`;
  for (const [source, flags] of [
    ['(a+)+$', ''],
    ['(a+)+$', 'i'],
    ['(?=(a+)+$)', ''],
    ['(a|a)*\\1$', ''],
  ] as const) {
    const pattern = new Pattern(source, flags);
    for (let many = 0; many < 1000; many++) assert.equal(pattern.test(text), false, source);
  }
});
