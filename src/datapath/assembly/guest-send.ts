// The guest's transmit burst: RNDIS header and per-packet info, then a copy into a send-buffer section (several small
// packets share one) or guest-page ranges (facts/linux-guest.md 3).
import { checksumFinish } from './checksum';
import { copyBytes } from './copy';
import * as L from './generated';
import { sendDirect } from './guest-direct';
import { freeChain } from './pool';
import { closePacket, count, openPacket, ringFree, ringPublish, ringRoom, storeDescriptor } from './ring';
import { PACKET_HEADER, PPI_SIZE, putNvspData, putPacketHeader, putPpi, vlanInfo } from './rndis';

const CHECKSUMS: u32 = L.PACKET_FLAG_TX_IP_CHECKSUM | L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TX_UDP_CHECKSUM;
/** What needs per-packet info, or more. */
const SPECIAL: u32 = CHECKSUMS | L.PACKET_FLAG_TX_TSO | L.PACKET_FLAG_VLAN | L.PACKET_FLAG_HASH;
export const REFUSED: u32 = 0xffffffff;
/** Per-packet info has ten bits for a header's offset. */
const MAX_HEADER_OFFSET: u32 = 1023;

// How prepare() decided to send the packet at hand.
export let wantsLso: bool = false;
let wantsChecksum: bool = false; // by the host
export let softwareChecksum: bool = false;
export let infoBytes: u32 = 0;

/** Which offload bit the packet's checksum needs. */
@inline
function checksumOffload(flags: u32): u32 {
  const v6 = (flags & L.PACKET_FLAG_IPV6) != 0;
  let bits: u32 = (flags & L.PACKET_FLAG_TX_IP_CHECKSUM) != 0 ? L.OFFLOAD_IPV4_HEADER_TX : 0;
  if (flags & L.PACKET_FLAG_TX_TCP_CHECKSUM) bits |= v6 ? L.OFFLOAD_TCP6_TX : L.OFFLOAD_TCP4_TX;
  if (flags & L.PACKET_FLAG_TX_UDP_CHECKSUM) bits |= v6 ? L.OFFLOAD_UDP6_TX : L.OFFLOAD_UDP4_TX;
  return bits;
}

/** Would the host take this header offset? A wrong one costs every packet of its message. 0 = the host assumes one. */
@inline
function plausibleHeader(l4: u32, flags: u32, bytes: u32): bool {
  const least: u32 = flags & L.PACKET_FLAG_IPV6 ? 54 : 34;
  return l4 == 0 ? least < bytes : l4 >= least && l4 < bytes && l4 <= MAX_HEADER_OFFSET;
}

/** Decides offloads; false = this packet cannot be sent on this channel. */
function prepare(q: u32, mbuf: u32, flags: u32, bytes: u32): bool {
  const offloads = load<u32>(q, L.GUEST_QUEUE_OFFLOADS);
  wantsLso = false;
  wantsChecksum = false;
  softwareChecksum = false;
  infoBytes = 0;
  let infos: u32 = 0;
  if (bytes < 14) return false;
  if (flags & L.PACKET_FLAG_TX_TSO) {
    const v6 = (flags & L.PACKET_FLAG_IPV6) != 0;
    const l4 = load<u32>(mbuf, L.MBUF_L4_OFFSET);
    if ((offloads & (v6 ? L.OFFLOAD_LSO6 : L.OFFLOAD_LSO4)) == 0) return false;
    if (bytes > (v6 ? load<u32>(q, L.GUEST_QUEUE_LSO_MAX6) : load<u32>(q, L.GUEST_QUEUE_LSO_MAX4))) return false;
    const least: u32 = v6 ? 54 : 34;
    const mss = load<u32>(mbuf, L.MBUF_MSS);
    if (mss == 0 || mss > 0xffff || l4 < least || l4 > MAX_HEADER_OFFSET || l4 + 20 > load<u32>(mbuf, L.MBUF_DATA_LENGTH)) return false;
    // seedLso writes at fixed places: a tag in the data (or anything else) would be overwritten.
    if (load<u16>(load<u32>(mbuf, L.MBUF_DATA), 12) != (v6 ? <u16>0xdd86 : <u16>0x0008)) return false;
    wantsLso = true;
    infos++;
  } else {
    if (bytes > load<u32>(q, L.GUEST_QUEUE_MAX_FRAME_BYTES)) return false;
    if (flags & CHECKSUMS) {
      const needed = checksumOffload(flags);
      if ((offloads & needed) == needed && plausibleHeader(load<u32>(mbuf, L.MBUF_L4_OFFSET), flags, bytes)) {
        wantsChecksum = true;
        infos++;
      } else softwareChecksum = true;
    }
  }
  if (flags & L.PACKET_FLAG_VLAN) infos++;
  if (flags & L.PACKET_FLAG_HASH) infos++;
  infoBytes = infos * PPI_SIZE;
  return true;
}

