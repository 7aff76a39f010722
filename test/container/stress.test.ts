/**
 * Streams under stress, as far as each CI run goes.
 *
 * test-timeout-seconds: 1200
 */
import { stress } from './stress-cases.ts';

stress({ execs: 10_000, runs: 300, sleepSeconds: 5, aborts: 2000 });
