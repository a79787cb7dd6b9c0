// Packet pools in an arena: fixed-size buffers with their MBUF cells at the head, handed out from LIFO stacks by the
// compiled data path (datapath poolGet, mbufFree). A pool serves one thread, or the lcores it was made for.
import type { Arena } from './arena.js';
import { MBUF, POOL, POOL_SHARED } from './layout.js';

/** Sizes of a pool. `room` is bytes of data room in each buffer, headroom included. */
export interface PoolOptions {
  readonly name: string;
  readonly count: number;
  readonly room: number;
  readonly headroom: number;
  /** Threads that use it, lcores 0 to lcores - 1 (default 1). */
  readonly lcores?: number;
  /** With several lcores: buffers that each may keep for itself (default 512). */
  readonly cache?: number;
}

/** Enough for RNDIS header and per-packet info in front of a packet, and for a virtio_net_hdr. */
export const HEADROOM = 128;
/** Room of a buffer for frames up to `frameBytes` (an 802.1Q tag may come on top). */
export const smallRoom = (frameBytes: number) => Math.max(2048, HEADROOM + frameBytes + 64);
/** Room of a buffer for the largest TSO packet: 64 KiB of IP packet, Ethernet header and tag. */
export const LARGE_ROOM = HEADROOM + 65_536 + 64;
const CACHE = 512;

/** Bytes from one buffer to the next: never a power of two, which would put all headers into the same cache sets. */
function strideOf(room: number): number {
  const stride = (MBUF.bytes + room + 63) & ~63;
  return (stride & (stride - 1)) === 0 ? stride + 64 : stride;
}

/** Bytes that a pool's buffers take. */
export const poolBytes = (options: PoolOptions) => strideOf(options.room) * options.count;

/** Makes a pool whose buffers lie at `buffers` (poolBytes() bytes, 64-byte aligned). Returns the address of its POOL cells;
 *  release it and the buffers through the arena. */
export function createPool(arena: Arena, buffers: number, options: PoolOptions): number {
  const { count, room, headroom, lcores = 1 } = options;
  const stride = strideOf(room);
  const { u32 } = arena;
  // A thread alone keeps all handles; of several each keeps some, and the others lie on the shared stack.
  const capacity = lcores === 1 ? count : Math.max(2, Math.min(options.cache ?? CACHE, count));
  const own = lcores * POOL.bytes;
  const stacks = own + (lcores === 1 ? 0 : POOL_SHARED.bytes);
  const pool = arena.reserve(`${options.name} pool`, stacks + (lcores * capacity + (lcores === 1 ? 0 : count)) * 4);
  const set = (base: number, offset: number, value: number) => {
    u32[(base + offset) >>> 2] = value;
  };
  const shared = lcores === 1 ? 0 : pool + own;
  for (let lcore = 0; lcore < lcores; lcore++) {
    const cells = pool + lcore * POOL.bytes;
    const { at } = POOL;
    const values = { base: buffers, stride, count, stack: pool + stacks + lcore * capacity * 4, room, headroom };
    for (const [cell, value] of Object.entries(values)) set(cells, at[cell as keyof typeof values], value);
    set(cells, at.free, lcores === 1 ? count : 0);
    set(cells, at.capacity, lcores === 1 ? count + 1 : capacity);
    set(cells, at.shared, shared);
  }
  const full = lcores === 1 ? pool + stacks : pool + stacks + lcores * capacity * 4;
  if (shared !== 0) {
    set(shared, POOL_SHARED.at.free, count);
    set(shared, POOL_SHARED.at.stack, full);
    set(shared, POOL_SHARED.at.bulk, Math.max(1, capacity >>> 1));
  }
  for (let i = 0; i < count; i++) {
    const mbuf = buffers + i * stride;
    set(mbuf, MBUF.at.pool, pool);
    set(mbuf, MBUF.at.room, room);
    set(mbuf, MBUF.at.buffer, mbuf + MBUF.bytes);
    set(full, (count - 1 - i) * 4, mbuf);
  }
  return pool;
}

/** Buffers that are not out. While other threads use the pool the figure is a little old. */
export function poolFree(arena: Arena, pool: number): number {
  const { u32 } = arena;
  const shared = u32[(pool + POOL.at.shared) >>> 2]!;
  if (shared === 0) return u32[(pool + POOL.at.free) >>> 2]!;
  let free = u32[(shared + POOL_SHARED.at.free) >>> 2]!;
  for (let cells = pool; cells < shared; cells += POOL.bytes) free += u32[(cells + POOL.at.free) >>> 2]!;
  return free;
}
