/** Files in and out of containers through the API: paths, kinds of files, mounts, refusals, changes, export. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { eventually, sleep } from '../support/command.ts';
import { engineKind, TestEngine } from '../support/engine.ts';
import { open } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';

const slipway = engineKind === 'slipway';
const version = '/v1.26';
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'files-'));
let engine: TestEngine;

before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
});
after(async () => {
  await engine.assertNoLeaks();
  await engine.close();
  fs.rmSync(scratch, { recursive: true, force: true });
});

const sh = (script: string, cwd = scratch) => execFileSync('sh', ['-ec', script], { cwd, encoding: 'utf8' });

/** The archive a shell script makes as `$OUT`, in an empty directory. */
function archive(script: string): Buffer {
  const dir = fs.mkdtempSync(path.join(scratch, 'tar-'));
  const out = path.join(scratch, 'out.tar');
  execFileSync('sh', ['-ec', script], { cwd: dir, env: { ...process.env, OUT: out } });
  return fs.readFileSync(out);
}

/** A command that shows (or sets) attributes of a file. */
const note = `${process.execPath} ${path.join(import.meta.dirname, '../support/note.ts')}`;

/** Lines of `tar -tv` without times, sorted by name. */
function listing(tar: Buffer): string[] {
  const lines = execFileSync('tar', ['--numeric-owner', '--full-time', '-Ptvf', '-'], { input: tar, encoding: 'utf8' });
  return lines
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => line.replace(/^(\S+) +(\S+) +(\S+) \S+ \S+ +/, '$1 $2 $3 '))
    .sort((a, b) => ((a.split(' ')[3] ?? '') < (b.split(' ')[3] ?? '') ? -1 : 1));
}

async function create(name: string, script: string, host: object = {}, more: object = {}): Promise<string> {
  const body = { Image: 'busybox', Cmd: ['sh', '-c', script], HostConfig: { NetworkMode: 'none', ...host }, ...more };
  return (await engine.call('POST', `${version}/containers/create?name=${name}`, body)).Id;
}

/** Starts a container whose script ends with `ready` and goes on sleeping; resolves when it is there. */
async function running(name: string, script: string, host: object = {}, more: object = {}): Promise<string> {
  const id = await create(name, `${script}; touch /tmp/ready; exec sleep 1000`, host, more);
  await engine.call('POST', `${version}/containers/${name}/start`);
  await eventually(async () => assert.equal((await head(name, '/tmp/ready')).status, 200));
  return id;
}

const at = (name: string, place: string) => `${version}/containers/${name}/archive?path=${encodeURIComponent(place)}`;
const head = (name: string, place: string) => engine.api('HEAD', at(name, place));
const get = (name: string, place: string) => engine.api('GET', at(name, place));
const put = (name: string, place: string, tar: Buffer | string, query = '') =>
  engine.api('PUT', `${at(name, place)}${query}`, tar);
const remove = (name: string) => engine.call('DELETE', `${version}/containers/${name}?force=1&v=1`);
const message = (answer: { json(): { message: string } }) => answer.json().message;

async function mustPut(name: string, place: string, tar: Buffer): Promise<void> {
  const answer = await put(name, place, tar);
  assert.equal(answer.status, 200, answer.text);
}

async function list(name: string, place: string): Promise<string[]> {
  const answer = await get(name, place);
  assert.equal(answer.status, 200, answer.text);
  return listing(answer.body);
}

async function content(name: string, place: string): Promise<string> {
  const answer = await get(name, place);
  assert.equal(answer.status, 200, answer.text);
  return execFileSync('tar', ['-xOf', '-'], { input: answer.body, encoding: 'utf8' });
}

const statOf = (answer: { headers: object }) =>
  JSON.parse(
    Buffer.from((answer.headers as Record<string, string>)['x-docker-container-path-stat'] ?? '', 'base64').toString(),
  );

