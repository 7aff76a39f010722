/** Lists of images: which of them, and how a list shows them. Rules as Docker's since 1.10. */
import { invalid } from '../lib/errors.ts';
import { type Filters, matchesLabels } from '../lib/filters.ts';
import type { ImageId } from '../lib/ids.ts';
import { parseRfc3339, parseTime } from '../lib/time.ts';
import { familiarName, familiarReference, type Reference } from './reference.ts';
import type { Image, ImageSummary } from './types.ts';

const listFilters = new Set(['dangling', 'label', 'before', 'since', 'reference']);
const pruneFilters = new Set(['dangling', 'label', 'label!', 'until']);

/** Nanoseconds since the epoch. */
export const createdNano = (image: Image): bigint => parseRfc3339(image.created) ?? 0n;
export const createdSeconds = (image: Image): number => Number(createdNano(image) / 1_000_000_000n);

function checkNames(filters: Filters, known: ReadonlySet<string>): void {
  for (const name of filters.keys()) if (!known.has(name)) throw invalid(`Invalid filter '${name}'`);
}

/** Undefined when not asked for. */
function danglingIn(filters: Filters): boolean | undefined {
  const values = filters.get('dangling');
  if (values === undefined || values.length === 0) return undefined;
  if (values.every((value) => value === 'true' || value === '1')) return true;
  if (values.every((value) => value === 'false' || value === '0')) return false;
  throw invalid(`Invalid filter 'dangling=${values.join(',')}'`);
}

export interface ListView {
  readonly images: Iterable<Image>;
  referencesOf(id: ImageId): readonly Reference[];
  hasChildren(id: ImageId): boolean;
  /** Throws `No such image: …`. */
  find(reference: string): Image;
}

/** The newest first. */
export function listImages(view: ListView, filters: Filters, all: boolean): ImageSummary[] {
  checkNames(filters, listFilters);
  const dangling = danglingIn(filters);
  const limits = (name: string) => (filters.get(name) ?? []).map((reference) => createdNano(view.find(reference)));
  const [before, since] = [limits('before'), limits('since')];
  const patterns = filters.get('reference')?.map(globPattern);
  const rows: { readonly at: bigint; readonly row: ImageSummary }[] = [];
  for (const image of view.images) {
    const at = createdNano(image);
    if (before.some((limit) => at >= limit) || since.some((limit) => at <= limit)) continue;
    if (!matchesLabels(filters, image.config.Labels)) continue;
    const shown = view
      .referencesOf(image.id)
      .filter((reference) => patterns?.some((pattern) => matches(pattern, reference)) ?? true);
    const tags = shown.filter(({ digest }) => digest === undefined).map(familiarReference);
    const digests = shown.filter(({ digest }) => digest !== undefined).map(familiarReference);
    const nameless = shown.length === 0;
    if (nameless && (patterns !== undefined || dangling === false)) continue;
    if (dangling === true && tags.length > 0) continue;
    if ((nameless || dangling === true) && view.hasChildren(image.id) && (dangling === true || !all)) continue;
    rows.push({ at, row: summary(image, nameless ? ['<none>:<none>'] : tags, nameless ? ['<none>@<none>'] : digests) });
  }
  return rows.sort((a, b) => (a.at > b.at ? -1 : a.at < b.at ? 1 : 0)).map(({ row }) => row);
}

function summary(image: Image, tags: readonly string[], digests: readonly string[]): ImageSummary {
  return {
    Id: image.id,
    ParentId: image.parent ?? '',
    RepoTags: tags.length === 0 ? null : tags,
    RepoDigests: digests.length === 0 ? null : digests,
    Created: createdSeconds(image),
    Size: image.size,
    SharedSize: -1,
    VirtualSize: image.size,
    Labels: image.config.Labels,
    Containers: -1,
  };
}

const matches = (pattern: RegExp, reference: Reference): boolean =>
  pattern.test(familiarReference(reference)) || pattern.test(familiarName(reference));

/** Shell patterns as Go's `path.Match`: `*` and `?` stop at a slash, `[a-z]`, `[^a]`, `\` quotes. */
export function globPattern(glob: string): RegExp {
  let source = '';
  for (let at = 0; at < glob.length; at++) {
    const char = glob[at] as string;
    if (char === '*') source += '[^/]*';
    else if (char === '?') source += '[^/]';
    else if (char === '[') {
      const end = glob.indexOf(']', at + 2);
      if (end < 0) throw invalid(`invalid reference filter: syntax error in pattern: ${glob}`);
      const inside = glob.slice(at + 1, end);
      source += `[${inside.replace(/[\\[\]&]/g, '\\$&')}]`;
      at = end;
    } else {
      if (char === '\\') at++;
      source += (glob[at] ?? '\\').replace(/\W/g, '\\$&');
    }
  }
  return new RegExp(`^${source}$`);
}

/** The images a prune removes, by the names of its filters; only unnamed ones unless `dangling=false`. */
export function imagesToPrune(
  view: ListView,
  filters: Filters,
): { readonly image: Image; readonly names: readonly Reference[] }[] {
  checkNames(filters, pruneFilters);
  const danglingOnly = danglingIn(filters) ?? true;
  const until = (filters.get('until') ?? []).map((text) => parseTime(text));
  if (until.length > 1) throw invalid('more than one until filter specified');
  const [limit] = until;
  const unwanted = (filters.get('label!') ?? []).map((label): Filters => new Map([['label', [label]]]));
  const chosen: { image: Image; names: readonly Reference[] }[] = [];
  for (const image of view.images) {
    const names = view.referencesOf(image.id);
    if (names.length === 0 && view.hasChildren(image.id)) continue;
    if (danglingOnly && names.some(({ digest }) => digest === undefined)) continue;
    if (danglingOnly && view.hasChildren(image.id)) continue;
    if (limit !== undefined && createdNano(image) > limit) continue;
    const { Labels } = image.config;
    if (!matchesLabels(filters, Labels) || unwanted.some((label) => matchesLabels(label, Labels))) continue;
    chosen.push({ image, names });
  }
  return chosen;
}
