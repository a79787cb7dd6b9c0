// Rings of mbufs from one port to another of the same process: the memory that both ports share, and the bursts on it.
import type { DriverContext, Lcore, RxBurst, TxBurst } from '../../ethdev/driver.js';
import { HANDLE_RING, HANDLE_RING_END } from '../../memory/layout.js';
import { EventFd } from '../../memory/os/eventfd.js';
import { RingReader } from './ring-reader.js';

/** Queues of a port, and packets that may wait in each. */
export const RING_QUEUES = 64;
export const RING_ENTRIES_MAX = 4096;

const { entries, mask, limit, open, armed, wakeFd } = HANDLE_RING.at;
const RING_BYTES = HANDLE_RING.bytes + 2 * HANDLE_RING_END.bytes;
const RING_CELLS = RING_BYTES >>> 2;
const PUT_INDEX = (HANDLE_RING.bytes + HANDLE_RING_END.at.index) >>> 2;
const TAKE_INDEX = PUT_INDEX + HANDLE_RING_END.bytes / 4;
const HEAD_BYTES = 64;
const BATCH = 64;
const { load, store, exchange } = Atomics;

/** Address of the ring into which the sender's tx queue `queue` puts. */
const ringOf = (set: number, queue: number) => set + HEAD_BYTES + queue * RING_BYTES;

/** One direction of a link, as control code sees it: how many queues send, and a ring for each. */
export class RingSet {
  readonly address: number;
  readonly #context: DriverContext;
  readonly #u32: Uint32Array;

  constructor(context: DriverContext, name: string) {
    this.#context = context;
    this.#u32 = context.arena.u32;
    const cells = HEAD_BYTES + RING_QUEUES * RING_BYTES;
    this.address = context.arena.reserve(`${name} rings`, cells + RING_QUEUES * RING_ENTRIES_MAX * 4);
    this.#each((ring, queue) => {
      this.#u32[(ring + entries) >>> 2] = this.address + cells + queue * RING_ENTRIES_MAX * 4;
      this.#u32[(ring + mask) >>> 2] = RING_ENTRIES_MAX - 1;
    });
  }

  /** The sender uses this many queues from now on. It is stopped. */
  setSenders(queues: number): void {
    store(this.#u32, this.address >>> 2, queues);
  }

  setLimit(queue: number, descriptors: number): void {
    this.#u32[(ringOf(this.address, queue) + limit) >>> 2] = descriptors;
  }

  /** Who is woken for each ring: the event descriptors of the receiver's queues. */
  setWakers(fds: readonly number[]): void {
    this.#each((ring, queue) => {
      store(this.#u32, (ring + wakeFd) >>> 2, fds.length === 0 ? 0 : fds[queue % fds.length]! + 1);
    });
  }

  /** Lets packets in, or none any more. */
  setOpen(on: boolean): void {
    this.#each((ring) => store(this.#u32, (ring + open) >>> 2, on ? 1 : 0));
  }

  /** Packets that wait in a sender's queue. */
  waiting(queue: number): number {
    const at = ringOf(this.address, queue) >>> 2;
    return (load(this.#u32, at + PUT_INDEX) - load(this.#u32, at + TAKE_INDEX)) >>> 0;
  }

  /** Frees what waits; returns how many packets. The receiver is stopped. */
  drain(): number {
    const { datapath, arena } = this.#context;
    const handles = arena.reserve('ring drain', BATCH * 4 + 64);
    let count = 0;
    this.#each((ring) => {
      for (;;) {
        const n = datapath.handleTake(ring, handles, BATCH, handles + BATCH * 4);
        if (n === 0) return;
        datapath.mbufFree(handles, n);
        count += n;
      }
    });
    arena.release(handles);
    return count;
  }

  /** Nobody uses the rings any more. */
  close(): void {
    this.drain();
    this.#context.arena.release(this.address);
  }

  #each(what: (ring: number, queue: number) => void): void {
    for (let queue = 0; queue < RING_QUEUES; queue++) what(ringOf(this.address, queue), queue);
  }
}

export interface HandleRxDescription {
  readonly kind: 'local';
  readonly set: number;
  /** Takes from the ring of this number, and from every `queues`-th further one that has a sender. */
  readonly queue: number;
  readonly queues: number;
  readonly counters: number;
  /** Event descriptor, or -1. */
  readonly wakeFd: number;
}

export class HandleRx extends RingReader implements RxBurst {
  readonly #u32: Uint32Array;
  readonly #ring: number;
  readonly #queue: number;
  readonly #queues: number;
  readonly #event: EventFd | undefined;
  readonly #fds: readonly number[];

  constructor(lcore: Lcore, { set, queue, queues, counters, wakeFd }: HandleRxDescription) {
    const first = ringOf(set, queue);
    super(lcore, lcore.datapath.handleTake, { senders: set, first, stride: RING_BYTES, queue, queues, counters });
    this.#u32 = lcore.arena.u32;
    this.#ring = first;
    this.#queue = queue;
    this.#queues = queues;
    this.#event = wakeFd < 0 ? undefined : new EventFd(wakeFd);
    this.#fds = wakeFd < 0 ? [] : [wakeFd];
  }

  arm(): boolean {
    if (this.#event === undefined) return false;
    this.#setArmed(1);
    const u32 = this.#u32;
    let at = this.#ring >>> 2;
    for (let queue = this.#queue; queue < RING_QUEUES; queue += this.#queues, at += this.#queues * RING_CELLS) {
      if (load(u32, at + PUT_INDEX) !== load(u32, at + TAKE_INDEX)) return false;
    }
    return true;
  }

  disarm(): void {
    this.#setArmed(0);
    this.#event?.drain();
  }

  fds(): readonly number[] {
    return this.#fds;
  }

  close(): void {}

  #setArmed(on: number): void {
    let at = (this.#ring + armed) >>> 2;
    for (let queue = this.#queue; queue < RING_QUEUES; queue += this.#queues, at += this.#queues * RING_CELLS)
      store(this.#u32, at, on);
  }
}

export interface HandleTxDescription {
  readonly kind: 'local';
  readonly set: number;
  readonly queue: number;
  readonly counters: number;
}

export class HandleTx implements TxBurst {
  readonly #datapath: Lcore['datapath'];
  readonly #u32: Uint32Array;
  readonly #ring: number;
  readonly #armed: number;
  readonly #counters: number;
  #event: EventFd | undefined;

  constructor(lcore: Lcore, { set, queue, counters }: HandleTxDescription) {
    this.#datapath = lcore.datapath;
    this.#u32 = lcore.arena.u32;
    this.#ring = ringOf(set, queue);
    this.#armed = (this.#ring + armed) >>> 2;
    this.#counters = counters;
  }

  burst(handles: number, count: number): number {
    const taken = this.#datapath.handlePut(this.#ring, handles, count, this.#counters);
    if (taken > 0 && load(this.#u32, this.#armed) !== 0) this.#wake();
    return taken;
  }

  close(): void {}

  #wake(): void {
    const fd = load(this.#u32, (this.#ring + wakeFd) >>> 2) - 1;
    if (exchange(this.#u32, this.#armed, 0) === 0 || fd < 0) return;
    if (this.#event?.fd !== fd) this.#event = new EventFd(fd);
    this.#event.signal();
  }
}
