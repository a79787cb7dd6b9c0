// A port's bursts over a guest queue: packets that were received while nobody asked wait in a list and are handed out first;
// sends that need room look for completions themselves, since their thread need not be one that receives.
import { classify, countKind } from './classify';
import * as L from './generated';
import { guestPoll, guestReap } from './guest-receive';
import { guestSend } from './guest-send';
import { load16 } from './headers';
import { freeChain } from './pool';
import { count } from './ring';

/** Packets at a time. The list has so much room more than its capacity, for those that are dropped. */
const ROUND: u32 = 64;
const ROUNDS: u32 = 16;
/** Messages that a port sends between two looks for completions, if nobody receives on it: what is free is used in LIFO order, so
 *  that the memory in use stays in the cache, while each look may cost a cache line that the host has just written. */
const REAP: u32 = 64;
const BORROWED: u32 = L.PACKET_FLAG_EXTERNAL | L.PACKET_FLAG_INDIRECT;

/** Reads the ring of a port that has a channel: packets go to its list. When that is full, the rest stays in the ring, or is dropped
 *  if nobody receives. Returns how many came. */
export function portStage(port: u32): u32 {
  const q = load<u32>(port, L.GUEST_PORT_QUEUE);
  if (q == 0) return 0;
  const list = load<u32>(port, L.GUEST_PORT_STAGED);
  const capacity = load<u32>(port, L.GUEST_PORT_STAGED_CAPACITY);
  const first = load<u32>(port, L.GUEST_PORT_STAGED_FIRST);
  let used = load<u32>(port, L.GUEST_PORT_STAGED_COUNT);
  if (first != 0) memory.copy(list, list + (first << 2), used << 2);
  store<u32>(port, 0, L.GUEST_PORT_STAGED_FIRST);
  let all: u32 = 0;
  // What waits may wait for long: the host gets its buffer back.
  const lendFrom = load<u32>(q, L.GUEST_QUEUE_LEND_FROM);
  store<u32>(q, 0, L.GUEST_QUEUE_LEND_FROM);
  for (let round: u32 = 0; round < ROUNDS; round++) {
    const room = capacity - used;
    if (room == 0 && load<u32>(port, L.GUEST_PORT_UNREAD) == 0) break;
    const to = list + (used << 2);
    const wanted = room == 0 || room > ROUND ? ROUND : room;
    const n = guestPoll(q, to, wanted);
    all += n;
    if (room != 0) used += n;
    else if (n != 0) {
      for (let i: u32 = 0; i < n; i++) freeChain(load<u32>(to + (i << 2)));
      count(port + L.GUEST_PORT_RX_MISSED, n);
    }
    if (n < wanted) break;
  }
  store<u32>(q, lendFrom, L.GUEST_QUEUE_LEND_FROM);
  store<u32>(port, used, L.GUEST_PORT_STAGED_COUNT);
  return all;
}

function takeStaged(port: u32, handles: u32, max: u32): u32 {
  const there = load<u32>(port, L.GUEST_PORT_STAGED_COUNT);
  const first = load<u32>(port, L.GUEST_PORT_STAGED_FIRST);
  const n = max < there ? max : there;
  memory.copy(handles, load<u32>(port, L.GUEST_PORT_STAGED) + (first << 2), n << 2);
  store<u32>(port, there - n, L.GUEST_PORT_STAGED_COUNT);
  store<u32>(port, n == there ? 0 : first + n, L.GUEST_PORT_STAGED_FIRST);
  return n;
}

export function portReceive(port: u32, handles: u32, max: u32): u32 {
  let n: u32 = 0;
  if (load<u32>(port, L.GUEST_PORT_UNREAD) != 0) store<u32>(port, 0, L.GUEST_PORT_UNREAD);
  if (load<u32>(port, L.GUEST_PORT_STAGED_COUNT) != 0) n = takeStaged(port, handles, max);
  const q = load<u32>(port, L.GUEST_PORT_QUEUE);
  if (q != 0 && n < max) n += guestPoll(q, handles + (n << 2), max - n);
  return n == 0 ? 0 : classify(port, handles, n);
}

