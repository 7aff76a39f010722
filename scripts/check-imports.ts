/**
 * Holds the direction of imports (design, section 3): a folder of src/ may import from folders of lower tiers only, and
 * from those beside it that are named here. Nobody imports from `api` but `daemon.ts`. Shapes are free: `import type`
 * from any `types.ts` is allowed from everywhere but `lib`.
 *
 * Prints each offence as `file:line` and exits with 1.
 */
import fs from 'node:fs';
import path from 'node:path';

/** From the inside out. */
const tiers: readonly (readonly string[])[] = [
  ['lib'],
  ['platform'],
  ['store', 'config'],
  ['event', 'log', 'layer', 'runtime'],
  ['plugin'],
  ['network', 'volume', 'registry'],
  ['image'],
  ['container'],
  ['build', 'swarm', 'system'],
  ['api'],
  ['daemon.ts'],
  ['main.ts'],
];

const sourceRoot = path.resolve(import.meta.dirname, '../src');
const importPattern =
  /^\s*(?<keyword>import|export)\s+(?<type>type\s)?(?:[^'";]*?\sfrom\s+)?'(?<static>[^']+)'|\bimport\('(?<dynamic>[^']+)'\)/gm;

function tierOf(part: string): number {
  return tiers.findIndex((tier) => tier.includes(part));
}

/** `src/container/start.ts` belongs to `container`, `src/daemon.ts` to itself. */
function partOf(file: string): string {
  return path.relative(sourceRoot, file).split(path.sep)[0] ?? '';
}

function offences(file: string): string[] {
  const text = fs.readFileSync(file, 'utf8');
  const from = partOf(file);
  const found: string[] = [];
  if (tierOf(from) === -1) return [`${path.relative(process.cwd(), file)}: '${from}' has no tier in check-imports.ts`];
  for (const match of text.matchAll(importPattern)) {
    const specifier = match.groups?.static ?? match.groups?.dynamic ?? '';
    if (!specifier.startsWith('.')) continue;
    const target = path.resolve(path.dirname(file), specifier);
    const to = partOf(target);
    if (to === from || tierOf(to) < tierOf(from)) continue;
    const shapeOnly = match.groups?.type !== undefined && /(^|-)types\.ts$/.test(path.basename(target));
    if (shapeOnly && from !== 'lib' && to !== 'api') continue;
    const line = text.slice(0, match.index).split('\n').length;
    found.push(`${path.relative(process.cwd(), file)}:${line}: ${from} must not import from ${to} (${specifier})`);
  }
  return found;
}

const files = fs
  .readdirSync(sourceRoot, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => path.join(sourceRoot, name));
const found = files.flatMap(offences);
for (const offence of found) console.error(offence);
if (found.length > 0) process.exitCode = 1;
else console.log(`import directions hold in ${files.length} files`);
