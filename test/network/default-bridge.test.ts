/** What the daemon's settings make of the network `bridge`, and of subnets that nobody asked for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configuredPool, defaultBridge } from '../../src/network/default-bridge.ts';
import { startEngine } from '../support/engine.ts';
import type { Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';
import { plainConfig } from './store.ts';

test('settings of the default bridge that go together, and those that do not', () => {
  const pool = (more: object) => configuredPool({ ...plainConfig, ...more });
  assert.equal(pool({}), undefined);
  assert.equal(pool({ bip: '10.1.0.1/16' })?.range, '10.1.0.0/16');
  assert.deepEqual(pool({ bip: '10.1.0.1/16', fixedCidr: '10.1.4.0/24' }), {
    subnet: '10.1.0.0/16',
    range: '10.1.4.0/24',
    gateway: '10.1.0.1',
    reserved: {},
  });
  assert.equal(pool({ fixedCidr: '10.1.4.0/24' })?.gateway, '10.1.4.1');
  assert.throws(
    () => pool({ bip: '10.1.0.1/16', fixedCidr: '10.2.0.0/24' }),
    /fixed-cidr 10\.2\.0\.0\/24 is not within/,
  );
  const chosen = pool({ bip: '10.1.0.1/16' }) ?? assert.fail();
  const config = { ...plainConfig, defaultGateway: '10.1.0.7' };
  assert.deepEqual(defaultBridge(config, chosen, 'b0').pools[0]?.reserved, { DefaultGatewayIPv4: '10.1.0.7' });
  assert.throws(
    () => defaultBridge({ ...plainConfig, defaultGateway: '10.2.0.7' }, chosen, 'b0'),
    /default-gateway 10\.2\.0\.7 is not an address of the default bridge's subnet/,
  );
});

test('an engine with all of them', async (t) => {
  const engine = await startEngine(t, {
    config: {
      'default-address-pools': [{ base: '10.80.0.0/23', size: 24 }],
      'fixed-cidr': '10.81.0.128/25',
      'default-gateway': '10.81.0.2',
      icc: false,
      mtu: 1400,
    },
    flags: ['--bip', '10.81.0.1/24', '--ip', '127.0.0.1', '--ip-masq=false'],
  });
  await importBusybox(engine);
  const { IPAM, Options } = await engine.call('GET', '/v1.26/networks/bridge');
  assert.deepEqual(IPAM.Config, [
    {
      Subnet: '10.81.0.0/24',
      IPRange: '10.81.0.128/25',
      Gateway: '10.81.0.1',
      AuxiliaryAddresses: { DefaultGatewayIPv4: '10.81.0.2' },
    },
  ]);
  assert.equal(Options['com.docker.network.bridge.enable_icc'], 'false');
  const docker = (...args: string[]): Promise<string> => engine.mustDocker(args);
  await docker('run', '-d', '--name', 'one', '-p', '8090:80', 'busybox', 'httpd', '-f', '-h', '/etc');
  await docker('run', '-d', '--name', 'two', 'busybox', 'sleep', '1000');
  const one: Loose = (await engine.call('GET', '/v1.26/containers/one/json')).NetworkSettings;
  assert.match(one.IPAddress, /^10\.81\.0\.1(2[89]|3\d)$/);
  assert.deepEqual(one.Ports['80/tcp'], [{ HostIp: '127.0.0.1', HostPort: '8090' }]);
  assert.match(await docker('exec', 'one', 'ip', 'route'), /default via 10\.81\.0\.2 /);
  assert.match(await docker('exec', 'one', 'ip', 'link', 'show', 'eth0'), /mtu 1400/);
  assert.notEqual((await engine.docker(['exec', 'two', 'ping', '-c1', '-W1', one.IPAddress])).code, 0);
  assert.equal((await engine.docker(['exec', 'two', 'ping', '-c1', '-W1', '10.81.0.1'])).code, 0);
  const table = (await engine.inNetns(['nft', 'list', 'set', 'inet', 'slipway', 'masqueraded'])).stdout;
  assert.doesNotMatch(table, /10\.81\.0\.0/);

  for (const name of ['a', 'b']) await docker('network', 'create', name);
  assert.equal((await engine.call('GET', '/v1.26/networks/b')).IPAM.Config[0].Subnet, '10.80.1.0/24');
  const { status, text } = await engine.api('POST', '/v1.26/networks/create', { Name: 'c' });
  assert.equal(status, 404);
  assert.match(text, /could not find an available, non-overlapping IPv4 address pool .* network a, network b/);
});
