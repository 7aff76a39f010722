/** Compiles the version files into one table: for an endpoint and a version, the steps up and the steps down. */
import type { Json } from '../../container/api.ts';
import type { Failure } from '../server/errors.ts';
import type { Messages, Question, Reply, Wire } from '../server/route.ts';
import type { AnswerSteps, Change, Endpoint, Version } from './dsl.ts';

/** What stands between a client of one version and a route. Absent functions: nothing to do. */
export interface Plan {
  readonly exists: boolean;
  /** What a 404 carries when the route does not exist at this version. */
  readonly absence: 'message' | 'empty';
  readonly up?: ((question: Question) => Question) | undefined;
  readonly head?: ((head: Pick<Reply, 'status' | 'headers'>) => Pick<Reply, 'status' | 'headers'>) | undefined;
  readonly body?: ((body: unknown) => unknown) | undefined;
  readonly message?: ((message: Json) => Json) | undefined;
  readonly stream?: ((stream: Messages) => Messages) | undefined;
  readonly failure?: ((failure: Failure) => Failure) | undefined;
  readonly wire: Wire;
}

/** What the newest API has on the wire. */
const wireOfNewest: Wire = {
  errors: 'json',
  framed: true,
  progressEnd: '\r\n',
  eventEnd: '\n',
  webSocketFrames: 'text',
};

export class VersionChain {
  readonly newest: string;
  /** First version that has a file. Older ones are answered as the one before it. */
  readonly oldest: string;
  readonly files: readonly Version[];
  readonly #ageOfName = new Map<string, number>();

  /** `files`: oldest first. */
  constructor(files: readonly Version[]) {
    const [first, last] = [files[0], files.at(-1)];
    if (first === undefined || last === undefined) throw new Error('a version chain needs a version');
    for (const [index, file] of files.entries()) {
      const before = files[index - 1];
      if (before !== undefined && compareVersions(before.name, file.name) >= 0) {
        throw new Error(`version ${file.name} is out of order`);
      }
      this.#ageOfName.set(file.name, index + 1);
    }
    this.files = files;
    this.oldest = first.name;
    this.newest = last.name;
  }

  /** How many of the files a client of this version knows; null when it wants a newer API than there is. */
  ageOf(name: string): number | null {
    const known = this.#ageOfName.get(name);
    if (known !== undefined) return known;
    if (compareVersions(name, this.newest) > 0) return null;
    return this.files.filter((file) => compareVersions(file.name, name) <= 0).length;
  }

  get ages(): number {
    return this.files.length;
  }

  /** What holds at an age for questions that match no route. */
  wireAt(age: number): Wire {
    return this.#plan([], age).wire;
  }

  /** For each endpoint the plans by age. Throws when a file names an endpoint that has no route. */
  compile(endpoints: readonly Endpoint[]): ReadonlyMap<Endpoint, readonly Plan[]> {
    const changesOf = new Map<Endpoint, Change[][]>(endpoints.map((name) => [name, this.files.map(() => [])]));
    for (const [index, file] of this.files.entries()) {
      for (const change of file.changes) {
        for (const endpoint of change.endpoints) {
          const changes = changesOf.get(endpoint);
          if (changes === undefined) throw new Error(`version ${file.name}: there is no route ${endpoint}`);
          changes[index]?.push(change);
        }
      }
    }
    const ages = Array.from({ length: this.ages + 1 }, (_, age) => age);
    return new Map(endpoints.map((name) => [name, ages.map((age) => this.#plan(changesOf.get(name) ?? [], age))]));
  }

  #plan(changesByFile: readonly (readonly Change[])[], age: number): Plan {
    /** Changes the client does not know, oldest first. */
    const unknown = changesByFile.slice(age).flat();
    const known = changesByFile.slice(0, age).flat();
    const steps = unknown.filter((change) => change.is === 'answer').map((change) => change.steps);
    const removal = known.findLast((change) => change.is === 'added' || change.is === 'removed');
    return {
      exists: removal?.is !== 'removed' && !isFromTheFuture(unknown),
      absence: removal?.is === 'removed' ? removal.body : 'message',
      up: compose(unknown.filter((change) => change.is === 'question').map((change) => change.step)),
      head: composeDown(steps, 'head'),
      body: composeDown(steps, 'body'),
      message: composeDown(steps, 'message'),
      stream: composeDown(steps, 'stream'),
      failure: composeDown(steps, 'failure'),
      wire: this.#wire(age),
    };
  }

  #wire(age: number): Wire {
    const unknown = this.files.slice(age).toReversed();
    const before = unknown.flatMap((file) => file.changes.map((change) => (change.is === 'wire' ? change.before : {})));
    return Object.assign({}, wireOfNewest, ...before);
  }
}

/** The first thing that will happen to the route is that it appears. */
const isFromTheFuture = (unknown: readonly Change[]) =>
  unknown.find((change) => change.is === 'added' || change.is === 'removed')?.is === 'added';

function compose<T>(steps: readonly ((value: T) => T)[]): ((value: T) => T) | undefined {
  if (steps.length <= 1) return steps[0];
  return (value) => steps.reduce((result, step) => step(result), value);
}

function composeDown<K extends keyof AnswerSteps>(steps: readonly AnswerSteps[], part: K): AnswerSteps[K] {
  const parts = steps
    .map((step) => step[part])
    .filter((step) => step !== undefined)
    .toReversed();
  // Every part is a function from a type to itself; the compiler cannot see that through the key.
  return compose(parts as unknown as readonly ((value: unknown) => unknown)[]) as AnswerSteps[K];
}

/** Component by component as numbers; a missing component is 0 (W-02). */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a.split('.'), b.split('.')];
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = Number(left[index] ?? 0) - Number(right[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
