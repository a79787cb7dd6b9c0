// Generic receive offload: packets of a TCP connection (and datagrams of a flow) that follow each other become one large
// packet, by the rules of Linux 6.18, so that what comes out is what a NIC's driver would have handed to the stack. A
// stage holds the flows of one poll in buckets, as NAPI does; groFlush() ends the poll.
import { finishIpv4, fold, pseudoSum } from './checksum';
import * as L from './generated';
import { alone, bytes, data, flags, head, l3, l4, look, mbuf, verify, version } from './gro-look';
import { load16, PROTOCOL_TCP, PROTOCOL_UDP, store16 } from './headers';
import { freeChain } from './pool';
import { count } from './ring';

/** IP packets of this many bytes and more there are not (GRO_LEGACY_MAX_SIZE). */
const TOO_LARGE: u32 = 65_536;
/** Datagrams in one packet. */
const UDP_MOST: u32 = 64;
// Flags of a TCP header, in the little-endian word that begins with its data offset; the window is behind them.
const FIN: u32 = 0x100;
const SYN: u32 = 0x200;
const RST: u32 = 0x400;
const PSH: u32 = 0x800;
const URG: u32 = 0x2000;
const CWR: u32 = 0x8000;
const LAST: u32 = URG | PSH | RST | SYN | FIN;
/** Version, traffic class and flow label of an IPv6 header's first word: what makes a flow, and the class. */
const FLOW_WORD: u32 = 0xffff0ff0;
const CLASS_WORD: u32 = 0x0000f00f;
const DONT_FRAGMENT: u32 = 0x40;
const LARGE: u32 = L.PACKET_FLAG_TX_TSO | L.PACKET_FLAG_RX_COALESCED;
const MERGED4: u32 =
  L.PACKET_FLAG_TX_TSO | L.PACKET_FLAG_RX_COALESCED | L.PACKET_FLAG_RX_L4_GOOD | L.PACKET_FLAG_IPV4 | L.PACKET_FLAG_TX_IP_CHECKSUM | L.PACKET_FLAG_RX_IP_GOOD;
const MERGED6: u32 = L.PACKET_FLAG_TX_TSO | L.PACKET_FLAG_RX_COALESCED | L.PACKET_FLAG_RX_L4_GOOD | L.PACKET_FLAG_IPV6;

/** Where the next packet that leaves goes. */
let out: u32 = 0;
/** Of the packet at hand: its bucket, and the first four cells of its flow. */
let bucket: u32 = 0;
let keyLow: u64 = 0;
let keyHigh: u64 = 0;

@inline
function emit(packet: u32): void {
  store<u32>(out, packet);
  out += 4;
}

@inline
function flowAt(list: u32, place: u32): u32 {
  return load<u32>(list + (place << 2));
}

/** The same Ethernet header and tags, and the same two ends. */
function sameHeaders(flow: u32): bool {
  const other = load<u32>(load<u32>(flow, L.GRO_FLOW_MBUF), L.MBUF_DATA);
  if (load<u64>(data) != load<u64>(other) || load<u64>(data, 6) != load<u64>(other, 6)) return false;
  if (l3 != 14 && load<u64>(data + l3 - 8) != load<u64>(other + l3 - 8)) return false;
  const a = data + l3;
  const b = other + l3;
  if (version == 4) return load<u64>(a, 12) == load<u64>(b, 12);
  if (((load<u32>(a) ^ load<u32>(b)) & FLOW_WORD) != 0 || load<u8>(a, 6) != load<u8>(b, 6)) return false;
  if (v128.any_true(v128.xor(v128.load(a, 8), v128.load(b, 8)))) return false;
  if (v128.any_true(v128.xor(v128.load(a, 24), v128.load(b, 24)))) return false;
  for (let i: u32 = 40; i < l4 - l3; i += 8) if (load<u64>(a + i) != load<u64>(b + i)) return false;
  return true;
}

/** Place of the packet's flow in its bucket, or -1. The youngest is the likeliest. */
function find(stage: u32, protocol: u32): i32 {
  const hash = flags & L.PACKET_FLAG_HASH ? load<u32>(mbuf, L.MBUF_HASH) : 0;
  bucket = stage + L.SIZEOF_GRO_STAGE + (hash & (L.GRO_BUCKETS - 1)) * L.SIZEOF_GRO_BUCKET;
  const tag = flags & L.PACKET_FLAG_VLAN ? 0x10000 | (load<u32>(mbuf, L.MBUF_VLAN_TCI) & 0xffff) : 0;
  keyLow = <u64>(l3 | (l4 << 8) | (protocol << 24)) | (<u64>(tag | (version << 20)) << 32);
  keyHigh = <u64>load<u32>(data + l4) | (<u64>hash << 32);
  for (let place = <i32>load<u32>(bucket, L.GRO_BUCKET_COUNT) - 1; place >= 0; place--) {
    const flow = flowAt(bucket, place);
    if (load<u64>(flow) == keyLow && load<u64>(flow, 8) == keyHigh && sameHeaders(flow)) return place;
  }
  return -1;
}

