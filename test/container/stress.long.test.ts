/** Streams under stress at full length; ten thousand connections are cut off in the short tests already. */
import { stress } from './stress-cases.ts';

stress({ execs: 100_000, runs: 10_000, sleepSeconds: 60, aborts: 2000 });
