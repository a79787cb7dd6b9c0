// Files in memory that processes of one user share: sealed, so that a peer that truncates one cannot kill us (SIGBUS).
import { closeSync, constants, fchmodSync, fstatSync, ftruncateSync, openSync, symlinkSync } from 'node:fs';
import { check, declare } from './libc.js';

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;

/** Seals of a memfd, fcntl(2). */
export const SEAL = { SEAL: 1, SHRINK: 2, GROW: 4, WRITE: 8, FUTURE_WRITE: 16 } as const;

const memfdCreate = declare('int memfd_create(const char *name, uint flags)');
const fcntl = declare('int fcntl(int fd, int command, int64 argument)');

/** Seals of a file; 0 for files that cannot have any. */
export const fileSeals = (fd: number): number => Math.max(0, fcntl(fd, F_GET_SEALS, 0));

/** Adds seals to a memfd. Throws OsError. */
export function addSeals(fd: number, seals: number): void {
  check(fcntl(fd, F_ADD_SEALS, seals), 'fcntl(F_ADD_SEALS)', `of descriptor ${fd}`);
}

/**
 * A zeroed memfd of a size that nobody can change any more, mode 0600. Its seals are final, unless `open` asks for more to
 * come (lockWriters). Throws OsError.
 */
export function createSealedMemory(
  name: string,
  bytes: number,
  seals: 'final' | 'open' = 'final',
): { fd: number; bytes: number } {
  if (!(Number.isSafeInteger(bytes) && bytes > 0)) {
    throw new RangeError(`shared memory ${name}: expected a size of at least 1 byte, got ${bytes}`);
  }
  const fd = check(memfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), 'memfd_create', name);
  try {
    ftruncateSync(fd, bytes);
    fchmodSync(fd, 0o600);
    addSeals(fd, SEAL.SHRINK | SEAL.GROW | (seals === 'final' ? SEAL.SEAL : 0));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return { fd, bytes };
}

/** After this only maps that exist already can write to the memory; others may still read it. Final. Throws OsError
 *  (EINVAL before Linux 5.1). */
export function lockWriters(fd: number): void {
  addSeals(fd, SEAL.FUTURE_WRITE | SEAL.SEAL);
}

/** Makes `path` a symlink by which processes of the same user open the memory, while this process holds `fd`. */
export function linkSealedMemory(path: string, fd: number): void {
  symlinkSync(`/proc/${process.pid}/fd/${fd}`, path);
}

/** Opens shared memory by path, after checking that it cannot shrink and holds at least `expectedBytes`. Returns the
 *  descriptor, which the caller closes. Throws a file system error (ENOENT: its owner is gone) or an Error that says what is wrong. */
export function openShared(path: string, expectedBytes: number): number {
  // Non-blocking: the path may be a FIFO by now.
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) throw new Error(`${path}: expected a file in memory, found something else`);
    if ((fileSeals(fd) & SEAL.SHRINK) === 0)
      throw new Error(`${path}: expected a file sealed against shrinking, it is not`);
    if (status.size < expectedBytes) {
      throw new Error(`${path}: expected at least ${expectedBytes} bytes, it has ${status.size}`);
    }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
