/**
 * Beside a starting slipwayd: once it answers, makes the image `busybox:latest` if the engine has no image at all, and
 * says what to type next.
 *
 *   first-image.ts PID FLAGS…    PID: the daemon's, whose end ends this; FLAGS: the daemon's, to find its socket.
 */
import http from 'node:http';
import { readCommandLine } from '../src/config/cli.ts';
import { busyboxTar } from './busybox-image.ts';

const [pidText = '', ...flags] = process.argv.slice(2);
const daemonPid = Number(pidText);
const host = findHost();

/** Empty when there is nothing to wait for: `--help`, or a mistake that the daemon tells about. */
function findHost(): string {
  try {
    const command = readCommandLine(flags);
    if (command.is !== 'run') return '';
    const { hosts, tls } = command.config;
    const plain = hosts.filter((value) => value.startsWith('unix://') || (value.startsWith('tcp://') && !tls));
    return plain.find((value) => value.startsWith('unix://')) ?? plain[0] ?? '';
  } catch {
    return '';
  }
}

function request(method: string, path: string, body?: Buffer): Promise<{ status: number; text: string }> {
  const address = host.startsWith('unix://')
    ? { socketPath: host.slice('unix://'.length) }
    : { host: new URL(host).hostname, port: new URL(host).port };
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/x-tar', 'content-length': body.length };
    const question = http.request({ ...address, method, path, headers, agent: false, timeout: 60_000 }, (answer) => {
      let text = '';
      answer.on('data', (data: Buffer) => {
        text += data.toString();
      });
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text }));
      answer.on('error', reject);
    });
    question.on('timeout', () => question.destroy(new Error('no answer')));
    question.on('error', reject);
    question.end(body);
  });
}

function daemonLives(): boolean {
  try {
    process.kill(daemonPid, 0);
    return true;
  } catch {
    return false;
  }
}

/** False when the daemon ended first. */
async function answers(): Promise<boolean> {
  while (daemonLives()) {
    const ping = await request('GET', '/_ping').catch(() => null);
    if (ping?.status === 200) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

async function makeFirstImage(): Promise<void> {
  const images = await request('GET', '/images/json');
  if (images.status !== 200 || JSON.parse(images.text).length > 0) return;
  const query = new URLSearchParams({ fromSrc: '-', repo: 'busybox', tag: 'latest', changes: 'CMD ["sh"]' });
  const made = await request('POST', `/images/create?${query}`, busyboxTar());
  if (made.status !== 200 || made.text.includes('"error"')) throw new Error(made.text);
}

// With only TLS or inherited sockets somebody has made arrangements of their own and knows what to type.
if (host !== '' && (await answers())) {
  await makeFirstImage().catch((error: Error) => console.error(`slipway: no first image: ${error.message}`));
  console.log(
    [
      '',
      `export DOCKER_HOST=${host}`,
      'docker run --rm busybox echo hi',
      'More to try: README.md.  How it works: docs/.  Stop the engine with Ctrl-C; containers run on.',
    ].join('\n'),
  );
}
