/** `GET /containers/json` and prune: filters and rows. */
import { EngineError, invalid } from '../lib/errors.ts';
import { compilePattern, type Filters, matchesLabels } from '../lib/filters.ts';
import type { ImageId } from '../lib/ids.ts';
import { parseTime } from '../lib/time.ts';
import type { Json, ListQuery } from './api.ts';
import { linkNames } from './links.ts';
import type { ContainerSet } from './set.ts';
import type { ContainerRecord } from './types.ts';
import { type Sizes, statusWord, summary } from './view.ts';

type Test = (record: ContainerRecord) => boolean;

const statusWords = ['created', 'restarting', 'running', 'removing', 'paused', 'exited', 'dead'];
const healthWords = ['none', 'starting', 'healthy', 'unhealthy'];

/** Rows newest first, as asked for. */
export async function listContainers(set: ContainerSet, query: ListQuery): Promise<readonly Json[]> {
  const test = compileFilters(set, query.filters);
  const everyState = query.all || query.limit > 0 || (query.filters.get('status')?.length ?? 0) > 0;
  let chosen = [...set.records.values()].filter(
    (record) => (everyState || record.state.is === 'running' || record.state.is === 'restarting') && test(record),
  );
  chosen.sort((a, b) => (a.created < b.created ? 1 : -1));
  if (query.limit > 0) chosen = chosen.slice(0, query.limit);
  const now = Date.now();
  const names = imageNames(set, chosen);
  const links = linkNames(set);
  return Promise.all(
    chosen.map(async (record) =>
      summary(
        record,
        { image: names(record), links: links.get(record.id) ?? [] },
        now,
        query.size ? await sizesOf(set, record) : null,
      ),
    ),
  );
}

/** The name given at create while it still points to the image, else the image's id. */
function imageNames(set: ContainerSet, records: readonly ContainerRecord[]): (record: ContainerRecord) => string {
  const current = new Map<string, ImageId | null>();
  for (const { config } of records) {
    if (current.has(config.Image)) continue;
    current.set(config.Image, resolveQuietly(set, config.Image));
  }
  return (record) => (current.get(record.config.Image) === record.imageId ? record.config.Image : record.imageId);
}

function resolveQuietly(set: ContainerSet, reference: string): ImageId | null {
  try {
    return set.parts.images.resolve(reference).id;
  } catch (error) {
    if (error instanceof EngineError) return null;
    throw error;
  }
}

export async function sizesOf(set: ContainerSet, record: ContainerRecord): Promise<Sizes> {
  const rw = await set.parts.layers.writableSize(record.id).catch((error: unknown) => {
    // Removed while it was measured: no reason to fail a list of others.
    if (set.records.get(record.id) === undefined) return 0;
    throw error;
  });
  return { rw, root: rw + (set.parts.images.get(record.imageId)?.size ?? 0) };
}

/** One test for all filters; several values of a filter are alternatives, labels must all match. Throws `Invalid filter 'x'`. */
function compileFilters(set: ContainerSet, filters: Filters): Test {
  const tests: Test[] = [];
  for (const [name, values] of filters) {
    const build = Object.hasOwn(filterTests, name) ? filterTests[name] : undefined;
    if (build === undefined) throw invalid(`Invalid filter '${name}'`);
    if (values.length === 0) continue;
    tests.push(build(values, set));
  }
  return (record) => tests.every((test) => test(record));
}

