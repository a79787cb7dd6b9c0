// poll(2) over a set of descriptors that changes rarely. The array is off the heap, where the garbage collector neither
// moves nor frees it (facts/performance.md 6, pitfall 2). Blocks the thread: for workers.
import {
  allocateOffHeap,
  declare,
  ERRNO,
  freeOffHeap,
  type OffHeap,
  OsError,
  orError,
  scratch,
  scratchView,
} from './libc.js';

/** Event bits. ERR and HUP are always reported. */
export const POLL = { IN: 1, PRI: 2, OUT: 4, ERR: 8, HUP: 16, INVALID: 32 } as const;

const ENTRY = 8; // struct pollfd: i32 fd, i16 events, i16 revents
const pollCall = declare('int ppoll(uint64 fds, uint64 count, uint64 time, uint64 mask)');

/** Whether a descriptor has something to read, or a connection to accept. */
export function isReadable(fd: number): boolean {
  scratchView.setBigInt64(0, 0n, true); // struct timespec
  scratchView.setBigInt64(8, 0n, true);
  scratchView.setInt32(16, fd, true); // struct pollfd
  scratchView.setInt32(20, POLL.IN, true);
  return pollCall(scratch.address + 16, 1, scratch.address, 0) > 0 && (scratchView.getInt16(22, true) & POLL.IN) !== 0;
}

export class PollSet {
  #memory: OffHeap;
  #words: Int32Array;
  #halves: Int16Array;
  #capacity: number;
  #count = 0;

  constructor(capacity = 16) {
    this.#capacity = Math.max(capacity, 1);
    this.#memory = allocateOffHeap(this.#capacity * ENTRY);
    this.#words = new Int32Array(this.#memory.buffer);
    this.#halves = new Int16Array(this.#memory.buffer);
  }

  /** Descriptors in the set. */
  get size(): number {
    return this.#count;
  }

  /** Adds a descriptor, or changes what it waits for. */
  add(fd: number, events: number = POLL.IN): void {
    if (!(Number.isInteger(fd) && fd >= 0)) throw new RangeError(`poll set: expected a descriptor, got ${fd}`);
    let at = this.#find(fd);
    if (at < 0) {
      if (this.#count === this.#capacity) this.#grow();
      at = this.#count++;
      this.#words[at * 2] = fd;
    }
    this.#halves[at * 4 + 2] = events;
    this.#halves[at * 4 + 3] = 0;
  }

  /** Takes a descriptor out; false when it was not in the set. Do so before it is closed. */
  remove(fd: number): boolean {
    const at = this.#find(fd);
    if (at < 0) return false;
    const last = --this.#count;
    this.#words[at * 2] = this.#words[last * 2]!;
    this.#words[at * 2 + 1] = this.#words[last * 2 + 1]!;
    return true;
  }

  clear(): void {
    this.#count = 0;
  }

  /** Waits until a descriptor is ready or the time is over (fractions count; -1: for ever). Returns how many are ready; a
   *  signal gives 0. Throws OsError. */
  wait(timeoutMs: number): number {
    const seconds = Math.floor(timeoutMs / 1000);
    scratchView.setInt32(0, seconds, true); // struct timespec
    scratchView.setInt32(4, 0, true);
    scratchView.setInt32(8, Math.round((timeoutMs - seconds * 1000) * 1e6), true);
    scratchView.setInt32(12, 0, true);
    const ready = orError(pollCall(this.#memory.address, this.#count, timeoutMs < 0 ? 0 : scratch.address, 0));
    if (ready >= 0) return ready;
    for (let i = 0; i < this.#count; i++) this.#halves[i * 4 + 3] = 0;
    if (ready === -ERRNO.EINTR!) return 0;
    throw new OsError('poll', -ready, `of ${this.#count} descriptors`);
  }

  /** What the last wait() found for a descriptor: POLL bits, 0 when nothing or when it is not in the set. */
  revents(fd: number): number {
    const at = this.#find(fd);
    return at < 0 ? 0 : this.#halves[at * 4 + 3]!;
  }

  /** Frees the array; the set is of no use afterwards. */
  close(): void {
    if (this.#capacity === 0) return;
    this.#count = 0;
    this.#capacity = 0;
    this.#words = new Int32Array(0);
    this.#halves = new Int16Array(0);
    freeOffHeap(this.#memory);
  }

  #find(fd: number): number {
    const words = this.#words;
    for (let i = 0; i < this.#count; i++) if (words[i * 2] === fd) return i;
    return -1;
  }

  #grow(): void {
    if (this.#capacity === 0) throw new Error('poll set: it is closed');
    const old = this.#memory;
    const words = this.#words;
    this.#capacity *= 2;
    this.#memory = allocateOffHeap(this.#capacity * ENTRY);
    this.#words = new Int32Array(this.#memory.buffer);
    this.#halves = new Int16Array(this.#memory.buffer);
    this.#words.set(words);
    freeOffHeap(old);
  }
}
