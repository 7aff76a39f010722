import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { silentLog } from '../../src/lib/log.ts';
import { createLogs } from '../../src/log/logs.ts';
import type { ContainerLog, LogLimits, LogQuery } from '../../src/log/types.ts';
import { sourceOf } from './support.ts';

const everything: LogQuery = {
  stdout: true,
  stderr: true,
  timestamps: false,
  follow: false,
  framed: false,
  tty: false,
};
const never = new Promise<never>(() => undefined);
const over = Promise.resolve();
const unsignalled = new AbortController().signal;
const unlimited = { maxSize: 0, maxFiles: 1 };

function scratch(t: TestContext): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-log-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  return path.join(dir, 'c.log');
}

function opened(t: TestContext, file: string, limits: LogLimits = unlimited, reopen = (): void => undefined) {
  const logs = createLogs({ log: silentLog });
  t.after(() => logs.close());
  return { log: logs.open('c', file, sourceOf({ limits, reopen })), watch: () => logs.watch('c') };
}

async function text(log: ContainerLog, query: Partial<LogQuery> = {}, ended: Promise<unknown> = over): Promise<string> {
  let all = '';
  for await (const chunk of log.read({ ...everything, ...query }, ended, unsignalled)) {
    assert.ok(chunk.length > 0 && chunk.length <= 64 * 1024);
    all += chunk.toString('latin1');
  }
  return all;
}

const stamp = (second: number, zone = '+00:00') =>
  `2026-11-20T23:${String(Math.floor(second / 60)).padStart(2, '0')}:${String(second % 60).padStart(2, '0')}.123456789${zone}`;
const line = (second: number, stream: 'stdout' | 'stderr', flag: 'F' | 'P', words: string, zone?: string) =>
  `${stamp(second, zone)} ${stream} ${flag} ${words}\n`;
const nano = (iso: string) => BigInt(Date.parse(iso)) * 1_000_000n;
const frame = (stream: number, words: string) =>
  `${String.fromCharCode(stream)}\0\0\0\0\0${String.fromCharCode(words.length >> 8, words.length & 255)}${words}`;

