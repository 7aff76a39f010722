/** A volume driver: directories below its state, which is all it remembers; a mount is a directory `mounts/<id>`. */
import fs from 'node:fs';
import path from 'node:path';
import { serve } from './plugin-server.ts';

const state = process.argv[2] ?? '';
const at = (...names: unknown[]): string => path.join(state, ...names.map(String));
const known = (name: unknown): string => {
  const directory = at('volumes', name);
  if (!fs.existsSync(directory)) throw new Error(`no volume ${name} here`);
  return directory;
};
const volume = (name: unknown) => ({
  Name: name,
  Mountpoint: known(name),
  Status: {
    Options: fs.existsSync(at(`${name}.opts`)) ? JSON.parse(fs.readFileSync(at(`${name}.opts`), 'utf8')) : null,
  },
});

serve(['VolumeDriver'], {
  'VolumeDriver.Create': ({ Name, Opts }) => {
    fs.mkdirSync(at('volumes', Name), { recursive: true });
    fs.writeFileSync(at(`${Name}.opts`), JSON.stringify(Opts));
    return { Err: '' };
  },
  'VolumeDriver.Remove': ({ Name }) => {
    fs.rmSync(known(Name), { recursive: true });
    return { Err: '' };
  },
  'VolumeDriver.Mount': ({ Name, ID }) => {
    const Mountpoint = known(Name);
    fs.mkdirSync(at('mounts', ID), { recursive: true });
    return { Mountpoint, Err: '' };
  },
  'VolumeDriver.Unmount': ({ ID }) => {
    fs.rmdirSync(at('mounts', ID));
    return { Err: '' };
  },
  'VolumeDriver.Path': ({ Name }) => ({ Mountpoint: known(Name) }),
  'VolumeDriver.Get': ({ Name }) => ({ Volume: volume(Name) }),
  'VolumeDriver.List': () => ({
    Volumes: fs.existsSync(at('volumes')) ? fs.readdirSync(at('volumes')).map(volume) : [],
  }),
  'VolumeDriver.Capabilities': () => ({ Capabilities: { Scope: 'global' } }),
});
