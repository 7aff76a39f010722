/**
 * `POST /commit` against a running engine, and where it matters beside dockerd: an image of what a container changed.
 *
 * test-timeout-seconds: 240
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually } from '../support/command.ts';
import { clis, type EngineKind, TestEngine } from '../support/engine.ts';
import type { Loose } from '../support/http.ts';
import { busyboxArchive, importBusybox, startRegistryBeside } from '../support/images.ts';

let engine: TestEngine;
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
});
after(() => engine?.close());

async function start(on: TestEngine, name: string, script: string, more: object = {}): Promise<string> {
  const body = { Image: 'busybox', Cmd: ['sh', '-c', script], ...more };
  const { Id } = await on.call('POST', `/containers/create?name=${name}`, body);
  await on.call('POST', `/containers/${Id}/start`);
  return Id;
}

/** A container that has done something and ended. */
async function ended(on: TestEngine, name: string, script: string, more: object = {}): Promise<string> {
  const id = await start(on, name, script, more);
  const { StatusCode } = await on.call('POST', `/containers/${id}/wait`);
  assert.equal(StatusCode, 0, (await on.api('GET', `/containers/${id}/logs?stdout=1&stderr=1`)).text);
  return id;
}

const commit = async (on: TestEngine, query: string, body?: object): Promise<string> =>
  (await on.call('POST', `/v1.26/commit?${query}`, body)).Id;
const changes = (...lines: string[]) => lines.map((line) => `&changes=${encodeURIComponent(line)}`).join('');

async function output(on: TestEngine, image: string, ...cmd: string[]): Promise<string> {
  return on.mustDocker(['run', '--rm', '--network', 'none', image, ...cmd]);
}

