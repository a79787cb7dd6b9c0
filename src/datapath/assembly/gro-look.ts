// What generic receive offload wants to know of a packet. Which packets may be merged at all is Linux's rule: IPv4 without
// options and no fragment, IPv6 behind hop-by-hop, routing and destination headers only, up to two VLAN tags in the data.
import { chainSum, fold, pseudoSum } from './checksum';
import * as L from './generated';
import { load16, PROTOCOL_TCP, PROTOCOL_UDP } from './headers';

const BORROWED: u32 = L.PACKET_FLAG_EXTERNAL | L.PACKET_FLAG_INDIRECT;
const IPV4: u32 = 0x0008; // Ethernet types as they lie in memory
const IPV6: u32 = 0xdd86;
const TAG: u32 = 0x0081;
const SERVICE_TAG: u32 = 0xa888;
/** Fragment offset and more-fragments bit of an IPv4 header, and its reserved bit. */
const FRAGMENT: u32 = 0x3fff;
const RESERVED: u32 = 0x8000;
const HOP_BY_HOP: u32 = 0;
const ROUTING: u32 = 43;
const DESTINATION: u32 = 60;
/** No sane packet has its transport header behind that; the offset fits 16 bits. */
const LONGEST: u32 = 0x7fff;

// The packet that look() saw. Offsets count from the first byte.
export let mbuf: u32 = 0;
export let data: u32 = 0;
export let flags: u32 = 0;
/** Bytes of the packet, and of its first segment, which holds all headers. */
export let bytes: u32 = 0;
export let head: u32 = 0;
export let version: u32 = 0;
export let l3: u32 = 0;
export let l4: u32 = 0;
/** It goes on by itself, but nothing of its flow may be held back behind it. */
export let alone: bool = false;

/** True when nobody else sees the packet's segments, so that they may become part of another packet. */
function own(): bool {
  if (flags & BORROWED) return false;
  let segment = mbuf;
  do {
    if (load<u32>(segment, L.MBUF_REFERENCES) != 1) return false;
    segment = load<u32>(segment, L.MBUF_NEXT);
  } while (segment != 0);
  return true;
}

/** Protocol behind an IPv4 header, or 0. */
@inline
function lookIpv4(): u32 {
  if (l3 + 20 > head) return 0;
  const ip = data + l3;
  if (load<u8>(ip) != 0x45) return 0;
  const fragment = load16(ip + 6);
  if ((fragment & FRAGMENT) != 0) return 0;
  let sum = load<u64>(ip);
  const second = load<u64>(ip, 8);
  sum = (sum & 0xffffffff) + (sum >>> 32) + (second & 0xffffffff) + (second >>> 32) + <u64>load<u32>(ip, 16);
  if (fold(sum) != 0xffff) return 0;
  alone = load16(ip + 2) != bytes - l3 || (fragment & RESERVED) != 0;
  version = 4;
  l4 = l3 + 20;
  return load<u8>(ip, 9);
}

/** Protocol behind an IPv6 header and its extensions, or 0. */
function lookIpv6(): u32 {
  if (l3 + 40 > head) return 0;
  const ip = data + l3;
  if (load<u8>(ip) >>> 4 != 6) return 0;
  alone = load16(ip + 4) != bytes - l3 - 40;
  version = 6;
  l4 = l3 + 40;
  let next = <u32>load<u8>(ip, 6);
  while (next == HOP_BY_HOP || next == ROUTING || next == DESTINATION) {
    if (l4 + 8 > head || l4 > LONGEST) return 0;
    const extension = data + l4;
    // The checksum of such a packet is that of another destination.
    if (next == ROUTING && load<u8>(extension, 3) != 0) return 0;
    next = load<u8>(extension);
    l4 += (<u32>load<u8>(extension, 1) + 1) << 3;
  }
  return next;
}

/** Protocol of a packet that the stage deals with, TCP or with `udp` UDP; its ports are there. 0: it passes by. */
export function look(packet: u32, udp: bool): u32 {
  mbuf = packet;
  head = load<u32>(packet, L.MBUF_DATA_LENGTH);
  if (head < 34) return 0;
  data = load<u32>(packet, L.MBUF_DATA);
  bytes = load<u32>(packet, L.MBUF_PACKET_LENGTH);
  let type = <u32>load<u16>(data, 12);
  l3 = 14;
  if (type == TAG || type == SERVICE_TAG) {
    type = <u32>load<u16>(data, 16);
    l3 = 18;
    if (type == TAG || type == SERVICE_TAG) {
      type = <u32>load<u16>(data, 20);
      l3 = 22;
    }
  }
  let protocol: u32;
  if (type == IPV4) protocol = lookIpv4();
  else if (type == IPV6) protocol = lookIpv6();
  else return 0;
  if (protocol != PROTOCOL_TCP && (!udp || protocol != PROTOCOL_UDP)) return 0;
  if (l4 + 8 > head) return 0;
  flags = load<u32>(packet, L.MBUF_FLAGS);
  if (flags & (L.PACKET_FLAG_RX_L4_BAD | L.PACKET_FLAG_RX_IP_BAD)) return 0;
  if (!alone) alone = !own();
  return protocol;
}

/** True when the transport checksum holds: the device said so, nobody filled it in yet, or it is right. */
export function verify(stage: u32, protocol: u32): bool {
  if (flags & (L.PACKET_FLAG_RX_L4_GOOD | L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TX_UDP_CHECKSUM)) return true;
  const l4Bytes = bytes - l4;
  const sum = chainSum(mbuf, l4, l4Bytes) + pseudo(data, protocol, l4Bytes);
  const good = fold(sum) == 0xffff;
  flags |= good ? L.PACKET_FLAG_RX_L4_GOOD : L.PACKET_FLAG_RX_L4_BAD;
  store<u32>(mbuf, flags, L.MBUF_FLAGS);
  store<u64>(stage, load<u64>(stage, L.GRO_STAGE_CHECKSUMS) + 1, L.GRO_STAGE_CHECKSUMS);
  if (!good) store<u64>(stage, load<u64>(stage, L.GRO_STAGE_BAD_CHECKSUMS) + 1, L.GRO_STAGE_BAD_CHECKSUMS);
  return good;
}

/** Sum of the pseudo header of a packet at `at` that has its headers where the packet at hand has them. */
@inline
function pseudo(at: u32, protocol: u32, l4Bytes: u32): u64 {
  return version == 4
    ? pseudoSum(4, at + l3 + 12, at + l3 + 16, protocol, l4Bytes)
    : pseudoSum(6, at + l3 + 8, at + l3 + 24, protocol, l4Bytes);
}
