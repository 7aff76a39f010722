/** A power cut without leaving the room. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { eventually, run } from './command.ts';
import type { TestEngine } from './engine.ts';

const pidIn = (file: string) => Number(fs.readFileSync(file, 'latin1'));

/** Processes, mounts, interfaces, rules and the run directory go; the data root stays. For an engine whose daemon has been killed. */
export async function powerCut(engine: TestEngine, pids: readonly number[]): Promise<void> {
  const { directory, execRoot } = engine.paths;
  const monitors = fs.globSync(`${execRoot}/container/*/monitor.pid`).map(pidIn);
  await run(['kill', '-KILL', ...[...pids, ...monitors].filter((pid) => pid > 0).map(String)]);
  await eventually(() => assert.ok(pids.every((pid) => pid === 0 || !fs.existsSync(`/proc/${pid}/root/bin`))));
  const mounts = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const ours = mounts.map((line) => line.split(' ')[4] ?? '').filter((place) => place.startsWith(directory));
  for (const place of ours.reverse()) await run(['umount', '--lazy', place]);
  for (const group of fs.globSync(
    `/sys/fs/cgroup/{*/,}slipway/{${fs.readdirSync(`${execRoot}/container`).join(',')}}`,
  )) {
    await eventually(() => fs.rmdirSync(group));
  }
  await engine.inNetns(['ip', 'link', 'delete', 'slipway0']);
  await engine.inNetns(['nft', 'flush', 'ruleset']);
  fs.rmSync(execRoot, { recursive: true, force: true });
}