/** Writes RNDIS header and per-packet info at `at`, in the order a Linux guest uses: hash, VLAN, LSO or checksum. */
export function putHeaders(at: u32, mbuf: u32, flags: u32, bytes: u32): void {
  putPacketHeader(at, PACKET_HEADER + infoBytes + bytes, PACKET_HEADER + infoBytes, bytes, infoBytes);
  let info = at + PACKET_HEADER;
  if (flags & L.PACKET_FLAG_HASH) info = putPpi(info, L.PPI_TYPE_HASH_VALUE, load<u32>(mbuf, L.MBUF_HASH));
  if (flags & L.PACKET_FLAG_VLAN) info = putPpi(info, L.PPI_TYPE_VLAN, vlanInfo(load<u32>(mbuf, L.MBUF_VLAN_TCI)));
  if (wantsLso) {
    const v6: u32 = flags & L.PACKET_FLAG_IPV6 ? L.PPI_LSO_IPV6 : 0;
    putPpi(info, L.PPI_TYPE_LSO, load<u32>(mbuf, L.MBUF_MSS) | (load<u32>(mbuf, L.MBUF_L4_OFFSET) << L.PPI_LSO_HEADER_OFFSET_SHIFT) | L.PPI_LSO_V2 | v6);
  } else if (wantsChecksum) {
    let word = load<u32>(mbuf, L.MBUF_L4_OFFSET) << L.PPI_TX_CHECKSUM_HEADER_OFFSET_SHIFT;
    word |= flags & L.PACKET_FLAG_IPV6 ? L.PPI_TX_CHECKSUM_IPV6 : L.PPI_TX_CHECKSUM_IPV4;
    if (flags & L.PACKET_FLAG_TX_TCP_CHECKSUM) word |= L.PPI_TX_CHECKSUM_TCP;
    if (flags & L.PACKET_FLAG_TX_UDP_CHECKSUM) word |= L.PPI_TX_CHECKSUM_UDP;
    if (flags & L.PACKET_FLAG_TX_IP_CHECKSUM) word |= L.PPI_TX_CHECKSUM_IP_HEADER;
    putPpi(info, L.PPI_TYPE_CHECKSUM, word);
  }
}

/** LSO wants the lengths zero and the TCP checksum field seeded with the sum of a pseudo header without length. */
export function seedLso(data: u32, l4: u32, flags: u32): void {
  let sum: u32 = 6 << 8; // protocol TCP, in the byte order of the sum below
  let from: u32;
  let words: u32;
  if (flags & L.PACKET_FLAG_IPV6) {
    store<u16>(data + 18, 0);
    from = data + 22;
    words = 16;
  } else {
    store<u16>(data + 16, 0);
    store<u16>(data + 24, 0);
    from = data + 26;
    words = 4;
  }
  for (let i: u32 = 0; i < words; i++) sum += load<u16>(from + (i << 1));
  sum = (sum & 0xffff) + (sum >>> 16);
  sum = (sum & 0xffff) + (sum >>> 16);
  store<u16>(data + l4 + 16, <u16>sum);
}

