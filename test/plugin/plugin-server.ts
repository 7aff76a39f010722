/**
 * What plugin processes of the tests have in common: an HTTP server that notes each call and does it, unless `misdeeds.json` beside
 * its state says that it is to go wrong: `{"VolumeDriver.Mount": "hang" | "garbage" | "huge" | "die" | "drop" | "late" | {"Err": …}}`.
 */
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';

export type Handler = (body: Record<string, unknown>) => object;

/** Arguments: directory of its state, where to listen (`/path` or a port), and for TLS paths of authority, certificate, key. */
export function serve(kinds: readonly string[], handlers: Readonly<Record<string, Handler>>): void {
  const [, , state = '', listen = '', ca, cert, key] = process.argv;
  const answer = (request: http.IncomingMessage, response: http.ServerResponse): void => {
    const method = (request.url ?? '').slice(1);
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      const body = text === '' ? {} : JSON.parse(text);
      fs.appendFileSync(
        path.join(state, 'calls'),
        `${JSON.stringify({ method, body, type: request.headers.accept })}\n`,
      );
      const misdeed = misdeeds(state)[method];
      response.setHeader('Content-Type', 'application/vnd.docker.plugins.v1.2+json');
      if (misdeed === 'hang') return;
      if (misdeed === 'drop') return void request.socket.destroy();
      if (misdeed === 'die') process.exit(1);
      if (misdeed === 'garbage') return void response.end('<html>{"Err":""}');
      if (misdeed === 'huge') return void response.end(Buffer.alloc(64 << 20, '[0,'));
      if (typeof misdeed === 'object') return void response.end(JSON.stringify(misdeed));
      if (method === 'Plugin.Activate') return void response.end(JSON.stringify({ Implements: kinds }));
      const handler = handlers[method];
      if (handler === undefined) response.statusCode = 404;
      try {
        const result = handler?.(body) ?? { Err: 'no such method' };
        if (misdeed === 'late') request.socket.destroy();
        response.end(JSON.stringify(result));
      } catch (error) {
        response.statusCode = 500;
        response.end(JSON.stringify({ Err: String(error instanceof Error ? error.message : error) }));
      }
    });
  };
  const tls = ca && cert && key ? { ca: read(ca), cert: read(cert), key: read(key) } : undefined;
  const server = tls
    ? https.createServer({ ...tls, requestCert: true, rejectUnauthorized: true }, answer)
    : http.createServer(answer);
  if (listen.startsWith('/')) {
    fs.rmSync(listen, { force: true });
    server.listen(listen, () => console.log('ready'));
  } else server.listen(Number(listen), '127.0.0.1', () => console.log('ready'));
}

const read = (file: string): Buffer => fs.readFileSync(file);

function misdeeds(state: string): Record<string, string | object> {
  try {
    return JSON.parse(fs.readFileSync(path.join(state, 'misdeeds.json'), 'utf8'));
  } catch {
    return {};
  }
}
