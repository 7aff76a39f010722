/**
 * The benchmark: slipway, dockerd 20.10, podman 4.3 and the bare runtime in one run, side by side, round by round.
 *
 *   npm run bench -- [--rows run-bridge,exec] [--engines slipway,dockerd] [--quick] [--write]
 *
 * `--quick`: few rounds and small amounts, to see that it works. `--write`: the table goes into docs/performance.md.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { repository } from '../test/support/engine.ts';
import { type Bare, startBare } from './bare.ts';
import { type Engine, type EngineName, startEngine } from './engines.ts';
import { makeRegistryData, pullReference, serveRegistry } from './layers.ts';
import { type Row, rows, type Scale } from './rows.ts';

const { values: options } = parseArgs({
  options: {
    rows: { type: 'string' },
    engines: { type: 'string', default: 'slipway,dockerd,podman,bare' },
    quick: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
  },
});

const scale: Scale = {
  stoppedContainers: options.quick ? 100 : 1000,
  logBytes: options.quick ? 10_000_000 : 100_000_000,
  pullReference,
};
const roundsOf = (row: Row) => (options.quick ? Math.min(row.rounds, 3) : row.rounds);

const chosen = options.rows?.split(',');
const unknown = chosen?.filter((id) => !rows.some((row) => row.id === id)) ?? [];
if (unknown.length > 0) {
  console.error(`no such row: ${unknown.join(', ')}; there are ${rows.map(({ id }) => id).join(', ')}`);
  process.exit(2);
}

type Column = EngineName | 'bare';
type Results = Map<string, Map<Column, number[]>>;

async function main(): Promise<void> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'bench-'));
  const engines: Engine[] = [];
  let bare: Bare | null = null;
  const registries: { close(): void }[] = [];
  try {
    const wanted = options.engines.split(',');
    for (const name of ['slipway', 'dockerd', 'podman'] as const) {
      if (wanted.includes(name)) engines.push(await startEngine(name));
    }
    if (wanted.includes('bare')) bare = startBare(path.join(directory, 'bare'));
    const selected = rows.filter(({ id }) => chosen?.includes(id) ?? true);
    if (selected.some(({ id }) => id === 'pull')) {
      await makeRegistryData(directory);
      for (const engine of engines) registries.push(await serveRegistry(engine.netns, directory));
    }
    const results: Results = new Map();
    for (const row of selected) {
      results.set(row.id, await measure(row, engines, row.bare === undefined ? null : bare));
      console.error(`${row.id.padEnd(17)} ${describe(results.get(row.id) ?? new Map())}`);
    }
    const report = table(selected, results, engines);
    console.log(`\n${report}`);
    if (options.write) write(report);
  } finally {
    bare?.close();
    for (const registry of registries) registry.close();
    for (const engine of engines) await engine.close();
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

/** Every round asks every engine once, each round beginning with another one. */
async function measure(row: Row, engines: readonly Engine[], bare: Bare | null): Promise<Map<Column, number[]>> {
  const figures = new Map<Column, number[]>();
  const failed = new Set<Column>();
  const attempt = async (column: Column, work: () => Promise<void>) => {
    if (failed.has(column)) return;
    try {
      await work();
    } catch (error) {
      failed.add(column);
      figures.delete(column);
      console.error(`${row.id}: ${column}: ${error instanceof Error ? error.message : error}`);
    }
  };
  const take = (column: Column, figure: number) => figures.set(column, [...(figures.get(column) ?? []), figure]);
  for (const engine of engines) await attempt(engine.name, async () => row.prepare?.(engine, scale));
  // Not counted: compilers and caches of all engines, and one of each row's own where rounds are few and long.
  const warmUps = options.quick || row.rounds < 10 ? Math.min(1, row.rounds - 1) : 10;
  for (let round = -warmUps; round < roundsOf(row); round += 1) {
    const turn = (round + warmUps) % Math.max(1, engines.length);
    for (const engine of [...engines.slice(turn), ...engines.slice(0, turn)]) {
      await attempt(engine.name, async () => {
        const figure = await row.measure(engine, scale);
        if (round >= 0) take(engine.name, figure);
      });
    }
    if (bare !== null) {
      await attempt('bare', async () => {
        const figure = await bare.measure(row.bare ?? 'run');
        if (round >= 0) take('bare', figure);
      });
    }
  }
  for (const engine of engines) await row.cleanUp?.(engine).catch((error: Error) => console.error(error.message));
  return figures;
}

function median(figures: readonly number[]): number {
  const sorted = figures.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

function describe(figures: ReadonlyMap<Column, readonly number[]>): string {
  return [...figures]
    .map(
      ([column, list]) =>
        `${column} ${short(median(list))} (${short(Math.min(...list))} to ${short(Math.max(...list))})`,
    )
    .join(', ');
}

function short(figure: number): string {
  return figure >= 100 ? figure.toFixed(0) : figure >= 10 ? figure.toFixed(1) : figure.toFixed(2);
}

function table(selected: readonly Row[], results: Results, engines: readonly Engine[]): string {
  const version = (name: EngineName) => engines.find((engine) => engine.name === name)?.version;
  const lines = [
    `| | slipway | dockerd ${version('dockerd') ?? ''} | podman ${version('podman') ?? ''} | bare | dockerd ÷ slipway | goal |`.replaceAll(
      '  ',
      ' ',
    ),
    '|---|---|---|---|---|---|---|',
  ];
  for (const row of selected) {
    const of = (column: Column) => {
      const list = results.get(row.id)?.get(column);
      return list === undefined || list.length === 0 ? null : median(list);
    };
    const cell = (column: Column) => {
      const figure = of(column);
      return figure === null ? '' : `${short(figure)} ${row.unit}`;
    };
    const [ours, theirs] = [of('slipway'), of('dockerd')];
    const ratio = ours === null || theirs === null ? '' : `${short(theirs / ours)} ×`;
    lines.push(
      `| ${row.title} | ${cell('slipway')} | ${cell('dockerd')} | ${cell('podman')} | ${cell('bare')} | ${ratio} | ${row.goal} |`,
    );
  }
  const cpu = os.cpus();
  const load = os.loadavg().map((figure) => figure.toFixed(1));
  return [
    ...lines,
    '',
    `Medians. ${cpu.length} × ${cpu[0]?.model.trim() || process.arch}, ${(os.totalmem() / 2 ** 30).toFixed(0)} GiB, Linux ${os.release()}, ` +
      `Node.js ${process.versions.node}; load average at the end ${load.join(', ')}; ${new Date().toISOString().slice(0, 10)}.`,
    `Made by \`sudo npm run bench${commandLine()}\`.`,
  ].join('\n');
}

function commandLine(): string {
  const args = process.argv.slice(2);
  return args.length > 0 ? ` -- ${args.join(' ')}` : '';
}

function write(report: string): void {
  const file = path.join(repository, 'docs/performance.md');
  const [begin, end] = ['<!-- table: written by npm run bench -- --write -->', '<!-- end of table -->'];
  const page = fs.readFileSync(file, 'utf8');
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from === -1 || to === -1) throw new Error(`${file} has lost its markers`);
  fs.writeFileSync(file, `${page.slice(0, from + begin.length)}\n\n${report}\n\n${page.slice(to)}`);
}

await main();
