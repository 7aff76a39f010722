/** Logs written by the real monitor, with a shell script in the place of the OCI runtime. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { createLogs } from '../../src/log/logs.ts';
import type { LogQuery } from '../../src/log/types.ts';
import { sourceOf } from './support.ts';

const query: LogQuery = { stdout: true, stderr: true, timestamps: false, follow: true, framed: false, tty: false };

interface Monitored {
  readonly file: string;
  readonly reopen: () => void;
  /** Settles when the monitor has ended: everything is in the file then. */
  readonly ended: Promise<unknown>;
}

/** Runs `program` (shell) under conmon. */
function monitored(t: TestContext, program: string): Monitored {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-conmon-'));
  const at = (name: string) => path.join(dir, name);
  fs.writeFileSync(at('program'), program);
  fs.writeFileSync(
    at('runtime'),
    `#!/bin/sh\nwhile [ "$1" != --pid-file ]; do shift; done\nsh ${at('program')} &\necho $! >"$2"\n`,
    { mode: 0o755 },
  );
  const options = [
    '--sync',
    '--no-sync-log',
    '--full-attach',
    '--exit-dir',
    dir,
    '-b',
    dir,
    '-p',
    at('pid'),
    '-r',
    at('runtime'),
  ];
  const names = ['-c', 'c', '-u', 'c', '-n', 'c', '-l', `k8s-file:${at('c.log')}`];
  const monitor = spawn('conmon', [...options, ...names], { stdio: 'ignore', cwd: dir });
  t.after(() => {
    monitor.kill('SIGKILL');
    fs.rmSync(dir, { recursive: true, force: true });
  });
  return {
    file: at('c.log'),
    ended: once(monitor, 'exit'),
    reopen: () => {
      const fd = fs.openSync(at('ctl'), fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);
      fs.writeSync(fd, '2 0 0\n');
      fs.closeSync(fd);
    },
  };
}

/** Reads numbered lines and complains about the first that is out of order. */
class Counter {
  lines = 0;
  #rest = '';

  take(chunk: Buffer): void {
    const parts = (this.#rest + chunk.toString('latin1')).split('\n');
    this.#rest = parts.pop() ?? '';
    for (const part of parts) assert.equal(part, `line ${++this.lines}`);
  }
}

describe('following the real monitor', () => {
  for (const [name, program, count] of [
    ['a burst', 'exec seq -f "line %.0f" 1 1000000', 1_000_000],
    [
      'a trickle that rotates all the time',
      'i=0; while [ $i -lt 200 ]; do seq -f "line %.0f" $((i*50+1)) $((i*50+50)); sleep 0.01; i=$((i+1)); done',
      10_000,
    ],
  ] as const) {
    it(`gives ten followers each line once and in order: ${name}`, async (t) => {
      const { file, ended, reopen } = monitored(t, program);
      const logs = createLogs();
      t.after(() => logs.close());
      let rotations = 0;
      const log = logs.open(
        'c',
        file,
        sourceOf({
          limits: { maxSize: 1024, maxFiles: 3 },
          reopen: () => {
            rotations++;
            reopen();
          },
        }),
      );
      const unwatch = logs.watch('c');
      const killed = new AbortController();
      const counters = await Promise.all(
        Array.from({ length: 10 }, async (_, index) => {
          const counter = new Counter();
          const signal = index === 0 ? killed.signal : new AbortController().signal;
          for await (const chunk of log.read(query, ended, signal)) {
            counter.take(chunk);
            if (index === 0 && counter.lines > count / 3) killed.abort();
          }
          return counter.lines;
        }),
      );
      unwatch();
      t.diagnostic(`${rotations} rotations`);
      assert.ok(rotations > 3, `${rotations} rotations`);
      assert.deepEqual(
        counters.slice(1),
        Array.from({ length: 9 }, () => count),
      );
      assert.ok((counters[0] ?? 0) < count);
      assert.ok(fs.readdirSync(path.dirname(file)).filter((each) => each.startsWith('c.log')).length <= 3);
    });
  }

  it('joins what the monitor cuts: a line of 900 KiB, and one without newline at the end', async (t) => {
    const { file, ended } = monitored(t, 'head -c 921600 /dev/zero | tr "\\0" x; echo; printf "no newline"');
    const logs = createLogs();
    t.after(() => logs.close());
    const log = logs.open('c', file, sourceOf({}));
    let all = '';
    for await (const chunk of log.read(query, ended, new AbortController().signal)) all += chunk;
    assert.equal(all, `${'x'.repeat(921_600)}\nno newline`);
  });
});
