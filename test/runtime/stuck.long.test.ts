/** A runtime that never answers: its start fails after a minute, and neither it nor its monitor is left behind. */
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
