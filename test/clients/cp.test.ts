/** `docker cp`, `diff` and `export`, typed by real command line clients. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { run } from '../support/command.ts';
import { type Cli, clis, engineKind, TestEngine } from '../support/engine.ts';
import { importBusybox } from '../support/images.ts';

assert.ok(clis.length > 0, 'no docker client on this machine: scripts/peers.sh test brings one');

let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
});
after(async () => {
  await engine?.assertNoLeaks();
  await engine?.close();
});

for (const cli of clis) describe(`copies by ${cli.name}`, () => copies(cli));

function copies(cli: Cli): void {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cp-'));
  const here = (name: string) => path.join(dir, name);
  const docker = (...args: string[]) => engine.docker(args, { cli });
  const must = (...args: string[]) => engine.mustDocker(args, { cli });
  const inside = (script: string) => must('exec', 'box', 'sh', '-c', script);
  /** A docker command line within a shell's pipes. */
  const piped = async (script: string, ...args: string[]) => {
    const argv = engine.dockerCommand(args, cli);
    const { code, stderr } = await run(['sh', '-ec', script, 'sh', ...argv], { env: engine.clientEnv });
    assert.equal(code, 0, stderr);
  };

  before(async () => {
    await must(
      'run',
      '-d',
      '--network',
      'none',
      '--name',
      'box',
      '-v',
      `${dir}:/shared:ro`,
      'busybox',
      'sleep',
      '1000',
    );
    await inside(
      'mkdir -p /data/sub; echo one > /data/one; echo two > /data/sub/two; ln -s /data /link; ln -s one /data/ln',
    );
    execFileSync(
      'sh',
      [
        '-ec',
        'mkdir -p tree/sub empty; echo a > tree/a; echo b > tree/sub/b; ln -s a tree/la; echo solo > solo; chmod 640 solo; touch -d "2001-02-03 04:05:06" solo',
      ],
      { cwd: dir },
    );
  });
  after(async () => {
    await must('rm', '-f', 'box');
    fs.rmSync(dir, { recursive: true, force: true });
  });

  test('a file in: beside, under a new name, over an old one', async () => {
    await must('cp', here('solo'), 'box:/data');
    await must('cp', here('solo'), 'box:/data/renamed');
    await must('cp', here('solo'), 'box:/data/sub/');
    await must('cp', here('solo'), 'box:/data/one');
    assert.equal(await inside('cat /data/solo /data/renamed /data/sub/solo /data/one'), 'solo\n'.repeat(4));
    assert.match(await inside('stat -c "%a %Y" /data/renamed'), /^640 /);
  });

  test('a directory in: as a child, as a new one, its contents alone', async () => {
    await must('cp', here('tree'), 'box:/data');
    await must('cp', here('tree'), 'box:/data/fresh');
    await must('cp', `${here('tree')}/.`, 'box:/data/sub');
    assert.equal(await inside('cd /data; cat tree/sub/b fresh/sub/b sub/sub/b sub/la'), 'b\nb\nb\na\n');
    assert.equal(await inside('readlink /data/fresh/la'), 'a\n');
  });

  test('through a link of the container', async () => {
    await must('cp', here('solo'), 'box:/link');
    await must('cp', here('solo'), 'box:/link/through');
    assert.equal(await inside('cat /data/through'), 'solo\n');
  });

  test('out: a file, a directory, contents, a link and what it leads to', async () => {
    await must('cp', 'box:/data/sub/two', here('two'));
    await must('cp', 'box:/data/sub/two', here('empty'));
    await must('cp', 'box:/data', here('out'));
    await must('cp', 'box:/data/.', here('empty'));
    await must('cp', 'box:/data/ln', here('link'));
    await must('cp', '-L', 'box:/data/ln', here('target'));
    await must('cp', '-L', 'box:/link', here('followed'));
    for (const name of ['two', 'empty/two', 'out/sub/two', 'empty/sub/two', 'followed/sub/two']) {
      assert.equal(fs.readFileSync(here(name), 'utf8'), 'two\n', name);
    }
    assert.equal(fs.readlinkSync(here('link')), 'one');
    assert.ok(fs.lstatSync(here('target')).isFile());
  });

  test('-a keeps owner, mode and time', async () => {
    fs.chownSync(here('solo'), 1234, 5678);
    await must('cp', '-a', here('solo'), 'box:/data/kept');
    assert.equal(await inside('stat -c "%u:%g %a %Y" /data/kept'), '1234:5678 640 981173106\n');
    await must('cp', '-a', 'box:/data/kept', here('back'));
    // Clients give what comes out to whoever runs them.
    const { mode, mtimeMs } = fs.statSync(here('back'));
    assert.deepEqual([mode & 0o777, mtimeMs], [0o640, 981173106000]);
  });

  test('streams: - as source and as target', async () => {
    await piped(`tar -C ${dir} -cf - tree | "$@"`, 'cp', '-', 'box:/tmp');
    assert.equal(await inside('cat /tmp/tree/sub/b'), 'b\n');
    await piped(`"$@" | tar -C ${here('empty')} -xf -`, 'cp', 'box:/tmp/tree', '-');
    assert.equal(fs.readFileSync(here('empty/tree/sub/b'), 'utf8'), 'b\n');
    await piped(`tar -C ${dir} -czf - tree | "$@"`, 'cp', '-', 'box:/root');
    assert.equal(await inside('cat /root/tree/a'), 'a\n');
  });

  test('what cannot be copied is said', async () => {
    const cases: readonly (readonly [string, string, RegExp])[] = [
      ['box:/nope', here('x'), /Could not find the file \/nope in container|No such container:path: box:\/nope/],
      [here('solo'), 'box:/nope/x', /Could not find the file|no such directory|No such container:path/],
      [here('tree'), 'box:/data/one', /cannot copy directory|cannot overwrite/],
      [here('solo'), 'box:/shared', /read-only/],
      [here('solo'), 'nobody:/x', /No such container.*nobody/],
      [here('solo'), 'box:/data/one/', /not a directory|no such directory/],
    ];
    for (const [from, to, words] of cases) {
      const { code, stderr } = await docker('cp', from, to);
      assert.notEqual(code, 0, `${from} ${to}`);
      assert.match(stderr, words);
    }
  });

  test('in and out of a container that does not run', async () => {
    await must('create', '--name', 'still', '-v', 'cpvolume:/v', 'busybox', 'cat', '/v/solo', '/solo');
    await must('cp', here('solo'), 'still:/v');
    await must('cp', here('solo'), 'still:/');
    assert.equal(await must('start', '-a', 'still'), 'solo\nsolo\n');
    await must('cp', 'still:/v/solo', here('from-volume'));
    assert.equal(fs.readFileSync(here('from-volume'), 'utf8'), 'solo\n');
    assert.deepEqual((await must('diff', 'still')).trim().split('\n').sort(), ['A /solo', 'A /v']);
    await must('rm', '-v', 'still');
  });

  test('100 MB through and back', async () => {
    execFileSync('sh', ['-c', `head -c 100000000 /dev/urandom > ${here('large')}`]);
    await must('cp', here('large'), 'box:/tmp');
    await must('cp', 'box:/tmp/large', here('large-again'));
    execFileSync('cmp', [here('large'), here('large-again')]);
    await inside('rm /tmp/large');
    fs.rmSync(here('large'));
    fs.rmSync(here('large-again'));
  });

  test('docker export, imported again', async () => {
    await must('export', '-o', here('box.tar'), 'box');
    await must('import', here('box.tar'), `exported-${cli.name}`);
    assert.match(await must('run', '--rm', '--network', 'none', `exported-${cli.name}`, 'cat', '/data/sub/two'), /two/);
    assert.doesNotMatch(execFileSync('tar', ['-tf', here('box.tar')], { encoding: 'utf8' }), /^shared\/./m);
  });

  test('a copy that is interrupted leaves nothing behind', { skip: engineKind !== 'slipway' }, async () => {
    const copy = engine.spawnDocker(['cp', '-', 'box:/tmp'], { cli });
    copy.stdin?.write(Buffer.alloc(100));
    await new Promise((resolve) => setTimeout(resolve, 300));
    copy.kill('SIGKILL');
    await engine.assertNoLeaks();
    await must('cp', here('solo'), 'box:/tmp');
  });
}
