// Receive rings of packet sockets, TPACKET_V3 (linux/if_packet.h): the kernel fills blocks with packets and hands over whole
// blocks. What a block says is read once and checked; packets are copied out, so that a block goes back when it is read.
import { L2_MASK, L2_QINQ, L2_VLAN } from './classify';
import * as L from './generated';
import { family } from './headers';
import { freeChain, take as takeBuffer } from './pool';
import { segment } from './segment';
import { data, flags, HEADER, l4Offset, length, mss, putCells, settle, TAG, take, typeOfPacket, vlanTci } from './vnet';
import { FILLED, fillChain, NO_BUFFER } from './vnet-burst';

// struct tpacket_block_desc.
const BLOCK_STATUS: u32 = 8;
const BLOCK_PACKETS: u32 = 12;
const BLOCK_FIRST: u32 = 16;
const BLOCK_HEADER: u32 = 48;
const STATUS_USER: u32 = 1;
// struct tpacket3_hdr, behind it a struct sockaddr_ll.
const PACKET_NEXT: u32 = 0;
const PACKET_SECONDS: u32 = 4;
const PACKET_NANOSECONDS: u32 = 8;
const PACKET_CAPTURED: u32 = 12;
const PACKET_LENGTH: u32 = 16;
const PACKET_STATUS: u32 = 20;
const PACKET_MAC: u32 = 24;
const PACKET_TCI: u32 = 32;
const PACKET_TPID: u32 = 36;
const PACKET_KIND: u32 = 48 + 10;
const PACKET_HEADERS: u32 = 48 + 20;
const STATUS_VLAN: u32 = 0x10;
const STATUS_TPID: u32 = 0x40;
const STATUS_CHECKSUM_GOOD: u32 = 0x80;
const KIND_OTHERS: u32 = 3;
const KIND_OUTGOING: u32 = 4;
/** A packet socket's virtio_net_hdr has no num_buffers. */
const SHORT_HEADER: u32 = 10;
const VNET_DATA_VALID: u32 = 2;
const MAX_TCP_HEADER: u32 = 60;
/** Packets that one burst looks at beyond those that it returns: others' packets must not keep it for ever. */
const SKIPPED_MAX: u32 = 256;

const CHECKSUM_VERDICTS: u32 = L.VNET_RX_TCP_CHECKSUM | L.VNET_RX_UDP_CHECKSUM;
const KINDS: u32 = L.PACKET_FLAG_IPV4 | L.PACKET_FLAG_IPV6 | L.PACKET_FLAG_TCP | L.PACKET_FLAG_UDP;

@inline
function add(cell: u32, by: u32): void {
  store<u32>(cell, load<u32>(cell) + by);
}

/** Gives the block back and goes on to the next one. */
function release(ring: u32): void {
  const number = load<u32>(ring, L.PACKET_RING_BLOCK);
  const block = load<u32>(ring, L.PACKET_RING_RING) + number * load<u32>(ring, L.PACKET_RING_BLOCK_BYTES);
  store<u32>(ring, 0, L.PACKET_RING_LEFT);
  store<u32>(ring, number + 1 == load<u32>(ring, L.PACKET_RING_BLOCK_COUNT) ? 0 : number + 1, L.PACKET_RING_BLOCK);
  store<u32>(block, 0, BLOCK_PACKETS); // until the kernel opens it again
  atomic.store<u32>(block + BLOCK_STATUS, 0);
}

/** Opens the next block with packets in it; false when there is none. */
function open(ring: u32): bool {
  const bytes = load<u32>(ring, L.PACKET_RING_BLOCK_BYTES);
  for (let tries = load<u32>(ring, L.PACKET_RING_BLOCK_COUNT); tries != 0; tries--) {
    const block = load<u32>(ring, L.PACKET_RING_RING) + load<u32>(ring, L.PACKET_RING_BLOCK) * bytes;
    if ((atomic.load<u32>(block + BLOCK_STATUS) & STATUS_USER) == 0) return false;
    const packets = load<u32>(block, BLOCK_PACKETS);
    const first = load<u32>(block, BLOCK_FIRST);
    if (packets != 0 && first >= BLOCK_HEADER && first < bytes) {
      store<u32>(ring, packets, L.PACKET_RING_LEFT);
      store<u32>(ring, block + first, L.PACKET_RING_AT);
      return true;
    }
    if (packets != 0) add(ring + L.PACKET_RING_ERRORS, packets);
    release(ring);
  }
  return false;
}

