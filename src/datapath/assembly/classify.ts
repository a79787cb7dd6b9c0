// One pass over a burst that a port received: recognizes, hashes, puts tags back, filters and counts. Headers are in the
// first segment (ports want buffers of at least 1024 bytes).
import { copyBytes } from './copy';
import * as L from './generated';
import { family, fragment, l3, l4, load16, parseHead, PROTOCOL_TCP, PROTOCOL_UDP, protocol, store16 } from './headers';
import { freeChain } from './pool';
import { count } from './ring';
import { scratch } from './scratch';
import { toeplitz } from './toeplitz';

// Values of ethdev's PACKET_TYPE, which are DPDK's.
const L2_ETHER: u32 = 0x1;
const L2_ARP: u32 = 0x3;
export const L2_MASK: u32 = 0xf;
export const L2_VLAN: u32 = 0x6;
export const L2_QINQ: u32 = 0x7;
const L3_IPV4: u32 = 0x10;
const L3_IPV4_EXT: u32 = 0x30;
const L3_IPV6: u32 = 0x40;
const L3_IPV6_EXT: u32 = 0xc0;
const L4_TCP: u32 = 0x100;
const L4_UDP: u32 = 0x200;
const L4_FRAG: u32 = 0x300;
const L4_SCTP: u32 = 0x400;
const L4_ICMP: u32 = 0x500;
const L4_NONFRAG: u32 = 0x600;

const ICMP: u32 = 1;
const ICMPV6: u32 = 58;
const SCTP: u32 = 132;

const HASH4: u32 = L.HASH_TYPE_IPV4 | L.HASH_TYPE_TCP_IPV4 | L.HASH_TYPE_UDP_IPV4;
const HASH6_TCP: u32 = L.HASH_TYPE_TCP_IPV6 | L.HASH_TYPE_TCP_IPV6_EX;
const HASH6_UDP: u32 = L.HASH_TYPE_UDP_IPV6 | L.HASH_TYPE_UDP_IPV6_EX;
const HASH6_PLAIN: u32 = L.HASH_TYPE_IPV6 | L.HASH_TYPE_IPV6_EX;

const ADDRESS: u64 = 0xffffffffffff;
const FILTERS: u32 = L.PORT_OPTION_MAC_FILTER | L.PORT_OPTION_GROUP_FILTER | L.PORT_OPTION_VLAN_FILTER;
const PARSED: u32 = L.PORT_OPTION_PACKET_TYPE | L.PORT_OPTION_HASH;

/** Adds a packet (or with `by` -1 takes it back) to the counters of its kind and size that begin at `kinds`. */
@inline
export function countKind(kinds: u32, data: u32, bytes: u32, by: u64): void {
  if (load<u8>(data) & 1) {
    const broadcast = (load<u64>(data) & ADDRESS) == ADDRESS;
    const cell = kinds + (broadcast ? 8 : 0);
    store<u64>(cell, load<u64>(cell) + by);
  }
  countSize(kinds, bytes, by);
}

@inline
function countSize(kinds: u32, bytes: u32, by: u64): void {
  // 2: below 64; 3: 64; then a power of two each up to 1023; 8: up to 1518; 9: more.
  let kind: u32;
  if (bytes < 65) kind = bytes == 64 ? 3 : 2;
  else if (bytes < 1024) kind = 29 - clz(bytes);
  else kind = bytes < 1519 ? 8 : 9;
  const cell = kinds + (kind << 3);
  store<u64>(cell, load<u64>(cell) + by);
}

/** PACKET_TYPE of the packet that parseHead() saw last (`ip`: its result). */
export function packetType(data: u32, bytes: u32, ip: bool): u32 {
  if (bytes < 14) return 0;
  const outer = load16(data + 12);
  const layer2 = outer == 0x8100 ? L2_VLAN : outer == 0x88a8 ? L2_QINQ : outer == 0x0806 ? L2_ARP : L2_ETHER;
  if (!ip) return layer2;
  const layer3 = family == 4 ? (l4 - l3 > 20 ? L3_IPV4_EXT : L3_IPV4) : l4 - l3 > 40 ? L3_IPV6_EXT : L3_IPV6;
  let layer4 = L4_NONFRAG;
  if (fragment) layer4 = L4_FRAG;
  else if (protocol == PROTOCOL_TCP) layer4 = L4_TCP;
  else if (protocol == PROTOCOL_UDP) layer4 = L4_UDP;
  else if (protocol == SCTP) layer4 = L4_SCTP;
  else if (protocol == (family == 4 ? ICMP : ICMPV6)) layer4 = L4_ICMP;
  return layer2 | layer3 | layer4;
}