describe('what a log says', () => {
  const sample =
    line(1, 'stdout', 'F', 'one') +
    line(2, 'stderr', 'F', 'two') +
    line(3, 'stdout', 'P', 'thr') +
    line(4, 'stdout', 'F', 'ee') +
    line(5, 'stdout', 'F', '') +
    line(6, 'stdout', 'P', 'prompt$ ');

  for (const [name, query, expected] of [
    ['raw', {}, 'one\ntwo\nthree\n\nprompt$ '],
    ['stdout', { stderr: false }, 'one\nthree\n\nprompt$ '],
    ['stderr', { stdout: false }, 'two\n'],
    [
      'a frame per line',
      { framed: true },
      frame(1, 'one\n') + frame(2, 'two\n') + frame(1, 'three\n') + frame(1, '\n') + frame(1, 'prompt$ '),
    ],
    [
      'stamps in UTC, before lines and not before pieces',
      { timestamps: true },
      '2026-11-20T23:00:01.123456789Z one\n2026-11-20T23:00:02.123456789Z two\n2026-11-20T23:00:03.123456789Z three\n' +
        '2026-11-20T23:00:05.123456789Z \n2026-11-20T23:00:06.123456789Z prompt$ ',
    ],
    [
      'stamps in frames',
      { timestamps: true, framed: true, tail: 1 },
      frame(1, '2026-11-20T23:00:06.123456789Z prompt$ '),
    ],
    ['tail 0', { tail: 0 }, ''],
    ['tail 1', { tail: 1 }, 'prompt$ '],
    ['tail 3 counts a line of pieces as one', { tail: 3 }, 'three\n\nprompt$ '],
    ['tail 4', { tail: 4 }, 'two\nthree\n\nprompt$ '],
    ['tail counts both streams', { tail: 4, stdout: false }, 'two\n'],
    ['a tail longer than the log', { tail: 50 }, 'one\ntwo\nthree\n\nprompt$ '],
    ['a negative tail is no tail', { tail: -1 }, 'one\ntwo\nthree\n\nprompt$ '],
    ['since is inclusive', { since: nano('2026-11-20T23:00:04Z') + 123_456_789n }, 'ee\n\nprompt$ '],
    ['since, a nanosecond later', { since: nano('2026-11-20T23:00:04Z') + 123_456_790n }, '\nprompt$ '],
    ['until is inclusive', { until: nano('2026-11-20T23:00:02Z') + 123_456_789n }, 'one\ntwo\n'],
    ['until, a nanosecond before', { until: nano('2026-11-20T23:00:02Z') + 123_456_788n }, 'one\n'],
    ['since after tail', { tail: 3, since: nano('2026-11-20T23:00:05Z') }, '\nprompt$ '],
  ] as const) {
    it(name, async (t) => {
      const file = scratch(t);
      fs.writeFileSync(file, sample);
      assert.equal(await text(opened(t, file).log, query), expected);
    });
  }

  it('turns local stamps into UTC and compares them as points in time', async (t) => {
    const file = scratch(t);
    fs.writeFileSync(
      file,
      line(1, 'stdout', 'F', 'summer', '+02:00') +
        line(2, 'stdout', 'F', 'winter', '+01:00') +
        line(3, 'stdout', 'F', 'west', '-05:30'),
    );
    const { log } = opened(t, file);
    assert.equal(
      await text(log, { timestamps: true }),
      '2026-11-20T21:00:01.123456789Z summer\n2026-11-20T22:00:02.123456789Z winter\n2026-11-21T04:30:03.123456789Z west\n',
    );
    assert.equal(await text(log, { since: nano('2026-11-20T22:00:00Z') }), 'winter\nwest\n');
    assert.equal(await text(log, { until: nano('2026-11-20T23:00:00Z') }), 'summer\nwinter\n');
  });

  it('passes over torn lines and an unfinished one at the end', async (t) => {
    const file = scratch(t);
    const good = line(1, 'stdout', 'F', 'good');
    fs.writeFileSync(
      file,
      `${good.slice(0, 20)}\n${good}\n\0\0\0\0garbage\n${good}${'x'.repeat(200_000)}\n${good}${good.slice(0, 48)}`,
    );
    const { log } = opened(t, file);
    assert.equal(await text(log), 'good\ngood\ngood\n');
    assert.equal(await text(log, { tail: 1 }), 'good\n');
  });

  it('is silent when there is no file', async (t) => {
    const { log } = opened(t, scratch(t));
    assert.equal(await text(log, { tail: 10 }), '');
    assert.deepEqual(await log.position(), { generation: 0, offset: 0 });
  });

  it('gives a line of 900 KiB back as one', async (t) => {
    const file = scratch(t);
    const words = Array.from({ length: 115 }, (_, index) => String(index % 10).repeat(8192));
    fs.writeFileSync(file, words.map((word, index) => line(1, 'stdout', index === 114 ? 'F' : 'P', word)).join(''));
    assert.equal(await text(opened(t, file).log, { tail: 1 }), `${words.join('')}\n`);
  });
});

interface Printed {
  readonly stream: 'stdout' | 'stderr';
  readonly flag: 'F' | 'P';
  readonly words: string;
}
const printed: fc.Arbitrary<Printed> = fc.record({
  stream: fc.constantFrom('stdout', 'stderr'),
  flag: fc.constantFrom('F', 'F', 'P'),
  words: fc.oneof(
    fc.string({ maxLength: 60, unit: fc.constantFrom('a', ' ', 'F', '\r', '\0', '\x01') }),
    fc.nat(8192).map((length) => '~'.repeat(length)),
  ),
});

/** The plain way to say what a tail of a log is. */
function expectedTail(lines: readonly Printed[], tail: number): string {
  let start = lines.length;
  let missing = tail;
  for (let index = lines.length - 1; index >= 0; index--) {
    if (lines[index]?.flag === 'F' || index === lines.length - 1) {
      if (missing === 0) break;
      missing--;
    }
    start = index;
  }
  return lines
    .slice(start)
    .map(({ flag, words }) => words + (flag === 'F' ? '\n' : ''))
    .join('');
}

