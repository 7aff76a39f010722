/** The first image: a root file system made of the machine's own static busybox, as a tar archive to import. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';

const busyboxPath = '/bin/busybox';

interface Entry {
  readonly name: string;
  readonly mode: number;
  readonly data?: Buffer | string;
  readonly linkTo?: string;
}

/** The archive is the same bytes for the same busybox, so importing it twice gives the same layer. */
export function busyboxTar(): Buffer {
  const applets = execFileSync(busyboxPath, ['--list-full'], { encoding: 'utf8' }).trim().split('\n');
  const directories = ['bin', 'dev', 'etc', 'home', 'proc', 'root', 'sbin', 'sys', 'tmp', 'usr', 'usr/bin', 'usr/sbin'];
  const entries: Entry[] = [
    ...[...directories, 'var', 'var/spool', 'var/www'].map((name) => ({
      name: `${name}/`,
      mode: name === 'tmp' ? 0o1777 : name === 'root' ? 0o700 : 0o755,
    })),
    { name: 'bin/busybox', mode: 0o755, data: fs.readFileSync(busyboxPath) },
    ...applets
      .filter((name) => name !== 'bin/busybox' && /^(usr\/)?s?bin\//.test(name))
      .map((name) => ({ name, mode: 0o777, linkTo: busyboxPath })),
    {
      name: 'etc/passwd',
      mode: 0o644,
      data: [
        'root:x:0:0:root:/root:/bin/sh',
        'daemon:x:1:1:daemon:/usr/sbin:/bin/false',
        'www-data:x:33:33:www-data:/var/www:/bin/false',
        'nobody:x:65534:65534:nobody:/home:/bin/false',
        '',
      ].join('\n'),
    },
    {
      name: 'etc/group',
      mode: 0o644,
      data: ['root:x:0:', 'daemon:x:1:', 'tty:x:5:', 'www-data:x:33:', 'users:x:100:', 'nogroup:x:65534:', ''].join(
        '\n',
      ),
    },
  ];
  return Buffer.concat([...entries.flatMap(tarEntry), Buffer.alloc(1024)]);
}

/** One ustar entry; a name that ends in a slash is a directory. */
function tarEntry(entry: Entry): Buffer[] {
  const data = Buffer.from(entry.data ?? '');
  const header = Buffer.alloc(512);
  const octal = (value: number, offset: number, width: number) =>
    header.write(`${value.toString(8).padStart(width - 1, '0')}\0`, offset, 'latin1');
  header.write(entry.name, 0, 100, 'latin1');
  octal(entry.mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(data.length, 124, 12);
  octal(0, 136, 12);
  header.write('        ', 148, 'latin1');
  header.write(entry.linkTo !== undefined ? '2' : entry.name.endsWith('/') ? '5' : '0', 156, 'latin1');
  header.write(entry.linkTo ?? '', 157, 100, 'latin1');
  header.write('ustar\x0000root', 257, 'latin1');
  header.write('root', 297, 'latin1');
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return [header, data, Buffer.alloc((512 - (data.length % 512)) % 512)];
}
