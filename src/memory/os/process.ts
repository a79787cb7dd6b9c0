// Threads and processes: affinity, liveness, locks that a dead process gives back.
import { check, declare, ERRNO, OsError, orError, scratch, scratchBytes, scratchView } from './libc.js';

const PR_SET_PDEATHSIG = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_UN = 8;
const CPUS_MAX = 1024;

const gettidCall = declare('int gettid()');
const prctl = declare('int prctl(int option, uint64 a, uint64 b, uint64 c, uint64 d)');
const flockCall = declare('int flock(int fd, int operation)');
const setaffinity = declare('int sched_setaffinity(int thread, uint64 bytes, uint64 mask)');
const schedSet = declare('int64 syscall(int64 number, int64 thread, uint64 attributes, int64 flags)');
const schedGet = declare('int64 syscall(int64 number, int64 thread, uint64 attributes, int64 bytes, int64 flags)');
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

/** sched_setattr(2), sched_getattr(2) by number: glibc has no functions for them. */
const SCHED_CALLS: Readonly<Record<string, readonly [set: number, get: number]>> = {
  x64: [314, 315],
  arm64: [274, 275],
};
const SCHED_OTHER = 0;
// struct sched_attr.
const SCHED_ATTR_BYTES = 48;
const SCHED_RUNTIME_AT = 24;

/** Asks the scheduler to give the calling thread its time in slices of `us` microseconds (100 to 100,000): one that sleeps most
 *  of the time then gets a CPU when it is woken, not when others have used up their slices. Takes no right and no more of the
 *  CPU. False: not on this architecture, or this thread has a policy of its own. Kernels before 6.12 take no notice. */
export function setTimeSlice(us: number): boolean {
  const [set, get] = SCHED_CALLS[process.arch] ?? [];
  if (set === undefined || get === undefined) return false;
  scratchBytes.fill(0, 0, SCHED_ATTR_BYTES);
  if (schedGet(get, 0, scratch.address, SCHED_ATTR_BYTES, 0) < 0) return false;
  if (scratchView.getUint32(4, true) !== SCHED_OTHER) return false;
  scratchView.setBigUint64(SCHED_RUNTIME_AT, BigInt(us) * 1000n, true);
  return schedSet(set, 0, scratch.address, 0) >= 0;
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
