/**
 * Mounts of a container: what a request may say, what inspect tells of it, and what the process sees. What is expected holds
 * for dockerd 20.10 as well (SLIPWAY_TEST_ENGINE=dockerd), but where it answers a mistake of the client with 500.
 *
 * test-timeout-seconds: 300
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually, run, start as spawn } from '../support/command.ts';
import { engineKind, TestEngine } from '../support/engine.ts';
import type { Loose } from '../support/http.ts';
import { importBusybox } from '../support/images.ts';
import { endsWithUs } from '../support/netns.ts';

let engine: TestEngine;
/** A directory of the host with `file` in it. */
let host = '';
before(async () => {
  engine = await TestEngine.start();
  await importBusybox(engine);
  host = path.join(engine.paths.directory, 'host');
  fs.mkdirSync(path.join(host, 'dir'), { recursive: true });
  fs.writeFileSync(path.join(host, 'file'), 'of the host\n');
});
after(() => engine?.close());

const v = '/v1.26';
const slipway = { skip: engineKind === 'dockerd' };
/** dockerd calls many a mistake of the client its own. */
const mistake = engineKind === 'dockerd' ? [400, 500] : [400];

interface Wish {
  readonly script?: string;
  readonly host?: object;
  readonly config?: object;
  readonly image?: string;
}

const request = ({ script = 'true', host = {}, config = {}, image = 'busybox' }: Wish) => ({
  Image: image,
  Cmd: ['sh', '-c', script],
  Tty: true,
  ...config,
  HostConfig: host,
});

async function create(wish: Wish, name = ''): Promise<string> {
  return (await engine.call('POST', `${v}/containers/create?name=${name}`, request(wish))).Id;
}
const inspect = (id: string): Promise<Loose> => engine.call('GET', `${v}/containers/${id}/json`);
const start = (id: string) => engine.call('POST', `${v}/containers/${id}/start`);
const remove = (id: string) => engine.call('DELETE', `${v}/containers/${id}?force=1&v=1`);

/** Runs a container to its end; resolves with what it printed. */
async function sees(wish: Wish): Promise<string> {
  const id = await create(wish);
  const text = await output(id);
  await remove(id);
  return text;
}

async function output(id: string): Promise<string> {
  const since = Date.now() / 1000;
  await start(id);
  await engine.call('POST', `${v}/containers/${id}/wait`);
  const { text } = await engine.api('GET', `${v}/containers/${id}/logs?stdout=1&stderr=1&since=${since}`);
  return text.replaceAll('\r', '').trim();
}

async function refused(wish: Wish, text: string | RegExp, statuses: readonly number[] = mistake): Promise<void> {
  const answer = await engine.api('POST', `${v}/containers/create`, request(wish));
  assert.ok(statuses.includes(answer.status), `${answer.status} ${answer.text}`);
  const { message } = answer.json();
  if (typeof text === 'string') assert.equal(message, text);
  else assert.match(message, text);
}

/** `Mounts` of inspect, by destination. */
async function mountsOf(id: string): Promise<Record<string, Loose>> {
  const { Mounts } = await inspect(id);
  return Object.fromEntries(Mounts.map(({ Destination, ...mount }: Loose) => [Destination, mount]));
}

const volumeNames = async (): Promise<string[]> =>
  ((await engine.call('GET', `${v}/volumes`)).Volumes ?? []).map((volume: Loose) => volume.Name).sort();

const bind = (Source: string, Target: string, more: object = {}) => ({ Type: 'bind', Source, Target, ...more });
const volume = (Target: string, more: object = {}) => ({ Type: 'volume', Target, ...more });
const tmpfs = (Target: string, more: object = {}) => ({ Type: 'tmpfs', Target, ...more });

