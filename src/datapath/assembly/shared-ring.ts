// Frames between two processes: a ring of slots in a file that both map. What the peer writes is read once, checked, and
// used from this side's copy; a peer that breaks the rules is not listened to any more.
import { appendChain } from './chain';
import { copyBytes } from './copy';
import * as L from './generated';
import { countPackets } from './handle-ring';
import { freeChain, take } from './pool';

@inline
const READER: u32 = L.SIZEOF_SHARED_RING;
@inline
const CARRIED: u32 = L.PACKET_FLAG_VLAN | L.PACKET_FLAG_HASH;

@inline
function slotsOf(bytes: u32): u32 {
  return (bytes + (L.SIZEOF_SHARED_FRAME + L.SHARED_SLOT_BYTES - 1)) / L.SHARED_SLOT_BYTES;
}

function countErrors(counters: u32, n: u32): void {
  store<u64>(counters, load<u64>(counters, L.PORT_COUNTERS_ERRORS) + n, L.PORT_COUNTERS_ERRORS);
}

function fail(end: u32, fault: u32, value: u32): u32 {
  store<u32>(end, fault, L.SHARED_RING_END_FAULT);
  store<u32>(end, value, L.SHARED_RING_END_FAULT_VALUE);
  return 0;
}

/** Slots that can be written. */
function room(end: u32, ring: u32, index: u32, slots: u32): u32 {
  const before = load<u32>(end, L.SHARED_RING_END_SEEN);
  const read = atomic.load<u32>(ring + READER, L.SHARED_RING_READER_READ);
  // It never steps back, nor beyond what was written.
  if (read - before > index - before) return fail(end, L.SHARED_FAULT_INDEX, read);
  store<u32>(end, read, L.SHARED_RING_END_SEEN);
  return slots - (index - read);
}

export function sharedPut(end: u32, handles: u32, count: u32, counters: u32): u32 {
  const ring = load<u32>(end, L.SHARED_RING_END_RING);
  if (ring == 0 || load<u32>(end, L.SHARED_RING_END_OPEN) == 0) return 0;
  if (load<u32>(end, L.SHARED_RING_END_FAULT) != 0) return 0;
  const slots = load<u32>(end, L.SHARED_RING_END_SLOTS);
  const longest = load<u32>(end, L.SHARED_RING_END_MAX_BYTES);
  const data = ring + L.SHARED_RING_DATA;
  const size = slots * L.SHARED_SLOT_BYTES;
  const first = load<u32>(end, L.SHARED_RING_END_INDEX);
  let index = first;
  let free = slots - (index - load<u32>(end, L.SHARED_RING_END_SEEN));
  let n: u32 = 0;
  let sent: u32 = 0;
  let errors: u32 = 0;
  let total: u64 = 0;
  for (; n < count; n++) {
    const mbuf = load<u32>(handles + (n << 2));
    const bytes = load<u32>(mbuf, L.MBUF_PACKET_LENGTH);
    if (bytes == 0 || bytes > longest) {
      errors++;
      continue;
    }
    const needed = slotsOf(bytes);
    if (needed > free) {
      free = room(end, ring, index, slots);
      if (needed > free) break;
    }
    let at = (index & (slots - 1)) * L.SHARED_SLOT_BYTES;
    store<u32>(data + at, bytes, L.SHARED_FRAME_LENGTH);
    store<u32>(data + at, load<u32>(mbuf, L.MBUF_FLAGS) & CARRIED, L.SHARED_FRAME_FLAGS);
    store<u32>(data + at, load<u32>(mbuf, L.MBUF_VLAN_TCI), L.SHARED_FRAME_VLAN_TCI);
    store<u32>(data + at, load<u32>(mbuf, L.MBUF_HASH), L.SHARED_FRAME_HASH);
    at += L.SIZEOF_SHARED_FRAME; // a slot is longer
    let left = bytes;
    for (let segment = mbuf; segment != 0 && left > 0; segment = load<u32>(segment, L.MBUF_NEXT)) {
      let from = load<u32>(segment, L.MBUF_DATA);
      let part = load<u32>(segment, L.MBUF_DATA_LENGTH);
      if (part > left) part = left;
      left -= part;
      if (part > size - at) {
        const front = size - at;
        copyBytes(data + at, from, front);
        from += front;
        part -= front;
        at = 0;
      }
      copyBytes(data + at, from, part);
      at += part;
      if (at == size) at = 0;
    }
    index += needed;
    free -= needed;
    total += bytes;
    sent++;
  }
  if (sent != 0) {
    store<u32>(end, index, L.SHARED_RING_END_INDEX);
    atomic.store<u32>(ring, index, L.SHARED_RING_WRITTEN);
    countPackets(counters, sent, total);
  }
  if (errors != 0) countErrors(counters, errors);
  for (let i: u32 = 0; i < n; i++) freeChain(load<u32>(handles + (i << 2)));
  return n;
}

