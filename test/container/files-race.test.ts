/** A container that swaps its directories for links to the host's files while they are copied: nothing of the host is read, written or removed. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

const host = fs.mkdtempSync(path.join(os.tmpdir(), 'canary-'));
const sound = { secret: 'of the host', 'sub/deep': 'also of the host' };
const runMs = 4000;
let engine: TestEngine;

before(async () => {
  for (const [name, text] of Object.entries(sound)) {
    fs.mkdirSync(path.dirname(path.join(host, name)), { recursive: true });
    fs.writeFileSync(path.join(host, name), text);
  }
  engine = await TestEngine.start();
  await importBusybox(engine);
  // `dir` is a directory at one moment and a link at the next. Followed by whoever forgets where the root is, it leads to the host.
  const swap = 'mv /w/dir /w/real; mv /w/link /w/dir; mv /w/dir /w/link; mv /w/real /w/dir';
  const make = `mkdir -p /w/dir/sub; echo inside > /w/dir/secret; echo inside > /w/dir/sub/deep; ln -s ${host} /w/link`;
  await engine.call('POST', '/v1.26/containers/create?name=swapper', {
    Image: 'busybox',
    Cmd: [
      'sh',
      '-c',
      `${make}; touch /ready; while :; do ${swap}; [ -e /w/dir ] || { rm -rf /w; ${make}; }; done 2>/dev/null`,
    ],
    HostConfig: { NetworkMode: 'none' },
  });
  await engine.call('POST', '/v1.26/containers/swapper/start');
  await eventually(async () => assert.equal((await engine.api('HEAD', at('/ready'))).status, 200));
});
after(async () => {
  await engine.close();
  fs.rmSync(host, { recursive: true, force: true });
});

const at = (place: string) => `/v1.26/containers/swapper/archive?path=${encodeURIComponent(place)}`;

function archive(script: string): Buffer {
  const dir = fs.mkdtempSync(path.join(host, '..', 'race-'));
  try {
    return execFileSync('sh', ['-ec', `${script} >&2; tar -cf - *`], { cwd: dir });
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

/** Asks over and over, two at a time; resolves with how often each status was answered. */
async function hammer(ask: () => Promise<number>): Promise<Map<number, number>> {
  const seen = new Map<number, number>();
  const until = Date.now() + runMs;
  const one = async () => {
    while (Date.now() < until) {
      const status = await ask();
      seen.set(status, (seen.get(status) ?? 0) + 1);
    }
  };
  await Promise.all([one(), one()]);
  return seen;
}

function assertSound(): void {
  assert.deepEqual(fs.readdirSync(host, { recursive: true }).sort(), ['secret', 'sub', 'sub/deep']);
  for (const [name, text] of Object.entries(sound)) assert.equal(fs.readFileSync(path.join(host, name), 'utf8'), text);
  const { mode, uid } = fs.statSync(host);
  assert.deepEqual([mode & 0o777, uid], [0o700, 0]);
  assert.deepEqual([fs.statSync(path.join(host, 'sub')).mode & 0o777], [0o755]);
}

test('copies out', async () => {
  const places = ['/w/dir/secret', '/w/dir/sub', '/w/dir/', '/w', '/w/link/secret'];
  let turn = 0;
  const seen = await hammer(async () => {
    const answer = await engine.api('GET', at(places[turn++ % places.length] ?? ''));
    assert.ok(!answer.body.includes('of the host'), 'a file of the host came out');
    return answer.status;
  });
  assert.ok((seen.get(200) ?? 0) > 20 && (seen.get(404) ?? 0) > 0, `no race: ${JSON.stringify([...seen])}`);
  assertSound();
});

test('copies in, over directories, files and links', async () => {
  const many = archive(
    'mkdir -p dir/sub; chmod 777 dir/sub; for i in 1 2 3 4 5 6 7 8 9; do echo evil > dir/sub/$i; done; echo evil > dir/secret',
  );
  const flat = archive(
    'echo evil > secret; mkdir sub; chmod 777 sub; echo evil > sub/deep; ln -s secret new; mknod null c 1 3; chmod 666 null',
  );
  const instead = archive('echo evil > dir');
  let turn = 0;
  const seen = await hammer(async () => {
    const asked: readonly (readonly [string, Buffer])[] = [
      ['/w', many],
      ['/w/dir', flat],
      ['/w/dir/sub', flat],
      ['/w', instead],
    ];
    const [place, body] = asked[turn++ % asked.length] as (typeof asked)[number];
    return (await engine.api('PUT', at(place), body)).status;
  });
  assert.ok((seen.get(200) ?? 0) > 20, `no race: ${JSON.stringify([...seen])}`);
  assertSound();
});