describe('Binds: what may be said', () => {
  const wrong = (said: string, why = '') => `invalid volume specification: '${said}'${why}`;
  const of = (type: string, why: string) => `: invalid mount config for type "${type}": ${why}`;
  for (const [said, text] of [
    ['', wrong('')],
    [':', wrong(':')],
    ['/a:', wrong('/a:')],
    [':/a', wrong(':/a')],
    ['/a:ro', wrong('/a:ro')],
    ['/a:/b:ro:z', wrong('/a:/b:ro:z')],
    ['/a:b', wrong('/a:b', of('bind', "invalid mount path: 'b' mount path must be absolute"))],
    ['name:b', wrong('name:b', of('volume', "invalid mount path: 'b' mount path must be absolute"))],
    ['/a:/', wrong('/a:/', of('bind', "invalid specification: destination can't be '/'"))],
    ['/a:/b/..', wrong('/a:/b/..', of('bind', "invalid specification: destination can't be '/'"))],
    ['/a:/b:nocopy', wrong('/a:/b:nocopy', of('bind', 'field VolumeOptions must not be specified'))],
    ['name:/b:shared', wrong('name:/b:shared', of('volume', 'field BindOptions must not be specified'))],
    ['/a:/b:fast', 'invalid mode: fast'],
    ['/a:/b:ro,rw', 'invalid mode: ro,rw'],
    ['/a:/b:z,Z', 'invalid mode: z,Z'],
    ['/a:/b:shared,slave', 'invalid mode: shared,slave'],
    ['n:/b', 'create n: volume name is too short, names should be at least two alphanumeric characters'],
    ['./a:/b', /^create .\/a: ".\/a" includes invalid characters for a local volume name.* use absolute path$/],
  ] as const) {
    test(`'${said}' is refused`, () => refused({ host: { Binds: [said] } }, text));
  }

  test('every mode, as inspect tells it', async () => {
    const id = await create({
      host: {
        Binds: [
          `${host}:/a`,
          `${host}/:/b/:ro`,
          `${host}:/c/../c:rw,z`,
          `${host}:/d:ro,rslave,Z`,
          `${host}:/e:cached`,
          'named:/f',
          'named:/g:ro,nocopy',
          '/h',
        ],
      },
    });
    const { '/h': anonymous, ...mounts } = await mountsOf(id);
    const shown = Object.entries(mounts).map(([at, m]) => [at, m.Type, m.Name, m.Driver, m.Mode, m.RW, m.Propagation]);
    assert.deepEqual(shown.sort(), [
      ['/a', 'bind', undefined, undefined, '', true, 'rprivate'],
      ['/b', 'bind', undefined, undefined, 'ro', false, 'rprivate'],
      ['/c', 'bind', undefined, undefined, 'rw,z', true, 'rprivate'],
      ['/d', 'bind', undefined, undefined, 'ro,rslave,Z', false, 'rslave'],
      ['/e', 'bind', undefined, undefined, 'cached', true, 'rprivate'],
      ['/f', 'volume', 'named', 'local', 'z', true, ''],
      ['/g', 'volume', 'named', 'local', 'ro,nocopy', false, ''],
    ]);
    assert.equal(mounts['/b']?.Source, host);
    assert.match(anonymous?.Name, /^[0-9a-f]{64}$/);
    const [row] = (await engine.call('GET', `${v}/containers/json?all=1`)).filter((r: Loose) => r.Id === id);
    assert.deepEqual(Object.keys(Object.fromEntries(row.Mounts.map((m: Loose) => [m.Destination, m]))).sort(), [
      ...Object.keys(mounts).sort(),
      '/h',
    ]);
    assert.deepEqual(
      row.Mounts.find((m: Loose) => m.Destination === '/f'),
      { Destination: '/f', ...mounts['/f'] },
    );
    await remove(id);
  });
});

describe('Mounts: what may be said', () => {
  const of = (type: string, why: string) => `invalid mount config for type "${type}": ${why}`;
  for (const [mount, text] of [
    [{ Type: 'volume' }, of('volume', 'field Target must not be empty')],
    [volume('/'), of('volume', "invalid specification: destination can't be '/'")],
    [volume('x'), of('volume', "invalid mount path: 'x' mount path must be absolute")],
    [{ Type: 'punch', Target: '/x' }, of('punch', 'mount type unknown')],
    [{ Target: '/x' }, of('', 'mount type unknown')],
    [{ Type: 'bind', Target: '/x' }, of('bind', 'field Source must not be empty')],
    [bind('x', '/x'), of('bind', "invalid mount path: 'x' mount path must be absolute")],
    [bind('/no/such', '/x'), of('bind', 'bind source path does not exist: /no/such')],
    [bind('/', '/x', { BindOptions: { Propagation: 'wild' } }), of('bind', 'invalid propagation mode: wild')],
    [bind('/', '/x', { VolumeOptions: {} }), of('bind', 'field VolumeOptions must not be specified')],
    [volume('/x', { BindOptions: {} }), of('volume', 'field BindOptions must not be specified')],
    [volume('/x', { ReadOnly: true }), of('volume', 'must not set ReadOnly mode when using anonymous volumes')],
    [tmpfs('/x', { Source: '/y' }), of('tmpfs', 'field Source must not be specified')],
    [tmpfs('/x', { BindOptions: {} }), of('tmpfs', 'field BindOptions must not be specified')],
    [volume('/x', { Source: 'a/b' }), /^create a\/b: "a\/b" includes invalid characters/],
    [
      volume('/x', { Source: 'oo', VolumeOptions: { DriverConfig: { Options: { foo: '' } } } }),
      'create oo: invalid option: "foo"',
    ],
  ] as const) {
    test(`${JSON.stringify(mount)} is refused`, () => refused({ host: { Mounts: [mount] } }, text));
  }
  for (const mount of [tmpfs('/x', { TmpfsOptions: { SizeBytes: -1 } }), tmpfs('/x', { TmpfsOptions: { Mode: -1 } })]) {
    test(`${JSON.stringify(mount)} is refused`, slipway, () =>
      refused({ host: { Mounts: [mount] } }, /invalid (size|mode): -1$/),
    );
  }

  test('as inspect tells them; what it tells makes the same container', async () => {
    const Mounts = [
      bind(host, '/a', { ReadOnly: true }),
      bind(`${host}/dir`, '/b/', { BindOptions: { Propagation: 'slave' } }),
      volume('/c', { Source: 'asked', VolumeOptions: { Labels: { a: 'b' } } }),
      tmpfs('/d', { TmpfsOptions: { SizeBytes: 65536, Mode: 0o700 } }),
      tmpfs('/e', { ReadOnly: true }),
    ];
    let told = { Mounts } as Loose;
    for (let round = 0; round < 2; round++) {
      const id = await create({ host: told });
      told = (await inspect(id)).HostConfig;
      assert.deepEqual(told.Mounts, Mounts);
      const mounts = await mountsOf(id);
      assert.deepEqual(mounts['/a'], { Type: 'bind', Source: host, Mode: '', RW: false, Propagation: 'rprivate' });
      assert.equal(mounts['/b']?.Propagation, 'slave');
      assert.equal(mounts['/c']?.Mode, 'z');
      assert.deepEqual(mounts['/d'], { Type: 'tmpfs', Source: '', Mode: '', RW: true, Propagation: '' });
      assert.equal(mounts['/e']?.RW, false);
      await remove(id);
    }
    assert.deepEqual((await engine.call('GET', `${v}/volumes/asked`)).Labels, { a: 'b' });
  });
});

