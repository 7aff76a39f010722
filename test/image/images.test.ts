/** The image store on real layers and a real store: import, names, lists, removal rules, archives, restarts. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { encodeImageConfig, runConfigOf } from '../../src/image/config.ts';
import { createImages, type ImageStore } from '../../src/image/images.ts';
import { parseReference } from '../../src/image/reference.ts';
import type { ImageUser } from '../../src/image/remove.ts';
import type { Progress } from '../../src/image/types.ts';
import type { DiffId, ImageId } from '../../src/lib/ids.ts';
import { silentLog } from '../../src/lib/log.ts';
import { archive, type Bench, bench, readAll, sha256, shell, streamOf } from '../layer/support.ts';

const never = new AbortController().signal;
const filters = (values: Readonly<Record<string, readonly string[]>> = {}) => new Map(Object.entries(values));
const nothing = async function* (): AsyncGenerator<Progress> {};

interface World extends AsyncDisposable {
  readonly b: Bench;
  readonly images: ImageStore;
  /** Containers by the image they were made from. */
  readonly users: Map<string, ImageUser[]>;
  reopen(): Promise<World>;
}

async function world(existing?: Bench): Promise<World> {
  const b = existing ?? (await bench());
  const users = new Map<string, ImageUser[]>();
  const images = await createImages({
    dir: path.join(b.dir, 'image'),
    store: b.store,
    layers: b.layers,
    containersUsing: (id) => users.get(id) ?? [],
    pull: nothing,
    push: nothing,
    version: '1.0',
    log: silentLog,
  });
  return {
    b,
    images,
    users,
    reopen: async () => world(await b.reopen()),
    [Symbol.asyncDispose]: () => b[Symbol.asyncDispose](),
  };
}

async function collect(stream: AsyncIterable<Progress>): Promise<Progress[]> {
  const messages: Progress[] = [];
  for await (const message of stream) messages.push(message);
  return messages;
}

/** Imports a tree of one file under a name; answers the id. */
async function importFile(
  images: ImageStore,
  content: string,
  name = '',
  changes: readonly string[] = [],
): Promise<ImageId> {
  const [repo = '', tag = ''] = name.split(':');
  const source = streamOf(archive({ name: 'file', content }));
  const messages = await collect(images.import({ source, repo, tag, message: '', changes }, never));
  return messages.at(-1)?.status as ImageId;
}

/** An image on top of the layers of another, made here. */
async function child(images: ImageStore, parent: ImageId, content: string, name = ''): Promise<ImageId> {
  const below = images.get(parent);
  assert.ok(below);
  const layer = await images.layers.apply(below.chainId, {
    from: { stream: streamOf(archive({ name: content, content })) },
  });
  const config = encodeImageConfig({
    config: below.config,
    created: '2020-02-02T02:02:02.5Z',
    history: [...below.history, { created_by: content }, { created_by: 'nothing', empty_layer: true }],
    diffIds: [...below.diffIds, layer.diffId],
  });
  const references = name === '' ? [] : [parseReference(name)];
  return (await images.keep(config, { references, events: [], parent })).id;
}

async function events(b: Bench): Promise<string[]> {
  return (await b.store.readEvents(0, 1000)).map(
    ({ action, id, attributes }) => `${action} ${id.slice(0, 19)} ${attributes.name}`,
  );
}

const layersOnDisk = (b: Bench) =>
  fs.readdirSync(path.join(b.dir, 'layer')).filter((name) => name.length === 26).length;

