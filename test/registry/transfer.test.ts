/** Pull and push against Debian's docker-registry: the ways in, what is sent and what is not, what survives a cut. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { createPull } from '../../src/image/pull.ts';
import { createPush } from '../../src/image/push.ts';
import { parseReference, withDefaultTag } from '../../src/image/reference.ts';
import type { Credentials, Progress } from '../../src/image/types.ts';
import { createLayerStore } from '../../src/layer/store.ts';
import type { LayerStore } from '../../src/layer/types.ts';
import type { EngineError } from '../../src/lib/errors.ts';
import { silentLog } from '../../src/lib/log.ts';
import { Downloads } from '../../src/registry/download.ts';
import { Hasher } from '../../src/registry/hasher.ts';
import { Registries } from '../../src/registry/registries.ts';
import { Slots } from '../../src/registry/waiting.ts';
import { openStore } from '../../src/store/store.ts';
import {
  addStrangeAddress,
  type Certificates,
  makeCertificates,
  scratch,
  sha256,
  startCuttingProxy,
  startFake,
  startRegistry,
  startTokenServer,
  strangeAddress,
  type TestRegistry,
} from '../support/registry.ts';
import { MemorySink } from '../support/sink.ts';

interface EngineOptions {
  readonly registryMirrors?: readonly string[];
  readonly certificateDirectories?: readonly string[];
  readonly architecture?: string;
  readonly layers?: LayerStore;
}

/** One engine's transfers, with images of its own. */
class TestEngine {
  readonly sink: MemorySink;
  readonly registries: Registries;
  readonly hasher = new Hasher();
  readonly #pull;
  readonly #push;

  constructor(t: TestContext, options: EngineOptions = {}) {
    const directory = scratch();
    this.sink = new MemorySink(directory, options.layers);
    const { registryMirrors = [], certificateDirectories = [], architecture = 'x64' } = options;
    const settings = () => ({ insecureRegistries: [], registryMirrors });
    this.registries = new Registries({
      settings,
      certificateDirectories,
      environment: {},
      backOffMs: 10,
      idleMs: 5000,
    });
    const downloads = new Downloads({ hasher: this.hasher, slots: new Slots(() => 3), backOffMs: 10 });
    this.#pull = createPull({ registries: this.registries, downloads, log: silentLog, architecture });
    this.#push = createPush({ registries: this.registries, hasher: this.hasher, slots: new Slots(() => 5) });
    t.after(async () => {
      await this.registries.close();
      await this.hasher.close();
      rmSync(directory, { recursive: true, force: true });
    });
  }

  async pull(name: string, options: { credentials?: Credentials; platform?: string } = {}): Promise<Progress[]> {
    const { credentials = null, platform } = options;
    const reference = withDefaultTag(parseReference(name));
    return await Array.fromAsync(
      this.#pull({ reference, credentials, platform }, this.sink, new AbortController().signal),
    );
  }

  pulling(name: string, signal: AbortSignal): AsyncIterator<Progress> {
    const request = { reference: withDefaultTag(parseReference(name)), credentials: null };
    return this.#pull(request, this.sink, signal)[Symbol.asyncIterator]();
  }