describe('together', () => {
  for (const [name, wish] of Object.entries({
    'two binds': { Binds: ['/a:/x', '/b:/x/'] },
    'a bind and a tmpfs': { Binds: ['/a:/x'], Tmpfs: { '/x': '' } },
    'a bind and a mount': { Binds: ['/a:/x'], Mounts: [volume('/x')] },
    'two mounts': { Mounts: [volume('/x'), tmpfs('/x')] },
  })) {
    test(`${name} at one place`, () => refused({ host: wish }, 'Duplicate mount point: /x', [400]));
  }

  test('Volumes give way to what the request mounts, a Tmpfs hides what else is there', async () => {
    const id = await create({
      script: 'for at in /a /b /c /d; do grep " $at " /proc/mounts | cut -d" " -f1-3; done; cat /a/file',
      config: { Volumes: { '/a': {}, '/b/': {}, '/c': {}, '/d': {} } },
      host: { Binds: [`${host}:/a`], Mounts: [tmpfs('/b'), volume('/d')], Tmpfs: { '/c': '', '/d': '' } },
    });
    const mounts = await mountsOf(id);
    assert.deepEqual(
      Object.entries(mounts)
        .map(([at, m]) => `${at} ${m.Type}`)
        .filter((m) => !m.startsWith('/c'))
        .sort(),
      ['/a bind', '/b tmpfs', '/d volume'],
    );
    assert.match(await output(id), /^\S+ \/a \w+\ntmpfs \/b tmpfs\ntmpfs \/c tmpfs\ntmpfs \/d tmpfs\nof the host$/);
    await remove(id);
  });

  test('mounts below mounts, whatever their order', async () => {
    const script = 'echo x > /n/a/b/c/deep; cat /n/a/file; ls /n/a/b; grep " /n" /proc/mounts | cut -d" " -f2';
    const deep = { Binds: ['deep:/n/a/b/c', 'outer:/n', `${host}:/n/a`], Tmpfs: { '/n/a/b': '' } };
    assert.equal(await sees({ script, host: deep }), 'of the host\nc\n/n\n/n/a\n/n/a/b\n/n/a/b/c');
    assert.equal(await sees({ script: 'cat /d/deep', host: { Binds: ['deep:/d'] } }), 'x');
    fs.rmSync(path.join(host, 'b'), { recursive: true, force: true });
  });
});

