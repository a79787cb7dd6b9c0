// The guest's receive burst: transfer pages to mbufs, completions of sends, and the rest as events. Everything that the
// host wrote is checked on a copy; facts/linux-guest.md 10.1 lists what goes wrong in drivers that do not.
import { checksum } from './checksum';
import { appendChain, chainPool, takeCoalescing } from './chain';
import { copyBytes } from './copy';
import { putEvent } from './event';
import * as L from './generated';
import { endLoan, lend, takeReturned } from './guest-loans';
import { guestSend } from './guest-send';
import { freeChain, freshData, hasBuffer, pop, reset, take } from './pool';
import {
  closePacket,
  count,
  nextPacket,
  openPacket,
  packetAt,
  packetBytes,
  packetData,
  packetFlags,
  packetNext,
  packetType,
  readLimit,
  ringFail,
  ringPublish,
  ringRelease,
  ringRoom,
  storeDescriptor,
} from './ring';
import { BODY, PACKET_HEADER } from './rndis';
import { infoFlags, infoFragment, infoHash, infoVlan, IP_UNFINISHED, quickFlags, readInfos, UNKNOWN } from './receive-infos';
import { abandonSends, finishSend } from './send-slots';

const SUCCESS: u32 = 1;
const FAIL: u32 = 2;
const COMPLETION: u32 = 108;
const COMPLETION_BYTES: u32 = 32; // descriptor, message number, status, footer
/** Longest frame of all: 64 KiB of IP packet with its Ethernet header and tag. */
const MAX_FRAME: u32 = 65536 + 18;
/** Data and per-packet info begin behind the header; both offsets count from the body. */
const LEAST_OFFSET: u32 = PACKET_HEADER - BODY;
const MAX_FRAGMENTS: u32 = 562; // of one coalesced packet (facts/linux-guest.md 1.1)

// What this poll adds to the counters.
let receivedBytes: u32 = 0;
let goodChecksums: u32 = 0;

/** IPv4 header checksum that the host left open (facts/linux-guest.md 4.3). */
function finishIpHeader(at: u32, bytes: u32): void {
  if (bytes < 34 || load<u16>(at + 12) != 0x0008) return;
  const header: u32 = (<u32>load<u8>(at + 14) & 15) << 2;
  if (header < 20 || header > bytes - 14) return;
  store<u16>(at + 24, 0);
  store<u16>(at + 24, <u16>bswap<u16>(<u16>~checksum(at + 14, header, 0)));
}

function dropCoalescing(q: u32): void {
  const mbuf = load<u32>(q, L.GUEST_QUEUE_COALESCING);
  if (mbuf == 0) return;
  freeChain(mbuf);
  store<u32>(q, 0, L.GUEST_QUEUE_COALESCING);
  count(q + L.GUEST_QUEUE_RX_BAD_COALESCING, 1);
}

function bad(q: u32, counter: u32): u32 {
  count(q + counter, 1);
  store<u32>(q, FAIL, L.GUEST_QUEUE_RANGE_STATUS);
  dropCoalescing(q);
  return 0;
}

function newMbuf(q: u32, pool: u32): u32 {
  const mbuf = pool == 0 ? 0 : take(pool);
  if (mbuf == 0) bad(q, L.GUEST_QUEUE_RX_NO_MBUF);
  return mbuf;
}

/** Copies a frame that is longer than the room in `mbuf`, a fresh buffer: to a large one, or to a chain. 0 = it is dropped. */
function receiveLong(q: u32, mbuf: u32, from: u32, bytes: u32): u32 {
  const large = load<u32>(q, L.GUEST_QUEUE_RX_LARGE_POOL);
  const chain = chainPool(q);
  if (chain != 0) {
    if (appendChain(chain, mbuf, mbuf, from, bytes) != 0) return mbuf;
    freeChain(mbuf);
    return bad(q, L.GUEST_QUEUE_RX_NO_MBUF);
  }
  freeChain(mbuf);
  if (large == 0) return bad(q, L.GUEST_QUEUE_RX_TOO_BIG);
  mbuf = newMbuf(q, large);
  if (mbuf == 0 || appendChain(0, mbuf, mbuf, from, bytes) != 0) return mbuf;
  freeChain(mbuf);
  return bad(q, L.GUEST_QUEUE_RX_TOO_BIG);
}

