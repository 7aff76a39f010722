/** Commit: what a container changed becomes a layer on top of its image, and a new image. */
import type { NewEvent } from '../event/types.ts';
import { invalid } from '../lib/errors.ts';
import type { DiffId, ImageId } from '../lib/ids.ts';
import { nowNano, rfc3339Nano } from '../lib/time.ts';
import { encodeImageConfig } from './config.ts';
import { parseReference, type Reference, withDefaultTag, withTag } from './reference.ts';
import type { Image, RunConfig } from './types.ts';

export interface CommitFacts {
  /** The image the container was made from. */
  readonly parent: ImageId;
  /** The container's changes; null when there are none. */
  readonly diffId: DiffId | null;
  readonly container: string;
  readonly containerConfig: RunConfig;
  /** What the new image says about running it. */
  readonly config: RunConfig;
  readonly author: string;
  readonly comment: string;
  readonly reference: Reference | null;
  /** Events of the container that become known together with the image. */
  readonly announce: (id: ImageId) => readonly NewEvent[];
}

/** The digest of an archive without entries: such a layer is no layer. */
export const emptyDiffId = 'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef' as DiffId;

/** The name that `repo` and `tag` of a request ask for. A tag wins over one in `repo`. Throws 'invalid' with Docker's words. */
export function nameToTag(repo: string, tag: string): Reference {
  const named = parseReference(repo);
  const reference = tag === '' ? withDefaultTag(named) : withTag(named, tag);
  if (reference.digest !== undefined) throw invalid('refusing to create a tag with a digest reference');
  return reference;
}

/** The config document of the new image. */
export function encodeCommit(parent: Image, facts: CommitFacts, dockerVersion: string): Buffer {
  const { author, comment, diffId } = facts;
  const created = rfc3339Nano(nowNano());
  return encodeImageConfig({
    architecture: parent.architecture,
    os: parent.os,
    osVersion: parent.osVersion,
    author,
    config: facts.config,
    container: facts.container,
    containerConfig: facts.containerConfig,
    created,
    dockerVersion,
    history: [
      ...parent.history,
      {
        created,
        created_by: (facts.containerConfig.Cmd ?? []).join(' ') || undefined,
        author: author || undefined,
        comment: comment || undefined,
        ...(diffId === null && { empty_layer: true }),
      },
    ],
    diffIds: diffId === null ? parent.diffIds : [...parent.diffIds, diffId],
  });
}