const tree = [
  'mkdir -p /d/sub /d/deep/er',
  'echo hello > /d/f',
  'ln -s f /d/lf; ln -s sub /d/ls; ln -s /d /ld; ln -s nowhere /d/dangling; ln -s loop /d/loop; ln -s ../../../../etc/group /d/climb',
  'echo x > /d/sub/x; ln /d/f /d/hard; mkfifo /d/pipe; mknod /d/null c 1 3',
  'chmod 4755 /d/f; chmod 1777 /d/sub; chmod 2755 /d/deep; chown 12:34 /d/sub/x',
  'touch -d "2001-02-03 04:05:06" /d/f',
].join('; ');

describe('where a path leads', () => {
  before(async () => {
    await running('box', tree);
  });
  after(() => remove('box'));

  const directory = 2 ** 31;
  const link = 2 ** 27 + 0o777;
  const found: readonly (readonly [asked: string, name: string, mode: number, linkTarget: string])[] = [
    ['/', '/', directory + 0o755, ''],
    ['/.', '.', directory + 0o755, ''],
    ['d', 'd', directory + 0o755, ''],
    ['/d/', 'd', directory + 0o755, ''],
    ['/d/.', '.', directory + 0o755, ''],
    ['d/..', '/', directory + 0o755, ''],
    ['/d/../../../d/f', 'f', 2 ** 23 + 0o755, ''],
    ['/d/lf', 'lf', link, '/d/f'],
    ['/d/ls', 'ls', link, '/d/sub'],
    ['/d/ls/', 'ls', directory + 2 ** 20 + 0o777, ''],
    ['/d/ls/.', '.', directory + 2 ** 20 + 0o777, ''],
    ['/ld/ls/x', 'x', 0o644, ''],
    ['/d/dangling', 'dangling', link, '/d/nowhere'],
    ['/d/climb', 'climb', link, '/etc/group'],
    ['/d/null', 'null', 2 ** 26 + 2 ** 21 + 0o644, ''],
    ['/d/pipe', 'pipe', 2 ** 25 + 0o644, ''],
    ['/d/deep', 'deep', directory + 2 ** 22 + 0o755, ''],
  ];
  for (const still of [false, true]) {
    it(still ? 'the same when the container rests' : 'HEAD and GET tell name, mode and target', async () => {
      if (still) await engine.call('POST', `${version}/containers/box/kill`);
      for (const [asked, name, mode, linkTarget] of found) {
        const answer = await head('box', asked);
        assert.equal(answer.status, 200, `${asked}: ${answer.status}`);
        const stat = statOf(answer);
        assert.deepEqual([stat.name, stat.mode, stat.linkTarget], [name, mode, linkTarget], asked);
        if (asked === '/') continue;
        const archived = await get('box', asked);
        assert.deepEqual(statOf(archived), stat, asked);
        assert.equal(archived.headers['content-type'], 'application/x-tar');
      }
      const file = statOf(await head('box', '/d/f'));
      assert.deepEqual([file.size, file.mtime], [6, '2001-02-03T04:05:06Z']);
    });

    it(`what is not there is 404, a file used as a directory is refused${still ? ', also when it rests' : ''}`, async () => {
      for (const asked of ['/nope', '/nope/x', '/d/dangling/', '/proc/self']) {
        const answer = await get('box', asked);
        assert.equal(answer.status, 404, asked);
        assert.equal(message(answer), `Could not find the file ${asked} in container box`);
        assert.equal((await head('box', asked)).status, 404);
      }
      for (const asked of ['/d/f/', '/d/f/.', '/d/f/x', '/d/lf/']) {
        const answer = await get('box', asked);
        assert.equal(answer.status, slipway ? 400 : 500, asked);
        assert.match(message(answer), /not a directory/);
      }
      assert.match(message(await get('box', '/d/loop')), /too many links/);
    });
  }

  it('the archive is named as the path was', async () => {
    assert.deepEqual(await list('box', '/d/lf'), ['lrwxrwxrwx 0/0 0 lf -> f']);
    assert.deepEqual(await list('box', '/d/ls/'), ['drwxrwxrwt 0/0 0 ls/', '-rw-r--r-- 12/34 2 ls/x']);
    assert.deepEqual(await list('box', '/d/ls/.'), ['drwxrwxrwt 0/0 0 ./', '-rw-r--r-- 12/34 2 ./x']);
    assert.deepEqual(await list('box', '/d'), [
      'drwxr-xr-x 0/0 0 d/',
      'lrwxrwxrwx 0/0 0 d/climb -> ../../../../etc/group',
      'lrwxrwxrwx 0/0 0 d/dangling -> nowhere',
      'drwxr-sr-x 0/0 0 d/deep/',
      'drwxr-xr-x 0/0 0 d/deep/er/',
      '-rwsr-xr-x 0/0 6 d/f',
      'hrwsr-xr-x 0/0 0 d/hard link to d/f',
      'lrwxrwxrwx 0/0 0 d/lf -> f',
      'lrwxrwxrwx 0/0 0 d/loop -> loop',
      'lrwxrwxrwx 0/0 0 d/ls -> sub',
      'crw-r--r-- 0/0 1,3 d/null',
      'prw-r--r-- 0/0 0 d/pipe',
      'drwxrwxrwt 0/0 0 d/sub/',
      '-rw-r--r-- 12/34 2 d/sub/x',
    ]);
  });

  it('POST copy, as it was before 1.24: links followed, of a directory what is in it', async () => {
    const copy = (resource: string, ref = 'box') =>
      engine.api('POST', `/v1.23/containers/${ref}/copy`, { Resource: resource });
    assert.deepEqual(listing((await copy('/d/ls')).body), ['-rw-r--r-- 12/34 2 x']);
    assert.deepEqual(listing((await copy('d/lf')).body), ['-rwsr-xr-x 0/0 6 f']);
    const missing = await copy('/nope');
    assert.deepEqual([missing.status, missing.text.trim()], [404, 'Could not find the file /nope in container box']);
    assert.deepEqual([(await copy('')).status, (await copy('')).text.trim()], [400, 'Path cannot be empty']);
    assert.equal((await copy('/', 'nobody')).status, 404);
    const gone = await engine.api('POST', '/v1.24/containers/box/copy', { Resource: '/d' });
    assert.deepEqual([gone.status, gone.text], [404, '']);
  });

  it('a container or a path that is not named', async () => {
    for (const method of ['HEAD', 'GET', 'PUT']) {
      assert.equal((await engine.api(method, `${version}/containers/box/archive`)).status, 400);
      assert.equal((await engine.api(method, `${version}/containers/nobody/archive?path=/`)).status, 404);
    }
    assert.equal(message(await get('nobody', '/')), 'No such container: nobody');
    if (slipway) assert.equal(message(await get('box', '')), "bad parameter: 'path' cannot be empty");
  });
});