describe('any log', () => {
  it('comes back whole, from any tail, over any number of files', async (t) => {
    const file = scratch(t);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(printed, { maxLength: 60 }), { minLength: 1, maxLength: 4 }),
        fc.nat(80),
        async (files, tail) => {
          for (const [index, lines] of files.toReversed().entries()) {
            fs.writeFileSync(
              index === 0 ? file : `${file}.${index}`,
              lines.map(({ stream, flag, words }) => line(1, stream, flag, words)).join(''),
            );
          }
          const logs = createLogs({ log: silentLog });
          const log = logs.open('c', file, sourceOf({ limits: unlimited }));
          try {
            const all = files.flat();
            assert.equal(await text(log), expectedTail(all, Number.POSITIVE_INFINITY));
            assert.equal(await text(log, { tail }), expectedTail(all, tail));
            const framed = Buffer.from(await text(log, { framed: true }), 'latin1');
            const streams = ['', '', ''];
            for (let at = 0; at < framed.length; ) {
              const length = framed.readUInt32BE(at + 4);
              const stream = framed[at] as number;
              streams[stream] += framed.toString('latin1', at + 8, at + 8 + length);
              at += 8 + length;
            }
            for (const [number, stream] of [[1, 'stdout'] as const, [2, 'stderr'] as const]) {
              assert.equal(
                streams[number],
                expectedTail(
                  all.filter((each) => each.stream === stream),
                  1e9,
                ),
              );
            }
          } finally {
            await log.remove();
            logs.close();
          }
        },
      ),
      { numRuns: 60 },
    );
  });
});

/** Collects what a follower gets. */
function follower(log: ContainerLog, query: Partial<LogQuery>, ended: Promise<unknown>, signal = unsignalled) {
  const seen: { text: string; at: number }[] = [];
  const done = (async () => {
    for await (const chunk of log.read({ ...everything, ...query, follow: true }, ended, signal)) {
      seen.push({ text: chunk.toString('latin1'), at: performance.now() });
    }
  })();
  return { seen, done, text: () => seen.map((each) => each.text).join('') };
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 5000;
  while (!condition()) {
    assert.ok(performance.now() < deadline, `in time: ${what}`);
    await sleep(2);
  }
}

describe('following', () => {
  it('begins before the file exists, shows a prompt at once, and ends when all has been given', async (t) => {
    const file = scratch(t);
    const { log } = opened(t, file);
    const end = Promise.withResolvers<void>();
    const reader = follower(log, {}, end.promise);
    await sleep(30);
    fs.appendFileSync(file, line(1, 'stdout', 'F', 'hello'));
    await until(() => reader.text() === 'hello\n', 'the first line');
    fs.appendFileSync(file, line(2, 'stdout', 'P', '$ '));
    await until(() => reader.text() === 'hello\n$ ', 'the prompt');
    fs.appendFileSync(file, line(2, 'stdout', 'F', 'last'));
    end.resolve();
    await reader.done;
    assert.equal(reader.text(), 'hello\n$ last\n');
  });

  it('is quick, from quiet as from busy', async (t) => {
    const file = scratch(t);
    fs.writeFileSync(file, '');
    const { log } = opened(t, file);
    const end = Promise.withResolvers<void>();
    const reader = follower(log, { tail: 0 }, end.promise);
    await sleep(50);
    const delays: number[] = [];
    for (let round = 0; round < 60; round++) {
      const before = reader.seen.length;
      const written = performance.now();
      fs.appendFileSync(file, line(1, 'stdout', 'F', 'x'));
      await until(() => reader.seen.length > before, 'a line');
      delays.push((reader.seen.at(-1)?.at ?? 0) - written);
      await sleep(round % 2 === 0 ? 3 : 40);
    }
    end.resolve();
    await reader.done;
    delays.sort((a, b) => a - b);
    t.diagnostic(`median ${delays[30]?.toFixed(2)} ms, worst ${delays.at(-1)?.toFixed(2)} ms`);
    assert.ok((delays[30] ?? 0) < 5);
  });

  it('goes on from a position, also after a rotation', async (t) => {
    const file = scratch(t);
    fs.writeFileSync(file, line(1, 'stdout', 'F', 'before'));
    const { log, watch } = opened(t, file, { maxSize: 100, maxFiles: 3 }, () => {
      fs.writeFileSync(file, line(3, 'stdout', 'F', 'third'));
    });
    const position = await log.position();
    fs.appendFileSync(file, line(2, 'stdout', 'F', 'second'));
    t.after(watch());
    assert.ok(fs.existsSync(`${file}.1`));
    let all = '';
    for await (const chunk of log.readFrom(position, { ...everything, framed: true }, over, unsignalled)) all += chunk;
    assert.equal(all, frame(1, 'second\n') + frame(1, 'third\n'));
  });

  it('goes on after somebody has emptied the file', async (t) => {
    const file = scratch(t);
    fs.writeFileSync(file, line(1, 'stdout', 'F', 'a').repeat(10));
    const { log } = opened(t, file);
    const end = Promise.withResolvers<void>();
    const reader = follower(log, {}, end.promise);
    await until(() => reader.text() === 'a\n'.repeat(10), 'the first lines');
    fs.truncateSync(file);
    await sleep(20);
    fs.appendFileSync(file, line(2, 'stdout', 'F', 'b'));
    await until(() => reader.text().endsWith('b\n'), 'the line after');
    end.resolve();
    await reader.done;
  });

  it('ends on abort and at until', async (t) => {
    const file = scratch(t);
    fs.writeFileSync(file, line(1, 'stdout', 'F', 'a'));
    const { log } = opened(t, file);
    const abort = new AbortController();
    const aborted = follower(log, {}, never, abort.signal);
    const bounded = follower(log, { until: BigInt(Date.now() + 200) * 1_000_000n, tail: 0 }, never);
    await until(() => aborted.text() === 'a\n', 'the line');
    abort.abort();
    await aborted.done;
    await bounded.done;
  });

  it('gives everything back when readers leave', async (t) => {
    const file = scratch(t);
    fs.writeFileSync(file, line(1, 'stdout', 'F', 'a').repeat(5000));
    const { log } = opened(t, file);
    const open = () => fs.readdirSync('/proc/self/fd').length;
    const before = open();
    for (let round = 0; round < 200; round++) {
      const abort = new AbortController();
      for await (const _ of log.read({ ...everything, follow: round % 2 === 0 }, never, abort.signal)) break;
    }
    await until(() => open() <= before, 'descriptors are closed');
  });
});