  async push(name: string, credentials: Credentials | null = null): Promise<Progress[]> {
    const request = { reference: parseReference(name), credentials };
    return await Array.fromAsync(this.#push(request, this.sink, new AbortController().signal));
  }

  async make(name: string, contents: readonly Uint8Array[], architecture?: string): Promise<string> {
    return await this.sink.make(withDefaultTag(parseReference(name)), contents, architecture);
  }
}

const statuses = (messages: readonly Progress[]): string[] =>
  messages.map(({ status = '', id }) => (id === undefined ? status : `${id}: ${status}`));

const pushedDigest = (messages: readonly Progress[]): string =>
  (messages.at(-1) as { aux: { Digest: string } }).aux.Digest;

const wrong = (kind: EngineError['kind'], message: RegExp) => (error: EngineError) => {
  assert.equal(error.kind, kind, error.message);
  assert.match(error.message, message);
  return true;
};

describe('an open registry over HTTP', () => {
  let registry: TestRegistry;
  before(async () => {
    registry = await startRegistry();
  });
  after(() => registry.stop());

  it('gives back the image that was pushed, in the words of the reference implementation', async (t) => {
    const maker = new TestEngine(t);
    const name = `${registry.host}/team/app:one`;
    const layers = [randomBytes(3_000_000), Buffer.from('small'), randomBytes(70_000)];
    const id = await maker.make(name, layers);
    const pushed = await maker.push(name);
    assert.equal(pushed[0]?.status, `The push refers to repository [${registry.host}/team/app]`);
    const labels = layers.map((layer) => sha256(layer).slice(7, 19));
    for (const label of labels) {
      const own = pushed.filter((message) => message.id === label).map(({ status }) => status);
      assert.equal(own[0], 'Preparing');
      assert.equal(own.at(-1), 'Pushed');
    }
    const digest = pushedDigest(pushed);
    assert.match(statuses(pushed).at(-2) ?? '', new RegExp(`^one: digest: ${digest} size: \\d+$`));
    assert.deepEqual(maker.sink.events, [`push ${name}`]);

    const user = new TestEngine(t);
    const pulled = await user.pull(name);
    assert.equal(statuses(pulled)[0], 'one: Pulling from team/app');
    const blobs = maker.sink.blobs.map((blob) => blob.digest.slice(7, 19));
    for (const label of blobs) {
      const own = pulled.filter((message) => message.id === label).map(({ status }) => status);
      const order = ['Pulling fs layer', 'Verifying Checksum', 'Download complete', 'Pull complete'];
      assert.deepEqual(
        own.filter((status) => order.includes(status ?? '')),
        order,
      );
    }
    assert.deepEqual(statuses(pulled).slice(-2), [`Digest: ${digest}`, `Status: Downloaded newer image for ${name}`]);
    assert.ok(user.sink.images.has(id as never));
    assert.deepEqual(user.sink.events, [`pull ${name}`]);
    assert.equal(user.sink.lookUp({ ...parseReference(name), tag: undefined, digest: digest as never }), id);
    assert.deepEqual(readdirSync(user.sink.temporary), [], 'downloads that were used are gone');
    assert.deepEqual(
      [...user.sink.files.held.values()].filter((count) => count !== 0),
      [],
      'no lease is left',
    );
  });

  it('asks only for the digest of a tag that is current, and fetches nothing twice', async (t) => {
    const maker = new TestEngine(t);
    const name = `${registry.host}/current`;
    await maker.make(name, [randomBytes(1000)]);
    await maker.push(`${name}:latest`);
    const user = new TestEngine(t);
    await user.pull(name);
    const logged = registry.log().length;
    const again = statuses(await user.pull(name));
    assert.equal(again.at(-1), `Status: Image is up to date for ${name}:latest`);
    assert.equal(again.length, 3);
    const requests = [
      ...registry
        .log()
        .slice(logged)
        .matchAll(/http\.request\.method=(\w+)/g),
    ].map((match) => match[1]);
    assert.ok(
      requests.every((method) => method === 'HEAD'),
      requests.join(),
    );
    assert.equal(user.sink.files.applied(), 1);
  });

  it('sends a layer once: what is there is skipped, what another repository has is mounted', async (t) => {
    const maker = new TestEngine(t);
    const shared = randomBytes(200_000);
    await maker.make(`${registry.host}/first`, [shared]);
    await maker.push(`${registry.host}/first:latest`);
    const label = sha256(shared).slice(7, 19);
    assert.ok(statuses(await maker.push(`${registry.host}/first:latest`)).includes(`${label}: Layer already exists`));
    await maker.make(`${registry.host}/second`, [shared, randomBytes(10)]);
    assert.ok(statuses(await maker.push(`${registry.host}/second:latest`)).includes(`${label}: Mounted from first`));
    const user = new TestEngine(t);
    await user.pull(`${registry.host}/first`);
    const second = statuses(await user.pull(`${registry.host}/second`));
    const blob = maker.sink.blobs[0]?.digest.slice(7, 19);
    assert.ok(second.includes(`${blob}: Already exists`));
  });

  it('pushes every tag of a repository when none is named, and says when there is none', async (t) => {
    const maker = new TestEngine(t);
    for (const tag of ['a', 'b']) await maker.make(`${registry.host}/many:${tag}`, [Buffer.from(`content ${tag}`)]);
    const lines = statuses(await maker.push(`${registry.host}/many`));
    assert.equal(lines.filter((line) => / digest: /.test(line)).length, 2);
    const { signal } = new AbortController();
    assert.deepEqual((await maker.registries.tags(registry.host, 'many', null, signal)).toSorted(), ['a', 'b']);
    await assert.rejects(
      maker.push(`${registry.host}/none:latest`),
      wrong('not-found', new RegExp(`^An image does not exist locally with the tag: ${registry.host}/none$`)),
    );
  });

  it('finds an image by its digest, and the platform asked for in an index', async (t) => {
    const maker = new TestEngine(t);
    const name = `${registry.host}/multi`;
    const ids: Record<string, string> = {};
    const manifests = [];
    for (const architecture of ['arm64', 'amd64']) {
      ids[architecture] = await maker.make(`${name}:${architecture}`, [randomBytes(500)], architecture);
      const messages = await maker.push(`${name}:${architecture}`);
      const { Digest: digest, Size: size } = (messages.at(-1) as { aux: { Digest: string; Size: number } }).aux;
      const mediaType = 'application/vnd.docker.distribution.manifest.v2+json';
      manifests.push({ mediaType, digest, size, platform: { os: 'linux', architecture } });
    }
    const type = 'application/vnd.oci.image.index.v1+json';
    const index = JSON.stringify({ schemaVersion: 2, mediaType: type, manifests });
    const put = await fetch(`http://${registry.host}/v2/multi/manifests/latest`, {
      method: 'PUT',
      headers: { 'content-type': type },
      body: index,
    });
    assert.equal(put.status, 201);
    const user = new TestEngine(t);
    const pulled = statuses(await user.pull(name));
    assert.ok(pulled.includes(`Digest: ${sha256(Buffer.from(index))}`), 'the digest is that of the index');
    assert.deepEqual([...user.sink.images.keys()], [ids.amd64]);
    await user.pull(name, { platform: 'linux/arm64' });
    assert.equal(user.sink.lookUp(withDefaultTag(parseReference(name))), ids.arm64);
    await assert.rejects(
      user.pull(name, { platform: 'linux/s390x' }),
      wrong('not-found', /^no matching manifest for linux\/s390x in the manifest list entries$/),
    );
    const arm = new TestEngine(t, { architecture: 'arm64' });
    const byDigest = `${name}@${sha256(Buffer.from(index))}`;
    const lines = statuses(await arm.pull(byDigest));
    assert.equal(lines.at(-1), `Status: Downloaded newer image for ${byDigest}`);
    assert.equal(arm.sink.lookUp(parseReference(byDigest)), ids.arm64);
  });

  it('reads OCI manifests, and refuses manifests of schema 1 by name', async (t) => {
    const maker = new TestEngine(t);
    const id = await maker.make(`${registry.host}/oci:docker`, [randomBytes(500)]);
    await maker.push(`${registry.host}/oci:docker`);
    const [blob] = maker.sink.blobs;
    assert.ok(blob);
    const put = async (tag: string, type: string, document: object): Promise<number> => {
      const body = JSON.stringify(document);
      const address = `http://${registry.host}/v2/oci/manifests/${tag}`;
      return (await fetch(address, { method: 'PUT', headers: { 'content-type': type }, body })).status;
    };
    const type = 'application/vnd.oci.image.manifest.v1+json';
    const size = maker.sink.configs.get(id as never)?.length;
    const manifest = {
      schemaVersion: 2,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: id, size },
      layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: blob.digest, size: blob.size }],
    };
    assert.equal(await put('latest', type, manifest), 201);
    const user = new TestEngine(t);
    await user.pull(`${registry.host}/oci`);
    assert.ok(user.sink.images.has(id as never));
    const old = await startFake(({ url }) => ({ status: 200, body: url === '/v2/' ? '' : '{"schemaVersion":1}' }));
    t.after(() => old.stop());
    await assert.rejects(user.pull(`${old.host}/x`), wrong('invalid', /schema 1 is not supported/));
  });

  it('says what is not there before its first message', async (t) => {
    const user = new TestEngine(t);
    const name = `${registry.host}/absent:x`;
    const error = wrong(
      'not-found',
      new RegExp(`^manifest for ${name} not found: manifest unknown: manifest unknown$`),
    );
    await assert.rejects(user.pulling(name, new AbortController().signal).next(), error);
    await assert.rejects(
      user.pull('127.0.0.1:1/x'),
      wrong('internal', /^Get "http:\/\/127\.0\.0\.1:1\/v2\/": dial tcp 127\.0\.0\.1:1: connect: connection refused$/),
    );
  });

  it('goes on by range after cuts, and after another process ended', async (t) => {
    const maker = new TestEngine(t);
    const content = randomBytes(8_000_000);
    await maker.make(`${registry.host}/big`, [content]);
    await maker.push(`${registry.host}/big:latest`);
    const [blob] = maker.sink.blobs;
    assert.ok(blob);
    const proxy = await startCuttingProxy(registry.port, () => 1_500_000);
    t.after(() => proxy.stop());
    const user = new TestEngine(t);
    const begun = join(user.sink.temporary, `blob-${blob.digest.slice(7)}`);
    cpSync(
      join(
        registry.directory,
        'data/docker/registry/v2/blobs/sha256',
        blob.digest.slice(7, 9),
        blob.digest.slice(7),
        'data',
      ),
      begun,
    );
    truncateSync(begun, 2_000_000);
    await user.pull(`${proxy.host}/big`);
    assert.ok(proxy.connections() >= 4, 'the connection was cut');
    assert.ok(proxy.passed() < (content.length - 2_000_000) * 1.05, `${proxy.passed()} bytes were fetched`);
    assert.equal(user.sink.files.applied(), 1);
  });

  it('starts again from the first byte when the bytes it kept turn out to be damaged', async (t) => {
    const maker = new TestEngine(t);
    await maker.make(`${registry.host}/kept`, [randomBytes(300_000)]);
    await maker.push(`${registry.host}/kept:latest`);
    const user = new TestEngine(t);
    const kept = join(user.sink.temporary, `blob-${maker.sink.blobs[0]?.digest.slice(7)}`);
    writeFileSync(kept, randomBytes(100_000));
    await user.pull(`${registry.host}/kept`);
    assert.equal(user.sink.files.applied(), 1);
  });

  it('refuses a blob whose content is not its digest', async (t) => {
    const maker = new TestEngine(t);
    await maker.make(`${registry.host}/forged`, [randomBytes(50_000)]);
    await maker.push(`${registry.host}/forged:latest`);
    const [blob] = maker.sink.blobs;
    assert.ok(blob);
    const place = join(
      registry.directory,
      'data/docker/registry/v2/blobs/sha256',
      blob.digest.slice(7, 9),
      blob.digest.slice(7),
      'data',
    );
    const { size } = statSync(place);
    writeFileSync(place, randomBytes(size));
    const user = new TestEngine(t);
    await assert.rejects(
      user.pull(`${registry.host}/forged`),
      wrong('internal', new RegExp(`^filesystem layer verification failed for digest ${blob.digest}$`)),
    );
    assert.equal(user.sink.images.size, 0);
    assert.equal(user.sink.files.layers.size, 0);
    assert.deepEqual(readdirSync(user.sink.temporary), [], 'what cannot be used is not kept');
  });

  it('ends its connections and keeps only what can be resumed when it is cancelled', async (t) => {
    const maker = new TestEngine(t);
    await maker.make(`${registry.host}/slow`, [randomBytes(4_000_000), randomBytes(4_000_000)]);
    await maker.push(`${registry.host}/slow:latest`);
    // A proxy that never finishes: what it holds back is never sent.
    const proxy = await startCuttingProxy(registry.port, () => Number.POSITIVE_INFINITY);
    t.after(() => proxy.stop());
    const user = new TestEngine(t);
    const leaving = new AbortController();
    const messages = user.pulling(`${proxy.host}/slow`, leaving.signal);
    for (;;) {
      const { value } = await messages.next();
      if ((value as Progress).status === 'Downloading') break;
    }
    leaving.abort(new Error('gone'));
    await assert.rejects(async () => {
      while (!(await messages.next()).done);
    }, /gone/);
    assert.equal(user.sink.images.size, 0);
    assert.deepEqual(
      [...user.sink.files.held.values()].filter((count) => count !== 0),
      [],
    );
    await user.registries.close();
    for (let i = 0; i < 100 && proxy.open() > 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(proxy.open(), 0);
    assert.ok(readdirSync(user.sink.temporary).every((name) => /^blob-[0-9a-f]{64}$/.test(name)));
    await user.pull(`${registry.host}/slow`);
    assert.equal(user.sink.images.size, 1);
  });

  it('fetches a blob once for two pulls at the same time', async (t) => {
    const maker = new TestEngine(t);
    const content = randomBytes(6_000_000);
    await maker.make(`${registry.host}/twice`, [content]);
    await maker.push(`${registry.host}/twice:latest`);
    const proxy = await startCuttingProxy(registry.port, () => Number.POSITIVE_INFINITY);
    t.after(() => proxy.stop());
    const user = new TestEngine(t);
    await Promise.all([user.pull(`${proxy.host}/twice`), user.pull(`${proxy.host}/twice`)]);
    assert.ok(proxy.passed() < content.length * 1.05, `${proxy.passed()} bytes were fetched`);
    assert.deepEqual(readdirSync(user.sink.temporary), []);
  });
});

