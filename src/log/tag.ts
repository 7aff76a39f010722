/** The `tag` option: text with `{{.Field}}` in it, as Go's templates write them. Nothing else of that language is known. */
import { invalid } from '../lib/errors.ts';
import type { LogSubject } from './types.ts';

type Field = (subject: LogSubject) => string;

/** What dockerd's log drivers offer; `FullName` is a name some documents use. */
const fields: Readonly<Record<string, Field>> = {
  ID: ({ id }) => id.slice(0, 12),
  FullID: ({ id }) => id,
  Name: ({ name }) => name,
  FullName: ({ name }) => name,
  ImageID: ({ imageId }) => imageId.slice(0, 12),
  ImageFullID: ({ imageId }) => imageId,
  ImageName: ({ imageName }) => imageName,
  DaemonName: () => 'docker',
  Command: ({ command }) => command,
  Hostname: ({ hostname }) => hostname,
  ContainerID: ({ id }) => id,
  ContainerName: ({ name }) => `/${name}`,
  ContainerImageID: ({ imageId }) => imageId,
  ContainerImageName: ({ imageName }) => imageName,
};
const offered = ['ID', 'FullID', 'Name', 'FullName', 'ImageID', 'ImageFullID', 'ImageName', 'DaemonName', 'Command'];

/** Throws 'invalid' for what is not known, so that a create tells of it and not a log without end. */
export function parseTag(template: string): (subject: LogSubject) => string {
  const parts: Field[] = [];
  let rest = template;
  for (;;) {
    const open = rest.indexOf('{{');
    if (open < 0) break;
    const close = rest.indexOf('}}', open);
    if (close < 0) throw invalid('template: log-tag:1: unclosed action');
    const literal = rest.slice(0, open);
    const action = rest.slice(open + 2, close).trim();
    parts.push(() => literal, fieldOf(action));
    rest = rest.slice(close + 2);
  }
  const tail = rest;
  return (subject) => parts.map((part) => part(subject)).join('') + tail;
}

function fieldOf(action: string): Field {
  const [, label] = /^index \.ContainerLabels "([^"\\]*)"$/.exec(action) ?? [];
  if (label !== undefined) return ({ labels }) => (Object.hasOwn(labels, label) ? (labels[label] ?? '') : '');
  const name = action.startsWith('.') ? action.slice(1) : '';
  const field = Object.hasOwn(fields, name) ? fields[name] : undefined;
  if (field === undefined) {
    throw invalid(
      `template: log-tag: {{${action}}} is not supported; a tag may hold ${offered.map((each) => `{{.${each}}}`).join(', ')}`,
    );
  }
  return field;
}