describe('an archive that comes in', () => {
  const one = () => archive('echo new > n; chown 777:888 n; tar --numeric-owner -cf $OUT n');
  before(async () => {
    await running('box', tree);
  });
  after(() => remove('box'));

  it('is unpacked where the path leads, links followed', async () => {
    for (const place of ['/d', '/d/ls', '/ld/ls/', '/']) await mustPut('box', place, one());
    for (const place of ['/d/n', '/d/sub/n', '/n']) {
      assert.deepEqual(await list('box', place), ['-rw-r--r-- 777/888 4 n'], place);
    }
  });

  it('comes in every compression there is', async () => {
    for (const program of ['gzip', 'bzip2', 'xz', ...(slipway ? ['zstd'] : [])]) {
      const packed = archive(`echo ${program} > z; tar -cf - z | ${program} -c > $OUT`);
      await mustPut('box', '/d', packed);
      assert.equal(await content('box', '/d/z'), `${program}\n`);
    }
  });

  it('has every kind of file, and comes out again as it went in', async () => {
    const long = 'long'.repeat(60);
    const made = archive(`
      mkdir -p all/dir all/${long}
      echo a > all/file; ln all/file all/hard; ln -s ../../out all/link; ln -s /abs all/abs
      mkfifo all/pipe; mknod all/char c 5 7; mknod all/block b 8 65535
      echo deep > all/${long}/${long}; truncate -s 3M all/sparse; printf x | dd of=all/sparse bs=1 seek=2000000 conv=notrunc status=none
      chown 3000000:4000000 all/file; chmod 6711 all/hard; chmod 1777 all/dir
      touch -d '1969-12-31 23:59:58.25 UTC' all/dir/old; touch -d '2030-01-02 03:04:05.123456789 UTC' all/dir/new
      mkdir all/dir/a 'all/dir/with blank' && touch "$(printf 'all/dir/\\303\\251\\377')"
      tar --numeric-owner --xattrs --sparse --format=pax -cf $OUT all`);
    await mustPut('box', '/d', made);
    const back = await get('box', '/d/all');
    // Hard links may go either way round.
    const plain = (lines: string[]) =>
      lines.map((line) => line.replace(/^h(\S+) (\S+) 0 (\S+) link to .*/, '-$1 $2 2 $3'));
    assert.deepEqual(plain(listing(back.body)), plain(listing(made)));
    if (!slipway) return;
    const timesOf = (tar: Buffer) =>
      execFileSync('tar', ['-tvf', '-', '--full-time', '--utc'], { input: tar, encoding: 'utf8' })
        .split('\n')
        .filter((line) => /\/(old|new)$/.test(line));
    assert.deepEqual(
      timesOf(back.body),
      timesOf(made).sort((a, b) => b.localeCompare(a)),
    );
    assert.match(timesOf(back.body).join(), /2030-01-02 03:04:05\.123456789/);
  });

  it('keeps holes and attributes', { skip: !slipway }, async () => {
    const made = archive(`
      truncate -s 200M holes; printf x | dd of=holes bs=1 seek=150000000 conv=notrunc status=none
      cp /bin/true able
      ${note} able set; tar --sparse --xattrs --xattrs-include='*' -cf $OUT holes able`);
    const both = 'has user.note\nhas security.capability\n';
    assert.ok(made.length < 1_000_000);
    await mustPut('box', '/d', made);
    const pid = (await engine.call('GET', `${version}/containers/box/json`)).State.Pid;
    const stat = fs.statSync(`/proc/${pid}/root/d/holes`);
    assert.equal(stat.size, 200 * 1024 * 1024);
    assert.ok(stat.blocks < 1000, `${stat.blocks} blocks`);
    assert.equal(sh(`${note} /proc/${pid}/root/d/able`), both);
    fs.writeFileSync(path.join(scratch, 'able.tar'), (await get('box', '/d/able')).body);
    sh('mkdir -p able.d; tar --xattrs --xattrs-include="*" -C able.d -xf able.tar');
    assert.equal(sh(`${note} able.d/able`), both);
  });

  it('holds files larger than the header of old can say', { skip: !slipway }, async () => {
    const size = 9 * 2 ** 30;
    await mustPut('box', '/d', archive(`truncate -s ${size} huge; printf x >> huge; tar --sparse -cf $OUT huge`));
    assert.equal(statOf(await head('box', '/d/huge')).size, size + 1);
    const answer = await open(engine.paths.socket, 'GET', at('box', '/d/huge'));
    const [start] = (await once(answer, 'data')) as [Buffer];
    answer.destroy();
    assert.match(start.toString('latin1', 0, 2048), new RegExp(` size=${size + 1}\n`));
    await engine.mustDocker(['exec', 'box', 'rm', '/d/huge']);
  });

  it('never leads outside', async () => {
    const canary = path.join(scratch, 'canary');
    fs.writeFileSync(canary, 'alive');
    const up = `${'../'.repeat(30)}${canary.slice(1)}`;
    const climb = archive(`mkdir in; cd in; echo dead > x; tar -Pcf $OUT --transform 's,x,${up},' x`);
    const refused = await put('box', '/d', climb);
    assert.equal(refused.status, slipway ? 400 : 500, refused.text);
    await mustPut('box', '/d', archive(`ln -s ${scratch} way; tar -cf $OUT way`));
    await put('box', '/d', archive('mkdir way; echo dead > way/canary; tar -cf $OUT way/canary'));
    await mustPut('box', '/d', archive(`echo dead > x; tar -Pcf $OUT --transform 's,x,${canary},' x`));
    await put('box', '/d', archive(`echo a > a; ln a b; tar -Pcf $OUT --transform 's,^a$,${canary},h' a b`));
    assert.equal(fs.readFileSync(canary, 'utf8'), 'alive');
    assert.equal(fs.statSync(canary).nlink, 1);
  });

  it('replaces what is there, but no directory by a file and the reverse when asked', async () => {
    const file = archive('echo f > sub; tar -cf $OUT sub');
    const directory = archive('mkdir f; tar -cf $OUT f');
    const kept = '&noOverwriteDirNonDir=1';
    assert.match(
      message(await put('box', '/d', file, kept)),
      /cannot overwrite directory "\/d\/sub" with non-directory "\/d"/,
    );
    assert.match(
      message(await put('box', '/d', directory, kept)),
      /cannot overwrite non-directory "\/d\/f" with directory "\/d"/,
    );
    assert.equal((await put('box', '/d', directory, kept)).status, slipway ? 400 : 500);
    await mustPut('box', '/d', file);
    await mustPut('box', '/d', directory);
    assert.deepEqual(await list('box', '/d/sub'), ['-rw-r--r-- 0/0 2 sub']);
    assert.deepEqual(await list('box', '/d/f'), ['drwxr-xr-x 0/0 0 f/']);
  });

  it('is refused where it cannot go, and when it is none', async () => {
    const [badRequest] = slipway ? [400] : [500];
    for (const place of ['/d/hard', '/d/hard/', '/d/null']) {
      const answer = await put('box', place, one());
      assert.deepEqual([answer.status, message(answer)], [badRequest, 'extraction point is not a directory'], place);
    }
    for (const place of ['/nope', '/d/dangling']) {
      const answer = await put('box', place, one());
      assert.deepEqual([answer.status, message(answer)], [404, `Could not find the file ${place} in container box`]);
    }
    assert.equal((await put('box', '/d', 'this is no tar'.repeat(100))).status, badRequest);
    assert.equal((await put('box', '/d', execFileSync('gzip', { input: one() }).subarray(0, 60))).status, badRequest);
    assert.equal((await put('box', '/d', one().subarray(0, 514))).status, badRequest);
    assert.equal((await put('box', '/d', '')).status, 200); // as dockerd: nothing to unpack
  });

  it('leaves mounts alone', { skip: !slipway }, async () => {
    const answer = await put('box', '/etc', archive('echo 1.2.3.4 me > hosts; tar -cf $OUT hosts'));
    assert.equal(answer.status, 500);
    assert.match(message(answer), /busy/);
    const pid = (await engine.call('GET', `${version}/containers/box/json`)).State.Pid;
    assert.match(fs.readFileSync(`/proc/${pid}/mountinfo`, 'utf8'), / \/etc\/hosts /);
    await mustPut('box', '/', archive('mkdir -p sys proc; chmod 700 sys proc; touch mine; tar -cf $OUT sys proc mine'));
    assert.deepEqual(await list('box', '/mine'), ['-rw-r--r-- 0/0 0 mine']);
  });

  it("belongs to the container's user when asked", { skip: !slipway }, async () => {
    await create('user', 'true', {}, { User: '55:66' });
    assert.equal((await put('user', '/tmp', one(), '&copyUIDGID=1')).status, 200);
    assert.deepEqual(await list('user', '/tmp/n'), ['-rw-r--r-- 55/66 4 n']);
    await remove('user');
  });
});