/** True when the IP headers do not let the packet follow those in the flow: time to live, class of service, don't-fragment
 *  bit, and identifications that neither count up nor stay the same. */
function otherNetwork(flow: u32): bool {
  const a = data + l3;
  const b = load<u32>(load<u32>(flow, L.GRO_FLOW_MBUF), L.MBUF_DATA) + l3;
  if (version == 6) return ((load<u32>(a) ^ load<u32>(b)) & CLASS_WORD) != 0 || load<u8>(a, 7) != load<u8>(b, 7);
  if (load<u8>(a, 8) != load<u8>(b, 8) || load<u8>(a, 1) != load<u8>(b, 1)) return true;
  if (((load<u8>(a, 6) ^ load<u8>(b, 6)) & <u8>DONT_FRAGMENT) != 0) return true;
  const step = (load16(a + 4) - load16(b + 4)) & 0xffff;
  const segments = load<u32>(flow, L.GRO_FLOW_COUNT);
  if (segments == 1 && step == 0) store<u32>(flow, 1, L.GRO_FLOW_FIXED_ID);
  return step != (load<u32>(flow, L.GRO_FLOW_FIXED_ID) != 0 ? 0 : segments & 0xffff);
}

/** Puts the payload, which begins at `payload`, behind the flow's. False: it would become too large. */
function append(flow: u32, payload: u32, segments: u32): bool {
  const first = load<u32>(flow, L.GRO_FLOW_MBUF);
  const total = load<u32>(first, L.MBUF_PACKET_LENGTH) + bytes - payload;
  if (alone || total - 14 >= TOO_LARGE) return false;
  let from = mbuf;
  let pieces = load<u32>(mbuf, L.MBUF_SEGMENTS);
  store<u32>(mbuf, 1, L.MBUF_SEGMENTS);
  store<u32>(mbuf, 0, L.MBUF_PACKET_LENGTH);
  if (payload == head) {
    // Nothing but headers in the first segment.
    from = load<u32>(mbuf, L.MBUF_NEXT);
    store<u32>(mbuf, 0, L.MBUF_NEXT);
    freeChain(mbuf);
    pieces--;
  } else {
    store<u32>(mbuf, data + payload, L.MBUF_DATA);
    store<u32>(mbuf, head - payload, L.MBUF_DATA_LENGTH);
  }
  store<u32>(load<u32>(flow, L.GRO_FLOW_LAST), from, L.MBUF_NEXT);
  let last = from;
  for (let i: u32 = 1; i < pieces; i++) last = load<u32>(last, L.MBUF_NEXT);
  store<u32>(flow, last, L.GRO_FLOW_LAST);
  store<u32>(first, total, L.MBUF_PACKET_LENGTH);
  store<u32>(first, load<u32>(first, L.MBUF_SEGMENTS) + pieces, L.MBUF_SEGMENTS);
  store<u32>(flow, load<u32>(flow, L.GRO_FLOW_COUNT) + segments, L.GRO_FLOW_COUNT);
  return true;
}

/** Writes the headers of a packet that several became: lengths, and the checksum of the pseudo header, so that whoever sends
 *  it on has the rest filled in. */
function complete(flow: u32, packet: u32): void {
  const at = load<u32>(packet, L.MBUF_DATA);
  const total = load<u32>(packet, L.MBUF_PACKET_LENGTH);
  const offsets = load<u32>(flow, L.GRO_FLOW_KIND_LOW);
  const protocol = offsets >>> 24;
  const ipAt = offsets & 0xff;
  const l4At = (offsets >>> 8) & 0xffff;
  const ip = at + ipAt;
  const four = (load<u32>(flow, L.GRO_FLOW_KIND_HIGH) >>> 20) == 4;
  const l4Bytes = total - l4At;
  let pseudo: u64;
  if (four) {
    store16(ip + 2, total - ipAt);
    finishIpv4(ip, 20);
    pseudo = pseudoSum(4, ip + 12, ip + 16, protocol, l4Bytes);
  } else {
    store16(ip + 4, total - ipAt - 40);
    pseudo = pseudoSum(6, ip + 8, ip + 24, protocol, l4Bytes);
  }
  let bits = load<u32>(packet, L.MBUF_FLAGS) | (four ? MERGED4 : MERGED6);
  if (protocol == PROTOCOL_TCP) {
    bits |= L.PACKET_FLAG_TCP | L.PACKET_FLAG_TX_TCP_CHECKSUM;
    store<u16>(at + l4At, <u16>fold(pseudo), 16);
  } else {
    bits |= L.PACKET_FLAG_UDP | L.PACKET_FLAG_TX_UDP_CHECKSUM;
    store16(at + l4At + 4, l4Bytes);
    store<u16>(at + l4At, <u16>fold(pseudo), 6);
  }
  store<u32>(packet, bits, L.MBUF_FLAGS);
  store<u32>(packet, load<u32>(flow, L.GRO_FLOW_SIZE), L.MBUF_MSS);
  store<u32>(packet, l4At, L.MBUF_L4_OFFSET);
}

