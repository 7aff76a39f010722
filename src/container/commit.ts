/**
 * `POST /commit`: an image of what a container changed.
 *
 * The lane is held for stopping and going on only, not while the changes are read: whoever wants to end the container need not wait
 * for a big commit. That it is held still is nowhere recorded, so a daemon that was killed meanwhile finds a running
 * container in its records and lets it go on (`Life.adopt`).
 */
import { applyChanges } from '../image/changes.ts';
import { emptyDiffId, nameToTag } from '../image/commit.ts';
import { familiarReference } from '../image/reference.ts';
import type { RunConfig } from '../image/types.ts';
import { conflict, notFound, unavailable } from '../lib/errors.ts';
import type { ContainerId, DiffId, ImageId } from '../lib/ids.ts';
import type { CommitRequest } from './api.ts';
import { decodeConfig, mergeConfig } from './decode.ts';
import { startProbing } from './prober.ts';
import { isRunning } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';

/** A prune may take a layer between its last byte and its lease; each time it is made anew. */
const attemptsMax = 5;

export async function commitContainer(
  set: ContainerSet,
  ref: string,
  request: CommitRequest,
): Promise<{ readonly Id: ImageId }> {
  const { layers, images } = set.parts;
  const record = set.index.resolve(ref);
  // All that can be refused is, before anything is held still or read.
  const reference = request.repo === '' ? null : nameToTag(request.repo, request.tag);
  const config = configOf(record.config, request);
  checkStays(set, record.id);
  const below = images.get(record.imageId);
  if (below === undefined) throw notFound(`No such image: ${record.imageId}`);

  using _ = layers.lease(...below.chain);
  using layer = await readChanges(set, record.id, request.pause);
  // Only of a container that is still there are its changes known to be whole.
  checkStays(set, record.id);
  const { id } = await images.commit({
    parent: below.id,
    diffId: layer.diffId,
    container: record.id,
    containerConfig: record.config,
    config,
    author: request.author,
    comment: request.comment,
    reference,
    announce: (imageID) => [
      containerEvent(set.records.get(record.id) ?? record, 'commit', {
        comment: request.comment,
        imageID,
        imageRef: reference === null ? '' : familiarReference(reference),
      }),
    ],
  });
  return { Id: id };
}

/** What the image will say: the request's config or the container's, the changes, and the container's for what is missing. */
function configOf(own: RunConfig, { config, changes }: CommitRequest): RunConfig {
  return mergeConfig(applyChanges(config === null ? own : decodeConfig(config), changes), own);
}

function checkStays(set: ContainerSet, id: ContainerId): void {
  if (set.records.get(id) === undefined || set.live(id).removing)
    throw conflict(`You cannot commit container ${id} which is being removed`);
}

/** The digest of the changes, null without any, and the lease that holds their layer. */
interface Changes extends Disposable {
  readonly diffId: DiffId | null;
}

const unchanged: Changes = { diffId: null, [Symbol.dispose]: () => undefined };

async function readChanges(set: ContainerSet, id: ContainerId, pause: boolean): Promise<Changes> {
  const { layers } = set.parts;
  await using _ = pause ? await holdStill(set, id) : null;
  for (let attempt = 1; ; attempt++) {
    const layer = await layers.commit(id).catch((error: unknown) => {
      checkStays(set, id); // its tree goes with it, perhaps while it was read
      throw error;
    });
    if (layer === null || layer.diffId === emptyDiffId) return unchanged;
    const lease = layers.lease(layer.chainId);
    if (layers.get(layer.chainId) !== undefined)
      return { diffId: layer.diffId, [Symbol.dispose]: () => lease[Symbol.dispose]() };
    lease[Symbol.dispose]();
    if (attempt === attemptsMax) throw unavailable(`the layer of container ${id} is removed as often as it is made`);
  }
}

/** Freezes a container that runs and is not paused, until disposed of: the last of several commits lets it go on. */
async function holdStill(set: ContainerSet, id: ContainerId): Promise<AsyncDisposable | null> {
  const { runtime, log } = set.parts;
  const { heldBy } = set.live(id);
  const own = Symbol(id);
  const running = () => {
    const record = set.records.get(id);
    return record !== undefined && isRunning(record) && !record.state.paused ? record : null;
  };
  const held = await set.inLane(id, async () => {
    const record = running();
    if (record === null) return false;
    if (heldBy.size === 0) {
      try {
        await runtime.pause(id);
      } catch (error) {
        await runtime.resume(id).catch(() => undefined);
        throw error;
      }
      set.announce(containerEvent(record, 'pause'));
      // A frozen probe would only run into its timeout.
      void set.live(id).prober?.stop();
    }
    heldBy.add(own);
    return true;
  });
  if (!held) return null;
  return {
    [Symbol.asyncDispose]: () =>
      set.inLane(id, async () => {
        // No longer among them: the run that was held has ended.
        if (!heldBy.delete(own) || heldBy.size > 0) return;
        const record = running();
        if (record === null) return; // paused by its user meanwhile
        try {
          await runtime.resume(id);
          set.announce(containerEvent(record, 'unpause'));
          if (!set.live(id).stopping) startProbing(set, record, false);
        } catch (error) {
          log.error({ container: id, error }, 'a container cannot be let go on after a commit; unpause it by hand');
        }
      }),
  };
}
