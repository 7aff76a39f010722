/** A plugin that stays away longer than it is waited for: what the engine owes it is done when it is back. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { startEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';
import { TestPlugin } from './support.ts';

const v = '/v1.26';

describe('away for long', { concurrency: true }, () => {
  test('a volume whose driver was away at the end of its container is unmounted when the driver is back', async (t) => {
    const sockets = fs.mkdtempSync(path.join(os.tmpdir(), 'sockets-'));
    t.after(() => fs.rmSync(sockets, { recursive: true }));
    const plugin = await TestPlugin.start({ program: 'volume-plugin', listen: `${sockets}/one.sock` });
    t.after(() => plugin.close());
    const engine = await startEngine(t, { flags: ['--plugin-sockets', sockets, '--plugin-specs', sockets] });
    await importBusybox(engine);
    const { Id } = await engine.call('POST', `${v}/containers/create`, {
      Image: 'busybox',
      Cmd: ['sleep', '1000'],
      HostConfig: { Binds: ['data:/x'], VolumeDriver: 'one' },
    });
    await engine.call('POST', `${v}/containers/${Id}/start`);
    await plugin.stop();
    await engine.call('DELETE', `${v}/containers/${Id}?force=1`);
    assert.equal(plugin.files('mounts').length, 1);
    // Five attempts in fifteen seconds; then it is given up for a while.
    await eventually(() => assert.match(engine.log, /unmounting a volume: /), 30_000);
    await plugin.start();
    await eventually(() => assert.deepEqual(plugin.files('mounts'), []), 30_000);
    const calls = plugin.calls('VolumeDriver.Unmount');
    assert.deepEqual([calls.length, calls[0]?.body.ID], [1, plugin.calls('VolumeDriver.Mount')[0]?.body.ID]);
  });

  test('an endpoint whose driver was away at the end of its container is deleted when the driver is back', async (t) => {
    const sockets = fs.mkdtempSync(path.join(os.tmpdir(), 'sockets-'));
    t.after(() => fs.rmSync(sockets, { recursive: true }));
    const engine = await startEngine(t, { flags: ['--plugin-sockets', sockets, '--plugin-specs', sockets] });
    const plugin = await TestPlugin.start({
      program: 'network-plugin',
      listen: `${sockets}/net.sock`,
      netns: engine.netns,
    });
    t.after(() => plugin.close());
    await importBusybox(engine);
    await engine.call('POST', `${v}/networks/create`, { Name: 'mine', Driver: 'net', IPAM: { Driver: 'net' } });
    const { Id } = await engine.call('POST', `${v}/containers/create`, {
      Image: 'busybox',
      Cmd: ['sleep', '1000'],
      HostConfig: { NetworkMode: 'mine' },
    });
    await engine.call('POST', `${v}/containers/${Id}/start`);
    const known = () => JSON.parse(fs.readFileSync(path.join(plugin.state, 'known.json'), 'utf8'));
    await plugin.stop();
    await engine.call('DELETE', `${v}/containers/${Id}?force=1`);
    assert.equal(Object.keys(known().endpoints).length, 1);
    // Five attempts for the endpoint, five for its address.
    await eventually(() => assert.equal(engine.log.match(/a network plugin: /g)?.length, 4), 50_000);
    await plugin.start();
    await eventually(() => assert.deepEqual(known().endpoints, {}), 40_000);
    await eventually(() => assert.deepEqual(known().pools['here/10.77.1.0/24'].addresses, ['10.77.1.1']), 20_000);
  });
});
