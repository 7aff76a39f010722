/** The log drivers by name. */
import { fluentd } from './fluentd.ts';
import { gelf } from './gelf.ts';
import { journald } from './journald.ts';
import { jsonFile, local, none } from './local.ts';
import { syslog } from './syslog.ts';
import type { Driver } from './types.ts';

export const drivers: ReadonlyMap<string, Driver> = new Map(
  [fluentd, gelf, journald, jsonFile, local, none, syslog].map((driver) => [driver.name, driver]),
);
