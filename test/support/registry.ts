/**
 * Registries for tests: Debian's `docker-registry` on a loopback address of the test's own network namespace, over HTTP
 * or HTTPS with a private authority, open, with htpasswd or behind a token server.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash, createPrivateKey, randomUUID, sign, X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** An authority and a certificate of it for 127.0.0.1, localhost and 198.51.100.1; paths of PEM files. */
export interface Certificates {
  readonly directory: string;
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

/** Not a loopback address, so never trusted without a certificate; on the loopback device all the same. */
export const strangeAddress = '198.51.100.1';

/** Gives the loopback device `strangeAddress`. Refuses to touch the machine's own network. */
export function addStrangeAddress(): void {
  const devices = execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' }).trim().split('\n');
  if (devices.some((device) => !/^\d+: lo:/.test(device)))
    throw new Error('tests of networks must run in a network namespace of their own');
  const present = execFileSync('ip', ['-o', 'addr', 'show', 'dev', 'lo'], { encoding: 'utf8' });
  if (!present.includes(strangeAddress)) execFileSync('ip', ['addr', 'add', `${strangeAddress}/32`, 'dev', 'lo']);
}

export function makeCertificates(): Certificates {
  const directory = mkdtempSync(join(tmpdir(), 'certificates-'));
  const file = (name: string): string => join(directory, name);
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { stdio: 'ignore' });
  };
  const newKey = ['-newkey', 'rsa:2048', '-nodes', '-days', '2'];
  openssl('req', '-x509', ...newKey, '-subj', '/CN=test authority', '-keyout', file('ca.key'), '-out', file('ca.crt'));
  openssl('req', ...newKey, '-subj', '/CN=registry', '-keyout', file('server.key'), '-out', file('server.csr'));
  writeFileSync(file('names'), `subjectAltName=IP:127.0.0.1,DNS:localhost,IP:${strangeAddress}\n`);
  const authority = ['-CA', file('ca.crt'), '-CAkey', file('ca.key'), '-CAcreateserial', '-days', '2'];
  openssl(
    'x509',
    '-req',
    '-in',
    file('server.csr'),
    ...authority,
    '-extfile',
    file('names'),
    '-out',
    file('server.crt'),
  );
  return { directory, ca: file('ca.crt'), certificate: file('server.crt'), key: file('server.key') };
}

export interface TestRegistryOptions {
  readonly address?: string;
  readonly certificates?: Certificates;
  readonly htpasswd?: { readonly username: string; readonly password: string };
  readonly tokens?: TokenServer;
}

export interface TestRegistry {
  /** `127.0.0.1:34567`: the domain of image names. */
  readonly host: string;
  readonly port: number;
  /** Where it keeps blobs. */
  readonly directory: string;
  /** What it logged so far. */
  readonly log: () => string;
  stop(): Promise<void>;
}

export async function startRegistry(options: TestRegistryOptions = {}): Promise<TestRegistry> {
  const directory = mkdtempSync(join(tmpdir(), 'registry-'));
  const { address = '127.0.0.1', certificates, htpasswd, tokens } = options;
  const lines = [
    'version: 0.1',
    'log: {level: info}',
    `storage: {filesystem: {rootdirectory: ${join(directory, 'data')}}, delete: {enabled: true}}`,
    'http:',
    `  addr: ${address}:0`,
  ];
  if (certificates) lines.push(`  tls: {certificate: ${certificates.certificate}, key: ${certificates.key}}`);
  if (htpasswd) {
    const entry = execFileSync('htpasswd', ['-nbB', htpasswd.username, htpasswd.password]);
    writeFileSync(join(directory, 'htpasswd'), entry);
    lines.push(`auth: {htpasswd: {realm: test, path: ${join(directory, 'htpasswd')}}}`);
  }
  if (tokens)
    lines.push(
      'auth:',
      `  token: {realm: "${tokens.realm}", service: ${tokens.service}, issuer: ${tokens.issuer}, rootcertbundle: ${tokens.certificate}}`,
    );
  writeFileSync(join(directory, 'config.yml'), `${lines.join('\n')}\n`);
  const child = spawn('docker-registry', ['serve', join(directory, 'config.yml')], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env.PATH, OTEL_TRACES_EXPORTER: 'none' },
  });
  const { port, log } = await listening(child);
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await ended;
    }
    rmSync(directory, { recursive: true, force: true });
  };
  return { host: `${address}:${port}`, port, directory, log, stop };
}

function listening(child: ChildProcess): Promise<{ port: number; log: () => string }> {
  return new Promise((resolve, reject) => {
    const lines: string[] = [];
    const { stderr } = child;
    if (!stderr) throw new Error('no pipe to the registry');
    createInterface(stderr).on('line', (line) => {
      lines.push(line);
      const port = /listening on .*?:(\d+)(?:, tls)?"/.exec(line)?.[1];
      if (port !== undefined) resolve({ port: Number(port), log: () => lines.join('\n') });
    });
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`docker-registry ended with ${code}: ${lines.join('\n')}`)));
  });
}

export interface SeenRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

