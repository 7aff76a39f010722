/** Volumes as clients see them, and the filters of list and prune. */
import { invalid } from '../lib/errors.ts';
import { type Filters, matchesLabels, someValue } from '../lib/filters.ts';
import { Pattern } from '../lib/pattern.ts';
import type { VolumeJson, VolumeRecord } from './types.ts';

/** Names of volumes in use, with the containers that use them. */
export type Users = ReadonlyMap<string, readonly string[]>;

export const hasOptions = ({ options }: VolumeRecord): boolean => Object.keys(options ?? {}).length > 0;

/** What the driver of a volume knows beyond the record. */
export interface Known {
  readonly mountpoint: string;
  readonly scope?: 'local' | 'global';
  readonly created?: string | undefined;
  readonly status?: Readonly<Record<string, unknown>> | undefined;
}

export function view(record: VolumeRecord, { mountpoint, scope, created, status }: Known): VolumeJson {
  return {
    CreatedAt: (created ?? record.created).replace(/\.\d+(?=Z$)/, ''),
    Driver: record.driver,
    Labels: record.labels,
    Mountpoint: mountpoint,
    Name: record.id,
    Options: hasOptions(record) ? record.options : null,
    Scope: scope ?? 'local',
    ...(status === undefined ? {} : { Status: status }),
  };
}

const listFilters = ['dangling', 'driver', 'label', 'name'];

export function listed(records: Iterable<VolumeRecord>, users: Users, filters: Filters): readonly VolumeRecord[] {
  checkFilterNames(filters, listFilters);
  const dangling = danglingIn(filters);
  const patterns = (filters.get('name') ?? []).map(compile);
  return [...records]
    .filter(
      (record) =>
        (dangling === null || dangling !== users.has(record.id)) &&
        someValue(filters, 'driver', (driver) => driver === record.driver) &&
        (patterns.length === 0 || patterns.some((pattern) => pattern.test(record.id))) &&
        matchesLabels(filters, record.labels),
    )
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}

/** Volumes that prune may remove: unused ones of the local driver's own files. What is mounted by options is somebody's on purpose. */
export function prunable(records: Iterable<VolumeRecord>, users: Users, filters: Filters): readonly VolumeRecord[] {
  checkFilterNames(filters, ['label', 'label!']);
  const unwanted = filters.get('label!') ?? [];
  return [...records].filter(
    (record) =>
      record.driver === 'local' &&
      !users.has(record.id) &&
      !hasOptions(record) &&
      matchesLabels(filters, record.labels) &&
      !unwanted.some((label) => matchesLabels(new Map([['label', [label]]]), record.labels)),
  );
}

function checkFilterNames(filters: Filters, allowed: readonly string[]): void {
  for (const name of filters.keys()) if (!allowed.includes(name)) throw invalid(`Invalid filter '${name}'`);
}

function danglingIn(filters: Filters): boolean | null {
  const values = filters.get('dangling') ?? [];
  if (values.length === 0) return null;
  if (values.some((value) => value === 'true' || value === '1')) return true;
  if (values.some((value) => value === 'false' || value === '0')) return false;
  throw invalid(`Invalid filter 'dangling=[${values.join(' ')}]'`);
}

/** A name filter is a regular expression; one that is none matches as text. */
function compile(value: string): { test(name: string): boolean } {
  try {
    return new Pattern(value);
  } catch {
    return { test: (name) => name.includes(value) };
  }
}
