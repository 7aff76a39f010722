/** The parts below mounts and volumes: the table of mounts, places in a root full of links, words of tmpfs, children with a deadline. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { placeIn } from '../../src/container/mount-place.ts';
import { tmpfsOptions } from '../../src/container/mount-rules.ts';
import { ChildTimeout, runChild } from '../../src/platform/child.ts';
import { isBelow, isRemote, mountOf, parseMounts, sightOf } from '../../src/platform/mountinfo.ts';
import { mountLocal, unmountLocal } from '../../src/volume/local-mount.ts';
import { eventually, run, start } from '../support/command.ts';
import { endsWithUs } from '../support/netns.ts';

const table = parseMounts(`22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /mnt/with\\040space rw,nosuid master:3 propagate_from:1 - nfs4 server:/x rw,vers=4.2
31 22 0:26 /sub /mnt ro,noexec - tmpfs tmpfs rw
32 22 0:27 / /mnt rw - fuse.sshfs x rw
33 22 0:28 / /mn rw - fuse x rw
`);

describe('the table of mounts', () => {
  test('names, flags, propagation', () => {
    assert.deepEqual(
      table.map(({ target, type, flags, shared, slave }) => [target, type, flags.join(), shared, slave]),
      [
        ['/', 'ext4', 'rw,relatime', true, false],
        ['/mnt/with space', 'nfs4', 'rw,nosuid', false, true],
        ['/mnt', 'tmpfs', 'ro,noexec', false, false],
        ['/mnt', 'fuse.sshfs', 'rw', false, false],
        ['/mn', 'fuse', 'rw', false, false],
      ],
    );
  });
  test('which mount a path is on', () => {
    for (const [at, type] of [
      ['/', 'ext4'],
      ['/mntx', 'ext4'],
      ['/mnt', 'fuse.sshfs'],
      ['/mnt/a', 'fuse.sshfs'],
      ['/mnt/with space/a', 'nfs4'],
      ['/mn/a', 'fuse'],
    ] as const)
      assert.equal(mountOf(table, at)?.type, type, at);
    assert.deepEqual(table.map(isRemote), [false, true, false, true, true]);
    assert.ok(isBelow('/a/b', '/a') && isBelow('/a', '/') && !isBelow('/ab', '/a'));
  });
  test('what is seen at a path changes with flags and with mounts below', () => {
    const seen = sightOf(table, '/mnt');
    const changed = (from: string, to: string) =>
      sightOf(
        parseMounts('22 1 254:0 / / rw - ext4 x rw\n30 22 0:25 / /mnt/a rw - tmpfs x rw\n'.replace(from, to)),
        '/mnt',
      );
    assert.notEqual(changed('/mnt/a rw', '/mnt/a ro'), changed('', ''));
    assert.notEqual(changed('/mnt/a', '/mnt/b'), changed('', ''));
    assert.equal(changed('/mnt/a', '/other'), changed('/mnt/a', '/another'));
    assert.match(seen, /with/);
  });
});

test('places in a root full of links', (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'place-'));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  fs.mkdirSync(`${root}/real/deep`, { recursive: true });
  for (const [link, target] of Object.entries({
    absolute: '/real',
    up: '../../../../../../etc',
    dangling: '/none/such',
    chain: 'absolute/deep',
    'real/back': '../up',
    loop: 'loop',
  }))
    fs.symlinkSync(target, `${root}/${link}`);
  for (const [asked, place] of [
    ['/real/deep', '/real/deep'],
    ['/absolute/x', '/real/x'],
    ['/up/hosts', '/etc/hosts'],
    ['/dangling/a', '/none/such/a'],
    ['/chain', '/real/deep'],
    ['/real/back/x', '/etc/x'],
    ['/new/../absolute', '/real'],
    ['/../../x', '/x'],
  ] as const)
    assert.equal(placeIn(root, asked, new Set()), place, asked);
  // Below another mount the image does not say what is there.
  assert.equal(placeIn(root, '/absolute/back/x', new Set(['/real'])), '/real/back/x');
  assert.throws(() => placeIn(root, '/loop/x', new Set()), /too many levels of symbolic links/);
});

test('words of tmpfs: the last of two that decide the same counts', () => {
  for (const [given, options] of [
    ['', 'noexec,nosuid,nodev,rprivate'],
    ['exec,defaults,', 'nosuid,nodev,rprivate,exec'],
    ['size=1k,ro,size=2k,rw', 'noexec,nosuid,nodev,rprivate,size=2k,rw'],
    ['rslave', 'noexec,nosuid,nodev,rslave'],
  ] as const)
    assert.equal(tmpfsOptions(given).join(), options);
  for (const bad of ['bind', 'remount', 'size', 'size=', 'mode=9', 'uid=root', 'toString', '__proto__=1'])
    assert.throws(() => tmpfsOptions(bad), /invalid tmpfs option/, bad);
});

describe('children', () => {
  test('one that does not end is given up', async () => {
    const began = Date.now();
    await assert.rejects(runChild(['sleep', '100'], { deadlineMs: 100 }), ChildTimeout);
    assert.ok(Date.now() - began < 10_000);
  });
  test('its words are kept, cut short', async () => {
    const { code, output } = await runChild(['sh', '-c', 'yes; exit 3'], { deadlineMs: 300 }).catch(() => ({
      code: 3,
      output: '',
    }));
    assert.ok(code === 3 && output.length < 100_000);
    assert.deepEqual(await runChild(['sh', '-c', 'echo why >&2; exit 3'], { deadlineMs: 5000 }), {
      code: 3,
      output: 'why',
    });
    await assert.rejects(runChild(['/no/such/program'], { deadlineMs: 5000 }), /ENOENT/);
  });
});

test('a server that does not answer: mounting is given up, and tried again when it is back', async (t) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'dead-'));
  const [dead, place] = [path.join(directory, 'dead'), path.join(directory, 'place')];
  fs.mkdirSync(dead);
  fs.mkdirSync(place);
  const options = 'fd=3,rootmode=40000,user_id=0,group_id=0';
  const script = `exec 3<>/dev/fuse; mount -i -n -t fuse -o ${options} unit-dead ${dead}; exec sleep 1000`;
  const server = start([...endsWithUs, 'bash', '-c', script]);
  t.after(async () => {
    server.kill('SIGKILL');
    await run(['umount', '-l', dead]);
    await unmountLocal(place, { mountMs: 5000, unmountMs: 5000 });
    fs.rmSync(directory, { recursive: true, force: true });
  });
  await eventually(async () => assert.match((await run(['cat', '/proc/self/mountinfo'])).stdout, / unit-dead /));
  const volume = { type: 'none', device: `${dead}/export`, o: 'bind' };
  await assert.rejects(
    mountLocal(volume, place, { mountMs: 300, unmountMs: 300 }),
    /^.*failed to mount local volume: mount \S+\/export:\S+, data: bind: mount did not end within 0.3 seconds$/,
  );
  server.kill('SIGKILL');
  await run(['umount', '-l', dead]);
  fs.mkdirSync(`${dead}/export`);
  await mountLocal(volume, place, { mountMs: 5000, unmountMs: 5000 });
  await mountLocal(volume, place, { mountMs: 5000, unmountMs: 5000 });
  fs.writeFileSync(`${place}/x`, '');
  assert.deepEqual(fs.readdirSync(`${dead}/export`), ['x']);
});