describe('binds', () => {
  test('a missing source is made at start, even again', async () => {
    const missing = path.join(host, 'made', 'on', 'demand');
    const id = await create({ script: 'ls -d /m', host: { Binds: [`${missing}:/m`] } });
    assert.equal(await output(id), '/m');
    fs.rmdirSync(missing);
    assert.equal(await output(id), '/m');
    assert.ok(fs.statSync(missing).isDirectory());
    await remove(id);
    assert.ok(fs.existsSync(missing), 'sources stay');
  });
  test('the source of a mount is not made when it has gone', async () => {
    const there = path.join(host, 'gone');
    fs.mkdirSync(there);
    const id = await create({ host: { Mounts: [bind(there, '/m')] } });
    fs.rmdirSync(there);
    const answer = await engine.api('POST', `${v}/containers/${id}/start`);
    assert.ok(answer.status >= 400, answer.text);
    assert.ok(!fs.existsSync(there));
    await remove(id);
  });
  test('a file; replaced on the host it is the new one for the next start', async () => {
    const file = path.join(host, 'replaced');
    fs.writeFileSync(file, 'one');
    const id = await create({ script: 'cat /etc/some.conf', host: { Binds: [`${file}:/etc/some.conf`] } });
    assert.equal(await output(id), 'one');
    fs.writeFileSync(`${file}.new`, 'two');
    fs.renameSync(`${file}.new`, file);
    assert.equal(await output(id), 'two');
    await remove(id);
  });
  test('a socket', async () => {
    const socket = path.join(host, 'socket');
    const server = net.createServer((c) => c.end('through the socket'));
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    assert.equal(await sees({ script: 'test -S /s && echo there', host: { Binds: [`${socket}:/s`] } }), 'there');
    assert.ok(fs.statSync(socket).isSocket());
    server.close();
  });
  test('a directory over a file, and a file over a directory, say what is wrong', async () => {
    for (const binds of [`${host}/dir:/etc/passwd`, `${host}/file:/etc`]) {
      const id = await create({ host: { Binds: [binds] } });
      const answer = await engine.api('POST', `${v}/containers/${id}/start`);
      assert.equal(answer.status, 400, answer.text);
      assert.match(answer.json().message, /Are you trying to mount a directory onto a file \(or vice-versa\)\?/);
      await remove(id);
    }
  });
  test('read-only holds for the top alone, as it always has', async () => {
    const below = path.join(host, 'dir');
    await run(['mount', '-t', 'tmpfs', 'below', below]);
    try {
      const script = 'touch /h/x; touch /h/dir/x && echo inner';
      const text = await sees({ script, host: { Binds: [`${host}:/h:ro`] } });
      assert.match(text, /touch: \/h\/x: Read-only file system\ninner$/);
    } finally {
      await run(['umount', below]);
    }
  });
  test('what is read-only on the host stays so inside', async () => {
    const place = path.join(host, 'ro');
    fs.mkdirSync(place);
    await run(['mount', '-t', 'tmpfs', 'ro', place]);
    try {
      await run(['mount', '-o', 'remount,bind,ro,noexec', place]);
      const text = await sees({ script: 'touch /h/x; grep " /h " /proc/mounts', host: { Binds: [`${place}:/h`] } });
      assert.match(text, /Read-only file system\nro \/h tmpfs ro,.*noexec/);
    } finally {
      await run(['umount', place]);
    }
  });
  test("over the engine's own files: the user's win", async () => {
    const id = await create({
      script: 'cat /etc/hosts /etc/resolv.conf; touch /etc/hosts',
      host: { Binds: [`${host}/file:/etc/hosts:ro`], Mounts: [bind(`${host}/file`, '/etc/resolv.conf')] },
    });
    assert.match(await output(id), /^of the host\nof the host\ntouch: \/etc\/hosts: Read-only file system$/);
    await remove(id);
    assert.match(
      await sees({ script: 'ls -1 /etc; grep -c localhost /etc/hosts', host: { Binds: [`${host}/dir:/etc`] } }),
      /hosts\nresolv.conf\n[1-9]$/,
    );
  });
  test('/dev/shm and parts of /dev; not /proc', async () => {
    assert.match(
      await sees({ script: 'grep " /dev/shm " /proc/mounts', host: { Tmpfs: { '/dev/shm': 'size=1m' } } }),
      /^tmpfs \/dev\/shm tmpfs rw,.*size=1024k/,
    );
    assert.equal(await sees({ script: 'cat /dev/shm/file', host: { Binds: [`${host}:/dev/shm`] } }), 'of the host');
    assert.equal(
      await sees({ script: 'cat /proc/uptime', host: { Binds: [`${host}/file:/proc/uptime`] } }),
      'of the host',
    );
    for (const place of ['/proc', '/proc/sys']) {
      const id = await create({ host: { Binds: [`${host}:${place}`] } });
      const answer = await engine.api('POST', `${v}/containers/${id}/start`);
      assert.ok(mistake.includes(answer.status), answer.text);
      assert.match(answer.json().message, /cannot be mounted because it is (not of type proc|inside \/proc)/);
      await remove(id);
    }
  });
  test('links in the image lead nowhere but into the image', async () => {
    const outside = path.join(engine.paths.directory, 'outside');
    fs.mkdirSync(outside);
    const id = await create({
      script: `mkdir -p /real; ln -s ${outside} /out; ln -s ../../../../../../${outside} /up; ln -s /real /in`,
    });
    await output(id);
    const { text } = await engine.api('POST', `${v}/commit?container=${id}&repo=links`);
    assert.match(text, /Id/);
    await remove(id);
    const script = 'cat /out/a/file /up/file /real/file; ls -l /out/a | wc -l';
    const text2 = await sees({
      image: 'links',
      script,
      host: { Binds: [`${host}:/out/a`, `${host}:/up`, `${host}:/in`] },
    });
    assert.match(text2, /^of the host\nof the host\nof the host\n/);
    assert.deepEqual(fs.readdirSync(outside), []);
    // A volume is filled from inside as well.
    fs.writeFileSync(path.join(outside, 'secret'), 'x');
    assert.equal(await sees({ image: 'links', script: 'ls -A /out', host: { Binds: ['linked:/out'] } }), '');
  });
});