@inline
function tailroom(mbuf: u32): u32 {
  return load<u32>(mbuf, L.MBUF_BUFFER) + load<u32>(mbuf, L.MBUF_ROOM) - load<u32>(mbuf, L.MBUF_DATA);
}

/** Takes over VLAN tag and hash of the infos. */
function describe(q: u32, mbuf: u32, flags: u32): void {
  if (flags & L.PACKET_FLAG_VLAN) {
    store<u32>(mbuf, infoVlan, L.MBUF_VLAN_TCI);
    count(q + L.GUEST_QUEUE_RX_VLAN, 1);
  }
  if (flags & L.PACKET_FLAG_HASH) {
    store<u32>(mbuf, infoHash, L.MBUF_HASH);
    count(q + L.GUEST_QUEUE_RX_HASH, 1);
  }
}

/** Nothing is to be written to the frame that the infos describe. */
@inline
function mayLend(q: u32, flags: u32): bool {
  return (flags & (load<u32>(q, L.GUEST_QUEUE_LEND_NOT) | IP_UNFINISHED)) == 0;
}

/** One piece of a coalesced packet. Returns the mbuf when it was the last. */
function addFragment(q: u32, from: u32, bytes: u32): u32 {
  let mbuf = load<u32>(q, L.GUEST_QUEUE_COALESCING);
  if (infoFragment & L.PPI_PACKET_ID_FIRST) {
    dropCoalescing(q);
    mbuf = takeCoalescing(q);
    if (mbuf == 0) return bad(q, L.GUEST_QUEUE_RX_NO_MBUF);
    store<u32>(mbuf, infoFlags, L.MBUF_FLAGS); // with IP_UNFINISHED until it is whole: what the first piece says holds
    describe(q, mbuf, infoFlags);
    store<u32>(q, mbuf, L.GUEST_QUEUE_COALESCING_LAST);
    store<u32>(mbuf, bytes, L.MBUF_MSS); // headers still included
    store<u32>(q, mbuf, L.GUEST_QUEUE_COALESCING);
    store<u32>(q, 0, L.GUEST_QUEUE_COALESCED_FRAGMENTS);
  } else if (mbuf == 0) return bad(q, L.GUEST_QUEUE_RX_BAD_COALESCING);
  const have = load<u32>(mbuf, L.MBUF_PACKET_LENGTH);
  const fragments = load<u32>(q, L.GUEST_QUEUE_COALESCED_FRAGMENTS) + 1;
  if (fragments > MAX_FRAGMENTS || have + bytes > MAX_FRAME) return bad(q, L.GUEST_QUEUE_RX_TOO_BIG);
  const pool = chainPool(q);
  const last = appendChain(pool, mbuf, load<u32>(q, L.GUEST_QUEUE_COALESCING_LAST), from, bytes);
  if (last == 0) return bad(q, pool == 0 ? L.GUEST_QUEUE_RX_TOO_BIG : L.GUEST_QUEUE_RX_NO_MBUF);
  store<u32>(q, last, L.GUEST_QUEUE_COALESCING_LAST);
  store<u32>(q, fragments, L.GUEST_QUEUE_COALESCED_FRAGMENTS);
  if (!(infoFragment & L.PPI_PACKET_ID_LAST)) return 0;
  if (have + bytes < 14) return bad(q, L.GUEST_QUEUE_RX_BAD_RNDIS);
  store<u32>(q, 0, L.GUEST_QUEUE_COALESCING);
  finishFlags(q, mbuf, load<u32>(mbuf, L.MBUF_FLAGS));
  finishCoalesced(mbuf, have + bytes);
  count(q + L.GUEST_QUEUE_RX_COALESCED, 1);
  count(q + L.GUEST_QUEUE_RX_COALESCED_FRAGMENTS, fragments);
  receivedBytes += have + bytes;
  return mbuf;
}