/** Hands out the packet of a flow. */
function deliver(stage: u32, flow: u32): void {
  const packet = load<u32>(flow, L.GRO_FLOW_MBUF);
  if (load<u32>(flow, L.GRO_FLOW_COUNT) != 1) {
    complete(flow, packet);
    count(stage + L.GRO_STAGE_COALESCED, 1);
  }
  emit(packet);
}

/** Takes the flow out of its bucket, whose others stay in order. */
function release(stage: u32, list: u32, place: u32): void {
  const flow = flowAt(list, place);
  deliver(stage, flow);
  const left = load<u32>(list, L.GRO_BUCKET_COUNT) - 1;
  for (let i = place; i < left; i++) store<u32>(list + (i << 2), flowAt(list, i + 1));
  store<u32>(list + (left << 2), flow);
  store<u32>(list, left, L.GRO_BUCKET_COUNT);
  store<u32>(stage, load<u32>(stage, L.GRO_STAGE_HELD) - 1, L.GRO_STAGE_HELD);
}

/** Keeps the packet back as the first of a flow. */
function hold(stage: u32, segments: u32, size: u32, sequence: u32): void {
  let place = load<u32>(bucket, L.GRO_BUCKET_COUNT);
  if (place == L.GRO_BUCKET_FLOWS) {
    release(stage, bucket, 0);
    count(stage + L.GRO_STAGE_EVICTED, 1);
    place--;
  }
  const flow = flowAt(bucket, place);
  store<u64>(flow, keyLow);
  store<u64>(flow, keyHigh, 8);
  let last = mbuf;
  for (let next = load<u32>(mbuf, L.MBUF_NEXT); next != 0; next = load<u32>(next, L.MBUF_NEXT)) last = next;
  store<u32>(flow, mbuf, L.GRO_FLOW_MBUF);
  store<u32>(flow, last, L.GRO_FLOW_LAST);
  store<u32>(flow, segments, L.GRO_FLOW_COUNT);
  store<u32>(flow, size, L.GRO_FLOW_SIZE);
  store<u32>(flow, sequence, L.GRO_FLOW_SEQUENCE);
  store<u32>(flow, 0, L.GRO_FLOW_FIXED_ID);
  store<u32>(flow, load<u32>(stage, L.GRO_STAGE_POLL), L.GRO_FLOW_POLL);
  store<u32>(bucket, place + 1, L.GRO_BUCKET_COUNT);
  store<u32>(stage, load<u32>(stage, L.GRO_STAGE_HELD) + 1, L.GRO_STAGE_HELD);
}

/** True when the TCP header does not let the packet follow: acknowledgement, flags, window, options. */
function otherTransport(flow: u32, payload: u32): bool {
  const a = data + l4;
  const b = load<u32>(load<u32>(flow, L.GRO_FLOW_MBUF), L.MBUF_DATA) + l4;
  const word = load<u32>(a, 12);
  if ((word & CWR) != 0 || ((word ^ load<u32>(b, 12)) & ~(FIN | PSH)) != 0) return true;
  if (load<u32>(a, 8) != load<u32>(b, 8)) return true;
  for (let i: u32 = 20; i < payload - l4; i += 4) if (load<u32>(a + i) != load<u32>(b + i)) return true;
  return false;
}

