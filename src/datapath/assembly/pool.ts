// Packet buffers: LIFO stacks, so that the buffers in use stay in the cache (facts/performance.md 8.2). Each thread has a
// stack of its own; those of a pool of several threads exchange handles in bulk with a shared one.
import * as L from './generated';

/** MBUF.segments and references of a fresh buffer, as one word. */
const SINGLE: u64 = 0x1_0000_0001;
const BORROWED: u32 = L.PACKET_FLAG_EXTERNAL | L.PACKET_FLAG_INDIRECT;

/** From a pool's address to this thread's stack. */
let own: u32 = 0;

export function useLcore(lcore: u32): void {
  own = lcore * L.SIZEOF_POOL;
}

function lock(shared: u32): void {
  while (atomic.cmpxchg<u32>(shared + L.POOL_SHARED_LOCK, 0, 1) != 0) {}
}

@inline
function unlock(shared: u32): void {
  atomic.store<u32>(shared + L.POOL_SHARED_LOCK, 0);
}

/** Fills an empty stack. Returns how many handles are on it. */
function refill(stack: u32): u32 {
  const shared = load<u32>(stack, L.POOL_SHARED);
  if (shared == 0) return 0;
  lock(shared);
  const there = load<u32>(shared, L.POOL_SHARED_FREE);
  const wanted = load<u32>(shared, L.POOL_SHARED_BULK);
  const n = wanted < there ? wanted : there;
  memory.copy(load<u32>(stack, L.POOL_STACK), load<u32>(shared, L.POOL_SHARED_STACK) + ((there - n) << 2), n << 2);
  store<u32>(shared, there - n, L.POOL_SHARED_FREE);
  unlock(shared);
  return n;
}

/** Makes room on a full stack. Returns how many handles are left on it. */
function spill(stack: u32, free: u32): u32 {
  const shared = load<u32>(stack, L.POOL_SHARED);
  const n = load<u32>(shared, L.POOL_SHARED_BULK);
  lock(shared);
  const there = load<u32>(shared, L.POOL_SHARED_FREE);
  memory.copy(load<u32>(shared, L.POOL_SHARED_STACK) + (there << 2), load<u32>(stack, L.POOL_STACK) + ((free - n) << 2), n << 2);
  store<u32>(shared, there + n, L.POOL_SHARED_FREE);
  unlock(shared);
  return free - n;
}

function exhausted(stack: u32): void {
  store<u64>(stack, load<u64>(stack, L.POOL_EXHAUSTED) + 1, L.POOL_EXHAUSTED);
}

/** Has this thread a free buffer with room for that many bytes? False may also mean that take() has to fetch some. */
@inline
export function hasBuffer(pool: u32, bytes: u32): bool {
  if (pool == 0) return false;
  if (load<u32>(pool + own, L.POOL_FREE) == 0) return false;
  return bytes <= load<u32>(pool, L.POOL_ROOM) - load<u32>(pool, L.POOL_HEADROOM);
}

/** Takes a buffer off a stack that has one; its cells hold what the last user left. */
@inline
export function pop(pool: u32): u32 {
  const stack = pool + own;
  const free = load<u32>(stack, L.POOL_FREE) - 1;
  store<u32>(stack, free, L.POOL_FREE);
  return load<u32>(load<u32>(stack, L.POOL_STACK) + (free << 2));
}

/** Where a fresh buffer's data begins. */
@inline
export function freshData(pool: u32, mbuf: u32): u32 {
  return load<u32>(mbuf, L.MBUF_BUFFER) + load<u32>(pool, L.POOL_HEADROOM);
}

/** Sets all cells of a buffer that a packet changes: one segment, one reference, `bytes` bytes at `data`. Two to a store. */
@inline
export function reset(mbuf: u32, data: u32, bytes: u32, flags: u32): void {
  store<u64>(mbuf, <u64>data | (<u64>bytes << 32), L.MBUF_DATA);
  store<u64>(mbuf, <u64>bytes, L.MBUF_PACKET_LENGTH); // and next
  store<u64>(mbuf, SINGLE, L.MBUF_SEGMENTS);
  store<u64>(mbuf, <u64>flags, L.MBUF_FLAGS); // and hash
  v128.store(mbuf, i64x2.splat(0), L.MBUF_VLAN_TCI); // packetType, mss, l4Offset
}

/** A reset buffer, or 0 when the pool is empty. */
@inline
export function take(pool: u32): u32 {
  const stack = pool + own;
  let free = load<u32>(stack, L.POOL_FREE);
  if (free == 0) {
    free = refill(stack);
    if (free == 0) {
      exhausted(stack);
      return 0;
    }
  }
  store<u32>(stack, free - 1, L.POOL_FREE);
  const mbuf = load<u32>(load<u32>(stack, L.POOL_STACK) + ((free - 1) << 2));
  reset(mbuf, freshData(pool, mbuf), 0, 0);
  return mbuf;
}

@inline
function giveBack(mbuf: u32): void {
  const stack = load<u32>(mbuf, L.MBUF_POOL) + own;
  let free = load<u32>(stack, L.POOL_FREE);
  if (free == load<u32>(stack, L.POOL_CAPACITY)) free = spill(stack, free);
  store<u32>(load<u32>(stack, L.POOL_STACK) + (free << 2), mbuf);
  store<u32>(stack, free + 1, L.POOL_FREE);
}

