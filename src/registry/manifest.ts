/** Manifests of both families (Docker schema 2 and OCI), read from bytes that a registry chose. */
import { EngineError, invalid } from '../lib/errors.ts';
import type { Digest } from '../lib/ids.ts';

export const mediaTypes = {
  manifest: 'application/vnd.docker.distribution.manifest.v2+json',
  list: 'application/vnd.docker.distribution.manifest.list.v2+json',
  config: 'application/vnd.docker.container.image.v1+json',
  layer: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
} as const;

/** `Accept` of a manifest request: everything this engine reads, so that a registry never converts. */
export const manifestAccept = [mediaTypes.manifest, mediaTypes.list, mediaTypes.ociManifest, mediaTypes.ociIndex].join(
  ', ',
);

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
}

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  /** Empty when the entry names none. */
  readonly variant: string;
}

export interface IndexEntry extends Descriptor {
  readonly platform: Platform | null;
}

export type Manifest =
  | { readonly is: 'image'; readonly config: Descriptor; readonly layers: readonly Descriptor[] }
  | { readonly is: 'index'; readonly manifests: readonly IndexEntry[] };

export const manifestBytesMax = 4 * 1024 * 1024;
const layersMax = 512;
const manifestsMax = 4096;
/** Some old images were pushed with a config of no particular type. */
const configTypes: ReadonlySet<string> = new Set([
  mediaTypes.config,
  mediaTypes.ociConfig,
  'application/octet-stream',
  '',
]);
const layerType =
  /^application\/vnd\.(docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip|\.zstd)?|oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?)$/;

/** Reads a manifest. `contentType` decides only where the document does not name its type. Throws kind `invalid`. */
export function parseManifest(bytes: Uint8Array, contentType: string): Manifest {
  const document = parse(bytes);
  const declared = typeof document.mediaType === 'string' ? document.mediaType : '';
  const type = declared !== '' ? declared : (contentType.split(';', 1)[0] ?? '').trim();
  if (document.schemaVersion === 1 || type.startsWith('application/vnd.docker.distribution.manifest.v1'))
    throw invalid(
      'Docker image manifest version 2, schema 1 is not supported: it has been deprecated since 2019. Push the image again with a current tool',
    );
  if (document.schemaVersion !== 2) throw invalid('manifest invalid: schemaVersion must be 2');
  // One document that is both would be read as different images by different tools (CVE-2021-41190).
  if (document.manifests !== undefined && (document.layers !== undefined || document.config !== undefined))
    throw invalid('manifest invalid: it is both an image and an index');
  if (type === mediaTypes.list || type === mediaTypes.ociIndex) return parseIndex(document);
  if (type === mediaTypes.manifest || type === mediaTypes.ociManifest) return parseImage(document);
  throw invalid(`unsupported manifest media type ${JSON.stringify(type.slice(0, 200))}`);
}

function parse(bytes: Uint8Array): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'));
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed))
      return parsed as Record<string, unknown>;
  } catch (error) {
    throw invalid('manifest invalid: not JSON', { cause: error });
  }
  throw invalid('manifest invalid: not an object');
}

function parseImage(document: Record<string, unknown>): Manifest {
  const config = descriptor(document.config);
  if (!configTypes.has(config.mediaType))
    throw invalid(`unsupported media type ${JSON.stringify(config.mediaType)}: this is not a container image`);
  const layers = list(document.layers, layersMax).map(descriptor);
  const strange = layers.find(({ mediaType }) => !layerType.test(mediaType));
  if (strange) throw invalid(`unsupported layer media type ${JSON.stringify(strange.mediaType)}`);
  return { is: 'image', config, layers };
}

function parseIndex(document: Record<string, unknown>): Manifest {
  const manifests = list(document.manifests, manifestsMax).map((entry) => ({
    ...descriptor(entry),
    platform: platformOf((entry as { platform?: unknown }).platform),
  }));
  return { is: 'index', manifests };
}

