/**
 * Unpacks a tar into a directory. Every name is resolved by the kernel below that directory; nothing an archive holds
 * can make a file elsewhere. For worker threads: it blocks, but for its input.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { EngineError, invalid, messageOf } from '../lib/errors.ts';
import { type IdMap, idOutside } from '../lib/idmap.ts';
import {
  type ByteString,
  chmodAt,
  chownAt,
  createAt,
  type FileTime,
  linkAt,
  mkdirAt,
  mknodAt,
  openBeneath,
  openDirectoryAt,
  pathAt,
  removeAt,
  renameAt,
  setAttributeAt,
  setTimes,
  setTimesAt,
  symlinkAt,
  syncFileSystem,
} from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';
import { isPseudo } from './confined.ts';
import { layerFiles, RecipeWriter } from './recipe.ts';
import type { TarEntry } from './tar/format.ts';
import { type Reading, TarReader } from './tar/reader.ts';

const { O_RDONLY, O_DIRECTORY, S_IFBLK, S_IFCHR, S_IFIFO } = fs.constants;
const whiteoutPrefix = '.wh.';
const opaqueMarker = '.wh..wh..opq';
export const opaqueAttribute = 'trusted.overlay.opaque';
/** Directories kept open because the next entry is most likely in one of them. */
const openDirectoriesMax = 64;

export interface Unpacked {
  /** sha256 of the uncompressed archive. */
  readonly diffId: string;
  /** Bytes of the uncompressed archive. */
  readonly tarSize: number;
  /** Bytes of the files made. */
  readonly size: number;
  /** Directories no entry described, made because something lies in them; canonical paths. */
  readonly implied: readonly ByteString[];
}

export interface UnpackOptions {
  /** Existing directory. */
  readonly into: string;
  /** `layer`: `into` gets a tree `diff` with overlay whiteouts, and the recipe to make the tar again. `plain`: files as they are. */
  readonly as: 'layer' | 'plain';
  readonly cancelled: () => boolean;
}

/** How files are put among those of a container, which may run and change them meanwhile. */
export interface PlaceOptions {
  /** The container's root: every path and link resolves below it. Closed by the caller. */
  readonly root: number;
  /** Path of the existing directory that names of the archive start from. */
  readonly at: ByteString;
  /** Refuse to replace a directory by something else, and the other way round. */
  readonly keepKinds: boolean;
  /** Whose all files become; null: whose the archive says. */
  readonly owner: { readonly uid: number; readonly gid: number } | null;
  /** How ids of the container are those of its tree; null: they are. */
  readonly ids: IdMap | null;
  readonly cancelled: () => boolean;
}

/** Throws 'invalid' for a broken or hostile archive. All is on disk when it returns. */
export function* unpack(options: UnpackOptions): Reading<Unpacked> {
  const layer = options.as === 'layer';
  const tree = layer ? `${options.into}/${layerFiles.tree}` : options.into;
  if (layer) fs.mkdirSync(tree, 0o755);
  const recipe = layer ? new RecipeWriter(options.into) : null;
  const hash = createHash('sha256');
  const reader = new TarReader({
    keep: (bytes) => recipe?.raw(bytes),
    cancelled: options.cancelled,
    arrived: (bytes) => void hash.update(bytes),
  });
  const root = fs.openSync(tree, O_RDONLY | O_DIRECTORY);
  const unpacker = new Unpacker(reader, {
    root,
    at: '',
    recipe,
    into: options.into,
    keepKinds: false,
    owner: null,
    ids: null,
  });
  try {
    yield* unpackAll(unpacker, reader);
    syncFileSystem(root);
    recipe?.finish();
  } catch (error) {
    recipe?.abandon();
    throw error;
  } finally {
    unpacker.close();
    fs.closeSync(root);
  }
  const diffId = `sha256:${hash.digest('hex')}`;
  return { diffId, tarSize: reader.bytes, size: unpacker.size, implied: [...unpacker.implied] };
}

/** Puts the files of an archive into a directory of a container. Throws 'invalid' for a broken archive; what was made before stays. */
export function* placeFiles(options: PlaceOptions): Reading<undefined> {
  const reader = new TarReader({ keep: () => undefined, cancelled: options.cancelled });
  const unpacker = new Unpacker(reader, { ...options, recipe: null, into: '' });
  try {
    yield* unpackAll(unpacker, reader);
  } finally {
    unpacker.close();
  }
}

