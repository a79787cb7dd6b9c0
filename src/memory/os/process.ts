// Threads and processes: affinity, liveness, locks that a dead process gives back.
import { check, declare, ERRNO, OsError, orError, scratch, scratchBytes } from './libc.js';

const PR_SET_PDEATHSIG = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_UN = 8;
const CPUS_MAX = 1024;

const gettidCall = declare('int gettid()');
const prctl = declare('int prctl(int option, uint64 a, uint64 b, uint64 c, uint64 d)');
const flockCall = declare('int flock(int fd, int operation)');
const setaffinity = declare('int sched_setaffinity(int thread, uint64 bytes, uint64 mask)');
const getaffinity = declare('int sched_getaffinity(int thread, uint64 bytes, uint64 mask)');

/** Kernel id of the calling thread. */
export const threadId = (): number => gettidCall();

/** Lets a thread, the calling one by default, run on these CPUs only. Throws RangeError or OsError (EINVAL: none of them is there). */
export function setAffinity(cpus: readonly number[], thread = 0): void {
  const mask = scratchBytes.subarray(0, CPUS_MAX / 8);
  mask.fill(0);
  for (const cpu of cpus) {
    if (!(Number.isInteger(cpu) && cpu >= 0 && cpu < CPUS_MAX)) {
      throw new RangeError(`affinity: expected CPU numbers below ${CPUS_MAX}, got ${cpu}`);
    }
    mask[cpu >> 3]! |= 1 << (cpu & 7);
  }
  check(setaffinity(thread, mask.length, scratch.address), 'sched_setaffinity', `to CPUs ${cpus.join(',')}`);
}

/** CPUs that the calling thread may run on. */
export function affinity(): number[] {
  const mask = scratchBytes.subarray(0, CPUS_MAX / 8);
  mask.fill(0);
  check(getaffinity(0, mask.length, scratch.address), 'sched_getaffinity', 'of this thread');
  const cpus: number[] = [];
  for (let cpu = 0; cpu < CPUS_MAX; cpu++) if ((mask[cpu >> 3]! >> (cpu & 7)) & 1) cpus.push(cpu);
  return cpus;
}

/** True while a process of that number runs, whoever it belongs to. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Has the kernel send `signal` (number) to this process when the thread that started it ends; 0 = none. */
export function setParentDeathSignal(signal: number): void {
  check(prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), 'prctl(PR_SET_PDEATHSIG)', `to ${signal}`);
}

/** Takes the exclusive lock of an open file (flock(2)) without waiting: false when another has it. Held until unlockFile()
 *  or until every copy of the descriptor is closed, at the latest at the process's death. Throws OsError. */
export function lockFile(fd: number): boolean {
  const result = orError(flockCall(fd, LOCK_EX | LOCK_NB));
  if (result >= 0) return true;
  if (result === -ERRNO.EWOULDBLOCK!) return false;
  throw new OsError('flock', -result, `of descriptor ${fd}`);
}

/** Gives the lock back. */
export function unlockFile(fd: number): void {
  check(flockCall(fd, LOCK_UN), 'flock(LOCK_UN)', `of descriptor ${fd}`);
}