/** A coalesced TCP packet says how large its segments were: the first fragment less its headers. */
function finishCoalesced(mbuf: u32, total: u32): void {
  const data = load<u32>(mbuf, L.MBUF_DATA);
  const bytes = load<u32>(mbuf, L.MBUF_DATA_LENGTH);
  const first = load<u32>(mbuf, L.MBUF_MSS);
  store<u32>(mbuf, 0, L.MBUF_MSS);
  if (bytes < 54 || first == total) return;
  let flags = load<u32>(mbuf, L.MBUF_FLAGS);
  const type = load<u16>(data + 12);
  let l4: u32 = 0;
  if (type == 0x0008 && load<u8>(data + 23) == 6) {
    l4 = 14 + ((<u32>load<u8>(data + 14) & 15) << 2);
    flags |= L.PACKET_FLAG_IPV4;
  } else if (type == 0xdd86 && load<u8>(data + 20) == 6) {
    l4 = 54;
    flags |= L.PACKET_FLAG_IPV6;
  }
  if (l4 < 34 || l4 + 20 > bytes) return;
  const headers = l4 + (((<u32>load<u8>(data + l4 + 12)) >>> 4) << 2);
  if (headers < l4 + 20 || first <= headers) return;
  store<u32>(mbuf, first - headers, L.MBUF_MSS);
  store<u32>(mbuf, l4, L.MBUF_L4_OFFSET);
  store<u32>(mbuf, flags | L.PACKET_FLAG_RX_COALESCED | L.PACKET_FLAG_TCP, L.MBUF_FLAGS);
}

/** What the flags of a whole packet ask for, other than nothing. */
function finishFlags(q: u32, mbuf: u32, flags: u32): void {
  store<u32>(mbuf, flags & ~IP_UNFINISHED, L.MBUF_FLAGS);
  if (flags & IP_UNFINISHED) finishIpHeader(load<u32>(mbuf, L.MBUF_DATA), load<u32>(mbuf, L.MBUF_DATA_LENGTH));
  if (flags & L.PACKET_FLAG_RX_L4_GOOD) goodChecksums++;
  if (flags & (L.PACKET_FLAG_RX_L4_BAD | L.PACKET_FLAG_RX_IP_BAD)) count(q + L.GUEST_QUEUE_RX_CHECKSUM_BAD, 1);
}

/** Copies a frame for which this thread has no free buffer at hand, or none that is long enough. 0 = it is dropped. */
function receiveOther(q: u32, from: u32, bytes: u32): u32 {
  const mbuf = newMbuf(q, load<u32>(q, L.GUEST_QUEUE_RX_POOL));
  if (mbuf == 0) return 0;
  if (bytes > tailroom(mbuf)) return receiveLong(q, mbuf, from, bytes);
  appendChain(0, mbuf, mbuf, from, bytes);
  return mbuf;
}

