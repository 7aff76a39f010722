/** `GET /containers/{id}/attach/ws`: a container's streams for clients that only have a WebSocket, browsers above all. */
import { flag } from '../server/query.ts';
import { reply, route } from '../server/route.ts';
import { handshake } from '../server/websocket.ts';

export const webSocketRoutes = [
  route('GET /containers/{id}/attach/ws', { hijack: true }, async ({ params, query, headers, backend, wire, gone }) => {
    const ref = params.id ?? '';
    const offer = handshake(headers);
    if (offer.is === 'refused') {
      await backend.containers.inspect(ref, false); // that there is no such container is the better news
      return { ...reply.json({ message: offer.why }, 400), headers: { ...reply.json(null).headers, ...offer.headers } };
    }
    // Whatever `stdin`, `stdout` and `stderr` say: they count from API 1.42 on.
    const streams = { stdin: true, stdout: true, stderr: true };
    const attachment = await backend.containers.attach(
      ref,
      {
        ...streams,
        logs: flag(query, 'logs'),
        stream: flag(query, 'stream'),
        detachKeys: query.get('detachKeys') ?? '',
        framed: false,
      },
      gone,
    );
    return reply.webSocket(attachment, wire.webSocketFrames, offer.headers);
  }),
];