function* unpackAll(unpacker: Unpacker, reader: TarReader): Reading<void> {
  for (;;) {
    const entry = yield* reader.next();
    if (entry === null) break;
    try {
      yield* unpacker.place(entry);
    } catch (error) {
      throw asFault(error, entry);
    }
  }
  unpacker.finish();
}

/** Failures that only what the archive says can cause, as opposed to a full or broken disk. */
const faults = [
  'ENOTDIR',
  'ELOOP',
  'ENAMETOOLONG',
  'EEXIST',
  'EINVAL',
  'EISDIR',
  'EFBIG',
  'EXDEV',
  'ENOENT',
  'EMLINK',
  'EPERM',
];

function asFault(error: unknown, entry: TarEntry): unknown {
  if (error instanceof EngineError || !isErrno(error, ...faults)) return error;
  return invalid(`cannot unpack ${JSON.stringify(entry.name)}: ${messageOf(error)}`, { cause: error });
}

/** The parts of a path; `..` is resolved in the text and must not leave the top. */
function partsOf(name: ByteString): ByteString[] {
  const parts: ByteString[] = [];
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined) throw invalid(`the archive names a path outside of its root: ${name}`);
  }
  return parts;
}

interface OpenDirectory {
  readonly fd: number;
  /** Path below the tree with all links resolved; empty for the tree itself. */
  readonly canonical: ByteString;
}

const within = (directory: OpenDirectory, name: ByteString): ByteString =>
  directory.canonical === '' ? name : `${directory.canonical}/${name}`;

interface Placement {
  /** Resolves all paths and links; stays open as long as the unpacker. */
  readonly root: number;
  /** Path below the root that names start from. */
  readonly at: ByteString;
  /** Of a layer: what is needed to make its tar again, kept in the directory `into`. */
  readonly recipe: RecipeWriter | null;
  readonly into: string;
  readonly keepKinds: boolean;
  readonly owner: { readonly uid: number; readonly gid: number } | null;
  readonly ids: IdMap | null;
}

class Unpacker {
  readonly implied = new Set<ByteString>();
  size = 0;
  readonly #reader: TarReader;
  readonly #options: Placement;
  readonly #recipe: RecipeWriter | null;
  readonly #top: OpenDirectory;
  readonly #umask = process.umask();
  readonly #open = new Map<ByteString, OpenDirectory>();
  /** Times of directories are set last, since whatever is put into them changes them. */
  readonly #directoryTimes = new Map<ByteString, FileTime>();

  constructor(reader: TarReader, options: Placement) {
    this.#reader = reader;
    this.#options = options;
    this.#recipe = options.recipe;
    this.#top = this.#existing([]);
  }

  *place(described: TarEntry): Reading<void> {
    const { owner, ids } = this.#options;
    const own = owner === null ? described : { ...described, ...owner };
    const entry =
      ids === null ? own : { ...own, uid: idOutside(ids.users, own.uid), gid: idOutside(ids.groups, own.gid) };
    const parts = partsOf(entry.name);
    const name = parts.pop();
    // What an archive says about its own root is ignored, as the root of a container always is 0755 root.
    if (name === undefined || entry.type === 'other') return;
    if (this.#recipe !== null && name.startsWith(whiteoutPrefix)) {
      this.#whiteout(parts, name);
      return;
    }
    const directory = this.#directory(parts);
    if (this.#options.keepKinds) this.#checkKind(directory, name, entry);
    if (entry.type === 'file') yield* this.#file(directory, name, entry);
    else if (entry.type === 'directory') this.#makeDirectory(directory, name, entry);
    else if (entry.type === 'link') this.#link(directory, name, entry);
    else this.#special(directory, name, entry);
  }

  finish(): void {
    for (const [path, time] of this.#directoryTimes) {
      const slash = path.lastIndexOf('/');
      try {
        const parent = this.#directory(slash < 0 ? [] : path.slice(0, slash).split('/'));
        setTimesAt(parent.fd, path.slice(slash + 1), time, time);
      } catch (error) {
        // A later entry put something else in its place.
        if (!isErrno(error, 'ENOENT', 'ENOTDIR')) throw error;
      }
    }
  }

  close(): void {
    this.#forgetDirectories();
    fs.closeSync(this.#top.fd);
  }

  #checkKind(directory: OpenDirectory, name: ByteString, entry: TarEntry): void {
    const there = fs.lstatSync(pathAt(directory.fd, name), { throwIfNoEntry: false });
    if (there === undefined || there.isDirectory() === (entry.type === 'directory')) return;
    const place = `"${this.#options.at.replace(/\/$/, '')}/${within(directory, name)}"`;
    throw invalid(
      there.isDirectory()
        ? `cannot overwrite directory ${place} with non-directory "${this.#options.at}"`
        : `cannot overwrite non-directory ${place} with directory "${this.#options.at}"`,
    );
  }

  *#file(directory: OpenDirectory, name: ByteString, entry: TarEntry): Reading<void> {
    const fd = this.#orReplace(directory, name, () => createAt(directory.fd, name, entry.mode & 0o777));
    try {
      yield* this.#write(fd, within(directory, name), entry);
      // Always: a setgid directory above would hand its group down. Before the rest: it clears setuid and capabilities.
      fs.fchownSync(fd, entry.uid, entry.gid);
      if ((entry.mode & (this.#umask | 0o7000)) !== 0) fs.fchmodSync(fd, entry.mode);
      this.#setAttributes(directory.fd, name, entry);
      setTimes(fd, entry.accessed ?? entry.modified, entry.modified);
    } finally {
      fs.closeSync(fd);
    }
  }

  *#write(fd: number, path: ByteString, entry: TarEntry): Reading<void> {
    const realSize = entry.sparse?.realSize ?? entry.size;
    for (const { offset, length } of entry.sparse?.pieces ?? [{ offset: 0, length: entry.size }]) {
      let at = offset;
      yield* this.#reader.content(length, (bytes) => {
        for (let done = 0; done < bytes.length; ) done += fs.writeSync(fd, bytes, done, bytes.length - done, at + done);
        at += bytes.length;
      });
      this.#recipe?.content(path, offset, length);
    }
    if (entry.sparse !== undefined) fs.ftruncateSync(fd, realSize);
    this.size += realSize;
  }