describe('a registry over HTTPS', () => {
  let certificates: Certificates;
  let registry: TestRegistry;
  before(async () => {
    addStrangeAddress();
    certificates = makeCertificates();
    registry = await startRegistry({ address: strangeAddress, certificates });
  });
  after(async () => {
    await registry.stop();
    rmSync(certificates.directory, { recursive: true, force: true });
  });

  it('is refused with an unknown authority, and used once its certificate is in certs.d', async (t) => {
    const directory = scratch();
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    const engine = new TestEngine(t, { certificateDirectories: [directory] });
    const name = `${registry.host}/private:latest`;
    await engine.make(name, [randomBytes(100)]);
    await assert.rejects(
      engine.push(name),
      wrong(
        'internal',
        new RegExp(`^Get "https://${registry.host}/v2/": x509: certificate signed by unknown authority$`),
      ),
    );
    mkdirSync(join(directory, registry.host));
    cpSync(certificates.ca, join(directory, registry.host, 'ca.crt'));
    await engine.push(name);
    const user = new TestEngine(t, { certificateDirectories: [directory] });
    await user.pull(name);
    assert.equal(user.sink.images.size, 1);
  });

  it('is never asked over plain HTTP', async (t) => {
    const plain = await startRegistry({ address: strangeAddress });
    t.after(() => plain.stop());
    const engine = new TestEngine(t);
    await assert.rejects(
      engine.pull(`${plain.host}/x`),
      wrong('internal', /^Get "https:.*": http: server gave HTTP response to HTTPS client$/),
    );
  });

  it('is trusted unseen on a loopback address', async (t) => {
    const local = await startRegistry({ certificates });
    t.after(() => local.stop());
    const engine = new TestEngine(t);
    await engine.make(`${local.host}/x`, [randomBytes(100)]);
    await engine.push(`${local.host}/x:latest`);
    await new TestEngine(t).pull(`${local.host}/x`);
  });
});

