/**
 * The API server: plain `node:http` and `node:https`, set up for an API of long streams (docs/api-server.md).
 * Knows connections and requests; routes know the engine; `versions/` knows ages.
 */
import fs from 'node:fs';
import http, { IncomingMessage, type ServerResponse } from 'node:http';
import https from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Log } from '../../lib/log.ts';
import type { Backend } from '../backend.ts';
import { routes } from '../routes/index.ts';
import { versions } from '../versions/index.ts';
import { jsonBody } from '../wire/json.ts';
import { type Headers, sendFailure, sendReply } from './answer.ts';
import { readBody } from './decode.ts';
import { announcedLength, errorContent, failureFor, type RouteTarget, run } from './dispatch.ts';
import { ClientGone, isUnexpected } from './errors.ts';
import { HijackedConnection } from './hijack.ts';
import { type Endpoint, endpointsOf, type ListenConfig, listen } from './listeners.ts';
import type { Reply, Route } from './route.ts';
import { createResolver, type Resolve, type Target } from './target.ts';

export interface ApiServerOptions {
  readonly backend: Backend;
  readonly config: ListenConfig;
  readonly log: Log;
  /** Instead of all routes of the API: for tests. */
  readonly routes?: readonly Route[];
}

export interface ApiServer {
  /** Resolves when every host accepts connections. After a failure none does. */
  listen(): Promise<void>;
  /** Takes no new connections, gives requests under way the time, then cuts what is left: streams end so. */
  close(graceMs: number): Promise<void>;
  /** Where it listens: paths of unix sockets, addresses and ports. */
  readonly addresses: readonly (string | AddressInfo)[];
  /** Connections open now. */
  readonly connections: number;
}

/** As Go's HTTP server allows; credentials of many registries travel in one header. */
const headerBytesMax = 1024 * 1024;
/** For headers alone. Requests have no limit: an upload may take hours. */
const headersTimeoutMs = 60_000;
/** A TCP client that vanished without a word is noticed after about this time. */
const keepAliveProbeMs = 30_000;
/** How often unix connections are asked whether the client still holds its end. */
const peerProbeMs = 1_000;
const idleCheckMs = 20;