/** Takes a send slot; REFUSED when every one is in flight. */
export function takeSlot(q: u32): u32 {
  const free = load<u32>(q, L.GUEST_QUEUE_FREE_SLOT_COUNT);
  if (free == 0) {
    count(q + L.GUEST_QUEUE_TX_NO_SLOT, 1);
    return REFUSED;
  }
  store<u32>(q, free - 1, L.GUEST_QUEUE_FREE_SLOT_COUNT);
  return load<u32>(load<u32>(q, L.GUEST_QUEUE_FREE_SLOTS) + ((free - 1) << 2));
}

@inline
function slotAt(q: u32, slot: u32): u32 {
  return load<u32>(q, L.GUEST_QUEUE_SLOTS) + slot * L.SIZEOF_TX_SLOT;
}

@inline
export function fillSlot(q: u32, slot: u32, section: u32, mbuf: u32, packets: u32, bytes: u32): u32 {
  const at = slotAt(q, slot);
  store<u32>(at, 1, L.TX_SLOT_BUSY);
  store<u32>(at, section, L.TX_SLOT_SECTION);
  store<u32>(at, mbuf, L.TX_SLOT_MBUF);
  store<u32>(at, packets, L.TX_SLOT_PACKETS);
  store<u32>(at, bytes, L.TX_SLOT_BYTES);
  return slot | (load<u32>(at, L.TX_SLOT_GENERATION) << 16);
}

/** The send of transaction `id` is over: frees what it held. False = no such send in flight. */
export function finishSend(q: u32, id: u32, success: bool): bool {
  const slot = id & 0xffff;
  if (slot >= load<u32>(q, L.GUEST_QUEUE_SLOT_COUNT)) return false;
  const at = slotAt(q, slot);
  if (load<u32>(at, L.TX_SLOT_BUSY) == 0 || load<u32>(at, L.TX_SLOT_GENERATION) != id >>> 16) return false;
  const packets = load<u32>(at, L.TX_SLOT_PACKETS);
  if (success) {
    count(q + L.GUEST_QUEUE_TX_COMPLETED, packets);
    count(q + L.GUEST_QUEUE_TX_COMPLETED_BYTES, load<u32>(at, L.TX_SLOT_BYTES));
  } else count(q + L.GUEST_QUEUE_TX_FAILED, packets);
  releaseSlot(q, slot);
  return true;
}

/** Takes takeSlot() back. */
@inline
export function returnSlot(q: u32): void {
  store<u32>(q, load<u32>(q, L.GUEST_QUEUE_FREE_SLOT_COUNT) + 1, L.GUEST_QUEUE_FREE_SLOT_COUNT);
}

function releaseSlot(q: u32, slot: u32): void {
  const at = slotAt(q, slot);
  const section = load<u32>(at, L.TX_SLOT_SECTION);
  store<u32>(at, 0, L.TX_SLOT_BUSY);
  store<u32>(at, (load<u32>(at, L.TX_SLOT_GENERATION) + 1) & 0xffff, L.TX_SLOT_GENERATION);
  if (section != L.NO_SECTION) freeSection(q, section);
  const mbuf = load<u32>(at, L.TX_SLOT_MBUF);
  if (mbuf != 0) freeChain(mbuf);
  const free = load<u32>(q, L.GUEST_QUEUE_FREE_SLOT_COUNT);
  store<u32>(load<u32>(q, L.GUEST_QUEUE_FREE_SLOTS) + (free << 2), slot);
  store<u32>(q, free + 1, L.GUEST_QUEUE_FREE_SLOT_COUNT);
}

@inline
function freeSection(q: u32, section: u32): void {
  const free = load<u32>(q, L.GUEST_QUEUE_FREE_SECTION_COUNT);
  store<u32>(load<u32>(q, L.GUEST_QUEUE_FREE_SECTIONS) + (free << 2), section);
  store<u32>(q, free + 1, L.GUEST_QUEUE_FREE_SECTION_COUNT);
}