/** One RNDIS packet message of `bytes` bytes. Returns an mbuf, or 0 when it gave none. */
@inline
function receiveFrame(q: u32, at: u32, bytes: u32): u32 {
  if (bytes < PACKET_HEADER) return bad(q, L.GUEST_QUEUE_RX_BAD_RNDIS);
  const body = bytes - BODY;
  const dataOffset = load<u32>(at, L.WIRE_RNDIS_PACKET_DATA_OFFSET);
  const dataBytes = load<u32>(at, L.WIRE_RNDIS_PACKET_DATA_LENGTH);
  const infoOffset = load<u32>(at, L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_OFFSET);
  const infoBytes = load<u32>(at, L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_LENGTH);
  // Unsigned: an offset below the least one is a large number here, and so is a length of 0 less 1.
  if (dataOffset - LEAST_OFFSET > body - LEAST_OFFSET) return bad(q, L.GUEST_QUEUE_RX_BAD_RNDIS);
  if (dataBytes - 1 >= body - dataOffset) return bad(q, L.GUEST_QUEUE_RX_BAD_RNDIS);
  const from = at + BODY + dataOffset;
  let flags: u32 = 0;
  if (infoBytes != 0) {
    if (infoOffset - LEAST_OFFSET > body - LEAST_OFFSET) return bad(q, L.GUEST_QUEUE_RX_BAD_PPI);
    if (infoBytes > body - infoOffset) return bad(q, L.GUEST_QUEUE_RX_BAD_PPI);
    const info = at + BODY + infoOffset;
    flags = quickFlags(info, infoBytes);
    if (flags == UNKNOWN) {
      if (!readInfos(info, infoBytes)) return bad(q, L.GUEST_QUEUE_RX_BAD_PPI);
      if (infoFragment & L.PPI_PACKET_ID_SUBALLOCATED) return addFragment(q, from, dataBytes);
      flags = infoFlags;
    }
  }
  if (load<u32>(q, L.GUEST_QUEUE_COALESCING) != 0) dropCoalescing(q);
  if (dataBytes < 14) return bad(q, L.GUEST_QUEUE_RX_BAD_RNDIS);
  const pool = load<u32>(q, L.GUEST_QUEUE_RX_POOL);
  let mbuf: u32 = 0;
  // Unsigned: from 0 on there is none.
  if (load<u32>(q, L.GUEST_QUEUE_LEND_FROM) - 1 < dataBytes && mayLend(q, flags)) {
    mbuf = lend(q, from, dataBytes);
    if (mbuf != 0) flags |= L.PACKET_FLAG_EXTERNAL;
  }
  if (mbuf == 0) {
    if (hasBuffer(pool, dataBytes)) {
      mbuf = pop(pool);
      const data = freshData(pool, mbuf);
      reset(mbuf, data, dataBytes, flags);
      copyBytes(data, from, dataBytes);
    } else {
      mbuf = receiveOther(q, from, dataBytes);
      if (mbuf == 0) return 0;
    }
  }
  if (flags != 0) {
    describe(q, mbuf, flags);
    finishFlags(q, mbuf, flags);
  }
  receivedBytes += dataBytes;
  return mbuf;
}

/** Notes where deliverRanges goes on. */
function stopAt(q: u32, index: u32, done: u32): void {
  store<u32>(q, index, L.GUEST_QUEUE_RANGE_INDEX);
  store<u32>(q, done, L.GUEST_QUEUE_RANGE_OFFSET);
}

/** Delivers the ranges of the transfer-page packet at hand to the u32 array from `to` up to `end`, as far as that and the
 *  event buffer allow; a later call goes on. Returns where it stopped. The ranges are a private copy, so the host cannot
 *  change them in between. */