export function createApiServer({ backend, config, log, routes: all = routes }: ApiServerOptions): ApiServer {
  const resolve = createResolver(all, versions);
  const surroundings = { backend, versions: { oldest: versions.oldest, newest: versions.newest } };
  const mismatchHeaders: Headers = {
    'Api-Version': versions.newest,
    Ostype: 'linux',
    Server: `Docker/${backend.system.engineVersion} (linux)`,
  };
  const headers: Headers = { ...mismatchHeaders, 'Docker-Experimental': 'false' };

  const servers: http.Server[] = [];
  const sockets = new Set<Socket>();
  const unixSockets = new Set<Socket>();
  let probe: NodeJS.Timeout | null = null;

  const report = (error: unknown, target: RouteTarget) => {
    if (isUnexpected(error)) log.error({ error, endpoint: target.route.endpoint }, 'a request failed unexpectedly');
  };

  async function serve(req: ApiRequest, res: ServerResponse): Promise<void> {
    const { target } = req;
    if (target.is !== 'route') {
      req.resume();
      return sendRefusal(res, target);
    }
    const { route, plan } = target;
    const isForm = route.body === undefined && isFilledForm(req);
    if (route.body === undefined && !isForm) req.resume();
    try {
      const bytes = isForm || typeof route.body === 'function' ? await readBody(req) : null;
      const incoming = { headers: req.headers, source: req, bytes, gone: () => goneSignal(res) };
      await sendReply(res, await run(target, incoming, surroundings), plan, headers);
    } catch (error) {
      if (error instanceof ClientGone || res.destroyed || res.closed) return;
      report(error, target);
      if (res.headersSent) res.destroy();
      else sendFailure(res, failureFor(plan, error), plan.wire, headers);
      req.resume();
    }
  }

  function sendRefusal(res: ServerResponse, target: Exclude<Target, RouteTarget>): void {
    if (target.is === 'moved') {
      res.writeHead(301, { ...headers, Location: target.location, 'Content-Length': 0 });
      res.end();
    } else if (target.is === 'options') {
      res.writeHead(200, { ...headers, 'Content-Length': 0 });
      res.end();
    } else {
      sendFailure(res, target, target.wire, target.versionMismatch ? mismatchHeaders : headers);
    }
  }

  async function serveHijacked(req: ApiRequest, socket: Socket, head: Buffer): Promise<void> {
    const connection = new HijackedConnection(socket, req.headers, head);
    const target = req.target as RouteTarget;
    try {
      const bytes = typeof target.route.body === 'function' ? await connection.body() : null;
      const incoming = { headers: req.headers, source: socket, bytes, gone: () => connection.gone };
      const reply = await run(target, incoming, surroundings);
      const { content } = reply;
      if (content.is === 'hijack') await connection.stream(content.attachment, headers);
      else if (content.is === 'websocket')
        await connection.speakWebSocket(content.attachment, content.frames, { ...headers, ...reply.headers });
      else connection.answer(reply.status, { ...headers, ...reply.headers }, wholeBody(reply));
    } catch (error) {
      if (error instanceof ClientGone || connection.gone.aborted) return;
      report(error, target);
      if (connection.hasAnswered) {
        socket.destroy();
        return;
      }
      const failure = failureFor(target.plan, error);
      const content = errorContent(failure, target.plan.wire);
      const type = content === null ? {} : { 'Content-Type': content.type };
      connection.answer(failure.status, { ...headers, ...type }, content?.body ?? '');
    }
  }

  function createServer(endpoint: Endpoint): http.Server {
    const options: http.ServerOptions<typeof IncomingMessage> = {
      IncomingMessage: requestClass(resolve) as typeof IncomingMessage,
      shouldUpgradeCallback: (req) => (req as ApiRequest).upgrade,
      optimizeEmptyRequests: true,
      requireHostHeader: false,
      maxHeaderSize: headerBytesMax,
      requestTimeout: 0,
      headersTimeout: headersTimeoutMs,
      keepAliveTimeout: 0,
      keepAlive: true,
      keepAliveInitialDelay: keepAliveProbeMs,
      noDelay: true,
    };
    const withTls = endpoint.is === 'tcp' && (config.tls || config.tlsVerify);
    const server = withTls ? https.createServer({ ...options, ...tlsOptions(config) }) : http.createServer(options);
    // A client that has sent its question may close its side and still wants the answer.
    (server as { httpAllowHalfOpen?: boolean }).httpAllowHalfOpen = true;
    server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      if (endpoint.is === 'unix') unixSockets.add(socket);
      socket.once('close', () => {
        sockets.delete(socket);
        unixSockets.delete(socket);
      });
    });
    server.on('secureConnection', (socket: Socket) => {
      socket.allowHalfOpen = true;
    });
    const cut = (socket: Duplex, error: unknown) => {
      log.error({ error }, 'a connection failed unexpectedly');
      socket.destroy();
    };
    server.on('request', (req, res) => {
      serve(req as ApiRequest, res).catch((error: unknown) => cut(req.socket, error));
    });
    server.on('upgrade', (req: IncomingMessage, socket: Duplex, head: Buffer) => {
      serveHijacked(req as ApiRequest, socket as Socket, head).catch((error: unknown) => cut(socket, error));
    });
    server.on('clientError', (error: ParserError, socket: Duplex) => refuseMalformed(error, socket, headers));
    return server;
  }

  /**
   * A unix client that closes and one that only half-closes look the same to a reader; a writer gets EPIPE for the first.
   * An empty write asks without sending anything, so silent streams of vanished clients are given back. (TCP has keep-alive.)
   */
  function probePeers(): void {
    for (const socket of unixSockets) if (!socket.writableEnded && socket.writableLength === 0) socket.write('');
  }

  async function closeAll(graceMs: number): Promise<void> {
    if (probe !== null) clearInterval(probe);
    const closing = servers.splice(0);
    const closed = closing.map((server) => new Promise<void>((done) => server.close(() => done())));
    // Connections that are kept alive become idle when their answer is out.
    const idle = setInterval(() => {
      for (const server of closing) server.closeIdleConnections();
    }, idleCheckMs);
    const deadline = setTimeout(() => {
      for (const socket of sockets) socket.destroy();
    }, graceMs);
    await Promise.all(closed);
    clearInterval(idle);
    clearTimeout(deadline);
    for (const socket of sockets) socket.destroy();
  }

  return {
    async listen() {
      try {
        for (const host of config.hosts) {
          for (const endpoint of endpointsOf(host, config.tls || config.tlsVerify)) {
            if (endpoint.is === 'tcp' && !config.tlsVerify) {
              log.warn({ host: endpoint.host }, 'whoever can reach this address has root: use --tlsverify');
            }
            const server = createServer(endpoint);
            await listen(server, endpoint, config.group);
            servers.push(server);
            server.on('error', (error) => log.error({ error, host: endpoint.host }, 'a listener failed'));
            log.info({ host: endpoint.host }, 'the API listens');
          }
        }
      } catch (error) {
        await closeAll(0);
        throw error;
      }
      probe = setInterval(probePeers, peerProbeMs);
      probe.unref();
    },
    close: closeAll,
    get addresses() {
      return servers.map((server) => server.address()).filter((address) => address !== null);
    },
    get connections() {
      return sockets.size;
    },
  };
}

