// Where the demo can run: as root, in a user namespace, or, when neither works, only by replaying a capture.
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { constants as osConstants, tmpdir } from 'node:os';
import path from 'node:path';
import { createNetwork, inNetwork } from '../../memory/os/netns.js';
import { openTap } from '../../memory/os/tap.js';

/** Set in processes that were started again in a user namespace. */
const INSIDE = 'NETVSC_USER_NAMESPACE';
/** Where distributions keep `ip`, although an ordinary user's PATH may lack it. */
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin', '/usr/local/sbin'];
const UNSHARE = ['--user', '--map-root-user', '--net'];

export type Environment =
  /** This process may make namespaces and interfaces. */
  | { readonly mode: 'namespaces'; readonly rootless: boolean }
  /** It may in a user namespace: startInUserNamespace(). */
  | { readonly mode: 'user namespace' }
  /** It may not; `missing` says why in one line. */
  | { readonly mode: 'replay'; readonly missing: string };

/** What is the case here: tried, not guessed. */
export function detectEnvironment(environment: NodeJS.ProcessEnv = process.env): Environment {
  environment.PATH = searchPath(environment.PATH);
  const missing = missingParts(environment.PATH);
  if (missing) return { mode: 'replay', missing };
  const inside = environment[INSIDE] !== undefined;
  const refused = tryHere();
  if (refused === undefined) return { mode: 'namespaces', rootless: inside };
  if (inside) return { mode: 'replay', missing: `in a user namespace: ${refused}` };
  if (!find('unshare', environment.PATH)) {
    return { mode: 'replay', missing: `${refused}, and there is no 'unshare' (util-linux) for user namespaces` };
  }
  const tried = spawnSync('unshare', [...UNSHARE, 'true'], { encoding: 'utf8' });
  if (tried.status === 0) return { mode: 'user namespace' };
  const reason = tried.stderr?.trim().split('\n')[0] || tried.error?.message || `exit code ${tried.status}`;
  return { mode: 'replay', missing: `${refused}, and user namespaces are not available: ${reason}` };
}

/** Why interfaces in namespaces cannot be made by this very process, or undefined. */
export function environmentObstacle(): string | undefined {
  const environment = detectEnvironment();
  if (environment.mode === 'namespaces') return undefined;
  return environment.mode === 'replay' ? environment.missing : 'not root';
}

/** `path` with the folders of system programs behind it. */
export function searchPath(path = ''): string {
  const folders = path.split(':').filter((folder) => folder !== '');
  return [...folders, ...SYSTEM_FOLDERS.filter((folder) => !folders.includes(folder))].join(':');
}

function find(program: string, searched: string): string | undefined {
  for (const folder of searched.split(':')) {
    const file = path.join(folder, program);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // not here
    }
  }
  return undefined;
}

function missingParts(searched: string): string | undefined {
  if (process.platform !== 'linux') return `this is ${process.platform}, and TAP interfaces are Linux's`;
  const ip = find('ip', searched);
  if (!ip) return "there is no 'ip' program (package iproute2)";
  if (!/iproute2/.test(spawnSync(ip, ['-V'], { encoding: 'utf8' }).stdout ?? '')) return `${ip} is not iproute2's`;
  try {
    closeSync(openSync('/dev/net/tun', constants.O_RDWR));
  } catch (error) {
    return `/dev/net/tun cannot be opened (${(error as NodeJS.ErrnoException).code})`;
  }
  return undefined;
}

/** Makes a namespace and a TAP in it. Returns what failed, or undefined. */
function tryHere(): string | undefined {
  let network: number;
  try {
    network = createNetwork();
  } catch (error) {
    return (error as Error).message;
  }
  try {
    closeSync(inNetwork(`/proc/self/fd/${network}`, () => openTap('')).fd);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    closeSync(network);
  }
}

/** Runs this same command line in a user namespace, with this process's input and output. Resolves to its exit code. */
export function startInUserNamespace(argv: readonly string[] = process.argv.slice(1)): Promise<number> {
  const { folder, remove } = runtimeFolder();
  const child = spawn('unshare', [...UNSHARE, process.execPath, ...process.execArgv, ...argv], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: '1', XDG_RUNTIME_DIR: folder },
  });
  // The child ends in its own order; this process only waits. Ctrl-C may reach the child twice: interrupt.ts knows.
  const pass = (signal: NodeJS.Signals) => child.kill(signal);
  process.on('SIGINT', pass).on('SIGTERM', pass).on('SIGHUP', pass);
  return new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(code ?? 128 + osConstants.signals[signal!]));
  }).finally(() => {
    process.off('SIGINT', pass).off('SIGTERM', pass).off('SIGHUP', pass);
    remove();
  });
}

/** The user's runtime folder: in the user namespace the user seems to be root, whose folder is closed to them. */
function runtimeFolder(): { folder: string; remove: () => void } {
  const given = process.env.XDG_RUNTIME_DIR;
  try {
    accessSync(given ?? '', constants.W_OK);
    return { folder: given!, remove: () => {} };
  } catch {
    const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-'));
    return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
  }
}