/** See datapath.ts. */
export function packetWaiting(ring: u32): u32 {
  if (load<u32>(ring, L.PACKET_RING_SEGMENTS_LEFT) != 0 || load<u32>(ring, L.PACKET_RING_LEFT) != 0) return 1;
  const block = load<u32>(ring, L.PACKET_RING_RING) + load<u32>(ring, L.PACKET_RING_BLOCK) * load<u32>(ring, L.PACKET_RING_BLOCK_BYTES);
  return atomic.load<u32>(block + BLOCK_STATUS) & STATUS_USER;
}

/** PACKET_TYPE of the packet that take() read, with a tag that goes into its data. */
function taggedType(tag: u32): u32 {
  const type = typeOfPacket();
  return tag == 0 ? type : (type & ~L2_MASK) | (tag >>> 16 == 0x8100 ? L2_VLAN : L2_QINQ);
}

@inline
function time(seconds: u32, nanoseconds: u32): u64 {
  return <u64>seconds * 1_000_000_000 + <u64>nanoseconds;
}

/** Cuts the large packet that take() read; its segments come one by one. False: there is no room for them. */
function cut(ring: u32, tag: u32, options: u32, stamp: u64): bool {
  const stride = (l4Offset + MAX_TCP_HEADER + mss + 63) & ~63;
  const bytes = load<u32>(ring, L.PACKET_RING_SEGMENTS_BYTES);
  const most = (bytes - 64) / (stride + 4);
  const lengths = load<u32>(ring, L.PACKET_RING_SEGMENTS);
  const first = (lengths + (most << 2) + 63) & ~63;
  const count = segment(data, length, l4Offset, mss, first, stride, lengths, most);
  if (count == 0) return false;
  let kept = flags & (KINDS | L.PACKET_FLAG_VLAN);
  if ((options & CHECKSUM_VERDICTS) != 0) kept |= L.PACKET_FLAG_RX_L4_GOOD;
  if ((options & L.VNET_RX_IP_CHECKSUM) != 0 && family == 4) kept |= L.PACKET_FLAG_RX_IP_GOOD;
  store<u32>(ring, count, L.PACKET_RING_SEGMENTS_LEFT);
  store<u32>(ring, first, L.PACKET_RING_SEGMENT);
  store<u32>(ring, stride, L.PACKET_RING_SEGMENT_STRIDE);
  store<u32>(ring, lengths, L.PACKET_RING_SEGMENT_LENGTH);
  store<u32>(ring, kept, L.PACKET_RING_SEGMENT_FLAGS);
  store<u32>(ring, taggedType(tag), L.PACKET_RING_SEGMENT_TYPE);
  store<u32>(ring, l4Offset + (tag == 0 ? 0 : TAG), L.PACKET_RING_SEGMENT_L4);
  store<u32>(ring, vlanTci, L.PACKET_RING_SEGMENT_TCI);
  store<u32>(ring, tag, L.PACKET_RING_SEGMENT_TAG);
  store<u64>(ring, stamp, L.PACKET_RING_SEGMENT_TIME);
  return true;
}

