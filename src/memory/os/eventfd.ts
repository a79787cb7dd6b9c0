// eventfd(2): wakes a thread or process that sleeps in poll(2).
import { closeSync } from 'node:fs';
import { check, declare, readTo, scratch, scratchView, writeFrom } from './libc.js';

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const eventfd = declare('int eventfd(uint initial, int flags)');

/** EventFd.signal and drain by number, for who does not own the descriptor. */
export function signalEvent(fd: number): number {
  scratchView.setUint32(0, 1, true);
  scratchView.setUint32(4, 0, true);
  return Math.min(writeFrom(fd, scratch.address, 8), 0);
}

export const drainEvent = (fd: number): number =>
  readTo(fd, scratch.address, 8) === 8 ? scratchView.getUint32(0, true) : 0;

/** A non-blocking event descriptor. Threads share it by number. */
export class EventFd {
  readonly fd: number;

  /** A new one, or one that another thread made and closes. Throws OsError. */
  constructor(fd?: number) {
    this.fd = fd ?? check(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd', 'of 0');
  }

  /** Makes it readable: 0, or a negative error number (-EAGAIN: it is readable already). Costs the caller about 8 us when
   *  somebody sleeps on it (facts/performance.md 5). */
  signal(): number {
    return signalEvent(this.fd);
  }

  /** Makes it unreadable again; how often it was signalled since, 0 when it was not. */
  drain(): number {
    return drainEvent(this.fd);
  }

  close(): void {
    closeSync(this.fd);
  }
}
