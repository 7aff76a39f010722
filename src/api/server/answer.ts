/** Writes replies to ordinary HTTP requests: headers, bodies, streams, failures. The only place that touches a response. */
import type { ServerResponse } from 'node:http';
import type { Json } from '../../container/api.ts';
import type { Plan } from '../versions/chain.ts';
import { jsonBody } from '../wire/json.ts';
import { failureMessage } from '../wire/progress.ts';
import { errorContent, failureFor } from './dispatch.ts';
import type { Failure } from './errors.ts';
import { pump } from './pump.ts';
import type { Messages, Reply, Wire } from './route.ts';

export type Headers = Readonly<Record<string, string>>;

/** Resolves when the client has the whole answer or has left. Throws only before anything was sent. */
export async function sendReply(res: ServerResponse, reply: Reply, plan: Plan, common: Headers): Promise<void> {
  const headers = { ...common, ...reply.headers };
  const { content } = reply;
  switch (content.is) {
    case 'nothing':
      sendWhole(res, reply.status, headers, '');
      return;
    case 'json':
      sendWhole(res, reply.status, headers, jsonBody(content.value));
      return;
    case 'text':
      sendWhole(res, reply.status, headers, content.text);
      return;
    case 'bytes':
      res.writeHead(reply.status, headers);
      res.flushHeaders();
      await cutOnFailure(
        res,
        pump(content.source, res, (chunk) => chunk),
      );
      return;
    case 'messages':
      await sendMessages(res, reply.status, headers, content, plan);
      return;
    case 'hijack':
    case 'websocket':
      throw new Error('a route that did not ask for the connection wants to keep it');
  }
}

function sendWhole(res: ServerResponse, status: number, headers: Headers, body: string): void {
  if (status === 204 || status === 304) res.writeHead(status, headers);
  else res.writeHead(status, { ...headers, 'Content-Length': Buffer.byteLength(body) });
  res.end(body);
}

async function sendMessages(
  res: ServerResponse,
  status: number,
  headers: Headers,
  { source, end, firstFailure, tellsFailure }: Messages,
  plan: Plan,
): Promise<void> {
  const encode = (message: Json) => JSON.stringify(message) + end;
  const begin = () => {
    if (res.headersSent) return;
    res.writeHead(status, headers);
    res.flushHeaders();
  };
  if (firstFailure === 'stream') begin();
  const sent = pump(onceBegun(source, begin), res, encode).catch((error: unknown) => {
    if (!res.headersSent || !tellsFailure || res.destroyed) throw error;
    res.write(encode(failureMessage(failureFor(plan, error).message)));
  });
  await cutOnFailure(res, sent);
}

/** Calls `begin` when the first message is there, or the end. */
async function* onceBegun<T>(source: AsyncIterable<T>, begin: () => void): AsyncIterable<T> {
  for await (const message of source) {
    begin();
    yield message;
  }
  begin();
}

/** Ends the answer; after a failure within it the connection is cut, so that the client does not take it for whole. */
async function cutOnFailure(res: ServerResponse, sent: Promise<void>): Promise<void> {
  try {
    await sent;
    res.end();
  } catch (error) {
    if (!res.headersSent) throw error;
    res.destroy();
  }
}

export function sendFailure(res: ServerResponse, failure: Failure, wire: Wire, common: Headers): void {
  const content = errorContent(failure, wire);
  if (content === null) sendWhole(res, failure.status, common, '');
  else sendWhole(res, failure.status, { ...common, 'Content-Type': content.type }, content.body);
}