describe('through mounts', () => {
  const one = () => archive('echo new > n; tar -cf $OUT n');

  it('volumes and binds, resting and running; tmpfs when running', async () => {
    const shared = path.join(scratch, 'shared');
    fs.mkdirSync(shared, { recursive: true });
    fs.writeFileSync(path.join(shared, 'host'), 'from the host');
    const host = { Binds: ['vol-one:/vol', `${shared}:/bind`, `${shared}:/ro:ro`], Tmpfs: { '/t': '' } };
    const name = 'mounted';
    await create(name, 'mkdir -p /t/in; echo here > /t/in/f; ln -s /vol/n /through; exec sleep 1000', host);
    assert.equal(await content(name, '/bind/host'), 'from the host');
    await mustPut(name, '/vol', one());
    await mustPut(name, '/bind', one());
    assert.equal(fs.readFileSync(path.join(shared, 'n'), 'utf8'), 'new\n');
    const refused = await put(name, '/ro', one());
    assert.deepEqual([refused.status, message(refused)], [slipway ? 403 : 500, 'mounted volume is marked read-only']);

    await engine.call('POST', `${version}/containers/${name}/start`);
    await eventually(async () => assert.equal((await head(name, '/through')).status, 200));
    assert.equal(await content(name, '/vol/n'), 'new\n');
    assert.equal(statOf(await head(name, '/through')).linkTarget, '/vol/n');
    assert.equal((await put(name, '/ro', one())).status, slipway ? 403 : 500);
    if (slipway) {
      assert.equal(await content(name, '/t/in/f'), 'here\n');
      await mustPut(name, '/t/in', one());
      assert.equal(await engine.mustDocker(['exec', name, 'cat', '/t/in/n']), 'new\n');
    }
    await engine.call('POST', `${version}/containers/${name}/pause`);
    assert.equal(await content(name, '/vol/n'), 'new\n');
    await mustPut(name, '/vol', one());
    await engine.call('POST', `${version}/containers/${name}/unpause`);
    await remove(name);
  });

  it('a read-only root, but for its volumes', async () => {
    await create('fixed', 'exec sleep 1000', { ReadonlyRootfs: true, Binds: ['vol-two:/v'] });
    for (const started of [false, true]) {
      if (started) await engine.call('POST', `${version}/containers/fixed/start`);
      for (const place of ['/', '/etc']) {
        const answer = await put('fixed', place, one());
        assert.deepEqual(
          [answer.status, message(answer)],
          [slipway ? 403 : 500, 'container rootfs is marked read-only'],
        );
      }
      await mustPut('fixed', '/v', one());
    }
    await remove('fixed');
  });

  it('a copy in goes on while the container starts and stops, and nothing stays mounted', async () => {
    const big = archive('head -c 30000000 /dev/urandom > big; tar -cf $OUT big');
    await create('moving', 'exec sleep 1000');
    const slow = await open(engine.paths.socket, 'GET', at('moving', '/bin'), undefined);
    const copying = put('moving', '/tmp', big);
    await engine.call('POST', `${version}/containers/moving/start`);
    await engine.call('POST', `${version}/containers/moving/kill`);
    await engine.api('POST', `${version}/containers/moving/wait`);
    assert.equal((await copying).status, 200);
    let bytes = 0;
    for await (const part of slow) bytes += (part as Buffer).length;
    assert.ok(bytes > 500_000, `${bytes}`);
    assert.equal((await head('moving', '/tmp/big')).status, 200);
    await engine.call('POST', `${version}/containers/moving/start`);
    assert.equal(await engine.mustDocker(['exec', 'moving', 'sh', '-c', 'wc -c < /tmp/big']), '30000000\n');
    await remove('moving');
  });

  it('a copy in and a copy out go to their end while the container is removed', { skip: !slipway }, async () => {
    const big = archive('head -c 30000000 /dev/urandom > big; tar -cf $OUT big');
    for (const runs of [true, false]) {
      await create('going', 'exec sleep 1000');
      if (runs) await engine.call('POST', `${version}/containers/going/start`);
      await mustPut('going', '/root', big);
      const slow = await open(engine.paths.socket, 'GET', at('going', '/root/big'));
      const upload = request({
        socketPath: engine.paths.socket,
        method: 'PUT',
        path: at('going', '/var'),
        agent: false,
      });
      await new Promise((resolve) => upload.write(big.subarray(0, 20_000_000), resolve));
      await remove('going');
      upload.end(big.subarray(20_000_000));
      const [answer] = (await once(upload, 'response')) as [IncomingMessage];
      answer.resume();
      assert.equal(answer.statusCode, 200, `runs: ${runs}`);
      let bytes = 0;
      for await (const part of slow) bytes += (part as Buffer).length;
      assert.ok(bytes > 30_000_000, `${bytes}, runs: ${runs}`);
    }
    await engine.assertNoLeaks();
  });

  it('a client that leaves in the middle leaves nothing open', { skip: !slipway }, async () => {
    await create('left', 'true');
    await mustPut('left', '/', archive('mkdir m; head -c 50000000 /dev/zero > m/big; tar -cf $OUT m'));
    const descriptors = () => fs.readdirSync(`/proc/${engine.pid}/fd`).length;
    await head('left', '/');
    await sleep(100);
    const before = descriptors();
    for (let round = 0; round < 5; round++) {
      const answer = await open(engine.paths.socket, 'GET', at('left', '/m'));
      answer.destroy();
      const upload = request({
        socketPath: engine.paths.socket,
        method: 'PUT',
        path: at('left', '/tmp'),
        agent: false,
      });
      upload.on('error', () => undefined);
      const part = archive('head -c 3000000 /dev/zero > part; tar -cf $OUT part').subarray(0, 2_000_000);
      await new Promise((resolve) => upload.write(part, resolve));
      upload.destroy();
    }
    await eventually(() => assert.ok(descriptors() <= before + 2, `${before} descriptors became ${descriptors()}`));
    await remove('left');
    await engine.assertNoLeaks();
  });
});

