/** `GET /containers/{id}/top`: the host's `ps` with the arguments given, and of its rows those of the container's processes. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { conflict, internal, invalid } from '../lib/errors.ts';
import { isRunning } from './running.ts';
import { type ContainerSet, containerEvent } from './set.ts';

const run = promisify(execFile);
const patienceMs = 10_000;
const outputBytesMax = 64 * 1024 * 1024;
/** More pids do not fit the command line comfortably; `ps` then looks at all processes. */
const pidsMax = 10_000;

export interface Top {
  readonly Titles: readonly string[];
  readonly Processes: readonly (readonly string[])[];
}

/** Throws 'invalid' for arguments that `ps` does not understand, and for columns without PID. */
export async function containerTop(set: ContainerSet, ref: string, psArgs: string): Promise<Top> {
  const record = set.index.resolve(ref);
  if (record.state.is === 'restarting')
    throw conflict(`Container ${record.id} is restarting, wait until the container is running`);
  if (!isRunning(record)) throw conflict(`Container ${record.id} is not running`);
  const pids = new Set(await set.parts.runtime.processes(record.id));
  const args = (psArgs || '-ef').split(/\s+/).filter((word) => word !== '');
  // A list of pids of the client's own would show processes outside.
  if (args.some((word) => /^(-?[pqs]\d|--(pid|ppid|quick-pid|sid))/i.test(word)))
    throw invalid(`bad ps args: ${psArgs}`);
  const rows = parsePs(await psOf(args, pids), pids);
  set.announce(containerEvent(record, 'top'));
  return rows;
}

/** Asks for the container's processes alone first: quicker, and some options show nobody else's otherwise. Not all go with it. */
async function psOf(args: readonly string[], pids: ReadonlySet<number>): Promise<string> {
  const attempts = pids.size > 0 && pids.size <= pidsMax ? [[...args, `-q${[...pids].join(',')}`], args] : [args];
  let failure: unknown;
  for (const attempt of attempts) {
    try {
      return (await run('ps', attempt, { timeout: patienceMs, maxBuffer: outputBytesMax })).stdout;
    } catch (error) {
      failure = error;
    }
  }
  const { code, stderr } = failure as { readonly code?: unknown; readonly stderr?: string };
  if (typeof code !== 'number') throw internal('ps cannot be run', { cause: failure });
  throw invalid(`ps: ${stderr?.split('\n', 1)[0] || `exit status ${code}`}`);
}

export function parsePs(output: string, pids: ReadonlySet<number>): Top {
  const [head = '', ...lines] = output.split('\n');
  const titles = head.trim().split(/\s+/);
  const pidColumn = titles.indexOf('PID');
  if (pidColumn < 0) throw invalid("Couldn't find PID field in ps output");
  const processes: string[][] = [];
  for (const line of lines) {
    const words = line.trim().split(/\s+/);
    if (words.length < titles.length || !pids.has(Number(words[pidColumn]))) continue;
    // The last column holds blanks of its own: the command.
    processes.push([...words.slice(0, titles.length - 1), words.slice(titles.length - 1).join(' ')]);
  }
  return { Titles: titles, Processes: processes };
}