/** Copies `bytes` at offset `at` of the slots behind `head`. False: no buffer is left. */
function copyOut(pool: u32, head: u32, data: u32, size: u32, at: u32, bytes: u32): bool {
  const front = size - at < bytes ? size - at : bytes;
  const last = appendChain(pool, head, head, data + at, front);
  if (last == 0) return false;
  return front == bytes || appendChain(pool, head, last, data, bytes - front) != 0;
}

export function sharedTake(end: u32, handles: u32, max: u32, counters: u32): u32 {
  const ring = load<u32>(end, L.SHARED_RING_END_RING);
  if (ring == 0 || load<u32>(end, L.SHARED_RING_END_FAULT) != 0) return 0;
  const slots = load<u32>(end, L.SHARED_RING_END_SLOTS);
  const pool = load<u32>(end, L.SHARED_RING_END_POOL);
  const scatter = load<u32>(end, L.SHARED_RING_END_SCATTER) != 0;
  const longest = load<u32>(end, L.SHARED_RING_END_MAX_BYTES);
  const fits = load<u32>(pool, L.POOL_ROOM) - load<u32>(pool, L.POOL_HEADROOM);
  const data = ring + L.SHARED_RING_DATA;
  const size = slots * L.SHARED_SLOT_BYTES;
  const first = load<u32>(end, L.SHARED_RING_END_INDEX);
  let index = first;
  let there = load<u32>(end, L.SHARED_RING_END_SEEN) - index;
  let n: u32 = 0;
  let errors: u32 = 0;
  let total: u64 = 0;
  while (n < max) {
    if (there == 0) {
      const written = atomic.load<u32>(ring, L.SHARED_RING_WRITTEN);
      there = written - index;
      if (there > slots) {
        fail(end, L.SHARED_FAULT_INDEX, written);
        break;
      }
      store<u32>(end, written, L.SHARED_RING_END_SEEN);
      if (there == 0) break;
    }
    let at = (index & (slots - 1)) * L.SHARED_SLOT_BYTES;
    const bytes = load<u32>(data + at, L.SHARED_FRAME_LENGTH);
    if (bytes == 0 || bytes > longest || slotsOf(bytes) > there) {
      fail(end, L.SHARED_FAULT_LENGTH, bytes);
      break;
    }
    const needed = slotsOf(bytes);
    if (bytes > fits && !scatter) {
      errors++;
    } else {
      const mbuf = take(pool);
      if (mbuf == 0) {
        store<u64>(counters, load<u64>(counters, L.PORT_COUNTERS_NO_MBUFS) + 1, L.PORT_COUNTERS_NO_MBUFS);
        break;
      }
      const flags = load<u32>(data + at, L.SHARED_FRAME_FLAGS) & CARRIED;
      store<u32>(mbuf, flags, L.MBUF_FLAGS);
      store<u32>(mbuf, load<u32>(data + at, L.SHARED_FRAME_VLAN_TCI) & 0xffff, L.MBUF_VLAN_TCI);
      store<u32>(mbuf, load<u32>(data + at, L.SHARED_FRAME_HASH), L.MBUF_HASH);
      if (!copyOut(scatter ? pool : 0, mbuf, data, size, at + L.SIZEOF_SHARED_FRAME, bytes)) {
        freeChain(mbuf);
        store<u64>(counters, load<u64>(counters, L.PORT_COUNTERS_NO_MBUFS) + 1, L.PORT_COUNTERS_NO_MBUFS);
        break;
      }
      store<u32>(handles + (n << 2), mbuf);
      total += bytes;
      n++;
    }
    index += needed;
    there -= needed;
  }
  if (index != first) {
    store<u32>(end, index, L.SHARED_RING_END_INDEX);
    atomic.store<u32>(ring + READER, index, L.SHARED_RING_READER_READ);
    countPackets(counters, n, total);
    if (errors != 0) countErrors(counters, errors);
  }
  return n;
}