describe('rotation', () => {
  it('keeps as many files as asked for, and logs reads them as one', async (t) => {
    const file = scratch(t);
    let fd = fs.openSync(file, 'a');
    const { log, watch } = opened(t, file, { maxSize: 2000, maxFiles: 3 }, () => {
      fs.closeSync(fd);
      fd = fs.openSync(file, 'a');
    });
    t.after(watch());
    t.after(() => fs.closeSync(fd));
    for (let index = 0; index < 400; index++) {
      fs.writeSync(fd, line(1, 'stdout', 'F', `line ${index}`));
      if (index % 20 === 19) await sleep(25);
    }
    await sleep(30);
    const names = fs.readdirSync(path.dirname(file)).sort();
    assert.deepEqual(names, ['c.log', 'c.log.1', 'c.log.2']);
    const lines = (await text(log)).trimEnd().split('\n');
    assert.ok(lines.length > 30 && lines.length < 300);
    assert.deepEqual(
      lines,
      Array.from({ length: lines.length }, (_, index) => `line ${400 - lines.length + index}`),
    );
    assert.equal(await text(log, { tail: 2 }), 'line 398\nline 399\n');
    await log.remove();
    assert.deepEqual(fs.readdirSync(path.dirname(file)), []);
  });

  it('keeps deleted files for a reader that has not come to them', async (t) => {
    const file = scratch(t);
    let fd = fs.openSync(file, 'a');
    const { log, watch } = opened(t, file, { maxSize: 2000, maxFiles: 2 }, () => {
      fs.closeSync(fd);
      fd = fs.openSync(file, 'a');
    });
    t.after(watch());
    t.after(() => fs.closeSync(fd));
    const end = Promise.withResolvers<void>();
    const slow = log.read({ ...everything, follow: true }, end.promise, unsignalled)[Symbol.asyncIterator]();
    fs.writeSync(fd, line(1, 'stdout', 'F', 'line 0'));
    let all = String((await slow.next()).value);
    for (let index = 1; index < 400; index++) {
      fs.writeSync(fd, line(1, 'stdout', 'F', `line ${index}`));
      if (index % 20 === 19) await sleep(25);
    }
    assert.ok((await text(log)).length < 2000, 'rotated away for others');
    end.resolve();
    for (let next = await slow.next(); !next.done; next = await slow.next()) all += String(next.value);
    assert.equal(all, Array.from({ length: 400 }, (_, index) => `line ${index}\n`).join(''));
    await sleep(20);
    const deleted = fs.readdirSync('/proc/self/fd').filter((each) => {
      try {
        return fs.readlinkSync(`/proc/self/fd/${each}`).endsWith('(deleted)');
      } catch {
        return false;
      }
    });
    assert.deepEqual(deleted, [], 'nothing stays open');
  });

  it('tells the monitor again after a crash between renaming and telling', (t) => {
    const file = scratch(t);
    fs.writeFileSync(`${file}.1`, line(1, 'stdout', 'F', 'a'));
    let told = 0;
    const { watch } = opened(t, file, { maxSize: 1000, maxFiles: 2 }, () => told++);
    t.after(watch());
    assert.equal(told, 1);
  });
});