describe('a registry that wants to know who asks', () => {
  const user = { username: 'ann', password: 'correct horse' };

  it('takes a name and a password (htpasswd)', async (t) => {
    const registry = await startRegistry({ htpasswd: user });
    t.after(() => registry.stop());
    const engine = new TestEngine(t);
    const name = `${registry.host}/x:latest`;
    await engine.make(name, [randomBytes(100)]);
    await assert.rejects(engine.push(name), wrong('unauthorized', /no basic auth credentials$/));
    await assert.rejects(engine.push(name, { ...user, password: 'bad' }), wrong('unauthorized', /unauthorized/));
    await engine.push(name, user);
    await new TestEngine(t).pull(name, { credentials: user });
    const { signal } = new AbortController();
    const login = (password: string) =>
      engine.registries.login({ username: user.username, password, serveraddress: registry.host }, signal);
    assert.deepEqual(await login(user.password), { Status: 'Login Succeeded', IdentityToken: '' });
    await assert.rejects(
      login('bad'),
      wrong('unauthorized', /^login attempt to http:\/\/.*\/v2\/ failed with status: 401 Unauthorized$/),
    );
  });

  it('takes tokens of its realm, for a password, for an identity token, and for nobody', async (t) => {
    const certificates = makeCertificates();
    const tokens = await startTokenServer({ ...user, identityToken: 'refresh-me' }, certificates);
    const registry = await startRegistry({ tokens });
    t.after(async () => {
      await registry.stop();
      await tokens.stop();
      rmSync(certificates.directory, { recursive: true, force: true });
    });
    const engine = new TestEngine(t);
    const [open, closed] = [`${registry.host}/public/x:latest`, `${registry.host}/secret/x:latest`];
    for (const name of [open, closed]) {
      await engine.make(name, [Buffer.from(name)]);
      await engine.push(name, user);
    }
    await new TestEngine(t).pull(open);
    await assert.rejects(
      new TestEngine(t).pull(closed),
      wrong(
        'not-found',
        /^pull access denied for .*\/secret\/x, repository does not exist or may require 'docker login': denied: /,
      ),
    );
    await assert.rejects(new TestEngine(t).push(open), /does not exist locally/);
    const login = await engine.registries.login(
      { ...user, serveraddress: registry.host },
      new AbortController().signal,
    );
    assert.equal(login.IdentityToken, 'refresh-me');
    const other = new TestEngine(t);
    const before = tokens.requests.length;
    await other.pull(closed, { credentials: { identitytoken: login.IdentityToken } });
    assert.deepEqual(
      tokens.requests.slice(before).map(({ method }) => method),
      ['POST'],
      'one token serves the pull',
    );
    await assert.rejects(
      other.registries.login({ ...user, password: 'bad', serveraddress: registry.host }, new AbortController().signal),
      wrong('unauthorized', /unauthorized: incorrect username or password$/),
    );
  });
});