function deliverRanges(q: u32, to: u32, end: u32): u32 {
  const ranges = load<u32>(q, L.GUEST_QUEUE_RANGES);
  const last = ranges + (load<u32>(q, L.GUEST_QUEUE_RANGE_COUNT) << 3);
  let entry = ranges + (load<u32>(q, L.GUEST_QUEUE_RANGE_INDEX) << 3);
  let done = load<u32>(q, L.GUEST_QUEUE_RANGE_OFFSET);
  // Conditions one by one: joined by || they are all computed first, which takes longer.
  for (; entry != last; entry += 8, done = 0) {
    const bytes = load<u32>(entry);
    const offset = load<u32>(entry + 4);
    const room = load<u32>(q, L.GUEST_QUEUE_RECEIVE_BYTES) - offset;
    if (bytes > load<u32>(q, L.GUEST_QUEUE_RECEIVE_SECTION_BYTES)) {
      bad(q, L.GUEST_QUEUE_RX_BAD_RANGE);
      continue;
    }
    if (offset > load<u32>(q, L.GUEST_QUEUE_RECEIVE_BYTES)) {
      bad(q, L.GUEST_QUEUE_RX_BAD_RANGE);
      continue;
    }
    if (bytes > room) {
      bad(q, L.GUEST_QUEUE_RX_BAD_RANGE);
      continue;
    }
    const at = load<u32>(q, L.GUEST_QUEUE_RECEIVE_BUFFER) + offset;
    while (bytes - done >= BODY) {
      if (to == end) {
        stopAt(q, (entry - ranges) >>> 3, done);
        return to;
      }
      const type = load<u32>(at + done);
      const length = load<u32>(at + done, 4);
      if (length < BODY) {
        bad(q, L.GUEST_QUEUE_RX_BAD_RNDIS);
        break;
      }
      if (length > bytes - done) {
        bad(q, L.GUEST_QUEUE_RX_BAD_RNDIS);
        break;
      }
      if (type == 1) {
        const mbuf = receiveFrame(q, at + done, length);
        if (mbuf != 0) {
          store<u32>(to, mbuf);
          to += 4;
        }
      } else if (!putEvent(q, L.EVENT_KIND_RNDIS_CONTROL, 0, 0, 0, 0, at + done, length)) {
        stopAt(q, (entry - ranges) >>> 3, done);
        return to;
      }
      done += length;
    }
  }
  dropCoalescing(q);
  store<u32>(q, 0, L.GUEST_QUEUE_RANGE_COUNT);
  stopAt(q, 0, 0);
  if (!endLoan(q)) {
    pushCompletion(q, load<u32>(q, L.GUEST_QUEUE_RANGE_ID_LOW), load<u32>(q, L.GUEST_QUEUE_RANGE_ID_HIGH), load<u32>(q, L.GUEST_QUEUE_RANGE_STATUS));
  }
  return to;
}

@inline
function pushCompletion(q: u32, idLow: u32, idHigh: u32, status: u32): void {
  const n = load<u32>(q, L.GUEST_QUEUE_COMPLETION_COUNT);
  const at = load<u32>(q, L.GUEST_QUEUE_COMPLETIONS) + (n << 4);
  store<u32>(at, idLow);
  store<u32>(at + 4, idHigh);
  store<u32>(at + 8, status);
  store<u32>(q, n + 1, L.GUEST_QUEUE_COMPLETION_COUNT);
}

/** Checks a transfer-page packet and copies its ranges. A refused one is completed with FAIL at once: the host must not
 *  lose the section (facts/linux-guest.md D23). False = ring corrupt. */
function startTransfer(q: u32): bool {
  const data = packetData;
  const idLow = load<u32>(packetAt, L.WIRE_PACKET_DESCRIPTOR_TRANSACTION_ID);
  const idHigh = load<u32>(packetAt + 4, L.WIRE_PACKET_DESCRIPTOR_TRANSACTION_ID);
  if (data < 24) {
    ringFail(q, L.RING_ERROR_EXTENDED_HEADER, data);
    return false;
  }
  const set: u32 = load<u16>(packetAt, 16);
  const ranges = load<u32>(packetAt, 20);
  count(q + L.GUEST_QUEUE_RX_MESSAGES, 1);
  let error: u32 = 0;
  if (ranges == 0 || ranges > (data - 24) >>> 3 || ranges > load<u32>(q, L.GUEST_QUEUE_RANGE_CAPACITY)) error = L.GUEST_QUEUE_RX_BAD_RANGE;
  else if (set != load<u32>(q, L.GUEST_QUEUE_RECEIVE_BUFFER_ID)) error = L.GUEST_QUEUE_RX_BAD_SET;
  else if (packetBytes - data < 8 || load<u32>(packetAt + data) != 107) error = L.GUEST_QUEUE_RX_BAD_NVSP;
  if (error != 0) {
    count(q + error, 1);
    pushCompletion(q, idLow, idHigh, FAIL);
    return true;
  }
  const copy = load<u32>(q, L.GUEST_QUEUE_RANGES);
  if (ranges == 1) store<u64>(copy, load<u64>(packetAt, 24));
  else copyBytes(copy, packetAt + 24, ranges << 3);
  store<u32>(q, ranges, L.GUEST_QUEUE_RANGE_COUNT);
  store<u32>(q, idLow, L.GUEST_QUEUE_RANGE_ID_LOW);
  store<u32>(q, idHigh, L.GUEST_QUEUE_RANGE_ID_HIGH);
  store<u32>(q, SUCCESS, L.GUEST_QUEUE_RANGE_STATUS);
  return true;
}