async function eventsOf(on: TestEngine, since: number, filter: object): Promise<Loose[]> {
  const query = new URLSearchParams({
    since: String(since),
    until: String(Math.ceil(Date.now() / 1000) + 1),
    filters: JSON.stringify(filter),
  });
  const { text } = await on.api('GET', `/events?${query}`);
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

const paused = (id: string): boolean =>
  fs.globSync(`/sys/fs/cgroup/{freezer/,}**/${id}/{freezer.state,cgroup.freeze}`).some((file) => {
    const state = fs.readFileSync(file, 'utf8').trim();
    return state === 'FROZEN' || state === '1';
  });

describe('the image', () => {
  test('has the changes of the container, its config, and a history', async () => {
    const since = Math.floor(Date.now() / 1000);
    const id = await ended(engine, 'edited', 'echo a > /a; rm /bin/ls; mkdir /d; echo b > /d/b', {
      Env: ['A=1'],
      Labels: { tier: 'front' },
      Volumes: { '/kept-apart': {} },
    });
    const image = await commit(engine, 'container=edited&repo=example/edited&tag=one&author=me&comment=why');
    const base = await engine.call('GET', '/images/busybox/json');
    const inspected = await engine.call('GET', `/v1.26/images/${image}/json`);
    const container = await engine.call('GET', '/v1.26/containers/edited/json');
    assert.deepEqual(inspected.RepoTags, ['example/edited:one']);
    assert.equal(inspected.Parent, base.Id);
    assert.equal(inspected.Author, 'me');
    assert.equal(inspected.Comment, 'why');
    assert.equal(inspected.Container, id);
    assert.deepEqual(inspected.Config, container.Config);
    assert.deepEqual(inspected.ContainerConfig, container.Config);
    assert.equal(inspected.DockerVersion, (await engine.call('GET', '/version')).Version);
    assert.equal(inspected.RootFS.Layers.length, 2);
    assert.deepEqual(inspected.RootFS.Layers.slice(0, 1), base.RootFS.Layers);
    assert.equal(inspected.Size, base.Size + 4);
    const [row, below] = await engine.call('GET', `/images/${image}/history`);
    assert.equal(row.Id, image);
    assert.equal(row.CreatedBy, 'sh -c echo a > /a; rm /bin/ls; mkdir /d; echo b > /d/b');
    assert.equal(row.Comment, 'why');
    assert.equal(row.Size, 4);
    assert.equal(below.Id, base.Id);

    assert.equal(await output(engine, image, 'sh', '-c', 'cat /a /d/b; echo $A'), 'a\nb\n1\n');
    assert.equal((await engine.docker(['run', '--rm', image, 'ls'])).code, 127);
    assert.equal(await output(engine, 'busybox', 'sh', '-c', 'ls /a /d 2>/dev/null; echo as before'), 'as before\n');

    const tag = (await eventsOf(engine, since, { type: ['image'], event: ['tag'] })).at(-1);
    assert.deepEqual(tag.Actor, { ID: image, Attributes: { name: 'example/edited:one', tier: 'front' } });
    const [event] = await eventsOf(engine, since, { container: [id], event: ['commit'] });
    assert.deepEqual(event.Actor, {
      ID: id,
      Attributes: {
        comment: 'why',
        image: 'busybox',
        imageID: image,
        imageRef: 'example/edited:one',
        name: 'edited',
        tier: 'front',
      },
    });
  });

  test('of a container that changed nothing has no layer more', async () => {
    for (const [name, run] of [
      ['untouched', false],
      ['idle', true],
    ] as const) {
      if (run) await ended(engine, name, 'true', { Volumes: { '/tmp': {} } });
      else await engine.call('POST', `/containers/create?name=${name}`, { Image: 'busybox' });
      const image = await commit(engine, `container=${name}`);
      const { RootFS, RepoTags, Size } = await engine.call('GET', `/images/${image}/json`);
      const base = await engine.call('GET', '/images/busybox/json');
      assert.deepEqual(RootFS, base.RootFS, name);
      assert.equal(Size, base.Size);
      assert.deepEqual(RepoTags, []);
      const rows = await engine.call('GET', `/images/${image}/history`);
      assert.deepEqual([rows.length, rows[0].Size, rows[0].Id], [2, 0, image]);
      assert.equal(await output(engine, image, 'echo', 'runs'), 'runs\n');
    }
  });

  test("holds nothing of volumes, binds, tmpfs and of the engine's own mounts", async () => {
    const bound = path.join(engine.paths.directory, 'bound');
    fs.mkdirSync(bound);
    await ended(
      engine,
      'mounted',
      'touch /vol/x /mnt/x /tmp/x /dev/shm/x; echo 127.9.9.9 me >> /etc/hosts; ls -A /vol /mnt /tmp',
      {
        Volumes: { '/vol': {} },
        HostConfig: { Binds: [`${bound}:/mnt`], Tmpfs: { '/tmp': '' } },
      },
    );
    const image = await commit(engine, 'container=mounted');
    // The image names the volume, so that it is looked into as a file system.
    const saved = await engine.mustDocker(['create', image, 'true']);
    const { GraphDriver } = await engine.call('GET', `/images/${image}/json`);
    const left = fs
      .readdirSync(GraphDriver.Data.UpperDir, { recursive: true, encoding: 'utf8' })
      .filter((name) => fs.lstatSync(path.join(GraphDriver.Data.UpperDir, name)).isFile());
    assert.deepEqual(left, []);
    const place = fs.statSync(path.join(GraphDriver.Data.UpperDir, 'vol'));
    assert.equal(place.mode & 0o7777, 0o755, 'the place of a volume is a plain directory');
    assert.match(saved, /^[0-9a-f]{64}$/m);
  });

  test('can be named, saved, loaded, pushed and removed', async () => {
    const registry = await startRegistryBeside(engine);
    await ended(engine, 'travels', 'echo far > /far');
    const name = `${registry}/travels:1`;
    const image = await commit(engine, `container=travels&repo=${registry}/travels&tag=1`);
    await engine.mustDocker(['push', name]);
    const archive = path.join(engine.paths.directory, 'travels.tar');
    await engine.mustDocker(['save', '-o', archive, name]);
    await engine.mustDocker(['rm', 'travels']);
    const [untagged, ...deleted] = await engine.call('DELETE', `/images/${name}`);
    assert.deepEqual(untagged, { Untagged: name });
    assert.ok(deleted.some((row: Loose) => row.Deleted === image));
    assert.equal((await engine.api('GET', `/images/${image}/json`)).status, 404);
    await engine.mustDocker(['load', '-i', archive]);
    assert.equal((await engine.call('GET', `/images/${name}/json`)).Id, image, 'the very document comes back');
    await engine.mustDocker(['rmi', name]);
    await engine.mustDocker(['pull', name]);
    assert.equal((await engine.call('GET', `/images/${name}/json`)).Id, image);
    assert.equal(await output(engine, name, 'cat', '/far'), 'far\n');
  });

  test('of an image of an image goes on in its history', async () => {
    await ended(engine, 'first', 'echo 1 > /1');
    await commit(engine, 'container=first&repo=first');
    await ended(engine, 'second', 'echo 2 > /2; rm /1', { Image: 'first' });
    const image = await commit(engine, 'container=second&repo=second');
    const rows = await engine.call('GET', `/images/${image}/history`);
    assert.deepEqual(
      rows.map((row: Loose) => row.Tags),
      [['second:latest'], ['first:latest'], ['busybox:latest']],
    );
    assert.equal(await output(engine, 'second', 'sh', '-c', 'cat /2; cat /1 2>/dev/null || echo gone'), '2\ngone\n');
    const refused = await engine.api('DELETE', '/images/first');
    assert.equal(refused.status, 409, refused.text);
  });
});

describe('the config', () => {
  test('is what the body says, filled up with the container’s', async () => {
    await engine.call('POST', '/containers/create?name=config', {
      Image: 'busybox',
      Cmd: ['old'],
      Entrypoint: ['env'],
      Env: ['A=1', 'B=1'],
      Labels: { a: '1', b: '1' },
      ExposedPorts: { '80/tcp': {} },
      Volumes: { '/v': {} },
      User: 'joe',
      WorkingDir: '/w',
      StopSignal: 'SIGINT',
    });
    const image = await commit(engine, 'container=config', {
      Cmd: ['new'],
      Env: ['A=2'],
      Labels: { a: '2' },
      ExposedPorts: { '90/udp': {} },
    });
    const { Config, ContainerConfig } = await engine.call('GET', `/images/${image}/json`);
    assert.deepEqual(Config.Cmd, ['new']);
    assert.deepEqual(Config.Entrypoint, ['env']);
    assert.deepEqual(Config.Env, ['A=2', 'B=1']);
    assert.deepEqual(Config.Labels, { a: '2', b: '1' });
    assert.deepEqual(Config.ExposedPorts, { '80/tcp': {}, '90/udp': {} });
    assert.deepEqual([Config.User, Config.WorkingDir, Config.StopSignal], ['joe', '/w', 'SIGINT']);
    assert.equal(Config.Hostname, '');
    assert.deepEqual(ContainerConfig.Cmd, ['old'], 'the container’s own, unchanged');
  });

  test('takes Dockerfile instructions with variables', async () => {
    const image = await commit(
      engine,
      `container=config${changes(
        'ENV C=$A-x D=$' + '{NOPE:-d} E=\'$A\' \\\n F="q r"',
        'LABEL c=$B\n# nothing\nEXPOSE 53/udp $B',
        'WORKDIR sub',
        'ENTRYPOINT ["e"]',
        'ONBUILD RUN x',
      )}`,
    );
    const { Config } = await engine.call('GET', `/images/${image}/json`);
    assert.deepEqual(Config.Env, ['A=1', 'B=1', 'C=1-x', 'D=d', 'E=$A', 'F=q r']);
    assert.equal(Config.Labels.c, '1');
    assert.deepEqual(Object.keys(Config.ExposedPorts).sort(), ['1/tcp', '53/udp', '80/tcp']);
    assert.equal(Config.WorkingDir, '/w/sub');
    assert.deepEqual([Config.Entrypoint, Config.Cmd], [['e'], null], 'the old command was for the old entrypoint');
    assert.deepEqual(Config.OnBuild, ['RUN x']);
  });

  test('what cannot be is refused before anything is made', async () => {
    const before = (await engine.call('GET', '/images/json?all=1')).length;
    const digest = `sha256:${'a'.repeat(64)}`;
    for (const [query, status, message] of [
      ['container=nosuch', 404, 'No such container: nosuch'],
      ['', 400, 'invalid name or ID supplied: ""'],
      ['container=config&repo=UPPER', 400, 'invalid reference format: repository name must be lowercase'],
      ['container=config&repo=a&tag=b:c', 400, 'invalid tag format'],
      [`container=config&repo=a@${digest}`, 400, 'refusing to create a tag with a digest reference'],
      ['container=config&changes=RUN%20x', 400, 'run is not a valid change command'],
      ['container=config&changes=FROM%20x', 400, 'from is not a valid change command'],
      ['container=config&changes=ENV%20x', 400, 'ENV must have two arguments'],
      ['container=config&changes=USER', 400, 'USER requires exactly one argument'],
      ['container=config&changes=', 400, 'file with no instructions'],
      [
        'container=config&changes=CMD%20[1]',
        400,
        'when using JSON array syntax, arrays must be comprised of strings only',
      ],
    ] as const) {
      const answer = await engine.api('POST', `/v1.26/commit?${query}`);
      assert.deepEqual([answer.status, answer.json()], [status, { message }], query);
    }
    const plain = await engine.api('POST', '/v1.26/commit?container=config', '{}', {
      headers: { 'Content-Type': 'text/plain' },
    });
    assert.equal(plain.status, 400);
    assert.equal((await engine.call('GET', '/images/json?all=1')).length, before);
  });

  test('a container whose image was removed by force cannot be committed', async () => {
    await importBusybox(engine, 'short:lived', ['ENV lived=short']);
    await engine.call('POST', '/containers/create?name=orphan', { Image: 'short:lived', Cmd: ['true'] });
    const { Image } = await engine.call('GET', '/containers/orphan/json');
    await engine.call('DELETE', `/images/${Image}?force=1`);
    const answer = await engine.api('POST', '/commit?container=orphan');
    assert.deepEqual([answer.status, answer.json().message], [404, `No such image: ${Image}`]);
  });
});

describe('a running container', () => {
  test('is held still while it is read, and goes on after success and failure', async () => {
    const since = Math.floor(Date.now() / 1000);
    const id = await start(engine, 'writer', 'head -c 60000000 /dev/zero > /big; while :; do date > /now; done');
    await eventually(async () => {
      assert.equal(
        (await engine.call('GET', `/containers/json?size=1&filters={"id":["${id}"]}`))[0].SizeRw > 6e7,
        true,
      );
    }, 20_000);
    let seen = false;
    const watching = setInterval(() => {
      seen ||= paused(id);
    }, 5);
    const image = await commit(engine, 'container=writer');
    clearInterval(watching);
    assert.ok(seen, 'it was frozen');
    assert.ok(!paused(id));
    const names = (await eventsOf(engine, since, { container: [id] })).map(({ Action }) => Action);
    assert.deepEqual(
      names.filter((name) => name !== 'top'),
      ['create', 'start', 'pause', 'unpause', 'commit'],
    );
    assert.equal((await engine.call('GET', `/containers/${id}/json`)).State.Paused, false);
    assert.equal((await output(engine, image, 'sh', '-c', 'wc -c < /big')).trim(), '60000000');
    await commit(engine, 'container=writer&pause=0');
    const later = (await eventsOf(engine, since, { container: [id] })).map(({ Action }) => Action);
    assert.equal(later.filter((name) => name === 'pause').length, 1, 'not with pause=0');
  });

  test('two at once hold it still together', async () => {
    const images = await Promise.all([1, 2, 3].map(() => commit(engine, 'container=writer')));
    assert.equal(new Set(images).size, 3);
    const { Id } = await engine.call('GET', '/containers/writer/json');
    assert.ok(!paused(Id));
    // Nothing wrote while one of them read: they hold the same.
    const layers = await Promise.all(
      images.map(async (i) => (await engine.call('GET', `/images/${i}/json`)).RootFS.Layers[1]),
    );
    assert.equal(new Set(layers).size, 1);
  });

  test('that its user paused stays paused', async () => {
    await engine.call('POST', '/containers/writer/pause');
    await commit(engine, 'container=writer');
    const { State, Id } = await engine.call('GET', '/containers/writer/json');
    assert.deepEqual([State.Paused, paused(Id)], [true, true]);
    await engine.call('POST', '/containers/writer/unpause');
  });

  test('can be stopped and removed meanwhile; a commit of half a container is none', async () => {
    const before = (await engine.call('GET', '/images/json?all=1')).length;
    const { Id } = await engine.call('GET', '/containers/writer/json');
    const committing = engine.api('POST', '/commit?container=writer');
    await eventually(() => assert.ok(paused(Id)));
    const removed = await engine.api('DELETE', `/containers/${Id}?force=1`);
    assert.equal(removed.status, 204, removed.text);
    const answer = await committing;
    if (answer.status === 201) return; // it was faster
    assert.equal(answer.status, 409, answer.text);
    assert.match(answer.json().message, /^You cannot commit container [0-9a-f]{64} which is being removed$/);
    assert.equal((await engine.call('GET', '/images/json?all=1')).length, before);
  });

  test('goes on after the daemon was killed while it read', async (t) => {
    const own = await TestEngine.start();
    t.after(() => own.close());
    await importBusybox(own);
    const id = await start(own, 'survivor', 'head -c 100000000 /dev/zero > /big; : > /ready; sleep 1000');
    await eventually(async () => {
      assert.ok((await own.call('GET', `/containers/json?size=1&filters={"id":["${id}"]}`))[0].SizeRw >= 1e8);
    }, 20_000);
    const committing = own.api('POST', '/commit?container=survivor').catch(() => null);
    await eventually(() => assert.ok(paused(id)));
    await own.kill9();
    await committing;
    assert.ok(paused(id), 'nobody was left to let it go');
    await own.launch();
    await eventually(() => assert.ok(!paused(id)));
    assert.equal((await own.call('GET', '/containers/survivor/json')).State.Status, 'running');
    const image = await commit(own, 'container=survivor&repo=again');
    assert.equal((await own.call('GET', '/images/again/json')).Id, image);
    assert.deepEqual(
      fs.readdirSync(path.join(own.paths.dataRoot, 'layer')).filter((name) => name.startsWith('tmp-')),
      [],
    );
  });
});

test('images are pruned all the while: no commit fails, nothing an image needs goes', async (t) => {
  const own = await TestEngine.start();
  t.after(() => own.close());
  await importBusybox(own);
  await own.call('POST', '/containers/create?name=keeper', { Image: 'busybox' });
  let pruning = true;
  const prunes = (async () => {
    while (pruning) await own.call('POST', '/images/prune?filters={"dangling":["false"]}');
  })();
  for (let round = 0; round < 20; round++) {
    const name = `round-${round}`;
    await ended(own, name, `echo ${round} > /round`);
    // Named in the same step, so that no prune comes in between.
    await commit(own, `container=${name}&repo=pruned&tag=${round}`);
    const { Id } = await own
      .call('POST', '/containers/create', { Image: `pruned:${round}`, Cmd: ['cat', '/round'] })
      .catch(async (error: Error) => {
        // An image without a container is what this prune takes.
        assert.match(error.message, /404 .*No such image: pruned/);
        return { Id: null };
      });
    if (Id === null) continue;
    await own.call('POST', `/containers/${Id}/start`);
    assert.equal((await own.call('POST', `/containers/${Id}/wait`)).StatusCode, 0);
    assert.match((await own.api('GET', `/containers/${Id}/logs?stdout=1`)).text, new RegExp(`${round}\n$`));
  }
  pruning = false;
  await prunes;
});

describe('beside dockerd', () => {
  /** What a container does to its files; each becomes a layer here and there. */
  const corpus: Readonly<Record<string, string>> = {
    'files added, changed and removed':
      'echo new > /new; echo more >> /etc/passwd; rm /etc/group; touch -d 2001-02-03 /new; chmod 4751 /new',
    'a directory made anew': 'rm -r /home/user; mkdir /home/user; echo x > /home/user/x',
    'directories removed and emptied': 'rm -r /home; rm /etc/conf.d/*',
    'hard links': 'echo one > /one; ln /one /two; mkdir /sub; ln /one /sub/three; ln /etc/passwd /linked',
    'links and special files':
      'ln -s /nowhere /dangling; ln -sf /etc/passwd /etc/group; mknod /pipe p; mknod /null c 1 3',
    'owners and modes': 'chown 12:34 /etc/passwd; mkdir -m 1777 /sticky; chmod 2750 /etc/conf.d; chown 5:6 /home/user',
    'only a mode': 'chmod 700 /etc',
    'odd names': "touch '/a b' '/ü' '/.hidden' '/-dash' \"/$(printf 'x%.0s' $(seq 1 150))\"",
    'files copied and moved': 'cp /capable /copied; mv /capable /moved',
    'working directory': 'true',
  };
  const script = `mkdir -p /home/user /etc/conf.d; echo root:x:0:0 > /etc/passwd; echo g > /etc/group;
    echo 1 > /etc/conf.d/1; echo 2 > /etc/conf.d/2; echo u > /home/user/u; : > /capable`;

  /** Lines of `tar -tv` without times, each with all names of its file: which of several comes first is the archiver's choice. */
  function entriesOf(listing: string): string[] {
    const lines = listing.trim().split('\n');
    const names = new Map<string, string[]>();
    const entries: [line: string, name: string][] = [];
    for (const line of lines) {
      const parts = /^(\S+ \S+) +(\S+) \S+ \S+ ("(?:[^"\\]|\\.)*")(?: link to (".*"))?(.*)$/.exec(line);
      if (parts === null) throw new Error(`not a line of tar -tv: ${line}`);
      const [, head = '', size = '', name = '', first, rest = ''] = parts;
      if (first === undefined) entries.push([`${head} ${size}${rest}`, name]);
      names.set(first ?? name, [...(names.get(first ?? name) ?? []), name]);
    }
    return entries.map(([line, name]) => `${names.get(name)?.sort().join(' = ')} ${line}`).sort();
  }

  async function treesOf(
    kind: EngineKind,
    t: { after(fn: () => Promise<void>): void },
  ): Promise<Record<string, string[]>> {
    const on = await TestEngine.start({ kind });
    t.after(() => on.close());
    await on.call('POST', '/images/create?fromSrc=-&repo=busybox', busyboxArchive());
    await ended(on, 'base', script, { Cmd: ['sh', '-c', script] });
    await commit(on, 'container=base&repo=base');
    const trees: Record<string, string[]> = {};
    for (const [title, edit] of Object.entries(corpus)) {
      const name = `c${Object.keys(trees).length}`;
      await ended(on, name, edit, {
        Image: 'base',
        ...(title === 'working directory' && { WorkingDir: '/made/for/it' }),
      });
      const image = await commit(on, `container=${name}`);
      const archive = path.join(on.paths.directory, 'save');
      const answer = await on.api('GET', `/images/${image}/get`);
      fs.rmSync(archive, { recursive: true, force: true });
      fs.mkdirSync(archive);
      fs.writeFileSync(`${archive}.tar`, answer.body);
      await on.inNetns(['tar', '-C', archive, '-xf', `${archive}.tar`]);
      const [{ Layers }] = JSON.parse(fs.readFileSync(path.join(archive, 'manifest.json'), 'utf8'));
      const listed = await on.inNetns([
        'tar',
        '-tvf',
        path.join(archive, Layers.at(-1)),
        '--numeric-owner',
        '--quoting-style=c',
      ]);
      trees[title] = entriesOf(listed.stdout);
    }
    return trees;
  }

  test('the layers hold the same entries', async (t) => {
    const ours = await treesOf('slipway', t);
    const theirs = await treesOf('dockerd', t);
    for (const title of Object.keys(corpus)) assert.deepEqual(ours[title], theirs[title], title);
  });
});

