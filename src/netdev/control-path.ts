// Where the control socket of an interface is: in the run directory, which only its user may enter, under the names of
// interface and network namespace. Both may change while it runs, so the name says only where to look first.
import { closeSync, fstatSync, readdirSync } from 'node:fs';
import { isInterfaceName } from '../memory/os/netlink.js';
import { openNetwork } from '../memory/os/netns.js';
import { RunDirectoryError, runDirectoryPath, runDirectoryPaths } from '../memory/rundir.js';
import { NetdevError } from './control.js';

const FILE = /^netdev-\d{1,20}-[^/]{1,15}$/;
/** sun_path less its NUL; beyond it libuv cuts. */
const PATH_MAX_BYTES = 107;

/** Path of a network namespace as `ip netns` names them (/run/netns/NAME), or a path (/proc/PID/ns/net) itself. */
export const networkPath = (namespace: string): string =>
  namespace.includes('/') ? namespace : `/run/netns/${namespace}`;

/** Number of a network namespace, the same for everybody who means the same one: of the calling thread, of a process, of
 *  a path. Throws a system error. */
export function networkOf(network: 'this thread' | number | string): string {
  const fd = openNetwork(network);
  try {
    return networkNumber(fd);
  } finally {
    closeSync(fd);
  }
}

/** The same for a descriptor of a namespace. */
export const networkNumber = (fd: number): string => `${fstatSync(fd).ino}`;

/** Path of the control socket of a new interface. Throws NetdevError (EINVAL) or RunDirectoryError. */
export function controlPath(name: string, network: string, runDirectory = runDirectoryPath()): string {
  if (!isInterfaceName(name))
    throw new NetdevError(
      'EINVAL',
      'interface',
      `name ${JSON.stringify(name)}: expected 1 to 15 bytes without "/", ":" and blanks`,
    );
  const path = `${runDirectory}/netdev-${network}-${name}`;
  if (Buffer.byteLength(path) > PATH_MAX_BYTES)
    throw new RunDirectoryError(`${path}: expected a path of at most ${PATH_MAX_BYTES} bytes for a socket`);
  return path;
}

/** Paths of all control sockets, those whose process is gone included. */
export function controlPaths(runDirectory?: string): string[] {
  const directories = runDirectory === undefined ? runDirectoryPaths() : [runDirectory];
  return directories.flatMap((directory, i) => {
    try {
      const names = readdirSync(directory).filter((name) => FILE.test(name));
      return names.sort().map((name) => `${directory}/${name}`);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Root of a user namespace may not enter the other one.
      if (code === 'ENOENT' || (i > 0 && code === 'EACCES')) return [];
      throw error;
    }
  });
}