describe('images', () => {
  test('import, inspect, history, events; all of it is there after a restart', async () => {
    await using first = await world();
    const id = await importFile(first.images, 'hello', 'app:one', ['CMD ["x"]', 'LABEL a=b']);
    await first.images.tag(id.slice(7, 19), 'localhost:5000/app', 'two');
    await using second = await first.reopen();
    const { images } = second;
    const shown = await images.inspect('app:one');
    assert.equal(shown.Id, id);
    assert.equal(shown.Id, sha256(Buffer.from(await images.config(id))));
    assert.deepEqual(shown.RepoTags, ['app:one', 'localhost:5000/app:two']);
    assert.deepEqual([shown.Config.Cmd, shown.Config.Labels, shown.Size], [['x'], { a: 'b' }, 5]);
    assert.equal(shown.Comment, 'Imported from -');
    assert.equal(
      shown.GraphDriver.Data.UpperDir,
      images.layers.describe(images.resolve(id).chainId ?? assert.fail()).UpperDir,
    );
    const [row] = images.history('app:one');
    assert.deepEqual([row?.Id, row?.Tags, row?.Size, row?.Comment], [id, shown.RepoTags, 5, 'Imported from -']);
    assert.deepEqual(await events(second.b), [
      `tag ${id.slice(0, 19)} app:one`,
      `import ${id.slice(0, 19)} ${id}`,
      `tag ${id.slice(0, 19)} localhost:5000/app:two`,
    ]);
  });

  test('an import that fails leaves nothing', async () => {
    await using w = await world();
    const bad = { repo: 'x', tag: '', message: '', changes: [] };
    await assert.rejects(
      collect(w.images.import({ ...bad, source: streamOf(Buffer.from('no tar'.repeat(200))) }, never)),
      { kind: 'invalid' },
    );
    await assert.rejects(collect(w.images.import({ ...bad, source: streamOf(archive()), changes: ['RUN x'] }, never)), {
      kind: 'invalid',
    });
    await assert.rejects(collect(w.images.import({ ...bad, repo: 'Upper', source: streamOf(archive()) }, never)), {
      kind: 'invalid',
    });
    assert.equal((await w.images.list({ all: true, digests: true, filters: filters() })).length, 0);
    assert.equal(layersOnDisk(w.b), 0);
  });

  test('resolving', async () => {
    await using w = await world();
    const id = await importFile(w.images, 'x', 'app:latest');
    const digest = sha256('some manifest');
    await w.images.setReference(parseReference(`app@${digest}`), id);
    for (const name of [
      'app',
      'app:latest',
      'docker.io/library/app',
      id,
      id.slice(7),
      id.slice(7, 11),
      id.slice(0, 12),
      `app@${digest}`,
      `app:any@${digest}`,
    ]) {
      assert.equal(w.images.resolve(name).id, id, name);
    }
    for (const [name, shown] of [
      ['nope', 'nope:latest'],
      ['nope:1', 'nope:1'],
      ['localhost:5000/nope', 'localhost:5000/nope:latest'],
      [`app@${sha256('other')}`, `app@${sha256('other')}`],
      [sha256('no'), sha256('no')],
      ['Not Valid', 'Not Valid'],
    ]) {
      assert.throws(() => w.images.resolve(name as string), { kind: 'not-found', message: `No such image: ${shown}` });
      await assert.rejects(w.images.inspect(name as string), { kind: 'not-found', message: `No such image: ${name}` });
    }
    await assert.rejects(w.images.tag('app', 'Upper', ''), {
      message: 'invalid reference format: repository name must be lowercase',
    });
    await assert.rejects(w.images.tag('nope', 'x', ''), { message: 'No such image: nope' });
  });

  test('lists', async () => {
    await using w = await world();
    const { images } = w;
    const base = await importFile(images, 'base', 'base:1', ['LABEL kind=base']);
    await images.tag(base, 'user/base', '1');
    const middle = await child(images, base, 'middle');
    const top = await child(images, middle, 'top', 'top:latest');
    const loose = await importFile(images, 'loose');
    const list = async (all: boolean, values = {}) =>
      (await images.list({ all, digests: false, filters: filters(values) })).map(({ Id }) => Id).sort();
    const sorted = (...ids: readonly string[]) => [...ids].sort();
    assert.deepEqual(await list(false), sorted(base, top, loose));
    assert.deepEqual(await list(true), sorted(base, middle, top, loose));
    assert.deepEqual(await list(false, { dangling: ['true'] }), [loose]);
    assert.deepEqual(await list(false, { dangling: ['false'] }), sorted(base, top));
    assert.deepEqual(await list(false, { label: ['kind=base'] }), sorted(base, top));
    assert.deepEqual(await list(false, { label: ['kind=other'] }), []);
    assert.deepEqual(await list(false, { reference: ['*/base'] }), [base]);
    assert.deepEqual(await list(false, { reference: ['top:l*'] }), [top]);
    assert.deepEqual(await list(false, { since: ['top'] }), sorted(base, loose));
    assert.deepEqual(await list(false, { before: ['base:1'] }), [top]);
    const [one] = await images.list({ all: false, digests: false, filters: filters({ reference: ['*/base:1'] }) });
    assert.deepEqual(one?.RepoTags, ['user/base:1']);
    const [nameless] = await images.list({ all: false, digests: false, filters: filters({ dangling: ['true'] }) });
    assert.deepEqual([nameless?.RepoTags, nameless?.RepoDigests], [['<none>:<none>'], ['<none>@<none>']]);
    await assert.rejects(list(false, { color: ['red'] }), { kind: 'invalid', message: "Invalid filter 'color'" });
    await assert.rejects(list(false, { dangling: ['maybe'] }), {
      kind: 'invalid',
      message: "Invalid filter 'dangling=maybe'",
    });
    await assert.rejects(list(false, { before: ['nope'] }), { message: 'No such image: nope' });
    const rows = images.history('top');
    assert.deepEqual(
      rows.map(({ Id }) => Id),
      [top, middle, base, '<missing>', '<missing>'],
    );
    assert.deepEqual(
      rows.map(({ Size }) => Size),
      [0, 3, 0, 6, 4],
    );
  });
});

