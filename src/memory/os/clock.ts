// Clocks without allocation: performance.now() makes a number object for each call.
import { check, declare, scratch, scratchView } from './libc.js';

const clockCall = declare('int clock_gettime(int clock, uint64 time)');
const CLOCK_REALTIME = 0;
const CLOCK_MONOTONIC = 1;

/** Puts milliseconds of a clock that all threads share into `into[0]`. */
export function readMonotonicMs(into: Float64Array): void {
  check(clockCall(CLOCK_MONOTONIC, scratch.address), 'clock_gettime', 'of CLOCK_MONOTONIC');
  const seconds = scratchView.getUint32(0, true) + scratchView.getInt32(4, true) * 2 ** 32; // struct timespec
  into[0] = seconds * 1000 + scratchView.getUint32(8, true) / 1e6;
}

export class WallClock {
  /** Since 1970, as of the last read(). */
  seconds = 0;
  nanoseconds = 0;

  read(): void {
    check(clockCall(CLOCK_REALTIME, scratch.address), 'clock_gettime', 'of CLOCK_REALTIME');
    this.seconds = scratchView.getUint32(0, true) + scratchView.getInt32(4, true) * 2 ** 32; // struct timespec
    this.nanoseconds = scratchView.getUint32(8, true);
  }
}
