// The run directory: one folder per machine, where guests find its devices. Whoever could write there could hand us
// files of their own, so it must be ours alone. A machine's folder is held by a file lock, which ends with the process
// however it ends.
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { registerCleanup } from './cleanup.js';
import { isAlive, lockFile } from './os/process.js';

const LOCK = 'lock';
const NAME = /^[A-Za-z0-9_.-]{1,64}$/;
/** How often to begin anew when another process has the folder for a moment, or removes it between our steps. */
const ATTEMPTS = 20;
const RETRY_MS = 5;

/** A machine's folder, empty at first, held until remove() or the process's end. */
export interface MachineDirectory {
  readonly name: string;
  readonly path: string;
  /** Removes the folder with everything in it and gives the name free. May be called again. */
  remove(): void;
}

/** A run directory or machine folder that cannot be used; the message says why. */
export class RunDirectoryError extends Error {
  override readonly name = 'RunDirectoryError';
}

/** Path of this user's run directory: $XDG_RUNTIME_DIR/netvsc, /run/netvsc for root, or /tmp/netvsc-<uid>. */
export function runDirectoryPath(environment: NodeJS.ProcessEnv = process.env): string {
  const runtime = environment.XDG_RUNTIME_DIR;
  if (runtime?.startsWith('/')) return `${runtime}/netvsc`;
  const uid = process.getuid!();
  return uid === 0 ? '/run/netvsc' : `/tmp/netvsc-${uid}`;
}

/** The same, and for root where its system services have theirs: a session may have an $XDG_RUNTIME_DIR, a service has none.
 *  (Anybody could make the one in /tmp, so others get no second one.) */
export function runDirectoryPaths(environment: NodeJS.ProcessEnv = process.env): string[] {
  const own = runDirectoryPath(environment);
  return process.getuid!() === 0 ? [...new Set([own, runDirectoryPath({})])] : [own];
}

/** Makes the run directory (0700), or checks that the one that is there is a real directory that only this user may
 *  enter. Returns its path. Throws RunDirectoryError. */
export function openRunDirectory(path = runDirectoryPath()): string {
  makeFolder(path);
  return path;
}

/** Makes and locks the folder of a machine; what a dead process left of that name is removed. Throws RunDirectoryError
 *  when the name is not valid or a live process holds it. */
export function createMachineDirectory(name: string, runDirectory = openRunDirectory()): MachineDirectory {
  const path = machinePath(name, runDirectory);
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    makeFolder(path);
    const lock = takeLock(path);
    if (lock === 'gone') continue;
    if (lock === 'held') {
      const pid = holder(path);
      if (pid && isAlive(pid)) throw new RunDirectoryError(`machine ${name}: in use by process ${pid} (${path})`);
      // Somebody who looks for stale folders has it for a moment, or a new holder has not written its number yet.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
      continue;
    }
    empty(path);
    ftruncateSync(lock);
    writeSync(lock, `${process.pid}\n`, 0);
    let held = true;
    const remove = () => {
      if (!held) return;
      held = false;
      unregister();
      removeLocked(path, lock);
    };
    const unregister = registerCleanup(remove);
    return { name, path, remove };
  }
  throw new RunDirectoryError(
    `machine ${name}: ${path} stays locked, or vanishes, without a live process that holds it`,
  );
}

/** Path of a machine's folder, by which others find it; nothing is checked but the name. Throws RunDirectoryError. */
export function machinePath(name: string, runDirectory = runDirectoryPath()): string {
  if (!NAME.test(name) || name === '.' || name === '..') {
    throw new RunDirectoryError(
      `machine name ${JSON.stringify(name)}: expected 1 to 64 letters, digits, "_", "." or "-", and not "." or ".."`,
    );
  }
  return `${runDirectory}/${name}`;
}

/** Path of a socket of the run directory, which is made if it is not there. Throws RunDirectoryError. */
export function socketPath(name: string): string {
  return machinePath(`${name}.ring`, openRunDirectory());
}

/** Names and holders of the machines of a run directory; a machine without a pid has no live process. */
export function listMachines(
  runDirectory = openRunDirectory(),
): { name: string; path: string; pid: number | undefined }[] {
  return folders(runDirectory).flatMap((name) => {
    const path = `${runDirectory}/${name}`;
    const lock = takeLock(path, false);
    if (lock === 'gone') return [];
    if (lock !== 'held') closeSync(lock);
    return [{ name, path, pid: lock === 'held' ? holder(path) : undefined }];
  });
}

/** Removes the folders that dead processes left behind; returns their names. */
export function removeStaleMachines(runDirectory = openRunDirectory()): string[] {
  const removed: string[] = [];
  for (const name of folders(runDirectory)) {
    const path = `${runDirectory}/${name}`;
    const lock = takeLock(path);
    if (lock === 'gone' || lock === 'held') continue;
    removeLocked(path, lock);
    removed.push(name);
  }
  return removed;
}

function folders(runDirectory: string): string[] {
  const entries = readdirSync(runDirectory, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory() && NAME.test(entry.name)).map((entry) => entry.name);
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST') throw new RunDirectoryError(message);
  }
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (!status) return; // removed by its last user; whoever opens something in it finds out
  const uid = process.getuid!();
  const mode = status.mode & 0o777;
  const wrong = status.isSymbolicLink()
    ? 'it is a symbolic link'
    : !status.isDirectory()
      ? 'it is no directory'
      : status.uid !== uid
        ? `it belongs to user ${status.uid}`
        : mode !== 0o700
          ? `its mode is 0${mode.toString(8)}`
          : undefined;
  if (wrong) throw new RunDirectoryError(`${path}: expected a directory of user ${uid} with mode 0700, but ${wrong}`);
}

/** Opens and locks a folder's lock file; it stays locked as long as the descriptor is open. */
function takeLock(path: string, create = true): number | 'held' | 'gone' {
  const flags = constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK | (create ? constants.O_CREAT : 0);
  let fd: number;
  try {
    fd = openSync(`${path}/${LOCK}`, flags, 0o600);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return 'gone';
    throw new RunDirectoryError(message);
  }
  let mine = false;
  try {
    if (!lockFile(fd)) return 'held';
    // Its former holder may have removed the file after we opened it: then this lock means nothing.
    const now = statSync(`${path}/${LOCK}`, { throwIfNoEntry: false });
    mine = now !== undefined && now.ino === fstatSync(fd).ino;
    return mine ? fd : 'gone';
  } finally {
    if (!mine) closeSync(fd);
  }
}

/** Process number that the lock's holder wrote. */
function holder(path: string): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(`${path}/${LOCK}`, 'latin1'), 10);
    return pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

function empty(path: string): void {
  for (const entry of readdirSync(path))
    if (entry !== LOCK) rmSync(`${path}/${entry}`, { recursive: true, force: true });
}

/** The lock file goes last but one, so that nobody else holds the folder while it is being emptied. */
function removeLocked(path: string, lock: number): void {
  try {
    empty(path);
    rmSync(`${path}/${LOCK}`, { force: true });
    rmdirSync(path);
  } catch (error) {
    // ENOTEMPTY: the next holder is in already.
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTEMPTY') throw error;
  } finally {
    closeSync(lock);
  }
}
