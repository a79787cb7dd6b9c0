// Sends by guest-page ranges: the host reads the packet where it lies.
import { checksumFinish } from './checksum';
import { copyBytes } from './copy';
import * as L from './generated';
import { blocked, flushSection, infoBytes, putHeaders, seedLso, softwareChecksum, wantsLso } from './guest-send';
import { freeChain, take } from './pool';
import { closePacket, count, MAX_PACKET, openPacket, ringRoom, storeDescriptor } from './ring';
import { PACKET_HEADER, putNvspData } from './rndis';
import { fillSlot, REFUSED, returnSlot, takeSlot } from './send-slots';

/** Data that others may see, too: nothing is written to it or in front of it. */
const BORROWED: u32 = L.PACKET_FLAG_EXTERNAL | L.PACKET_FLAG_INDIRECT;

/** Pages that `bytes` bytes at `address` touch. */
@inline
function pagesOf(address: u32, bytes: u32): u32 {
  return ((address & 4095) + bytes + 4095) >>> 12;
}

// The segment at hand as a guest-page range.
let rangeAt: u32 = 0;
let rangeBytes: u32 = 0;

/** `lead`: bytes in front of the packet that go with its first segment; `skip`: bytes of the packet that do not. */
@inline
function rangeOf(segment: u32, first: bool, lead: u32, skip: u32): void {
  rangeAt = load<u32>(segment, L.MBUF_DATA);
  rangeBytes = load<u32>(segment, L.MBUF_DATA_LENGTH);
  if (!first) return;
  rangeAt += skip - lead;
  rangeBytes += lead - skip;
}

/** Writes the range and its pages at `to`; returns where the next one goes. */
@inline
function putRange(q: u32, to: u32): u32 {
  const pages = pagesOf(rangeAt, rangeBytes);
  store<u32>(to, rangeBytes);
  store<u32>(to + 4, rangeAt & 4095);
  copyBytes(to + 8, load<u32>(q, L.GUEST_QUEUE_PFN_TABLE) + (((rangeAt - load<u32>(q, L.GUEST_QUEUE_PFN_BASE)) >>> 12) << 3), pages << 3);
  return to + 8 + (pages << 3);
}

/** Bytes of the packet's own headers that LSO changes. */
@inline
function lsoHeader(mbuf: u32): u32 {
  const l4 = load<u32>(mbuf, L.MBUF_L4_OFFSET);
  const tcp = (<u32>load<u8>(load<u32>(mbuf, L.MBUF_DATA) + l4, 12) >>> 4) << 2;
  return l4 + (tcp < 20 ? 20 : tcp);
}

/** Sends a packet by guest-page ranges. The RNDIS header goes into the first segment's headroom, so that header and
 *  first data are one range: hosts refuse a header that is split over two. Where that room is not this packet's alone the header gets a
 *  buffer of its own, together with what LSO changes. 1 = done, 0 = try later, -1 = cannot. */
