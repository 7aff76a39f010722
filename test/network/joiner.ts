/** Joins and leaves as fast as it can until it is killed: `joiner.ts EXEC_ROOT`. Runs in the caller's network namespace. */
import { type ContainerId, newId } from '../../src/lib/ids.ts';
import { silentLog } from '../../src/lib/log.ts';
import { createNetworks } from '../../src/network/networks.ts';
import { memoryStore, noPlugins, plainConfig } from './store.ts';

const config = { ...plainConfig, execRoot: process.argv[2] ?? '' };
const networks = createNetworks({ config, store: memoryStore(), plugins: noPlugins, log: silentLog });
await networks.reconcile([]);
process.stdout.write('ready\n');
const ports = new Map([['80/tcp', [{ HostIp: '', HostPort: '' }]]]);
const loop = async (): Promise<never> => {
  for (let round = 0; ; round++) {
    const containerId = newId<ContainerId>();
    const endpoint = { networkName: 'bridge', aliases: [], links: [], requested: {}, joined: null };
    const request = { containerId, containerName: 'c', endpoints: { bridge: endpoint }, dns: [] };
    const place = await networks.join({ ...request, ports: round % 2 === 0 ? ports : new Map() });
    if (round % 3 !== 0) await networks.leave(containerId, place);
  }
};
await Promise.all([loop(), loop(), loop()]);
