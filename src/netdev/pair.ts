// A queue pair of an interface in the thread that polls it: what the device receives goes up to the kernel, what the kernel sends
// goes down to the device. By handle: no packet is copied here.
import type { LcorePort, LcoreThread } from '../ethdev/lcore.js';
import type { Pollable, Ready } from '../ethdev/loop.js';
import type { RxQueue, TxQueue } from '../ethdev/queues.js';
import { cells } from '../memory/cells.js';
import { MBUF, PACKET_FLAG, STEER_QUEUES } from '../memory/layout.js';
import { GRO_HELD_MAX, Gro } from '../offload/gro.js';

/** Packets of one burst and direction: NAPI's weight. */
export const BUDGET = 64;
/** How long packets that the device did not take may wait for the next try, and a device that wakes nobody for a look, ms. */
const RETRY_MS = 0.5;

/** What control code sees of a pair, and what outlives the thread that polls it. */
export const NETDEV_PAIR = cells('NETDEV_PAIR', {
  options: 'u32', // PAIR_OPTION
  waiting: 'u32', // packets of the kernel that the device has not taken yet, in front of the list
  downDropped: 'u64', // received, but the interface is down or gone
});
/** What is done to received packets. */
export const PAIR_OPTION = {
  GRO: 0x1, // small ones become large ones
  UNCHECKED: 0x2, // the kernel verifies checksums itself
} as const;

const LIST_BYTES = BUDGET * 4;
const MERGED_BYTES = (BUDGET + 2 * GRO_HELD_MAX) * 4;
const COUNTS_BYTES = STEER_QUEUES * 4;
/** Bytes of a pair: its cells, packets on their way down as they came and by queue, how many each queue has, packets on their
 *  way up before and after receive offload. */
export const PAIR_BYTES: number = NETDEV_PAIR.bytes + 3 * LIST_BYTES + COUNTS_BYTES + MERGED_BYTES;

const { options, waiting, downDropped } = NETDEV_PAIR.at;
const { flags } = MBUF.at;
const { GRO, UNCHECKED } = PAIR_OPTION;
const VERDICTS = PACKET_FLAG.RX_IP_GOOD | PACKET_FLAG.RX_IP_BAD | PACKET_FLAG.RX_L4_GOOD | PACKET_FLAG.RX_L4_BAD;
const MISSING = PACKET_FLAG.TX_TCP_CHECKSUM | PACKET_FLAG.TX_UDP_CHECKSUM | PACKET_FLAG.TX_TSO;

/** Plain data. */
export interface PairSetup {
  readonly queue: number;
  /** Address of PAIR_BYTES. */
  readonly memory: number;
  /** Address of its GRO_STAGE. */
  readonly gro: number;
  /** Address of the interface's STEERING. */
  readonly steering: number;
  /** The device wakes who waits for packets; it is looked at from time to time otherwise. */
  readonly wakes: boolean;
}

export class QueuePair implements Pollable {
  readonly #lcore: LcoreThread;
  readonly #u32: Uint32Array;
  readonly #cells: number;
  /** Lists of handles. */
  readonly #down: number;
  readonly #sorted: number;
  readonly #counts: number;
  readonly #up: number;
  readonly #merged: number;
  readonly #gro: Gro;
  readonly #deviceRx: RxQueue;
  /** All of the device's. */
  readonly #deviceTx: readonly TxQueue[];
  readonly #steering: number;
  readonly #wakes: boolean;
  readonly #tapRx: RxQueue;
  readonly #tapTx: TxQueue;
  /** Those of both queues, as they last were. */
  #fds: readonly number[] = [];
  #deviceFds: readonly number[] = [];
  #tapFds: readonly number[] = [];

  constructor(
    lcore: LcoreThread,
    device: LcorePort,
    tap: LcorePort,
    { queue, memory, gro, steering, wakes }: PairSetup,
  ) {
    this.#lcore = lcore;
    this.#u32 = lcore.arena.u32;
    this.#cells = memory;
    this.#down = memory + NETDEV_PAIR.bytes;
    this.#sorted = this.#down + LIST_BYTES;
    this.#counts = this.#sorted + LIST_BYTES;
    this.#up = this.#counts + COUNTS_BYTES;
    this.#merged = this.#up + LIST_BYTES;
    this.#gro = new Gro(lcore.arena, lcore.datapath, gro);
    this.#deviceRx = device.rxQueue(queue);
    this.#deviceTx = Array.from({ length: device.txQueues }, (_, to) => device.txQueue(to));
    this.#steering = steering;
    this.#wakes = wakes;
    this.#tapRx = tap.rxQueue(queue);
    this.#tapTx = tap.txQueue(queue);
  }

