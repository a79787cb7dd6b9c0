// Queues of a port in the thread that polls them. A queue is used by one thread at a time: bursts take it by an atomic
// exchange, so that control code in another thread can stop it between two bursts.
import { PORT_QUEUE, QUEUE_STATE } from '../memory/layout.js';
import type { Driver, Lcore, RxBurst, TxBurst } from './driver.js';
import { PortError } from './errors.js';

const { STOPPED, READY, BUSY } = QUEUE_STATE;
const { exchange, compareExchange, store } = Atomics;
/** How often tx looks again while the queue is in use, by the other direction of a paired queue or by control code. */
const TX_TRIES = 10_000;
const STOP_MS = 1000;
const NO_FDS: readonly number[] = [];

/** What makes a queue in any thread: plain data. */
export interface QueueHandle {
  readonly driver: string;
  /** Address of the PORT_QUEUE. */
  readonly cells: number;
  readonly description: unknown;
}

/** What another thread needs to poll a port. Plain data. */
export interface PortHandle {
  readonly id: number;
  readonly device: string;
  readonly mac: string;
  readonly rx: readonly QueueHandle[];
  readonly tx: readonly QueueHandle[];
}

export class RxQueue {
  readonly #u32: Uint32Array;
  readonly #state: number;
  readonly #wanted: number;
  readonly #impl: RxBurst;

  constructor(lcore: Lcore, driver: Driver, handle: QueueHandle) {
    this.#u32 = lcore.arena.u32;
    this.#state = (handle.cells + PORT_QUEUE.at.state) >>> 2;
    this.#wanted = (handle.cells + PORT_QUEUE.at.wanted) >>> 2;
    this.#impl = driver.openRx(lcore, handle.description);
  }

  /** Receives up to `max` packets: their mbufs, the caller's from then on, go to the u32 array at arena address `handles`.
   *  Returns how many; 0 also while the port is stopped. */
  burst(handles: number, max: number): number {
    if (this.#u32[this.#wanted] !== 0) return 0;
    if (compareExchange(this.#u32, this.#state, READY, BUSY) !== READY) return 0;
    try {
      return this.#impl.burst(handles, max);
    } finally {
      store(this.#u32, this.#state, READY);
    }
  }

  /** The device wakes who polls fds() when something comes; false = something is there, do not sleep. Queues without
   *  interrupts always say false. */
  arm(): boolean {
    const impl = this.#impl;
    if (impl.arm === undefined || compareExchange(this.#u32, this.#state, READY, BUSY) !== READY) return false;
    try {
      return impl.arm();
    } finally {
      store(this.#u32, this.#state, READY);
    }
  }

  /** Back to polling. `ready`: which of fds() the sleep found something at, when that is known; else all are looked at. */
  disarm(ready?: (fd: number) => boolean): void {
    const impl = this.#impl;
    if (impl.disarm === undefined || compareExchange(this.#u32, this.#state, READY, BUSY) !== READY) return;
    try {
      impl.disarm(ready);
    } finally {
      store(this.#u32, this.#state, READY);
    }
  }

  fds(): readonly number[] {
    return this.#impl.fds?.() ?? NO_FDS;
  }

  /** Gives back what this thread holds of the queue. */
  close(): void {
    this.#impl.close();
  }
}

export class TxQueue {
  readonly #u32: Uint32Array;
  readonly #state: number;
  readonly #wanted: number;
  readonly #impl: TxBurst;

  constructor(lcore: Lcore, driver: Driver, handle: QueueHandle) {
    this.#u32 = lcore.arena.u32;
    this.#state = (handle.cells + PORT_QUEUE.at.state) >>> 2;
    this.#wanted = (handle.cells + PORT_QUEUE.at.wanted) >>> 2;
    this.#impl = driver.openTx(lcore, handle.description);
  }

  /** Sends up to `count` packets of the u32 array of mbufs at arena address `handles`; returns how many were taken, from the
   *  front. The others stay the caller's, to send again or to free. */
  burst(handles: number, count: number): number {
    const u32 = this.#u32;
    const state = this.#state;
    if (u32[this.#wanted] !== 0) return 0;
    for (let i = 0; compareExchange(u32, state, READY, BUSY) !== READY; i++) {
      if (u32[state] === STOPPED || i === TX_TRIES) return 0;
    }
    try {
      return this.#impl.burst(handles, count);
    } finally {
      store(u32, state, READY);
    }
  }

  close(): void {
    this.#impl.close();
  }
}

/** Lets bursts run from now on. */
export function startQueue(u32: Uint32Array, cells: number): void {
  store(u32, (cells + PORT_QUEUE.at.state) >>> 2, READY);
}

/** Waits for the burst that may be running, and lets none run from then on. Throws PortError when it does not end. */
export function stopQueue(u32: Uint32Array, cells: number, where: string): void {
  const state = (cells + PORT_QUEUE.at.state) >>> 2;
  const wanted = (cells + PORT_QUEUE.at.wanted) >>> 2;
  const began = performance.now();
  store(u32, wanted, 1); // who polls without a pause leaves next to no time between two bursts
  try {
    while (compareExchange(u32, state, READY, STOPPED) === BUSY) {
      if (performance.now() - began > STOP_MS)
        throw new PortError('ETIMEDOUT', where, `a burst did not end within ${STOP_MS} ms`);
    }
  } finally {
    store(u32, wanted, 0);
  }
}

/** Runs control code while no burst does; the queue goes on as before. False = it was in use just now, try again later. */
export function betweenBursts(u32: Uint32Array, cells: number, what: () => void): boolean {
  const state = (cells + PORT_QUEUE.at.state) >>> 2;
  const before = compareExchange(u32, state, READY, BUSY);
  if (before === BUSY) return false;
  try {
    what();
  } finally {
    if (before === READY) exchange(u32, state, READY);
  }
  return true;
}