describe('secrets', () => {
  const credentials = { username: 'ann', password: 'pa55word' };
  const secret = Buffer.from('ann:pa55word').toString('base64');

  it('stay behind when a registry sends its client elsewhere', async (t) => {
    const layer = Buffer.from('never fetched');
    const elsewhere = await startFake(() => ({ status: 401, headers: { 'www-authenticate': 'Basic realm="give"' } }));
    const config = Buffer.from('{}');
    const registry = await startFake(({ url, headers }) => {
      if (headers.authorization === undefined)
        return { status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } };
      if (url.includes('/blobs/'))
        return { status: 307, headers: { location: `http://${elsewhere.host}/take?sig=s3cret` } };
      if (!url.includes('/manifests/')) return { status: 200 };
      const type = 'application/vnd.docker.distribution.manifest.v2+json';
      const part = (bytes: Buffer, mediaType: string) => ({ mediaType, size: bytes.length, digest: sha256(bytes) });
      const body = JSON.stringify({
        schemaVersion: 2,
        mediaType: type,
        config: part(config, 'application/vnd.docker.container.image.v1+json'),
        layers: [part(layer, 'application/vnd.docker.image.rootfs.diff.tar.gzip')],
      });
      return { status: 200, headers: { 'content-type': type }, body };
    });
    t.after(async () => {
      await registry.stop();
      await elsewhere.stop();
    });
    const error: Error = await new TestEngine(t).pull(`${registry.host}/x`, { credentials }).then(
      () => assert.fail('must not succeed'),
      (failure: Error) => failure,
    );
    assert.ok(registry.requests.some(({ headers }) => headers.authorization === `Basic ${secret}`));
    assert.ok(elsewhere.requests.length > 0, 'the redirect was followed');
    for (const request of elsewhere.requests) assert.equal(request.headers.authorization, undefined);
    assert.doesNotMatch(`${error.message} ${error.stack}`, /s3cret|pa55word/);
  });

  it('go to the realm named at /v2/ and to no other', async (t) => {
    const thief = await startFake(() => ({ status: 200, body: '{"token":"t"}' }));
    const realm = await startFake(() => ({ status: 200, body: '{"token":"good"}' }));
    const registry = await startFake(({ url }) => {
      const at = url === '/v2/' ? realm.host : thief.host;
      return { status: 401, headers: { 'www-authenticate': `Bearer realm="http://${at}/token",service="s"` } };
    });
    t.after(async () => {
      for (const server of [thief, realm, registry]) await server.stop();
    });
    await assert.rejects(new TestEngine(t).pull(`${registry.host}/x`, { credentials }));
    assert.deepEqual(thief.requests, []);
    assert.ok(realm.requests.every(({ headers }) => headers.authorization === `Basic ${secret}`));
  });

  it('never go to a mirror, whose failure is passed over and told', async (t) => {
    const mirror = await startFake(() => ({ status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } }));
    t.after(() => mirror.stop());
    const engine = new TestEngine(t, { registryMirrors: [`http://${mirror.host}`] });
    const servers = await engine.registries.servers('docker.io', credentials);
    assert.deepEqual(
      servers.map(({ endpoint }) => endpoint.bases),
      [[`http://${mirror.host}`], ['https://registry-1.docker.io']],
    );
    await assert.rejects(engine.pull('busybox', { credentials }));
    assert.ok(mirror.requests.length > 0);
    for (const { headers } of mirror.requests) assert.equal(headers.authorization, undefined);
  });
});

