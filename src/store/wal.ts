/**
 * SQLite replays its write-ahead log up to the first frame whose checksum is wrong and forgets the rest without a word.
 * That is right for the torn end a power loss leaves, and silent loss when a bit has flipped in the middle. This tells
 * the two apart. Format: "The WAL File Format", sqlite.org/fileformat2.html#walformat.
 */
import fs from 'node:fs';

const headerLength = 32;
const frameHeaderLength = 24;
const magic = 0x377f0682;

/**
 * Commits that stand in the log behind a broken frame; 0 if all is well. A crash can tear one commit, the last: it has
 * not been acknowledged and does not count.
 */
export function commitsBehindDamage(file: string): number {
  let log: Buffer;
  try {
    log = fs.readFileSync(file);
  } catch {
    return 0; // None there: closed in order.
  }
  if (log.length < headerLength || (log.readUInt32BE(0) & ~1) >>> 0 !== magic) return 0;
  const bigEndian = (log.readUInt32BE(0) & 1) === 1;
  const word = (at: number): number => (bigEndian ? log.readUInt32BE(at) : log.readUInt32LE(at));
  const frameLength = frameHeaderLength + log.readUInt32BE(8);
  const salts = log.subarray(16, 24);

  let sum0 = 0;
  let sum1 = 0;
  const add = (start: number, end: number): void => {
    for (let at = start; at < end; at += 8) {
      sum0 = (sum0 + word(at) + sum1) >>> 0;
      sum1 = (sum1 + word(at + 4) + sum0) >>> 0;
    }
  };
  add(0, 24);
  let broken = sum0 !== log.readUInt32BE(24) || sum1 !== log.readUInt32BE(28);
  let behind = 0;
  for (let frame = headerLength; frame + frameLength <= log.length; frame += frameLength) {
    // Frames with other salts are left over from before the log was last begun anew.
    const isOurs = log.subarray(frame + 8, frame + 16).equals(salts);
    if (!broken) {
      add(frame, frame + 8);
      add(frame + frameHeaderLength, frame + frameLength);
      broken = !isOurs || sum0 !== log.readUInt32BE(frame + 16) || sum1 !== log.readUInt32BE(frame + 20);
    }
    const isCommit = log.readUInt32BE(frame + 4) !== 0;
    if (broken && isOurs && isCommit) behind++;
  }
  return behind > 1 ? behind : 0;
}