/** Drops `n` references; true when they were the last ones. Who holds all there are needs no atomic. */
@inline
function drop(cell: u32, n: u32 = 1): bool {
  if (load<u32>(cell) == n) {
    store<u32>(cell, 0);
    return true;
  }
  return atomic.sub<u32>(cell, n) == n;
}

/** Gives a buffer its own data room again. */
@inline
function restore(mbuf: u32, flags: u32): void {
  store<u32>(mbuf, flags & ~BORROWED, L.MBUF_FLAGS);
  store<u32>(mbuf, mbuf + L.SIZEOF_MBUF, L.MBUF_BUFFER);
  store<u32>(mbuf, load<u32>(load<u32>(mbuf, L.MBUF_POOL), L.POOL_ROOM), L.MBUF_ROOM);
}

/** The same, and drops what it showed instead. */
function detach(mbuf: u32, flags: u32): void {
  const borrowed = load<u32>(mbuf, L.MBUF_BORROWED);
  restore(mbuf, flags);
  if (flags & L.PACKET_FLAG_EXTERNAL) externalDrop(borrowed);
  else freeSegment(borrowed);
}

/** Drops a reference to an EXTERNAL_BUFFER. */
export function externalDrop(external: u32): void {
  externalDropMany(external, 1);
}

/** Drops `n` references to it. */
export function externalDropMany(external: u32, n: u32): void {
  if (!drop(external + L.EXTERNAL_BUFFER_REFERENCES, n)) return;
  const owner = load<u32>(external, L.EXTERNAL_BUFFER_OWNER);
  let first = atomic.load<u32>(owner);
  for (;;) {
    store<u32>(external, first, L.EXTERNAL_BUFFER_NEXT);
    const seen = atomic.cmpxchg<u32>(owner, first, external);
    if (seen == first) return;
    first = seen;
  }
}

function freeSegment(mbuf: u32): void {
  if (!drop(mbuf + L.MBUF_REFERENCES)) return;
  const flags = load<u32>(mbuf, L.MBUF_FLAGS);
  if (flags & BORROWED) detach(mbuf, flags);
  giveBack(mbuf);
}

/** Drops a reference to each segment of a chain; those that nobody holds any more go back to their pools. */
export function freeChain(head: u32): void {
  let mbuf = head;
  while (mbuf != 0) {
    const next = load<u32>(mbuf, L.MBUF_NEXT);
    if (drop(mbuf + L.MBUF_REFERENCES)) {
      const flags = load<u32>(mbuf, L.MBUF_FLAGS);
      if (flags & BORROWED) detach(mbuf, flags);
      giveBack(mbuf);
    }
    mbuf = next;
  }
}

/** The same for a chain of one that borrows nothing, short for what is held once. */
@inline
export function freeOwn(mbuf: u32): void {
  if (load<u64>(mbuf, L.MBUF_SEGMENTS) == SINGLE) giveBack(mbuf);
  else freeChain(mbuf);
}

export function poolGet(pool: u32, handles: u32, wanted: u32): u32 {
  const stack = pool + own;
  const headroom = load<u32>(pool, L.POOL_HEADROOM);
  const end = handles + (wanted << 2);
  let to = handles;
  while (to != end) {
    let free = load<u32>(stack, L.POOL_FREE);
    if (free == 0) free = refill(stack);
    if (free == 0) {
      exhausted(stack);
      break;
    }
    let n = (end - to) >>> 2;
    if (n > free) n = free;
    let top = load<u32>(stack, L.POOL_STACK) + (free << 2);
    for (const stop = to + (n << 2); to != stop; to += 4) {
      top -= 4;
      const mbuf = load<u32>(top);
      reset(mbuf, load<u32>(mbuf, L.MBUF_BUFFER) + headroom, 0, 0);
      store<u32>(to, mbuf);
    }
    store<u32>(stack, free - n, L.POOL_FREE);
  }
  return (to - handles) >>> 2;
}

export function mbufFree(handles: u32, n: u32): void {
  // Frames of one message show one EXTERNAL_BUFFER, and are mostly freed together.
  let external: u32 = 0;
  let shown: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    const flags = load<u32>(mbuf, L.MBUF_FLAGS);
    if ((flags & BORROWED) == 0) {
      if (load<u32>(mbuf, L.MBUF_NEXT) != 0) freeChain(mbuf);
      else freeOwn(mbuf);
    } else if ((flags & BORROWED) != L.PACKET_FLAG_EXTERNAL || load<u32>(mbuf, L.MBUF_NEXT) != 0 || load<u64>(mbuf, L.MBUF_SEGMENTS) != SINGLE) {
      freeChain(mbuf);
    } else {
      const borrowed = load<u32>(mbuf, L.MBUF_BORROWED);
      restore(mbuf, flags);
      giveBack(mbuf);
      if (borrowed != external) {
        if (shown != 0) externalDropMany(external, shown);
        external = borrowed;
        shown = 0;
      }
      shown++;
    }
  }
  if (shown != 0) externalDropMany(external, shown);
}