it('layers go through the real layer store and come out of it byte for byte', async (t) => {
  const registry = await startRegistry();
  const directory = scratch();
  const store = await openStore({ dir: join(directory, 'tmp'), log: silentLog });
  const layers = await createLayerStore({ dir: join(directory, 'layer'), store, log: silentLog });
  t.after(async () => {
    await layers.close();
    await store.close();
    await registry.stop();
    rmSync(directory, { recursive: true, force: true });
  });
  const tars = ['one', 'two', 'three'].map((name) => {
    const place = join(directory, name);
    mkdirSync(join(place, 'shared'), { recursive: true });
    writeFileSync(join(place, 'shared', name), randomBytes(400_000));
    return execFileSync('tar', ['-C', place, '-c', '.'], { maxBuffer: 10_000_000 });
  });
  const maker = new TestEngine(t);
  const id = await maker.make(`${registry.host}/real`, tars);
  await maker.push(`${registry.host}/real:latest`);
  const user = new TestEngine(t, { layers });
  await user.pull(`${registry.host}/real`);
  assert.ok(user.sink.images.has(id as never));
  const copy = `${registry.host}/copy:latest`;
  await user.sink.setReference(parseReference(copy), id as never);
  // Nothing is remembered of where the layers came from: they are made and sent again.
  user.sink.blobs.length = 0;
  const again = statuses(await user.push(copy));
  assert.equal(again.filter((line) => line.endsWith(': Pushed')).length, 3);
  const other = new TestEngine(t);
  await other.pull(copy);
  assert.deepEqual([...other.sink.files.layers.keys()], [...maker.sink.files.layers.keys()]);
});

