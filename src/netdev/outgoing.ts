// Packets of a queue pair on their way from the kernel to the device. What the device does not take now waits, and the kernel's
// queue holds what is behind it; what it cannot take as it is is cut here, or waits until the device's MTU has followed the interface's.
import type { LcorePort, LcoreThread } from '../ethdev/lcore.js';
import type { RxQueue, TxQueue } from '../ethdev/queues.js';
import { add64 } from '../memory/cells64.js';
import { MBUF, PACKET_FLAG } from '../memory/layout.js';
import { BUDGET, CUT_BYTES, NETDEV_PAIR, PAIR_LISTS, type PairSetup, SEGMENTS_MAX } from './pair-memory.js';

const { waiting, frameBytes, tso4, tso6, asked, question, answered, cutFrom, cutCount } = NETDEV_PAIR.at;
const { data, dataLength, packetLength, segments, flags, mss, l4Offset, vlanTci } = MBUF.at;
const { TX_TSO, IPV6, VLAN } = PACKET_FLAG;
const TCP_HEADER_MAX = 60;
/** Headers of a packet whose TCP header nobody has found. */
const HEADERS_MAX = 256;
const ALIGNMENT = 64;

export class Outgoing {
  readonly #lcore: LcoreThread;
  readonly #u32: Uint32Array;
  readonly #cells: number;
  readonly #down: number;
  readonly #sorted: number;
  readonly #counts: number;
  readonly #cuts: number;
  readonly #setup: PairSetup;
  readonly #steering: number;
  readonly #from: RxQueue;
  /** All of the device's. */
  readonly #to: readonly TxQueue[];
  readonly #ask: () => void;

  /** `ask`: control code is to look at the interface's MTU. */
  constructor(lcore: LcoreThread, device: LcorePort, tap: LcorePort, setup: PairSetup, ask: () => void) {
    const { queue, memory, steering } = setup;
    this.#lcore = lcore;
    this.#u32 = lcore.arena.u32;
    this.#cells = memory;
    this.#down = memory + PAIR_LISTS.down;
    this.#sorted = memory + PAIR_LISTS.sorted;
    this.#counts = memory + PAIR_LISTS.counts;
    this.#cuts = memory + PAIR_LISTS.cuts;
    this.#setup = setup;
    this.#steering = steering;
    this.#from = tap.rxQueue(queue);
    this.#to = Array.from({ length: device.txQueues }, (_, to) => device.txQueue(to));
    this.#ask = ask;
  }

