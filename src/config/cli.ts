/** The command line of slipwayd: dockerd's flags where they make sense. */
import { loadConfig } from './config.ts';
import { parseFlags } from './flags.ts';
import { defaultConfigFile, type Option, options } from './options.ts';
import type { Config } from './types.ts';

export type Command = { readonly is: 'help' | 'version' } | { readonly is: 'run'; readonly config: Config };

/** What to do. Throws 'invalid' with a message for the user; nothing has been touched then. */
export function readCommandLine(argv: readonly string[]): Command {
  const flags = parseFlags(argv);
  return flags.action === 'run' ? { is: 'run', config: loadConfig(argv) } : { is: flags.action };
}

/** `--help`. */
export function usage(): string {
  const own: readonly Pick<Option, 'flag' | 'letter' | 'placeholder' | 'help' | 'kind' | 'initial'>[] = [
    {
      flag: 'config-file',
      kind: 'text',
      placeholder: 'path',
      help: 'The same settings as JSON',
      initial: defaultConfigFile,
    },
    { flag: 'help', letter: 'h', kind: 'switch', help: 'This page', initial: false },
    { flag: 'version', letter: 'v', kind: 'switch', help: 'The version', initial: false },
  ];
  const rows = [...options, ...own]
    .sort((a, b) => (a.flag < b.flag ? -1 : 1))
    .map(({ flag, letter, kind, placeholder, help, initial }) => {
      const sample = kind === 'switch' ? '' : ` ${placeholder ?? kind}`;
      const suffix = initial === '' || initial === false || isEmpty(initial) ? '' : ` (default ${String(initial)})`;
      return [`  ${letter ? `-${letter},` : '   '} --${flag}${sample}`, help + suffix] as const;
    });
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  return `Usage: slipwayd [OPTIONS]

A container engine that speaks the Docker Engine API.

Options:
${rows.map(([left, right]) => left.padEnd(width) + right).join('\n')}

Each setting can stand in the configuration file instead, never in both. SIGHUP reads the file again.
`;
}

const isEmpty = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.keys(value).length === 0;
