/**
 * Rows of published ports: what passes through them, from a machine next door and from the host's own loopback, and what a hundred of them
 * cost at a start. The client is the same small program for every engine and times itself, so its own start does not count.
 */
import type { Netns } from '../test/support/netns.ts';
import type { Engine } from './engines.ts';
import type { Row } from './rows.ts';

const streamBytes = 1_000_000_000;
const roundTrips = 2000;
const streamPort = 8001;
const echoPort = 8002;

const client = `
import socket, sys, time
mode, address, port, amount = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
began = time.monotonic()
s = socket.create_connection((address, port), 10)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
if mode == 'stream':
    buffer, total = bytearray(1 << 20), 0
    while True:
        n = s.recv_into(buffer)
        if n == 0: break
        total += n
    if total != amount: sys.exit('%d of %d bytes' % (total, amount))
else:
    for i in range(amount):
        s.sendall(b'x' * 64)
        n = 0
        while n < 64: n += len(s.recv(64 - n)) or sys.exit('the connection ended')
print((time.monotonic() - began) * 1000)
`;

interface Serving {
  readonly id: string;
  readonly neighbour: Netns;
  /** The host's address on the wire to the neighbour. */
  readonly here: string;
}

const serving = new Map<string, Serving>();
const neighbours = new Map<string, Omit<Serving, 'id'>>();

/** One container that sends a stream to who connects to one port, and echoes at another. */
async function serve(engine: Engine): Promise<void> {
  const { Id } = await engine.client.json<{ Id: string }>('POST', '/containers/create', {
    Image: 'busybox',
    Cmd: [
      'sh',
      '-c',
      `nc -ll -p ${echoPort} -e cat & exec nc -ll -p ${streamPort} -e dd if=/dev/zero bs=${streamBytes / 10_000} count=10000`,
    ],
    ExposedPorts: { [`${streamPort}/tcp`]: {}, [`${echoPort}/tcp`]: {} },
    HostConfig: {
      PortBindings: Object.fromEntries(
        [streamPort, echoPort].map((port) => [`${port}/tcp`, [{ HostPort: String(port) }]]),
      ),
    },
  });
  await engine.client.call('POST', `/containers/${Id}/start`);
  let place = neighbours.get(engine.name);
  if (place === undefined) {
    const { netns, here } = await engine.netns.attachNeighbour({ net: '10.88.7' });
    place = { neighbour: netns, here };
    neighbours.set(engine.name, place);
  }
  serving.set(engine.name, { id: Id, ...place });
  await new Promise((resolve) => setTimeout(resolve, 500));
}

async function stop(engine: Engine): Promise<void> {
  await engine.client.call('DELETE', `/containers/${serving.get(engine.name)?.id}?force=1`);
  serving.delete(engine.name);
}

function throughPort(
  id: string,
  title: string,
  mode: 'stream' | 'echo',
  from: 'neighbour' | 'host',
  goal: string,
): Row {
  return {
    id,
    title,
    unit: 'ms',
    rounds: 5,
    goal,
    prepare: serve,
    async measure(engine) {
      const place = serving.get(engine.name);
      if (place === undefined) throw new Error('nothing serves');
      const target = from === 'host' ? '127.0.0.1' : place.here;
      const [port, amount] = mode === 'stream' ? [streamPort, streamBytes] : [echoPort, roundTrips];
      const netns = from === 'host' ? engine.netns : place.neighbour;
      const command = ['python3', '-c', client, mode, target, String(port), String(amount)];
      return Number(await netns.must(command));
    },
    cleanUp: stop,
  };
}

export const portRows: readonly Row[] = [
  throughPort('port-stream', '1 GB through a published port, from a neighbour', 'stream', 'neighbour', 'no slower'),
  throughPort('port-stream-host', "the same from the host's loopback", 'stream', 'host', 'no slower'),
  throughPort(
    'port-latency',
    '2 000 questions and answers through it, from a neighbour',
    'echo',
    'neighbour',
    'no slower',
  ),
  throughPort('port-latency-host', "the same from the host's loopback", 'echo', 'host', 'no slower'),
  {
    id: 'ports-100',
    title: 'start of a container with 100 published ports (API)',
    unit: 'ms',
    rounds: 3,
    goal: '10 × faster',
    async measure({ client: api }) {
      const ports = Array.from({ length: 100 }, (_, n) => 20_000 + n);
      const { Id } = await api.json<{ Id: string }>('POST', '/containers/create', {
        Image: 'busybox',
        Cmd: ['sleep', '1000'],
        ExposedPorts: Object.fromEntries(ports.map((port) => [`${port}/tcp`, {}])),
        HostConfig: {
          PortBindings: Object.fromEntries(ports.map((port) => [`${port}/tcp`, [{ HostPort: String(port) }]])),
        },
      });
      try {
        const began = performance.now();
        await api.call('POST', `/containers/${Id}/start`);
        return performance.now() - began;
      } finally {
        await api.call('DELETE', `/containers/${Id}?force=1`);
      }
    },
  },
];
