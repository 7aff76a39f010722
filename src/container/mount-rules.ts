/** Words of `Binds`, `Mounts`, `Tmpfs` and `VolumesFrom`, checked with dockerd's refusals (20.10). */
import path from 'node:path';
import { invalid } from '../lib/errors.ts';
import type { MountRequest } from './types.ts';

const propagations: readonly string[] = ['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave'];
/** A mode has at most one word of each kind. `z`, `Z` and the consistency words have no effect here, as on dockerd without SELinux. */
const modeKinds: readonly (readonly string[])[] = [
  ['rw', 'ro'],
  ['z', 'Z'],
  propagations,
  ['nocopy'],
  ['consistent', 'cached', 'delegated'],
];

function isMode(mode: string): boolean {
  if (mode === '') return true;
  const words = mode.split(',');
  return (
    words.every((word) => modeKinds.some((kind) => kind.includes(word))) &&
    modeKinds.every((kind) => words.filter((word) => kind.includes(word)).length <= 1)
  );
}

/** `Mode` of a bind and what it says, as a mount of the newer form. */
export interface ParsedBind {
  readonly request: MountRequest;
  readonly mode: string;
}

/** `/host:/container[:modes]`, `name:/container[:modes]` or a lone `/container`, an anonymous volume. */
export function parseBind(bind: string, volumeDriver: string): ParsedBind {
  const wrong = `invalid volume specification: '${bind}'`;
  const parts = bind.split(':');
  const [first = '', second = '', mode = ''] = parts;
  if (parts.length > 3 || first === '') throw invalid(wrong);
  // `/foo:ro` is no place with a mode: volumes without a source have none.
  if (parts.length === 2 && isMode(second)) throw invalid(wrong);
  if (!isMode(mode)) throw invalid(`invalid mode: ${mode}`);
  const words = mode.split(',');
  const source = parts.length === 1 ? '' : first;
  const isPath = source.startsWith('/');
  const propagation = words.find((word) => propagations.includes(word));
  const noCopy = words.includes('nocopy');
  const request: MountRequest = {
    Type: isPath ? 'bind' : 'volume',
    Source: source,
    Target: parts.length === 1 ? first : second,
    ReadOnly: words.includes('ro'),
    ...(propagation === undefined ? {} : { BindOptions: { Propagation: propagation } }),
    ...(noCopy || (volumeDriver !== '' && !isPath)
      ? { VolumeOptions: { NoCopy: noCopy, DriverConfig: { Name: volumeDriver } } }
      : {}),
  };
  // An anonymous volume may be read-only here, which the newer form forbids.
  const problem = problemOf(source === '' ? { ...request, ReadOnly: false } : request);
  if (problem !== null) throw invalid(`${wrong}: ${problem}`);
  return { request, mode };
}

/** Throws for a mount that cannot be meant. Whether a source exists is seen when everything else is right. */
export function checkMount(mount: MountRequest): void {
  const problem = problemOf(mount);
  if (problem !== null) throw invalid(problem);
}

export const mountProblem = (type: string, problem: string) => `invalid mount config for type "${type}": ${problem}`;

function problemOf(mount: MountRequest): string | null {
  const problem = problemWith(mount);
  return problem === null ? null : mountProblem(mount.Type ?? '', problem);
}

const extra = (field: string) => `field ${field} must not be specified`;
const missing = (field: string) => `field ${field} must not be empty`;
const relative = (given: string) => `invalid mount path: '${given}' mount path must be absolute`;
const root = "invalid specification: destination can't be '/'";

function problemWith(mount: MountRequest): string | null {
  const { Source: source = '', Target: target = '', BindOptions, VolumeOptions, TmpfsOptions } = mount;
  if (target === '') return missing('Target');
  if (target.includes('\0') || source.includes('\0')) return 'a path holds a null byte';
  if (cleanPath(target) === '/') return root;
  if (!target.startsWith('/')) return relative(target);
  switch (mount.Type as string) {
    case 'bind': {
      const propagation = BindOptions?.Propagation ?? '';
      if (source === '') return missing('Source');
      if (propagation !== '' && !propagations.includes(propagation)) return `invalid propagation mode: ${propagation}`;
      if (VolumeOptions) return extra('VolumeOptions');
      return source.startsWith('/') ? null : relative(source);
    }
    case 'volume':
      if (BindOptions) return extra('BindOptions');
      return source === '' && mount.ReadOnly ? 'must not set ReadOnly mode when using anonymous volumes' : null;
    case 'tmpfs':
      if (BindOptions) return extra('BindOptions');
      if (source !== '') return extra('Source');
      if ((TmpfsOptions?.SizeBytes ?? 0) < 0) return `invalid size: ${TmpfsOptions?.SizeBytes}`;
      return isFileMode(TmpfsOptions?.Mode ?? 0) ? null : `invalid mode: ${TmpfsOptions?.Mode}`;
    default:
      return 'mount type unknown';
  }
}

const isFileMode = (mode: number) => mode >= 0 && mode <= 0o7777;

export const cleanPath = (given: string): string =>
  path.posix
    .normalize(given)
    .replace(/(.)\/$/, '$1')
    .replace(/^\/+/, '/');

