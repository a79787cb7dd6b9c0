// Packets of a TAP queue in batches, straight from and to arena memory. Reads and writes keep their order: several reads
// that wait at once would complete out of order, so none ever waits (facts/performance.md 6, pitfall 8).
import type { Arena } from '../arena.js';
import { ERRNO, PacketCalls } from './libc.js';
import { RWF_NOWAIT, URING_OP, Uring } from './uring.js';

const EAGAIN = ERRNO.EAGAIN!;
const EIO = ERRNO.EIO!;
const EBADFD = ERRNO.EBADFD!;
const EINTR = ERRNO.EINTR!;
const EOPNOTSUPP = ERRNO.EOPNOTSUPP!;

export type TapMode = 'uring' | 'readwrite';

/** What a Uring does: runs prepared operations in order, all complete when submit() returns. */
export type PacketRing = Pick<Uring, 'entries' | 'results' | 'prepare' | 'submit'>;

export interface TapIoOptions {
  /** Packets in one system call, at most 1024 (default 32). */
  readonly batch?: number;
  /** How; 'auto' (default) takes io_uring where it works. */
  readonly mode?: 'auto' | TapMode;
  /** A ring of this thread to use instead of an own one, with at least `batch` entries. Stays the caller's. */
  readonly ring?: PacketRing;
  /** What finds the interface down or gone is not taken, as if the queue were full; else (default) it counts as refused. */
  readonly keepWhenDown?: boolean;
}

/** Most reads of a first try, however many packets the last one brought. */
const FIRST_MAX = 16;
/** One per thread: a call is over when it returns. */
const packetCalls = new PacketCalls();

/** Used by the thread that made it. The descriptor stays the caller's. */
export class TapIo {
  /** Bytes of each packet of the last read(), header included. As long as the capacity: the packet may be cut off. */
  readonly lengths: Int32Array;
  /** Packets that the kernel refused. */
  writeErrors = 0;
  /** Packets read but dropped, because they came behind a gap and did not fit the gap's buffer. */
  readErrors = 0;
  /** Last error number of the kernel other than EAGAIN: EIO = the interface is down, EBADFD = it is gone. */
  lastError = 0;
  readonly #arena: Arena;
  readonly #base: number;
  readonly #fd: number;
  readonly #batch: number;
  readonly #keepWhenDown: boolean;
  /** Stands for: every packet is one piece. */
  readonly #single = new Int32Array(0);
  #uring: PacketRing | undefined;
  #own: Uring | undefined;
  /** Reads to try first: about what the last time brought, for one too many costs half as much as a packet. */
  #expected = 1;

  /** Throws OsError when the mode is 'uring' and io_uring cannot be had; ArenaError when the arena has no system. */
  constructor(arena: Arena, fd: number, options: TapIoOptions = {}) {
    const { batch = 32, mode = 'auto' } = options;
    if (!(Number.isInteger(batch) && batch >= 1 && batch <= 1024)) {
      throw new RangeError(`TAP batch: expected 1 to 1024 packets, got ${batch}`);
    }
    this.#arena = arena;
    this.#base = Number(arena.baseAddress());
    this.#fd = fd;
    this.#batch = batch;
    this.#keepWhenDown = options.keepWhenDown === true;
    this.lengths = new Int32Array(batch);
    if (options.ring && options.ring.entries < batch) {
      throw new RangeError(`TAP batch of ${batch} packets: the ring has only ${options.ring.entries} entries`);
    }
    this.#uring = options.ring;
    if (mode === 'readwrite' || options.ring) return;
    try {
      this.#own = new Uring(batch);
      this.#uring = this.#own;
    } catch (error) {
      if (mode === 'uring') throw error;
    }
  }

  /** How packets are moved at present: 'auto' may have fallen back. */
  get mode(): TapMode {
    return this.#uring ? 'uring' : 'readwrite';
  }

  /** Reads up to `max` packets (and no more than the batch): packet i goes to arena address addresses[i], which has room for
   *  capacities[i] bytes, its length to lengths[i]. Returns how many; 0 also when the interface is down or gone. */
  read(addresses: Int32Array, capacities: Int32Array, max: number): number {
    const limit = Math.min(max, this.#batch);
    const uring = this.#uring;
    return uring
      ? this.#readRing(uring, addresses, capacities, limit)
      : this.#readPlain(addresses, capacities, 0, limit);
  }

  /** Writes packets in order: `lengths[i]` bytes, header included, at arena address addresses[i]. Returns how many were taken;
   *  one that the kernel refuses counts as taken and in writeErrors. Less than `count`: the kernel's queue is full.
   *  `pieces[i]` other than 1 (at most IOV_MAX): at addresses[i] is a list of so many struct iovec, which make up the packet. */
  write(addresses: Int32Array, lengths: Int32Array, count: number, pieces: Int32Array = this.#single): number {
    const uring = this.#uring;
    return uring
      ? this.#writeRing(uring, addresses, lengths, pieces, count)
      : this.#writePlain(addresses, lengths, pieces, 0, count);
  }

  /** Frees the ring. Leaves the descriptor open. */
  close(): void {
    this.#own?.close();
    this.#own = undefined;
    this.#uring = undefined;
  }

  #readPlain(addresses: Int32Array, capacities: Int32Array, from: number, limit: number): number {
    const lengths = this.lengths;
    const base = this.#base;
    const fd = this.#fd;
    for (let i = from; i < limit; i++) {
      const length = packetCalls.read(fd, base + (addresses[i]! >>> 0), capacities[i]!);
      if (length <= 0) {
        this.#note(length);
        return i;
      }
      lengths[i] = length;
    }
    return limit;
  }

