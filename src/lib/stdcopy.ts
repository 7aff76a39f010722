/** The multiplexed stream of attach, logs and exec (VERSIONS.md W-62): an 8-byte header before each piece. */

/** One piece with its header: stream number, three zero bytes, big-endian length. */
export function frame(stream: 'stdin' | 'stdout' | 'stderr', data: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(8 + data.length);
  framed.writeUInt32BE(stream === 'stdin' ? 0 : stream === 'stdout' ? 0x01000000 : 0x02000000, 0);
  framed.writeUInt32BE(data.length, 4);
  framed.set(data, 8);
  return framed;
}