/** PACKET_TYPE of what most packets are, TCP or UDP over IPv4 without tags, options and fragments; 0 = it is something else, or
 *  cut off. Two loads: parseHead() takes ten times as long (docs/bench.md). `bytes` of the packet are at `data`. */
@inline
function quickType(data: u32, bytes: u32): u32 {
  if (bytes < 34) return 0;
  if ((load<u32>(data, 12) & 0xffffff) != 0x450008) return 0;
  // Total length, identification, flags and offset, time to live, protocol.
  const rest = load<u64>(data, 16);
  if ((<u32>(rest >>> 32) & 0xff3f) != 0) return 0;
  if (<u32>bswap<u16>(<u16>rest) < 20) return 0;
  const next = <u32>(rest >>> 56);
  if (next == PROTOCOL_TCP) return L2_ETHER | L3_IPV4 | L4_TCP;
  return next == PROTOCOL_UDP ? L2_ETHER | L3_IPV4 | L4_UDP : 0;
}

/** Hashes the IP packet that parseHead() saw last, as receive-side scaling does. False: none of the types covers it. */
function hashPacket(port: u32, mbuf: u32, data: u32, bytes: u32): bool {
  const types = load<u32>(port, L.GUEST_PORT_HASH_TYPES);
  const whole = !fragment && l4 + 4 <= bytes;
  const tcp = whole && protocol == PROTOCOL_TCP;
  const udp = whole && protocol == PROTOCOL_UDP;
  let size: u32;
  let from: u32;
  let ports: u32;
  let plain: u32;
  if (family == 4) {
    size = 8;
    from = data + l3 + 12;
    ports = types & (tcp ? L.HASH_TYPE_TCP_IPV4 : udp ? L.HASH_TYPE_UDP_IPV4 : 0);
    plain = types & L.HASH_TYPE_IPV4;
  } else {
    size = 32;
    from = data + l3 + 8;
    ports = types & (tcp ? HASH6_TCP : udp ? HASH6_UDP : 0);
    plain = types & HASH6_PLAIN;
  }
  if (ports == 0 && plain == 0) return false;
  const input = scratch + L.SCRATCH_TOEPLITZ_INPUT;
  copyBytes(input, from, size);
  if (ports != 0) {
    store<u32>(input + size, load<u32>(data + l4));
    size += 4;
  }
  store<u32>(mbuf, toeplitz(load<u32>(port, L.GUEST_PORT_HASH_KEY), input, size), L.MBUF_HASH);
  return true;
}

@inline
function listed(list: u32, entries: u32, address: u64): bool {
  for (const end = list + (entries << 3); list != end; list += 8) if (load<u64>(list) == address) return true;
  return false;
}

/** In place of an address of 48 bits. */
const ANY: u64 = 0xffffffffffffffff;
const NONE: u64 = ~ADDRESS;

/** The unicast address that is wanted, the first one if there is a list. */
@inline
function ownAddress(filter: u32, options: u32): u64 {
  if ((options & L.PORT_OPTION_MAC_FILTER) == 0) return ANY;
  return load<u32>(filter, L.RX_FILTER_MAC_COUNT) == 0 ? NONE : load<u64>(load<u32>(filter, L.RX_FILTER_MACS));
}

/** False: a software filter keeps the packet out. */
function wanted(filter: u32, options: u32, data: u32, flags: u32, tci: u32): bool {
  if (options & L.PORT_OPTION_VLAN_FILTER && flags & L.PACKET_FLAG_VLAN) {
    // Tag 0 is no VLAN, only a priority.
    const id = tci & 0xfff;
    if (id != 0 && ((load<u8>(load<u32>(filter, L.RX_FILTER_VLANS) + (id >>> 3)) >>> <u8>(id & 7)) & 1) == 0) return false;
  }
  const address = load<u64>(data) & ADDRESS;
  if ((<u32>address & 1) == 0) {
    if ((options & L.PORT_OPTION_MAC_FILTER) == 0) return true;
    return listed(load<u32>(filter, L.RX_FILTER_MACS), load<u32>(filter, L.RX_FILTER_MAC_COUNT), address);
  }
  if ((options & L.PORT_OPTION_GROUP_FILTER) == 0 || address == ADDRESS) return true;
  return listed(load<u32>(filter, L.RX_FILTER_GROUPS), load<u32>(filter, L.RX_FILTER_GROUP_COUNT), address);
}