describe('removal', () => {
  test('a name of several, then the last, then everything is gone', async () => {
    await using w = await world();
    const id = await importFile(w.images, 'x', 'app:one');
    const { chainId } = w.images.resolve(id);
    await w.images.tag(id, 'app', 'two');
    await w.images.setReference(parseReference(`app@${sha256('m')}`), id);
    const remove = (name: string) => w.images.remove(name, { force: false, noprune: false });
    assert.deepEqual(await remove('app:one'), [{ Untagged: 'app:one' }]);
    assert.deepEqual(await remove('app:two'), [
      { Untagged: 'app:two' },
      { Untagged: `app@${sha256('m')}` },
      { Deleted: id },
      { Deleted: chainId },
    ]);
    await w.b.layers.settled();
    assert.equal(layersOnDisk(w.b), 0);
    assert.deepEqual(fs.readdirSync(path.join(w.b.dir, 'image/config')), []);
    assert.deepEqual(
      (await events(w.b)).slice(-3).map((event) => event.split(' ')[0]),
      ['untag', 'untag', 'delete'],
    );
    await assert.rejects(remove('app:two'), { kind: 'not-found', message: 'No such image: app:two' });
  });

  test('layers go down to the first that something else needs', async () => {
    await using w = await world();
    const base = await importFile(w.images, 'base', 'base:1');
    const baseChain = w.images.resolve(base).chainId;
    const top = await child(w.images, base, 'top', 'top:1');
    const topChain = w.images.resolve(top).chainId;
    assert.deepEqual(await w.images.remove('top:1', { force: false, noprune: false }), [
      { Untagged: 'top:1' },
      { Deleted: top },
      { Deleted: topChain },
    ]);
    assert.equal(w.images.resolve('base:1').chainId, baseChain);
    assert.ok(w.b.layers.get(baseChain ?? assert.fail()));
  });

  test('parents without a name go with their last child, unless noprune', async () => {
    for (const noprune of [false, true]) {
      await using w = await world();
      const base = await importFile(w.images, 'base', 'base:1');
      const middle = await child(w.images, base, 'middle');
      const top = await child(w.images, middle, 'top', 'top:1');
      const [middleChain, topChain] = [w.images.resolve(middle).chainId, w.images.resolve(top).chainId];
      const rows = await w.images.remove('top:1', { force: false, noprune });
      assert.deepEqual(rows, [
        { Untagged: 'top:1' },
        { Deleted: top },
        { Deleted: topChain },
        ...(noprune ? [] : [{ Deleted: middle }, { Deleted: middleChain }]),
      ]);
    }
  });

  /** The rules of Docker 1.9 and later, each with its text. */
  interface Case {
    readonly name: string;
    /** Names the image has. */
    readonly names: readonly string[];
    readonly user?: 'running' | 'stopped';
    readonly hasChild?: boolean;
    readonly request: 'id' | string;
    readonly force?: boolean;
    /** What is answered: rows without layers, or the start and the end of the refusal. */
    readonly rows?: readonly string[];
    readonly refusal?: readonly [start: string, end: string];
  }
  const cases: readonly Case[] = [
    { name: 'the only name', names: ['a:1'], request: 'a:1', rows: ['-a:1', 'id'] },
    { name: 'by id with one name', names: ['a:1'], request: 'id', rows: ['-a:1', 'id'] },
    { name: 'by id without a name', names: [], request: 'id', rows: ['id'] },
    {
      name: 'by id with two names',
      names: ['a:1', 'b:1'],
      request: 'id',
      refusal: ['unable to delete ID (must be forced)', 'image is referenced in multiple repositories'],
    },
    {
      name: 'by id with two tags',
      names: ['a:1', 'a:2'],
      request: 'id',
      refusal: ['unable to delete ID (must be forced)', 'image is referenced in multiple repositories'],
    },
    {
      name: 'by id with two names, forced',
      names: ['a:1', 'b:1'],
      request: 'id',
      force: true,
      rows: ['-a:1', '-b:1', 'id'],
    },
    {
      name: 'the only name, stopped container',
      names: ['a:1'],
      user: 'stopped',
      request: 'a:1',
      refusal: [
        'unable to remove repository reference "a:1" (must force)',
        'container cccccccccccc is using its referenced image ID',
      ],
    },
    {
      name: 'the only name, running container',
      names: ['a:1'],
      user: 'running',
      request: 'a:1',
      refusal: [
        'unable to remove repository reference "a:1" (must force)',
        'container cccccccccccc is using its referenced image ID',
      ],
    },
    {
      name: 'the only name, stopped container, forced',
      names: ['a:1'],
      user: 'stopped',
      request: 'a:1',
      force: true,
      rows: ['-a:1', 'id'],
    },
    {
      name: 'the only name, running container, forced',
      names: ['a:1'],
      user: 'running',
      request: 'a:1',
      force: true,
      rows: ['-a:1'],
    },
    {
      name: 'one of two names, running container',
      names: ['a:1', 'b:1'],
      user: 'running',
      request: 'a:1',
      rows: ['-a:1'],
    },
    {
      name: 'by id, stopped container',
      names: ['a:1'],
      user: 'stopped',
      request: 'id',
      refusal: ['unable to delete ID (must be forced)', 'image is being used by stopped container cccccccccccc'],
    },
    {
      name: 'by id, stopped container, forced',
      names: ['a:1'],
      user: 'stopped',
      request: 'id',
      force: true,
      rows: ['-a:1', 'id'],
    },
    {
      name: 'by id, running container',
      names: ['a:1'],
      user: 'running',
      request: 'id',
      refusal: ['unable to delete ID (cannot be forced)', 'image is being used by running container cccccccccccc'],
    },
    {
      name: 'by id, running container, forced',
      names: ['a:1'],
      user: 'running',
      request: 'id',
      force: true,
      refusal: ['unable to delete ID (cannot be forced)', 'image is being used by running container cccccccccccc'],
    },
    {
      name: 'by id with a child',
      names: [],
      hasChild: true,
      request: 'id',
      refusal: ['unable to delete ID (cannot be forced)', 'image has dependent child images'],
    },
    {
      name: 'by id with a child, forced',
      names: ['a:1'],
      hasChild: true,
      request: 'id',
      force: true,
      refusal: ['unable to delete ID (cannot be forced)', 'image has dependent child images'],
    },
    { name: 'the only name, with a child', names: ['a:1'], hasChild: true, request: 'a:1', rows: ['-a:1'] },
  ];
  for (const { name, names, user, hasChild, request, force = false, rows, refusal } of cases) {
    test(name, async () => {
      await using w = await world();
      const id = await importFile(w.images, name);
      for (const text of names) await w.images.tag(id, text.split(':')[0] ?? '', text.split(':')[1] ?? '');
      if (user !== undefined) w.users.set(id, [{ id: 'c'.repeat(64), running: user === 'running' }]);
      if (hasChild === true) await child(w.images, id, 'child');
      const removing = w.images.remove(request === 'id' ? id.slice(7, 19) : request, { force, noprune: false });
      if (rows !== undefined) {
        const answered = (await removing).map(({ Untagged, Deleted }) =>
          Untagged === undefined ? Deleted : `-${Untagged}`,
        );
        const wanted = rows.map((row) => (row === 'id' ? id : row));
        assert.deepEqual(answered.slice(0, wanted.length), wanted);
        assert.equal(w.images.get(id) === undefined, rows.includes('id'));
      } else {
        const short = id.slice(7, 19);
        const message = `conflict: ${refusal?.join(' - ')}`.replaceAll('ID', short);
        await assert.rejects(removing, { kind: 'conflict', message });
        assert.deepEqual(w.images.tagsOf(id), names, 'nothing has changed');
      }
    });
  }

  test('prune: the nameless, or all unused; and layers nobody needs', async () => {
    await using w = await world();
    const named = await importFile(w.images, 'named', 'named:1', ['LABEL keep=yes']);
    const used = await importFile(w.images, 'used', 'used:1');
    const loose = await importFile(w.images, 'loose');
    w.users.set(used, [{ id: 'c'.repeat(64), running: false }]);
    await w.b.layers.apply(null, { from: { stream: streamOf(archive({ name: 'orphan', content: '1234567' })) } });
    const first = await w.images.prune(filters());
    assert.deepEqual(first.deleted[0], { Deleted: loose });
    assert.equal(first.deleted.length, 2);
    assert.equal(first.spaceReclaimed, 'loose'.length + 7);
    assert.equal(
      (await w.images.prune(filters({ dangling: ['false'], label: ['keep'], until: ['10m'] }))).deleted.length,
      0,
    );
    assert.equal((await w.images.prune(filters({ dangling: ['false'], 'label!': ['keep'] }))).deleted.length, 0);
    const second = await w.images.prune(filters({ dangling: ['false'] }));
    assert.deepEqual(second.deleted.slice(0, 2), [{ Untagged: 'named:1' }, { Deleted: named }]);
    assert.deepEqual(w.images.tagsOf(used), ['used:1']);
    await assert.rejects(w.images.prune(filters({ reference: ['x'] })), { message: "Invalid filter 'reference'" });
  });
});

