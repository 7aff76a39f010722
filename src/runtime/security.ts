/** `SecurityOpt` of a container: what of it concerns the spec, and the checks that need no machine. */
import { invalid } from '../lib/errors.ts';
import { parseProfile, type SeccompProfile } from './seccomp-profile.ts';

/** Options of `SecurityOpt`; both `key=value` and the older `key:value`. */
export interface SecurityOptions {
  /** Null: as the daemon has it. */
  readonly noNewPrivileges: boolean | null;
  readonly seccomp: 'default' | 'unconfined' | 'builtin' | SeccompProfile;
  readonly apparmor: string;
  /** No masked and no read-only paths below /proc and /sys. */
  readonly systemPathsUnconfined: boolean;
}

/** The words of Go's `strconv.ParseBool`, which dockerd reads here. */
const truths = new Map(
  ['1', 't', 'T', 'TRUE', 'true', 'True', '0', 'f', 'F', 'FALSE', 'false', 'False'].map((word, index) => [
    word,
    index < 6,
  ]),
);

/** Throws dockerd's words for what it would not take; `label` options have no effect without SELinux. */
export function parseSecurityOptions(options: readonly string[] | null): SecurityOptions {
  let noNewPrivileges: boolean | null = null;
  let seccomp: SecurityOptions['seccomp'] = 'default';
  let apparmor = '';
  let systemPathsUnconfined = false;
  for (const option of options ?? []) {
    if (option === 'no-new-privileges') {
      noNewPrivileges = true;
      continue;
    }
    if (option === 'disable') continue;
    const separator = option.includes('=') ? '=' : ':';
    const at = option.indexOf(separator);
    if (at < 0) throw invalid(`invalid --security-opt 1: "${option}"`);
    const key = option.slice(0, at);
    const value = option.slice(at + 1);
    if (key === 'label') continue;
    if (key === 'apparmor') apparmor = value;
    else if (key === 'seccomp') seccomp = value === 'unconfined' || value === 'builtin' ? value : parseProfile(value);
    else if (key === 'no-new-privileges' && truths.has(value)) noNewPrivileges = truths.get(value) ?? null;
    else if (key === 'systempaths' && value === 'unconfined') systemPathsUnconfined = true;
    else throw invalid(`invalid --security-opt 2: "${option}"`);
  }
  return { noNewPrivileges, seccomp, apparmor, systemPathsUnconfined };
}

/** Name of the AppArmor profile that was asked for, as inspect shows it. */
export function apparmorProfileOf(options: readonly string[] | null): string {
  const asked = (options ?? []).findLast((option) => /^apparmor[=:]/.test(option));
  return asked === undefined ? '' : asked.slice('apparmor='.length);
}
