/**
 * Options of `POST /containers/create` (API 1.26) that this engine does not honour, and what it does about each: refuse
 * with a 501 that names it where ignoring it would change what the user gets, else accept it with a warning. Options
 * not listed here are honoured. `docs/compatibility.md` shows the same, kept equal by a test.
 */
import type { RunConfig } from '../image/types.ts';
import { notImplemented } from '../lib/errors.ts';
import type { HostConfig } from './types.ts';

interface Unsupported {
  /** As in the API document: `HostConfig.Links`. */
  readonly property: string;
  readonly isUsed: (config: RunConfig, host: HostConfig) => boolean;
  readonly answer: 'refused' | 'warned';
  readonly why: string;
}

const refused = (property: string, isUsed: Unsupported['isUsed'], why: string): Unsupported => ({
  property,
  isUsed,
  answer: 'refused',
  why,
});
export const unsupportedOptions: readonly Unsupported[] = [
  refused('HostConfig.Cgroup', (_, h) => h.Cgroup !== '', 'cgroups of other containers cannot be joined'),
];

/** Throws for the first refused option that is used; returns a warning for each that is accepted without effect. */
export function checkOptions(config: RunConfig, host: HostConfig): readonly string[] {
  const warnings: string[] = [];
  for (const { property, isUsed, answer, why } of unsupportedOptions) {
    if (!isUsed(config, host)) continue;
    if (answer === 'refused') throw notImplemented(`${property} is not supported: ${why}`);
    warnings.push(`${property} has no effect: ${why}`);
  }
  return warnings;
}
