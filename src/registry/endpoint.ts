/** Where the registry of a name is reached: mirrors, the hub's real host, and how much trust a host is due. */
import { lookup } from 'node:dns/promises';
import { readdir, readFile } from 'node:fs/promises';
import { BlockList, isIP, isIPv6 } from 'node:net';
import { join } from 'node:path';
import { createSecureContext, getCACertificates, rootCertificates, type SecureContext } from 'node:tls';
import { internal, messageOf } from '../lib/errors.ts';

export interface Endpoint {
  /** `host[:port]`. */
  readonly host: string;
  /** Base addresses in the order to try them, without the final slash: `https://localhost:5000`, `http://localhost:5000`. */
  readonly bases: readonly string[];
  /** Certificates are not verified, and plain HTTP is allowed. */
  readonly insecure: boolean;
  /** A mirror gets no credentials: they belong to the registry it copies. */
  readonly mirror: boolean;
}

export interface EndpointSettings {
  /** `host[:port]` or CIDR. */
  readonly insecureRegistries: readonly string[];
  /** URLs of mirrors of docker.io. */
  readonly registryMirrors: readonly string[];
}

export const hubDomain = 'docker.io';
const hubHost = 'registry-1.docker.io';

/** The endpoints of a reference's domain in the order to try them. Pushes take the last one, which is no mirror. */
export async function endpointsOf(domain: string, settings: EndpointSettings): Promise<readonly Endpoint[]> {
  const registry = await endpoint(domain === hubDomain ? hubHost : domain, settings);
  if (domain !== hubDomain) return [registry];
  return [...(await Promise.all(settings.registryMirrors.map((mirror) => mirrorOf(mirror, settings)))), registry];
}

async function endpoint(host: string, settings: EndpointSettings): Promise<Endpoint> {
  const insecure = await isInsecure(host, settings.insecureRegistries);
  const bases = insecure ? [`https://${host}`, `http://${host}`] : [`https://${host}`];
  return { host, bases, insecure, mirror: false };
}

async function mirrorOf(mirror: string, settings: EndpointSettings): Promise<Endpoint> {
  const url = new URL(mirror.includes('://') ? mirror : `https://${mirror}`);
  const insecure = url.protocol === 'http:' || (await isInsecure(url.host, settings.insecureRegistries));
  return { host: url.host, bases: [`${url.origin}${url.pathname.replace(/\/+$/, '')}`], insecure, mirror: true };
}

/**
 * True for hosts on the loopback network and for configured ones. A configured CIDR, and the loopback network, also cover
 * names that resolve into them.
 */
export async function isInsecure(host: string, insecureRegistries: readonly string[]): Promise<boolean> {
  if (insecureRegistries.includes(host)) return true;
  const { hostname } = new URL(`https://${host}`);
  const name = hostname.replace(/^\[|\]$/g, '');
  if (name === 'localhost' || insecureRegistries.includes(name)) return true;
  const networks = new BlockList();
  networks.addSubnet('127.0.0.0', 8, 'ipv4');
  networks.addAddress('::1', 'ipv6');
  for (const entry of insecureRegistries) {
    const [address = '', prefix = ''] = entry.split('/');
    if (prefix !== '' && isIP(address) !== 0)
      networks.addSubnet(address, Number(prefix), isIPv6(address) ? 'ipv6' : 'ipv4');
  }
  // A name that does not resolve cannot be reached either: the attempt will say so.
  const addresses = isIP(name) ? [{ address: name }] : await lookup(name, { all: true }).catch(() => []);
  return addresses.some(({ address }) => networks.check(address, isIPv6(address) ? 'ipv6' : 'ipv4'));
}

export interface TlsOptions {
  readonly rejectUnauthorized: boolean;
  /** Made once: reading a hundred authorities takes longer than a handshake. */
  readonly secureContext: SecureContext;
}

let systemAuthorities: readonly string[] | undefined;

/** The system's authorities; those that come with Node where the system has none installed. */
function authorities(): readonly string[] {
  if (systemAuthorities === undefined) {
    const found = getCACertificates('system');
    systemAuthorities = found.length > 0 ? found : rootCertificates;
  }
  return systemAuthorities;
}

/**
 * TLS for a host: the system's authorities and, from each `<directory>/<host[:port]>/`, every `*.crt` as a further one and
 * every `*.cert` with its `*.key` as a client certificate. Read anew at each call.
 */
export async function tlsOptions(host: string, insecure: boolean, directories: readonly string[]): Promise<TlsOptions> {
  const ca: string[] = [];
  const cert: string[] = [];
  const key: string[] = [];
  for (const directory of directories) {
    const place = join(directory, host);
    const names: string[] = await readdir(place).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return [];
      throw internal(`cannot read certificates of ${host}: ${messageOf(error)}`, { cause: error });
    });
    const read = (name: string): Promise<string> => readFile(join(place, name), 'utf8');
    for (const name of names.sort()) {
      if (name.endsWith('.crt')) ca.push(await read(name));
      else if (name.endsWith('.cert')) {
        const keyName = name.replace(/cert$/, 'key');
        if (!names.includes(keyName))
          throw internal(
            `missing key ${keyName} for client certificate ${name}. CA certificates must use the extension .crt`,
          );
        cert.push(await read(name));
        key.push(await read(keyName));
      }
    }
  }
  const trusted = insecure ? {} : { ca: [...authorities(), ...ca] };
  const secureContext = createSecureContext({ ...trusted, ...(cert.length > 0 && { cert, key }) });
  return { rejectUnauthorized: !insecure, secureContext };
}
