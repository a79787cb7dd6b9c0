// io_uring driven from TypeScript, for batches of reads and writes that never wait: everything submitted is complete when
// submit() returns. On a TAP that costs 60 % of a system call per packet (facts/performance.md 4). Linux 5.6 or later.
import { allocateOffHeap, declare, ERRNO, freeOffHeap, OsError, orError, viewOf } from './libc.js';
import { MAPPING, mmap, munmap, PROTECTION } from './mman.js';

// The numbers are the same on all architectures.
const SYS_SETUP = 425;
const SYS_ENTER = 426;
const SETUP = { SUBMIT_ALL: 1 << 7, COOP_TASKRUN: 1 << 8, SINGLE_ISSUER: 1 << 12, DEFER_TASKRUN: 1 << 13 } as const;
const FEATURE_SINGLE_MMAP = 1;
const OFFSET_RINGS = 0;
const OFFSET_SQES = 0x10000000;
const ENTER_GETEVENTS = 1;
const SQE_WORDS = 16;
const CQE_WORDS = 4;

// struct io_uring_params, in words.
const PARAMS_BYTES = 120;
const PARAMS = { entries: 0, completions: 1, flags: 2, features: 5, submission: 10, completion: 20 } as const;
const SUBMISSION = { tail: 1, mask: 2, array: 6 } as const;
const COMPLETION = { head: 0, tail: 1, mask: 2, cqes: 5 } as const;

/** WRITEV: address and number of struct iovec in place of address and bytes. */
export const URING_OP = { WRITEV: 2, READ: 22, WRITE: 23 } as const;
/** Read or write flag (preadv2(2)): -EAGAIN rather than waiting, and rather than completing out of order later. */
export const RWF_NOWAIT = 8;

const setupCall = declare('int64 syscall(int64 number, int64 entries, uint64 params)');
const enterCall = declare(
  'int64 syscall(int64 number, int64 fd, int64 submit, int64 wait, int64 flags, uint64 signals, uint64 bytes)',
);

/** A ring. Only the thread that made it may use it. */
export class Uring {
  /** Operations that one batch can hold. */
  readonly entries: number;
  /** Result of each operation of the last batch: bytes, or a negative error number. */
  readonly results: Int32Array;
  #fd: number;
  readonly #rings: { address: number; bytes: number };
  readonly #sqes: { address: number; bytes: number };
  #ring: Int32Array;
  #entry: Int32Array;
  readonly #sqTail: number;
  readonly #sqMask: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #cqMask: number;
  readonly #cqes: number;
  #tail = 0;

