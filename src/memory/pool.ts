// Packet pools in an arena: fixed-size buffers with their MBUF cells at the head, handed out from a LIFO stack by the
// compiled data path (datapath poolGet, mbufFree). One worker owns a pool.
import type { Arena } from './arena.js';
import { MBUF, POOL } from './layout.js';

/** Sizes of a pool. `room` is bytes of data room in each buffer, headroom included. */
export interface PoolOptions {
  readonly name: string;
  readonly count: number;
  readonly room: number;
  readonly headroom: number;
}

/** Enough for RNDIS header and per-packet info in front of a packet, and for a virtio_net_hdr. */
export const HEADROOM = 128;
/** Room of a buffer for frames up to `frameBytes` (an 802.1Q tag may come on top). */
export const smallRoom = (frameBytes: number) => Math.max(2048, HEADROOM + frameBytes + 64);
/** Room of a buffer for the largest TSO packet: 64 KiB of IP packet, Ethernet header and tag. */
export const LARGE_ROOM = HEADROOM + 65_536 + 64;

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
  const stride = strideOf(options.room);
  const { u32 } = arena;
  const pool = arena.reserve(`${options.name} pool`, POOL.bytes + options.count * 4);
  const stack = pool + POOL.bytes;
  const set = (base: number, offset: number, value: number) => {
    u32[(base + offset) >>> 2] = value;
  };
  set(pool, POOL.at.base, buffers);
  set(pool, POOL.at.stride, stride);
  set(pool, POOL.at.count, options.count);
  set(pool, POOL.at.stack, stack);
  set(pool, POOL.at.free, options.count);
  set(pool, POOL.at.room, options.room);
  set(pool, POOL.at.headroom, options.headroom);
  for (let i = 0; i < options.count; i++) {
    const mbuf = buffers + i * stride;
    set(mbuf, MBUF.at.pool, pool);
    set(mbuf, MBUF.at.room, options.room);
    set(mbuf, MBUF.at.buffer, mbuf + MBUF.bytes);
    set(stack, (options.count - 1 - i) * 4, mbuf);
  }
  return pool;
}

/** Buffers that are not out. */
export const poolFree = (arena: Arena, pool: number) => arena.u32[(pool + POOL.at.free) >>> 2]!;