const filterTests: Readonly<Record<string, (values: readonly string[], set: ContainerSet) => Test>> = {
  id: (values) => (record) => values.some((value) => value !== '' && record.id.startsWith(value)),
  name: (values) => {
    const patterns = values.map((value) => compilePattern(value));
    return (record) => patterns.some((pattern) => pattern.test(record.name) || pattern.test(`/${record.name}`));
  },
  label: (values) => (record) => matchesLabels(new Map([['label', values]]), record.config.Labels),
  status: (values) => {
    for (const value of values) if (!statusWords.includes(value)) throw invalid(`Invalid filter 'status=${value}'`);
    return (record) => values.includes(statusWord(record.state));
  },
  exited: (values) => {
    const codes = values.map((value) => integerFilter('exited', value));
    return (record) => record.state.is === 'exited' && codes.includes(record.state.exitCode);
  },
  ancestor: (values, set) => {
    const images = new Set<ImageId>();
    for (const value of values) {
      const id = resolveQuietly(set, value);
      if (id !== null) images.add(id);
    }
    return (record) => descendsFrom(set, record.imageId, images);
  },
  before: (values, set) => relative(values, set, (record, limit) => record.created < limit.created),
  since: (values, set) => relative(values, set, (record, limit) => record.created > limit.created),
  volume: (values) => (record) =>
    values.some((value) =>
      record.mounts.some((m) => m.name === value || m.destination === value || m.source === value),
    ),
  network: (values) => (record) =>
    values.some((value) =>
      Object.values(record.endpoints).some(
        (e) =>
          e.networkName === value ||
          e.joined?.networkId === value ||
          (value !== '' && e.joined?.networkId.startsWith(value)),
      ),
    ),
  publish: (values) => {
    const ranges = values.map((value) => portRange('publish', value));
    return ({ sandbox }) => inRanges(sandbox?.published.map((p) => `${p.hostPort}/${p.protocol}`) ?? [], ranges);
  },
  expose: (values) => {
    const ranges = values.map((value) => portRange('expose', value));
    return ({ config }) => inRanges(Object.keys(config.ExposedPorts ?? {}), ranges);
  },
  health: (values) => {
    for (const value of values)
      if (!healthWords.includes(value)) throw invalid(`Unrecognised filter value for health: ${value}`);
    return ({ health }) => values.includes(health?.status ?? 'none');
  },
  // There are no tasks without a swarm.
  'is-task': (values) => {
    if (values.length > 1 || !/^(true|false|0|1)$/.test(values[0] ?? ''))
      throw invalid(`Invalid filter 'is-task=[${values.join(' ')}]'`);
    return () => values[0] === 'false' || values[0] === '0';
  },
  isolation: () => () => true,
};

/** Numbers in filters, such as `exited=1`. */
function integerFilter(name: string, value: string): number {
  if (!/^-?\d+$/.test(value)) throw invalid(`Invalid filter '${name}=${value}'`);
  return Number(value);
}

function relative(
  values: readonly string[],
  set: ContainerSet,
  test: (record: ContainerRecord, limit: ContainerRecord) => boolean,
): Test {
  const limits = values.map((value) => set.index.resolve(value));
  return (record) => limits.every((limit) => test(record, limit));
}

function descendsFrom(set: ContainerSet, image: ImageId, ancestors: ReadonlySet<ImageId>): boolean {
  for (let at: ImageId | null = image, depth = 0; at !== null && depth < 1000; depth++) {
    if (ancestors.has(at)) return true;
    at = set.parts.images.get(at)?.parent ?? null;
  }
  return false;
}

interface PortRange {
  readonly from: number;
  readonly to: number;
  readonly protocol: string;
}

/** `80`, `80/tcp` or `8000-8010/tcp`. */
function portRange(filter: string, value: string): PortRange {
  const [, first = '', last = first, protocol = 'tcp'] = /^(\d+)(?:-(\d+))?(?:\/(\w+))?$/.exec(value) ?? [];
  const [from, to] = [Number(first), Number(last)];
  if (first === '' || from > to || to > 65_535)
    throw invalid(`Invalid filter '${filter}=${value}': not a port or a range`);
  return { from, to, protocol: protocol.toLowerCase() };
}

function inRanges(ports: readonly string[], ranges: readonly PortRange[]): boolean {
  return ports.some((spec) => {
    const [port, protocol = 'tcp'] = spec.split('/');
    return ranges.some(
      (range) => range.protocol === protocol && Number(port) >= range.from && Number(port) <= range.to,
    );
  });
}

const pruneFilters = ['label', 'label!', 'until'];

/** Containers that prune may remove: none that runs or is about to, and only those the filters let through. */
export function prunable(set: ContainerSet, filters: Filters): readonly ContainerRecord[] {
  for (const name of filters.keys()) if (!pruneFilters.includes(name)) throw invalid(`Invalid filter '${name}'`);
  const until = filters.get('until') ?? [];
  if (until.length > 1) throw invalid('more than one until filter specified');
  // No time is not "any time": a prune that asked for one removes nothing without.
  if (filters.has('until') && until.length === 0) throw invalid("Invalid filter 'until': no time is given");
  const before = until[0] === undefined ? null : parseTime(until[0]);
  return [...set.records.values()].filter((record) => {
    if (record.state.is !== 'created' && record.state.is !== 'exited') return false;
    if (!matchesLabels(filters, record.config.Labels)) return false;
    if (
      (filters.get('label!') ?? []).some((unwanted) =>
        matchesLabels(new Map([['label', [unwanted]]]), record.config.Labels),
      )
    )
      return false;
    return before === null || BigInt(Date.parse(record.created)) * 1_000_000n < before;
  });
}