/** Sends in flight. */
@inline
function outstanding(q: u32): u32 {
  return load<u32>(q, L.GUEST_QUEUE_SLOT_COUNT) - load<u32>(q, L.GUEST_QUEUE_FREE_SLOT_COUNT);
}

export function blocked(q: u32, bytes: u32): void {
  store<u32>(q, bytes, L.CHANNEL_END_BLOCKED);
  count(q + L.GUEST_QUEUE_RING_FULL, 1);
}

/** Sends the open section as one message. False = no room (or no slot): it stays open for the next time. */
export function flushSection(q: u32): bool {
  const section = load<u32>(q, L.GUEST_QUEUE_SECTION);
  if (section == L.NO_SECTION) return true;
  const payload = load<u32>(q, L.GUEST_QUEUE_NVSP_BYTES);
  const total = L.SIZEOF_WIRE_PACKET_DESCRIPTOR + ((payload + 7) & ~7) + 8;
  if (!ringRoom(q, total + load<u32>(q, L.CHANNEL_END_SPARE))) {
    blocked(q, total + load<u32>(q, L.CHANNEL_END_SPARE));
    return false;
  }
  const slot = takeSlot(q);
  if (slot == REFUSED) return false;
  const packets = load<u32>(q, L.GUEST_QUEUE_SECTION_PACKETS);
  const bytes = load<u32>(q, L.GUEST_QUEUE_SECTION_BYTES);
  const id = fillSlot(q, slot, section, 0, packets, bytes);
  const at = openPacket(q, total);
  storeDescriptor(at, 6, L.SIZEOF_WIRE_PACKET_DESCRIPTOR, total - 8, 1, id, L.TX_TRANSACTION);
  putNvspData(at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR, payload, section, load<u32>(q, L.GUEST_QUEUE_SECTION_USED));
  closePacket(q, at, total);
  store<u32>(q, L.NO_SECTION, L.GUEST_QUEUE_SECTION);
  copiedMessages++;
  return true;
}

/** Padding up to the next message belongs to the one before it. A handful of bytes: a loop beats memory.fill. */
@inline
function padMessage(message: u32, from: u32, bytes: u32): void {
  store<u32>(message, load<u32>(message, L.WIRE_RNDIS_PACKET_MESSAGE_LENGTH) + bytes, L.WIRE_RNDIS_PACKET_MESSAGE_LENGTH);
  for (let i: u32 = 0; i < bytes; i++) store<u8>(from + i, 0);
}

/** Takes a free section and opens it; NO_SECTION = none is free. */
@inline
function openSection(q: u32): u32 {
  const free = load<u32>(q, L.GUEST_QUEUE_FREE_SECTION_COUNT);
  if (free == 0) return L.NO_SECTION;
  const section = load<u32>(load<u32>(q, L.GUEST_QUEUE_FREE_SECTIONS) + ((free - 1) << 2));
  store<u32>(q, free - 1, L.GUEST_QUEUE_FREE_SECTION_COUNT);
  store<u32>(q, section, L.GUEST_QUEUE_SECTION);
  store<u32>(q, 0, L.GUEST_QUEUE_SECTION_USED);
  store<u32>(q, 0, L.GUEST_QUEUE_SECTION_PACKETS);
  store<u32>(q, 0, L.GUEST_QUEUE_SECTION_BYTES);
  return section;
}

