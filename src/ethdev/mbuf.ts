// Mbufs from TypeScript: a handle is the address of an mbuf's cells (memory/layout.ts MBUF), a packet is a chain of them.
// Nothing here allocates but read(). Who needs every nanosecond reads the cells itself: u32[(mbuf + MBUF.at.data) >>> 2].

import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { EXTERNAL_BUFFER, MBUF, PACKET_FLAG } from '../memory/layout.js';
import type { Mempool } from './mempool.js';

const { data, dataLength, packetLength, next, segments, references, flags, hash, vlanTci } = MBUF.at;
const { packetType, mss, l4Offset, pool: poolCell, room, buffer, user, borrowed, port, timestamp } = MBUF.at;
const { EXTERNAL, INDIRECT } = PACKET_FLAG;

export class Mbufs {
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #u32: Uint32Array;
  /** One handle, for calls that take a list. */
  readonly #one: number;
  /** Head of the list of external buffers that came back, and who waits for which. */
  readonly #returned: number;
  readonly #callbacks = new Map<number, () => void>();
  /** EXTERNAL_BUFFER cells that can be used again. */
  readonly #spare: number[] = [];

  /** `cells`: MBUFS_BYTES zeroed bytes of the arena, this thread's own. */
  constructor(arena: Arena, datapath: Datapath, cells: number) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.#u32 = arena.u32;
    this.#one = cells;
    this.#returned = cells + 4;
    for (let i = 0; i < EXTERNAL_MAX; i++) this.#spare.push(cells + 64 + i * EXTERNAL_BUFFER.bytes);
  }

  /** A fresh, empty mbuf, or 0 when the pool has none. */
  allocate(pool: Mempool): number {
    return this.#datapath.poolGet(pool.address, this.#one, 1) === 1 ? this.#u32[this.#one >>> 2]! : 0;
  }

  /** Drops a reference to each segment of the chain. */
  free(mbuf: number): void {
    this.#u32[this.#one >>> 2] = mbuf;
    this.#datapath.mbufFree(this.#one, 1);
  }

  /** Address of the segment's first byte: index of the arena's u8. */
  data(mbuf: number): number {
    return this.#u32[(mbuf + data) >>> 2]!;
  }
  /** Bytes in this segment, and in the whole chain (of its first segment). */
  dataLength(mbuf: number): number {
    return this.#u32[(mbuf + dataLength) >>> 2]!;
  }
  packetLength(mbuf: number): number {
    return this.#u32[(mbuf + packetLength) >>> 2]!;
  }
  /** Next segment, or 0; and how many there are (of the first). */
  next(mbuf: number): number {
    return this.#u32[(mbuf + next) >>> 2]!;
  }
  segments(mbuf: number): number {
    return this.#u32[(mbuf + segments) >>> 2]!;
  }
  references(mbuf: number): number {
    return this.#u32[(mbuf + references) >>> 2]!;
  }
  /** PACKET_FLAG bits. */
  flags(mbuf: number): number {
    return this.#u32[(mbuf + flags) >>> 2]!;
  }
  setFlags(mbuf: number, bits: number): void {
    this.#u32[(mbuf + flags) >>> 2] = bits;
  }
  /** RSS hash; valid with PACKET_FLAG.HASH. */
  hash(mbuf: number): number {
    return this.#u32[(mbuf + hash) >>> 2]!;
  }
  setHash(mbuf: number, value: number): void {
    this.#u32[(mbuf + hash) >>> 2] = value;
  }
  /** 802.1Q tag; valid with PACKET_FLAG.VLAN. */
  vlanTci(mbuf: number): number {
    return this.#u32[(mbuf + vlanTci) >>> 2]!;
  }
  setVlanTci(mbuf: number, value: number): void {
    this.#u32[(mbuf + vlanTci) >>> 2] = value;
  }
  /** PACKET_TYPE bits, 0 = nobody looked. */
  packetType(mbuf: number): number {
    return this.#u32[(mbuf + packetType) >>> 2]!;
  }
  setPacketType(mbuf: number, value: number): void {
    this.#u32[(mbuf + packetType) >>> 2] = value;
  }
  /** TSO: bytes of payload in a segment, with PACKET_FLAG.TX_TSO; after LRO, those that came in each. */
  mss(mbuf: number): number {
    return this.#u32[(mbuf + mss) >>> 2]!;
  }
  setMss(mbuf: number, bytes: number): void {
    this.#u32[(mbuf + mss) >>> 2] = bytes;
  }
  /** Offset of the TCP or UDP header, for transmit offloads. */
  l4Offset(mbuf: number): number {
    return this.#u32[(mbuf + l4Offset) >>> 2]!;
  }
  setL4Offset(mbuf: number, bytes: number): void {
    this.#u32[(mbuf + l4Offset) >>> 2] = bytes;
  }
  /** The program's own cell. */
  user(mbuf: number): number {
    return this.#u32[(mbuf + user) >>> 2]!;
  }
  setUser(mbuf: number, value: number): void {
    this.#u32[(mbuf + user) >>> 2] = value;
  }
  /** Port that it came from, where the driver says it. */
  port(mbuf: number): number {
    return this.#u32[(mbuf + port) >>> 2]!;
  }
  setPort(mbuf: number, value: number): void {
    this.#u32[(mbuf + port) >>> 2] = value;
  }
  /** Nanoseconds since 1970 as two numbers, low and high 32 bits; both 0 = none. */
  timestampLow(mbuf: number): number {
    return this.#u32[(mbuf + timestamp) >>> 2]!;
  }
  timestampHigh(mbuf: number): number {
    return this.#u32[(mbuf + timestamp + 4) >>> 2]!;
  }
  setTimestamp(mbuf: number, low: number, high: number): void {
    this.#u32[(mbuf + timestamp) >>> 2] = low;
    this.#u32[(mbuf + timestamp + 4) >>> 2] = high;
  }

  /** Free bytes in front of this segment's data, and behind it. */
  headroom(mbuf: number): number {
    return this.data(mbuf) - this.#u32[(mbuf + buffer) >>> 2]!;
  }
  tailroom(mbuf: number): number {
    return (
      this.#u32[(mbuf + buffer) >>> 2]! + this.#u32[(mbuf + room) >>> 2]! - this.data(mbuf) - this.dataLength(mbuf)
    );
  }

  /** Makes room for `bytes` in front of the packet; returns the new first byte's address, or 0 without headroom. */
  prepend(mbuf: number, bytes: number): number {
    if (bytes > this.headroom(mbuf)) return 0;
    const u32 = this.#u32;
    u32[(mbuf + data) >>> 2]! -= bytes;
    u32[(mbuf + dataLength) >>> 2]! += bytes;
    u32[(mbuf + packetLength) >>> 2]! += bytes;
    return u32[(mbuf + data) >>> 2]!;
  }

  /** Adds `bytes` behind the packet, in its last segment; returns the address of the first of them, or 0 without tailroom. */
  append(mbuf: number, bytes: number): number {
    const last = this.last(mbuf);
    if (bytes > this.tailroom(last)) return 0;
    const u32 = this.#u32;
    const at = this.data(last) + this.dataLength(last);
    u32[(last + dataLength) >>> 2]! += bytes;
    // Of the first segment only: the others' is 0.
    u32[(mbuf + packetLength) >>> 2]! += bytes;
    return at;
  }

  /** Takes `bytes` off the front; false when the first segment has fewer. */
  adjust(mbuf: number, bytes: number): boolean {
    const u32 = this.#u32;
    if (bytes > this.dataLength(mbuf)) return false;
    u32[(mbuf + data) >>> 2]! += bytes;
    u32[(mbuf + dataLength) >>> 2]! -= bytes;
    u32[(mbuf + packetLength) >>> 2]! -= bytes;
    return true;
  }

  /** Takes `bytes` off the end; false when the last segment has fewer. */
  trim(mbuf: number, bytes: number): boolean {
    const last = this.last(mbuf);
    if (bytes > this.dataLength(last)) return false;
    this.#u32[(last + dataLength) >>> 2]! -= bytes;
    this.#u32[(mbuf + packetLength) >>> 2]! -= bytes;
    return true;
  }

  last(mbuf: number): number {
    let at = mbuf;
    for (let after = this.next(at); after !== 0; after = this.next(at)) at = after;
    return at;
  }

  /** Puts `tail`'s chain behind `head`'s; `tail` belongs to it from then on. */
  chain(head: number, tail: number): void {
    const u32 = this.#u32;
    u32[(this.last(head) + next) >>> 2] = tail;
    u32[(head + segments) >>> 2]! += u32[(tail + segments) >>> 2]!;
    u32[(head + packetLength) >>> 2]! += u32[(tail + packetLength) >>> 2]!;
    u32[(tail + segments) >>> 2] = 1;
    u32[(tail + packetLength) >>> 2] = 0;
  }

  /** Another owner of every segment: free() has to be called once more. */
  reference(mbuf: number): void {
    for (let at = mbuf; at !== 0; at = this.next(at)) Atomics.add(this.#u32, (at + references) >>> 2, 1);
  }

  /** A chain of mbufs of `pool` that show the same bytes, with cells of their own. Write to neither while both live. 0 = the
   *  pool has too few. */
  clone(pool: Mempool, mbuf: number): number {
    const u32 = this.#u32;
    let first = 0;
    let before = 0;
    for (let from = mbuf; from !== 0; from = this.next(from)) {
      const to = this.allocate(pool);
      if (to === 0) {
        if (first !== 0) this.free(first);
        return 0;
      }
      const bits = u32[(from + flags) >>> 2]!;
      // Cells from data to l4Offset; the links are set below.
      for (let cell = 0; cell <= l4Offset; cell += 4) u32[(to + cell) >>> 2] = u32[(from + cell) >>> 2]!;
      u32[(to + next) >>> 2] = 0;
      u32[(to + references) >>> 2] = 1;
      u32[(to + room) >>> 2] = u32[(from + room) >>> 2]!;
      u32[(to + buffer) >>> 2] = u32[(from + buffer) >>> 2]!;
      if ((bits & EXTERNAL) !== 0) {
        u32[(to + borrowed) >>> 2] = u32[(from + borrowed) >>> 2]!;
        Atomics.add(u32, (u32[(from + borrowed) >>> 2]! + EXTERNAL_BUFFER.at.references) >>> 2, 1);
      } else {
        const direct = (bits & INDIRECT) !== 0 ? u32[(from + borrowed) >>> 2]! : from;
        Atomics.add(u32, (direct + references) >>> 2, 1);
        u32[(to + flags) >>> 2] = bits | INDIRECT;
        u32[(to + borrowed) >>> 2] = direct;
      }
      if (before === 0) first = to;
      else u32[(before + next) >>> 2] = to;
      before = to;
    }
    return first;
  }

  /** Copies the whole chain into one new mbuf of `pool`, cells included. 0 = none free, or too small. */
  copy(pool: Mempool, mbuf: number): number {
    const to = this.allocate(pool);
    if (to === 0) return 0;
    const bytes = this.packetLength(mbuf);
    if (bytes > this.tailroom(to)) {
      this.free(to);
      return 0;
    }
    const u32 = this.#u32;
    let at = this.data(to);
    for (let from = mbuf; from !== 0; from = this.next(from)) {
      this.#datapath.copy(at, this.data(from), this.dataLength(from));
      at += this.dataLength(from);
    }
    for (let cell: number = flags; cell <= l4Offset; cell += 4) u32[(to + cell) >>> 2] = u32[(mbuf + cell) >>> 2]!;
    u32[(to + flags) >>> 2]! &= ~(EXTERNAL | INDIRECT);
    u32[(to + dataLength) >>> 2] = bytes;
    u32[(to + packetLength) >>> 2] = bytes;
    return to;
  }

  /** Lets an empty mbuf show `bytes` bytes at `address` (packet memory, so that every device can send them). `freed` is called by
   *  reap() once the last mbuf that shows them is free. False: EXTERNAL_MAX of them are out. */
  attachExternal(mbuf: number, address: number, bytes: number, freed: () => void): boolean {
    const cells = this.#spare.pop();
    if (cells === undefined) return false;
    const u32 = this.#u32;
    u32[(cells + EXTERNAL_BUFFER.at.references) >>> 2] = 1;
    u32[(cells + EXTERNAL_BUFFER.at.owner) >>> 2] = this.#returned;
    this.#callbacks.set(cells, freed);
    u32[(mbuf + flags) >>> 2]! |= EXTERNAL;
    u32[(mbuf + borrowed) >>> 2] = cells;
    u32[(mbuf + buffer) >>> 2] = address;
    u32[(mbuf + room) >>> 2] = bytes;
    u32[(mbuf + data) >>> 2] = address;
    u32[(mbuf + dataLength) >>> 2] = bytes;
    u32[(mbuf + packetLength) >>> 2] = bytes;
    return true;
  }

  /** Calls the callbacks of external buffers that came back, in the thread that attached them. Returns how many. */
  reap(): number {
    if (Atomics.load(this.#u32, this.#returned >>> 2) === 0) return 0;
    let count = 0;
    let cells = Atomics.exchange(this.#u32, this.#returned >>> 2, 0);
    while (cells !== 0) {
      const after = this.#u32[(cells + EXTERNAL_BUFFER.at.next) >>> 2]!;
      const freed = this.#callbacks.get(cells)!;
      this.#callbacks.delete(cells);
      this.#spare.push(cells);
      count++;
      freed();
      cells = after;
    }
    return count;
  }

  /** A copy of the packet's bytes. */
  read(mbuf: number): Uint8Array {
    const bytes = new Uint8Array(this.packetLength(mbuf));
    let at = 0;
    for (let from = mbuf; from !== 0; from = this.next(from)) {
      bytes.set(this.#arena.u8.subarray(this.data(from), this.data(from) + this.dataLength(from)), at);
      at += this.dataLength(from);
    }
    return bytes;
  }

  /** Puts bytes behind the packet; false without tailroom. */
  write(mbuf: number, bytes: Uint8Array): boolean {
    const at = this.append(mbuf, bytes.length);
    if (at === 0) return false;
    this.#arena.u8.set(bytes, at);
    return true;
  }

  /** Name of the pool that it returns to is known by this address. */
  pool(mbuf: number): number {
    return this.#u32[(mbuf + poolCell) >>> 2]!;
  }
}

/** External buffers that one thread may have out. */
export const EXTERNAL_MAX = 4096;
/** Working memory of one Mbufs. */
export const MBUFS_BYTES: number = 64 + EXTERNAL_MAX * EXTERNAL_BUFFER.bytes;