describe('propagation', () => {
  /** A mount point of its own below the host directory. */
  async function withMount(propagation: string, work: (at: string) => Promise<void>): Promise<void> {
    const at = path.join(host, propagation);
    fs.mkdirSync(at, { recursive: true });
    await run(['mount', '-t', 'tmpfs', propagation, at]);
    await run(['mount', `--make-${propagation}`, at]);
    try {
      await work(at);
    } finally {
      await run(['umount', '-R', at]);
    }
  }
  async function startFails(at: string, mode: string, text: RegExp): Promise<void> {
    const id = await create({ host: { Binds: [`${at}:/p:${mode}`] } });
    const answer = await engine.api('POST', `${v}/containers/${id}/start`);
    assert.ok(mistake.includes(answer.status), answer.text);
    assert.match(answer.json().message, text);
    await remove(id);
  }

  test('shared and slave need a source that is', () =>
    withMount('private', async (at) => {
      for (const mode of ['shared', 'rshared'])
        await startFails(at, mode, /path \S+ is mounted on \S+ but it is not a shared mount$/);
      for (const mode of ['slave', 'rslave'])
        await startFails(at, mode, /path \S+ is mounted on \S+ but it is not a shared or slave mount$/);
      assert.equal(
        await sees({ script: 'echo fine', host: { Binds: [`${at}:/p:private`, `${at}:/q:rprivate`] } }),
        'fine',
      );
    }));

  test('mounts of the host reach a slave, those of the container stay inside', () =>
    withMount('shared', async (at) => {
      const script = 'while ! grep -q " /p/late " /proc/mounts; do sleep 0.05; done; echo seen';
      for (const [mode, seen] of [
        ['rslave', true],
        ['rshared', true],
        ['rprivate', false],
      ] as const) {
        fs.mkdirSync(path.join(at, 'late'), { recursive: true });
        const id = await create({ script, host: { Binds: [`${at}:/p:${mode}`] } });
        await start(id);
        await run(['mount', '-t', 'tmpfs', 'late', path.join(at, 'late')]);
        const wait = engine.call('POST', `${v}/containers/${id}/wait`).then(() => true);
        const first = await Promise.race([
          wait,
          new Promise((resolve) => setTimeout(resolve, seen ? 10_000 : 500, false)),
        ]);
        assert.equal(first, seen, mode);
        await run(['umount', path.join(at, 'late')]);
        await remove(id);
        await wait.catch(() => undefined);
      }
    }));

  test("the engine's own directory is bound as a slave", async () => {
    const id = await create({ host: { Binds: [`${engine.paths.dataRoot}:/root-of-engine`, '/:/machine:ro'] } });
    const mounts = await mountsOf(id);
    assert.equal(mounts['/root-of-engine']?.Propagation, 'rslave');
    assert.equal(mounts['/machine']?.Propagation, 'rslave');
    await start(id);
    await remove(id);
    await refused(
      { host: { Binds: ['/:/machine:private'] } },
      /^invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within the daemon root/,
      [400],
    );
  });
});

describe('Tmpfs', () => {
  for (const [options, line] of [
    ['', 'rw,nosuid,nodev,noexec,relatime'],
    ['exec', 'rw,nosuid,nodev,relatime'],
    ['suid,dev,exec', 'rw,relatime'],
    ['ro', 'ro,nosuid,nodev,noexec,relatime'],
    ['size=64k', 'rw,nosuid,nodev,noexec,relatime,size=64k'],
    ['size=64k,defaults,size=128k', 'rw,nosuid,nodev,noexec,relatime,size=128k'],
    ['mode=0700,uid=5,gid=6', 'rw,nosuid,nodev,noexec,relatime,mode=700,uid=5,gid=6'],
    ['nr_inodes=10,noatime', 'rw,nosuid,nodev,noexec,noatime,nr_inodes=10'],
  ] as const) {
    test(`'${options}'`, async () => {
      const text = await sees({ script: 'grep " /x " /proc/mounts', host: { Tmpfs: { '/x': options } } });
      assert.equal(text, `tmpfs /x tmpfs ${line} 0 0`);
    });
  }
  test('a percentage of the memory', async () => {
    const script = 'grep " /x " /proc/mounts';
    assert.match(await sees({ script, host: { Tmpfs: { '/x': 'size=10%' } } }), /,size=\d{3,}k 0 0$/);
  });
  for (const [options, shown] of [
    ['tmpcopyup', '["tmpcopyup"]'],
    ['foo=bar', '["foo" "bar"]'],
    ['size=abc', '["size" "abc"]'],
    ['size=-1', '["size" "-1"]'],
    ['mode=rwx', '["mode" "rwx"]'],
  ] as const) {
    // dockerd finds out at the start.
    test(`'${options}' is refused by create`, slipway, () =>
      refused({ host: { Tmpfs: { '/x': options } } }, `invalid tmpfs option ${shown}`),
    );
  }
  for (const [place, text] of [
    ['/', "invalid specification: destination can't be '/'"],
    ['x', "invalid mount path: 'x' mount path must be absolute"],
    ['', "invalid mount path: '' mount path must be absolute"],
  ] as const) {
    test(`the place '${place}' is refused`, () => refused({ host: { Tmpfs: { [place]: '' } } }, text, [400]));
  }
  test('is empty with each start, hides the image, and has the mode of the directory it covers', async () => {
    const id = await create({
      script: 'ls -A /bin/.. /var/spool 2>/dev/null | wc -l; stat -c %a /etc /new; ls -1 /etc; echo x > /etc/x',
      host: { Tmpfs: { '/etc': '', '/new': '' } },
    });
    const first = await output(id);
    assert.match(first, /\n755\n1777\nhostname\nhosts\nresolv.conf$/);
    // dockerd gives the second run a directory of mode 755, which is what the first has left at the place.
    if (engineKind === 'slipway') assert.equal(await output(id), first);
    await remove(id);
  });
  test('as Mounts', async () => {
    const Mounts = [
      tmpfs('/a', { TmpfsOptions: { SizeBytes: 65536, Mode: 0o1770 } }),
      tmpfs('/b', { ReadOnly: true }),
      tmpfs('/c'),
    ];
    assert.equal(
      await sees({ script: 'grep -E " /[abc] " /proc/mounts | sort', host: { Mounts } }),
      [
        'tmpfs /a tmpfs rw,nosuid,nodev,noexec,relatime,size=64k,mode=1770 0 0',
        'tmpfs /b tmpfs ro,nosuid,nodev,noexec,relatime 0 0',
        'tmpfs /c tmpfs rw,nosuid,nodev,noexec,relatime 0 0',
      ].join('\n'),
    );
  });
});