/** Puts the next segment into `mbuf`. False when it could not. */
function takeSegment(ring: u32, mbuf: u32, options: u32): bool {
  const at = load<u32>(ring, L.PACKET_RING_SEGMENT);
  const lengthAt = load<u32>(ring, L.PACKET_RING_SEGMENT_LENGTH);
  store<u32>(ring, at + load<u32>(ring, L.PACKET_RING_SEGMENT_STRIDE), L.PACKET_RING_SEGMENT);
  store<u32>(ring, lengthAt + 4, L.PACKET_RING_SEGMENT_LENGTH);
  store<u32>(ring, load<u32>(ring, L.PACKET_RING_SEGMENTS_LEFT) - 1, L.PACKET_RING_SEGMENTS_LEFT);
  if (!fill(ring, mbuf, at, load<u32>(lengthAt), load<u32>(ring, L.PACKET_RING_SEGMENT_TAG), options)) return false;
  store<u32>(mbuf, load<u32>(ring, L.PACKET_RING_SEGMENT_FLAGS), L.MBUF_FLAGS);
  store<u32>(mbuf, load<u32>(ring, L.PACKET_RING_SEGMENT_TCI), L.MBUF_VLAN_TCI);
  store<u32>(mbuf, load<u32>(ring, L.PACKET_RING_SEGMENT_TYPE), L.MBUF_PACKET_TYPE);
  store<u32>(mbuf, load<u32>(ring, L.PACKET_RING_SEGMENT_L4), L.MBUF_L4_OFFSET);
  if (options & L.VNET_RX_TIMESTAMP) store<u64>(mbuf, load<u64>(ring, L.PACKET_RING_SEGMENT_TIME), L.MBUF_TIMESTAMP);
  return true;
}

/** fillChain(), with what goes wrong counted. */
function fill(ring: u32, mbuf: u32, from: u32, bytes: u32, tag: u32, options: u32): bool {
  const result = fillChain(mbuf, from, bytes, tag, options);
  if (result == FILLED) return true;
  add(ring + (result == NO_BUFFER ? L.PACKET_RING_NO_MBUFS : L.PACKET_RING_ERRORS), 1);
  return false;
}

/** Puts the next packet of the open block into `mbuf`, or cuts it. False: the mbuf is still empty. */
function takePacket(ring: u32, mbuf: u32, options: u32): bool {
  const at = load<u32>(ring, L.PACKET_RING_AT);
  const left = load<u32>(ring, L.PACKET_RING_LEFT) - 1;
  const bytes = load<u32>(ring, L.PACKET_RING_BLOCK_BYTES);
  const end = load<u32>(ring, L.PACKET_RING_RING) + (load<u32>(ring, L.PACKET_RING_BLOCK) + 1) * bytes;
  const room = end - at;
  const next = load<u32>(at, PACKET_NEXT);
  const captured = load<u32>(at, PACKET_CAPTURED);
  const mac = <u32>load<u16>(at, PACKET_MAC);
  const status = load<u32>(at, PACKET_STATUS);
  const whole = load<u32>(at, PACKET_LENGTH) == captured;
  const inside = mac >= PACKET_HEADERS + HEADER && mac <= room && captured <= room - mac;
  if (!inside || (left != 0 && (next < PACKET_HEADERS || next > room - PACKET_HEADERS))) {
    add(ring + L.PACKET_RING_ERRORS, left + 1); // where the others would begin is unknown
    release(ring);
    return false;
  }
  const done = deliver(ring, mbuf, at, mac, captured, whole, status, options);
  store<u32>(ring, left, L.PACKET_RING_LEFT);
  store<u32>(ring, at + next, L.PACKET_RING_AT);
  if (left == 0) release(ring);
  return done;
}