/** Puts the tag back into the data, as far as there is room around it; else it stays beside the packet. */
function insertTag(mbuf: u32, flags: u32): void {
  const data = load<u32>(mbuf, L.MBUF_DATA);
  const bytes = load<u32>(mbuf, L.MBUF_DATA_LENGTH);
  const buffer = load<u32>(mbuf, L.MBUF_BUFFER);
  let to = data;
  if (data - buffer >= 4) {
    to -= 4;
    memory.copy(to, data, 12);
    store<u32>(mbuf, to, L.MBUF_DATA);
  } else if (data + bytes + 4 <= buffer + load<u32>(mbuf, L.MBUF_ROOM)) memory.copy(data + 16, data + 12, bytes - 12);
  else return;
  store16(to + 12, 0x8100);
  store16(to + 14, load<u32>(mbuf, L.MBUF_VLAN_TCI));
  store<u32>(mbuf, bytes + 4, L.MBUF_DATA_LENGTH);
  store<u32>(mbuf, load<u32>(mbuf, L.MBUF_PACKET_LENGTH) + 4, L.MBUF_PACKET_LENGTH);
  store<u32>(mbuf, flags & ~L.PACKET_FLAG_VLAN, L.MBUF_FLAGS);
  const offset = load<u32>(mbuf, L.MBUF_L4_OFFSET);
  if (offset != 0) store<u32>(mbuf, offset + 4, L.MBUF_L4_OFFSET);
}

/** What a port does to `n` received packets before it hands them out. Returns how many are left. */
export function classify(port: u32, handles: u32, n: u32): u32 {
  const options = load<u32>(port, L.GUEST_PORT_OPTIONS);
  const filter = load<u32>(port, L.GUEST_PORT_FILTER);
  const kinds = port + L.GUEST_PORT_RX_MULTICAST_PACKETS;
  const simple = (options & (PARSED | L.PORT_OPTION_VLAN_FILTER)) == L.PORT_OPTION_PACKET_TYPE;
  const own = ownAddress(filter, options);
  let left: u32 = 0;
  let total: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    const data = load<u32>(mbuf, L.MBUF_DATA);
    let flags = load<u32>(mbuf, L.MBUF_FLAGS);
    if (simple && (flags & L.PACKET_FLAG_VLAN) == 0) {
      // Most packets: to the port's own address, of the usual kind.
      const address = load<u64>(data) & ADDRESS;
      const type = quickType(data, load<u32>(mbuf, L.MBUF_DATA_LENGTH));
      if (type != 0 && (address & 1) == 0 && (own == ANY || own == address)) {
        const bytes = load<u32>(mbuf, L.MBUF_PACKET_LENGTH);
        store<u32>(mbuf, type, L.MBUF_PACKET_TYPE);
        countSize(kinds, bytes, 1);
        total += bytes;
        if (left != i) store<u32>(handles + (left << 2), mbuf);
        left++;
        continue;
      }
    }
    if (options & FILTERS && !wanted(filter, options, data, flags, load<u32>(mbuf, L.MBUF_VLAN_TCI))) {
      freeChain(mbuf);
      continue;
    }
    if (options & PARSED) {
      const bytes = load<u32>(mbuf, L.MBUF_DATA_LENGTH);
      const ip = parseHead(data, bytes, load<u32>(mbuf, L.MBUF_PACKET_LENGTH));
      if (options & L.PORT_OPTION_PACKET_TYPE) store<u32>(mbuf, packetType(data, bytes, ip), L.MBUF_PACKET_TYPE);
      if (options & L.PORT_OPTION_HASH && ip && (flags & L.PACKET_FLAG_HASH) == 0 && hashPacket(port, mbuf, data, bytes)) {
        flags |= L.PACKET_FLAG_HASH;
        store<u32>(mbuf, flags, L.MBUF_FLAGS);
      }
    }
    if (options & L.PORT_OPTION_KEEP_TAG && flags & L.PACKET_FLAG_VLAN) insertTag(mbuf, flags);
    const bytes = load<u32>(mbuf, L.MBUF_PACKET_LENGTH);
    countKind(kinds, load<u32>(mbuf, L.MBUF_DATA), bytes, 1);
    total += bytes;
    store<u32>(handles + (left << 2), mbuf);
    left++;
  }
  count(port + L.GUEST_PORT_RX_PACKETS, left);
  count(port + L.GUEST_PORT_RX_BYTES, total);
  if (left != n) count(port + L.GUEST_PORT_RX_FILTERED, n - left);
  return left;
}
