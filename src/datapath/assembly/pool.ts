// Packet buffers: LIFO stacks, so that the buffers in use stay in the cache (facts/performance.md 8.2).
import * as L from './generated';

/** A reset buffer, or 0 when the pool is empty. */
@inline
export function take(pool: u32): u32 {
  const free = load<u32>(pool, L.POOL_FREE);
  if (free == 0) {
    store<u64>(pool, load<u64>(pool, L.POOL_EXHAUSTED) + 1, L.POOL_EXHAUSTED);
    return 0;
  }
  store<u32>(pool, free - 1, L.POOL_FREE);
  const mbuf = load<u32>(load<u32>(pool, L.POOL_STACK) + ((free - 1) << 2));
  store<u32>(mbuf, load<u32>(mbuf, L.MBUF_BUFFER) + load<u32>(pool, L.POOL_HEADROOM), L.MBUF_DATA);
  store<u32>(mbuf, 0, L.MBUF_DATA_LENGTH);
  store<u32>(mbuf, 0, L.MBUF_PACKET_LENGTH);
  store<u32>(mbuf, 0, L.MBUF_NEXT);
  store<u64>(mbuf, 0x100000001, L.MBUF_NEXT + 4); // one segment, one reference
  v128.store(mbuf, i64x2.splat(0), L.MBUF_FLAGS); // flags, hash, vlanTci, packetType
  store<u64>(mbuf, 0, L.MBUF_FLAGS + 16); // mss, l4Offset
  return mbuf;
}

/** Drops a reference to each segment of a chain; those that nobody holds any more go back to their pools. */
export function freeChain(head: u32): void {
  let mbuf = head;
  while (mbuf != 0) {
    const next = load<u32>(mbuf, L.MBUF_NEXT);
    const references = load<u32>(mbuf, L.MBUF_REFERENCES) - 1;
    store<u32>(mbuf, references, L.MBUF_REFERENCES);
    if (references == 0) {
      const pool = load<u32>(mbuf, L.MBUF_POOL);
      const free = load<u32>(pool, L.POOL_FREE);
      store<u32>(load<u32>(pool, L.POOL_STACK) + (free << 2), mbuf);
      store<u32>(pool, free + 1, L.POOL_FREE);
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
