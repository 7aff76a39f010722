/** Identifiers that can be confused get different types, so that the compiler keeps them apart. */
import { randomBytes } from 'node:crypto';

declare const kind: unique symbol;
type Named<K extends string> = string & { readonly [kind]: K };

/** 64 hex digits. */
export type ContainerId = Named<'ContainerId'>;
/** `sha256:` and 64 hex digits: digest of the image's config document. */
export type ImageId = Named<'ImageId'>;
/** `sha256:…` of any blob: a manifest, a config, a compressed layer. */
export type Digest = Named<'Digest'>;
/** `sha256:…` of one uncompressed layer tar. */
export type DiffId = Named<'DiffId'>;
/** `sha256:…` of a stack of layers (OCI image spec, "Layer ChainID"). */
export type ChainId = Named<'ChainId'>;
/** 64 hex digits. */
export type NetworkId = Named<'NetworkId'>;
/** 64 hex digits. */
export type ExecId = Named<'ExecId'>;

/**
 * 64 random hex digits. Never all decimal in its first twelve: such a short id would be a valid host name
 * label made of digits only, and tools take it for a number.
 */
export function newId<T extends string>(): T {
  for (;;) {
    const id = randomBytes(32).toString('hex');
    if (!/^\d{12}/.test(id)) return id as T;
  }
}

export const shortId = (id: string): string => id.replace(/^sha256:/, '').slice(0, 12);
