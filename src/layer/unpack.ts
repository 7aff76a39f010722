/**
 * Unpacks a tar into a directory. Every name is resolved by the kernel below that directory; nothing an archive holds
 * can make a file elsewhere. For worker threads: it blocks.
 */
import fs from 'node:fs';
import { EngineError, invalid, messageOf } from '../lib/errors.ts';
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
  renameAt,
  setAttributeAt,
  setTimes,
  setTimesAt,
  symlinkAt,
  syncFileSystem,
} from '../platform/files.ts';
import { isErrno } from '../platform/libc.ts';
import { layerFiles, RecipeWriter } from './recipe.ts';
import type { TarEntry } from './tar/format.ts';
import { TarReader } from './tar/reader.ts';

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
  /** Read up to its end; closed by the caller. */
  readonly fd: number;
  /** Existing directory. */
  readonly into: string;
  /** `layer`: `into` gets a tree `diff` with overlay whiteouts, and the recipe to make the tar again. `plain`: files as they are. */
  readonly as: 'layer' | 'plain';
  readonly cancelled: () => boolean;
}

/** Throws 'invalid' for a broken or hostile archive. All is on disk when it returns. */
export function unpack(options: UnpackOptions): Unpacked {
  const layer = options.as === 'layer';
  const tree = layer ? `${options.into}/${layerFiles.tree}` : options.into;
  if (layer) fs.mkdirSync(tree, 0o755);
  const recipe = layer ? new RecipeWriter(options.into) : null;
  const reader = new TarReader(options.fd, (bytes) => recipe?.raw(bytes), options.cancelled);
  const unpacker = new Unpacker(tree, reader, recipe);
  try {
    for (let entry = reader.next(); entry !== null; entry = reader.next()) {
      try {
        unpacker.place(entry);
      } catch (error) {
        throw asFault(error, entry);
      }
    }
    unpacker.finish();
    recipe?.finish();
  } catch (error) {
    recipe?.abandon();
    throw error;
  } finally {
    unpacker.close();
  }
  return { diffId: reader.digest(), tarSize: reader.bytes, size: unpacker.size, implied: [...unpacker.implied] };
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

class Unpacker {
  readonly implied = new Set<ByteString>();
  size = 0;
  readonly #reader: TarReader;
  readonly #recipe: RecipeWriter | null;
  readonly #into: string;
  readonly #root: OpenDirectory;
  readonly #rootPath: string;
  readonly #umask = process.umask();
  readonly #open = new Map<ByteString, OpenDirectory>();
  /** Times of directories are set last, since whatever is put into them changes them. */
  readonly #directoryTimes = new Map<ByteString, FileTime>();

  constructor(tree: string, reader: TarReader, recipe: RecipeWriter | null) {
    this.#reader = reader;
    this.#recipe = recipe;
    this.#into = recipe === null ? tree : tree.slice(0, tree.lastIndexOf('/'));
    this.#root = { fd: fs.openSync(tree, O_RDONLY | O_DIRECTORY), canonical: '' };
    this.#rootPath = pathOf(this.#root.fd);
  }

  place(entry: TarEntry): void {
    const parts = partsOf(entry.name);
    const name = parts.pop();
    // What an archive says about its own root is ignored, as the root of a container always is 0755 root.
    if (name === undefined || entry.type === 'other') return;
    if (this.#recipe !== null && name.startsWith(whiteoutPrefix)) {
      this.#whiteout(parts, name);
      return;
    }
    const directory = this.#directory(parts);
    if (entry.type === 'file') this.#file(directory, name, entry);
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
    syncFileSystem(this.#root.fd);
  }

  close(): void {
    this.#forgetDirectories();
    fs.closeSync(this.#root.fd);
  }

  #file(directory: OpenDirectory, name: ByteString, entry: TarEntry): void {
    const fd = this.#orReplace(directory, name, () => createAt(directory.fd, name, entry.mode & 0o777));
    try {
      this.#write(fd, within(directory, name), entry);
      // Always: a setgid directory above would hand its group down. Before the rest: it clears setuid and capabilities.
      fs.fchownSync(fd, entry.uid, entry.gid);
      if ((entry.mode & (this.#umask | 0o7000)) !== 0) fs.fchmodSync(fd, entry.mode);
      this.#setAttributes(directory.fd, name, entry);
      setTimes(fd, entry.accessed ?? entry.modified, entry.modified);
    } finally {
      fs.closeSync(fd);
    }
  }

  #write(fd: number, path: ByteString, entry: TarEntry): void {
    const realSize = entry.sparse?.realSize ?? entry.size;
    for (const { offset, length } of entry.sparse?.pieces ?? [{ offset: 0, length: entry.size }]) {
      let at = offset;
      this.#reader.content(length, (bytes) => {
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
    this.#mkdir(directory, name);
    this.implied.delete(path);
    this.#directoryTimes.set(path, entry.modified);
    chownAt(directory.fd, name, entry.uid, entry.gid);
    chmodAt(directory.fd, name, entry.mode);
    this.#setAttributes(directory.fd, name, entry);
  }

  /** Leaves a directory that is there; anything else gives way. */
  #mkdir(directory: OpenDirectory, name: ByteString): void {
    try {
      mkdirAt(directory.fd, name, 0o755);
      return;
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
    }
    try {
      fs.closeSync(openDirectoryAt(directory.fd, name));
    } catch (error) {
      if (!isErrno(error, 'ENOTDIR', 'ELOOP')) throw error;
      this.#moveAside(directory, name);
      mkdirAt(directory.fd, name, 0o755);
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
        setAttributeAt(this.#root.fd, '.', opaqueAttribute, Buffer.from('y'));
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
      fs.rmSync(pathAt(directory.fd, name), { recursive: true });
    } else {
      const into = fs.openSync(this.#into, O_RDONLY | O_DIRECTORY);
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
    if (parts.length === 0) return this.#root;
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
    if (this.#open.size >= openDirectoriesMax) this.#forgetOldest();
    this.#open.set(path, opened);
    return opened;
  }

  #existing(parts: readonly ByteString[]): OpenDirectory {
    const fd = openBeneath(this.#root.fd, parts.join('/'), O_RDONLY | O_DIRECTORY);
    const absolute = pathOf(fd);
    return { fd, canonical: absolute.slice(this.#rootPath.length + 1) };
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
    if (kept !== undefined && kept !== this.#root) this.#open.set(kept.canonical, kept);
  }
}

/** Where an open directory is, as bytes. */
const pathOf = (fd: number): ByteString => fs.readlinkSync(`/proc/self/fd/${fd}`, 'latin1');