describe('docker commit', () => {
  for (const cli of clis) {
    test(`with ${cli.name}`, async () => {
      const name = `cli-${cli.name}`;
      await start(engine, name, 'echo x > /x; sleep 1000');
      await eventually(async () => assert.match((await engine.docker(['exec', name, 'cat', '/x'])).stdout, /x/));
      const printed = await engine.mustDocker(
        [
          'commit',
          '-a',
          'A <a@b>',
          '-m',
          'the message',
          '-p',
          '-c',
          'CMD ["cat", "/x"]',
          '-c',
          'ENV K=v',
          name,
          `made/${name}:1`,
        ],
        { cli },
      );
      assert.match(printed, /^sha256:[0-9a-f]{64}\n$/);
      const image = await engine.call('GET', `/images/made/${name}:1/json`);
      assert.equal(image.Id, printed.trim());
      assert.deepEqual([image.Author, image.Comment], ['A <a@b>', 'the message']);
      assert.deepEqual(image.Config.Cmd, ['cat', '/x']);
      assert.ok(image.Config.Env.includes('K=v'));
      assert.equal(await engine.mustDocker(['run', '--rm', `made/${name}:1`], { cli }), 'x\n');
      const refused = await engine.docker(['commit', name, 'Bad'], { cli });
      assert.notEqual(refused.code, 0);
      assert.match(refused.stderr, /must be lowercase/);
    });
  }
});