  #readRing(uring: PacketRing, addresses: Int32Array, capacities: Int32Array, limit: number): number {
    const { lengths } = this;
    const { results } = uring;
    const base = this.#base;
    const fd = this.#fd;
    let count = 0;
    let ask = Math.min(this.#expected, limit);
    while (ask > 0) {
      const first = count;
      for (let i = 0; i < ask; i++) {
        uring.prepare(i, URING_OP.READ, fd, base + (addresses[first + i]! >>> 0), capacities[first + i]!, RWF_NOWAIT);
      }
      uring.submit(ask);
      for (let i = 0; i < ask; i++) {
        const length = results[i]!;
        if (length > 0) {
          // A packet that came in right after a read found nothing lies behind a gap.
          if (count === first + i) lengths[count++] = length;
          else if (length <= capacities[count]!) this.#moveDown(addresses, first + i, count++, length);
          else this.readErrors++;
        } else if (length === -EOPNOTSUPP) {
          this.close(); // no RWF_NOWAIT on this file; all of the batch failed alike
          return this.#readPlain(addresses, capacities, count, limit);
        } else this.#note(length);
      }
      if (count < first + ask) break;
      ask = Math.min(ask * 2, limit - count);
    }
    this.#expected = Math.min(count + 1, FIRST_MAX);
    return count;
  }

  #moveDown(addresses: Int32Array, from: number, to: number, length: number): void {
    const source = addresses[from]! >>> 0;
    this.#arena.u8.copyWithin(addresses[to]! >>> 0, source, source + length);
    this.lengths[to] = length;
  }

  #writePlain(addresses: Int32Array, lengths: Int32Array, pieces: Int32Array, from: number, count: number): number {
    const base = this.#base;
    const fd = this.#fd;
    for (let i = from; i < count; i++) {
      const address = addresses[i]! >>> 0;
      const parts = pieces === this.#single ? 1 : pieces[i]!;
      const written =
        parts === 1
          ? packetCalls.write(fd, base + address, lengths[i]!)
          : packetCalls.writePieces(fd, this.#arena.u32, address >>> 2, parts);
      if (this.#keeps(written)) return i;
      if (written < 0) this.#refused(written);
    }
    return count;
  }

  #writeRing(uring: PacketRing, addresses: Int32Array, lengths: Int32Array, pieces: Int32Array, count: number): number {
    const { results } = uring;
    const base = this.#base;
    const fd = this.#fd;
    const batch = this.#batch;
    let done = 0;
    while (done < count) {
      const ask = Math.min(count - done, batch);
      for (let i = 0; i < ask; i++) {
        const address = base + (addresses[done + i]! >>> 0);
        const parts = pieces === this.#single ? 1 : pieces[done + i]!;
        if (parts === 1) uring.prepare(i, URING_OP.WRITE, fd, address, lengths[done + i]!, RWF_NOWAIT);
        else uring.prepare(i, URING_OP.WRITEV, fd, address, parts, RWF_NOWAIT);
      }
      uring.submit(ask);
      if (results[0] === -EOPNOTSUPP) {
        this.close();
        return this.#writePlain(addresses, lengths, pieces, done, count);
      }
      let taken = ask;
      while (taken > 0 && this.#keeps(results[taken - 1]!)) taken--;
      // What found the queue full before a packet that went through is lost: to send it now would be out of order.
      for (let i = 0; i < taken; i++) if (results[i]! < 0) this.#refused(results[i]!);
      done += taken;
      if (taken < ask) break;
    }
    return done;
  }

  /** True for a packet that was not taken, so that it may be written again. */
  #keeps(result: number): boolean {
    if (result === -EAGAIN) return true;
    if (!this.#keepWhenDown || (result !== -EIO && result !== -EBADFD)) return false;
    this.lastError = -result;
    return true;
  }

  #refused(result: number): void {
    this.writeErrors++;
    this.#note(result);
  }

  #note(result: number): void {
    if (result !== -EAGAIN && result !== -EINTR) this.lastError = -result;
  }
}
