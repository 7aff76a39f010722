/**
 * A program that talks from inside a network namespace: `peer.ts tcp-serve ADDRESS PORT NAME`, `udp-serve …`,
 * `tcp-ask ADDRESS PORT`, `udp-ask ADDRESS PORT [OWN PORT]`. A server answers each question with its name and the address it saw.
 */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';

const [mode = '', address = '', portText = '', name = ''] = process.argv.slice(2);
const port = Number(portText);
const udpKind = address.includes(':') ? 'udp6' : 'udp4';
const patienceMs = 1500;

if (mode === 'tcp-serve') {
  // Answers only at the end of the question: a lost half-close shows.
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    let question = '';
    socket.on('data', (chunk) => {
      question += chunk;
    });
    socket.on('end', () => socket.end(`${name} ${socket.remoteAddress} ${question}`));
    socket.on('error', () => undefined);
  });
  server.listen(port, address, () => process.stdout.write('ready\n'));
} else if (mode === 'udp-serve') {
  const socket = dgram.createSocket(udpKind);
  socket.on('message', (question, from) => socket.send(`${name} ${from.address} ${question}`, from.port, from.address));
  socket.bind(port, address, () => process.stdout.write('ready\n'));
} else {
  const timer = setTimeout(() => {
    process.stdout.write('nothing\n');
    process.exit(0);
  }, patienceMs);
  try {
    process.stdout.write(`${mode === 'tcp-ask' ? await askTcp() : await askUdp()}\n`);
  } catch (error) {
    process.stdout.write(`${error instanceof Error && 'code' in error ? error.code : error}\n`);
  }
  clearTimeout(timer);
  process.exit(0);
}

async function askTcp(): Promise<string> {
  const socket = net.connect({ host: address, port, allowHalfOpen: true });
  await once(socket, 'connect');
  socket.end('hello');
  let answer = '';
  for await (const chunk of socket) answer += chunk;
  return answer;
}

async function askUdp(): Promise<string> {
  const socket = dgram.createSocket(udpKind);
  if (name !== '') socket.bind(Number(name));
  socket.send('hello', port, address);
  const [answer] = (await once(socket, 'message')) as [Buffer];
  return answer.toString();
}
