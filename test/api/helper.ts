/** A server on real sockets, in front of a backend of which each test defines what it asks for. Only HTTP is tested here. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import type { Backend } from '../../src/api/backend.ts';
import { type ApiServer, createApiServer } from '../../src/api/server/server.ts';
import type { Attachment } from '../../src/container/api.ts';

export type PartialBackend = { [Part in keyof Backend]?: Partial<Backend[Part]> };

function part<T extends object>(name: string, methods: Partial<T> | undefined): T {
  return new Proxy((methods ?? {}) as T, {
    get: (target, key, receiver) => {
      if (key in target) return Reflect.get(target, key, receiver);
      return () => {
        throw new Error(`${name}.${String(key)} was not expected`);
      };
    },
  });
}

export const backendOf = (parts: PartialBackend): Backend => ({
  containers: part('containers', parts.containers),
  images: part('images', parts.images),
  events: part('events', parts.events),
  networks: part('networks', parts.networks),
  volumes: part('volumes', parts.volumes),
  system: part('system', { engineVersion: '9.9.9', version: () => ({ Version: '9.9.9' }), ...parts.system }),
});

export interface LogLine {
  readonly level: string;
  readonly message: string;
  readonly fields: object;
}

export interface Running extends AsyncDisposable {
  readonly server: ApiServer;
  readonly directory: string;
  readonly socketPath: string;
  readonly port: number;
  readonly tlsPort: number;
  readonly log: readonly LogLine[];
}

export const plainConfig = { group: '', tls: false, tlsVerify: false, tlsCaCert: '', tlsCert: '', tlsKey: '' };

/** One server on a unix socket, on TCP and (a second one) on TLS. */
export async function serve(parts: PartialBackend, options: { readonly tls?: Certificates } = {}): Promise<Running> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-api-'));
  const socketPath = path.join(directory, 'api.sock');
  const lines: LogLine[] = [];
  const at = (level: string) => (fields: object, message: string) => void lines.push({ level, fields, message });
  const log = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
  const backend = backendOf(parts);
  const hosts = [`unix://${socketPath}`, 'tcp://127.0.0.1:0'];
  const server = createApiServer({ backend, log, config: { ...plainConfig, hosts } });
  await server.listen();
  const certificates = options.tls;
  const secure =
    certificates &&
    createApiServer({
      backend,
      log,
      config: { ...plainConfig, ...tlsConfig(certificates), hosts: ['tcp://127.0.0.1:0'] },
    });
  await secure?.listen();
  return {
    server,
    directory,
    socketPath,
    port: (server.addresses[1] as AddressInfo).port,
    tlsPort: (secure?.addresses[0] as AddressInfo | undefined)?.port ?? 0,
    log: lines,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([server.close(0), secure?.close(0)]);
      fs.rmSync(directory, { recursive: true });
    },
  };
}

export interface Certificates {
  readonly directory: string;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly clientCert: string;
  readonly clientKey: string;
}

const tlsConfig = (certificates: Certificates) => ({
  tls: true,
  tlsVerify: true,
  tlsCaCert: certificates.ca,
  tlsCert: certificates.cert,
  tlsKey: certificates.key,
});

/** A private CA, a certificate for 127.0.0.1 and one for a client. */
export function makeCertificates(): Certificates {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-tls-'));
  const file = (name: string) => path.join(directory, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...key,
    '-days',
    '2',
    '-subj',
    '/CN=test CA',
    '-keyout',
    file('ca-key.pem'),
    '-out',
    file('ca.pem'),
  );
  for (const name of ['server', 'client']) {
    openssl('req', ...key, '-subj', `/CN=${name}`, '-keyout', file(`${name}-key.pem`), '-out', file(`${name}.csr`));
    fs.writeFileSync(file('san'), 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n');
    const signed = ['-CA', file('ca.pem'), '-CAkey', file('ca-key.pem'), '-CAcreateserial', '-extfile', file('san')];
    openssl('x509', '-req', '-days', '2', '-in', file(`${name}.csr`), ...signed, '-out', file(`${name}.pem`));
  }
  return {
    directory,
    ca: file('ca.pem'),
    cert: file('server.pem'),
    key: file('server-key.pem'),
    clientCert: file('client.pem'),
    clientKey: file('client-key.pem'),
  };
}

export type Transport = 'unix' | 'tcp' | 'tls';

export function connect(running: Running, transport: Transport, certificates: Certificates): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket =
      transport === 'tls'
        ? tls.connect({
            socket: net.connect({ host: '127.0.0.1', port: running.tlsPort, allowHalfOpen: true }),
            host: '127.0.0.1',
            ca: fs.readFileSync(certificates.ca),
            cert: fs.readFileSync(certificates.clientCert),
            key: fs.readFileSync(certificates.clientKey),
          })
        : net.connect(
            transport === 'unix'
              ? { path: running.socketPath, allowHalfOpen: true }
              : { host: '127.0.0.1', port: running.port, allowHalfOpen: true },
          );
    socket.allowHalfOpen = true;
    socket.once(transport === 'tls' ? 'secureConnect' : 'connect', () => resolve(socket));
    socket.once('error', reject);
  });
}

export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly text: string;
}

export function ask(
  running: Running,
  method: string,
  url: string,
  options: { readonly headers?: http.OutgoingHttpHeaders; readonly body?: string | Buffer } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { socketPath: running.socketPath, method, path: url, headers: options.headers ?? {}, agent: false },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text: Buffer.concat(chunks).toString(),
          }),
        );
      },
    );
    request.on('error', reject);
    request.end(options.body);
  });
}

export const json = { 'Content-Type': 'application/json' };

/** All that comes until the other side ends. */
export async function readAll(socket: net.Socket): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

export const bodyOf = (answer: string) => answer.slice(answer.indexOf('\r\n\r\n') + 4);

/** What arrives is sent back; after the end of input one more word, then the output ends. */
export class Echo implements Attachment {
  readonly tty = true;
  readonly #chunks: Uint8Array[] = [];
  readonly #lastWordAfterMs: number;
  #isDone = false;
  #wake: () => void = () => undefined;
  readonly gone: AbortSignal;
  isLeft = false;

  constructor(gone: AbortSignal, lastWordAfterMs = 50) {
    this.gone = gone;
    this.#lastWordAfterMs = lastWordAfterMs;
    gone.addEventListener('abort', () => this.#finish());
  }

  readonly input = {
    write: async (data: Uint8Array) => {
      this.#chunks.push(Buffer.from(data));
      this.#wake();
    },
    end: () => {
      setTimeout(() => {
        this.#chunks.push(Buffer.from('end'));
        this.#finish();
      }, this.#lastWordAfterMs);
    },
  };

  get output() {
    return this.#read();
  }

  async *#read(): AsyncIterable<Uint8Array> {
    try {
      while (true) {
        const woken = new Promise<void>((wake) => {
          this.#wake = wake;
        });
        for (const chunk of this.#chunks.splice(0)) yield chunk;
        if (this.#isDone) return;
        await woken;
      }
    } finally {
      this.isLeft = true;
    }
  }

  #finish() {
    this.#isDone = true;
    this.#wake();
  }
}

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export async function until(what: string, isTrue: () => boolean, timeoutMs = 5_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!isTrue()) {
    if (Date.now() > deadline) throw new Error(`did not come true within ${timeoutMs} ms: ${what}`);
    await sleep(20);
  }
}