/** Copies a packet into the open section, or into a new one. 1 = done, 0 = try later, -1 = no section: send it directly. */
function sendCopied(q: u32, mbuf: u32, flags: u32, bytes: u32): i32 {
  const message = PACKET_HEADER + infoBytes + bytes;
  const sectionBytes = load<u32>(q, L.GUEST_QUEUE_SEND_SECTION_BYTES);
  const alignment = load<u32>(q, L.GUEST_QUEUE_PACKET_ALIGNMENT) - 1;
  let section = load<u32>(q, L.GUEST_QUEUE_SECTION);
  let used: u32 = 0;
  if (section != L.NO_SECTION) {
    used = load<u32>(q, L.GUEST_QUEUE_SECTION_USED);
    const padded = (used + alignment) & ~alignment;
    if (padded + message > sectionBytes || load<u32>(q, L.GUEST_QUEUE_SECTION_PACKETS) >= load<u32>(q, L.GUEST_QUEUE_MAX_PACKETS_PER_MESSAGE)) {
      if (!flushSection(q)) return 0;
      section = L.NO_SECTION;
    } else if (padded != used) {
      const buffer = load<u32>(q, L.GUEST_QUEUE_SEND_BUFFER) + section * sectionBytes;
      padMessage(load<u32>(q, L.GUEST_QUEUE_SECTION_LAST), buffer + used, padded - used);
      used = padded;
    }
  }
  if (section == L.NO_SECTION) {
    section = openSection(q);
    if (section == L.NO_SECTION) {
      count(q + L.GUEST_QUEUE_TX_NO_SECTION, 1);
      return -1;
    }
    used = 0;
  }
  const at = load<u32>(q, L.GUEST_QUEUE_SEND_BUFFER) + section * sectionBytes + used;
  putHeaders(at, mbuf, flags, bytes);
  let to = at + PACKET_HEADER + infoBytes;
  for (let segment = mbuf; segment != 0; segment = load<u32>(segment, L.MBUF_NEXT)) {
    const length = load<u32>(segment, L.MBUF_DATA_LENGTH);
    copyBytes(to, load<u32>(segment, L.MBUF_DATA), length);
    to += length;
  }
  if (softwareChecksum) checksumFinish(at + PACKET_HEADER + infoBytes, bytes, flags, load<u32>(mbuf, L.MBUF_L4_OFFSET));
  if (wantsLso) seedLso(at + PACKET_HEADER + infoBytes, load<u32>(mbuf, L.MBUF_L4_OFFSET), flags);
  store<u32>(q, at, L.GUEST_QUEUE_SECTION_LAST);
  store<u32>(q, used + message, L.GUEST_QUEUE_SECTION_USED);
  store<u32>(q, load<u32>(q, L.GUEST_QUEUE_SECTION_PACKETS) + 1, L.GUEST_QUEUE_SECTION_PACKETS);
  store<u32>(q, load<u32>(q, L.GUEST_QUEUE_SECTION_BYTES) + bytes, L.GUEST_QUEUE_SECTION_BYTES);
  copied++;
  freeChain(mbuf);
  return 1;
}

// What this burst adds to the counters.
let sentPackets: u32 = 0;
let sentBytes: u32 = 0;
let copied: u32 = 0;
let copiedMessages: u32 = 0;

/** Do the segments add up to what the packet says it has? */
@inline
function addsUp(mbuf: u32, bytes: u32): bool {
  let sum: u32 = 0;
  for (let segment = mbuf; segment != 0; segment = load<u32>(segment, L.MBUF_NEXT)) sum += load<u32>(segment, L.MBUF_DATA_LENGTH);
  return sum == bytes;
}

