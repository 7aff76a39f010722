/** Attach and logs: readers of the log file, and a way in for what a client types. */
import { conflict, invalid, notImplemented } from '../lib/errors.ts';
import { detailsOf } from '../log/attributes.ts';
import { logPlan } from '../log/options.ts';
import type { LogQuery } from '../log/types.ts';
import type { Attachment, AttachQuery, LogsQuery } from './api.ts';
import { DetachScanner, parseDetachKeys } from './detach.ts';
import { endUnless, type LiveContainer, type RunEnd } from './live.ts';
import { type ContainerSet, containerEvent, logSubject } from './set.ts';
import type { ContainerRecord } from './types.ts';

export async function readLogs(
  set: ContainerSet,
  ref: string,
  query: LogsQuery,
  signal: AbortSignal,
): Promise<AsyncIterable<Uint8Array>> {
  const record = set.index.resolve(ref);
  if (!query.stdout && !query.stderr) throw invalid('Bad parameters: you must choose at least one stream');
  if (!logPlan(record.hostConfig.LogConfig).readable)
    throw notImplemented('configured logging driver does not support reading');
  const tty = record.config.Tty;
  // One that has not begun is worth following; one that has ended prints nothing more.
  const follow = query.follow && record.state.is !== 'exited';
  const details = query.details ? detailsOf(record.hostConfig.LogConfig.Config, logSubject(record)) : undefined;
  const asked: LogQuery = { ...query, follow, tty, framed: query.framed && !tty, details };
  return set.logOf(record).read(asked, set.live(record.id).ended.promise, signal);
}

export async function attach(
  set: ContainerSet,
  ref: string,
  query: AttachQuery,
  signal: AbortSignal,
): Promise<Attachment> {
  const record = set.index.resolve(ref);
  if (record.state.is === 'running' && record.state.paused) {
    throw conflict(`container ${ref} is paused, unpause the container before attach`);
  }
  if (record.state.is === 'restarting') {
    throw conflict(`Container ${ref} is restarting, wait until the container is running`);
  }
  const keys = parseDetachKeys(query.detachKeys);
  const live = set.live(record.id);
  const tty = record.config.Tty;
  const ended = live.ended.promise;
  const gone = new AbortController();
  const over = AbortSignal.any([signal, gone.signal]);
  const log = set.logOf(record);
  const asked: LogQuery = {
    stdout: query.stdout,
    stderr: query.stderr,
    timestamps: false,
    follow: query.stream,
    framed: query.framed && !tty,
    tty,
  };
  const wantsOutput = query.stdout || query.stderr;

  let source: AsyncIterable<Uint8Array>;
  if (wantsOutput && query.logs) source = log.read(asked, ended, over);
  else if (wantsOutput && query.stream) source = log.readFrom(await log.position(), asked, ended, over);
  else source = silence(query.stream ? ended : null, over);
  set.announce(containerEvent(record, 'attach'));
  live.attached++;

  const takesInput = query.stdin && query.stream && record.config.OpenStdin;
  const detach = () => {
    gone.abort();
    set.announce(containerEvent(record, 'detach'));
  };
  return {
    tty,
    output: countAttached(source, live),
    input: takesInput ? inputOf(record, live, new DetachScanner(keys), detach) : null,
  };
}

function inputOf(
  record: ContainerRecord,
  live: LiveContainer,
  scanner: DetachScanner,
  detach: () => void,
): NonNullable<Attachment['input']> {
  const { Tty: tty, StdinOnce: once } = record.config;
  const stdin = live.stdin.writer();
  let detached = false;
  return {
    async write(data) {
      if (detached) return;
      // Only a terminal's client can mean the keys: a program's bytes pass as they are.
      const scanned = tty ? scanner.scan(data) : { pass: data, detached: false };
      if (scanned.pass.length > 0) await stdin.write(scanned.pass);
      if (scanned.detached) {
        detached = true;
        detach();
      }
    },
    end() {
      if (once && !tty && !detached) void stdin.end();
    },
  };
}

async function* countAttached(source: AsyncIterable<Uint8Array>, live: LiveContainer): AsyncGenerator<Uint8Array> {
  try {
    yield* source;
  } finally {
    live.attached--;
  }
}

/** An output side that shows nothing and ends with the run. */
async function* silence(ended: Promise<RunEnd> | null, over: AbortSignal): AsyncGenerator<Uint8Array> {
  if (ended !== null) await endUnless(ended, over);
  yield* [];
}
