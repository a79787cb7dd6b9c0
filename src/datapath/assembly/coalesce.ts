// Receive-side coalescing on the host: TCP segments of a burst that follow each other become one large packet for a guest that asked for
// them. The rules are those that NDIS has for network cards (Microsoft, "Rules for Coalescing TCP/IP Segments"): data segments in sequence
// without flags but ACK and PSH, without options but timestamps; acknowledgements and timestamps may go forward; pure ACKs, duplicate ones
// included, stay by themselves. Beyond NDIS's, all segments of a packet have one size, so that who cuts it up again finds them.
//
// Headers may lie in memory of the guest that sent them and change any time: every length is read once, and lengths of frames are ours.
import { finishIpv4, fold, pseudoSum, sum32 } from './checksum';
import * as L from './generated';
import { load16, store16 } from './headers';
import { count } from './ring';

const IPV4: u32 = 0x0008; // Ethernet types as they lie in memory
const IPV6: u32 = 0xdd86;
const TCP: u32 = 6;
const ICMPV6: u32 = 58;
const UDP: u32 = 17;
const ACK: u32 = 0x10;
const PSH: u32 = 0x08;
/** Two NOPs and a timestamp option of ten bytes, as nearly every sender has it. */
const TIMESTAMP: u32 = 0x0a080101;
const SPREAD: u64 = 0x9e3779b97f4a7c15;
/** Longest IP packet. */
const LONGEST: u32 = 65_535;
/** Nothing that would have to stay behind another packet; a TCP packet that goes by itself; a segment. */
const NONE: u32 = 0;
const ALONE: u32 = 1;
const SEGMENT: u32 = 2;
/** What no receiver can place: the flows that it may be part of do not grow over it. */
const ANY: u32 = 3;
const UNWANTED: u32 = L.PACKET_FLAG_TX_TSO | L.PACKET_FLAG_RX_L4_BAD | L.PACKET_FLAG_RX_IP_BAD | L.PACKET_FLAG_UDP;

// The segment at hand.
let at: u32 = 0;
let length: u32 = 0;
let flags: u32 = 0;
let l4: u32 = 0;
let headerBytes: u32 = 0;
let sequence: u32 = 0;
let acknowledged: u32 = 0;
let push: u32 = 0;
let slot: u32 = 0;

@inline
function slotOf(addresses: u64): u32 {
  // Products depend on nothing above: the high half is folded in between.
  let hash = addresses * SPREAD;
  hash = ((hash ^ (hash >>> 32)) ^ <u64>load<u32>(at + l4)) * SPREAD;
  return <u32>(hash >>> 56) & (L.COALESCE_FLOWS - 1);
}

/** What the frame is; sets the variables above. */
function look(frame: u32): u32 {
  length = load<u32>(frame, L.FRAME_LENGTH);
  at = load<u32>(frame, L.FRAME_HEAD);
  const there = length < L.HEAD_BYTES ? length : L.HEAD_BYTES;
  if (there < 54) return NONE;
  flags = load<u32>(frame, L.FRAME_FLAGS);
  const type: u32 = load<u16>(at, 12);
  let exact: bool;
  if (type == IPV4) {
    if (load<u8>(at, 14) != 0x45 || (load16(at + 20) & 0x3fff) != 0) return ANY;
    if (load<u8>(at, 23) != TCP) return NONE;
    l4 = 34;
    exact = load16(at + 16) == length - 14;
    slot = slotOf(load<u64>(at, 26));
  } else if (type == IPV6) {
    const next: u32 = load<u8>(at, 20);
    if (next == UDP || next == ICMPV6) return NONE;
    if (next != TCP || there < 74) return ANY;
    l4 = 54;
    exact = load16(at + 18) == length - 54;
    slot = slotOf((load<u64>(at, 22) ^ load<u64>(at, 38)) + (load<u64>(at, 30) ^ rotl<u64>(load<u64>(at, 46), 8)));
  } else return NONE;
  const tcp = at + l4;
  headerBytes = l4 + (((<u32>load<u8>(tcp, 12)) >>> 4) << 2);
  const bits: u32 = load<u8>(tcp, 13);
  if (!exact || headerBytes > there || (bits & ~PSH) != ACK || (flags & UNWANTED) != 0) return ALONE;
  const plain = headerBytes == l4 + 20 || (headerBytes == l4 + 32 && load<u32>(tcp, 20) == TIMESTAMP);
  if (!plain || (load<u8>(tcp, 12) & 1) != 0) return ALONE;
  sequence = bswap<u32>(load<u32>(tcp, 4));
  acknowledged = bswap<u32>(load<u32>(tcp, 8));
  push = bits & PSH;
  return SEGMENT;
}

