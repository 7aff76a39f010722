/** As much of MessagePack as the forward protocol uses, read back. */
export function unpack(bytes: Buffer): unknown[] {
  let at = 0;
  const take = (length: number): Buffer => {
    at += length;
    return bytes.subarray(at - length, at);
  };
  const many = (count: number): unknown[] => Array.from({ length: count }, () => value());
  const pairs = (count: number): Record<string, unknown> =>
    Object.fromEntries(Array.from({ length: count }, () => [value(), value()]));
  const value = (): unknown => {
    const tag = take(1)[0] as number;
    if (tag < 0x80) return tag;
    if (tag < 0x90) return pairs(tag & 15);
    if (tag < 0xa0) return many(tag & 15);
    if (tag < 0xc0) return take(tag & 31).toString();
    if (tag === 0xd9) return take(take(1)[0] as number).toString();
    if (tag === 0xda) return take(take(2).readUInt16BE()).toString();
    if (tag === 0xdb) return take(take(4).readUInt32BE()).toString();
    if (tag === 0xd2) return take(4).readInt32BE();
    if (tag === 0xdc) return many(take(2).readUInt16BE());
    if (tag === 0xde) return pairs(take(2).readUInt16BE());
    if (tag === 0xd7) return { type: take(1)[0], seconds: take(4).readUInt32BE(), nanoseconds: take(4).readUInt32BE() };
    throw new Error(`unknown type ${tag.toString(16)} at ${at - 1}`);
  };
  const all: unknown[] = [];
  while (at < bytes.length) all.push(value());
  return all;
}