/** Sends one packet. 1 = taken (sent, or dropped and counted), 0 = try later. */
function sendOne(q: u32, mbuf: u32): i32 {
  const flags = load<u32>(mbuf, L.MBUF_FLAGS);
  const bytes = load<u32>(mbuf, L.MBUF_PACKET_LENGTH);
  let sent = -1;
  if (prepare(q, mbuf, flags, bytes) && addsUp(mbuf, bytes)) {
    const copyLimit = load<u32>(q, L.GUEST_QUEUE_COPY_LIMIT);
    const sectionLimit = load<u32>(q, L.GUEST_QUEUE_SECTION_LIMIT);
    const fits = PACKET_HEADER + infoBytes + bytes <= (sectionLimit != 0 ? sectionLimit : copyLimit);
    if (!wantsLso && fits && PACKET_HEADER + bytes <= copyLimit) sent = sendCopied(q, mbuf, flags, bytes);
    if (sent < 0) {
      sent = sendDirect(q, mbuf, flags, bytes);
      // What the host cannot read, or must not be changed where it is, is copied; it waits for a section.
      if (sent < 0 && fits) sent = sendCopied(q, mbuf, flags, bytes) == 1 ? 1 : 0;
    }
  }
  if (sent == 0) {
    count(q + L.GUEST_QUEUE_TX_BUSY, 1);
    return 0;
  }
  if (sent < 0) {
    count(q + L.GUEST_QUEUE_TX_TOO_BIG, 1);
    freeChain(mbuf);
    return 1;
  }
  sentPackets++;
  sentBytes += bytes;
  if (wantsLso) count(q + L.GUEST_QUEUE_TX_LSO, 1);
  if (wantsChecksum) count(q + L.GUEST_QUEUE_TX_CHECKSUM, 1);
  if (softwareChecksum) count(q + L.GUEST_QUEUE_TX_SOFTWARE_CHECKSUM, 1);
  if (flags & L.PACKET_FLAG_VLAN) count(q + L.GUEST_QUEUE_TX_VLAN, 1);
  return 1;
}

/** A packet of one segment that asks the host for nothing and fits a section: most of the traffic. */
@inline
function isPlain(q: u32, mbuf: u32): bool {
  const bytes = load<u32>(mbuf, L.MBUF_DATA_LENGTH);
  const message = PACKET_HEADER + bytes;
  if ((load<u32>(mbuf, L.MBUF_FLAGS) & SPECIAL) != 0 || load<u32>(mbuf, L.MBUF_PACKET_LENGTH) != bytes) return false;
  if (bytes < 14 || bytes > load<u32>(q, L.GUEST_QUEUE_MAX_FRAME_BYTES)) return false;
  return message <= load<u32>(q, L.GUEST_QUEUE_COPY_LIMIT) && message <= load<u32>(q, L.GUEST_QUEUE_SEND_SECTION_BYTES);
}

/** The short way: copies plain packets as long as the open section takes them. Returns how many went. */
function sendPlain(q: u32, handles: u32, n: u32): u32 {
  const sectionBytes = load<u32>(q, L.GUEST_QUEUE_SEND_SECTION_BYTES);
  const start = load<u32>(q, L.GUEST_QUEUE_SEND_BUFFER) + load<u32>(q, L.GUEST_QUEUE_SECTION) * sectionBytes;
  const alignment = load<u32>(q, L.GUEST_QUEUE_PACKET_ALIGNMENT) - 1;
  const longest = load<u32>(q, L.GUEST_QUEUE_MAX_FRAME_BYTES);
  const limit = load<u32>(q, L.GUEST_QUEUE_COPY_LIMIT);
  let room = load<u32>(q, L.GUEST_QUEUE_MAX_PACKETS_PER_MESSAGE) - load<u32>(q, L.GUEST_QUEUE_SECTION_PACKETS);
  if (room > n) room = n;
  let used = load<u32>(q, L.GUEST_QUEUE_SECTION_USED);
  let last = load<u32>(q, L.GUEST_QUEUE_SECTION_LAST);
  let total: u32 = 0;
  let i: u32 = 0;
  for (; i < room; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    const bytes = load<u32>(mbuf, L.MBUF_DATA_LENGTH);
    const message = PACKET_HEADER + bytes;
    const padded = (used + alignment) & ~alignment;
    if ((load<u32>(mbuf, L.MBUF_FLAGS) & SPECIAL) != 0 || load<u32>(mbuf, L.MBUF_PACKET_LENGTH) != bytes) break;
    if (bytes < 14 || bytes > longest || message > limit || padded + message > sectionBytes) break;
    if (padded != used) {
      padMessage(last, start + used, padded - used);
    }
    last = start + padded;
    putPacketHeader(last, message, PACKET_HEADER, bytes, 0);
    copyBytes(last + PACKET_HEADER, load<u32>(mbuf, L.MBUF_DATA), bytes);
    used = padded + message;
    total += bytes;
    freeChain(mbuf);
  }
  store<u32>(q, load<u32>(q, L.GUEST_QUEUE_SECTION_PACKETS) + i, L.GUEST_QUEUE_SECTION_PACKETS);
  store<u32>(q, load<u32>(q, L.GUEST_QUEUE_SECTION_BYTES) + total, L.GUEST_QUEUE_SECTION_BYTES);
  store<u32>(q, used, L.GUEST_QUEUE_SECTION_USED);
  store<u32>(q, last, L.GUEST_QUEUE_SECTION_LAST);
  sentPackets += i;
  sentBytes += total;
  copied += i;
  return i;
}

