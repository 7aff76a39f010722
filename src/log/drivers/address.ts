/** Addresses of sinks as log options give them, with dockerd's words for what is wrong. */
import fs from 'node:fs';
import { invalid } from '../../lib/errors.ts';

export interface NetAddress {
  readonly kind: 'tcp' | 'tls' | 'udp';
  readonly host: string;
  readonly port: number;
}
export interface PathAddress {
  readonly kind: 'unix' | 'unixgram';
  readonly path: string;
}
export type Address = NetAddress | PathAddress;

interface Url {
  readonly scheme: string;
  /** Without brackets. */
  readonly host: string;
  readonly port: string;
  readonly path: string;
}

/** Splits `scheme://host:port/path`; null if it is no address of the given schemes. */
export function parseUrl(address: string, schemes: readonly string[]): Url | null {
  const [, scheme = '', rest = ''] = /^([a-z+]+):\/\/(.*)$/s.exec(address) ?? [];
  if (!schemes.includes(scheme)) return null;
  const [, authority = '', path = ''] = /^([^/?#]*)([^?#]*)/.exec(rest) ?? [];
  const [bad] = /%(?![0-9a-fA-F]{2}).{0,2}/.exec(rest) ?? [];
  if (bad !== undefined) throw invalid(`parse "${address}": invalid URL escape "${bad}"`);
  const [, bracketed, plain = '', port = ''] = /^(?:\[([^\]]*)\]|([^:]*))(:.*)?$/.exec(authority) ?? [];
  if (!/^(:\d*)?$/.test(port)) throw invalid(`parse "${address}": invalid port "${port}" after host`);
  return { scheme, host: bracketed ?? plain, port: port.slice(1), path };
}

/** A port in words or digits; throws what `describe` says of a wrong one. */
export function portOf(text: string, describe: () => string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65535) throw invalid(describe());
  return port;
}

/** A socket that has to be there when a container is created. */
export function existingSocket(path: string): string {
  if (!fs.existsSync(path)) throw invalid(`stat ${path}: no such file or directory`);
  return path;
}

/** An address without a host is this machine. */
export const hostOrLocal = (host: string): string => (host === '' ? '127.0.0.1' : host);

export function parseBool(text: string | undefined): boolean {
  if (text === undefined || text === '') return false;
  if (/^(1|t|T|true|TRUE|True)$/.test(text)) return true;
  if (/^(0|f|F|false|FALSE|False)$/.test(text)) return false;
  throw invalid(`strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
}
