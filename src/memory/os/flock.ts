// Advisory locks of whole files, flock(2): they end with the process that holds them.
import { check, declare, ERRNO, orError } from './libc.js';

const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_UN = 8;

const flock = declare('int flock(int fd, int operation)');

/** Locks the open file `fd` exclusively, until unlockFile() or the last descriptor of this opening is closed. False when
 *  another opening of the same file, here or elsewhere, holds the lock. Throws OsError. */
export function lockFile(fd: number): boolean {
  const result = orError(flock(fd, LOCK_EX | LOCK_NB));
  if (result === -ERRNO.EAGAIN!) return false;
  // Once more, for the error that check() reads.
  if (result < 0) check(flock(fd, LOCK_EX | LOCK_NB), 'flock', `of descriptor ${fd}`);
  return true;
}

/** Gives the lock back. Throws OsError. */
export function unlockFile(fd: number): void {
  check(flock(fd, LOCK_UN), 'flock(LOCK_UN)', `of descriptor ${fd}`);
}
