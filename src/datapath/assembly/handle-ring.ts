// Mbufs from one thread to another: a ring of handles with one writer and one reader. Indices are published once a burst.
import * as L from './generated';

@inline
const PUT: u32 = L.SIZEOF_HANDLE_RING;
@inline
const TAKE: u32 = L.SIZEOF_HANDLE_RING + L.SIZEOF_HANDLE_RING_END;

@inline
export function countPackets(counters: u32, packets: u32, bytes: u64): void {
  store<u64>(counters, load<u64>(counters, L.PORT_COUNTERS_PACKETS) + packets, L.PORT_COUNTERS_PACKETS);
  store<u64>(counters, load<u64>(counters, L.PORT_COUNTERS_BYTES) + bytes, L.PORT_COUNTERS_BYTES);
}

export function handlePut(ring: u32, handles: u32, count: u32, counters: u32): u32 {
  if (load<u32>(ring, L.HANDLE_RING_OPEN) == 0) return 0;
  const limit = load<u32>(ring, L.HANDLE_RING_LIMIT);
  const index = load<u32>(ring + PUT, L.HANDLE_RING_END_INDEX);
  let used = index - load<u32>(ring + PUT, L.HANDLE_RING_END_SEEN);
  if (used + count > limit) {
    const seen = atomic.load<u32>(ring + TAKE, L.HANDLE_RING_END_INDEX);
    store<u32>(ring + PUT, seen, L.HANDLE_RING_END_SEEN);
    used = index - seen;
    if (used >= limit) return 0;
  }
  const n = count < limit - used ? count : limit - used;
  if (n == 0) return 0;
  const entries = load<u32>(ring, L.HANDLE_RING_ENTRIES);
  const mask = load<u32>(ring, L.HANDLE_RING_MASK);
  let bytes: u64 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    bytes += load<u32>(mbuf, L.MBUF_PACKET_LENGTH);
    store<u32>(entries + (((index + i) & mask) << 2), mbuf);
  }
  atomic.store<u32>(ring + PUT, index + n, L.HANDLE_RING_END_INDEX);
  countPackets(counters, n, bytes);
  return n;
}

export function handleTake(ring: u32, handles: u32, max: u32, counters: u32): u32 {
  const index = load<u32>(ring + TAKE, L.HANDLE_RING_END_INDEX);
  let there = load<u32>(ring + TAKE, L.HANDLE_RING_END_SEEN) - index;
  if (there < max) {
    const seen = atomic.load<u32>(ring + PUT, L.HANDLE_RING_END_INDEX);
    store<u32>(ring + TAKE, seen, L.HANDLE_RING_END_SEEN);
    there = seen - index;
  }
  const n = max < there ? max : there;
  if (n == 0) return 0;
  const entries = load<u32>(ring, L.HANDLE_RING_ENTRIES);
  const mask = load<u32>(ring, L.HANDLE_RING_MASK);
  let bytes: u64 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const mbuf = load<u32>(entries + (((index + i) & mask) << 2));
    bytes += load<u32>(mbuf, L.MBUF_PACKET_LENGTH);
    store<u32>(handles + (i << 2), mbuf);
  }
  atomic.store<u32>(ring + TAKE, index + n, L.HANDLE_RING_END_INDEX);
  countPackets(counters, n, bytes);
  return n;
}