  step(): number {
    return this.#receive() + this.#send();
  }

  tick(): void {}

  arm(): boolean {
    if (this.#wakes && !this.#deviceRx.arm()) return false;
    // While packets wait for the device the interface's own are left to the kernel.
    if (this.#waits || this.#tapRx.arm()) return true;
    this.#deviceRx.disarm();
    return false;
  }

  disarm(_signalled?: boolean, ready?: Ready): void {
    this.#deviceRx.disarm(ready);
    this.#tapRx.disarm(ready);
  }

  sleepMs(): number | undefined {
    return this.#waits || !this.#wakes ? RETRY_MS : undefined;
  }

  fds(): readonly number[] {
    const device = this.#deviceRx.fds();
    if (this.#waits) return device;
    const tap = this.#tapRx.fds();
    if (device !== this.#deviceFds || tap !== this.#tapFds) {
      this.#deviceFds = device;
      this.#tapFds = tap;
      this.#fds = [...device, ...tap];
    }
    return this.#fds;
  }

  get #waits(): boolean {
    return this.#u32[(this.#cells + waiting) >>> 2] !== 0;
  }

  /** Device to kernel. */
  #receive(): number {
    const gro = this.#gro;
    const wishes = this.#u32[(this.#cells + options) >>> 2]!;
    const count = this.#deviceRx.burst(this.#up, BUDGET);
    if (count === 0 && gro.held === 0) return 0;
    if ((wishes & UNCHECKED) !== 0) this.#forgetVerdicts(this.#up, count);
    if ((wishes & GRO) === 0 && gro.held === 0) {
      this.#deliver(this.#up, count);
      return count;
    }
    let ready = gro.receive(this.#up, count, this.#merged);
    // As at the end of a NAPI poll: while there is more, packets wait for their like, but not from poll to poll to poll.
    const rest = this.#merged + ready * 4;
    ready += count < BUDGET || (wishes & GRO) === 0 ? gro.flush(rest) : gro.flushOld(rest);
    if (ready > 0) this.#deliver(this.#merged, ready);
    return Math.max(count, ready);
  }

  #deliver(handles: number, count: number): void {
    const taken = this.#tapTx.burst(handles, count);
    if (taken < count) this.#drop(handles + taken * 4, count - taken);
  }

  /** Those of packets whose checksum was never filled in stay: there is nothing to verify. */
  #forgetVerdicts(handles: number, count: number): void {
    const u32 = this.#u32;
    for (let i = 0; i < count; i++) {
      const at = (u32[(handles >>> 2) + i]! + flags) >>> 2;
      if ((u32[at]! & MISSING) === 0) u32[at]! &= ~VERDICTS;
    }
  }

  /** Kernel to device. Nothing is read while there are packets that the device did not take: the kernel's queue holds the rest. */
  #send(): number {
    const u32 = this.#u32;
    const down = this.#down;
    const cell = (this.#cells + waiting) >>> 2;
    let count = u32[cell]!;
    let read = 0;
    if (count === 0) {
      read = this.#tapRx.burst(down, BUDGET);
      if (read === 0) return 0;
      count = read;
    }
    const left = this.#deviceTx.length === 1 ? this.#sendOn(0, down, count, 0) : this.#spread(count);
    u32[cell] = left;
    return read + count - left;
  }

  /** Sends each on the queue of its flow; returns how many are left, in front of the list. */
  #spread(count: number): number {
    const u32 = this.#u32;
    const sorted = this.#sorted;
    const counts = this.#counts >>> 2;
    this.#lcore.datapath.steer(this.#steering, this.#down, count, sorted, this.#counts);
    let left = 0;
    for (let queue = 0, done = 0; done < count; queue++) {
      const share = u32[counts + queue]!;
      if (share > 0) left = this.#sendOn(queue < this.#deviceTx.length ? queue : 0, sorted + done * 4, share, left);
      done += share;
    }
    return left;
  }

  /** What the device does not take goes behind the `left` others that wait already; returns how many that are then. */
  #sendOn(queue: number, handles: number, count: number, left: number): number {
    const taken = this.#deviceTx[queue]!.burst(handles, count);
    if (taken < count)
      this.#u32.copyWithin((this.#down >>> 2) + left, (handles >>> 2) + taken, (handles >>> 2) + count);
    return left + count - taken;
  }

  /** The interface takes nothing now, so nobody can be waiting for them. */
  #drop(handles: number, count: number): void {
    const u32 = this.#u32;
    const at = (this.#cells + downDropped) >>> 2;
    const sum = u32[at]! + count;
    u32[at] = sum;
    if (sum >= 2 ** 32) u32[at + 1]! += 1;
    this.#lcore.datapath.mbufFree(handles, count);
  }
}
