/**
 * The older iptables ("legacy"), which nftables does not show: read from the kernel by getsockopt(2), changed through its own program.
 * Asking never makes the kernel load it.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { check, declare, isErrno } from './libc.ts';

const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const IPPROTO_RAW = 255;
const GET_INFO = 64;
const GET_ENTRIES = 65;
const FORWARD = 2;
/** verdicts: -NF_DROP - 1 */
const dropVerdict = -1;
const nameSize = 32;
const infoSize = nameSize + 4 + 5 * 4 + 5 * 4 + 4 + 4;
/** Where struct ipt_entry and ip6t_entry say how far their target is. */
const kinds = {
  ip: { family: 2, level: 0, names: 'ip_tables_names', targetOffset: 88, program: 'iptables' },
  ip6: { family: 10, level: 41, names: 'ip6_tables_names', targetOffset: 140, program: 'ip6tables' },
} as const;
const deadlineMs = 10_000;

export type XtablesFamily = keyof typeof kinds;

const socket_ = declare<[number, number, number], number>('int socket(int domain, int type, int protocol)');
const close_ = declare<[number], number>('int close(int fd)');
const getsockopt_ = declare<[number, number, number, Uint8Array, Uint8Array], number>(
  'int getsockopt(int fd, int level, int name, void *value, void *length)',
);

export interface FilterTable {
  /** The policy of FORWARD is DROP. */
  readonly dropsForwarded: boolean;
  /** All rules as the kernel has them; comments stand in it as plain text. */
  readonly bytes: Buffer;
}

/** The table `filter`, of the namespace this process is in; undefined when nobody has made one. */
export function readFilter(family: XtablesFamily): FilterTable | undefined {
  const kind = kinds[family];
  try {
    if (!fs.readFileSync(`/proc/self/net/${kind.names}`, 'latin1').split('\n').includes('filter')) return undefined;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
  const fd = check(socket_(kind.family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW), 'socket', `${family} raw`);
  const get = (option: number, size: number): Buffer => {
    const value = Buffer.alloc(size);
    value.write('filter');
    if (option === GET_ENTRIES) value.writeUInt32LE(size - entriesAt, nameSize);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(size);
    check(getsockopt_(fd, kind.level, option, value, length), 'getsockopt', `the filter table of ${kind.program}`);
    return value;
  };
  try {
    // Struct ipt_getinfo: name, valid hooks, first entry of each hook, its policy, number of entries, size.
    const info = get(GET_INFO, infoSize);
    const policyAt = info.readUInt32LE(nameSize + 4 + 5 * 4 + FORWARD * 4);
    const bytes = get(GET_ENTRIES, entriesAt + info.readUInt32LE(infoSize - 4)).subarray(entriesAt);
    const targetAt = policyAt + bytes.readUInt16LE(policyAt + kind.targetOffset);
    return { dropsForwarded: bytes.readInt32LE(targetAt + nameSize) === dropVerdict, bytes };
  } finally {
    close_(fd);
  }
}

/** Of struct ipt_get_entries, whose entries are aligned to 8 bytes. */
const entriesAt = 40;

/** Changes the table `filter` by lines as iptables-save writes them, all or nothing, and waits for others who are at it. */
export async function changeFilter(family: XtablesFamily, lines: readonly string[]): Promise<void> {
  const { program } = kinds[family];
  const text = ['*filter', ...lines, 'COMMIT', ''].join('\n');
  try {
    await restore(`${program}-legacy-restore`, text);
  } catch (error) {
    // Where there is no other than the older one, it has the plain name.
    if (!isErrno(error, 'ENOENT')) throw error;
    await restore(`${program}-restore`, text);
  }
}

function restore(program: string, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ['--noflush', '--wait', '5'], {
      stdio: ['pipe', 'ignore', 'pipe'],
      signal: AbortSignal.timeout(deadlineMs),
      killSignal: 'SIGKILL',
    });
    let words = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      words = (words + chunk).slice(0, 4096);
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`${program} refused: ${words.trim() || `ended with ${signal ?? code}`}`));
    });
    child.stdin.on('error', () => undefined);
    child.stdin.end(text);
  });
}
