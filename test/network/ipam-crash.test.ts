/** Killed while networks and endpoints come and go: what the next engine says, and what the kernel holds, are one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, sleep } from '../support/command.ts';
import { startEngine } from '../support/engine.ts';
import type { Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

const rounds = Number(process.env.SLIPWAY_CRASHES ?? 6);

test('killed at random moments of create, connect, disconnect, start, stop and remove', {
  timeout: 60_000 + rounds * 30_000,
}, async (t) => {
  const engine = await startEngine(t);
  await importBusybox(engine);
  const call = (method: string, path: string, body?: object): Promise<Loose> =>
    engine.call(method, `/v1.26${path}`, body);
  /** Room for five beside the gateway: an address that is lost is missed. */
  const narrow = (octet: number): object => ({
    IPAM: { Config: [{ Subnet: `10.70.${octet}.0/29` }, { Subnet: `fd00:70:${octet}::/64` }] },
    EnableIPv6: true,
  });
  const container = (name: string, network: string, ports: object = {}): Promise<Loose> =>
    call('POST', `/containers/create?name=${name}`, {
      Image: 'busybox',
      Cmd: ['sleep', '1000'],
      HostConfig: { NetworkMode: network, PortBindings: ports },
    });
  await call('POST', '/networks/create', { Name: 'kept', ...narrow(0) });

  /** One client's life; every answer but none at all is fine. */
  async function churn(lane: number, until: { over: boolean }): Promise<void> {
    const network = `net${lane}`;
    const ask = (method: string, path: string, body?: object): Promise<unknown> =>
      engine.api(method, `/v1.26${path}`, body).catch(() => null);
    for (let turn = 0; !until.over; turn++) {
      const name = `c${lane}-${turn}`;
      const Driver = lane === 2 ? 'macvlan' : 'bridge';
      await ask('POST', '/networks/create', { Name: network, Driver, ...narrow(lane + 1) });
      await container(name, lane % 2 === 0 ? network : 'kept', { '80/tcp': [{ HostPort: String(9000 + lane) }] }).catch(
        () => null,
      );
      await ask('POST', `/containers/${name}/start`);
      await ask('POST', `/networks/${lane % 2 === 0 ? 'kept' : network}/connect`, { Container: name });
      await ask('POST', `/networks/kept/disconnect`, { Container: name });
      await ask('POST', `/containers/${name}/stop?t=0`);
      await ask('DELETE', `/containers/${name}?force=1`);
      await ask('DELETE', `/networks/${network}`);
    }
  }

  async function check(): Promise<void> {
    const networks: Loose[] = await call('GET', '/networks');
    const claimed = networks.filter(({ Driver }) => Driver === 'bridge').map(bridgeOf);
    const links = (await engine.inNetns(['ip', '-br', 'link'])).stdout;
    const bridges = [...links.matchAll(/^(br-\w+|slipway0)/gm)].map(([, name]) => name as string);
    assert.deepEqual(bridges.sort(), claimed.sort(), 'bridges');
    const parents = [...links.matchAll(/^dm-\w+/gm)].length;
    assert.equal(parents, networks.filter(({ Driver }) => Driver === 'macvlan').length, 'parents of macvlans');
    const table = (await engine.inNetns(['nft', 'list', 'set', 'inet', 'slipway', 'bridges'])).stdout;
    const filtered = [...table.matchAll(/"(br-\w+|slipway0)"/g)].map(([, name]) => name as string);
    assert.deepEqual(filtered.sort(), claimed.sort(), 'bridges of the firewall');
    // Containers that were being stopped may still be found to have ended.
    await eventually(async () => {
      const now: Loose[] = await call('GET', '/networks');
      const running: Loose[] = await call('GET', '/containers/json');
      const endpoints = now.flatMap(({ Driver, Containers }) => (Driver === 'bridge' ? Object.values(Containers) : []));
      const addresses = endpoints.map((each) => (each as Loose).IPv4Address);
      if (new Set(addresses).size < addresses.length) throw new Error(`an address twice: ${addresses}`);
      const veths = [...(await engine.inNetns(['ip', '-br', 'link'])).stdout.matchAll(/^sw\w+/gm)].length;
      if (veths !== endpoints.length) throw new Error(`${veths} veths for ${endpoints.length} endpoints`);
      const published = (await engine.inNetns(['nft', 'list', 'map', 'inet', 'slipway', 'published'])).stdout;
      const ports = [...published.matchAll(/tcp \. (\d+) :/g)].length;
      const shown = running.filter(({ Ports }) => Ports.some((port: Loose) => port.IP === '0.0.0.0')).length;
      if (ports !== shown) throw new Error(`${ports} ports in the firewall for ${shown} in containers`);
    });
  }

  for (let round = 0; round < rounds; round++) {
    const until = { over: false };
    const lanes = [0, 1, 2].map((lane) => churn(lane, until));
    await sleep(150 + Math.random() * 700);
    await engine.kill9();
    until.over = true;
    await Promise.all(lanes);
    await engine.launch();
    await check();
    await engine.removeAll();
    await engine.assertNoLeaks();
    // Every address is there again.
    const names = Array.from({ length: 5 }, (_, index) => `full-${index}`);
    for (const name of names) await container(name, 'kept');
    await Promise.all(names.map((name) => call('POST', `/containers/${name}/start`)));
    await engine.removeAll();
  }
  await call('POST', '/networks/prune');
  assert.doesNotMatch((await engine.inNetns(['ip', '-br', 'link'])).stdout, /^(br|dm)-/m);
  await engine.assertNoLeaks();
});

const bridgeOf = ({ Id, Name }: Loose): string => (Name === 'bridge' ? 'slipway0' : `br-${Id.slice(0, 12)}`);