/** A completion. False = the event buffer is full: look at it again later. */
function takeCompletion(q: u32): bool {
  const idLow = load<u32>(packetAt, L.WIRE_PACKET_DESCRIPTOR_TRANSACTION_ID);
  const idHigh = load<u32>(packetAt + 4, L.WIRE_PACKET_DESCRIPTOR_TRANSACTION_ID);
  const bytes = packetBytes - packetData;
  const payload = packetAt + packetData;
  if (idHigh != L.TX_TRANSACTION) return putEvent(q, L.EVENT_KIND_COMPLETION, idLow, idHigh, 0, 0, payload, bytes);
  if (bytes < 8 || load<u32>(payload) != COMPLETION || !finishSend(q, idLow, load<u32>(payload + 4) == SUCCESS)) {
    count(q + L.GUEST_QUEUE_TX_UNKNOWN_TRANSACTION, 1);
  }
  return true;
}

export function guestFlush(q: u32): u32 {
  const total = load<u32>(q, L.GUEST_QUEUE_COMPLETION_COUNT);
  if (total == 0) return 0;
  const list = load<u32>(q, L.GUEST_QUEUE_COMPLETIONS);
  let i: u32 = 0;
  for (; i < total; i++) {
    if (!ringRoom(q, COMPLETION_BYTES)) {
      count(q + L.GUEST_QUEUE_RX_COMPLETIONS_DELAYED, 1);
      store<u32>(q, COMPLETION_BYTES, L.CHANNEL_END_BLOCKED);
      break;
    }
    const from = list + (i << 4);
    const at = openPacket(q, COMPLETION_BYTES);
    storeDescriptor(at, 11, L.SIZEOF_WIRE_PACKET_DESCRIPTOR, COMPLETION_BYTES - 8, 0, load<u32>(from), load<u32>(from + 4));
    store<u32>(at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR, COMPLETION);
    store<u32>(at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR + 4, load<u32>(from + 8));
    closePacket(q, at, COMPLETION_BYTES);
  }
  count(q + L.GUEST_QUEUE_RING_PACKETS_OUT, i);
  if (i < total) memory.copy(list, list + (i << 4), (total - i) << 4);
  store<u32>(q, total - i, L.GUEST_QUEUE_COMPLETION_COUNT);
  ringPublish(q);
  return total - i;
}

export function guestPoll(q: u32, handles: u32, max: u32): u32 {
  receivedBytes = goodChecksums = 0;
  const n = (pollRing(q, handles, handles + (max << 2)) - handles) >>> 2;
  if (n != 0) {
    count(q + L.GUEST_QUEUE_RX_PACKETS, n);
    count(q + L.GUEST_QUEUE_RX_BYTES, receivedBytes);
    count(q + L.GUEST_QUEUE_RX_CHECKSUM_GOOD, goodChecksums);
  }
  return n;
}

/** Completes what mbufs showed and do not any more. */
function takeBack(q: u32, capacity: u32): void {
  while (load<u32>(q, L.GUEST_QUEUE_COMPLETION_COUNT) < capacity) {
    const loan = takeReturned(q);
    if (loan == 0) return;
    pushCompletion(q, load<u32>(loan, L.LOAN_ID_LOW), load<u32>(loan, L.LOAN_ID_HIGH), load<u32>(loan, L.LOAN_STATUS));
  }
}

/** Ranges of the receive buffer that mbufs still show, after taking back those that they do not. `last`: what is not delivered yet
 *  never will be. */