/** Leaves out what is empty, as dockerd keeps it: what inspect tells is what create would make of it again. */
export function normalMount(mount: MountRequest): MountRequest {
  const { Type, Source, Target, ReadOnly, BindOptions, VolumeOptions, TmpfsOptions } = mount;
  return {
    ...(Type ? { Type } : {}),
    ...(Source ? { Source } : {}),
    ...(Target ? { Target } : {}),
    ...(ReadOnly ? { ReadOnly } : {}),
    ...(BindOptions ? { BindOptions: BindOptions.Propagation ? { Propagation: BindOptions.Propagation } : {} } : {}),
    ...(VolumeOptions ? { VolumeOptions: normalVolumeOptions(VolumeOptions) } : {}),
    ...(TmpfsOptions
      ? {
          TmpfsOptions: {
            ...(TmpfsOptions.SizeBytes ? { SizeBytes: TmpfsOptions.SizeBytes } : {}),
            ...(TmpfsOptions.Mode ? { Mode: TmpfsOptions.Mode } : {}),
          },
        }
      : {}),
  } as MountRequest;
}

function normalVolumeOptions({ NoCopy, Labels, DriverConfig }: NonNullable<MountRequest['VolumeOptions']>) {
  const some = (texts: Readonly<Record<string, string>> | undefined) => Object.keys(texts ?? {}).length > 0;
  return {
    ...(NoCopy ? { NoCopy } : {}),
    ...(some(Labels) ? { Labels } : {}),
    ...(DriverConfig
      ? {
          DriverConfig: {
            ...(DriverConfig.Name ? { Name: DriverConfig.Name } : {}),
            ...(some(DriverConfig.Options) ? { Options: DriverConfig.Options } : {}),
          },
        }
      : {}),
  };
}

/** `container[:modes]`; what only a mount of one's own can choose is refused. */
export function parseVolumesFrom(given: string): { readonly container: string; readonly writable: boolean } {
  if (given === '') throw invalid('volumes-from specification cannot be an empty string');
  const colon = given.indexOf(':');
  const mode = colon < 0 ? '' : given.slice(colon + 1);
  const words = mode.split(',');
  if (!isMode(mode) || words.some((word) => word === 'nocopy' || propagations.includes(word))) {
    throw invalid(`invalid mode: ${mode}`);
  }
  return { container: colon < 0 ? given : given.slice(0, colon), writable: !words.includes('ro') };
}

export function checkTmpfsPlace(target: string): string {
  if (!target.startsWith('/')) throw invalid(relative(target));
  const destination = cleanPath(target);
  if (destination === '/') throw invalid(root);
  return destination;
}

/** Options of a tmpfs that are flags of the mount, by what they decide: of two that decide the same, the last counts. */
const tmpfsFlags: ReadonlyMap<string, string> = new Map(
  [
    ['ro', 'rw'],
    ['suid', 'nosuid'],
    ['dev', 'nodev'],
    ['exec', 'noexec'],
    ['sync', 'async'],
    ['dirsync'],
    ['mand', 'nomand'],
    ['atime', 'noatime'],
    ['diratime', 'nodiratime'],
    ['relatime', 'norelatime'],
    ['strictatime', 'nostrictatime'],
    [...propagations, 'unbindable', 'runbindable'],
  ].flatMap((words) => words.map((word): [string, string] => [word, words.join('|')])),
);
const amount = /^\d+[kmgtpe]?%?$/i;
const tmpfsValues: ReadonlyMap<string, RegExp> = new Map(
  Object.entries({
    size: amount,
    nr_blocks: amount,
    nr_inodes: amount,
    mode: /^[0-7]{1,5}$/,
    uid: /^\d{1,10}$/,
    gid: /^\d{1,10}$/,
    mpol: /^[\w:=+,-]+$/,
  }),
);

/** `size=64k,exec` as a list without contradictions, on top of dockerd's defaults. Throws for what no tmpfs knows. */
export function tmpfsOptions(given: string): readonly string[] {
  const chosen = new Map<string, string>();
  for (const option of ['noexec', 'nosuid', 'nodev', 'rprivate', ...given.split(',')]) {
    if (option === '' || option === 'defaults') continue;
    const [key = '', value] = option.split(/=(.*)/s, 2);
    const flag = tmpfsFlags.get(option);
    if (flag === undefined && !(value !== undefined && tmpfsValues.get(key)?.test(value) === true)) {
      const words = value === undefined ? [key] : [key, value];
      throw invalid(`invalid tmpfs option [${words.map((word) => JSON.stringify(word)).join(' ')}]`);
    }
    const decides = flag ?? key;
    chosen.delete(decides);
    chosen.set(decides, option);
  }
  return [...chosen.values()];
}

/** Options of a mount of type tmpfs in the words of `Tmpfs`. */
export function tmpfsWords(mount: MountRequest): string {
  const { SizeBytes: size = 0, Mode: mode = 0 } = mount.TmpfsOptions ?? {};
  return [
    ...(mount.ReadOnly ? ['ro'] : []),
    ...(mode === 0 ? [] : [`mode=${mode.toString(8)}`]),
    ...(size === 0 ? [] : [`size=${size}`]),
  ].join(',');
}
