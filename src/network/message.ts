/**
 * DNS messages (RFC 1035, EDNS of RFC 6891) as far as a name server needs them that answers one question with addresses or a name:
 * the question is read, and goes back byte for byte as it came.
 */

export const Type = { A: 1, PTR: 12, AAAA: 28, OPT: 41 } as const;
export const classIN = 1;
/** RCODEs. `BadVersion` is one of EDNS: its low four bits are in the header, the rest in the OPT record. */
export const Code = { none: 0, FormErr: 1, ServFail: 2, NXDomain: 3, NotImp: 4, Refused: 5, BadVersion: 16 } as const;

const headerBytes = 12;
/** Largest answer over UDP to a client that names no size of its own. */
const plainBytesMax = 512;
/** What we say we take, and give, over UDP. */
const ednsBytes = 4096;
const nameBytesMax = 255;
/** A question has no reason to be longer. */
export const questionBytesMax = 4096;
const QR = 0x8000;
const AA = 0x0400;
const TC = 0x0200;
const RA = 0x0080;
/** Opcode, RD and CD go back as they came. */
const keptFlags = 0x7910;

export interface Question {
  readonly message: Buffer;
  /** Labels joined by dots, in lower case, without the last dot. A dot within a label is `\.`. */
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** Where the question section ends. */
  readonly end: number;
  /** What the client takes over UDP. */
  readonly bytesMax: number;
  /** The client speaks EDNS. */
  readonly edns: boolean;
  /** Set: to be answered with this code. */
  readonly fault: number;
}

/** Null: not a question; nothing is answered, or two servers could talk to each other for ever. */
export function readQuestion(message: Buffer): Question | null {
  if (message.length < headerBytes) return null;
  const flags = message.readUInt16BE(2);
  if (flags & QR) return null;
  const faulty = (fault: number): Question => ({
    ...{ message, name: '', type: 0, class: 0, end: headerBytes, bytesMax: plainBytesMax, edns: false, fault },
  });
  if (message.length > questionBytesMax) return faulty(Code.FormErr);
  if ((flags >> 11) & 15) return faulty(Code.NotImp);
  // RFC 9619: a query has one question.
  if (message.readUInt16BE(4) !== 1) return faulty(Code.FormErr);
  const read = readName(message, headerBytes);
  if (read === null || read.end + 4 > message.length) return faulty(Code.FormErr);
  const end = read.end + 4;
  const options = readOptions(message, end);
  if (options === null) return faulty(Code.FormErr);
  return {
    message,
    name: read.name,
    type: message.readUInt16BE(read.end),
    class: message.readUInt16BE(read.end + 2),
    end,
    ...options,
  };
}

/** A name without compression, as questions have it. */
function readName(message: Buffer, start: number): { readonly name: string; readonly end: number } | null {
  const labels: string[] = [];
  let at = start;
  for (;;) {
    const length = message[at];
    if (length === undefined || length > 63 || at - start >= nameBytesMax) return null;
    at++;
    if (length === 0) return { name: labels.join('.').toLowerCase(), end: at };
    if (at + length > message.length) return null;
    const label = message.toString('latin1', at, at + length);
    labels.push(label.includes('.') ? label.replaceAll('.', '\\.') : label);
    at += length;
  }
}

/** The OPT record behind the question. Null: the message is broken. */
function readOptions(message: Buffer, end: number): Pick<Question, 'bytesMax' | 'edns' | 'fault'> | null {
  const plain = { bytesMax: plainBytesMax, edns: false, fault: Code.none };
  // Records in other sections have no meaning in a question.
  if (message.readUInt32BE(6) !== 0) return plain;
  let at = end;
  for (let left = message.readUInt16BE(10); left > 0; left--) {
    const read = readName(message, at);
    if (read === null || read.end + 10 > message.length) return null;
    const type = message.readUInt16BE(read.end);
    const next = read.end + 10 + message.readUInt16BE(read.end + 8);
    if (next > message.length) return null;
    if (type === Type.OPT) {
      const version = message.readUInt8(read.end + 5);
      const size = message.readUInt16BE(read.end + 2);
      return {
        bytesMax: Math.min(ednsBytes, Math.max(plainBytesMax, size)),
        edns: true,
        fault: version > 0 ? Code.BadVersion : Code.none,
      };
    }
    at = next;
  }
  return plain;
}

