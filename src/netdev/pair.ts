// A queue pair of an interface in the thread that polls it: what the device receives goes up to the kernel, what the kernel sends
// goes down to the device. By handle: no packet is copied here.
import type { LcorePort, LcoreThread } from '../ethdev/lcore.js';
import type { Pollable, Ready } from '../ethdev/loop.js';
import type { RxQueue, TxQueue } from '../ethdev/queues.js';
import { MBUF, PACKET_FLAG } from '../memory/layout.js';
import { Gro } from '../offload/gro.js';
import { Outgoing } from './outgoing.js';
import { BUDGET, NETDEV_PAIR, PAIR_LISTS, PAIR_OPTION, type PairSetup } from './pair-memory.js';

/** How long packets that the device did not take may wait for the next try, and a device that wakes nobody for a look, ms. */
const RETRY_MS = 0.5;

const { options, downDropped } = NETDEV_PAIR.at;
const { flags } = MBUF.at;
const { GRO, UNCHECKED } = PAIR_OPTION;
const VERDICTS = PACKET_FLAG.RX_IP_GOOD | PACKET_FLAG.RX_IP_BAD | PACKET_FLAG.RX_L4_GOOD | PACKET_FLAG.RX_L4_BAD;
const MISSING = PACKET_FLAG.TX_TCP_CHECKSUM | PACKET_FLAG.TX_UDP_CHECKSUM | PACKET_FLAG.TX_TSO;

export class QueuePair implements Pollable {
  readonly #lcore: LcoreThread;
  readonly #u32: Uint32Array;
  readonly #cells: number;
  /** Lists of handles. */
  readonly #up: number;
  readonly #merged: number;
  readonly #gro: Gro;
  readonly #deviceRx: RxQueue;
  readonly #outgoing: Outgoing;
  readonly #wakes: boolean;
  readonly #tapRx: RxQueue;
  readonly #tapTx: TxQueue;
  /** Those of both queues, as they last were. */
  #fds: readonly number[] = [];
  #deviceFds: readonly number[] = [];
  #tapFds: readonly number[] = [];

  /** `ask`: control code is to look at the interface. */
  constructor(lcore: LcoreThread, device: LcorePort, tap: LcorePort, setup: PairSetup, ask: () => void) {
    const { queue, memory, gro, wakes } = setup;
    this.#lcore = lcore;
    this.#u32 = lcore.arena.u32;
    this.#cells = memory;
    this.#up = memory + PAIR_LISTS.up;
    this.#merged = memory + PAIR_LISTS.merged;
    this.#gro = new Gro(lcore.arena, lcore.datapath, gro);
    this.#deviceRx = device.rxQueue(queue);
    this.#outgoing = new Outgoing(lcore, device, tap, setup, ask);
    this.#wakes = wakes;
    this.#tapRx = tap.rxQueue(queue);
    this.#tapTx = tap.txQueue(queue);
  }

  step(): number {
    return this.#receive() + this.#outgoing.step();
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
    return this.#outgoing.waits;
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
