/** Drivers whose logs stay here. All write the one file of docs/logs.md; they differ in options and in who may read. */
import type { Driver } from './types.ts';

export const jsonFile: Driver = {
  name: 'json-file',
  options: ['max-size', 'max-file', 'compress', 'labels', 'labels-regex', 'env', 'env-regex', 'tag'],
  unknown: (option) => `unknown log opt '${option}' for json-file log driver`,
  check: () => undefined,
  forward: null,
};

export const local: Driver = {
  name: 'local',
  options: ['max-size', 'max-file', 'compress'],
  unknown: (option) => `unknown log opt '${option}' for log driver local`,
  check: () => undefined,
  forward: null,
};

export const none: Driver = {
  name: 'none',
  options: [],
  unknown: (option) => `unknown log opt '${option}' for none log driver`,
  check: () => undefined,
  forward: null,
};
