/** `docs/compatibility.md` names every endpoint and every create option of API 1.26, and tells the truth about each. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { routes } from '../../src/api/routes/index.ts';
import { versions } from '../../src/api/versions/index.ts';
import { unsupportedOptions } from '../../src/container/options.ts';
import { ask, serve } from './helper.ts';
import document from './v1.26.json' with { type: 'json' };

const page = fs.readFileSync(new URL('../../docs/compatibility.md', import.meta.url), 'utf8');

/** Rows of the table under a heading: name → [status, note]. */
function table(heading: string): ReadonlyMap<string, readonly [string, string]> {
  const section = page.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? '';
  const rows = [...section.matchAll(/^\| `([^`]+)` \| (\w+) \| ?(.*?) ?\|$/gm)];
  const found = new Map(rows.map(([, name, status, note]) => [name as string, [status, note] as [string, string]]));
  assert.equal(found.size, rows.length, `${heading}: a row is there twice`);
  return found;
}

const newestPlan = (endpoint: string) =>
  versions
    .compile(routes.map((route) => route.endpoint))
    .get(endpoint)
    ?.at(-1);

test('the page lists the endpoints of the document, and each has a route', () => {
  const rows = table('Endpoints');
  assert.deepEqual([...rows.keys()].sort(), [...document.endpoints].sort());
  for (const endpoint of document.endpoints) assert.equal(newestPlan(endpoint)?.exists, true, endpoint);
});

test('an endpoint that the page calls refused answers 501 with its name, the others do not', async () => {
  // The backend expects nothing: whoever reaches it fails with 500, or refuses the empty question itself.
  await using running = await serve({});
  for (const [endpoint, [status]] of table('Endpoints')) {
    const [method, path] = endpoint.split(' ') as [string, string];
    const answer = await ask(running, method, path.replace(/\{\w+\}/, 'x'));
    assert.equal(answer.status === 501, status === 'refused', `${endpoint}: ${answer.status} ${answer.text}`);
    if (status === 'refused' && method !== 'HEAD') assert.ok(answer.text.includes(endpoint), answer.text);
  }
});

for (const [heading, prefix, names] of [
  ['Config', '', document.config],
  ['HostConfig', 'HostConfig.', document.hostConfig],
] as const) {
  test(`${heading}: every property is there, with what create does about it`, () => {
    const rows = table(heading);
    assert.deepEqual(
      [...rows.keys()],
      names.map((name) => prefix + name),
    );
    for (const [name, [status, note]] of rows) {
      const option = unsupportedOptions.find(({ property }) => property === name);
      if (option === undefined) {
        assert.ok(
          ['works', 'windows', 'ignored'].includes(status),
          `${name} is ${status}, but create does not refuse it`,
        );
      } else {
        const said = option.answer === 'warned' ? ['warning'] : ['refused', 'partly'];
        assert.ok(said.includes(status), `${name} is ${status}, but create says ${option.answer}`);
        assert.equal(note, option.why, name);
      }
    }
  });
}

test('every option that works names a test that is there', () => {
  for (const heading of ['Config', 'HostConfig', 'NetworkingConfig.EndpointsConfig']) {
    for (const [name, [status, note]] of table(heading)) {
      if (status !== 'works') continue;
      const files = [...note.matchAll(/test\/[\w./-]+\.ts/g)].map(([file]) => file);
      assert.ok(files.length > 0, `${name} names no test`);
      for (const file of files) assert.ok(fs.existsSync(new URL(`../../${file}`, import.meta.url)), `${name}: ${file}`);
    }
  }
});

test('NetworkingConfig: every property of an endpoint is there', () => {
  assert.deepEqual([...table('NetworkingConfig.EndpointsConfig').keys()], document.endpointSettings);
});