describe('archives of images', () => {
  const saved = async (w: World, ...names: readonly string[]) => readAll(await w.images.save(names, never));
  const load = (w: World, bytes: Buffer, quiet = true) => collect(w.images.load(streamOf(bytes), quiet, never));

  test('save and load, the same bytes again', async () => {
    await using here = await world();
    const base = await importFile(here.images, 'base', 'base:1', ['CMD ["x"]']);
    const top = await child(here.images, base, 'top', 'user/top:1');
    await here.images.tag(top, 'top', 'two');
    const bytes = await saved(here, 'base', 'user/top:1', 'top:two');
    assert.equal(sha256(bytes), sha256(await saved(here, 'base', 'user/top:1', 'top:two')));
    const file = path.join(here.b.dir, 'saved.tar');
    fs.writeFileSync(file, bytes);
    const manifest = JSON.parse(shell(`tar -xOf ${file} manifest.json`, '/')) as {
      Config: string;
      RepoTags: string[];
      Layers: string[];
    }[];
    assert.deepEqual(
      manifest.map(({ Config, RepoTags }) => [Config, RepoTags]),
      [
        [`${base.slice(7)}.json`, ['base:1']],
        [`${top.slice(7)}.json`, ['top:two', 'user/top:1']],
      ],
    );
    const [layer = ''] = manifest[0]?.Layers ?? [];
    assert.equal(sha256(Buffer.from(shell(`tar -xOf ${file} ${base.slice(7)}.json`, '/'))), base);
    assert.equal(
      shell(`tar -xOf ${file} ${layer} | sha256sum`, '/').slice(0, 64),
      here.images.resolve(base).diffIds[0]?.slice(7),
    );
    assert.equal(shell(`tar -xOf ${file} ${layer.replace('layer.tar', 'VERSION')}`, '/'), '1.0');
    const repositories = JSON.parse(shell(`tar -xOf ${file} repositories`, '/')) as Record<
      string,
      Record<string, string>
    >;
    assert.deepEqual(Object.keys(repositories).sort(), ['base', 'top', 'user/top']);

    for (const packed of [bytes, gzipSync(bytes, { level: 1 })]) {
      await using there = await world();
      const messages = await load(there, packed);
      assert.deepEqual(
        messages.map(({ stream }) => stream),
        ['Loaded image: base:1\n', 'Loaded image: top:two\n', 'Loaded image: user/top:1\n'],
      );
      assert.deepEqual(there.images.tagsOf(top), ['top:two', 'user/top:1']);
      assert.equal(sha256(await saved(there, 'base', 'user/top:1', 'top:two')), sha256(bytes));
      assert.deepEqual(fs.readdirSync(path.join(there.b.dir, 'image/work')), []);
      assert.equal((await events(there.b)).filter((event) => event.startsWith('load')).length, 2);
    }
  });

  test('saved by id: without names; loaded over another image of that name', async () => {
    await using here = await world();
    const id = await importFile(here.images, 'x', 'app:1');
    const nameless = await saved(here, id.slice(7, 19));
    const named = await saved(here, 'app:1');
    await assert.rejects(saved(here, 'nope'), { kind: 'not-found', message: 'No such image: nope' });
    await using there = await world();
    assert.deepEqual(await load(there, nameless), [{ stream: `Loaded image ID: ${id}\n` }]);
    const other = await importFile(there.images, 'other', 'app:1');
    const messages = await load(there, named);
    assert.deepEqual(messages, [
      { stream: `The image app:1 already exists, renaming the old one with ID ${other} to empty string\n` },
      { stream: 'Loaded image: app:1\n' },
    ]);
    assert.deepEqual([there.images.tagsOf(other), there.images.tagsOf(id)], [[], ['app:1']]);
  });

  test('an OCI layout with compressed layers', async () => {
    await using w = await world();
    const layer = archive({ name: 'oci', content: 'oci' });
    const config = encodeImageConfig({
      config: runConfigOf({}),
      created: '2020-01-01T00:00:00Z',
      history: [],
      diffIds: [sha256(layer) as DiffId],
    });
    const packed = gzipSync(layer);
    const blob = (content: Buffer) => ({ name: `blobs/sha256/${sha256(content).slice(7)}`, content });
    const descriptor = (content: Buffer, mediaType: string) => ({
      mediaType,
      digest: sha256(content),
      size: content.length,
    });
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        config: descriptor(config, 'application/vnd.oci.image.config.v1+json'),
        layers: [descriptor(packed, 'application/vnd.oci.image.layer.v1.tar+gzip')],
      }),
    );
    const listed = (name: string) => ({
      ...descriptor(manifest, 'application/vnd.oci.image.manifest.v1+json'),
      annotations: { 'org.opencontainers.image.ref.name': name },
    });
    const index = {
      schemaVersion: 2,
      manifests: [listed('example.com/a/b:1'), listed('docker.io/library/c:2'), listed('only-a-tag')],
    };
    const bytes = archive(
      { name: 'oci-layout', content: '{"imageLayoutVersion":"1.0.0"}' },
      { name: 'index.json', content: JSON.stringify(index) },
      blob(config),
      blob(packed),
      blob(manifest),
    );
    await load(w, bytes);
    assert.deepEqual(w.images.tagsOf(sha256(config) as ImageId), ['c:2', 'example.com/a/b:1']);
    assert.equal(w.images.resolve('c:2').size, 3);
  });

  test('an archive from before content addresses', async () => {
    await using w = await world();
    const [low, high] = ['1'.repeat(64), '2'.repeat(64)];
    const json = (id: string, more: object) =>
      JSON.stringify({
        id,
        created: '2014-01-01T00:00:00Z',
        os: 'linux',
        architecture: 'amd64',
        container_config: { Cmd: ['/bin/sh', '-c', id] },
        ...more,
      });
    await load(
      w,
      archive(
        { name: 'repositories', content: JSON.stringify({ old: { latest: high } }) },
        { name: `${low}/json`, content: json(low, {}) },
        { name: `${low}/layer.tar`, content: archive({ name: 'low' }) },
        { name: `${high}/json`, content: json(high, { parent: low, config: { Cmd: ['run'] } }) },
        { name: `${high}/layer.tar`, content: archive({ name: 'high' }) },
      ),
    );
    const image = w.images.resolve('old');
    assert.deepEqual([image.diffIds.length, image.config.Cmd, image.created], [2, ['run'], '2014-01-01T00:00:00Z']);
    assert.equal(w.images.history('old')[0]?.CreatedBy, `/bin/sh -c ${high}`);
  });

  test('archives that are none, or lie', async () => {
    await using w = await world();
    const config = encodeImageConfig({
      config: runConfigOf({}),
      created: '2020-01-01T00:00:00Z',
      history: [],
      diffIds: [sha256('else') as DiffId],
    });
    const manifest = (layers: readonly string[], file = 'c.json') => ({
      name: 'manifest.json',
      content: JSON.stringify([{ Config: file, RepoTags: ['x:1'], Layers: layers }]),
    });
    const outside = path.join(w.b.dir, 'outside');
    fs.writeFileSync(outside, archive({ name: 'x' }));
    const bad: readonly (readonly [bytes: Buffer, message: RegExp])[] = [
      [Buffer.from('no archive'.repeat(100)), /invalid tar header/],
      [archive({ name: 'x' }), /neither manifest.json nor index.json/],
      [archive({ name: 'manifest.json', content: '{' }), /manifest.json/],
      [archive({ name: 'manifest.json', content: '[]' }), /no images/],
      [archive(manifest([])), /c.json is missing/],
      [archive(manifest([]), { name: 'c.json', content: config }), /layers length mismatch: expected 1, got 0/],
      [archive(manifest(['l.tar']), { name: 'c.json', content: config }), /l.tar is missing/],
      [
        archive(
          manifest(['l.tar']),
          { name: 'c.json', content: config },
          { name: 'l.tar', content: archive({ name: 'x' }) },
        ),
        /layer verification failed/,
      ],
      [
        archive(
          manifest(['l.tar']),
          { name: 'c.json', content: config },
          { name: 'l.tar', type: 'symlink', linkName: outside },
        ),
        /l.tar is missing/,
      ],
      [
        archive(manifest(['l.tar']), { name: 'c.json', content: config }, { name: 'l.tar', type: 'fifo' }),
        /l.tar is no file/,
      ],
      [archive(manifest([`../../..${outside}`], `../../..${outside}`)), /missing/],
      [archive({ name: '../../escape', content: 'x' }), /outside of its root/],
    ];
    for (const [bytes, message] of bad) {
      await assert.rejects(load(w, bytes), { kind: 'invalid', message });
      assert.deepEqual(fs.readdirSync(path.join(w.b.dir, 'image/work')), []);
    }
    assert.equal((await w.images.list({ all: true, digests: false, filters: filters() })).length, 0);
    assert.equal(layersOnDisk(w.b), 0);
  });

  test('a reader that leaves a save gives the layers free', async () => {
    await using w = await world();
    const id = await importFile(w.images, 'x'.repeat(5_000_000), 'big:1');
    const stream: Readable = await w.images.save(['big:1'], never);
    await new Promise((resolve) => stream.once('data', resolve));
    stream.destroy();
    await new Promise((resolve) => stream.once('close', resolve));
    await w.images.remove('big:1', { force: false, noprune: false });
    await w.b.layers.settled();
    assert.equal(w.images.get(id), undefined);
    assert.equal(layersOnDisk(w.b), 0);
  });
});
