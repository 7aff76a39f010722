/**
 * Where plugins are: sockets `<dir>/x.sock` or `<dir>/x/x.sock`, and files `x.spec` (an address) and `x.json` in directories of
 * their own, also `x/x.spec`. Rules of Docker's "Docker Plugin API", section plugin discovery.
 */
import fs from 'node:fs';
import path from 'node:path';
import { invalid, messageOf } from '../lib/errors.ts';
import type { Address, TlsFiles } from './transport.ts';

export interface PluginPlaces {
  readonly sockets: string;
  readonly specs: readonly string[];
}

export interface Found {
  readonly address: Address;
  /** Another one when the plugin was replaced, or its socket made anew. */
  readonly identity: string;
}

const fileBytesMax = 65_536;

/** A name is never a path. */
const isName = (name: string): boolean => /^[^/\0]{1,200}$/.test(name) && !name.startsWith('.');

/** Undefined when there is none. Throws for a file that says nothing of use. */
export function findPlugin({ sockets, specs }: PluginPlaces, name: string): Found | undefined {
  if (!isName(name)) return undefined;
  for (const file of placesOf(sockets, name, 'sock')) {
    const stat = statOf(file);
    if (stat?.isSocket()) return { address: { kind: 'unix', path: file }, identity: identityOf(file, stat) };
  }
  for (const directory of specs) {
    for (const ending of ['spec', 'json']) {
      for (const file of placesOf(directory, name, ending)) {
        const stat = statOf(file);
        if (stat?.isFile()) return { address: read(file, stat), identity: identityOf(file, stat) };
      }
    }
  }
  return undefined;
}

/** All names, sorted. */
export function listPlugins({ sockets, specs }: PluginPlaces): readonly string[] {
  const names = new Set<string>();
  const look = (directory: string, endings: readonly string[]): void => {
    for (const entry of entriesOf(directory)) {
      const ending = path.extname(entry).slice(1);
      if (endings.includes(ending)) names.add(path.basename(entry, `.${ending}`));
      else if (endings.some((each) => statOf(path.join(directory, entry, `${entry}.${each}`)))) names.add(entry);
    }
  };
  look(sockets, ['sock']);
  for (const directory of specs) look(directory, ['spec', 'json']);
  return [...names].filter(isName).sort();
}

const placesOf = (directory: string, name: string, ending: string): readonly string[] => [
  path.join(directory, `${name}.${ending}`),
  path.join(directory, name, `${name}.${ending}`),
];

function entriesOf(directory: string): readonly string[] {
  try {
    return fs.readdirSync(directory);
  } catch {
    return [];
  }
}

const statOf = (file: string): fs.Stats | undefined => {
  try {
    return fs.statSync(file, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
};

const identityOf = (file: string, { ino, ctimeMs }: fs.Stats): string => `${file} ${ino} ${ctimeMs}`;

function read(file: string, { size }: fs.Stats): Address {
  try {
    if (size > fileBytesMax) throw invalid('too large');
    const text = fs.readFileSync(file, 'utf8').trim();
    return file.endsWith('.spec') ? parseAddress(text, null) : parseJson(text);
  } catch (error) {
    throw invalid(`plugin file ${file}: ${messageOf(error)}`, { cause: error });
  }
}

function parseJson(text: string): Address {
  const { Addr, TLSConfig } = (JSON.parse(text) ?? {}) as { readonly Addr?: unknown; readonly TLSConfig?: unknown };
  if (typeof Addr !== 'string') throw invalid('no Addr');
  if (TLSConfig === undefined || TLSConfig === null) return parseAddress(Addr, null);
  const given = TLSConfig as Readonly<Record<string, unknown>>;
  const file = (key: string): string => (typeof given[key] === 'string' ? given[key] : '');
  const files = { ca: file('CAFile'), cert: file('CertFile'), key: file('KeyFile') };
  // As dockerd: without an authority to ask, nothing is checked.
  return parseAddress(Addr, { ...files, verify: given.InsecureSkipVerify !== true && files.ca !== '' });
}

/** `unix:///path`, `tcp://host:port`, `http://…` and `https://…`; a path behind the port counts nothing. */
function parseAddress(text: string, tls: TlsFiles | null): Address {
  if (text.startsWith('unix://')) {
    const file = text.slice('unix://'.length);
    if (!file.startsWith('/')) throw invalid(`${JSON.stringify(text)} names no absolute path`);
    return { kind: 'unix', path: file };
  }
  // URL knows no ports of `tcp`.
  const scheme = /^(tcp|https?):\/\//.exec(text)?.[1];
  const url = `http${text.slice(scheme?.length)}`;
  if (scheme === undefined || !URL.canParse(url)) throw invalid(`unknown protocol or address ${JSON.stringify(text)}`);
  const { hostname, port } = new URL(url);
  const secure = scheme === 'https' || (scheme === 'tcp' && tls !== null);
  const portDefault = scheme === 'https' ? 443 : 80;
  return {
    kind: 'tcp',
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? portDefault : Number(port),
    tls: secure ? (tls ?? { ca: '', cert: '', key: '', verify: true }) : null,
  };
}
