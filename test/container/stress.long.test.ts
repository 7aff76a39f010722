/** Streams under stress at full length. */
import { stress } from './stress-cases.ts';

stress({ execs: 100_000, runs: 10_000, sleepSeconds: 60, aborts: 10_000 });