it('a client certificate beside the authority is shown to a registry that asks for one', async (t) => {
  addStrangeAddress();
  const certificates = makeCertificates();
  const directory = scratch();
  const tls = { cert: readFileSync(certificates.certificate), key: readFileSync(certificates.key) };
  const ca = readFileSync(certificates.ca);
  const asked: boolean[] = [];
  const server = createServer({ ...tls, ca, requestCert: true, rejectUnauthorized: false }, (request, response) => {
    asked.push((request.socket as TLSSocket).authorized);
    response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, strangeAddress, resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
    for (const place of [directory, certificates.directory]) rmSync(place, { recursive: true, force: true });
  });
  const host = `${strangeAddress}:${(server.address() as AddressInfo).port}`;
  mkdirSync(join(directory, host));
  cpSync(certificates.ca, join(directory, host, 'ca.crt'));
  cpSync(certificates.certificate, join(directory, host, 'client.cert'));
  const engine = new TestEngine(t, { certificateDirectories: [directory] });
  await assert.rejects(engine.pull(`${host}/x`), /missing key client.key for client certificate client.cert/);
  cpSync(certificates.key, join(directory, host, 'client.key'));
  await assert.rejects(
    engine.pull(`${host}/x`),
    wrong('internal', /\/v2\/": received unexpected HTTP status: 404 Not Found$/),
  );
  assert.deepEqual([...new Set(asked)], [true]);
});

it('a mirror serves names of the hub, and the next one when it fails', async (t) => {
  const registry = await startRegistry();
  t.after(() => registry.stop());
  const maker = new TestEngine(t);
  await maker.make(`${registry.host}/library/tiny`, [randomBytes(100)]);
  await maker.push(`${registry.host}/library/tiny:latest`);
  const user = new TestEngine(t, { registryMirrors: ['http://127.0.0.1:1', `http://${registry.host}`] });
  const lines = statuses(await user.pull('tiny'));
  assert.equal(lines[0], 'latest: Pulling from library/tiny');
  assert.match(
    lines[1] ?? '',
    new RegExp(`^Mirror 127.0.0.1:1 failed \\(.*connection refused\\): trying ${registry.host}$`),
  );
  assert.equal(lines.at(-1), 'Status: Downloaded newer image for tiny:latest');
});

it('waits as long as a busy registry asks, and gives up when it asks for too much', async (t) => {
  let refusals = 0;
  const busy = await startFake(({ url }) => {
    if (url === '/v2/') return { status: 200 };
    if (refusals++ === 0) return { status: 429, headers: { 'retry-after': '1' } };
    return {
      status: 429,
      headers: { 'retry-after': '3600' },
      body: '{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}',
    };
  });
  t.after(() => busy.stop());
  const began = performance.now();
  await assert.rejects(new TestEngine(t).pull(`${busy.host}/x`), wrong('unavailable', /^toomanyrequests: slow down$/));
  const seconds = (performance.now() - began) / 1000;
  assert.ok(seconds >= 0.9 && seconds < 5, `${seconds} s`);
  assert.equal(refusals, 2);
});
