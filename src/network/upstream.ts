/**
 * Questions to name servers outside. The answer is passed on as it came.
 *
 * Servers are asked in their order. One that does not answer is overtaken after a moment by the next. One that has answered nothing
 * meanwhile is asked last from then on, beside another one, until it answers: a dead server costs its first questions a tenth of a
 * second and later ones nothing.
 */
import { Channel, type Server } from './channel.ts';
import { asAsked, Code, codeOf, isAuthoritative, type Question } from './message.ts';

/** How long a server has before the next is asked as well. */
const hedgeMs = 80;
/** When all have been asked, how long until the first is asked again: datagrams get lost. */
const againMs = 1500;
const patienceMs = 4500;
/** How often a server that does not answer is tried. */
const restMs = 5000;
const sweepMs = 20;
/** Sockets that nobody has used for so long are closed. */
const idleMs = 20_000;
/** As many as resolvers take, and one for good measure; more are not asked. */
const serversMax = 4;
const channelsMax = 1024;

interface Exchange {
  readonly question: Question;
  readonly by: 'udp' | 'tcp';
  readonly channels: readonly Channel[];
  readonly done: (answer: Buffer | null) => void;
  readonly startedAt: number;
  /** When each channel was asked last; 0: not yet. */
  readonly askedAt: number[];
  readonly forgets: (() => void)[];
  next: number;
  lastAt: number;
  /** Servers that have said nothing yet, of those asked. */
  open: number;
  /** What a server said that could not say. */
  worst: Buffer | null;
  settled: boolean;
}

export class Upstreams {
  readonly #channels = new Map<string, Channel>();
  readonly #exchanges = new Set<Exchange>();
  #sweep: NodeJS.Timeout | null = null;
  #idleCheckedAt = 0;

  get waiting(): number {
    return this.#exchanges.size;
  }

  /** `done` gets the first answer with the client's own id, or null when none came; never more than once, and in bounded time. */
  ask(servers: readonly Server[], question: Question, by: 'udp' | 'tcp', done: (answer: Buffer | null) => void): void {
    const now = Date.now();
    const channels = this.#inOrder(servers, now);
    if (channels.length === 0) {
      done(null);
      return;
    }
    const exchange: Exchange = {
      ...{ question, by, channels, done, startedAt: now, askedAt: channels.map(() => 0), forgets: [] },
      ...{ next: 0, lastAt: now, open: 0, worst: null, settled: false },
    };
    this.#exchanges.add(exchange);
    this.#askNext(exchange, now);
    // Whether one that rests is back is found out beside another, at nobody's cost.
    const rested = channels.findIndex(({ restsUntil }) => restsUntil > 0 && restsUntil <= now);
    const resting = channels[rested];
    if (rested > 0 && resting) this.#probe(resting, question);
    this.#sweep ??= setInterval(() => this.#overtake(), sweepMs).unref();
  }

  /** A namespace has gone: nobody asks from there again. */
  leave(namespacePath: string): void {
    for (const [key, channel] of this.#channels) {
      if (!key.startsWith(`${namespacePath} `)) continue;
      channel.close();
      this.#channels.delete(key);
    }
  }

  close(): void {
    if (this.#sweep) clearInterval(this.#sweep);
    for (const channel of this.#channels.values()) channel.close();
    this.#channels.clear();
  }

  #askNext(exchange: Exchange, now: number): void {
    const { channels, askedAt } = exchange;
    const position = exchange.next++ % channels.length;
    const channel = channels[position] as Channel;
    askedAt[position] = now;
    exchange.lastAt = now;
    this.#askOne(exchange, channel);
  }

  #askOne(exchange: Exchange, channel: Channel): void {
    exchange.open++;
    const forget = channel.ask(exchange.question, exchange.by, {
      take: (answer) => {
        channel.answeredAt = Date.now();
        channel.restsUntil = 0;
        if (isFinal(answer)) this.#settle(exchange, answer);
        else this.#inVain(exchange, answer);
      },
      failed: () => {
        if (channel.restsUntil === 0) channel.restsUntil = Date.now() + restMs;
        this.#inVain(exchange, null);
      },
    });
    if (exchange.settled) forget();
    else exchange.forgets.push(forget);
  }

