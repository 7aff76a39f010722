/** What the daemon's death leaves to its successor. Needs what live.test.ts needs. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, it } from 'node:test';
import { type ContainerId, newId } from '../../src/lib/ids.ts';
import { silentLog } from '../../src/lib/log.ts';
import { createRuntime } from '../../src/runtime/runtime.ts';
import type { ExitNotice, Launched } from '../../src/runtime/types.ts';
import { makeRootfs, removeCgroupParent } from './support.ts';

after(removeCgroupParent);

it('a killed daemon leaves containers that its successor adopts', { timeout: 60_000 }, async () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-survival-'));
  makeRootfs(`${directory}/rootfs`);
  const [running, ending, waiting] = [newId<ContainerId>(), newId<ContainerId>(), newId<ContainerId>()];
  const script = (text: string): string[] => ['sh', '-c', text];
  const launcher = spawn(
    process.execPath,
    [
      new URL('./fixtures/launcher.ts', import.meta.url).pathname,
      directory,
      JSON.stringify({ id: running, cmd: script('while read l; do echo got $l; done'), config: { OpenStdin: true } }),
      JSON.stringify({ id: ending, cmd: script('sleep 0.6; echo late; exit 5'), config: {} }),
      JSON.stringify({ id: waiting, cmd: script('sleep 1000'), config: { Tty: true } }),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const launched: Launched[] = [];
  for await (const line of createInterface({ input: launcher.stdout })) {
    if (line === 'ready') break;
    launched.push(JSON.parse(line) as Launched);
  }
  launcher.kill('SIGKILL');
  await once(launcher, 'exit');
  const logged = (id: string): string => fs.readFileSync(`${directory}/${id}.log`, 'utf8');
  const [first, , third] = launched;
  assert.ok(first && third);

  // It ends while nobody is there to hear.
  while (!fs.existsSync(`${directory}/run/exits/${ending}`)) await new Promise((resolve) => setTimeout(resolve, 20));

  const runtime = createRuntime({ execRoot: `${directory}/run`, runtimes: {}, defaultRuntime: '', log: silentLog });
  try {
    await runtime.prepare();
    const notices: ExitNotice[] = [];
    runtime.onExit((notice) => notices.push(notice));
    assert.deepEqual(
      notices.map(({ id, exitCode }) => [id, exitCode]),
      [[ending, 5]],
    );
    assert.match(logged(ending), /stdout F late\n$/);
    assert.deepEqual([...runtime.listRunDirectories()].sort(), [running, ending, waiting].sort());
    assert.equal(runtime.isAlive(first), true);

    const stdin = await runtime.openStdin(running);
    await stdin.write(Buffer.from('hello\n'));
    const process = await runtime.exec({
      id: running,
      cmd: ['sh', '-c', 'echo $PATH'],
      env: ['PATH=/bin'],
      user: '',
      workingDir: '',
      tty: false,
      privileged: false,
      stdin: false,
      detached: false,
    });
    let output = '';
    for await (const { data } of process.output) output += Buffer.from(data).toString();
    assert.equal(output, '/bin\n');
    while (!logged(running).includes('got hello')) await new Promise((resolve) => setTimeout(resolve, 10));

    assert.ok((await runtime.processes(waiting)).includes(third.pid));
    assert.equal(runtime.kill(third, os.constants.signals.SIGKILL), true);
    while (notices.length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.deepEqual([notices[1]?.id, notices[1]?.exitCode], [waiting, 137]);
    assert.equal(runtime.readExit(running), null);
  } finally {
    for (const id of runtime.listRunDirectories()) await runtime.delete(id);
    runtime[Symbol.dispose]();
    fs.rmSync(directory, { recursive: true, force: true });
  }
  assert.equal(runtime.isAlive(first), false);
});