/** Sum of a frame's bytes from `from` on; little-endian word order. */
function frameSum(frame: u32, from: u32): u64 {
  let entry = load<u32>(frame, L.FRAME_FRAGMENTS);
  let left = length - from;
  let skip = from;
  let odd = false;
  let sum: u64 = 0;
  for (; left != 0; entry += L.SIZEOF_FRAGMENT) {
    let bytes = load<u32>(entry, L.FRAGMENT_BYTES);
    if (skip >= bytes) {
      skip -= bytes;
      continue;
    }
    bytes -= skip;
    if (bytes > left) bytes = left;
    const part = fold(sum32(load<u32>(entry, L.FRAGMENT_ADDRESS) + skip, bytes));
    // Behind an odd number of bytes the two halves of every word change places.
    sum += odd ? ((part & 0xff) << 8) | (part >>> 8) : part;
    odd = odd != ((bytes & 1) != 0);
    left -= bytes;
    skip = 0;
  }
  return sum;
}

/** Its checksums hold, as somebody found already, or has promised to fill in, or as is found here. */
function right(c: u32, frame: u32): bool {
  const four = l4 == 34;
  if (four && (flags & (L.PACKET_FLAG_RX_IP_GOOD | L.PACKET_FLAG_TX_IP_CHECKSUM)) == 0 && fold(sum32(at + 14, 20)) != 0xffff) return false;
  if ((flags & (L.PACKET_FLAG_RX_L4_GOOD | L.PACKET_FLAG_TX_TCP_CHECKSUM)) != 0) return true;
  const pseudo = four ? pseudoSum(4, at + 26, at + 30, TCP, length - l4) : pseudoSum(6, at + 22, at + 38, TCP, length - l4);
  count(c + L.COALESCER_CHECKSUMS, 1);
  if (fold(frameSum(frame, l4) + pseudo) == 0xffff) return true;
  count(c + L.COALESCER_BAD_CHECKSUMS, 1);
  return false;
}

/** The same connection, and nothing in Ethernet and IP headers that one packet could not say for both. */
function sameHeaders(frame: u32, first: u32): bool {
  const other = load<u32>(first, L.FRAME_HEAD);
  if (load<u64>(at) != load<u64>(other) || load<u64>(at, 6) != load<u64>(other, 6)) return false;
  if (((flags ^ load<u32>(first, L.FRAME_FLAGS)) & L.PACKET_FLAG_VLAN) != 0) return false;
  if ((flags & L.PACKET_FLAG_VLAN) != 0 && load<u32>(frame, L.FRAME_VLAN_TCI) != load<u32>(first, L.FRAME_VLAN_TCI)) return false;
  if (load<u32>(at + l4) != load<u32>(other + l4)) return false;
  if (l4 == 34) {
    // Class of service; don't-fragment bit; time to live.
    if (load<u8>(at, 15) != load<u8>(other, 15) || load<u8>(at, 20) != load<u8>(other, 20) || load<u8>(at, 22) != load<u8>(other, 22)) return false;
    return load<u64>(at, 26) == load<u64>(other, 26);
  }
  if (load<u32>(at, 14) != load<u32>(other, 14) || load<u8>(at, 21) != load<u8>(other, 21)) return false;
  const addresses = v128.or(v128.xor(v128.load(at, 22), v128.load(other, 22)), v128.xor(v128.load(at, 38), v128.load(other, 38)));
  return !v128.any_true(addresses);
}