describe('changes', () => {
  const changed = async (script: string) => {
    await create('edited', script);
    await engine.call('POST', `${version}/containers/edited/start`);
    await engine.api('POST', `${version}/containers/edited/wait`);
    const answer = await engine.call('GET', `${version}/containers/edited/changes`);
    await remove('edited');
    return (
      (answer as { Path: string; Kind: number }[] | null)?.map(({ Path, Kind }) => `${Kind} ${Path}`).sort() ?? null
    );
  };

  it('null for none', async () => {
    await create('fresh', 'true');
    assert.equal(await engine.call('GET', `${version}/containers/fresh/changes`), null);
    await remove('fresh');
    assert.equal(await changed('true'), null);
  });

  const edits: readonly (readonly [script: string, changes: readonly string[]])[] = [
    [
      'rm /etc/passwd; echo x > /etc/new; mkdir -p /a/b; touch /a/b/f; chmod 700 /tmp; rm -rf /home',
      ['0 /etc', '0 /tmp', '1 /a', '1 /a/b', '1 /a/b/f', '1 /etc/new', '2 /etc/passwd', '2 /home'],
    ],
    ['ln -sf sh /bin/vi; mv /root /toor', ['0 /bin', '0 /bin/vi', '1 /toor', '2 /root']],
    ['touch /var/x; rm /var/x; mkdir /var/y; rmdir /var/y', []],
    ['rm -rf /var; mkdir -p /var/spool/own', ['0 /var', '0 /var/spool', '1 /var/spool/own', '2 /var/www']],
    ['rmdir /home; touch /home', ['0 /home']],
    ['rm -rf /var; mkdir /var; rm -rf /var; mkdir -p /var/www', ['0 /var', '2 /var/spool']],
    ['chown 1:1 /etc; touch /etc', ['0 /etc']],
    ['mkfifo /p; ln /etc/group /hard; mknod /n c 1 3', ['1 /hard', '1 /n', '1 /p']],
  ];
  for (const [script, expected] of edits) {
    it(script, async () => assert.deepEqual((await changed(script)) ?? [], expected));
  }
});

