/**
 * A runtime that never answers: what it was asked for fails after a minute, and neither it nor its monitor is left behind.
 *
 * test-timeout-seconds: 300
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { run } from '../support/command.ts';
import { startEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

test('a runtime that is stuck is given up, and ended with its monitor', async (t) => {
  const script = path.join(fs.mkdtempSync('/tmp/stuck-'), 'runtime');
  t.after(() => fs.rmSync(path.dirname(script), { recursive: true, force: true }));
  const seconds = `${100_000 + process.pid}`;
  fs.writeFileSync(script, `#!/bin/sh\ncase "$*" in *" create "*) exec sleep ${seconds};; esac\nexec crun "$@"\n`, {
    mode: 0o755,
  });
  const engine = await startEngine(t, { flags: ['--add-runtime', `stuck=${script}`] });
  await importBusybox(engine);
  const create = { Image: 'busybox', Cmd: ['true'], HostConfig: { Runtime: 'stuck' } };
  const { Id } = await engine.call('POST', '/containers/create', create);
  const answer = await engine.api('POST', `/containers/${Id}/start`);
  assert.match(answer.json().message, /the monitor has not answered in time/);
  assert.equal(answer.status, 500);
  assert.equal((await run(['pgrep', '-f', `^sleep ${seconds}`])).stdout, '');
  await engine.call('DELETE', `/containers/${Id}`);
  await engine.assertNoLeaks();
});

test('an exec that its runtime never begins ends', async (t) => {
  const script = path.join(fs.mkdtempSync('/tmp/stuck-'), 'runtime');
  t.after(() => fs.rmSync(path.dirname(script), { recursive: true, force: true }));
  const seconds = `${200_000 + process.pid}`;
  fs.writeFileSync(script, `#!/bin/sh\ncase "$*" in *" exec "*) sleep ${seconds}; exit;; esac\nexec crun "$@"\n`, {
    mode: 0o755,
  });
  const engine = await startEngine(t, { flags: ['--add-runtime', `stuck=${script}`] });
  await importBusybox(engine);
  const create = { Image: 'busybox', Cmd: ['sleep', '1000'], HostConfig: { Runtime: 'stuck' } };
  const { Id } = await engine.call('POST', '/containers/create', create);
  await engine.call('POST', `/containers/${Id}/start`);
  const asked = { Cmd: ['echo', 'hi'], AttachStdout: true, AttachStderr: true };
  const ends = [true, false].map(async (Detach) => {
    const exec = await engine.call('POST', `/containers/${Id}/exec`, asked);
    const { text } = await engine.api('POST', `/exec/${exec.Id}/start`, { Detach });
    assert.match(text, /has not begun it in time/);
    assert.equal((await engine.call('GET', `/exec/${exec.Id}/json`)).ExitCode, 126);
  });
  await Promise.all(ends);
  assert.equal((await run(['pgrep', '-f', `^sleep ${seconds}`])).stdout, '');
  await engine.call('DELETE', `/containers/${Id}?force=1`);
  await engine.assertNoLeaks();
});
