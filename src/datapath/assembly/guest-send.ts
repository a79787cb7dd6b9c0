// The guest's transmit burst: RNDIS header and per-packet info, then a copy into a send-buffer section (several small
// packets share one) or guest-page ranges (facts/linux-guest.md 3).
import { checksumFinish } from './checksum';
import { copyBytes } from './copy';
import * as L from './generated';
import { sendDirect } from './guest-direct';
import { freeChain, freeOwn } from './pool';
import { closePacket, count, openPacket, ringFree, ringPublish, ringRoom, storeDescriptor } from './ring';
import { PACKET_HEADER, PPI_SIZE, putNvspData, putPacketHeader, putPpi, vlanInfo } from './rndis';
import { fillSlot, openSection, outstanding, REFUSED, takeSlot } from './send-slots';

const CHECKSUMS: u32 = L.PACKET_FLAG_TX_IP_CHECKSUM | L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TX_UDP_CHECKSUM;
/** What needs per-packet info, or more: work on a header, care when the buffer is freed. */
const SPECIAL: u32 =
  CHECKSUMS | L.PACKET_FLAG_TX_TSO | L.PACKET_FLAG_VLAN | L.PACKET_FLAG_HASH | L.PACKET_FLAG_EXTERNAL | L.PACKET_FLAG_INDIRECT;
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
  const needed = total + load<u32>(q, L.CHANNEL_END_SPARE);
  if (!ringRoom(q, needed)) {
    blocked(q, needed);
    return false;
  }
  const slot = takeSlot(q);
  if (slot == REFUSED) return false;
  const packets = load<u32>(q, L.GUEST_QUEUE_SECTION_PACKETS);
  const id = fillSlot(q, slot, section, 0, packets, load<u32>(q, L.GUEST_QUEUE_SECTION_BYTES));
  const at = openPacket(q, total);
  storeDescriptor(at, 6, L.SIZEOF_WIRE_PACKET_DESCRIPTOR, total - 8, 1, id, L.TX_TRANSACTION);
  putNvspData(at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR, payload, section, load<u32>(q, L.GUEST_QUEUE_SECTION_USED));
  closePacket(q, at, total);
  store<u32>(q, L.NO_SECTION, L.GUEST_QUEUE_SECTION);
  copiedMessages++;
  return true;
}

