// Bursts on the queues of a net_ring between two processes. Everything that changes with the peer stands in cells.
import type { Lcore, RxBurst, TxBurst } from '../../ethdev/driver.js';
import { SHARED_RING, SHARED_RING_END, SHARED_RING_READER } from '../../memory/layout.js';
import { receiveWord, sendWord } from '../../memory/os/socket.js';
import { RingReader } from './ring-reader.js';

const { ring: ringCell, index: indexCell, wakeFd: fdCell } = SHARED_RING_END.at;
const END_CELLS = SHARED_RING_END.bytes / 4;
const WRITTEN = SHARED_RING.at.written >>> 2;
const ARMED = (SHARED_RING.bytes + SHARED_RING_READER.at.armed) >>> 2;
/** Words on a queue's socket say nothing but "look". */
const LOOK = 1;
const { load, store, exchange } = Atomics;

export interface SharedRxDescription {
  readonly kind: 'shared';
  /** Cell with the peer's number of tx queues. */
  readonly senders: number;
  /** SHARED_RING_END of rx queue 0; those of the others follow. */
  readonly ends: number;
  readonly queue: number;
  readonly queues: number;
  /** Queues that a link may have. */
  readonly most: number;
  readonly counters: number;
}

export class SharedRx extends RingReader implements RxBurst {
  readonly #u32: Uint32Array;
  readonly #setup: SharedRxDescription;

  constructor(lcore: Lcore, setup: SharedRxDescription) {
    const { senders, ends, queue, queues, counters } = setup;
    const first = ends + queue * SHARED_RING_END.bytes;
    super(lcore, lcore.datapath.sharedTake, { senders, first, stride: SHARED_RING_END.bytes, queue, queues, counters });
    this.#u32 = lcore.arena.u32;
    this.#setup = setup;
  }

  arm(): boolean {
    let empty = true;
    for (let at = this.#first(); at < this.#last(); at += this.#step()) {
      const ring = this.#u32[at + (ringCell >>> 2)]! >>> 2;
      if (ring === 0) continue;
      store(this.#u32, ring + ARMED, 1);
      if (load(this.#u32, ring + WRITTEN) !== this.#u32[at + (indexCell >>> 2)]!) empty = false;
    }
    return empty;
  }

  disarm(): void {
    for (let at = this.#first(); at < this.#last(); at += this.#step()) {
      const ring = this.#u32[at + (ringCell >>> 2)]! >>> 2;
      if (ring === 0) continue;
      store(this.#u32, ring + ARMED, 0);
      const fd = this.#u32[at + (fdCell >>> 2)]! - 1;
      while (receiveWord(fd) >= 0); // a peer that writes without end is read as fast as it writes
    }
  }

  fds(): readonly number[] {
    const list: number[] = [];
    for (let at = this.#first(); at < this.#last(); at += this.#step()) {
      if (this.#u32[at + (ringCell >>> 2)] !== 0) list.push(this.#u32[at + (fdCell >>> 2)]! - 1);
    }
    return list;
  }

  close(): void {}

  #first(): number {
    return (this.#setup.ends >>> 2) + this.#setup.queue * END_CELLS;
  }
  #last(): number {
    return (this.#setup.ends >>> 2) + this.#setup.most * END_CELLS;
  }
  #step(): number {
    return this.#setup.queues * END_CELLS;
  }
}

export interface SharedTxDescription {
  readonly kind: 'shared';
  /** SHARED_RING_END. */
  readonly end: number;
  readonly counters: number;
}

export class SharedTx implements TxBurst {
  readonly #datapath: Lcore['datapath'];
  readonly #u32: Uint32Array;
  readonly #end: number;
  readonly #counters: number;

  constructor(lcore: Lcore, { end, counters }: SharedTxDescription) {
    this.#datapath = lcore.datapath;
    this.#u32 = lcore.arena.u32;
    this.#end = end;
    this.#counters = counters;
  }

  burst(handles: number, count: number): number {
    const taken = this.#datapath.sharedPut(this.#end, handles, count, this.#counters);
    if (taken === 0) return 0;
    const armed = (this.#u32[(this.#end + ringCell) >>> 2]! >>> 2) + ARMED;
    if (load(this.#u32, armed) !== 0 && exchange(this.#u32, armed, 0) !== 0)
      sendWord(this.#u32[(this.#end + fdCell) >>> 2]! - 1, LOOK);
    return taken;
  }

  close(): void {}
}
