/** Ids of users and groups inside a user namespace and outside of it. */

export interface IdRange {
  readonly inside: number;
  readonly outside: number;
  readonly size: number;
}

export interface IdMap {
  readonly users: readonly IdRange[];
  readonly groups: readonly IdRange[];
}

/** What the kernel shows for an id that has no counterpart. */
const nobody = 65534;

export function idOutside(ranges: readonly IdRange[], id: number): number {
  const range = ranges.find(({ inside, size }) => id >= inside && id < inside + size);
  return range ? range.outside + (id - range.inside) : nobody;
}

export function idInside(ranges: readonly IdRange[], id: number): number {
  const range = ranges.find(({ outside, size }) => id >= outside && id < outside + size);
  return range ? range.inside + (id - range.outside) : nobody;
}

/** What root of the namespace is outside. */
export const rootOutside = ({ users, groups }: IdMap) => ({ uid: idOutside(users, 0), gid: idOutside(groups, 0) });