export function sendDirect(q: u32, mbuf: u32, flags: u32, bytes: u32): i32 {
  if (!flushSection(q)) return 0;
  const header = PACKET_HEADER + infoBytes;
  const data = load<u32>(mbuf, L.MBUF_DATA);
  const shared = (flags & BORROWED) != 0 || load<u32>(mbuf, L.MBUF_REFERENCES) != 1;
  // A chain's checksum is only computed while copying it, and so is that of data that others see.
  if (softwareChecksum && (shared || load<u32>(mbuf, L.MBUF_NEXT) != 0)) return -1;
  const apart = shared || data - header < load<u32>(mbuf, L.MBUF_BUFFER);
  const skip = apart && wantsLso ? lsoHeader(mbuf) : 0;
  if (skip > load<u32>(mbuf, L.MBUF_DATA_LENGTH)) return -1;
  const lead: u32 = apart ? 0 : header;
  const base = load<u32>(q, L.GUEST_QUEUE_PFN_BASE);
  const limit = base + (load<u32>(q, L.GUEST_QUEUE_PFN_PAGES) << 12);
  let ranges: u32 = apart ? 1 : 0;
  let extended: u32 = apart ? 24 : 8; // a header apart lies in one page, or in two
  if (apart) extended += 8;
  for (let segment = mbuf; segment != 0; segment = load<u32>(segment, L.MBUF_NEXT)) {
    rangeOf(segment, segment == mbuf, lead, skip);
    if (rangeBytes == 0) continue;
    if (rangeAt < base || rangeAt >= limit || rangeBytes > limit - rangeAt) return -1;
    extended += 8 + (pagesOf(rangeAt, rangeBytes) << 3);
    if (++ranges > 64) return -1;
  }
  const payload = (load<u32>(q, L.GUEST_QUEUE_NVSP_BYTES) + 7) & ~7;
  let total = L.SIZEOF_WIRE_PACKET_DESCRIPTOR + extended + payload + 8;
  const needed = total + load<u32>(q, L.CHANNEL_END_SPARE);
  // What an empty ring could not take would block all that follow for good.
  if (total > MAX_PACKET || needed > load<u32>(q, L.CHANNEL_END_WRITE_SIZE) - 8) return -1;
  if (!ringRoom(q, needed)) {
    blocked(q, needed);
    return 0;
  }
  const slot = takeSlot(q);
  if (slot == REFUSED) return 0;
  let start = data - header;
  let whole = mbuf;
  if (apart) {
    whole = takeHeader(q, mbuf, header + skip);
    if (whole == 0) {
      returnSlot(q);
      return -1;
    }
    start = load<u32>(whole, L.MBUF_DATA);
    if (skip != 0) {
      copyBytes(start + header, data, skip);
      seedLso(start + header, load<u32>(mbuf, L.MBUF_L4_OFFSET), flags);
    }
    const pages = pagesOf(start, header + skip);
    if (pages == 1) {
      extended -= 8;
      total -= 8;
    }
  } else if (wantsLso) seedLso(data, load<u32>(mbuf, L.MBUF_L4_OFFSET), flags);
  if (softwareChecksum) checksumFinish(data, bytes, flags, load<u32>(mbuf, L.MBUF_L4_OFFSET));
  putHeaders(start, mbuf, flags, bytes);
  const id = fillSlot(q, slot, L.NO_SECTION, whole, 1, bytes);
  const at = openPacket(q, total);
  storeDescriptor(at, 9, L.SIZEOF_WIRE_PACKET_DESCRIPTOR + extended, total - 8, 1, id, L.TX_TRANSACTION);
  store<u32>(at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR, 0);
  store<u32>(at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR + 4, ranges);
  let to = at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR + 8;
  if (apart) {
    rangeAt = start;
    rangeBytes = header + skip;
    to = putRange(q, to);
  }
  for (let segment = mbuf; segment != 0; segment = load<u32>(segment, L.MBUF_NEXT)) {
    rangeOf(segment, segment == mbuf, lead, skip);
    if (rangeBytes != 0) to = putRange(q, to);
  }
  putNvspData(at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR + extended, load<u32>(q, L.GUEST_QUEUE_NVSP_BYTES), L.NO_SECTION, 0);
  closePacket(q, at, total);
  count(q + L.GUEST_QUEUE_RING_PACKETS_OUT, 1);
  count(q + L.GUEST_QUEUE_TX_MESSAGES, 1);
  count(q + L.GUEST_QUEUE_TX_DIRECT, 1);
  return 1;
}

/** A buffer in front of the packet, of its own pool, for `bytes` bytes of headers; it is freed with it. 0 = there is none. */
function takeHeader(q: u32, mbuf: u32, bytes: u32): u32 {
  const header = take(load<u32>(mbuf, L.MBUF_POOL));
  if (header == 0) return 0;
  // All of it, headroom included, is there for headers.
  const at = load<u32>(header, L.MBUF_BUFFER);
  const base = load<u32>(q, L.GUEST_QUEUE_PFN_BASE);
  if (bytes > load<u32>(header, L.MBUF_ROOM) || at < base || at + bytes > base + (load<u32>(q, L.GUEST_QUEUE_PFN_PAGES) << 12)) {
    freeChain(header);
    return 0;
  }
  store<u32>(header, at, L.MBUF_DATA);
  store<u32>(header, mbuf, L.MBUF_NEXT);
  return header;
}