/** Puts the frame, number `index` of the burst, behind the unit's. False: it does not belong there. */
function append(c: u32, unit: u32, frame: u32, index: u32, list: u32, most: u32): bool {
  const first = load<u32>(list + (load<u32>(unit, L.COALESCE_UNIT_FIRST) << 2));
  const payload = length - headerBytes;
  const total = load<u32>(unit, L.COALESCE_UNIT_BYTES) + payload;
  const n = load<u32>(unit, L.COALESCE_UNIT_COUNT);
  if (sequence != load<u32>(unit, L.COALESCE_UNIT_NEXT) || headerBytes != load<u32>(unit, L.COALESCE_UNIT_HEADER_BYTES)) return false;
  if (l4 != load<u32>(unit, L.COALESCE_UNIT_L4) || payload == 0 || payload > load<u32>(unit, L.COALESCE_UNIT_MSS)) return false;
  if (total - 14 > LONGEST || n == most) return false;
  if (<i32>(acknowledged - load<u32>(unit, L.COALESCE_UNIT_ACKNOWLEDGED)) < 0) return false;
  const stamped = headerBytes != l4 + 20;
  const stamp = stamped ? bswap<u32>(load<u32>(at + l4, 24)) : 0;
  if (stamped && <i32>(stamp - load<u32>(unit, L.COALESCE_UNIT_TIMESTAMP)) < 0) return false;
  const fragments = (n == 1 ? load<u32>(first, L.FRAME_FRAGMENT_COUNT) + 1 : 0) + load<u32>(frame, L.FRAME_FRAGMENT_COUNT);
  if (reserved + fragments > load<u32>(c, L.COALESCER_FRAGMENT_CAPACITY)) return false;
  if (!sameHeaders(frame, first)) return false;
  if (n == 1) {
    // The first one is looked at only now that there is a second.
    const bits = flags;
    const bytes = length;
    at = load<u32>(first, L.FRAME_HEAD);
    length = load<u32>(first, L.FRAME_LENGTH);
    flags = load<u32>(first, L.FRAME_FLAGS);
    const good = right(c, first);
    at = load<u32>(frame, L.FRAME_HEAD);
    length = bytes;
    flags = bits;
    if (!good) return false;
  }
  if (!right(c, frame)) return false;
  reserved += fragments;
  store<u32>(load<u32>(c, L.COALESCER_LINKS) + (load<u32>(unit, L.COALESCE_UNIT_LAST) << 2), index + 1);
  store<u32>(unit, index, L.COALESCE_UNIT_LAST);
  store<u32>(unit, n + 1, L.COALESCE_UNIT_COUNT);
  store<u32>(unit, total, L.COALESCE_UNIT_BYTES);
  note(unit, payload);
  return true;
}

/** FRAGMENTs that the units of this burst need. */
let reserved: u32 = 0;

/** What the newest segment of a unit says. */
@inline
function note(unit: u32, payload: u32): void {
  const tcp = at + l4;
  store<u32>(unit, sequence + payload, L.COALESCE_UNIT_NEXT);
  store<u32>(unit, acknowledged, L.COALESCE_UNIT_ACKNOWLEDGED);
  store<u32>(unit, load<u16>(tcp, 14), L.COALESCE_UNIT_WINDOW);
  store<u32>(unit, load<u32>(unit, L.COALESCE_UNIT_PUSH) | push, L.COALESCE_UNIT_PUSH);
  if (headerBytes == l4 + 20) return;
  store<u32>(unit, bswap<u32>(load<u32>(tcp, 24)), L.COALESCE_UNIT_TIMESTAMP);
  store<u32>(unit, load<u32>(tcp, 28), L.COALESCE_UNIT_ECHO);
}

function begin(unit: u32, index: u32): void {
  const payload = length - headerBytes;
  store<u32>(unit, index, L.COALESCE_UNIT_FIRST);
  store<u32>(unit, index, L.COALESCE_UNIT_LAST);
  store<u32>(unit, 1, L.COALESCE_UNIT_COUNT);
  store<u32>(unit, length, L.COALESCE_UNIT_BYTES);
  store<u32>(unit, l4, L.COALESCE_UNIT_L4);
  store<u32>(unit, headerBytes, L.COALESCE_UNIT_HEADER_BYTES);
  store<u32>(unit, payload, L.COALESCE_UNIT_MSS);
  store<u32>(unit, 0, L.COALESCE_UNIT_PUSH);
  note(unit, payload);
}

