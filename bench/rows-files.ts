/** Rows of files in and out of a running container. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Engine } from './engines.ts';
import type { Row } from './rows.ts';

/** The container of the row under way, by engine. */
const kept = new Map<string, string>();
/**
 * All containers of a row. They go at its end: ext4 takes its time to make files for a minute after many were removed, and a
 * round would pay for the one before.
 */
const begun = new Map<string, string[]>();

const megabytes = 100;
const smallFiles = 20_000;
const archives = new Map<string, Buffer>();

/** A tar with one file of 100 MB that nothing could shorten, or with 20 000 files of 100 bytes in 200 directories. */
function archive(what: 'large' | 'small'): Buffer {
  let made = archives.get(what);
  if (made === undefined) {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'bench-files-'));
    const script =
      what === 'large'
        ? `head -c ${megabytes}000000 /dev/urandom > large`
        : `mkdir small; cd small; for d in $(seq ${smallFiles / 100}); do mkdir $d; for f in $(seq 100); do printf '%100s' $f > $d/$f; done; done`;
    execFileSync('sh', ['-ec', script], { cwd: dir });
    made = execFileSync('tar', ['--numeric-owner', '-cf', '-', what], { cwd: dir, maxBuffer: 2 ** 30 });
    fs.rmSync(dir, { recursive: true });
    archives.set(what, made);
  }
  return made;
}

async function begin({ client, name }: Engine): Promise<void> {
  const { Id } = await client.json<{ Id: string }>('POST', '/containers/create', {
    Image: 'busybox',
    Cmd: ['sleep', '100000'],
    HostConfig: { NetworkMode: 'none' },
  });
  kept.set(name, Id);
  begun.set(name, [...(begun.get(name) ?? []), Id]);
  await client.call('POST', `/containers/${Id}/start`);
}

async function end({ client, name }: Engine): Promise<void> {
  for (const id of begun.get(name) ?? []) await client.call('DELETE', `/containers/${id}?force=1`);
  begun.delete(name);
}

async function putArchive({ client, name }: Engine, what: 'large' | 'small'): Promise<void> {
  await client.call('PUT', `/containers/${kept.get(name)}/archive?path=/tmp`, archive(what));
}

async function fetched({ client, name }: Engine, place: string, bytesMin: number): Promise<void> {
  let bytes = 0;
  const status = await client.stream('GET', `/containers/${kept.get(name)}/${place}`, undefined, (part) => {
    bytes += part.length;
  });
  if (status !== 200 || bytes < bytesMin) throw new Error(`${name}: ${status}, ${bytes} bytes of ${place}`);
}

async function timed(work: () => Promise<void>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

function copyIn(id: string, what: 'large' | 'small', title: string, goal: string, rounds: number): Row {
  return {
    id,
    title,
    unit: 'ms',
    rounds,
    goal,
    async measure(engine) {
      archive(what);
      await begin(engine);
      return timed(() => putArchive(engine, what));
    },
    cleanUp: end,
  };
}

function copyOut(id: string, what: 'large' | 'small', place: string, title: string, goal: string, rounds: number): Row {
  const bytesMin = what === 'large' ? megabytes * 1_000_000 : smallFiles * 1024;
  return {
    id,
    title,
    unit: 'ms',
    rounds,
    goal,
    async prepare(engine) {
      await begin(engine);
      await putArchive(engine, what);
    },
    measure: (engine) => timed(() => fetched(engine, place, bytesMin)),
    cleanUp: end,
  };
}

export const fileRows: readonly Row[] = [
  copyIn('copy-in', 'large', 'copy of one file of 100 MB into a container (API)', '1.5 × faster', 7),
  copyOut('copy-out', 'large', 'archive?path=/tmp/large', 'the same out again', '1.5 × faster', 7),
  copyIn('copy-in-small', 'small', 'copy of 20 000 files of 100 bytes into a container (API)', '3 × faster', 3),
  copyOut('copy-out-small', 'small', 'archive?path=/tmp/small', 'the same out again', '', 5),
  copyOut('export', 'large', 'export', 'export of a container with 100 MB of its own', '', 5),
];