function list(value: unknown, lengthMax: number): readonly unknown[] {
  if (!Array.isArray(value) || value.length > lengthMax)
    throw invalid(`manifest invalid: not a list of at most ${lengthMax}`);
  return value;
}

function descriptor(value: unknown): Descriptor {
  const { mediaType = '', digest, size } = (value ?? {}) as Record<string, unknown>;
  if (typeof mediaType !== 'string' || mediaType.length > 255) throw invalid('manifest invalid: mediaType');
  if (typeof digest !== 'string' || !/^sha256:[a-f0-9]{64}$/.test(digest))
    throw invalid('manifest invalid: a digest is missing or not sha256');
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw invalid('manifest invalid: size');
  return { mediaType, digest: digest as Digest, size };
}

function platformOf(value: unknown): Platform | null {
  const { os, architecture, variant } = (value ?? {}) as Record<string, unknown>;
  if (typeof os !== 'string' || typeof architecture !== 'string') return null;
  return normal({ os, architecture, variant: typeof variant === 'string' ? variant : '' });
}

const architectures: Readonly<Record<string, string>> = {
  x64: 'amd64',
  x86_64: 'amd64',
  'x86-64': 'amd64',
  aarch64: 'arm64',
  ia32: '386',
  i386: '386',
  i686: '386',
  armhf: 'arm',
  armel: 'arm',
  ppc64el: 'ppc64le',
};

/** Go's names of architectures, and no variant where it is the only one there is. */
function normal({ os, architecture, variant }: Platform): Platform {
  const lower = architecture.toLowerCase();
  const named = architectures[lower] ?? lower;
  const implied = (named === 'arm64' && variant === 'v8') || (named === 'amd64' && variant === 'v1');
  const old = lower === 'armel' ? 'v6' : lower === 'armhf' ? 'v7' : '';
  return { os: os.toLowerCase(), architecture: named, variant: implied ? '' : variant || old };
}

/** Reads `os/arch[/variant]`, `os` or `arch`; what is absent is the host's. */
export function parsePlatform(text: string, host: Platform): Platform {
  const [first = '', second, variant = '', ...more] = text.split('/');
  if (!/^\w[\w-]*(\/\w[\w.-]*){0,2}$/.test(text) || more.length > 0)
    throw invalid(`${JSON.stringify(text)} is an invalid component of a platform: os[/arch[/variant]]`);
  if (second !== undefined) return normal({ os: first, architecture: second, variant });
  if (first === 'linux' || first === 'windows') return { ...host, os: first };
  return normal({ os: host.os, architecture: first, variant: '' });
}

/** This machine, in the words of an index. `architecture` is `process.arch`'s. */
export const hostPlatform = (architecture: string): Platform =>
  normal({ os: 'linux', architecture, variant: architecture === 'arm' ? 'v7' : '' });

const platformText = ({ os, architecture, variant }: Platform): string =>
  variant === '' ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;

/** Variants that run where `variant` is wanted, the best first. */
function acceptable({ architecture, variant }: Platform): readonly string[] {
  if (architecture === 'arm') {
    const level = Number(/^v([5-8])$/.exec(variant)?.[1] ?? 7);
    const down = ['v8', 'v7', 'v6', 'v5'].filter((name) => Number(name.slice(1)) <= level);
    return [...down, ''];
  }
  return variant === '' ? [''] : [variant, ''];
}

/** The index entry for a platform; the first of several equally good ones. Throws kind `not-found`. */
export function choosePlatform(entries: readonly IndexEntry[], wanted: Platform): IndexEntry {
  for (const variant of acceptable(wanted)) {
    const match = entries.find(
      ({ platform }) =>
        platform?.os === wanted.os && platform.architecture === wanted.architecture && platform.variant === variant,
    );
    if (match) return match;
  }
  throw new EngineError('not-found', `no matching manifest for ${platformText(wanted)} in the manifest list entries`);
}
