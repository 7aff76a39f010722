/** The runtime's complaints in the words dockerd passes on, and the exit codes that go with them. */
import { EngineError, type ErrorKind } from '../lib/errors.ts';

/** A container or exec whose process could not be started. `exitCode` is what its record shows. */
export class StartFailed extends EngineError {
  readonly exitCode: number;
  constructor(kind: ErrorKind, message: string, exitCode: number) {
    super(kind, message);
    this.name = 'StartFailed';
    this.exitCode = exitCode;
  }
}

/** 127 not found, 126 cannot be run; both are the client's mistake. Anything else is ours. */
interface Reading {
  readonly detail: string;
  readonly exitCode: number | null;
}

/** Runtimes print C's or Go's texts of errno; dockerd's clients know Go's. */
const lowered: readonly string[] = [
  'No such file or directory',
  'Permission denied',
  'Not a directory',
  'Is a directory',
  'Operation not permitted',
  'Invalid argument',
  'Exec format error',
  'File name too long',
];

/** Takes the last complaint out of what crun or runc printed: plain lines, or a log of JSON lines. */
function lastComplaint(output: string): string {
  const lines = output.split('\n').map((line) => line.trim());
  const messages = lines.filter(Boolean).map((line) => {
    if (!line.startsWith('{')) return line;
    try {
      const entry = JSON.parse(line) as { msg?: unknown };
      return typeof entry.msg === 'string' ? entry.msg : line;
    } catch {
      return line;
    }
  });
  let text = messages.at(-1) ?? '';
  const logged = /msg="((?:[^"\\]|\\.)*)"/.exec(text);
  if (logged?.[1] !== undefined) text = logged[1].replaceAll('\\"', '"');
  return text.replace(/^\S*(crun|runc)\S*: /, '').replace(/^\d{4}-\S+Z?:? /, '');
}

function read(output: string, command: string): Reading {
  let detail = lastComplaint(output);
  for (const text of lowered) detail = detail.replaceAll(text, text.toLowerCase());
  detail = detail.replace(/^(runc create failed: |exec failed: )?(unable to start container process: )?/, '');
  const about = (reason: string): string =>
    `unable to start container process: exec: ${JSON.stringify(command)}: ${reason}`;
  if (/executable file (.* )?not found in \$PATH/s.test(detail) || /^` not found in \$PATH/.test(detail)) {
    return command.includes('/')
      ? { detail: about(`stat ${command}: no such file or directory`), exitCode: 127 }
      : { detail: about('executable file not found in $PATH'), exitCode: 127 };
  }
  const directory = /^chdir `?([^`]*?)`?: (?:no such file or directory|file name too long)$/.exec(detail)?.[1];
  if (directory !== undefined) {
    const reason = `chdir to cwd (${JSON.stringify(directory)}) set in config.json failed: no such file or directory`;
    return { detail: `unable to start container process: ${reason}`, exitCode: 126 };
  }
  if (command === '' && /permission denied|not permitted|no such file/.test(detail))
    return { detail: about('executable file not found in $PATH'), exitCode: 127 };
  if (/^exec: /.test(detail)) detail = `unable to start container process: ${detail}`;
  else if (
    /^(open executable|the path .* exists but it is not executable|exec)/i.test(detail) &&
    // The second is what crun says of a directory.
    /permission denied|^open executable: operation not permitted/i.test(detail)
  ) {
    detail = about('permission denied');
  }
  if (detail.includes('permission denied')) return { detail, exitCode: 126 };
  if (detail.includes('not a directory')) {
    const hint =
      'Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type';
    return { detail: `${detail}: ${hint}`, exitCode: 127 };
  }
  if (/^(open executable|exec).*: file name too long/.test(detail))
    return { detail: about('file name too long'), exitCode: 126 };
  if (command !== '' && detail.includes(command) && detail.includes('no such file or directory')) {
    return { detail, exitCode: 127 };
  }
  return { detail: detail || 'the runtime failed without a word', exitCode: null };
}

/** Why `create` failed. Other causes than a command that cannot be run end with dockerd's 128. */
export function createFailure(output: string, command: string): StartFailed {
  const { detail, exitCode } = read(output, command);
  const message = `failed to create shim task: OCI runtime create failed: ${detail}: unknown`;
  // A kernel parameter that is not there, or a value it does not take.
  const isSysctl = /(^|: )(open|write|write to) \/proc\/sys\//.test(detail);
  // A limit that the kernel does not take: too large for it, or of a device that is no disk.
  const isLimit = /^(writing file|write) .*: (invalid argument|numerical result out of range|no such device)$/i.test(
    detail,
  );
  const isOurs = exitCode === null && !isSysctl && !isLimit;
  return new StartFailed(isOurs ? 'internal' : 'invalid', message, exitCode ?? 128);
}

/** Why `exec` failed; 126 unless the command was not found. */
export function execFailure(output: string, command: string): StartFailed {
  const { detail, exitCode } = read(output, command);
  const message = `OCI runtime exec failed: exec failed: ${detail}: unknown`;
  return new StartFailed(exitCode === null ? 'internal' : 'invalid', message, exitCode ?? 126);
}