/** Writes FRAGMENTs for a frame's bytes from `skip` on to `to`; returns where the next one goes. */
function addFragments(frame: u32, skip: u32, to: u32): u32 {
  let entry = load<u32>(frame, L.FRAME_FRAGMENTS);
  let left = load<u32>(frame, L.FRAME_LENGTH) - skip;
  for (; left != 0; entry += L.SIZEOF_FRAGMENT) {
    let bytes = load<u32>(entry, L.FRAGMENT_BYTES);
    if (skip >= bytes) {
      skip -= bytes;
      continue;
    }
    bytes -= skip;
    if (bytes > left) bytes = left;
    store<u32>(to, load<u32>(entry, L.FRAGMENT_ADDRESS) + skip, L.FRAGMENT_ADDRESS);
    store<u32>(to, bytes, L.FRAGMENT_BYTES);
    to += L.SIZEOF_FRAGMENT;
    left -= bytes;
    skip = 0;
  }
  return to;
}

/** Makes one FRAME of a unit of several, with FRAGMENTs from `entry` on; returns where the next one's go. */
function build(c: u32, unit: u32, made: u32, head: u32, entry: u32, list: u32): u32 {
  const links = load<u32>(c, L.COALESCER_LINKS);
  let index = load<u32>(unit, L.COALESCE_UNIT_FIRST);
  const first = load<u32>(list + (index << 2));
  const header = load<u32>(unit, L.COALESCE_UNIT_HEADER_BYTES);
  const total = load<u32>(unit, L.COALESCE_UNIT_BYTES);
  const tcp = head + load<u32>(unit, L.COALESCE_UNIT_L4);
  const four = load<u32>(unit, L.COALESCE_UNIT_L4) == 34;
  const start = load<u32>(first, L.FRAME_LENGTH);
  let filled = start < L.HEAD_BYTES ? start : L.HEAD_BYTES;
  memory.copy(head, load<u32>(first, L.FRAME_HEAD), filled);
  if (four) {
    store16(head + 16, total - 14);
    finishIpv4(head + 14, 20);
  } else store16(head + 18, total - 54);
  store<u32>(tcp, bswap<u32>(load<u32>(unit, L.COALESCE_UNIT_ACKNOWLEDGED)), 8);
  store<u8>(tcp, <u8>(ACK | load<u32>(unit, L.COALESCE_UNIT_PUSH)), 13);
  store<u16>(tcp, <u16>load<u32>(unit, L.COALESCE_UNIT_WINDOW), 14);
  if (tcp + 20 != head + header) {
    store<u32>(tcp, bswap<u32>(load<u32>(unit, L.COALESCE_UNIT_TIMESTAMP)), 24);
    store<u32>(tcp, load<u32>(unit, L.COALESCE_UNIT_ECHO), 28);
  }
  memory.copy(made, first, L.SIZEOF_FRAME);
  store<u32>(made, entry, L.FRAME_FRAGMENTS);
  let to = addFragments(first, filled, entry + L.SIZEOF_FRAGMENT);
  for (index = load<u32>(links + (index << 2)); index != 0; index = load<u32>(links + ((index - 1) << 2))) {
    const frame = load<u32>(list + ((index - 1) << 2));
    let skip = header;
    if (filled < L.HEAD_BYTES) {
      // Short segments, which lie in their heads whole.
      const payload = load<u32>(frame, L.FRAME_LENGTH) - header;
      const room = L.HEAD_BYTES - filled;
      const bytes = payload < room ? payload : room;
      memory.copy(head + filled, load<u32>(frame, L.FRAME_HEAD) + header, bytes);
      filled += bytes;
      skip += bytes;
    }
    to = addFragments(frame, skip, to);
  }
  store<u32>(entry, head, L.FRAGMENT_ADDRESS);
  store<u32>(entry, filled, L.FRAGMENT_BYTES);
  const bits = L.PACKET_FLAG_TCP | L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TX_TSO | L.PACKET_FLAG_RX_COALESCED;
  const family = four ? L.PACKET_FLAG_IPV4 | L.PACKET_FLAG_RX_IP_GOOD : L.PACKET_FLAG_IPV6;
  store<u32>(made, (to - entry) / L.SIZEOF_FRAGMENT, L.FRAME_FRAGMENT_COUNT);
  store<u32>(made, total, L.FRAME_LENGTH);
  store<u32>(made, bits | family | (load<u32>(first, L.FRAME_FLAGS) & L.PACKET_FLAG_VLAN), L.FRAME_FLAGS);
  store<u32>(made, load<u32>(unit, L.COALESCE_UNIT_MSS), L.FRAME_MSS);
  store<u32>(made, load<u32>(unit, L.COALESCE_UNIT_L4), L.FRAME_L4_OFFSET);
  store<u32>(made, head, L.FRAME_HEAD);
  store<u32>(made, L.NO_SECTION, L.FRAME_TRANSACTION);
  store<u32>(made, 0, L.FRAME_SOURCE_BUFFER);
  return to;
}

