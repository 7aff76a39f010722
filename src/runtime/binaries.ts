/** The runtimes that are installed: where they are, how they are run, what is known about their versions. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { internal, invalid } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { isErrno } from '../platform/libc.ts';
import { sealedCopy } from '../platform/pipe.ts';
import type { OciSpec } from './spec.ts';

export interface Binary {
  readonly path: string;
  readonly runtimeArgs: readonly string[];
}

const directoriesSearched = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

export function findBinary(name: string): string | null {
  if (name.startsWith('/')) return fs.existsSync(name) ? name : null;
  return directoriesSearched.map((directory) => `${directory}/${name}`).find((file) => fs.existsSync(file)) ?? null;
}

/** Users' own profiles and sets of capabilities make others; few machines have so many at once. */
const filtersMax = 64;

export class Binaries implements Disposable {
  readonly #versions = new Map<string, string>();
  /** Compiled filters by crun's identity and the section they came from. */
  readonly #filters = new Map<string, string>();
  readonly #copies = new Map<string, { readonly fd: number; readonly identity: string }>();
  #binaries = new Map<string, Binary>();
  #default = '';

  /** The name of the runtime in use by default. */
  get default(): string {
    return this.#default;
  }

  get all(): ReadonlyMap<string, Binary> {
    return this.#binaries;
  }

  /** Throws when the default is not among them. */
  configure(runtimes: Readonly<Record<string, Binary>>, defaultRuntime: string): void {
    const found = ['crun', 'runc'].flatMap((name) => {
      const file = findBinary(name);
      return file ? [[name, { path: file, runtimeArgs: [] }] as const] : [];
    });
    const binaries = new Map<string, Binary>([...found, ...Object.entries(runtimes)]);
    const chosen = defaultRuntime || (binaries.has('crun') ? 'crun' : 'runc');
    if (!binaries.has(chosen)) {
      throw internal(`no OCI runtime ${chosen}: install crun or runc, or name one with --add-runtime`);
    }
    this.#binaries = binaries;
    this.#default = chosen;
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#copies.values()) fs.closeSync(fd);
    this.#copies.clear();
  }

  /** Asks all of them, and the monitor, in the background. */
  askVersions(monitor: string, log: Log): void {
    for (const name of [...this.#binaries.keys(), 'conmon']) {
      const file = this.#binaries.get(name)?.path ?? monitor;
      execFile(file, ['--version'], { timeout: 10_000, maxBuffer: 64 * 1024 }, (error, stdout) => {
        const version = /version:?\s+(\S+)/.exec(stdout)?.[1];
        if (version) this.#versions.set(name, version);
        else log.warn({ error, binary: file }, 'a binary does not tell its version');
      });
    }
  }

  /** Empty while it is not known. */
  versionOf(name: string): string {
    return this.#versions.get(name) ?? '';
  }

  /** Versions with published holes. Distributions mend theirs without a new number, so this is a hint only. */
  knownTroubles(): readonly string[] {
    const runc = this.#versions.get('runc');
    const crun = this.#versions.get('crun');
    const notes: string[] = [];
    if (runc && olderThan(runc, runc.startsWith('1.3.') ? '1.3.3' : '1.2.8')) {
      notes.push(
        `runc ${runc}: versions before 1.2.8 and 1.3.3 let a container escape (CVE-2025-31133) unless your distribution has mended it`,
      );
    }
    if (crun && olderThan(crun, '1.20')) {
      notes.push(
        `crun ${crun}: versions before 1.20 let krun containers escape (CVE-2025-24965) unless your distribution has mended it`,
      );
    }
    return notes;
  }

  /** Name and executable of a runtime. Empty: the default. */
  named(name: string): { readonly name: string; readonly binary: Binary } {
    const wanted = name || this.#default;
    const binary = this.#binaries.get(wanted);
    if (!binary) throw invalid(`Unknown runtime specified ${wanted}`);
    return { name: wanted, binary };
  }

  /**
   * What to execute for a runtime. crun, like runc, runs from a copy of itself that containers cannot write to
   * (CVE-2019-5736) and makes one at every call, unless it finds itself in a sealed file: so it is given one, which saves
   * a second start of the program. A replaced binary is copied anew.
   */
  executable(binary: Binary): string {
    if (path.basename(binary.path) !== 'crun') return binary.path;
    const stat = fs.statSync(binary.path);
    const identity = `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeMs}`;
    let copy = this.#copies.get(binary.path);
    if (copy?.identity !== identity) {
      if (copy) fs.closeSync(copy.fd);
      this.#filters.clear();
      copy = { fd: sealedCopy(binary.path), identity };
      this.#copies.set(binary.path, copy);
    }
    return `/proc/${process.pid}/fd/${copy.fd}`;
  }

  /**
   * crun spends ten milliseconds on compiling the seccomp section and leaves the result in its state directory. Given
   * back as an annotation it is used as it is. The section stays in the spec: a crun that does not know the annotation
   * compiles it.
   */
  filterAnnotation(key: string | null): Readonly<Record<string, string>> {
    const filter = key === null ? undefined : this.#filters.get(key);
    return filter === undefined ? {} : { 'run.oci.seccomp_bpf_data': filter };
  }

  keepFilter(key: string | null, file: string): void {
    if (key === null || this.#filters.has(key)) return;
    try {
      const filter = fs.readFileSync(file);
      if (this.#filters.size >= filtersMax) this.#filters.clear();
      if (filter.length > 0) this.#filters.set(key, filter.toString('base64'));
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
    }
  }
}

/** Null when there is nothing to keep: no filter, or not crun run from the sealed copy that `executable` names. */
export function filterKey(spec: OciSpec, executable: string): string | null {
  if (!spec.linux.seccomp || !executable.startsWith('/proc/')) return null;
  return createHash('sha256').update(executable).update(JSON.stringify(spec.linux.seccomp)).digest('hex');
}

function olderThan(version: string, than: string): boolean {
  const numbers = (text: string): number[] => text.split(/[.+~-]/).map((part) => Number.parseInt(part, 10) || 0);
  const [a, b] = [numbers(version), numbers(than)];
  for (let index = 0; index < 3; index += 1) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}