/** Returns false for a packet that is nothing for the stage. */
function receiveTcp(stage: u32): bool {
  const large = flags & LARGE ? load<u32>(mbuf, L.MBUF_MSS) : 0;
  // Only a device's own coalescing is as good as separate packets; what somebody sent large stays as it is.
  if (flags & L.PACKET_FLAG_TX_TSO && large != 0) alone = true;
  // What will not be merged needs no checksum.
  if (!alone && !verify(stage, PROTOCOL_TCP)) return false;
  if (l4 + 20 > head) return false;
  const header = (<u32>load<u8>(data + l4, 12) >>> 4) << 2;
  const payload = l4 + header;
  if (header < 20 || payload > head) return false;
  const length = bytes - payload;
  const sequence = bswap<u32>(load<u32>(data + l4, 4));
  const bits = load<u32>(data + l4, 12) & LAST;
  // A coalesced packet counts as what it was made of, if that is of one size.
  const size = large != 0 && length > large ? large : length;
  const segments = size == length ? 1 : (length + size - 1) / size;
  const whole = length == segments * size;
  const place = find(stage, PROTOCOL_TCP);
  if (place >= 0) {
    const flow = flowAt(bucket, place);
    const mss = load<u32>(flow, L.GRO_FLOW_SIZE);
    const fits = segments == 1 ? length != 0 && length <= mss : size == mss;
    const follows = fits && sequence == load<u32>(flow, L.GRO_FLOW_SEQUENCE) && !otherTransport(flow, payload) && !otherNetwork(flow);
    if (follows && append(flow, payload, segments)) {
      const first = load<u32>(load<u32>(flow, L.GRO_FLOW_MBUF), L.MBUF_DATA) + l4;
      store<u32>(first, load<u32>(first, 12) | (bits & (FIN | PSH)), 12);
      store<u32>(flow, sequence + length, L.GRO_FLOW_SEQUENCE);
      count(stage + L.GRO_STAGE_MERGED, 1);
      if (bits != 0 || !whole || size < mss) release(stage, bucket, place);
      return true;
    }
    release(stage, bucket, place);
  }
  if (alone || bits != 0 || length == 0 || !whole) return false;
  hold(stage, segments, size, sequence + length);
  return true;
}

/** The same for a datagram. */
function receiveUdp(stage: u32): bool {
  const udp = data + l4;
  if (flags & LARGE && load<u32>(mbuf, L.MBUF_MSS) != 0) alone = true;
  const length = bytes - l4;
  // Without a checksum, padded or empty: no part of a flow.
  if (load<u16>(udp, 6) == 0 || length <= 8 || load16(udp + 4) != length) return false;
  if (!alone && !verify(stage, PROTOCOL_UDP)) return false;
  const size = length - 8;
  const place = find(stage, PROTOCOL_UDP);
  if (place >= 0) {
    const flow = flowAt(bucket, place);
    const most = load<u32>(flow, L.GRO_FLOW_SIZE);
    if (size <= most && !otherNetwork(flow) && append(flow, l4 + 8, 1)) {
      count(stage + L.GRO_STAGE_MERGED, 1);
      if (size != most || load<u32>(flow, L.GRO_FLOW_COUNT) >= UDP_MOST) release(stage, bucket, place);
      return true;
    }
    release(stage, bucket, place);
  }
  if (alone) return false;
  hold(stage, 1, size, 0);
  return true;
}

/** See datapath.ts. */
export function groReceive(stage: u32, handles: u32, n: u32, output: u32): u32 {
  const udp = (load<u32>(stage, L.GRO_STAGE_OPTIONS) & L.GRO_OPTION_UDP) != 0;
  out = output;
  for (let i: u32 = 0; i < n; i++) {
    const packet = load<u32>(handles + (i << 2));
    const protocol = look(packet, udp);
    let taken = false;
    if (protocol == PROTOCOL_TCP) taken = receiveTcp(stage);
    else if (protocol == PROTOCOL_UDP) taken = receiveUdp(stage);
    if (!taken) emit(packet);
  }
  count(stage + L.GRO_STAGE_PACKETS, n);
  return (out - output) >>> 2;
}

/** See datapath.ts. */
export function groFlush(stage: u32, output: u32, old: u32): u32 {
  const poll = load<u32>(stage, L.GRO_STAGE_POLL);
  store<u32>(stage, poll + 1, L.GRO_STAGE_POLL);
  if (load<u32>(stage, L.GRO_STAGE_HELD) == 0) return 0;
  out = output;
  let list = stage + L.SIZEOF_GRO_STAGE;
  for (let i: u32 = 0; i < L.GRO_BUCKETS; i++) {
    // The oldest is the first.
    while (load<u32>(list, L.GRO_BUCKET_COUNT) != 0) {
      if (old != 0 && load<u32>(flowAt(list, 0), L.GRO_FLOW_POLL) == poll) break;
      release(stage, list, 0);
    }
    list += L.SIZEOF_GRO_BUCKET;
  }
  return (out - output) >>> 2;
}