/** Padding up to the next message, whose header is written next, belongs to the one before it. */
@inline
function padMessage(message: u32, from: u32, bytes: u32): void {
  store<u32>(message, load<u32>(message, L.WIRE_RNDIS_PACKET_MESSAGE_LENGTH) + bytes, L.WIRE_RNDIS_PACKET_MESSAGE_LENGTH);
  store<u64>(from, 0); // what of it is too much is overwritten
  if (bytes > 8) memory.fill(from, 0, bytes);
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

const SHORTEST: u32 = 14;

// Why sendPlain stopped: a section is full and cannot be sent now.
let stuck: bool = false;

/** How many lengths, from SHORTEST on, a packet may have to fit an empty section. */
function plainLengths(q: u32): u32 {
  const section = load<u32>(q, L.GUEST_QUEUE_SEND_SECTION_BYTES);
  const limit = load<u32>(q, L.GUEST_QUEUE_COPY_LIMIT);
  const frame = load<u32>(q, L.GUEST_QUEUE_MAX_FRAME_BYTES);
  let longest = section < limit ? section : limit;
  longest = longest < PACKET_HEADER ? 0 : longest - PACKET_HEADER;
  if (longest > frame) longest = frame;
  return longest < SHORTEST ? 0 : longest - SHORTEST + 1;
}

/** A plain packet is one segment of `bytes` bytes that asks the host for nothing and fits a section, as most do. */
@inline
function isPlain(mbuf: u32, bytes: u32, lengths: u32): bool {
  if (load<u64>(mbuf, L.MBUF_PACKET_LENGTH) != <u64>bytes) return false; // and no next segment
  if ((load<u32>(mbuf, L.MBUF_FLAGS) & SPECIAL) != 0) return false;
  return bytes - SHORTEST < lengths; // unsigned: a shorter one is a large number
}

/** The short way: copies plain packets into the open section and the next ones, until something is in the way that sendOne
 *  knows to deal with. Returns how many went. */
function sendPlain(q: u32, handles: u32, n: u32): u32 {
  const sectionBytes = load<u32>(q, L.GUEST_QUEUE_SEND_SECTION_BYTES);
  const lengths = plainLengths(q);
  const end = handles + (n << 2);
  let entry = handles;
  let section = load<u32>(q, L.GUEST_QUEUE_SECTION);
  while (entry != end) {
    const before = entry;
    if (section != L.NO_SECTION) {
      entry = fillSection(q, load<u32>(q, L.GUEST_QUEUE_SEND_BUFFER) + section * sectionBytes, lengths, entry, end);
      if (entry == end) break;
    }
    if (entry == before) {
      const mbuf = load<u32>(entry);
      if (!isPlain(mbuf, load<u32>(mbuf, L.MBUF_DATA_LENGTH), lengths)) break;
      stuck = !flushSection(q);
      if (stuck) break;
      section = openSection(q);
      if (section == L.NO_SECTION) break;
    }
  }
  const sent = (entry - handles) >>> 2;
  sentPackets += sent;
  copied += sent;
  return sent;
}

/** Copies plain packets from the handles in [entry, end) to the open section, which begins at `start`, as long as it takes
 *  them; returns where it stopped. Constants come as arguments, or the compiler computes them anew for every packet. */
function fillSection(q: u32, start: u32, lengths: u32, entry: u32, end: u32): u32 {
  const space = load<u32>(q, L.GUEST_QUEUE_SEND_SECTION_BYTES);
  const alignment = load<u32>(q, L.GUEST_QUEUE_PACKET_ALIGNMENT);
  const packets = load<u32>(q, L.GUEST_QUEUE_SECTION_PACKETS);
  const room = (load<u32>(q, L.GUEST_QUEUE_MAX_PACKETS_PER_MESSAGE) - packets) << 2;
  if (end - entry > room) end = entry + room;
  let used = load<u32>(q, L.GUEST_QUEUE_SECTION_USED);
  let last = load<u32>(q, L.GUEST_QUEUE_SECTION_LAST);
  let total: u32 = 0;
  const begin = entry;
  for (; entry != end; entry += 4) {
    const mbuf = load<u32>(entry);
    const bytes = load<u32>(mbuf, L.MBUF_DATA_LENGTH);
    if (load<u64>(mbuf, L.MBUF_PACKET_LENGTH) != <u64>bytes) break;
    if ((load<u32>(mbuf, L.MBUF_FLAGS) & SPECIAL) != 0) break;
    if (bytes - SHORTEST >= lengths) break;
    const message = PACKET_HEADER + bytes;
    const padded = (used + alignment - 1) & (0 - alignment);
    if (padded + message > space) break;
    if (padded != used) padMessage(last, start + used, padded - used);
    last = start + padded;
    putPacketHeader(last, message, PACKET_HEADER, bytes, 0);
    copyBytes(last + PACKET_HEADER, load<u32>(mbuf, L.MBUF_DATA), bytes);
    used = padded + message;
    total += bytes;
    freeOwn(mbuf);
  }
  store<u32>(q, used, L.GUEST_QUEUE_SECTION_USED);
  store<u32>(q, last, L.GUEST_QUEUE_SECTION_LAST);
  store<u32>(q, packets + ((entry - begin) >>> 2), L.GUEST_QUEUE_SECTION_PACKETS);
  store<u32>(q, load<u32>(q, L.GUEST_QUEUE_SECTION_BYTES) + total, L.GUEST_QUEUE_SECTION_BYTES);
  sentBytes += total;
  return entry;
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
  stuck = false;
  let i: u32 = 0;
  while (i < n) {
    i += sendPlain(q, handles + (i << 2), n - i);
    if (i == n) break;
    if (stuck) {
      count(q + L.GUEST_QUEUE_TX_BUSY, 1);
      break;
    }
    if (sendOne(q, load<u32>(handles + (i << 2))) == 0) break;
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