  /** Throws OsError where io_uring is missing or forbidden: ENOSYS, EPERM. */
  constructor(entries: number) {
    const memory = allocateOffHeap(PARAMS_BYTES);
    const params = new Int32Array(memory.buffer);
    try {
      this.#fd = setup(entries, params, memory.address);
      const [sq, cq] = [PARAMS.submission, PARAMS.completion];
      this.entries = params[PARAMS.entries]!;
      const completions = params[PARAMS.completions]!;
      const array = params[sq + SUBMISSION.array]! >> 2;
      const rings = Math.max(array * 4 + this.entries * 4, params[cq + COMPLETION.cqes]! + completions * CQE_WORDS * 4);
      try {
        this.#rings = mapRing(this.#fd, rings, OFFSET_RINGS);
        this.#sqes = mapRing(this.#fd, this.entries * SQE_WORDS * 4, OFFSET_SQES);
      } catch (error) {
        close(this.#fd);
        throw error;
      }
      this.#ring = new Int32Array(viewOf(this.#rings.address, this.#rings.bytes));
      this.#entry = new Int32Array(viewOf(this.#sqes.address, this.#sqes.bytes));
      this.#sqTail = params[sq + SUBMISSION.tail]! >> 2;
      this.#sqMask = this.#ring[params[sq + SUBMISSION.mask]! >> 2]!;
      this.#cqHead = params[cq + COMPLETION.head]! >> 2;
      this.#cqTail = params[cq + COMPLETION.tail]! >> 2;
      this.#cqMask = this.#ring[params[cq + COMPLETION.mask]! >> 2]!;
      this.#cqes = params[cq + COMPLETION.cqes]! >> 2;
      for (let i = 0; i < this.entries; i++) this.#ring[array + i] = i;
    } finally {
      freeOffHeap(memory);
    }
    this.results = new Int32Array(this.entries);
  }

  /** Writes operation `index` of the next batch. `address` is virtual; the bytes must stay until submit() has returned. */
  prepare(index: number, operation: number, fd: number, address: number, bytes: number, flags: number): void {
    const entry = this.#entry;
    const at = ((this.#tail + index) & this.#sqMask) * SQE_WORDS;
    entry[at] = operation;
    entry[at + 1] = fd;
    entry[at + 2] = 0; // file offset
    entry[at + 3] = 0;
    entry[at + 4] = address | 0;
    entry[at + 5] = (address / 4294967296) | 0;
    entry[at + 6] = bytes;
    entry[at + 7] = flags;
    entry[at + 8] = index; // user data
    entry[at + 9] = 0;
    entry[at + 10] = 0; // registered buffer, personality
    entry[at + 11] = 0;
  }

  /** Runs operations [0, count) in their order and waits for all of them. Throws OsError when the ring is unusable. */
  submit(count: number): void {
    const { results } = this;
    const ring = this.#ring;
    const mask = this.#cqMask;
    this.#tail = (this.#tail + count) | 0;
    Atomics.store(ring, this.#sqTail, this.#tail);
    let toSubmit = count;
    let waiting = count;
    while (waiting > 0) {
      const entered = orError(enterCall(SYS_ENTER, this.#fd, toSubmit, waiting, ENTER_GETEVENTS, 0, 0));
      if (entered >= 0) toSubmit -= entered;
      else if (entered !== -ERRNO.EINTR!) throw new OsError('io_uring_enter', -entered, `of ${toSubmit} operations`);
      let head = ring[this.#cqHead]!;
      const tail = Atomics.load(ring, this.#cqTail);
      for (; head !== tail; head = (head + 1) | 0) {
        const at = this.#cqes + (head & mask) * CQE_WORDS;
        results[ring[at]!] = ring[at + 2]!;
        waiting--;
      }
      Atomics.store(ring, this.#cqHead, head);
    }
  }

  close(): void {
    if (this.#fd < 0) return;
    this.#ring = new Int32Array(0);
    this.#entry = new Int32Array(0);
    munmap(this.#sqes.address, this.#sqes.bytes);
    munmap(this.#rings.address, this.#rings.bytes);
    close(this.#fd);
    this.#fd = -1;
  }
}

const close = declare('int close(int fd)');

/** Older kernels refuse the flags that spare interrupts to this thread; they work without. */
function setup(entries: number, params: Int32Array, address: number): number {
  const best = SETUP.SUBMIT_ALL | SETUP.COOP_TASKRUN | SETUP.SINGLE_ISSUER | SETUP.DEFER_TASKRUN;
  for (const flags of [best, 0]) {
    params.fill(0);
    params[PARAMS.flags] = flags;
    const fd = orError(setupCall(SYS_SETUP, entries, address));
    if (fd === -ERRNO.EINVAL! && flags !== 0) continue;
    if (fd < 0) throw new OsError('io_uring_setup', -fd, `of ${entries} entries`);
    if ((params[PARAMS.features]! & FEATURE_SINGLE_MMAP) !== 0) return fd;
    close(fd);
    break;
  }
  throw new OsError('io_uring_setup', ERRNO.ENOSYS!, 'with one mapping for both rings');
}

function mapRing(fd: number, bytes: number, offset: number): { address: number; bytes: number } {
  const flags = MAPPING.SHARED | MAPPING.POPULATE;
  return { address: mmap(0, bytes, PROTECTION.READ | PROTECTION.WRITE, flags, fd, offset), bytes };
}