async function seen(request: IncomingMessage): Promise<SeenRequest> {
  const parts: Buffer[] = [];
  for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
  const { method = '', url = '', headers } = request;
  return { method, url, headers, body: Buffer.concat(parts).toString('utf8') };
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

async function close(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

/** An HTTP server whose answers a test writes itself; keeps what it was asked. */
export interface FakeServer {
  readonly host: string;
  readonly requests: SeenRequest[];
  stop(): Promise<void>;
}

export interface FakeAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
}

export async function startFake(answer: (request: SeenRequest, host: string) => FakeAnswer): Promise<FakeServer> {
  const requests: SeenRequest[] = [];
  let host = '';
  const server = createServer((request, response) => {
    void seen(request).then((what) => {
      requests.push(what);
      const { status, headers = {}, body = '' } = answer(what, host);
      response.writeHead(status, headers).end(what.method === 'HEAD' ? undefined : body);
    });
  });
  host = `127.0.0.1:${await listen(server)}`;
  return { host, requests, stop: () => close(server) };
}

export interface TokenServer {
  readonly realm: string;
  readonly service: string;
  readonly issuer: string;
  /** PEM of the certificate that signs tokens. */
  readonly certificate: string;
  readonly requests: SeenRequest[];
  stop(): Promise<void>;
}

export interface TokenUser {
  readonly username: string;
  readonly password: string;
  /** Given out at log-in and taken instead of the password. */
  readonly identityToken?: string;
}

/**
 * A token server as `docker-registry` wants it: JSON web tokens signed by a certificate it trusts. The user may do
 * everything; nobody in particular may pull below `public/`.
 */
export async function startTokenServer(user: TokenUser, certificates: Certificates): Promise<TokenServer> {
  const requests: SeenRequest[] = [];
  const [service, issuer] = ['test-registry', 'test-issuer'];
  const key = createPrivateKey(readFileSync(certificates.key));
  const x5c = [new X509Certificate(readFileSync(certificates.certificate)).raw.toString('base64')];
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const tokenFor = (known: boolean, scopes: readonly string[]): string => {
    const now = Math.floor(Date.now() / 1000);
    const access = scopes.flatMap((scope) => {
      const [type = '', name = '', actions = ''] = scope.split(':');
      const allowed = known ? actions.split(',') : name.startsWith('public/') ? ['pull'] : [];
      return allowed.length > 0 ? [{ type, name, actions: allowed }] : [];
    });
    const claims = {
      iss: issuer,
      sub: '',
      aud: service,
      exp: now + 300,
      nbf: now - 10,
      iat: now,
      jti: randomUUID(),
      access,
    };
    const text = `${encode({ typ: 'JWT', alg: 'RS256', x5c })}.${encode(claims)}`;
    return `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`;
  };
  const server = createServer((request, response) => {
    void seen(request).then((what) => {
      requests.push(what);
      const url = new URL(what.url, 'http://x');
      const form = new URLSearchParams(what.body);
      const basic = `Basic ${Buffer.from(`${user.username}:${user.password}`).toString('base64')}`;
      const { authorization } = what.headers;
      const refreshed = what.method === 'POST';
      const wrong = refreshed
        ? user.identityToken === undefined || form.get('refresh_token') !== user.identityToken
        : authorization !== undefined && authorization !== basic;
      if (wrong) {
        response.writeHead(401, { 'content-type': 'application/json' });
        response.end('{"details":"incorrect username or password"}');
        return;
      }
      const scopes = refreshed ? (form.get('scope') ?? '').split(' ') : url.searchParams.getAll('scope');
      const token = tokenFor(refreshed || authorization !== undefined, scopes.filter(Boolean));
      const offline = url.searchParams.get('offline_token') === 'true' && user.identityToken !== undefined;
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ token, expires_in: 300, ...(offline && { refresh_token: user.identityToken }) }));
    });
  });
  const realm = `http://127.0.0.1:${await listen(server)}/token`;
  return { realm, service, issuer, certificate: certificates.certificate, requests, stop: () => close(server) };
}

/** A TCP proxy that cuts each connection once `cutAfter(number of the connection)` bytes came from the server. */
export interface CuttingProxy {
  readonly host: string;
  /** Bytes that came from the server, over all connections. */
  readonly passed: () => number;
  readonly connections: () => number;
  /** Connections that are open now. */
  readonly open: () => number;
  stop(): Promise<void>;
}

export async function startCuttingProxy(port: number, cutAfter: (connection: number) => number): Promise<CuttingProxy> {
  const sockets = new Set<Socket>();
  let passed = 0;
  let count = 0;
  let open = 0;
  const server = createTcpServer((client) => {
    const limit = cutAfter(++count);
    const upstream = connect(port, '127.0.0.1');
    let bytes = 0;
    open++;
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.on('close', () => open--);
    client.pipe(upstream);
    upstream.on('data', (chunk) => {
      const part = chunk.subarray(0, limit - bytes);
      bytes += part.length;
      passed += part.length;
      if (!client.write(part)) {
        upstream.pause();
        client.once('drain', () => upstream.resume());
      }
      if (bytes >= limit) client.end(() => upstream.destroy());
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    passed: () => passed,
    connections: () => count,
    open: () => open,
    stop: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** A directory for the test alone. */
export function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'transfer-'));
  mkdirSync(join(directory, 'tmp'));
  return directory;
}