describe('export', () => {
  it('is the whole tree without volumes, and an image when imported', async () => {
    await running('whole', 'echo mine > /mine; rm /etc/passwd; echo vol > /vol/f', { Binds: ['vol-three:/vol'] });
    const answer = await engine.api('GET', `${version}/containers/whole/export`);
    assert.deepEqual([answer.status, answer.headers['content-type']], [200, 'application/octet-stream']);
    const lines = listing(answer.body);
    for (const line of ['-rw-r--r-- 0/0 5 mine', '-rwxr-xr-x 0/0 0 etc/hosts', '-rwxr-xr-x 0/0 0 .dockerenv']) {
      assert.ok(lines.includes(line), `${line} in\n${lines.filter((one) => !one.includes(' -> ')).join('\n')}`);
    }
    assert.ok(lines.some((line) => line.endsWith(' vol/')));
    assert.ok(!lines.some((line) => /etc\/passwd|vol\/f|proc\/1/.test(line)));
    await engine.call(
      'POST',
      `${version}/images/create?fromSrc=-&repo=exported&changes=${encodeURIComponent('CMD ["cat","/mine"]')}`,
      answer.body,
    );
    assert.equal(await engine.mustDocker(['run', '--rm', '--network', 'none', 'exported']), 'mine\n');
    await remove('whole');
    assert.equal((await engine.api('GET', `${version}/containers/whole/export`)).status, 404);
  });
});
