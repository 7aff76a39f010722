/** As much of MessagePack as log lines need. Texts are bytes: what a container prints need not be UTF-8. */

/** What stands before a text of so many bytes. */
export function textHead(length: number): Buffer {
  if (length < 32) return Buffer.from([0xa0 | length]);
  if (length < 0x100) return Buffer.from([0xd9, length]);
  if (length < 0x10000) return Buffer.from([0xda, length >> 8, length & 0xff]);
  const head = Buffer.from([0xdb, 0, 0, 0, 0]);
  head.writeUInt32BE(length, 1);
  return head;
}

export function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([textHead(bytes.length), bytes]);
}

const collection = (small: number, large: number, count: number): Buffer =>
  count < 16 ? Buffer.from([small | count]) : Buffer.from([large, count >> 8, count & 0xff]);

/** Begins a list of up to 65535. */
export const array = (count: number): Buffer => collection(0x90, 0xdc, count);
/** Begins as many pairs. */
export const map = (count: number): Buffer => collection(0x80, 0xde, count);

interface Time {
  readonly seconds: number;
  readonly nanoseconds: number;
}

export function seconds(time: Time): Buffer {
  if (time.seconds > 0x7fffffff) {
    const wide = Buffer.alloc(9, 0xd3);
    wide.writeBigInt64BE(BigInt(time.seconds), 1);
    return wide;
  }
  const bytes = Buffer.alloc(5, 0xd2);
  bytes.writeInt32BE(time.seconds, 1);
  return bytes;
}

/** The forward protocol's own type of time, to the nanosecond. */
export function eventTime(time: Time): Buffer {
  const bytes = Buffer.from([0xd7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  bytes.writeUInt32BE(time.seconds >>> 0, 2);
  bytes.writeUInt32BE(time.nanoseconds, 6);
  return bytes;
}