  #makeDirectory(directory: OpenDirectory, name: ByteString, entry: TarEntry): void {
    const path = within(directory, name);
    if (!this.#mkdir(directory, name)) return;
    this.implied.delete(path);
    this.#directoryTimes.set(path, entry.modified);
    chownAt(directory.fd, name, entry.uid, entry.gid);
    chmodAt(directory.fd, name, entry.mode);
    this.#setAttributes(directory.fd, name, entry);
  }

  /** Leaves a directory that is there; anything else gives way. False for one that is the kernel's, and not to be touched. */
  #mkdir(directory: OpenDirectory, name: ByteString): boolean {
    try {
      mkdirAt(directory.fd, name, 0o755);
      return true;
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
    }
    try {
      const there = openDirectoryAt(directory.fd, name);
      try {
        return !isPseudo(there);
      } finally {
        fs.closeSync(there);
      }
    } catch (error) {
      if (!isErrno(error, 'ENOTDIR', 'ELOOP')) throw error;
      this.#moveAside(directory, name);
      mkdirAt(directory.fd, name, 0o755);
      return true;
    }
  }

  #link(directory: OpenDirectory, name: ByteString, entry: TarEntry): void {
    const parts = partsOf(entry.linkName);
    const targetName = parts.pop();
    if (targetName === undefined) throw invalid(`the archive links ${JSON.stringify(entry.name)} to a directory`);
    const target = this.#existing(parts);
    try {
      // A link of a file to itself changes nothing.
      if (within(target, targetName) === within(directory, name)) return;
      this.#orReplace(directory, name, () => linkAt(target.fd, targetName, directory.fd, name));
    } finally {
      fs.closeSync(target.fd);
    }
  }

  #special(directory: OpenDirectory, name: ByteString, entry: TarEntry): void {
    const { fd } = directory;
    this.#orReplace(directory, name, () => {
      if (entry.type === 'symlink') symlinkAt(entry.linkName, fd, name);
      else if (entry.type === 'char') mknodAt(fd, name, S_IFCHR, 0, entry.major, entry.minor);
      else if (entry.type === 'block') mknodAt(fd, name, S_IFBLK, 0, entry.major, entry.minor);
      else mknodAt(fd, name, S_IFIFO, 0, 0, 0);
    });
    chownAt(fd, name, entry.uid, entry.gid);
    if (entry.type === 'symlink') this.size += entry.linkName.length;
    else chmodAt(fd, name, entry.mode);
    this.#setAttributes(fd, name, entry);
    setTimesAt(fd, name, entry.accessed ?? entry.modified, entry.modified);
  }

  /** `.wh.x` hides `x` of the layers below, `.wh..wh..opq` all of the directory; other `.wh..wh.` names are AUFS's own. */
  #whiteout(parts: readonly ByteString[], marker: ByteString): void {
    if (marker === opaqueMarker) {
      if (parts.length === 0) {
        setAttributeAt(this.#top.fd, '.', opaqueAttribute, Buffer.from('y'));
        return;
      }
      const directory = this.#directory(parts);
      setAttributeAt(directory.fd, '.', opaqueAttribute, Buffer.from('y'));
      return;
    }
    if (marker.startsWith(whiteoutPrefix + whiteoutPrefix)) return;
    const name = marker.slice(whiteoutPrefix.length);
    if (name === '' || name === '.' || name === '..') throw invalid(`the archive holds a broken whiteout: ${marker}`);
    const directory = this.#directory(parts);
    this.#orReplace(directory, name, () => mknodAt(directory.fd, name, S_IFCHR, 0, 0, 0));
  }

  #setAttributes(dir: number, name: ByteString, entry: TarEntry): void {
    for (const [attribute, value] of entry.attributes) {
      // Overlay's own marks could make other trees visible; whiteouts are the only way to say what they say.
      if (attribute.startsWith('trusted.overlay.') || attribute.startsWith('user.overlay.')) continue;
      try {
        setAttributeAt(dir, name, attribute, value);
      } catch (error) {
        // The file system has no such attributes, or the kernel does not allow this one here: the file counts more.
        if (!isErrno(error, 'ENOTSUP', 'EOPNOTSUPP', 'EPERM')) throw error;
      }
    }
  }

  #orReplace<T>(directory: OpenDirectory, name: ByteString, make: () => T): T {
    try {
      return make();
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
    }
    this.#moveAside(directory, name);
    return make();
  }

  /** The contents of what gives way are still needed to make the tar again. */
  #moveAside(directory: OpenDirectory, name: ByteString): void {
    if (this.#recipe === null) {
      removeAt(directory.fd, name);
    } else {
      const into = fs.openSync(this.#options.into, O_RDONLY | O_DIRECTORY);
      const aside = this.#recipe.replace(within(directory, name));
      try {
        renameAt(directory.fd, name, into, `${layerFiles.replaced}/${aside}`);
      } finally {
        fs.closeSync(into);
      }
    }
    // Open directories may have been moved out of the tree.
    this.#forgetDirectories(directory);
  }

  /** Opens a directory, making it and those above it when missing. Stays open for later entries. */
  #directory(parts: readonly ByteString[]): OpenDirectory {
    if (parts.length === 0) return this.#top;
    const path = parts.join('/');
    const known = this.#open.get(path);
    if (known !== undefined) return known;
    let opened: OpenDirectory;
    try {
      opened = this.#existing(parts);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
      const parent = this.#directory(parts.slice(0, -1));
      const name = parts.at(-1) as ByteString;
      mkdirAt(parent.fd, name, 0o755);
      chownAt(parent.fd, name, 0, 0);
      this.implied.add(within(parent, name));
      opened = this.#existing(parts);
    }
    if (isPseudo(opened.fd)) {
      fs.closeSync(opened.fd);
      throw invalid(`/${path} belongs to the kernel`);
    }
    if (this.#open.size >= openDirectoriesMax) this.#forgetOldest();
    this.#open.set(path, opened);
    return opened;
  }

  #existing(parts: readonly ByteString[]): OpenDirectory {
    const path = parts.join('/');
    const { root, at } = this.#options;
    const fd = openBeneath(root, `${at}/${path}`, O_RDONLY | O_DIRECTORY);
    // A recipe names the very file, so it needs the path with all links resolved; a container may change its own anyway.
    return { fd, canonical: this.#recipe === null ? path : pathOf(fd).slice(pathOf(root).length + 1) };
  }

  #forgetOldest(): void {
    for (const [path, directory] of this.#open) {
      fs.closeSync(directory.fd);
      this.#open.delete(path);
      return;
    }
  }

  /** `kept` is still in use by the caller; it only leaves the map. */
  #forgetDirectories(kept?: OpenDirectory): void {
    for (const directory of this.#open.values()) if (directory !== kept) fs.closeSync(directory.fd);
    this.#open.clear();
    if (kept !== undefined && kept !== this.#top) this.#open.set(kept.canonical, kept);
  }
}

/** Where an open directory is, as bytes. */
const pathOf = (fd: number): ByteString => fs.readlinkSync(`/proc/self/fd/${fd}`, 'latin1');