export function guestSend(q: u32, handles: u32, n: u32): u32 {
  if (load<u32>(q, L.CHANNEL_END_RING_ERROR) != 0) return 0;
  const size = load<u32>(q, L.CHANNEL_END_WRITE_SIZE);
  if (load<u32>(q, L.GUEST_QUEUE_STOPPED)) {
    // Woken above 20 % free, or when nothing is outstanding (facts/linux-guest.md 3.4).
    if (ringFree(q, true) * 5 < size && outstanding(q) != 0) return 0;
    store<u32>(q, 0, L.GUEST_QUEUE_STOPPED);
    count(q + L.GUEST_QUEUE_TX_WAKES, 1);
  }
  store<u32>(q, 0, L.CHANNEL_END_BLOCKED);
  sentPackets = sentBytes = copied = copiedMessages = 0;
  let i: u32 = 0;
  while (i < n) {
    if (load<u32>(q, L.GUEST_QUEUE_SECTION) != L.NO_SECTION) {
      i += sendPlain(q, handles + (i << 2), n - i);
      if (i == n) break;
    }
    const mbuf = load<u32>(handles + (i << 2));
    if (isPlain(q, mbuf)) {
      // The section is full, or none is open.
      if (!flushSection(q)) {
        count(q + L.GUEST_QUEUE_TX_BUSY, 1);
        break;
      }
      if (openSection(q) != L.NO_SECTION) continue;
    }
    if (sendOne(q, mbuf) == 0) break;
    i++;
  }
  flushSection(q);
  count(q + L.GUEST_QUEUE_RING_PACKETS_OUT, copiedMessages);
  count(q + L.GUEST_QUEUE_TX_MESSAGES, copiedMessages);
  count(q + L.GUEST_QUEUE_TX_PACKETS, sentPackets);
  count(q + L.GUEST_QUEUE_TX_BYTES, sentBytes);
  count(q + L.GUEST_QUEUE_TX_COPIED, copied);
  ringPublish(q);
  if (ringFree(q, false) * 10 < size && ringFree(q, true) * 10 < size) {
    store<u32>(q, 1, L.GUEST_QUEUE_STOPPED);
    count(q + L.GUEST_QUEUE_TX_STOPS, 1);
    store<u32>(q, size / 5, L.CHANNEL_END_BLOCKED);
  }
  return i;
}

/** Gives back all that sends in flight and the open section hold: the host has closed, or will never answer. */
export function abandonSends(q: u32): void {
  const slots = load<u32>(q, L.GUEST_QUEUE_SLOT_COUNT);
  for (let slot: u32 = 0; slot < slots; slot++) {
    if (load<u32>(slotAt(q, slot), L.TX_SLOT_BUSY)) releaseSlot(q, slot);
  }
  const section = load<u32>(q, L.GUEST_QUEUE_SECTION);
  if (section != L.NO_SECTION) freeSection(q, section);
  store<u32>(q, L.NO_SECTION, L.GUEST_QUEUE_SECTION);
}
