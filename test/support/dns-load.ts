/**
 * A process that loads a name server, or is one; run inside the namespace it shall ask or answer from.
 *
 *   dns-load.ts serve ADDRESS                      answers every question with one address, as fast as it can
 *   dns-load.ts ask NAME QUESTIONS PER-SECOND      asks 127.0.0.11 through several sockets and prints a `Load`; 0 per second: as fast
 *                                                  as answers come, with `window` questions under way. `*` in the name is a number.
 */
import { type ChildProcess, execFile } from 'node:child_process';
import dgram from 'node:dgram';
import packet from 'dns-packet';
import { start } from './command.ts';
import { endsWithUs } from './netns.ts';

export interface Load {
  readonly asked: number;
  /** With an address. */
  readonly answered: number;
  /** Of those that were answered. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** From the first question to the last answer. */
  readonly totalMs: number;
}

const script = import.meta.filename;
const sockets = 8;
const window = 64;
const patienceMs = 6000;

const inside = (namespacePath: string, args: readonly string[]): string[] => [
  ...['nsenter', `--net=${namespacePath}`, '--', process.execPath, '--disable-warning=ExperimentalWarning', script],
  ...args,
];

/** Kill it in the end. */
export async function serve(namespacePath: string, address: string): Promise<ChildProcess> {
  const child = start([...endsWithUs, ...inside(namespacePath, ['serve', address])]);
  await new Promise((resolve) => child.stdout?.once('data', resolve));
  return child;
}

export function load(namespacePath: string, name: string, questions: number, perSecond = 0): Promise<Load> {
  const [program = '', ...args] = inside(namespacePath, ['ask', name, String(questions), String(perSecond)]);
  return new Promise((resolve, reject) => {
    execFile(program, args, (error, stdout, stderr) =>
      error ? reject(new Error(stderr, { cause: error })) : resolve(JSON.parse(stdout)),
    );
  });
}

const socketOf = (): dgram.Socket =>
  dgram.createSocket({ type: 'udp4', recvBufferSize: 4 << 20, lookup: (host, _options, done) => done(null, host, 4) });

function runServer(address: string): void {
  const record = Buffer.from('c00c000100010000003c0004c0000201', 'hex');
  const socket = socketOf();
  socket.on('message', (question, from) => {
    const answer = Buffer.concat([question, record]);
    answer.writeUInt16BE(0x8180, 2);
    answer.writeUInt16BE(1, 6);
    socket.send(answer, from.port, from.address);
  });
  socket.bind(53, address, () => console.log('ready'));
}

async function runClient(name: string, questions: number, perSecond: number): Promise<Load> {
  const askedAt: number[] = [];
  const times: number[] = [];
  let done = 0;
  let lastAt = 0;
  const began = performance.now();
  const all = await Promise.all(
    Array.from({ length: sockets }, async (_, index) => {
      const socket = socketOf();
      await new Promise<void>((resolve) => socket.connect(53, '127.0.0.11', resolve));
      socket.on('message', (answer) => {
        // Question n goes through socket n % sockets with the id n / sockets.
        const number = answer.readUInt16BE(0) * sockets + index;
        const at = askedAt[number];
        if (at === undefined || at < 0) return;
        askedAt[number] = -1;
        lastAt = performance.now();
        done++;
        if (answer.readUInt16BE(6) > 0) times.push(lastAt - at);
        if (perSecond === 0) askNext();
      });
      socket.on('error', () => undefined);
      return socket;
    }),
  );
  const askNext = (): void => {
    const number = askedAt.length;
    if (number >= questions) return;
    const id = Math.floor(number / sockets);
    const message = packet.encode({
      ...{ type: 'query', id, flags: packet.RECURSION_DESIRED },
      questions: [{ type: 'A', name: name.replace('*', String(number)) }],
    });
    askedAt.push(performance.now());
    all[number % sockets]?.send(message);
  };
  if (perSecond === 0) for (let index = 0; index < window; index++) askNext();
  let quietSince = performance.now();
  for (let before = 0; done < questions && performance.now() - quietSince < patienceMs; ) {
    const due = Math.min(questions, ((performance.now() - began) / 1000) * perSecond);
    while (perSecond > 0 && askedAt.length < due) askNext();
    await new Promise((resolve) => setTimeout(resolve, 2));
    if (done !== before || askedAt.length < questions) quietSince = performance.now();
    if (perSecond === 0 && performance.now() - quietSince > 2000) break;
    before = done;
  }
  times.sort((a, b) => a - b);
  const at = (part: number): number => times[Math.min(times.length - 1, Math.floor(times.length * part))] ?? 0;
  return {
    ...{ asked: askedAt.length, answered: times.length, totalMs: lastAt - began },
    ...{ p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) },
  };
}

if (process.argv[1] === script) {
  const [, , what, name = '', questions = '0', perSecond = '0'] = process.argv;
  if (what === 'serve') runServer(name);
  else {
    console.log(JSON.stringify(await runClient(name, Number(questions), Number(perSecond))));
    process.exit(0);
  }
}
