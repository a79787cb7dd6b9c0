// A pool of mbufs that all lcores of a process share.
import type { Arena } from '../memory/arena.js';
import { POOL } from '../memory/layout.js';
import { createPool, HEADROOM, type PoolOptions, poolBytes, poolFree } from '../memory/pool.js';

export interface MempoolOptions {
  readonly count: number;
  /** Bytes of data room in each mbuf, headroom included (default 2048 + headroom). */
  readonly room?: number;
  /** Bytes in front of fresh data (default 128; netvsc needs 108 to send without copying). */
  readonly headroom?: number;
  /** Mbufs that each lcore keeps for itself (default 512). */
  readonly cache?: number;
}

export class Mempool {
  readonly name: string;
  /** Address of its POOL cells: what compiled code takes. */
  readonly address: number;
  readonly count: number;
  readonly room: number;
  readonly headroom: number;
  readonly #arena: Arena;
  readonly #lcores: number;

  /** `buffers`: address of bytes(options) bytes of packet memory. */
  constructor(arena: Arena, name: string, buffers: number, options: MempoolOptions, lcores: number) {
    const full = complete(name, options, lcores);
    this.name = name;
    this.count = full.count;
    this.room = full.room;
    this.headroom = full.headroom;
    this.#arena = arena;
    this.#lcores = lcores;
    this.address = createPool(arena, buffers, full);
  }

  /** Bytes of packet memory that such a pool takes. */
  static bytes(options: MempoolOptions): number {
    return poolBytes(complete('', options, 1));
  }

  /** Mbufs that are not out; a little old while other threads are at work. */
  get available(): number {
    return poolFree(this.#arena, this.address);
  }

  /** Requests that found no mbuf. */
  get exhausted(): number {
    let sum = 0;
    const at = (this.address + POOL.at.exhausted) >>> 2;
    const { u32 } = this.#arena;
    for (let lcore = 0; lcore < this.#lcores; lcore++) {
      const cell = at + (lcore * POOL.bytes) / 4;
      sum += u32[cell]! + u32[cell + 1]! * 2 ** 32;
    }
    return sum;
  }

  /** Every mbuf must be back. The packet memory is the caller's. */
  release(): void {
    this.#arena.release(this.address);
  }
}

function complete(name: string, options: MempoolOptions, lcores: number): PoolOptions {
  const { count, headroom = HEADROOM, room = 2048 + headroom, cache } = options;
  const integer = (value: number, min: number) => Number.isInteger(value) && value >= min;
  if (!integer(count, 1)) throw new RangeError(`mempool ${name}: expected a count of at least 1, got ${count}`);
  if (!integer(headroom, 0) || !integer(room, headroom + 64))
    throw new RangeError(`mempool ${name}: expected room for headroom (${headroom}) and 64 bytes more, got ${room}`);
  return { name, count, room, headroom, lcores, ...(cache === undefined ? {} : { cache }) };
}
