/** docker login, push and pull against a registry that knows its users. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clis, startEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';
import { Netns } from '../support/netns.ts';
import { startRegistry } from '../support/registry.ts';

test('docker login, push, pull and logout with a registry that asks for a password', {
  timeout: 120_000,
}, async (t) => {
  const registry = await startRegistry({ htpasswd: { username: 'anna', password: 'open sesame' } });
  t.after(() => registry.stop());
  const engine = await startEngine(t, { netns: Netns.own() });
  for (const cli of clis) {
    const docker = (...args: string[]) => engine.docker(args, { cli });
    const name = `${registry.host}/team/${cli.name}:1`;
    await importBusybox(engine, name);

    const anonymous = await docker('push', name);
    assert.notEqual(anonymous.code, 0);
    assert.match(
      anonymous.stderr + anonymous.stdout,
      /no basic auth credentials|unauthorized|authentication required|denied/,
    );

    const wrong = await engine.docker(['login', '-u', 'anna', '--password-stdin', registry.host], {
      cli,
      input: 'sesame street',
    });
    assert.notEqual(wrong.code, 0);
    assert.match(wrong.stderr, /unauthorized/i);
    const right = await engine.docker(['login', '-u', 'anna', '--password-stdin', registry.host], {
      cli,
      input: 'open sesame',
    });
    assert.equal(right.code, 0, right.stderr);
    assert.match(right.stdout, /Login Succeeded/);

    const pushed = await docker('push', name);
    assert.equal(pushed.code, 0, pushed.stderr);
    const digest = /digest: (sha256:[0-9a-f]{64})/.exec(pushed.stdout)?.[1];
    await engine.mustDocker(['rmi', name], { cli });
    const pulled = await docker('pull', name);
    assert.equal(pulled.code, 0, pulled.stderr);
    assert.ok(digest && pulled.stdout.includes(`Digest: ${digest}`), pulled.stdout);
    assert.equal(await engine.mustDocker(['run', '--rm', name, 'echo', 'pulled'], { cli }), 'pulled\n');

    await engine.mustDocker(['logout', registry.host], { cli });
    await engine.mustDocker(['rmi', name], { cli });
    assert.notEqual((await docker('pull', name)).code, 0);
  }
  assert.ok(!engine.log.includes('sesame'), 'no password in the log');
});