test('a read-only root leaves volumes, binds and tmpfs writable', async () => {
  const script =
    'for at in / /v /av /b /t /etc/hosts /dev/shm /dev; do touch $at/x 2>/dev/null || touch $at 2>/dev/null && echo $at; done';
  assert.equal(
    await sees({
      script,
      config: { Volumes: { '/av': {} } },
      host: { ReadonlyRootfs: true, Binds: ['rov:/v', `${host}/dir:/b`], Tmpfs: { '/t': '' } },
    }),
    '/v\n/av\n/b\n/t\n/dev/shm\n/dev',
  );
});

describe('copy-up', () => {
  before(async () => {
    const script = [
      'mkdir -m 2750 /data /data/sub /data/empty',
      'chown 12:34 /data /data/sub',
      'echo content > /data/sub/file; chmod 4711 /data/sub/file; touch -d "2001-02-03 04:05:06" /data/sub/file',
      'ln /data/sub/file /data/hard; ln -s sub/file /data/soft; mkfifo /data/fifo',
      'dd if=/dev/zero of=/data/sparse bs=1 count=1 seek=1000000 2>/dev/null',
    ].join(' && ');
    const id = await create({ script });
    await output(id);
    await engine.call(
      'POST',
      `${v}/commit?container=${id}&repo=withdata&changes=${encodeURIComponent('VOLUME /data')}`,
    );
    await remove(id);
  });
  const look =
    'cd /data; stat -c "%n %a %u:%g %F" . sub sub/file fifo soft empty; stat -c %Y sub/file; stat -c %h hard; cat soft; du -k sparse | cut -f1';

  test('owners, modes, times, links and holes arrive, whichever way the volume is asked for', async () => {
    const expected = await sees({ image: 'withdata', script: look, host: { Mounts: [volume('/elsewhere')] } });
    assert.match(expected, /^\. 2750 12:34 directory\nsub 2750 12:34 directory\nsub\/file 4711 0:34 regular file\n/);
    assert.match(expected, /\n981173106\n2\ncontent\n\d+$/);
    for (const wish of [
      { Binds: ['up:/data'] },
      { Mounts: [volume('/data', { Source: 'up2' })] },
      { Binds: ['/data'] },
    ])
      assert.equal(await sees({ image: 'withdata', script: look, host: wish }), expected, JSON.stringify(wish));
  });
  test('extended attributes arrive', slipway, async () => {
    const id = await create({ image: 'withdata', host: { Mounts: [volume('/none')] } });
    const { UpperDir } = (await inspect(id)).GraphDriver.Data;
    fs.mkdirSync(`${UpperDir}/data`, { recursive: true });
    fs.writeFileSync(`${UpperDir}/data/marked`, '');
    const python = `import os; os.setxattr("${UpperDir}/data/marked", "user.colour", b"blue")`;
    const set = await run(['python3', '-c', python]);
    assert.equal(set.code, 0, set.stderr);
    await engine.call('POST', `${v}/commit?container=${id}&repo=marked`);
    await remove(id);
    const other = await create({ image: 'marked', host: { Binds: ['xattr:/data'] } });
    const { Mountpoint } = await engine.call('GET', `${v}/volumes/xattr`);
    const got = await run(['python3', '-c', `import os; print(os.getxattr("${Mountpoint}/marked", "user.colour"))`]);
    assert.match(got.stdout, /blue/, got.stderr);
    await remove(other);
  });
  test('only into an empty volume, and not with nocopy', async () => {
    await sees({ script: 'echo own > /d/own', host: { Binds: ['owned:/d'] } });
    assert.equal(await sees({ image: 'withdata', script: 'ls /data', host: { Binds: ['owned:/data'] } }), 'own');
    assert.equal(await sees({ image: 'withdata', script: 'ls /data', host: { Binds: ['bare:/data:nocopy'] } }), '');
    const Mounts = [volume('/data', { Source: 'bare', VolumeOptions: { NoCopy: true } })];
    assert.equal(await sees({ image: 'withdata', script: 'ls /data', host: { Mounts } }), '');
    assert.match(await sees({ image: 'withdata', script: 'ls /data', host: { Binds: ['bare:/data'] } }), /sparse/);
  });
  test('is done once: what is deleted afterwards stays away', async () => {
    const id = await create({
      image: 'withdata',
      script: 'ls /data | wc -l; rm -rf /data/*',
      host: { Binds: ['once:/data'] },
    });
    assert.equal(await output(id), '6');
    assert.equal(await output(id), '0');
    await remove(id);
  });
  // dockerd lets them copy side by side, and most fail over each other's files.
  test('ten containers that want one new volume at once find it whole', slipway, async () => {
    const ids = await Promise.all(
      Array.from({ length: 10 }, () =>
        create({ image: 'withdata', script: 'ls /data | wc -l', host: { Binds: ['crowd:/data'] } }),
      ),
    );
    assert.deepEqual(new Set(await Promise.all(ids.map(output))), new Set(['6']));
    await Promise.all(ids.map(remove));
  });
  test('a volume over a file of the image', async () => {
    await refused(
      { config: { Volumes: { '/etc/passwd': {} } } },
      /^cannot mount volume over existing file, file exists .*\/etc\/passwd$/,
    );
    await refused({ host: { Binds: ['overfile:/etc/passwd'] } }, /^source .*\/etc\/passwd is not directory$/);
  });
});

