// One rx queue that takes from the rings of one or more tx queues: its own number's, and every further one that is a number of rx queues
// away.
import type { Lcore } from '../../ethdev/driver.js';

export interface RingRow {
  /** Address of the cell with the number of tx queues that send. */
  readonly senders: number;
  /** The first ring, and bytes from the ring of one tx queue to the next one's. */
  readonly first: number;
  readonly stride: number;
  readonly queue: number;
  readonly queues: number;
  readonly counters: number;
}

export class RingReader {
  readonly #take: (ring: number, handles: number, max: number, counters: number) => number;
  readonly #u32: Uint32Array;
  readonly #senders: number;
  readonly #first: number;
  readonly #step: number;
  readonly #queue: number;
  readonly #queues: number;
  readonly #counters: number;
  /** Which of several rings comes first. */
  #turn = 0;

  /** `take` reads one ring. */
  constructor(
    lcore: Lcore,
    take: (ring: number, handles: number, max: number, counters: number) => number,
    row: RingRow,
  ) {
    this.#take = take;
    this.#u32 = lcore.arena.u32;
    this.#senders = row.senders >>> 2;
    this.#first = row.first;
    this.#step = row.stride * row.queues;
    this.#queue = row.queue;
    this.#queues = row.queues;
    this.#counters = row.counters;
  }

  burst(handles: number, max: number): number {
    const mine = this.#u32[this.#senders]! - this.#queue;
    if (mine <= 0) return 0;
    if (mine <= this.#queues) return this.#take(this.#first, handles, max, this.#counters);
    const rings = Math.ceil(mine / this.#queues);
    const first = this.#turn++ % rings;
    let count = 0;
    for (let i = 0; i < rings && count < max; i++) {
      const ring = this.#first + ((first + i) % rings) * this.#step;
      count += this.#take(ring, handles + count * 4, max - count, this.#counters);
    }
    return count;
  }
}
