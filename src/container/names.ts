/** Container names: what is allowed, and made-up ones for containers created without. */
import { randomInt } from 'node:crypto';
import { invalid } from '../lib/errors.ts';

/** A name without its leading slash, or dockerd's refusal. */
export function checkName(name: string): string {
  const bare = name.replace(/^\//, '');
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(bare)) {
    throw invalid(`Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
  }
  return bare;
}

const manners = (
  'able agile amber ample apt bold brave breezy bright brisk calm candid civil clever cosmic crisp curious daring deft eager ' +
  'early fair fearless fleet fond frank fresh gentle glad golden grand happy hardy honest humble jolly keen kind lively ' +
  'loyal lucid lucky mellow merry mighty modest neat nimble noble patient placid plucky polite prime proud quick quiet ' +
  'rapid ready robust rustic sage serene sharp silent sincere smooth snug solid spry steady stout sunny swift tidy tranquil ' +
  'trusty upbeat valiant vivid warm wise witty zesty'
).split(' ');

const vessels = (
  'barge bark brig canoe caravel carrack catboat clipper cog coracle corvette cutter dhow dinghy dory ferry felucca ' +
  'frigate galleon galley gig gondola hoy hulk junk kayak keelboat ketch knarr launch lifeboat lighter liner longship lugger ' +
  'nef outrigger packet pilot pinnace pram privateer proa punt raft sampan schooner scow shallop skiff sloop smack ' +
  'steamer tanker tender trawler trimaran trireme tug wherry whaler xebec yacht yawl'
).split(' ');

/** `brisk_schooner`; with a digit after some attempts, as names run out. `isTaken` says whether a name is in use. */
export function inventName(isTaken: (name: string) => boolean): string {
  for (let attempt = 0; ; attempt++) {
    const suffix = attempt < 6 ? '' : String(randomInt(10 ** Math.min(9, attempt - 5)));
    const name = `${manners[randomInt(manners.length)]}_${vessels[randomInt(vessels.length)]}${suffix}`;
    if (!isTaken(name)) return name;
  }
}
