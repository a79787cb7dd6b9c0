// For tests: the calling thread runs until it waits, whatever else is runnable on its CPU.
import { check, declare, scratch, scratchView } from './libc.js';

const SCHED_OTHER = 0;
const SCHED_FIFO = 1;

const setscheduler = declare('int sched_setscheduler(int thread, int policy, uint64 parameters)');

/** Runs `work`, which must be short, ahead of every ordinary thread. Throws OsError (EPERM). */
export function inRealtime<T>(work: () => T): T {
  scratchView.setInt32(0, 1, true);
  check(setscheduler(0, SCHED_FIFO, scratch.address), 'sched_setscheduler', 'SCHED_FIFO');
  try {
    return work();
  } finally {
    scratchView.setInt32(0, 0, true);
    check(setscheduler(0, SCHED_OTHER, scratch.address), 'sched_setscheduler', 'SCHED_OTHER');
  }
}
