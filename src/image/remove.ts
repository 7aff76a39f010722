/**
 * What removing an image means, decided before anything is done. The rules, their order and their texts are those of
 * Docker 1.9 and later (API 1.21, `api/ERRORS.md`).
 */
import { conflict } from '../lib/errors.ts';
import { type ImageId, shortId } from '../lib/ids.ts';
import { canonicalName, parseReference, type Reference, withDefaultTag } from './reference.ts';
import type { Image } from './types.ts';

/** A container that was made from an image. */
export interface ImageUser {
  readonly id: string;
  readonly running: boolean;
}

export interface RemovalView {
  get(id: ImageId): Image | undefined;
  referencesOf(id: ImageId): readonly Reference[];
  childrenOf(id: ImageId): readonly ImageId[];
  usersOf(id: ImageId): readonly ImageUser[];
}

export type RemovalStep =
  | { readonly do: 'untag'; readonly reference: Reference; readonly image: Image; readonly announce: boolean }
  | { readonly do: 'delete'; readonly image: Image };

/** `request` is the image as the user named it: by id it goes with all its names, by a name only that name may go. */
export function planRemoval(
  view: RemovalView,
  image: Image,
  request: string,
  options: { readonly force: boolean; readonly noprune: boolean },
): RemovalStep[] {
  const removal = new Removal(view);
  if (isIdOf(image.id, request)) removal.byId(image, options);
  else removal.byName(image, request, options);
  return removal.steps;
}

const isIdOf = (id: ImageId, request: string): boolean => id.startsWith(request) || id.slice(7).startsWith(request);
const isDigest = (reference: Reference): boolean => reference.digest !== undefined;

/** One name: at most one tag, and digests only of the same repository. */
function isSingle(references: readonly Reference[]): boolean {
  if (references.length <= 1) return true;
  const tags = references.filter((reference) => !isDigest(reference));
  if (tags.length > 1) return false;
  const repositories = new Set(references.filter(isDigest).map(canonicalName));
  const single = tags[0] ?? references[0];
  return repositories.size === 1 && single !== undefined && repositories.has(canonicalName(single));
}

interface Conflict {
  readonly hard: boolean;
  readonly used: boolean;
  readonly message: string;
}

class Removal {
  readonly steps: RemovalStep[] = [];
  readonly #view: RemovalView;
  readonly #deleted = new Set<ImageId>();

  constructor(view: RemovalView) {
    this.#view = view;
  }

  byId(image: Image, { force, noprune }: { force: boolean; noprune: boolean }): void {
    const references = this.#view.referencesOf(image.id);
    if (isSingle(references)) {
      const found = this.#conflict(image.id, [], { soft: !force });
      if (found !== null) throw refusal(image.id, found);
      for (const reference of references) this.steps.push({ do: 'untag', reference, image, announce: true });
      this.#delete(image, [], { force, prune: !noprune, quiet: false });
    } else this.#delete(image, references, { force, prune: !noprune, quiet: false });
  }

  byName(image: Image, request: string, { force, noprune }: { force: boolean; noprune: boolean }): void {
    const references = this.#view.referencesOf(image.id);
    const user = this.#view.usersOf(image.id)[0];
    if (!force && user !== undefined && isSingle(references)) {
      throw conflict(
        `conflict: unable to remove repository reference "${request}" (must force) - container ${shortId(user.id)} is using its referenced image ${shortId(image.id)}`,
      );
    }
    const named = withDefaultTag(parseReference(request));
    const same = (other: Reference) =>
      canonicalName(other) === canonicalName(named) &&
      (named.digest === undefined ? other.tag === named.tag : other.digest === named.digest);
    const removed = references.find(same) ?? named;
    this.steps.push({ do: 'untag', reference: removed, image, announce: true });
    let left = references.filter((other) => !same(other));
    const here = (other: Reference) => canonicalName(other) === canonicalName(removed);
    // With the last tag of a repository its digests go too: nobody would find them any more.
    if (!isDigest(removed) && !left.some((other) => !isDigest(other) && here(other))) {
      for (const reference of left.filter(here)) this.steps.push({ do: 'untag', reference, image, announce: false });
      left = left.filter((other) => !here(other));
    }
    if (left.length === 0) this.#delete(image, [], { force, prune: !noprune, quiet: true });
  }

  /** `references` are those that are still there. */
  #delete(
    image: Image,
    references: readonly Reference[],
    options: { readonly force: boolean; readonly prune: boolean; readonly quiet: boolean },
  ): void {
    const found = this.#conflict(image.id, references, { soft: !options.force });
    if (found !== null) {
      const dangling = references.length === 0 && this.#children(image.id).length === 0;
      if (options.quiet && (!dangling || found.used)) return;
      throw refusal(image.id, found);
    }
    for (const reference of references) this.steps.push({ do: 'untag', reference, image, announce: true });
    this.steps.push({ do: 'delete', image });
    this.#deleted.add(image.id);
    const parent = image.parent === null || !options.prune ? undefined : this.#view.get(image.parent);
    if (parent !== undefined) {
      this.#delete(parent, this.#view.referencesOf(parent.id), { force: false, prune: true, quiet: true });
    }
  }

  #children(id: ImageId): readonly ImageId[] {
    return this.#view.childrenOf(id).filter((child) => !this.#deleted.has(child));
  }

  #conflict(id: ImageId, references: readonly Reference[], { soft }: { soft: boolean }): Conflict | null {
    if (this.#children(id).length > 0) return { hard: true, used: false, message: 'image has dependent child images' };
    const users = this.#view.usersOf(id);
    const running = users.find((user) => user.running);
    if (running !== undefined) {
      return { hard: true, used: true, message: `image is being used by running container ${shortId(running.id)}` };
    }
    if (!soft) return null;
    if (references.length > 0) {
      return { hard: false, used: false, message: 'image is referenced in multiple repositories' };
    }
    const stopped = users[0];
    if (stopped === undefined) return null;
    return { hard: false, used: true, message: `image is being used by stopped container ${shortId(stopped.id)}` };
  }
}

function refusal(id: ImageId, { hard, message }: Conflict): Error {
  return conflict(`conflict: unable to delete ${shortId(id)} (${hard ? 'cannot' : 'must'} be forced) - ${message}`);
}