export function guestLent(q: u32, last: u32): u32 {
  if (last) {
    store<u32>(q, 0, L.GUEST_QUEUE_RANGE_COUNT);
    endLoan(q);
  }
  if (load<u32>(q, L.GUEST_QUEUE_LENT) != 0) takeBack(q, load<u32>(q, L.GUEST_QUEUE_COMPLETION_CAPACITY));
  return load<u32>(q, L.GUEST_QUEUE_LENT);
}

/** Received packets go to the u32 array from `to` up to `end`; returns where they end. */
function pollRing(q: u32, to: u32, end: u32): u32 {
  if (load<u32>(q, L.GUEST_QUEUE_RANGE_COUNT) != 0) {
    to = deliverRanges(q, to, end);
    if (load<u32>(q, L.GUEST_QUEUE_RANGE_COUNT) != 0) return to;
  }
  if (load<u32>(q, L.CHANNEL_END_RING_ERROR) != 0) return to;
  const capacity = load<u32>(q, L.GUEST_QUEUE_COMPLETION_CAPACITY);
  if (load<u32>(q, L.GUEST_QUEUE_LENT) != 0) takeBack(q, capacity);
  const write = readLimit(q);
  let read = load<u32>(q, L.CHANNEL_END_READ_INDEX);
  let packets: u32 = 0;
  while (read != write && to != end && load<u32>(q, L.GUEST_QUEUE_COMPLETION_COUNT) < capacity) {
    if (!nextPacket(q, read, write)) break;
    const next = packetNext;
    if (packetType == 7) {
      if (!startTransfer(q)) break;
      if (load<u32>(q, L.GUEST_QUEUE_RANGE_COUNT) != 0) to = deliverRanges(q, to, end);
    } else if (packetType == 11) {
      if (!takeCompletion(q)) break;
    } else if (packetType == 6) {
      const idLow = load<u32>(packetAt, L.WIRE_PACKET_DESCRIPTOR_TRANSACTION_ID);
      const idHigh = load<u32>(packetAt + 4, L.WIRE_PACKET_DESCRIPTOR_TRANSACTION_ID);
      const bytes = packetBytes - packetData;
      if (!putEvent(q, L.EVENT_KIND_NVSP, idLow, idHigh, packetFlags & 1, 6, packetAt + packetData, bytes)) break;
    } else count(q + L.GUEST_QUEUE_RX_BAD_TYPE, 1);
    read = next;
    packets++;
    if (load<u32>(q, L.GUEST_QUEUE_RANGE_COUNT) != 0) break;
  }
  count(q + L.GUEST_QUEUE_RING_PACKETS_IN, packets);
  ringRelease(q, read);
  guestFlush(q);
  if (load<u32>(q, L.GUEST_QUEUE_SECTION) != L.NO_SECTION) guestSend(q, 0, 0);
  return to;
}

/** Takes the completions that lie at the front of the ring, and nothing else: for threads that only send. */
export function guestReap(q: u32): void {
  if (load<u32>(q, L.GUEST_QUEUE_RANGE_COUNT) != 0) return;
  if (load<u32>(q, L.CHANNEL_END_RING_ERROR) != 0) return;
  const write = readLimit(q);
  let read = load<u32>(q, L.CHANNEL_END_READ_INDEX);
  let packets: u32 = 0;
  while (read != write) {
    if (!nextPacket(q, read, write)) break;
    if (packetType != 11) break;
    if (!takeCompletion(q)) break;
    read = packetNext;
    packets++;
  }
  if (packets == 0) return;
  count(q + L.GUEST_QUEUE_RING_PACKETS_IN, packets);
  ringRelease(q, read);
}

export function guestAbandon(q: u32): void {
  abandonSends(q);
  const mbuf = load<u32>(q, L.GUEST_QUEUE_COALESCING);
  if (mbuf != 0) freeChain(mbuf);
  store<u32>(q, 0, L.GUEST_QUEUE_COALESCING);
  store<u32>(q, 0, L.GUEST_QUEUE_RANGE_COUNT);
  store<u32>(q, 0, L.GUEST_QUEUE_COMPLETION_COUNT);
}