  /** Packets wait here: nothing is read from the kernel. */
  get waits(): boolean {
    return (this.#u32[(this.#cells + waiting) >>> 2]! | this.#u32[(this.#cells + cutCount) >>> 2]!) !== 0;
  }

  step(): number {
    const u32 = this.#u32;
    const cell = (this.#cells + waiting) >>> 2;
    let done = 0;
    if (u32[(this.#cells + cutCount) >>> 2] !== 0) {
      done = this.#sendCuts();
      if (u32[(this.#cells + cutCount) >>> 2] !== 0) return done;
    }
    let count = u32[cell]!;
    if (count === 0) {
      count = this.#from.burst(this.#down, BUDGET);
      if (count === 0) return done;
      u32[(this.#cells + question) >>> 2] = 0;
      done += count;
    }
    const fit = this.#fitting(count);
    const left = fit === 0 ? 0 : this.#send(this.#down, fit);
    done += fit - left;
    if (fit < count) {
      const down = this.#down >>> 2;
      if (left < fit) u32.copyWithin(down + left, down + fit, down + count);
      count += left - fit;
      u32[cell] = count;
      return left === 0 ? done + this.#fitFirst(count) : done;
    }
    u32[cell] = left;
    return done;
  }

  /** How many packets the device can take as they are, before the first that it cannot. */
  #fitting(count: number): number {
    const u32 = this.#u32;
    const frame = u32[(this.#cells + frameBytes) >>> 2]!;
    const down = this.#down >>> 2;
    for (let i = 0; i < count; i++) {
      const mbuf = u32[down + i]!;
      const large = u32[(mbuf + packetLength) >>> 2]! > frame || (u32[(mbuf + flags) >>> 2]! & TX_TSO) !== 0;
      if (large && !this.#takes(mbuf)) return i;
    }
    return count;
  }

  /** A long packet: one that the device cuts, or one that it may count as too long, for control code has looked. */
  #takes(mbuf: number): boolean {
    const u32 = this.#u32;
    const wanted = u32[(mbuf + flags) >>> 2]!;
    if ((wanted & TX_TSO) !== 0)
      return u32[(mbuf + packetLength) >>> 2]! <= u32[(this.#cells + ((wanted & IPV6) !== 0 ? tso6 : tso4)) >>> 2]!;
    const asking = u32[(this.#cells + question) >>> 2]!;
    return asking !== 0 && Atomics.load(u32, (this.#cells + answered) >>> 2) === asking;
  }

  /** The first packet of the list is one that the device cannot take. Returns the packets done. */
  #fitFirst(count: number): number {
    const u32 = this.#u32;
    const mbuf = u32[this.#down >>> 2]!;
    if ((u32[(mbuf + flags) >>> 2]! & TX_TSO) === 0) {
      const asking = (this.#cells + question) >>> 2;
      if (u32[asking] !== 0) return 0;
      // 0 is no question.
      const next = (u32[(this.#cells + asked) >>> 2]! + 1) >>> 0 || 1;
      u32[asking] = next;
      Atomics.store(u32, (this.#cells + asked) >>> 2, next);
      this.#ask();
      return 0;
    }
    if (!this.#cut(mbuf)) return 0;
    this.#lcore.datapath.mbufFree(this.#down, 1);
    u32.copyWithin(this.#down >>> 2, (this.#down >>> 2) + 1, (this.#down >>> 2) + count);
    u32[(this.#cells + waiting) >>> 2] = count - 1;
    return 1;
  }

  /** Makes segments of a packet. False: there are no buffers for them now. True also for one that is malformed, of which nothing comes. */
  #cut(mbuf: number): boolean {
    const u32 = this.#u32;
    const { datapath } = this.#lcore;
    const { cutting, small, large, smallBytes } = this.#setup;
    const size = u32[(mbuf + mss) >>> 2]!;
    const l4 = u32[(mbuf + l4Offset) >>> 2]!;
    const longest = size + (l4 === 0 ? HEADERS_MAX : l4 + TCP_HEADER_MAX);
    const stride = (longest + ALIGNMENT - 1) & -ALIGNMENT;
    const lengths = SEGMENTS_MAX * 4;
    const most = Math.min(SEGMENTS_MAX, Math.floor((CUT_BYTES - lengths) / stride));
    const from = u32[(mbuf + data) >>> 2]!;
    const whole = u32[(mbuf + segments) >>> 2] === 1;
    const bytes = u32[(mbuf + dataLength) >>> 2]!;
    const count = whole ? datapath.segment(from, bytes, l4, size, cutting + lengths, stride, cutting, most) : 0;
    if (count === 0) {
      this.#count('cutFailed', 1);
      return true;
    }
    const got = datapath.poolGet(u32[cutting >>> 2]! <= smallBytes ? small : large, this.#cuts, count);
    if (got < count) {
      datapath.mbufFree(this.#cuts, got);
      return false;
    }
    const tagged = u32[(mbuf + flags) >>> 2]! & VLAN;
    for (let i = 0; i < count; i++) {
      const segment = u32[(this.#cuts >>> 2) + i]!;
      const length = u32[(cutting >>> 2) + i]!;
      datapath.copy(u32[(segment + data) >>> 2]!, cutting + lengths + i * stride, length);
      u32[(segment + dataLength) >>> 2] = length;
      u32[(segment + packetLength) >>> 2] = length;
      u32[(segment + flags) >>> 2] = tagged;
      u32[(segment + vlanTci) >>> 2] = u32[(mbuf + vlanTci) >>> 2]!;
    }
    u32[(this.#cells + cutFrom) >>> 2] = 0;
    u32[(this.#cells + cutCount) >>> 2] = count;
    this.#count('cutPackets', 1);
    this.#count('cutSegments', count);
    return true;
  }

  #count(cell: 'cutFailed' | 'cutPackets' | 'cutSegments', by: number): void {
    add64(this.#u32, (this.#cells + NETDEV_PAIR.at[cell]) >>> 2, by);
  }

  /** Some of the segments that wait. */
  #sendCuts(): number {
    const u32 = this.#u32;
    const from = u32[(this.#cells + cutFrom) >>> 2]!;
    const all = u32[(this.#cells + cutCount) >>> 2]!;
    const count = Math.min(BUDGET, all);
    const list = this.#cuts + from * 4;
    const left = this.#send(list, count);
    // What is left stands in front again; its place is before the rest.
    if (left > 0 && left < count) u32.copyWithin((list >>> 2) + count - left, list >>> 2, (list >>> 2) + left);
    u32[(this.#cells + cutFrom) >>> 2] = from + count - left;
    u32[(this.#cells + cutCount) >>> 2] = all - count + left;
    return count - left;
  }

  /** Sends each on the queue of its flow; returns how many are left, in front of the list. */
  #send(list: number, count: number): number {
    if (this.#to.length === 1) return this.#sendOn(0, list, list, count, 0);
    const u32 = this.#u32;
    const sorted = this.#sorted;
    const counts = this.#counts >>> 2;
    this.#lcore.datapath.steer(this.#steering, list, count, sorted, this.#counts);
    let left = 0;
    for (let queue = 0, done = 0; done < count; queue++) {
      const share = u32[counts + queue]!;
      if (share > 0) left = this.#sendOn(queue < this.#to.length ? queue : 0, list, sorted + done * 4, share, left);
      done += share;
    }
    return left;
  }

  /** What the device does not take goes to `list`, behind the `left` others that wait already; returns how many that are then. */
  #sendOn(queue: number, list: number, handles: number, count: number, left: number): number {
    const taken = this.#to[queue]!.burst(handles, count);
    if (taken < count) this.#u32.copyWithin((list >>> 2) + left, (handles >>> 2) + taken, (handles >>> 2) + count);
    return left + count - taken;
  }
}
