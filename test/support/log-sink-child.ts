/**
 * A receiver of logs, run where the engine's network is. Prints what comes as JSON lines: `{"at":"listening",…}`, `{"data":base64,"connection":n}`.
 *
 *   log-sink-child.ts '{"kind":"tcp","port":0}'
 *
 * Commands come on stdin, one a line: `pause` (accept, never read), `resume`, `drop` (end all connections), `quit`.
 */
import dgram from 'node:dgram';
import fs from 'node:fs';
import net from 'node:net';
import readline from 'node:readline';
import tls from 'node:tls';
import { DgramSocket } from 'node-unix-socket';

export interface SinkOptions {
  readonly kind: 'tcp' | 'udp' | 'unix' | 'unixgram' | 'tls';
  readonly port?: number;
  readonly path?: string;
  /** PEM. */
  readonly key?: string;
  readonly cert?: string;
  readonly ca?: string;
  /** Answers each chunk id of the forward protocol, as fluentd does. */
  readonly acknowledges?: boolean;
  /** Begins paused. */
  readonly paused?: boolean;
  /** Tells how many bytes came instead of the bytes. */
  readonly counts?: boolean;
  /** Tells when this has come, if it counts. */
  readonly awaits?: string;
}

const options = JSON.parse(process.argv[2] ?? '{}') as SinkOptions;
const say = (message: object): void => {
  fs.writeSync(1, `${JSON.stringify(message)}\n`);
};
let paused = options.paused === true;
let connections = 0;
let counted = 0;
const open = new Set<net.Socket>();

function received(data: Buffer, connection: number): void {
  if (!options.counts) say({ data: data.toString('base64'), connection });
  else {
    counted += data.length;
    if (options.awaits !== undefined && data.includes(options.awaits)) say({ counted, at: 'complete' });
  }
}
if (options.counts) {
  let told = 0;
  setInterval(() => {
    if (counted !== told) say({ counted });
    told = counted;
  }, 2).unref();
}

function serve(socket: net.Socket): void {
  const connection = ++connections;
  say({ at: 'connected', connection });
  open.add(socket);
  socket.on('error', () => undefined);
  socket.on('close', () => {
    open.delete(socket);
    say({ at: 'closed', connection });
  });
  socket.on('data', (data: Buffer) => {
    received(data, connection);
    if (!options.acknowledges) return;
    // `{"chunk": id}` ends a message: 0xa5 "chunk", a short string.
    for (let at = data.indexOf('\xa5chunk', 0, 'latin1'); at >= 0; at = data.indexOf('\xa5chunk', at + 1, 'latin1')) {
      const length =
        (data[at + 6] as number) === 0xd9 ? 2 + (data[at + 7] as number) : 1 + ((data[at + 6] as number) & 31);
      socket.write(Buffer.concat([Buffer.from('\x81\xa3ack', 'latin1'), data.subarray(at + 6, at + 6 + length)]));
    }
  });
  if (paused) socket.pause();
}

switch (options.kind) {
  case 'udp': {
    const socket = dgram.createSocket({ type: 'udp4', recvBufferSize: 8 << 20 });
    socket.on('message', (data) => received(data, 0));
    socket.bind(options.port ?? 0, '127.0.0.1', () => say({ at: 'listening', port: socket.address().port }));
    break;
  }
  case 'unixgram': {
    const socket = new DgramSocket();
    socket.on('data', (data: Buffer) => received(data, 0));
    socket.bind(options.path as string);
    say({ at: 'listening', path: options.path });
    setInterval(() => undefined, 1000);
    break;
  }
  default: {
    const server =
      options.kind === 'tls'
        ? tls.createServer(
            {
              key: options.key,
              cert: options.cert,
              ...(options.ca ? { ca: options.ca, requestCert: true, rejectUnauthorized: true } : {}),
            },
            serve,
          )
        : net.createServer(serve);
    server.on('tlsClientError', (error: Error) => say({ at: 'refused', why: error.message }));
    if (options.kind === 'unix') server.listen(options.path, () => say({ at: 'listening', path: options.path }));
    else
      server.listen(options.port ?? 0, '127.0.0.1', () =>
        say({ at: 'listening', port: (server.address() as net.AddressInfo).port }),
      );
  }
}

for await (const command of readline.createInterface({ input: process.stdin })) {
  if (command === 'pause') {
    paused = true;
    for (const socket of open) socket.pause();
  } else if (command === 'resume') {
    paused = false;
    for (const socket of open) socket.resume();
  } else if (command === 'drop') {
    for (const socket of open) socket.resetAndDestroy();
  } else process.exit(0);
}
process.exit(0);
