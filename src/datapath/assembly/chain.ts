// Chains of buffers, for frames that are longer than one.
import { copyBytes } from './copy';
import * as L from './generated';
import { take } from './pool';

/** Copies `bytes` bytes behind the packet that begins with `head` and whose last segment is `last`, to further buffers of `pool` (0:
 *  there are none) when that one is full. Returns the last segment then; 0 = no buffer is left, what was copied stays in the chain. */
export function appendChain(pool: u32, head: u32, last: u32, from: u32, bytes: u32): u32 {
  let left = bytes;
  let part = copyPart(head, last, from, left);
  while (part != left) {
    if (pool == 0) return 0;
    const next = take(pool);
    if (next == 0) return 0;
    store<u32>(last, next, L.MBUF_NEXT);
    store<u32>(head, load<u32>(head, L.MBUF_SEGMENTS) + 1, L.MBUF_SEGMENTS);
    last = next;
    from += part;
    left -= part;
    part = copyPart(head, last, from, left);
  }
  return last;
}

/** As much as there is room for in the segment. */
function copyPart(head: u32, segment: u32, from: u32, bytes: u32): u32 {
  const used = load<u32>(segment, L.MBUF_DATA_LENGTH);
  const data = load<u32>(segment, L.MBUF_DATA);
  const room = load<u32>(segment, L.MBUF_BUFFER) + load<u32>(segment, L.MBUF_ROOM) - data - used;
  const part = room < bytes ? room : bytes;
  copyBytes(data + used, from, part);
  store<u32>(segment, used + part, L.MBUF_DATA_LENGTH);
  store<u32>(head, load<u32>(head, L.MBUF_PACKET_LENGTH) + part, L.MBUF_PACKET_LENGTH);
  return part;
}

/** Where packets of a guest's queue that are longer than a buffer go on, 0 = nowhere. */
@inline
export function chainPool(q: u32): u32 {
  return load<u32>(q, L.GUEST_QUEUE_RX_CHAINS) == 0 ? 0 : load<u32>(q, L.GUEST_QUEUE_RX_POOL);
}

/** The first buffer of a coalesced packet: a large one, or that of a chain. 0 = there is none. */
export function takeCoalescing(q: u32): u32 {
  const large = load<u32>(q, L.GUEST_QUEUE_RX_LARGE_POOL);
  const chain = chainPool(q);
  const mbuf = large == 0 ? 0 : take(large);
  return mbuf == 0 && chain != 0 ? take(chain) : mbuf;
}