  #probe(channel: Channel, question: Question): void {
    channel.restsUntil = Date.now() + restMs;
    const take = (): void => {
      channel.answeredAt = Date.now();
      channel.restsUntil = 0;
    };
    const forget = channel.ask(question, 'udp', { take, failed: () => undefined });
    setTimeout(forget, againMs).unref();
  }

  #inVain(exchange: Exchange, answer: Buffer | null): void {
    exchange.open--;
    if (exchange.settled) return;
    const { channels, next } = exchange;
    if (answer && !(exchange.worst && isUnknown(exchange.worst))) exchange.worst = answer;
    const more = channels[next];
    // That there is no such name is not doubted for the sake of a server that may be dead.
    const worthIt = more !== undefined && !(more.restsUntil > 0 && exchange.worst && isUnknown(exchange.worst));
    if (worthIt) this.#askNext(exchange, Date.now());
    else if (exchange.open === 0 || more !== undefined) this.#settle(exchange, exchange.worst);
  }

  #settle(exchange: Exchange, answer: Buffer | null): void {
    if (exchange.settled) return;
    exchange.settled = true;
    this.#exchanges.delete(exchange);
    for (const forget of exchange.forgets) forget();
    exchange.done(answer && asAsked(answer, exchange.question));
  }

  #overtake(): void {
    const now = Date.now();
    for (const exchange of this.#exchanges) {
      const all = exchange.next >= exchange.channels.length;
      if (now - exchange.lastAt >= hedgeMs) this.#noteSilence(exchange, now);
      if (now - exchange.startedAt >= patienceMs || isEnough(exchange, now)) this.#settle(exchange, exchange.worst);
      else if (now - exchange.lastAt >= (all ? againMs : hedgeMs) && (!all || exchange.by === 'udp'))
        this.#askNext(exchange, now);
    }
    if (now - this.#idleCheckedAt > idleMs) this.#closeIdle(now);
    if (this.#exchanges.size === 0 && this.#channels.size === 0 && this.#sweep) {
      clearInterval(this.#sweep);
      this.#sweep = null;
    }
  }

  /** Slow is not dead: only one that has answered nobody since rests. */
  #noteSilence({ channels, askedAt }: Exchange, now: number): void {
    for (const [position, at] of askedAt.entries()) {
      const channel = channels[position] as Channel;
      if (at > 0 && now - at >= hedgeMs && channel.answeredAt < at && channel.restsUntil === 0)
        channel.restsUntil = now + restMs;
    }
  }

  #closeIdle(now: number): void {
    this.#idleCheckedAt = now;
    for (const [key, channel] of this.#channels) {
      if (now - channel.usedAt < idleMs || !channel.isIdle) continue;
      channel.close();
      this.#channels.delete(key);
    }
  }

  #inOrder(servers: readonly Server[], now: number): readonly Channel[] {
    const channels = servers.slice(0, serversMax).flatMap((server) => this.#channel(server, now) ?? []);
    if (channels.every(({ restsUntil }) => restsUntil === 0)) return channels;
    return [
      ...channels.filter(({ restsUntil }) => restsUntil === 0),
      ...channels.filter(({ restsUntil }) => restsUntil > 0),
    ];
  }

  #channel(server: Server, now: number): Channel | null {
    const key = `${server.namespacePath} ${server.address}`;
    let channel = this.#channels.get(key);
    if (channel === undefined) {
      if (this.#channels.size >= channelsMax) this.#closeIdle(now + idleMs);
      if (this.#channels.size >= channelsMax) return null;
      channel = new Channel(server);
      this.#channels.set(key, channel);
    }
    channel.usedAt = now;
    return channel;
  }
}

const isUnknown = (answer: Buffer): boolean => codeOf(answer) === Code.NXDomain;

/**
 * One that cannot say may be overruled by one that can; as with dockerd also one that knows no such name, unless it is the
 * authority: the second server may be that of a private domain.
 */
function isFinal(answer: Buffer): boolean {
  const code = codeOf(answer);
  if (code === Code.NXDomain) return isAuthoritative(answer);
  return code !== Code.ServFail && code !== Code.Refused && code !== Code.NotImp;
}

/** There is an answer of a kind, and the others are silent. */
const isEnough = ({ worst, lastAt, next, channels }: Exchange, now: number): boolean =>
  worst !== null && next >= channels.length && now - lastAt >= (isUnknown(worst) ? hedgeMs : againMs);