function deliver(ring: u32, mbuf: u32, at: u32, mac: u32, captured: u32, whole: bool, status: u32, options: u32): bool {
  const kind = <u32>load<u8>(at, PACKET_KIND);
  if (kind == KIND_OUTGOING || (kind == KIND_OTHERS && (options & L.VNET_RX_OWN_ONLY) != 0)) return false;
  // The header, 2 bytes shorter than a TAP's, moves down to where a TAP's would begin; there is a gap.
  const header = at + mac - HEADER;
  const first = load<u64>(header + HEADER - SHORT_HEADER);
  const last = load<u16>(header + HEADER - SHORT_HEADER, 8);
  store<u64>(header, (status & STATUS_CHECKSUM_GOOD) != 0 && (first & 1) == 0 ? first | VNET_DATA_VALID : first);
  store<u16>(header, last, 8);
  const tagged = (status & STATUS_VLAN) != 0;
  if (!whole || !take(header, captured + HEADER, tagged ? options | L.VNET_RX_KEEP_TAG : options)) {
    add(ring + L.PACKET_RING_ERRORS, 1);
    return false;
  }
  // The kernel has taken the outer tag out of the data. Only 802.1Q's own goes into vlanTci.
  const tci = <u32>load<u16>(at, PACKET_TCI);
  const tpid = (status & STATUS_TPID) != 0 ? <u32>load<u16>(at, PACKET_TPID) : 0x8100;
  const stripped = tagged && tpid == 0x8100 && (options & L.VNET_RX_KEEP_TAG) == 0;
  const tag: u32 = tagged && !stripped ? (tpid << 16) | tci : 0;
  const stamp = time(load<u32>(at, PACKET_SECONDS), load<u32>(at, PACKET_NANOSECONDS));
  if ((flags & L.PACKET_FLAG_TX_TSO) != 0 && ((options & L.VNET_RX_COALESCED) == 0 || (flags & L.PACKET_FLAG_UDP) != 0)) {
    if (!cut(ring, tag, options, stamp)) add(ring + L.PACKET_RING_ERRORS, 1);
    else if (stripped) tagSegments(ring, tci);
    return false;
  }
  settle(options);
  if (!fill(ring, mbuf, data, length, tag, options)) return false;
  putCells(mbuf);
  store<u32>(mbuf, taggedType(tag), L.MBUF_PACKET_TYPE);
  if (stripped) {
    store<u32>(mbuf, load<u32>(mbuf, L.MBUF_FLAGS) | L.PACKET_FLAG_VLAN, L.MBUF_FLAGS);
    store<u32>(mbuf, tci, L.MBUF_VLAN_TCI);
  } else if (tag != 0 && l4Offset != 0) store<u32>(mbuf, l4Offset + TAG, L.MBUF_L4_OFFSET);
  if (options & L.VNET_RX_TIMESTAMP) store<u64>(mbuf, stamp, L.MBUF_TIMESTAMP);
  return true;
}

function tagSegments(ring: u32, tci: u32): void {
  store<u32>(ring, load<u32>(ring, L.PACKET_RING_SEGMENT_FLAGS) | L.PACKET_FLAG_VLAN, L.PACKET_RING_SEGMENT_FLAGS);
  store<u32>(ring, tci, L.PACKET_RING_SEGMENT_TCI);
}

/** See datapath.ts. */
export function packetReceive(ring: u32, handles: u32, max: u32): u32 {
  const pool = load<u32>(ring, L.PACKET_RING_POOL);
  const options = load<u32>(ring, L.PACKET_RING_OPTIONS);
  let n: u32 = 0;
  let bytes: u32 = 0;
  let mbuf: u32 = 0;
  store<u32>(ring, 0, L.PACKET_RING_ERRORS);
  store<u32>(ring, 0, L.PACKET_RING_NO_MBUFS);
  for (let looks = max + SKIPPED_MAX; n < max && looks != 0; looks--) {
    const cutting = load<u32>(ring, L.PACKET_RING_SEGMENTS_LEFT) != 0;
    if (!cutting && load<u32>(ring, L.PACKET_RING_LEFT) == 0 && !open(ring)) break;
    if (mbuf == 0) {
      mbuf = takeBuffer(pool);
      if (mbuf == 0) {
        add(ring + L.PACKET_RING_NO_MBUFS, 1);
        break;
      }
    }
    if (!(cutting ? takeSegment(ring, mbuf, options) : takePacket(ring, mbuf, options))) continue;
    bytes += load<u32>(mbuf, L.MBUF_PACKET_LENGTH);
    store<u32>(handles + (n << 2), mbuf);
    n++;
    mbuf = 0;
  }
  if (mbuf != 0) freeChain(mbuf);
  store<u32>(ring, bytes, L.PACKET_RING_BYTES);
  return n;
}
