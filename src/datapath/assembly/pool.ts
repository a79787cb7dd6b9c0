// Packet buffers: LIFO stacks, so that the buffers in use stay in the cache (facts/performance.md 8.2).
import {
  MBUF_BUFFER,
  MBUF_DATA,
  MBUF_DATA_LENGTH,
  MBUF_FLAGS,
  MBUF_NEXT,
  MBUF_PACKET_LENGTH,
  MBUF_POOL,
  MBUF_REFERENCES,
  POOL_EXHAUSTED,
  POOL_FREE,
  POOL_HEADROOM,
  POOL_STACK,
} from './generated';

/** A reset buffer, or 0 when the pool is empty. */
@inline
export function take(pool: u32): u32 {
  const free = load<u32>(pool, POOL_FREE);
  if (free == 0) {
    store<u64>(pool, load<u64>(pool, POOL_EXHAUSTED) + 1, POOL_EXHAUSTED);
    return 0;
  }
  store<u32>(pool, free - 1, POOL_FREE);
  const mbuf = load<u32>(load<u32>(pool, POOL_STACK) + ((free - 1) << 2));
  store<u32>(mbuf, load<u32>(mbuf, MBUF_BUFFER) + load<u32>(pool, POOL_HEADROOM), MBUF_DATA);
  store<u32>(mbuf, 0, MBUF_DATA_LENGTH);
  store<u32>(mbuf, 0, MBUF_PACKET_LENGTH);
  store<u32>(mbuf, 0, MBUF_NEXT);
  store<u64>(mbuf, 0x100000001, MBUF_NEXT + 4); // one segment, one reference
  v128.store(mbuf, i64x2.splat(0), MBUF_FLAGS); // flags, hash, vlanTci, packetType
  store<u64>(mbuf, 0, MBUF_FLAGS + 16); // mss, l4Offset
  return mbuf;
}

/** Drops a reference to each segment of a chain; those that nobody holds any more go back to their pools. */
export function freeChain(head: u32): void {
  let mbuf = head;
  while (mbuf != 0) {
    const next = load<u32>(mbuf, MBUF_NEXT);
    const references = load<u32>(mbuf, MBUF_REFERENCES) - 1;
    store<u32>(mbuf, references, MBUF_REFERENCES);
    if (references == 0) {
      const pool = load<u32>(mbuf, MBUF_POOL);
      const free = load<u32>(pool, POOL_FREE);
      store<u32>(load<u32>(pool, POOL_STACK) + (free << 2), mbuf);
      store<u32>(pool, free + 1, POOL_FREE);
    }
    mbuf = next;
  }
}

export function poolGet(pool: u32, handles: u32, wanted: u32): u32 {
  let n: u32 = 0;
  for (; n < wanted; n++) {
    const mbuf = take(pool);
    if (mbuf == 0) break;
    store<u32>(handles + (n << 2), mbuf);
  }
  return n;
}

export function mbufFree(handles: u32, n: u32): void {
  for (let i: u32 = 0; i < n; i++) freeChain(load<u32>(handles + (i << 2)));
}
