/**
 * Seccomp profiles given as JSON, in Docker's format: an OCI section whose rules may hold only with a capability, on an
 * architecture or from a kernel version on. Read and checked at once; the conditions are settled for each container.
 * Rules of the format: dockerd's documentation of seccomp profiles and the OCI runtime specification.
 */
import os from 'node:os';
import { invalid } from '../lib/errors.ts';
import type { ExactNumber, SeccompSection } from './seccomp.ts';

/** A profile with its conditions. Null section: it asks for nothing, as `{}` does. */
export type SeccompProfile = (facts: SeccompFacts) => SeccompSection | null;

export interface SeccompFacts {
  readonly capabilities: readonly string[];
  /** As Node names it: `x64`, `arm64`. */
  readonly architecture?: string;
  /** `6.1.0-13-amd64`. */
  readonly kernel?: string;
}

type JsonObject = Readonly<Record<string, unknown>>;

const actions = new Set(
  'KILL KILL_THREAD KILL_PROCESS TRAP ERRNO TRACE ALLOW LOG'.split(' ').map((name) => `SCMP_ACT_${name}`),
);
const operators = new Set('NE LT LE EQ GE GT MASKED_EQ'.split(' ').map((name) => `SCMP_CMP_${name}`));
const architectures = new Set(
  `X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC
  PARISC64 RISCV64`
    .trim()
    .split(/\s+/)
    .map((name) => `SCMP_ARCH_${name}`),
);
const native: Readonly<Record<string, { readonly scmp: string; readonly go: string }>> = {
  x64: { scmp: 'SCMP_ARCH_X86_64', go: 'amd64' },
  arm64: { scmp: 'SCMP_ARCH_AARCH64', go: 'arm64' },
};

const failed = (why: string, cause?: unknown) => invalid(`Decoding seccomp profile failed: ${why}`, { cause });

/** Longest profile taken; the largest in use have some 40 KB. */
const profileLengthMax = 1 << 20;

export function parseProfile(text: string): SeccompProfile {
  if (text.length > profileLengthMax) throw failed('the profile is longer than 1 MiB');
  let profile: unknown;
  try {
    profile = JSON.parse(text, exact as (key: string, value: unknown) => unknown);
  } catch (cause) {
    throw failed(cause instanceof Error ? cause.message : String(cause), cause);
  }
  const root = objectIn(profile, 'the profile');
  const defaultAction = textIn(root, 'defaultAction');
  const rules = listIn(root, 'syscalls').map(readRule);
  const plain = textsIn(root, 'architectures');
  const map = listIn(root, 'archMap').map((entry) => {
    const each = objectIn(entry, 'archMap');
    return { architecture: textIn(each, 'architecture'), below: textsIn(each, 'subArchitectures') };
  });
  if (plain.length > 0 && map.length > 0) {
    throw invalid(
      "'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or 'archMap'",
    );
  }
  for (const name of [...plain, ...map.flatMap(({ architecture, below }) => [architecture, ...below])]) {
    if (!architectures.has(name)) throw failed(`string ${name} is not a valid arch for seccomp`);
  }
  if (defaultAction === '') {
    if (rules.length > 0) throw failed('string  is not a valid action for seccomp');
    return () => null;
  }
  checkAction(defaultAction);
  const defaultErrno = numberIn(root, 'defaultErrnoRet');
  const flags = textsIn(root, 'flags');
  return (facts) => {
    const { scmp = '' } = native[facts.architecture ?? process.arch] ?? {};
    const own = map.find(({ architecture }) => architecture === scmp);
    return {
      defaultAction,
      ...(defaultErrno !== undefined && { defaultErrnoRet: defaultErrno }),
      architectures: own ? [own.architecture, ...own.below] : plain,
      ...(flags.length > 0 && { flags }),
      syscalls: rules.filter((rule) => rule.holds(facts)).map((rule) => rule.section),
    };
  };
}

interface Rule {
  readonly section: SeccompSection['syscalls'][number];
  readonly holds: (facts: SeccompFacts) => boolean;
}