function tlsOptions(config: ListenConfig): https.ServerOptions {
  return {
    cert: fs.readFileSync(config.tlsCert),
    key: fs.readFileSync(config.tlsKey),
    minVersion: 'TLSv1.2',
    ...(config.tlsVerify ? { ca: fs.readFileSync(config.tlsCaCert), requestCert: true, rejectUnauthorized: true } : {}),
  };
}

interface ApiRequest extends IncomingMessage {
  readonly target: Target;
  readonly upgrade: boolean;
}

/**
 * Requests that know their target. Node asks `upgrade` whether its parser shall let go of the connection after the headers;
 * here the route decides that, not the client's headers: an `Upgrade: h2c` to an ordinary route is answered in the ordinary way.
 */
function requestClass(resolve: Resolve): typeof IncomingMessage {
  return class extends IncomingMessage implements ApiRequest {
    #target: Target | null = null;

    get target(): Target {
      this.#target ??= resolve(this.method ?? '', this.url ?? '');
      return this.#target;
    }

    get upgrade(): boolean {
      return this.target.is === 'route' && this.target.route.hijack === true;
    }

    set upgrade(_: unknown) {
      // What the parser thinks of the headers.
    }
  };
}

/** Made when somebody wants to know: most requests end before anything could happen to their client. */
function goneSignal(res: ServerResponse): AbortSignal {
  const known = goneSignals.get(res);
  if (known !== undefined) return known;
  const controller = new AbortController();
  goneSignals.set(res, controller.signal);
  const left = () => {
    if (!res.writableFinished) controller.abort();
  };
  if (res.closed || res.destroyed) left();
  else res.once('close', left);
  return controller.signal;
}
const goneSignals = new WeakMap<ServerResponse, AbortSignal>();

function wholeBody({ content }: Reply): string {
  if (content.is === 'json') return jsonBody(content.value);
  return content.is === 'text' ? content.text : '';
}

type ParserError = Error & { readonly code?: string; readonly reason?: string };

/** Parameters may come in the body as well (W-32). */
const isFilledForm = (req: IncomingMessage) =>
  req.method === 'POST' &&
  announcedLength(req.headers) !== 0 &&
  req.headers['content-type']?.startsWith('application/x-www-form-urlencoded') === true;

/** What is not HTTP gets one answer and a closed connection. */
function refuseMalformed(error: ParserError, socket: Duplex, headers: Headers): void {
  // Node keeps the response under way here; to write a second one into it would only confuse.
  const { _httpMessage: underWay } = socket as { _httpMessage?: ServerResponse | null };
  if (refused.has(socket)) return;
  if (!socket.writable || underWay?.headersSent === true || error.code === 'ECONNRESET' || error.code === 'EPIPE') {
    socket.destroy();
    return;
  }
  const isTooLong = error.code === 'HPE_HEADER_OVERFLOW';
  const status = isTooLong ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400;
  const message = isTooLong
    ? `request headers too large: at most ${headerBytesMax} bytes are accepted`
    : `malformed request: ${error.reason ?? error.message}`;
  const body = jsonBody({ message });
  const lines = Object.entries({ ...headers, 'Content-Type': 'application/json', Connection: 'close' });
  socket.end(
    `HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\n` +
      lines.map(([name, value]) => `${name}: ${value}\r\n`).join('') +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  refused.add(socket);
  // Take in what is still coming, or the answer could be lost to a reset.
  socket.on('error', () => socket.destroy());
  socket.resume();
  setTimeout(() => socket.destroy(), malformedLingerMs).unref();
}
/** Whatever they send on is no HTTP either: one answer is enough. */
const refused = new WeakSet<Duplex>();
const malformedLingerMs = 1_000;
