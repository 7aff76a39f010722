/**
 * Runs test files, two at a time, each in a sandbox of its own (scripts/sandbox.sh) with a deadline, so that they meet
 * neither each other's networks, mounts and processes nor the machine's, and says one line per file.
 * The output of a file is shown only when it failed. Exit code 1 if any did.
 *
 * A file may name its own deadline in a comment: `test-timeout-seconds: 600`.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

const concurrency = 2;
const timeoutSecondsDefault = 300;
const timeoutSecondsLong = 1800;
const keptOutputBytes = 256 * 1024;

interface Result {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

const queue = process.argv.slice(2);
const total = { files: 0, passed: 0, failed: 0, skipped: 0 };
const failedFiles: string[] = [];
let filesStarted = 0;
const running = new Set<ChildProcess>();

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    queue.length = 0;
    for (const child of running) killGroup(child, 'SIGKILL');
    process.exitCode = 130;
  });
}

async function lane(): Promise<void> {
  for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
    const started = performance.now();
    const { code, output, timedOut } = await runFile(file, deadlineSeconds(file));
    const result = readSummary(output);
    const ok = code === 0 && result !== null && result.failed === 0;
    total.files += 1;
    total.passed += result?.passed ?? 0;
    total.failed += ok ? 0 : Math.max(1, result?.failed ?? 0);
    total.skipped += result?.skipped ?? 0;
    const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(6);
    const skipped = result?.skipped ? `, ${result.skipped} skipped` : '';
    console.log(`${ok ? 'ok    ' : 'FAILED'} ${seconds} s  ${file}  (${result?.passed ?? 0} passed${skipped})`);
    if (!ok) {
      failedFiles.push(file);
      if (timedOut) console.log(`       stopped after ${deadlineSeconds(file)} seconds`);
      console.log(output.replace(/^/gm, '       | '));
    }
  }
}

function runFile(file: string, seconds: number): Promise<{ code: number | null; output: string; timedOut: boolean }> {
  filesStarted += 1;
  return new Promise((resolve) => {
    const child = spawn(
      path.join(import.meta.dirname, 'sandbox.sh'),
      [
        ...[process.execPath, '--disable-warning=ExperimentalWarning'],
        ...['--test-reporter=spec', '--test-reporter-destination=stdout', file],
      ],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
        detached: true,
        // Cgroups are the machine's, and process ids repeat in sandboxes: a file that makes cgroups takes this name.
        env: { ...process.env, FORCE_COLOR: '0', SLIPWAY_TEST_CGROUP: `slipway-test-${process.pid}-${filesStarted}` },
      },
    );
    running.add(child);
    let output = '';
    const keep = (data: Buffer) => {
      output = (output + data.toString()).slice(-keptOutputBytes);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      killGroup(child, 'SIGTERM');
      setTimeout(() => killGroup(child, 'SIGKILL'), 5000).unref();
    }, seconds * 1000);
    // The sandbox has ended every process that could hold the pipes open.
    child.on('close', (code) => {
      clearTimeout(timer);
      running.delete(child);
      resolve({ code, output, timedOut });
    });
  });
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, signal);
  } catch {
    // It has gone.
  }
}

function deadlineSeconds(file: string): number {
  const own = /test-timeout-seconds: (\d+)/.exec(fs.readFileSync(file, 'utf8'))?.[1];
  if (own !== undefined) return Number(own);
  return file.endsWith('.long.test.ts') ? timeoutSecondsLong : timeoutSecondsDefault;
}

/** The closing lines of the reporter; null when the file never came that far. */
function readSummary(output: string): Result | null {
  const count = (name: string) => {
    const found = [...output.matchAll(new RegExp(`^ℹ ${name} (\\d+)$`, 'gm'))].at(-1)?.[1];
    return found === undefined ? null : Number(found);
  };
  const passed = count('pass');
  const failed = count('fail');
  const cancelled = count('cancelled');
  if (passed === null || failed === null || cancelled === null) return null;
  return { passed, failed: failed + cancelled, skipped: (count('skipped') ?? 0) + (count('todo') ?? 0) };
}

await Promise.all(Array.from({ length: concurrency }, lane));
console.log(
  `\n${total.files} test files${failedFiles.length > 0 ? `; failed: ${failedFiles.join(' ')}` : ''}\n` +
    `tests: ${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`,
);
if (total.files === 0) console.log('no test files');
if (failedFiles.length > 0 || total.files === 0) process.exitCode = 1;