/** See datapath.ts. */
export function hostCoalesce(c: u32, list: u32, n: u32, families: u32, most: u32): u32 {
  const units = load<u32>(c, L.COALESCER_UNITS);
  const links = load<u32>(c, L.COALESCER_LINKS);
  const flows = load<u32>(c, L.COALESCER_FLOWS);
  const output = load<u32>(c, L.COALESCER_OUTPUT);
  if (n > load<u32>(c, L.COALESCER_CAPACITY)) n = load<u32>(c, L.COALESCER_CAPACITY);
  memory.fill(flows, 0, L.COALESCE_FLOWS << 2);
  memory.fill(links, 0, n << 2);
  reserved = 0;
  let out = output;
  let begun: u32 = 0;
  let several: u32 = 0;
  let joined: u32 = 0;
  // A unit stands where its first segment came: what follows it in its flow comes later. Its place holds an odd number for now.
  for (let index: u32 = 0; index < n; index++) {
    const frame = load<u32>(list + (index << 2));
    const kind = look(frame);
    if (kind == SEGMENT && (families & (l4 == 34 ? L.COALESCE_FAMILY_IPV4 : L.COALESCE_FAMILY_IPV6)) != 0) {
      const flow = flows + (slot << 2);
      const growing = load<u32>(flow);
      if (growing != 0) {
        const unit = units + (growing - 1) * L.SIZEOF_COALESCE_UNIT;
        if (append(c, unit, frame, index, list, most)) {
          joined++;
          if (load<u32>(unit, L.COALESCE_UNIT_COUNT) == 2) several++;
          if (length - headerBytes != load<u32>(unit, L.COALESCE_UNIT_MSS)) store<u32>(flow, 0);
          continue;
        }
        look(frame); // its variables anew
      }
      if (headerBytes < length) {
        begin(units + begun * L.SIZEOF_COALESCE_UNIT, index);
        store<u32>(out, (begun << 1) | 1);
        begun++;
        store<u32>(flow, begun);
        out += 4;
        continue;
      }
      store<u32>(flow, 0);
    } else if (kind == ALONE || kind == SEGMENT) store<u32>(flows + (slot << 2), 0);
    else if (kind == ANY) memory.fill(flows, 0, L.COALESCE_FLOWS << 2);
    store<u32>(out, frame);
    out += 4;
  }
  let made = load<u32>(c, L.COALESCER_FRAMES);
  let head = load<u32>(c, L.COALESCER_HEADS);
  let entry = load<u32>(c, L.COALESCER_FRAGMENTS);
  for (let place = output; begun != 0 && place != out; place += 4) {
    const mark = load<u32>(place);
    if ((mark & 1) == 0) continue;
    const unit = units + (mark >>> 1) * L.SIZEOF_COALESCE_UNIT;
    if (load<u32>(unit, L.COALESCE_UNIT_COUNT) == 1) {
      store<u32>(place, load<u32>(list + (load<u32>(unit, L.COALESCE_UNIT_FIRST) << 2)));
      continue;
    }
    entry = build(c, unit, made, head, entry, list);
    store<u32>(place, made);
    made += L.SIZEOF_FRAME;
    head += L.HEAD_BYTES;
  }
  count(c + L.COALESCER_PACKETS, several);
  count(c + L.COALESCER_SEGMENTS, several + joined);
  return (out - output) >>> 2;
}