describe('volumes of a container', () => {
  const anonymous = async () => (await volumeNames()).filter((name) => name.length === 64);
  const wish = { config: { Volumes: { '/a': {} } }, host: { Binds: ['/b', 'stays:/c'], Mounts: [volume('/d')] } };

  test('anonymous ones go with v=1, named ones stay', async () => {
    const kept = await anonymous();
    const id = await create(wish);
    assert.equal((await anonymous()).length, kept.length + 3);
    await remove(id);
    assert.deepEqual(await anonymous(), kept);
    assert.ok((await volumeNames()).includes('stays'));
    const other = await create(wish);
    await engine.call('DELETE', `${v}/containers/${other}`);
    assert.equal((await anonymous()).length, kept.length + 3);
    await engine.call('POST', `${v}/volumes/prune`);
  });
  test('anonymous ones go with AutoRemove', async () => {
    const kept = await anonymous();
    await start(await create({ ...wish, host: { ...wish.host, AutoRemove: true } }));
    await eventually(async () => assert.deepEqual(await anonymous(), kept));
  });
  test('a create that fails leaves none behind', async () => {
    const kept = await anonymous();
    await refused({ config: { Volumes: { '/a': {}, '/etc/passwd': {} } } }, /cannot mount volume over existing file/);
    assert.deepEqual(await anonymous(), kept);
  });
  test('VolumeDriver', async () => {
    const text = (name: string) =>
      new RegExp(`^create ${name}: error looking up volume plugin nope: plugin "nope" not found$`);
    await refused({ host: { VolumeDriver: 'nope', Binds: ['dd:/d'] } }, text('dd'), [404]);
    await refused({ host: { VolumeDriver: 'nope' }, config: { Volumes: { '/d': {} } } }, text('[0-9a-f]{64}'), [404]);
    await refused(
      { host: { Mounts: [volume('/d', { Source: 'dd', VolumeOptions: { DriverConfig: { Name: 'nope' } } })] } },
      text('dd'),
      [404],
    );
    const id = await create({ host: { VolumeDriver: 'nope', Binds: [`${host}:/d`] } });
    assert.equal((await inspect(id)).HostConfig.VolumeDriver, 'nope');
    await remove(id);
    await remove(await create({ host: { VolumeDriver: 'local', Binds: ['dd:/d'] } }));
  });
});

describe('VolumesFrom', () => {
  for (const [said, text] of [
    ['', 'volumes-from specification cannot be an empty string'],
    ['nobody', 'No such container: nobody'],
    ['nobody:fast', 'invalid mode: fast'],
    ['nobody:rshared', 'invalid mode: rshared'],
    ['nobody:nocopy', 'invalid mode: nocopy'],
  ] as const) {
    test(`'${said}' is refused`, () => refused({ host: { VolumesFrom: [said] } }, text, [400]));
  }

  test('of a stopped container, its modes, and what comes before what', async () => {
    const source = await create(
      {
        script: 'echo a > /av/x; echo n > /named/x',
        config: { Volumes: { '/av': {} } },
        host: { Binds: ['shared:/named', `${host}:/h:ro`], Tmpfs: { '/t': '' } },
      },
      'source',
    );
    await output(source);
    const theirs = await mountsOf(source);
    for (const [from, writable] of [
      [['source'], true],
      [['source:ro,z'], false],
      [['source', `${source.slice(0, 12)}:ro`], false],
    ] as const) {
      const id = await create({
        script: 'cat /av/x /named/x /h/file; touch /av/y && echo w',
        host: { VolumesFrom: from },
      });
      const mine = await mountsOf(id);
      assert.deepEqual(Object.keys(mine).sort(), ['/av', '/h', '/named']);
      assert.equal(mine['/av']?.Name, theirs['/av']?.Name);
      assert.deepEqual([mine['/av']?.RW, mine['/h']?.RW, mine['/named']?.RW], [writable, false, writable]);
      assert.deepEqual((await inspect(id)).HostConfig.VolumesFrom, from);
      const text = await output(id);
      assert.ok(text.startsWith('a\nn\nof the host'), text);
      assert.equal(text.endsWith('\nw'), writable);
      await engine.call('DELETE', `${v}/containers/${id}`);
    }
    const own = await create({
      config: { Volumes: { '/av': {}, '/mine': {} } },
      host: { VolumesFrom: ['source'], Binds: ['other:/named'], Mounts: [tmpfs('/h')] },
    });
    const mounts = await mountsOf(own);
    assert.deepEqual(
      [mounts['/av']?.Name, mounts['/named']?.Name, mounts['/h']?.Type, mounts['/mine']?.Type],
      [theirs['/av']?.Name, 'other', 'tmpfs', 'volume'],
    );
    // They outlive the one they came from, and go with the last that has them.
    await remove(source);
    assert.equal((await engine.api('POST', `${v}/containers/${own}/start`)).status, 204);
    assert.ok((await volumeNames()).includes(theirs['/av']?.Name));
    await refused({ host: { VolumesFrom: ['source'] } }, 'No such container: source', [400]);
    await remove(own);
    assert.ok(!(await volumeNames()).includes(theirs['/av']?.Name));
  });
});

