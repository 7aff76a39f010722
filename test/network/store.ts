import { silentLog } from '../../src/lib/log.ts';
import { createPlugins } from '../../src/plugin/plugins.ts';
import type { Plugins } from '../../src/plugin/types.ts';
import type { Collection, RecordBase, Store, Write } from '../../src/store/types.ts';

/** Records in memory: what the networks need of a store. */
export function memoryStore(): Pick<Store, 'collection' | 'commit'> {
  const kinds = new Map<string, Map<string, RecordBase>>();
  const pending = new WeakMap<object, () => void>();
  const write = (apply: () => void): Write => {
    const token = {};
    pending.set(token, apply);
    return token as Write;
  };
  return {
    collection<T extends RecordBase>({ kind }: { kind: string }): Collection<T> {
      const records = (kinds.get(kind) ?? new Map()) as Map<string, T>;
      kinds.set(kind, records);
      return {
        get: (id) => records.get(id),
        values: () => records.values(),
        get size() {
          return records.size;
        },
        put: (record) => write(() => records.set(record.id, record)),
        remove: (id) => write(() => records.delete(id)),
      };
    },
    async commit(writes) {
      for (const each of writes) pending.get(each)?.();
    },
  };
}

/** The daemon's settings for networks, as they are when nothing is set. */
export const plainConfig = {
  bip: '',
  mtu: 1500,
  fixedCidr: '',
  defaultGateway: '',
  icc: true,
  ip: '0.0.0.0',
  ipMasq: true,
  defaultAddressPools: [],
  hostForwardPolicy: 'overrule',
} as const;

/** No plugin is found anywhere. */
export const noPlugins: Plugins = createPlugins({ places: { sockets: '/dev/null', specs: [] }, log: silentLog });
