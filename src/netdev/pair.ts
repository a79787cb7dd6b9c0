// A queue pair of an interface in the thread that polls it: what the device receives goes up to the kernel, what the kernel sends
// goes down to the device. By handle: no packet is copied here.
import type { LcoreThread } from '../ethdev/lcore.js';
import type { Pollable } from '../ethdev/loop.js';
import type { RxQueue, TxQueue } from '../ethdev/queues.js';
import { cells } from '../memory/cells.js';

/** Packets of one burst and direction: NAPI's weight. */
export const BUDGET = 64;
/** How long packets that the device did not take may wait for the next try, ms. */
const RETRY_MS = 0.5;

/** What control code sees of a pair, and what outlives the thread that polls it. */
export const NETDEV_PAIR = cells('NETDEV_PAIR', {
  waiting: 'u32', // packets of the kernel that the device has not taken yet, in front of the list
  downDropped: 'u64', // received, but the interface is down or gone
});
const LIST_BYTES = BUDGET * 4;
/** Bytes of a pair: its cells, packets on their way down, packets on their way up. */
export const PAIR_BYTES: number = NETDEV_PAIR.bytes + 2 * LIST_BYTES;

const { waiting, downDropped } = NETDEV_PAIR.at;

/** Plain data. */
export interface PairSetup {
  readonly queue: number;
  /** Address of PAIR_BYTES. */
  readonly memory: number;
}

export class QueuePair implements Pollable {
  readonly #lcore: LcoreThread;
  readonly #u32: Uint32Array;
  readonly #cells: number;
  /** Lists of handles. */
  readonly #down: number;
  readonly #up: number;
  readonly #deviceRx: RxQueue;
  readonly #deviceTx: TxQueue;
  readonly #tapRx: RxQueue;
  readonly #tapTx: TxQueue;

  /** `device` and `tap`: numbers of the ports. */
  constructor(lcore: LcoreThread, device: number, tap: number, { queue, memory }: PairSetup) {
    this.#lcore = lcore;
    this.#u32 = lcore.arena.u32;
    this.#cells = memory;
    this.#down = memory + NETDEV_PAIR.bytes;
    this.#up = this.#down + LIST_BYTES;
    this.#deviceRx = lcore.port(device).rxQueue(queue);
    this.#deviceTx = lcore.port(device).txQueue(queue);
    this.#tapRx = lcore.port(tap).rxQueue(queue);
    this.#tapTx = lcore.port(tap).txQueue(queue);
  }

  step(): number {
    return this.#receive() + this.#send();
  }

  tick(): void {}

  arm(): boolean {
    if (!this.#deviceRx.arm()) return false;
    // While packets wait for the device the interface's own are left to the kernel.
    if (this.#waits || this.#tapRx.arm()) return true;
    this.#deviceRx.disarm();
    return false;
  }

  disarm(): void {
    this.#deviceRx.disarm();
    this.#tapRx.disarm();
  }

  sleepMs(): number | undefined {
    return this.#waits ? RETRY_MS : undefined;
  }

  fds(): readonly number[] {
    return this.#waits ? this.#deviceRx.fds() : [...this.#deviceRx.fds(), ...this.#tapRx.fds()];
  }

  get #waits(): boolean {
    return this.#u32[(this.#cells + waiting) >>> 2] !== 0;
  }

  /** Device to kernel. */
  #receive(): number {
    const up = this.#up;
    const count = this.#deviceRx.burst(up, BUDGET);
    if (count === 0) return 0;
    const taken = this.#tapTx.burst(up, count);
    if (taken < count) this.#drop(up + taken * 4, count - taken);
    return count;
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
    const taken = this.#deviceTx.burst(down, count);
    if (taken > 0 && taken < count) u32.copyWithin(down >>> 2, (down >>> 2) + taken, (down >>> 2) + count);
    u32[cell] = count - taken;
    return read + taken;
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