function readRule(given: unknown): Rule {
  const rule = objectIn(given, 'syscalls');
  const name = textIn(rule, 'name');
  const names = textsIn(rule, 'names');
  if (name !== '' && names.length > 0) {
    throw invalid("'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'");
  }
  const action = textIn(rule, 'action');
  checkAction(action);
  const errnoRet = numberIn(rule, 'errnoRet');
  const args = listIn(rule, 'args').map((entry) => {
    const argument = objectIn(entry, 'args');
    const op = textIn(argument, 'op');
    if (!operators.has(op)) throw failed(`string ${op} is not a valid operator for seccomp`);
    const index = numberIn(argument, 'index') ?? 0;
    if (typeof index !== 'number' || index > 5) throw failed('the index of an argument is larger than 5');
    return {
      index,
      value: numberIn(argument, 'value') ?? 0,
      valueTwo: numberIn(argument, 'valueTwo') ?? 0,
      op,
    };
  });
  const includes = readFilter(rule.includes, 'includes');
  const excludes = readFilter(rule.excludes, 'excludes');
  return {
    section: {
      names: name === '' ? names : [name],
      action,
      ...(errnoRet !== undefined && { errnoRet }),
      ...(args.length > 0 && { args }),
    },
    holds: ({ capabilities, architecture = process.arch, kernel = os.release() }) => {
      const machine = native[architecture]?.go ?? architecture;
      if (excludes.arches.includes(machine)) return false;
      if (excludes.caps.some((cap) => capabilities.includes(cap))) return false;
      if (excludes.minKernel !== null && atLeast(kernel, excludes.minKernel)) return false;
      if (includes.arches.length > 0 && !includes.arches.includes(machine)) return false;
      if (!includes.caps.every((cap) => capabilities.includes(cap))) return false;
      return includes.minKernel === null || atLeast(kernel, includes.minKernel);
    },
  };
}

interface Filter {
  readonly caps: readonly string[];
  readonly arches: readonly string[];
  readonly minKernel: readonly [number, number] | null;
}

function readFilter(given: unknown, key: string): Filter {
  const filter = given === undefined || given === null ? {} : objectIn(given, key);
  const text = textIn(filter, 'minKernel');
  const version = /^(\d+)\.(\d+)$/.exec(text);
  if (text !== '' && !version) throw failed(`invalid kernel version: "${text}", expected "<kernel>.<major>"`);
  return {
    caps: textsIn(filter, 'caps'),
    arches: textsIn(filter, 'arches'),
    minKernel: version ? [Number(version[1]), Number(version[2])] : null,
  };
}

function atLeast(kernel: string, [major, minor]: readonly [number, number]): boolean {
  const [a = 0, b = 0] = kernel.split(/[.-]/).map(Number);
  return a > major || (a === major && b >= minor);
}

function checkAction(action: string): void {
  if (!actions.has(action)) throw failed(`string ${action} is not a valid action for seccomp`);
}

// Reading JSON of unknown shape -------------------------------------------------------------------------------------

const { rawJSON } = JSON as unknown as { readonly rawJSON: (text: string) => ExactNumber };

function exact(_key: string, value: unknown, context?: { readonly source?: string }): unknown {
  return typeof value === 'number' && !Number.isSafeInteger(value) && /^\d+$/.test(context?.source ?? '')
    ? rawJSON(context?.source ?? '0')
    : value;
}

const isExact = (value: unknown): value is ExactNumber =>
  typeof value === 'object' && value !== null && 'rawJSON' in value && BigInt(String(value.rawJSON)) < 2n ** 64n;

function objectIn(value: unknown, where: string): JsonObject {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw failed(`${where} is not an object`);
}

function textIn(object: JsonObject, key: string): string {
  const value = object[key] ?? '';
  if (typeof value !== 'string') throw failed(`${key} is not a string`);
  return value;
}

function numberIn(object: JsonObject, key: string): number | ExactNumber | undefined {
  const value = object[key] ?? undefined;
  if (value === undefined || isExact(value) || (Number.isSafeInteger(value) && (value as number) >= 0))
    return value as number | ExactNumber | undefined;
  throw failed(`${key} is not a whole number from 0 to 2^64-1`);
}

function listIn(object: JsonObject, key: string): readonly unknown[] {
  const value = object[key] ?? [];
  if (!Array.isArray(value)) throw failed(`${key} is not a list`);
  return value;
}

const textsIn = (object: JsonObject, key: string): readonly string[] =>
  listIn(object, key).map((value) => {
    if (typeof value !== 'string') throw failed(`${key} holds something else than strings`);
    return value;
  });
