/** What a killed engine leaves behind, the next one takes away. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { eventually, run, World } from './support.ts';

test('killed at random moments of joins and leaves: nothing unclaimed stays', async (t) => {
  const world = new World(t);
  const program = path.join(import.meta.dirname, 'joiner.ts');
  for (let round = 0; round < 12; round++) {
    const child = spawn(process.execPath, [program, world.directory], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 60));
    child.kill('SIGKILL');
    await once(child, 'close');

    const networks = await world.networks();
    assert.deepEqual(fs.readdirSync(`${world.directory}/netns`), []);
    assert.ok(!fs.readFileSync('/proc/self/mounts', 'utf8').includes(`${world.directory}/netns`));
    await eventually(() => !run('ip', '-brief', 'link').includes('sw'));
    assert.doesNotMatch(
      run('nft', 'list', 'table', 'inet', 'slipway'),
      /(map published\w*|set loopback_only) \{[^}]*elements/,
    );
    const sandbox = await world.join(networks, 'next', { '80/tcp': [{ HostPort: '8080' }] });
    await networks.leave(sandbox.containerId, sandbox);
    await networks.close();
  }
});

test('without nft a join with ports fails and leaves nothing; one without ports works', async (t) => {
  const world = new World(t);
  const networks = await world.networks();
  const searchPath = process.env.PATH;
  try {
    process.env.PATH = '/nowhere';
    await assert.rejects(
      world.join(networks, 'web', { '80/tcp': [{ HostPort: '8080' }] }),
      /cannot run nft \(package nftables\)/,
    );
    await world.join(networks, 'plain');
  } finally {
    process.env.PATH = searchPath;
  }
  assert.equal(fs.readdirSync(`${world.directory}/netns`).length, 1);
  await world.join(networks, 'web', { '80/tcp': [{ HostPort: '8080' }] });
});
