/** Requests to an engine's unix socket as they go over the wire: no retries, no redirects, no shaping. */
import http from 'node:http';
import net from 'node:net';

export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
  readonly text: string;
  json(): Loose;
}

/** Parsed JSON of whatever shape: a test that reads a key that is not there fails all the same. */
// biome-ignore lint/suspicious/noExplicitAny: answers of every endpoint and version pass through here
export type Loose = any;

export interface RequestOptions {
  readonly headers?: http.OutgoingHttpHeaders;
  readonly timeoutMs?: number;
}

/** A string or bytes are sent as they are; anything else as JSON; undefined: no body. */
export type Body = unknown;

export async function request(
  socketPath: string,
  method: string,
  path: string,
  body?: Body,
  options: RequestOptions = {},
): Promise<Answer> {
  const response = await open(socketPath, method, path, body, options);
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part as Buffer);
  const whole = Buffer.concat(parts);
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: whole,
    get text() {
      return whole.toString();
    },
    json: () => JSON.parse(whole.toString()),
  };
}

/** Resolves with the answer's headers; the body is the caller's to read or destroy. */
export function open(
  socketPath: string,
  method: string,
  path: string,
  body?: Body,
  options: RequestOptions = {},
): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    const raw = typeof body === 'string' || body instanceof Uint8Array;
    const payload = body === undefined ? undefined : raw ? body : JSON.stringify(body);
    const headers: http.OutgoingHttpHeaders = {
      ...(payload === undefined
        ? {}
        : {
            'content-type': raw ? 'application/octet-stream' : 'application/json',
            'content-length': Buffer.byteLength(payload),
          }),
      ...options.headers,
    };
    const request = http.request({ socketPath, method, path, headers, agent: false }, resolve);
    request.on('error', reject);
    request.setTimeout(options.timeoutMs ?? 120_000, () =>
      request.destroy(new Error(`${method} ${path}: silent for ${options.timeoutMs ?? 120_000} ms`)),
    );
    request.end(payload);
  });
}

/**
 * A hijacked connection as the docker CLI opens one: POST with `Connection: Upgrade`. Resolves after the answer's
 * headers; `rest` is what came with them.
 */
export function hijack(
  socketPath: string,
  path: string,
  body: unknown = {},
  options: { upgrade?: boolean } = {},
): Promise<{ status: number; head: string; socket: net.Socket; rest: Buffer }> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ path: socketPath, allowHalfOpen: true });
    const payload = JSON.stringify(body);
    const upgrade = options.upgrade === false ? '' : 'Connection: Upgrade\r\nUpgrade: tcp\r\n';
    socket.write(
      `POST ${path} HTTP/1.1\r\nHost: docker\r\n${upgrade}Content-Type: application/json\r\n` +
        `Content-Length: ${Buffer.byteLength(payload)}\r\n\r\n${payload}`,
    );
    let seen = Buffer.alloc(0);
    const collect = (data: Buffer) => {
      seen = Buffer.concat([seen, data]);
      const end = seen.indexOf('\r\n\r\n');
      if (end === -1) return;
      socket.off('data', collect);
      socket.off('error', reject);
      socket.pause();
      const head = seen.subarray(0, end).toString();
      resolve({ status: Number(head.split(' ')[1]), head, socket, rest: seen.subarray(end + 4) });
    };
    socket.on('data', collect);
    socket.once('error', reject);
    socket.once('end', () => reject(new Error(`connection ended before the answer: ${seen.toString()}`)));
  });
}

/** Splits a framed stream (8-byte headers) into stdout and stderr. */
export function demultiplex(data: Buffer): { stdout: string; stderr: string } {
  const out = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  let at = 0;
  while (at < data.length) {
    if (at + 8 > data.length) throw new Error(`torn frame header at ${at} of ${data.length}`);
    const size = data.readUInt32BE(at + 4);
    if (at + 8 + size > data.length) throw new Error(`torn frame at ${at} of ${data.length}`);
    out[data[at] === 2 ? 'stderr' : 'stdout'].push(data.subarray(at + 8, at + 8 + size));
    at += 8 + size;
  }
  return { stdout: Buffer.concat(out.stdout).toString(), stderr: Buffer.concat(out.stderr).toString() };
}
