/** The same thin client for every engine: node:http over a unix socket, connections kept. */
import http from 'node:http';

export class Client {
  readonly #socketPath: string;
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 128 });

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** Resolves with status and body once the whole answer is there; a status above 399 is an error. */
  async call(method: string, path: string, body?: unknown): Promise<{ status: number; body: Buffer }> {
    const parts: Buffer[] = [];
    const status = await this.stream(method, path, body, (part) => parts.push(part));
    const whole = Buffer.concat(parts);
    if (status > 399) throw new Error(`${method} ${path}: ${status} ${whole.toString().trim()}`);
    return { status, body: whole };
  }

  /** Hands over the body piece by piece and resolves with the status at its end. */
  stream(method: string, path: string, body: unknown, take: (part: Buffer) => void): Promise<number> {
    return new Promise((resolve, reject) => {
      const raw = body instanceof Uint8Array;
      const payload = body === undefined ? undefined : raw ? body : JSON.stringify(body);
      const headers: http.OutgoingHttpHeaders =
        payload === undefined
          ? {}
          : {
              'content-type': raw ? 'application/x-tar' : 'application/json',
              'content-length': Buffer.byteLength(payload),
            };
      const question = http.request(
        { socketPath: this.#socketPath, method, path, headers, agent: this.#agent },
        (answer) => {
          answer.on('data', take);
          answer.on('end', () => resolve(answer.statusCode ?? 0));
          answer.on('error', reject);
        },
      );
      question.on('error', reject);
      question.end(payload);
    });
  }

  async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    return JSON.parse((await this.call(method, path, body)).body.toString()) as T;
  }

  /** Asks for a stream without an end and gives back how to leave it. */
  open(path: string, take: (part: Buffer) => void): () => void {
    const question = http.request({ socketPath: this.#socketPath, path, agent: false }, (answer) => {
      answer.on('data', take);
      answer.on('error', () => undefined);
    });
    question.on('error', () => undefined);
    question.end();
    return () => question.destroy();
  }

  close(): void {
    this.#agent.destroy();
  }
}