test('stories of the docker CLI', async () => {
  const docker = (...args: string[]) => engine.mustDocker(args);
  assert.equal(await docker('run', '--rm', '-v', `${host}:/h:ro`, 'busybox', 'cat', '/h/file'), 'of the host\n');
  const mount = (text: string) => ['run', '--rm', '--mount', text, 'busybox'];
  assert.equal(await docker(...mount(`type=bind,src=${host},dst=/h,readonly`), 'cat', '/h/file'), 'of the host\n');
  assert.match(await docker(...mount('type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=0750'), 'df', '-k', '/t'), / 1024 /);
  await docker(...mount('type=volume,src=byname,dst=/d,volume-label=x=y'), 'touch', '/d/x');
  assert.equal(await docker(...mount('src=byname,dst=/d'), 'ls', '/d'), 'x\n');
  assert.equal(await docker('volume', 'inspect', '-f', '{{.Labels.x}}', 'byname'), 'y\n');
  const missing = await engine.docker([...mount('type=bind,src=/no/such,dst=/h'), 'true']);
  assert.match(missing.stderr, /invalid mount config for type "bind": bind source path does not exist: \/no\/such/);
  assert.match(await docker('run', '--rm', '--tmpfs', '/t:size=2m,exec', 'busybox', 'df', '-k', '/t'), / 2048 /);
  await docker('run', '--name', 'holder', '-v', '/share', 'busybox', 'sh', '-c', 'echo handed on > /share/x');
  assert.equal(await docker('run', '--rm', '--volumes-from', 'holder:ro', 'busybox', 'cat', '/share/x'), 'handed on\n');
  assert.equal(await docker('run', '--rm', '--volumes-from', 'holder', 'busybox', 'cat', '/share/x'), 'handed on\n');
  assert.match(await docker('ps', '-a', '--filter', 'name=holder', '--format', '{{.Mounts}}'), /^[0-9a-f]{13,}…?\n$/);
  await docker('rm', '-v', 'holder');
});

test('a file server that does not answer holds up its own container alone', slipway, async () => {
  // The holder of the descriptor is the server, and never reads a question.
  const place = path.join(host, 'dead');
  fs.mkdirSync(place);
  const options = 'fd=3,rootmode=40000,user_id=0,group_id=0';
  const script = `exec 3<>/dev/fuse; mount -i -n -t fuse -o ${options} dead ${place} && echo mounted; exec sleep 1000`;
  const server = spawn([...endsWithUs, 'bash', '-c', script]);
  try {
    await eventually(async () => assert.match((await run(['cat', '/proc/self/mountinfo'])).stdout, / fuse dead /));
    const volumeOptions = { type: 'none', device: `${place}/export`, o: 'bind' };
    await engine.call('POST', `${v}/volumes/create`, { Name: 'dead', DriverOpts: volumeOptions });
    const stuck = [
      ...(await Promise.all([
        create({ host: { Binds: [`${place}/a:/d`] } }),
        create({ host: { Binds: ['dead:/d:nocopy'] } }),
      ])),
      ...(await Promise.all(
        Array.from({ length: 6 }, () => create({ host: { Binds: ['dead:/d:nocopy', `${place}/b:/e`] } })),
      )),
    ];
    let ended = 0;
    const starts = stuck.map((id) =>
      engine.api('POST', `${v}/containers/${id}/start`, undefined, { timeoutMs: 120_000 }).finally(() => ended++),
    );
    const create500 = engine.api(
      'POST',
      `${v}/containers/create`,
      request({ host: { Mounts: [bind(`${place}/c`, '/d')] } }),
      { timeoutMs: 120_000 },
    );
    await new Promise((resolve) => setTimeout(resolve, 500));
    // Everybody else goes on: more rounds than Node has threads for files.
    for (let round = 0; round < 3; round++) {
      assert.equal(await sees({ script: 'cat /h/file', host: { Binds: [`${host}:/h`, 'alive:/v'] } }), 'of the host');
      assert.ok((await volumeNames()).includes('dead'));
      assert.equal((await inspect(stuck[0] ?? '')).State.Running, false);
    }
    assert.equal(ended, 0, 'the dead ones were still waiting');
    server.kill('SIGKILL');
    for (const { status } of await Promise.all([...starts, create500])) assert.ok(status >= 400, String(status));
  } finally {
    server.kill('SIGKILL');
    await run(['umount', '-l', place]);
  }
  assert.equal(await sees({ script: 'echo alive' }), 'alive');
});

test('nothing is left behind', slipway, async () => {
  await engine.removeAll();
  await engine.assertNoLeaks();
});