/** Takes a tag out of the data and puts it beside the packet: hosts want it there (facts/dpdk.md 7, 06c968f9ba). Data that others
 *  may see stays as it is. */
function liftTag(mbuf: u32, data: u32, flags: u32): void {
  const bytes = load<u32>(mbuf, L.MBUF_DATA_LENGTH);
  if (bytes < 18 || load<u32>(mbuf, L.MBUF_REFERENCES) != 1) return;
  store<u32>(mbuf, load16(data + 14), L.MBUF_VLAN_TCI);
  memory.copy(data + 4, data, 12);
  store<u32>(mbuf, data + 4, L.MBUF_DATA);
  store<u32>(mbuf, bytes - 4, L.MBUF_DATA_LENGTH);
  store<u32>(mbuf, load<u32>(mbuf, L.MBUF_PACKET_LENGTH) - 4, L.MBUF_PACKET_LENGTH);
  store<u32>(mbuf, flags | L.PACKET_FLAG_VLAN, L.MBUF_FLAGS);
  const offset = load<u32>(mbuf, L.MBUF_L4_OFFSET);
  if (offset > 4) store<u32>(mbuf, offset - 4, L.MBUF_L4_OFFSET);
}

/** Now and then, long before anything runs short. */
@inline
function reapSometimes(owner: u32, q: u32): void {
  const inFlight = load<u32>(q, L.GUEST_QUEUE_SLOT_COUNT) - load<u32>(q, L.GUEST_QUEUE_FREE_SLOT_COUNT);
  const due = load<u32>(owner, L.GUEST_PORT_REAP_AT);
  if (inFlight >= due) reap(owner, q);
  else if (inFlight + REAP < due) store<u32>(owner, inFlight + REAP, L.GUEST_PORT_REAP_AT); // somebody else took completions
}

function reap(owner: u32, q: u32): void {
  guestReap(q);
  const left = load<u32>(q, L.GUEST_QUEUE_SLOT_COUNT) - load<u32>(q, L.GUEST_QUEUE_FREE_SLOT_COUNT);
  store<u32>(owner, left + REAP, L.GUEST_PORT_REAP_AT);
}

export function portSend(port: u32, handles: u32, n: u32): u32 {
  const owner = load<u32>(port, L.GUEST_PORT_OWNER);
  const q = load<u32>(owner, L.GUEST_PORT_QUEUE);
  if (q == 0) return 0;
  reapSometimes(owner, q);
  if (load<u32>(q, L.GUEST_QUEUE_FREE_SLOT_COUNT) < n || load<u32>(q, L.GUEST_QUEUE_FREE_SECTION_COUNT) < n || load<u32>(q, L.GUEST_QUEUE_STOPPED) != 0) {
    portStage(owner);
  }
  const tags = (load<u32>(q, L.GUEST_QUEUE_OFFLOADS) & L.OFFLOAD_VLAN) != 0;
  const kinds = port + L.GUEST_PORT_TX_MULTICAST_PACKETS;
  for (let i: u32 = 0; i < n; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    const data = load<u32>(mbuf, L.MBUF_DATA);
    if (tags && load<u16>(data, 12) == 0x0081) {
      const flags = load<u32>(mbuf, L.MBUF_FLAGS);
      if ((flags & (BORROWED | L.PACKET_FLAG_VLAN)) == 0) liftTag(mbuf, data, flags);
    }
    countKind(kinds, load<u32>(mbuf, L.MBUF_DATA), load<u32>(mbuf, L.MBUF_PACKET_LENGTH), 1);
  }
  const taken = guestSend(q, handles, n);
  for (let i = taken; i < n; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    countKind(kinds, load<u32>(mbuf, L.MBUF_DATA), load<u32>(mbuf, L.MBUF_PACKET_LENGTH), -1);
  }
  return taken;
}
