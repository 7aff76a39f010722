/** One question to a plugin and its answer, each over a connection of its own: a plugin that restarts leaves no dead ones behind. */
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { messageOf } from '../lib/errors.ts';
import { PluginRefusal, PluginUnreached } from './errors.ts';

/** Paths of PEM files; empty: none. */
export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly verify: boolean;
}

export type Address =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number; readonly tls: TlsFiles | null };

export interface PluginAnswer {
  readonly status: number;
  readonly text: string;
}

const contentType = 'application/vnd.docker.plugins.v1.2+json';
const bodyBytesMax = 8 * 1024 * 1024;

/** Throws `PluginUnreached` when no whole answer came, `PluginRefusal` for one that is too large. */
export function ask(address: Address, method: string, body: string, timeoutMs: number): Promise<PluginAnswer> {
  return new Promise((resolve, reject) => {
    let request: http.ClientRequest;
    const timer = setTimeout(() => {
      reject(new PluginUnreached(`${method}: no answer within ${timeoutMs / 1000} seconds`, true));
      request?.destroy();
    }, timeoutMs);
    const fail = (error: unknown): void => {
      clearTimeout(timer);
      reject(new PluginUnreached(`${method}: ${messageOf(error)}`, false, { cause: error }));
    };
    try {
      request = open(address, method, Buffer.byteLength(body));
    } catch (error) {
      fail(error);
      return;
    }
    request.once('error', fail);
    request.once('response', (response) => {
      const chunks: Buffer[] = [];
      let length = 0;
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        length += chunk.length;
        if (length <= bodyBytesMax) return;
        clearTimeout(timer);
        reject(new PluginRefusal(502, `${method}: the answer has more than ${bodyBytesMax} bytes`));
        request.destroy();
      });
      response.once('error', fail);
      response.once('end', () => {
        clearTimeout(timer);
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') });
      });
    });
    request.end(body);
  });
}

function open(address: Address, method: string, length: number): http.ClientRequest {
  const common: http.RequestOptions = {
    method: 'POST',
    path: `/${method}`,
    headers: { Accept: contentType, 'Content-Type': contentType, 'Content-Length': length },
    agent: false,
  };
  // Some servers refuse a path as name of the host.
  if (address.kind === 'unix') return http.request({ ...common, socketPath: address.path, host: 'localhost' });
  const { host, port, tls } = address;
  if (tls === null) return http.request({ ...common, host, port });
  const pem = (file: string): Buffer | undefined => (file === '' ? undefined : fs.readFileSync(file));
  return https.request({
    ...common,
    host,
    port,
    ca: pem(tls.ca),
    cert: pem(tls.cert),
    key: pem(tls.key),
    rejectUnauthorized: tls.verify,
  });
}