/** The answer to a question: records of its type and class for its name. What does not fit into `bytesMax` is left out, and TC says so. */
export function answerTo(
  question: Question,
  code: number,
  records: readonly Uint8Array[],
  ttlSeconds: number,
  bytesMax: number,
): Buffer {
  const { message, end, edns } = question;
  const room = bytesMax - end - (edns ? optBytes : 0);
  let kept = 0;
  let size = 0;
  for (const data of records) {
    if (size + recordBytes + data.length > room) break;
    size += recordBytes + data.length;
    kept++;
  }
  const answer = Buffer.allocUnsafe(end + size + (edns ? optBytes : 0));
  message.copy(answer, 0, 0, end);
  const flags = (message.readUInt16BE(2) & keptFlags) | QR | RA | (kept < records.length ? TC : 0) | (code & 15);
  answer.writeUInt16BE(flags, 2);
  answer.writeUInt16BE(end > headerBytes ? 1 : 0, 4);
  answer.writeUInt16BE(kept, 6);
  answer.writeUInt16BE(0, 8);
  answer.writeUInt16BE(edns ? 1 : 0, 10);
  let at = end;
  for (const data of kept === records.length ? records : records.slice(0, kept)) {
    at = answer.writeUInt16BE(0xc000 | headerBytes, at); // the name of the question
    at = answer.writeUInt16BE(question.type, at);
    at = answer.writeUInt16BE(question.class, at);
    at = answer.writeUInt32BE(ttlSeconds, at);
    at = answer.writeUInt16BE(data.length, at);
    answer.set(data, at);
    at += data.length;
  }
  if (edns) {
    at = answer.writeUInt8(0, at); // the root
    at = answer.writeUInt16BE(Type.OPT, at);
    at = answer.writeUInt16BE(ednsBytes, at);
    at = answer.writeUInt32BE((code >> 4) << 24, at);
    answer.writeUInt16BE(0, at);
  }
  return answer;
}

const recordBytes = 12;
const optBytes = 11;

/** A name as it stands in a record; null: it cannot be written. */
export function nameBytes(name: string): Buffer | null {
  const labels = name.split('.').map((label) => Buffer.from(label));
  if (labels.some(({ length }) => length === 0 || length > 63)) return null;
  const bytes = Buffer.concat([...labels.flatMap((label) => [Buffer.of(label.length), label]), Buffer.of(0)]);
  return bytes.length > nameBytesMax ? null : bytes;
}

/** Whether a message is an answer to this question: no server can be believed that asks another one back. Names in any case. */
export function answers(answer: Buffer, { message, end, name }: Question): boolean {
  if (answer.length < end || !(answer.readUInt16BE(2) & QR) || answer.readUInt16BE(4) !== 1) return false;
  if (answer.compare(message, headerBytes, end, headerBytes, end) === 0) return true;
  return readName(answer, headerBytes)?.name === name && answer.compare(message, end - 4, end, end - 4, end) === 0;
}

/** The client's own id and its own spelling of the name, in an answer that `answers` it. */
export function asAsked(answer: Buffer, { message, end }: Question): Buffer {
  const own = Buffer.from(answer);
  message.copy(own, 0, 0, 2);
  message.copy(own, headerBytes, headerBytes, end);
  return own;
}

export const isAuthoritative = (answer: Buffer): boolean => (answer.readUInt16BE(2) & AA) !== 0;
export const codeOf = (answer: Buffer): number => answer.readUInt8(3) & 15;

/** The address that `4.3.2.1.in-addr.arpa` and the nibbles of `ip6.arpa` ask for, as hexadecimal digits; null: none. */
export function addressOfReverse(name: string): string | null {
  const v4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(name);
  if (v4) {
    const numbers = v4.slice(1).reverse().map(Number);
    return numbers.some((each) => each > 255) ? null : Buffer.from(numbers).toString('hex');
  }
  const v6 = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(name);
  return v6 ? (v6[1] ?? '').split('.').reverse().join('') : null;
}
